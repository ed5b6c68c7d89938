/* What the conversion of a data directory to another number of shards is made of; only
 * store_directory.c and these files include it. The steps stand in store_directory.h. */
#ifndef MINIVAULT_STORE_STORE_CONVERT_H
#define MINIVAULT_STORE_STORE_CONVERT_H

#include "store/catalog/manifest.h"
#include "store/reshard/store_directory.h"

#define CONVERT_PATH_SIZE 4096u
#define CONVERT_FOLDER "resharding"

struct conversion {
    struct io *io;
    const struct log *log;
    const struct store_options *options; /* of shard 0's store to be */
    struct store_directory *directory;   /* its superblock is open between two steps */
    uint32_t count_before;
    uint32_t count;
    bool is_new;    /* formatted in this start: there is nothing in it */
    uint32_t shard; /* the one whose turn it is */
    uint64_t told_ns;
    /* What the old shards have come to: the greatest of each. */
    uint64_t position_last;
    uint64_t log_number;
    uint64_t segment_number;
    uint64_t clock_ceiling;
    uint64_t damage_accepted;
    uint64_t manifest_edition;
    struct manifest_edit *edits; /* of all their manifests: segments, and what they lost */
    uint64_t edit_count;
    uint64_t edit_capacity;
};

/* `folder`/`name` in ret_path, CONVERT_PATH_SIZE bytes. Errors: -ENAMETOOLONG. */
int convert_join(const char *folder, const char *name, char *ret_path);

/* store_convert.c, step 1: empties the logs, one shard after the other. Errors are logged. */
int convert_empty_logs(struct conversion *conversion);

/* store_convert_plan.c, step 2: writes the new state, and fills the superblock of shard 0. Errors
 * are logged. */
int convert_write_plan(struct conversion *conversion, struct superblock *ret_superblock);

/* store_convert_apply.c: what an uncommitted conversion left. */
int convert_forget_plan(struct io *io, const struct store_options *options);

/* Step 4, which may be done again: from count_before shards to count. */
int convert_apply(struct io *io, const struct log *log, const struct store_options *options,
                  uint32_t count_before, uint32_t count);

#endif
