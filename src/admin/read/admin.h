/* minivault-admin: what the offline tools share. They read a data directory that no server has
 * open, and change no byte of it. */
#ifndef MINIVAULT_ADMIN_ADMIN_H
#define MINIVAULT_ADMIN_ADMIN_H

#include "admin/read/admin_catalog.h"
#include "admin/read/admin_report.h"
#include "store/catalog/superblock.h"
#include "store/wal/wal_scan.h"

struct admin_options {
    const char *data;
    bool is_quiet;
    bool all;    /* dump: every record, not only the newest of each key */
    bool values; /* dump: with values */
};

/* What the last walk found in the log. */
struct admin_log {
    struct wal_recovered scan;
    uint32_t segments; /* files with records */
    uint32_t spares;   /* files without */
};

/* What a directory has once for each of its shards. */
struct admin_shard {
    uint32_t number;
    char folder[24]; /* of its state, relative to the data directory, with a slash; or "" */
    struct superblock superblock;
    struct wal_note manifest; /* how far it has come: edition, blocks; 0: unknown */
    uint64_t checkpoint;      /* the number that counts; 0: none */
    uint64_t log_position;    /* that the log had reached, as the manifest tells */
    struct admin_log log;
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

/* The commands. They return an enum admin_exit; what cannot be done is said in the report. */
int admin_check(struct admin *admin);
int admin_dump(struct admin *admin);
int admin_stat(struct admin *admin);

/* Opens and locks the directory, reads the superblock and what files there are. Findings are
 * reported. Errors: -errno, reported. admin_shut in any case. */
int admin_start(struct admin *admin);
void admin_shut(struct admin *admin);

#endif
