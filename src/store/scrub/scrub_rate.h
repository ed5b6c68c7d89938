/* How fast the scrubber reads: every read is paid for with time, and the next one waits until it is. */
#ifndef MINIVAULT_STORE_SCRUB_RATE_H
#define MINIVAULT_STORE_SCRUB_RATE_H

#include "store/scrub/scrub.h"

/* What a step of a part of the scrubber comes to. */
enum scrub_progress {
    SCRUB_WAITS, /* for the disk or the time */
    SCRUB_GOES_ON,
    SCRUB_OVER,
};

/* What was read of a file. */
struct scrub_window {
    uint8_t *data;
    uint64_t offset; /* in the file */
    uint32_t asked;
    uint32_t size; /* valid bytes */
    int error;     /* of the read */
};

struct scrub_rate {
    struct io *io;
    const struct scrub_options *options;
    struct io_op timer;
    uint64_t paid_ns; /* what was read is paid for by then */
    uint64_t disk_used;
    uint64_t disk_asked_ns; /* when disk_used was found out */
    uint64_t rate;          /* bytes a second */
    uint64_t bytes;         /* read since the start */
};

void scrub_rate_init(struct scrub_rate *rate, struct io *io, const struct scrub_options *options);

/* Whether another read may begin; if not, the timer was set. */
bool scrub_rate_may_read(struct scrub_rate *rate);

/* So many bytes are asked of the disk. */
void scrub_rate_pay(struct scrub_rate *rate, uint64_t size);

/* So many came. */
void scrub_rate_count(struct scrub_rate *rate, uint64_t size);

void scrub_rate_sleep(struct scrub_rate *rate, uint64_t deadline_ns);
void scrub_rate_wake(struct scrub_rate *rate);
bool scrub_rate_is_asleep(const struct scrub_rate *rate);

/* Rate and bytes. */
void scrub_rate_stats(const struct scrub_rate *rate, struct scrub_stats *stats);

#endif
