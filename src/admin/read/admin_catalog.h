/* The catalog: every file of a data directory, and which segments and which checkpoint count, as
 * the manifest says. */
#ifndef MINIVAULT_ADMIN_ADMIN_CATALOG_H
#define MINIVAULT_ADMIN_ADMIN_CATALOG_H

#include "base/version.h"

#include <stdbool.h>
#include <stdint.h>

struct admin;

enum catalog_kind {
    CATALOG_SUPERBLOCK,
    CATALOG_MANIFEST,
    CATALOG_CHECKPOINT,
    CATALOG_LOG,
    CATALOG_SEGMENT,
    CATALOG_VALUE,
    CATALOG_SPACE, /* kept for a full disk, or for a measurement: no data */
    CATALOG_OTHER, /* not ours */
    CATALOG_KINDS,
};

struct catalog_file {
    char *name; /* relative to the data directory */
    enum catalog_kind kind;
    uint32_t shard; /* whose it is; of what lies in partitions, or is not ours: 0 */
    uint8_t partition;
    uint8_t source;
    bool is_leftover;       /* of a manifest or checkpoint that was never finished */
    bool counts;            /* a segment or checkpoint: the manifest names it; of others: it is not
                               of before a conversion that is decided */
    uint64_t size;          /* of the file */
    uint64_t number;        /* of a segment, checkpoint, or file of the log; of superblocks and
                               manifests in resharding/: 1 */
    uint64_t end;           /* of a segment that counts: bytes */
    uint64_t key_hash;      /* of a value file, XXH64 */
    struct version version; /* of a value file */
};

/* Sorted by kind, shard, number, partition, whether it is a leftover, version and name. */
struct catalog {
    struct catalog_file *files;
    uint32_t count;
    uint32_t capacity;
    uint32_t first[CATALOG_KINDS + 1]; /* where each kind begins */
};

/* Lists the directory. Errors: -errno, reported. */
int catalog_load(struct admin *admin);
void catalog_free(struct catalog *catalog);

/* The file, or NULL. Of a segment: the one that counts. catalog_find_state: of what a shard has. */
struct catalog_file *catalog_find(const struct catalog *catalog, enum catalog_kind kind,
                                  uint8_t partition, uint64_t number);
struct catalog_file *catalog_find_state(const struct catalog *catalog, enum catalog_kind kind,
                                        uint32_t shard, uint64_t number);
struct catalog_file *catalog_find_segment(const struct catalog *catalog, uint64_t number);
struct catalog_file *catalog_find_value(const struct catalog *catalog, uint8_t partition,
                                        struct version version);

/* Bytes of the files of a kind that count: of a segment up to its end. */
uint64_t catalog_size(const struct catalog *catalog, enum catalog_kind kind);

/* Of a kind whose files have shards: where in the catalog those of this shard lie. */
void catalog_range(const struct catalog *catalog, enum catalog_kind kind, uint32_t shard,
                   uint32_t *ret_first, uint32_t *ret_end);

struct admin_shard;

/* admin_manifest.c: marks the segments that count, reports those that are missing. Errors: as
 * above. */
int admin_take_manifest(struct admin *admin, struct admin_shard *shard);

/* Once all manifests are read: what is there and does not count. */
void admin_note_leftovers(struct admin *admin);

#endif
