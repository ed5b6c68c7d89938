/* What segments.c and segments_handle.c share. */
#ifndef MINIVAULT_STORE_SEGMENTS_INTERNAL_H
#define MINIVAULT_STORE_SEGMENTS_INTERNAL_H

#include "base/assert.h"
#include "store/segment/segments.h"

#define SEGMENTS_PARTITIONS 256u

struct segments {
    struct io *io;
    const struct log *log;
    struct segments_options options;
    struct segment **files;   /* by file; NULL: free */
    struct segment **all;     /* by rank, without the removed ones: first those in the manifest */
    struct segment **numbers; /* buckets of the hash table */
    uint32_t capacity;        /* of each of these: a power of two */
    uint32_t count;           /* in `all` */
    uint32_t named_count;     /* of these, in the manifest */
    uint32_t place_count;     /* in `files` */
    uint32_t place_next;      /* where the search for a free one goes on */
    struct list partitions[SEGMENTS_PARTITIONS];
    struct list empty; /* in the manifest, nothing alive */
    struct list idle;  /* open and unpinned, least recently used first */
    struct list going; /* their files are to be removed: the first one's is */
    struct io_op going_pause;
    uint32_t going_count;
    uint64_t going_ns; /* no further piece before */
    bool is_hurried;
    uint64_t pin_count;
    uint32_t open_count; /* also those being opened */
    struct segments_stats stats;
};

/* Closes, unlinks and frees a removed segment, as far as nobody pins it and nothing is under way:
 * called again when that changes. */
void segment_leave(struct segment *segment);

/* segments_remove.c: removes the closed file, when its turn comes; then segment_free. Its path is
 * kept. */
void segment_go(struct segment *segment);

/* Gives the place in the table back. */
void segment_free(struct segment *segment);

#endif
