/* Passes, the rate, from phase to phase. */
#include "store/scrub/scrub_internal.h"

#include <errno.h>
#include <stdlib.h>

/* Passes of a disk that is read sooner than needed do not begin more often than that. Whoever names
 * a rate wants no more rest than keeps an idle server asleep. */
#define PASS_NS_MIN_AUTO (3600 * NS_PER_S)
#define PASS_REST_NS NS_PER_S

/* How often the size of what is on the disk is asked for. */
#define DISK_ASK_NS (60 * NS_PER_S)

/* ---- the rate ---- */

static uint64_t rate_of(const struct scrub *scrub)
{
    uint64_t rate = max_u64(SCRUB_RATE_MIN, scrub->disk_used / (SCRUB_PASS_NS / NS_PER_S));
    return rate / max_u64(scrub->options.shard_count, 1);
}

/* Value files are in no account of ours: the whole file system's bytes are at least as many. */
static uint64_t rate_of_disk(struct scrub *scrub)
{
    uint64_t now_ns = io_now_ns(scrub->io);
    uint64_t free_size, total_size;
    if (scrub->disk_asked_ns != 0 && now_ns - scrub->disk_asked_ns < DISK_ASK_NS)
        return rate_of(scrub);
    scrub->disk_asked_ns = max_u64(now_ns, 1);
    if (io_disk_space(scrub->io, scrub->options.path, &free_size, &total_size) == 0)
        scrub->disk_used = total_size > free_size ? total_size - free_size : 0;
    return rate_of(scrub);
}

static uint64_t price_ns(struct scrub *scrub, uint64_t size)
{
    static_assert(SCRUB_WINDOW_SIZE * NS_PER_S < UINT64_MAX / 1024, "a price does not overflow");
    assert(size <= SCRUB_WINDOW_SIZE);
    scrub->stats.rate =
        scrub->options.rate == SCRUB_AUTO ? rate_of_disk(scrub) : scrub->options.rate;
    return size * NS_PER_S / scrub->stats.rate;
}

static void woken(struct io_op *op, int32_t result)
{
    (void)op;
    (void)result;
}

static void sleep_until(struct scrub *scrub, uint64_t deadline_ns)
{
    scrub->timer.done = woken;
    io_timer(scrub->io, &scrub->timer, deadline_ns);
}

/* Small reads go on until a window's worth is owed, so that a server that is idle otherwise is not
 * woken for each of them. */
bool scrub_may_read(struct scrub *scrub)
{
    uint64_t now_ns = io_now_ns(scrub->io);
    if (scrub->paid_ns < now_ns + price_ns(scrub, SCRUB_WINDOW_SIZE))
        return true;
    sleep_until(scrub, scrub->paid_ns);
    return false;
}

void scrub_pay(struct scrub *scrub, uint64_t size)
{
    uint64_t from_ns = max_u64(scrub->paid_ns, io_now_ns(scrub->io));
    scrub->paid_ns = from_ns + price_ns(scrub, max_u64(size, DISK_BLOCK_SIZE));
}

/* ---- the next file ---- */

static void begin_pass(struct scrub *scrub)
{
    scrub->pass_began_ns = io_now_ns(scrub->io);
    scrub->place = 0;
    scrub->number_last = 0;
    scrub->log_last = wal_number(scrub->options.wal);
    scrub->is_pass_incomplete = false;
    scrub_meta_begin(scrub);
}

static void end_pass(struct scrub *scrub)
{
    uint64_t now_ns = io_now_ns(scrub->io);
    scrub_report_pass(scrub);
    scrub->stats.passes++;
    scrub->pass_ended_ns = now_ns;
    scrub->pass_next_ns = now_ns + PASS_REST_NS;
    if (scrub->options.rate == SCRUB_AUTO)
        scrub->pass_next_ns = max_u64(scrub->pass_next_ns, scrub->pass_began_ns + PASS_NS_MIN_AUTO);
    scrub->phase = SCRUB_RESTING;
}

/* The segment of this partition with the lowest number above the last one. */
static bool next_segment(struct scrub *scrub, uint8_t partition, struct scrub_file *ret_file)
{
    const struct list *list = segments_of(scrub->options.segments, partition);
    for (struct list_node *node = list_first(list); node != NULL; node = list_next(list, node)) {
        const struct segment *segment = container_of(node, struct segment, partition_node);
        if (segment->number <= scrub->number_last || segment->end <= SEGMENT_DATA_OFFSET)
            continue;
        struct mover_stats moved;
        mover_stats(scrub->options.mover, &moved);
        *ret_file = (struct scrub_file){
            .is_segment = true,
            .partition = partition,
            .file = segment->file,
            .number = segment->number,
            .salt = segment->salt,
            .end = segment->end,
            .jobs_begin = mover_is_busy(scrub->options.mover) ? UINT64_MAX : moved.jobs,
        };
        return true;
    }
    return false;
}

/* The log's next file with anything alive in it, as far as it is on the disk. */
static bool next_log_file(const struct scrub *scrub, struct scrub_file *ret_file)
{
    struct wal_sealed next;
    if (!wal_next_readable(scrub->options.wal, scrub->number_last, scrub->log_last, &next))
        return false;
    *ret_file = (struct scrub_file){
        .file = next.file,
        .number = next.number,
        .salt = next.salt,
        .end = next.end,
    };
    return true;
}

