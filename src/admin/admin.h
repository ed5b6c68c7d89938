/* minivault-admin: what the offline tools share. They read a data directory that no server has
 * open, and change no byte of it. */
#ifndef MINIVAULT_ADMIN_ADMIN_H
#define MINIVAULT_ADMIN_ADMIN_H

#include "admin/admin_catalog.h"
#include "admin/admin_report.h"
#include "store/superblock.h"
#include "store/wal_scan.h"

/* This release's directories have one shard. */
#define ADMIN_SHARD 0u

struct admin_options {
    const char *data;
    bool is_quiet;
    bool all;    /* dump: every record, not only the newest of each key */
    bool values; /* dump: with values */
};

/* What the last walk found in the log. */
struct admin_log {
    struct wal_scan_found scan;
    uint32_t segments; /* files with records */
    uint32_t spares;   /* files without */
};

struct admin {
    const struct admin_options *options;
    struct admin_report report;
    int directory;
    int superblock_file; /* holds the lock */
    struct superblock superblock;
    struct catalog catalog;
    struct wal_note manifest; /* how far it has come: edition, blocks; 0: unknown */
    struct admin_log log;
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
