/* The mover's stage: what a job carries, from its being read to the index knowing where it lies.
 *
 *   add: a live record is copied into memory -> fill: it goes into a chunk -> apply: the index and
 *   the accounts learn of its new location
 *
 * The arena has the records of a round, the table those of all rounds of the job. What dies on its
 * way arrives dead: its slot goes, if the set of the dead (doomed.h) knows of it. */
#ifndef MINIVAULT_STORE_MOVER_STAGE_H
#define MINIVAULT_STORE_MOVER_STAGE_H

#include "store/mover/mover.h"
#include "store/record/record.h"
#include "store/unit/unit.h"

#include <errno.h>

#define MOVER_PARTITIONS 256u
#define MOVER_CHUNK_SIZE ((uint32_t)(512 * KIB)) /* the largest that is written */

/* What looking one record up costs of a step's budget, which counts bytes. */
#define MOVER_LOOK_COST 256u

/* So many records are located before they are looked up, so that their misses overlap. */
#define MOVER_AHEAD 16u
#define MOVER_NEAR 8u /* and their slots loaded */

/* One record of an input. `data` is its bytes in the window. */
struct mover_record {
    struct record record;
    const uint8_t *data;
    uint64_t hash;
    uint64_t location;
    uint8_t partition;
    uint32_t size;  /* unpadded */
    bool is_hidden; /* its hash has a newer slot: it may be dead, which is not proved yet */
};

struct staged {
    struct segment_entry entry; /* record_size 0: a tombstone to be purged */
    uint64_t mark;
    uint64_t old_location;
    uint64_t new_location; /* once written */
    uint32_t offset;       /* in the arena, during its round */
    uint32_t next : 24;    /* of the same partition, as an index + 1 */
    uint32_t partition : 8;
};
static_assert(sizeof(struct staged) == 64, "a cache line: there are many");

struct mover_stage {
    const struct mover_options *options;
    struct mover_stats *stats;
    uint8_t *arena;
    uint64_t arena_size;
    uint64_t arena_used;
    uint64_t bytes; /* of all rounds */
    struct staged *records;
    uint32_t count;
    uint32_t capacity;
    uint32_t written_count;             /* records that lie in chunks, or are to be purged */
    uint32_t first[MOVER_PARTITIONS];   /* of the round; index + 1; 0: none */
    uint32_t last[MOVER_PARTITIONS];    /* the same */
    uint64_t created[MOVER_PARTITIONS]; /* whatever kills one of the records is newer */
    uint32_t fill_partition;            /* of the next chunk */
    uint32_t fill_next;                 /* its next record; index + 1; 0: none */
    uint32_t apply_next;
};

static inline bool mover_is_full(int error)
{
    return error == -ENOSPC || error == -EDQUOT;
}

/* ---- records of inputs ---- */

/* Says where in the index the record has its place, which begins to be loaded: a record of the log
 * file `file`, or of the segment with this file and partition. */
void mover_record_locate(const struct mover_options *options, bool is_segment, uint32_t file,
                         uint8_t partition, const struct unit_record *found,
                         struct mover_record *ret_record);

/* A little later: loads its slots. */
void mover_record_prefetch(const struct mover_options *options, const struct mover_record *record);

/* Returns 1: the record is alive, and decoded; 0: it is not. What is known to be dead loses its
 * slot. Errors: -EBADMSG, it is damaged, at `ret_offset` of its file. */
int mover_record_judge(const struct mover_options *options, struct mover_stats *stats,
                       struct mover_record *record, uint64_t *ret_offset);

/* ---- records come ---- */

/* The options and the counters stay the owner's. */
void mover_stage_init(struct mover_stage *stage, const struct mover_options *options,
                      struct mover_stats *stats);

/* For a job. `arena_size`: bytes of a round. `created`: a log position that is durable: what a
 * record that is alive now dies of is newer. Errors: -ENOMEM. */
int mover_stage_open(struct mover_stage *stage, uint64_t arena_size, uint64_t created);

/* Forgets the records. The memory stays for the next job: getting 32 MiB from the kernel anew each
 * time costs as much as a tenth of the job. */
void mover_stage_close(struct mover_stage *stage);
void mover_stage_free(struct mover_stage *stage);

/* Copies the record; a tombstone that nothing needs any more is only noted. Returns what it costs
 * of a step's budget; 0: there is no room for it in this round. */
uint64_t mover_stage_add(struct mover_stage *stage, const struct mover_record *record);

/* Whether this tombstone, of the present input, need not be carried on. */
bool mover_stage_may_purge(const struct mover_stage *stage, const struct mover_record *record);

/* Whether a job of at most `job_limit` bytes has no further round. */
bool mover_stage_is_full(const struct mover_stage *stage, uint64_t job_limit);

/* Whether nothing was found that is alive. */
bool mover_stage_is_empty(const struct mover_stage *stage);

/* ---- into chunks ---- */

/* The round is complete: its records go into chunks, one partition after the other. */
void mover_stage_begin_fill(struct mover_stage *stage);

/* The partition of the next chunk, MOVER_PARTITIONS: all of the round are filled. */
uint32_t mover_stage_fill_partition(struct mover_stage *stage);

/* A log position: what kills a record of this partition that is carried is newer. */
uint64_t mover_stage_created(const struct mover_stage *stage, uint32_t partition);

/* Makes the next chunk, which will lie at `offset` of the segment's file `file`: all but its header
 * in `chunk` (MOVER_CHUNK_SIZE bytes), the header's count and size of records in `ret_header`.
 * `ret_read_bytes`: the records' bytes as the index knows them. Returns the chunk's size. */
uint64_t mover_stage_fill(struct mover_stage *stage, uint32_t file, uint64_t offset, uint8_t *chunk,
                          struct segment_chunk_header *ret_header, uint64_t *ret_read_bytes);

/* All of the round is in chunks that are written: there is room for another one. */
void mover_stage_next_round(struct mover_stage *stage);

/* ---- into the index ---- */

/* What was filled is durable, and the manifest knows. Works off about `budget` bytes' worth.
 * Returns whether that was all. */
bool mover_stage_apply(struct mover_stage *stage, uint64_t budget);

#endif