static bool next_in_place(struct scrub *scrub)
{
    if (scrub->place == 0)
        return next_log_file(scrub, &scrub->file);
    uint32_t partition = (scrub->partition_first + scrub->place - 1) % SCRUB_PARTITIONS;
    return next_segment(scrub, (uint8_t)partition, &scrub->file);
}

static bool choose(struct scrub *scrub)
{
    while (!next_in_place(scrub)) {
        if (scrub->place == SCRUB_PARTITIONS) {
            end_pass(scrub);
            return true;
        }
        scrub->place++;
        scrub->number_last = 0;
    }
    scrub->number_last = scrub->file.number;
    scrub->window.asked = 0;
    scrub->window.size = 0;
    scrub->phase = SCRUB_CHECKING;
    return true;
}

/* ---- from phase to phase ---- */

static bool check(struct scrub *scrub, uint64_t budget)
{
    if (!scrub_file_is_there(scrub)) {
        scrub->phase = SCRUB_CHOOSING;
        return true;
    }
    for (uint64_t used = 0; used < budget;) {
        switch (scrub_check_next(scrub, &used)) {
        case SCRUB_CHECK_MORE:
            break;
        case SCRUB_CHECK_LOAD:
            scrub->phase = SCRUB_LOADING;
            return true;
        case SCRUB_CHECK_VALUE:
            scrub->phase = SCRUB_VALUE_OPENING;
            return true;
        case SCRUB_CHECK_END:
            scrub->phase = SCRUB_CHOOSING;
            return true;
        }
    }
    return true;
}

/* Returns whether it waits for nothing: the file may have gone meanwhile. */
static bool load(struct scrub *scrub)
{
    if (!scrub_file_is_there(scrub)) {
        scrub->phase = SCRUB_CHOOSING;
        return true;
    }
    if (scrub_may_read(scrub))
        scrub_load(scrub);
    return false;
}

static bool rest(struct scrub *scrub)
{
    if (io_now_ns(scrub->io) < scrub->pass_next_ns) {
        sleep_until(scrub, scrub->pass_next_ns);
        return false;
    }
    begin_pass(scrub);
    return true;
}

/* Nothing is in flight. */
static void stop(struct scrub *scrub)
{
    bool is_open = scrub->phase == SCRUB_VALUE_READING || scrub->phase == SCRUB_VALUE_CHECKING ||
                   scrub->phase == SCRUB_VALUE_CLOSING;
    if (is_open) {
        scrub->phase = SCRUB_VALUE_CLOSING;
        (void)scrub_value_step(scrub, 0);
        return;
    }
    if (scrub->phase == SCRUB_META && scrub_meta_stop(scrub))
        return;
    scrub->phase = SCRUB_STOPPED;
}

bool scrub_step(struct scrub *scrub, uint64_t budget)
{
    if (scrub == NULL)
        return false;
    scrub_meta_settle(scrub);
    if (io_op_is_active(&scrub->timer) || io_op_is_active(&scrub->op) || scrub->is_pinning)
        return false;
    if (scrub->is_stopping) {
        stop(scrub);
        return false;
    }
    switch (scrub->phase) {
    case SCRUB_RESTING:
        return rest(scrub);
    case SCRUB_META:
        return scrub_meta_step(scrub, budget);
    case SCRUB_CHOOSING:
        return choose(scrub);
    case SCRUB_CHECKING:
        return check(scrub, budget);
    case SCRUB_LOADING:
        return load(scrub);
    case SCRUB_VALUE_OPENING:
    case SCRUB_VALUE_READING:
    case SCRUB_VALUE_CHECKING:
    case SCRUB_VALUE_CLOSING:
        return scrub_value_step(scrub, budget);
    case SCRUB_STOPPED:
        break;
    }
    return false;
}

/* ---- beginning and end ---- */

int scrub_create(struct io *io, const struct log *log, const struct scrub_options *options,
                 struct scrub **ret_scrub)
{
    assert(options->rate != SCRUB_OFF);
    struct scrub *scrub = calloc(1, sizeof *scrub);
    if (scrub == NULL)
        return -ENOMEM;
    scrub->places = calloc(SCRUB_PLACES_MAX, sizeof *scrub->places);
    if (scrub->places == NULL) {
        free(scrub);
        return -ENOMEM;
    }
    uint8_t chance;
    io_random(io, &chance, sizeof chance);
    scrub->io = io;
    scrub->log = log;
    scrub->options = *options;
    scrub->partition_first = chance;
    scrub->pass_ended_ns = io_now_ns(io);
    scrub->window.data = options->memory;
    scrub->value.buffer = options->memory + SCRUB_WINDOW_SIZE;
    scrub->phase = SCRUB_RESTING;
    (void)price_ns(scrub, 0);
    *ret_scrub = scrub;
    return 0;
}

void scrub_stop(struct scrub *scrub)
{
    if (scrub == NULL)
        return;
    scrub->is_stopping = true;
    io_cancel(scrub->io, &scrub->timer);
}

bool scrub_is_busy(const struct scrub *scrub)
{
    return scrub != NULL && (scrub->phase != SCRUB_STOPPED || io_op_is_active(&scrub->timer));
}

void scrub_free(struct scrub *scrub)
{
    if (scrub == NULL)
        return;
    free(scrub->places);
    free(scrub);
}

void scrub_stats(const struct scrub *scrub, struct scrub_stats *ret_stats)
{
    *ret_stats = (struct scrub_stats){0};
    if (scrub == NULL)
        return;
    *ret_stats = scrub->stats;
    ret_stats->pass_age_s = (io_now_ns(scrub->io) - scrub->pass_ended_ns) / NS_PER_S;
}
