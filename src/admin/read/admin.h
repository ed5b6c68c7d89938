/* minivault-admin: what the offline tools share. They read a data directory that no server has
 * open, and change no byte of it. */
#ifndef MINIVAULT_ADMIN_ADMIN_H
#define MINIVAULT_ADMIN_ADMIN_H

#include "admin/read/admin_catalog.h"
#include "admin/read/admin_report.h"
#include "store/catalog/checkpoint.h"
#include "store/catalog/manifest.h"
#include "store/catalog/superblock.h"
#include "store/wal/wal_scan.h"

struct admin_options {
    const char *data;
    bool is_quiet;
    bool all;    /* dump: every record, not only the newest of each key */
    bool values; /* dump: with values */
};

/* What a directory has once for each of its shards. */
struct admin_shard {
    uint32_t number;
    char folder[24]; /* of its state, relative to the data directory, with a slash; or "" */
    struct superblock superblock;
    uint64_t checkpoint;      /* the number that counts; 0: none */
    uint64_t log_position;    /* that the log had reached, as the manifest tells */
    struct wal_recovered log; /* filled in by the walk over the log */
    uint32_t log_files;       /* with records, as of then */
};

struct admin {
    const struct admin_options *options;
    struct admin_report report;
    int directory;
    int superblock_file;          /* holds the lock */
    struct superblock superblock; /* DATA/superblock: the directory's */
    bool is_decided;              /* a conversion to shard_count shards is to be finished */
    struct admin_shard *shards;
    uint32_t shard_count;
    struct catalog catalog;
};

/* The commands. Errors: -errno. The report tells of every error but -ENOMEM. */
int admin_check(struct admin *admin);
int admin_dump(struct admin *admin);
int admin_stat(struct admin *admin);

/* Opens and locks the directory, reads the superblock and what files there are. Findings are
 * reported. Errors: -errno, reported but for -ENOMEM. admin_shut in any case. */
int admin_start(struct admin *admin);
void admin_shut(struct admin *admin);

/* How far the shard's manifest had come, as the log notes. Errors: reported. */
int admin_read_note(struct admin *admin, const struct admin_shard *shard,
                    struct wal_note *ret_note);

/* Reads the shard's manifest, marks the segments that it lists, and reports missing ones. Errors:
 * as above. */
int admin_take_manifest(struct admin *admin, struct admin_shard *shard);

/* Verifies every block of an index checkpoint, that they follow each other, and that slots name
 * files of the checkpoint's table and places within them. Damage is reported. Nothing is lost with a
 * checkpoint. Errors: -ENOMEM. */
int checkpoint_check(struct admin *admin, const struct catalog_file *file);

/* From its first and last block. `file`: NULL for none. Errors: -ENOENT, -errno, not reported. */
int checkpoint_look(struct admin *admin, const struct catalog_file *file,
                    struct checkpoint_info *ret_info, int64_t *ret_age_s);

#endif
