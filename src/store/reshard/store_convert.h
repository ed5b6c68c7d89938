/* The conversion of a data directory to another number of shards; only store_directory.c and these
 * files include it. The steps stand in store_directory.h. */
#ifndef MINIVAULT_STORE_STORE_CONVERT_H
#define MINIVAULT_STORE_STORE_CONVERT_H

#include "store/reshard/store_directory.h"

#define CONVERT_PATH_SIZE 4096u
#define CONVERT_FOLDER "resharding"

/* `folder`/`name` in ret_path, CONVERT_PATH_SIZE bytes. Errors: -ENAMETOOLONG. */
int convert_join(const char *folder, const char *name, char *ret_path);

/* All steps, to `count` shards; is_new: formatted in this start, there is nothing in it. The
 * directory's superblock is open, and none of its stores. Errors are logged. */
int convert_directory(struct io *io, const struct log *log, const struct store_options *options,
                      uint32_t count, bool is_new, struct store_directory *directory);

/* Steps 1 and 2: afterwards *ret_superblock, as DATA/superblock, decides. Errors are logged. */
int convert_plan(struct io *io, const struct log *log, const struct store_options *options,
                 uint32_t count, bool is_new, struct store_directory *directory,
                 struct superblock *ret_superblock);

/* What follows the commit: steps 4 and 5. Errors are logged. */
int convert_finish(struct io *io, const struct log *log, const struct store_options *options,
                   struct superblock_file *superblock);

/* store_convert_apply.c: what an uncommitted conversion left. */
int convert_forget_plan(struct io *io, const struct store_options *options);

/* Step 4, which may be done again: from count_before shards to count. */
int convert_apply(struct io *io, const struct log *log, const struct store_options *options,
                  uint32_t count_before, uint32_t count);

#endif
