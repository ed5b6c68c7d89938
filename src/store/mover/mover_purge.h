/* Rounds for tombstones: which segments are compacted so that tombstones can go, and when the log
 * is emptied for them (mover_purge.c tells why). */
#ifndef MINIVAULT_STORE_MOVER_PURGE_H
#define MINIVAULT_STORE_MOVER_PURGE_H

#include "store/mover/mover_write.h"

enum mover_purge_stage { MOVER_PURGE_NONE, MOVER_PURGE_OLD, MOVER_PURGE_YOUNG };

struct mover_purge {
    struct io *io;
    const struct mover_options *options;
    struct mover_outputs *outputs;
    enum mover_purge_stage stage;
    uint64_t number_last; /* the stage's segments: their numbers are not above */
    uint64_t log_first;   /* position that the log began with at the last round's begin */
    uint64_t quiet_last;  /* the log's last position, as of the last look */
    uint64_t quiet_ns;    /* from when on it has been quiet since then */
    bool is_emptying;     /* the log, while it is quiet */
    bool is_in[MOVER_PARTITIONS];
};

/* The options and the outputs stay the owner's. */
void mover_purge_init(struct mover_purge *purge, struct io *io, const struct mover_options *options,
                      struct mover_outputs *outputs);

/* Whether the segment may be an input of this job, or of the next one where none is under way. */
bool mover_is_usable(const struct mover_outputs *outputs, const struct segment *segment,
                     uint64_t job);

/* Whether a compaction, `job`, is due for tombstones. Begins rounds and ends them; between two
 * jobs. */
bool mover_purge_is_due(struct mover_purge *purge, uint64_t job);

/* The next segment that the round wants compacted by this job. NULL: none now. */
struct segment *mover_purge_victim(const struct mover_purge *purge, uint64_t job);

/* Whether nothing was written for a while. */
bool mover_purge_log_is_quiet(struct mover_purge *purge);

/* Whether nothing was written for a while, and tombstones outnumber what is alive. */
bool mover_purge_is_hollow(struct mover_purge *purge);

/* Whether all of the log is to be moved, so that tombstones can be purged. */
bool mover_purge_empties_log(struct mover_purge *purge);

#endif
