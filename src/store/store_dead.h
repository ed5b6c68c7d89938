/* What died: records whose key was written again, and the value files that they named.
 *
 * A record's file is told at once, so that the mover knows what its space is worth. A value file
 * goes once the record that killed it is durable, and no other shard is about to open it.
 *
 * Invariants: (1) a file that was lent stays until it was taken back as often as it was lent; (2)
 * a file is removed once: by dead_flush, or by the last store_take_back_file when its time had
 * come meanwhile. */
#ifndef MINIVAULT_STORE_STORE_DEAD_H
#define MINIVAULT_STORE_STORE_DEAD_H

#include "base/list.h"
#include "store/key_place.h"
#include "store/segment/segments.h"
#include "store/value/value_file.h"
#include "store/wal/wal.h"

#include <stdbool.h>
#include <stdint.h>

struct stream_pool;

struct dead {
    struct wal *wal; /* this and the next two are set once the store has all of its parts */
    struct segments *segments;
    struct stream_pool *streams;
    struct list loans;    /* value files that other shards open just now */
    struct list removals; /* value files that died, until that is durable */
};

void dead_init(struct dead *dead);
void dead_deinit(struct dead *dead);

/* The record that a slot led to is no longer alive, because of the record at `killer_position`.
 * `file`: of one whose value lies in a file, that file, or NULL: it is not known, since the record
 * cannot be read; the next start removes it. */
void dead_record(struct dead *dead, const struct index_entry *old,
                 const struct value_file_name *file, uint64_t killer_position);

/* Removes the files whose killers are durable. */
void dead_flush(struct dead *dead);

#endif
