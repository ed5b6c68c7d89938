/* The catalog: every file of a data directory, and which segments and which checkpoint count, as
 * the manifest says. */
#ifndef MINIVAULT_ADMIN_ADMIN_CATALOG_H
#define MINIVAULT_ADMIN_ADMIN_CATALOG_H

#include "base/version.h"

#include <stdbool.h>
#include <stdint.h>

struct admin;
struct admin_shard;
struct wal_scan_file;

enum catalog_kind {
    CATALOG_SUPERBLOCK,
    CATALOG_MANIFEST,
    CATALOG_CHECKPOINT,
    CATALOG_LOG,
    CATALOG_SEGMENT,
    CATALOG_VALUE,
    CATALOG_SPACE, /* kept for a full disk, for a measurement, or of the logs' ends: no data */
    CATALOG_OTHER, /* not ours */
    CATALOG_KINDS,
};

struct catalog_file {
    char *name; /* relative to the data directory */
    enum catalog_kind kind;
    uint32_t shard; /* whose it is; of what lies in partitions, or is not ours: 0 */
    uint8_t partition;
    bool is_leftover;       /* of a manifest or checkpoint that was never finished */
    bool counts;            /* a segment or checkpoint: the manifest names it; of others: it is not
                               of before a conversion that is decided */
    uint64_t size;          /* of the file */
    uint64_t number;        /* of a segment, checkpoint, or file of the log; of superblocks and
                               manifests in resharding/: 1 */
    uint64_t end;           /* of a segment that counts: bytes */
    struct version version; /* of a value file */
};

/* Sorted by kind, shard, number, partition, whether it is a leftover, version and name. */
struct catalog {
    struct catalog_file *files;
    uint32_t count;
    uint32_t capacity;
    uint32_t first[CATALOG_KINDS + 1]; /* where each kind begins */
};

/* Lists the directory. Errors: -errno, reported but for -ENOMEM. */
int catalog_load(struct admin *admin);
void catalog_free(struct catalog *catalog);

/* The file, or NULL. */
struct catalog_file *catalog_find_value(const struct catalog *catalog, uint8_t partition,
                                        struct version version);

/* The checkpoint that the shard's manifest names, or NULL. */
const struct catalog_file *catalog_find_checkpoint(const struct catalog *catalog,
                                                   const struct admin_shard *shard);

/* The name of the shard's superblock or manifest, or NULL. Of a file in resharding/ and the one in
 * its place, only the first counts. */
const char *catalog_choose(struct catalog *catalog, enum catalog_kind kind, uint32_t shard);

/* The segment counts up to `end`. Returns false when it is missing. */
bool catalog_count_segment(struct catalog *catalog, uint8_t partition, uint64_t number,
                           uint64_t end);

/* The end of the segment of this number, or 0: there is none that counts. */
uint64_t catalog_segment_end(const struct catalog *catalog, uint64_t number);

/* Whether the shard's partitions have segment files. */
bool catalog_has_segments(const struct admin *admin, uint32_t shard);

/* The files of the shard's log that count, malloc'ed, for survey and scan; and the size of the
 * largest. Errors: -ENOMEM. */
int catalog_list_log(const struct catalog *catalog, uint32_t shard,
                     struct wal_scan_file **ret_files, uint32_t *ret_count, uint64_t *ret_largest);

/* Once all manifests are read: notes what is there and does not count. */
void catalog_note_leftovers(struct admin *admin);

/* Bytes of the files of a kind that count: of a segment up to its end. */
uint64_t catalog_size(const struct catalog *catalog, enum catalog_kind kind);

#endif
