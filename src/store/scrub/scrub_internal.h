/* The scrubber as a whole: for scrub.c, and for tests. */
#ifndef MINIVAULT_STORE_SCRUB_INTERNAL_H
#define MINIVAULT_STORE_SCRUB_INTERNAL_H

#include "store/scrub/scrub_file.h"
#include "store/scrub/scrub_meta.h"

enum scrub_phase {
    SCRUB_RESTING,  /* until the next pass */
    SCRUB_META,     /* what the directory is lost without */
    SCRUB_CHOOSING, /* the next file */
    SCRUB_FILE,
    SCRUB_STOPPED,
};

struct scrub {
    struct io *io;
    struct scrub_options options;
    enum scrub_phase phase;
    bool is_stopping;
    struct scrub_rate rate;
    struct scrub_meta meta;
    struct scrub_file file;
    /* the pass */
    uint64_t pass_next_ns;
    uint64_t pass_began_ns;
    uint64_t pass_ended_ns; /* the last complete one; without any: the start */
    uint32_t partition_first;
    uint32_t group;       /* 0: the log, then the partitions in order from partition_first */
    uint64_t number_last; /* of the file before, in this group */
    uint64_t log_last;    /* number of the log's last file when the pass began */
};

#endif
