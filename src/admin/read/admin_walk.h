/* The walk: every record of the log, then of the segments that count, in the order of their
 * numbers, each verified. So of a record that lies in two places (a move was under way) the later
 * one that is shown is the one that a server would read. Damage is reported, and what is sound
 * around it is shown. */
#ifndef MINIVAULT_ADMIN_ADMIN_WALK_H
#define MINIVAULT_ADMIN_ADMIN_WALK_H

#include "admin/read/admin.h"
#include "store/record/record.h"

struct walk_found {
    uint32_t file; /* index in the catalog */
    uint64_t offset;
    uint32_t size; /* bytes of the record, unpadded */
    uint8_t partition;
    uint64_t hash; /* hash_index */
    struct version version;
    bool tombstone;
    bool in_value_file;
    const struct record *record; /* NULL: only its entry in a directory was read */
};

/* What is shown is valid until it returns. Stops the walk when not 0. */
typedef int walk_each(void *context, const struct walk_found *found);

struct walk {
    struct admin *admin;
    bool only_directories; /* of the segments: not their records */
    bool is_repeated;      /* damage was reported by an earlier walk; not what `each` reports */
    walk_each *each;
    void *context;
};

/* Errors: -errno (reported, but for -ENOMEM); what `each` returned. */
int admin_walk(const struct walk *walk);

/* Of it, the log of a shard of `admin`, the walk's: each record is given to walk_show, with the
 * number of its file in the catalog. */
int admin_walk_log(const struct walk *walk, struct admin *admin, struct admin_shard *shard);
uint32_t walk_partition(const struct walk *walk, const struct record *record);
int walk_show(const struct walk *walk, uint32_t file, uint64_t offset, const struct record *record);

/* Bytes that a walk reads, at most. */
uint64_t admin_walk_size(const struct admin *admin);

/* Reads a record that a walk has shown again. `ret_memory`, malloc'ed, holds it. Errors: -errno. */
int admin_read_record(const struct admin *admin, uint32_t file, uint64_t offset, uint32_t size,
                      uint8_t **ret_memory, struct record *ret_record);

#endif
