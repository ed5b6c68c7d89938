/* The index checkpoint that counts. */
#ifndef MINIVAULT_ADMIN_ADMIN_CHECKPOINT_H
#define MINIVAULT_ADMIN_ADMIN_CHECKPOINT_H

#include "admin/read/admin.h"
#include "store/catalog/checkpoint.h"

/* Verifies every block, that they follow each other, and that slots name files of the checkpoint's
 * table and places within them. Damage is reported. Nothing is lost with a checkpoint. Returns 0;
 * errors: -ENOMEM. */
int checkpoint_check(struct admin *admin, const struct catalog_file *file);

/* From its first and last block. Errors: -errno, not reported. */
int checkpoint_look(struct admin *admin, const struct catalog_file *file,
                    struct checkpoint_info *ret_info, int64_t *ret_age_s);

#endif
