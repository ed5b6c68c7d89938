/* Whether one shard's files are an older copy of the same start, which start numbers do not tell:
 * its log ends before a position that another shard noted at the last clean stop (reached.h). */
#ifndef MINIVAULT_STORE_STORE_OLDER_H
#define MINIVAULT_STORE_STORE_OLDER_H

#include "store/store.h"
#include "store/catalog/superblock.h"

/* Before the start is counted, and no conversion is under way: nothing is changed. Fills in what was
 * noted, and which shards are older copies: those are refused, unless options->accept_loss. Errors,
 * logged with what to do: -EXDEV (an older copy), superblock_open_shard's, -ENOMEM. */
int store_find_older(struct io *io, const struct log *log, const struct store_options *options,
                     struct superblock_handover *handover);

#endif
