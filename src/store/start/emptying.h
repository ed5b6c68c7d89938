/* Of a store that is opened to be emptied: what a change of the number of shards asks of it. */
#ifndef MINIVAULT_STORE_EMPTYING_H
#define MINIVAULT_STORE_EMPTYING_H

#include "store/catalog/manifest.h"
#include "store/catalog/superblock.h"
#include "store/store.h"

/* Probes the device and notes what it found; the superblock is not written. `folder` exists. */
int store_probe(struct io *io, const struct log *log, const char *folder,
                struct superblock *superblock);

/* What would be forgotten with the store's log and checkpoint. */
enum store_loss { STORE_LOSS_NONE, STORE_LOSS_LOG, STORE_LOSS_SEGMENT };
enum store_loss store_untold_loss(const struct store *store);

/* Moves everything that is alive in the log into segments, with no request under way. Synchronous;
 * `each_second`, with what is left, tells how it goes. Errors, not logged: -ENOSPC; -EBADMSG: what
 * is left cannot be read; -ETIMEDOUT; the device's. */
typedef void store_drain_progress(void *context, uint64_t records_left);
int store_drain(struct store *store, store_drain_progress *each_second, void *context);

/* store_shut, but the superblock, and with it the lock, is the caller's from then on, also after an
 * error. */
int store_shut_locked(struct store *store, struct superblock_file *ret_superblock);

/* Appends a group to a manifest and waits until it is durable. Errors: manifest_append's, io_run's. */
int store_tell_manifest(struct io *io, struct manifest *manifest, const struct manifest_edit *edits,
                        uint32_t count);

/* ---- of one that is shut ---- */

/* Greatest number that a segment was given. */
uint64_t store_segment_last(const struct store *store);
uint64_t store_manifest_edition(const struct store *store);

/* Everything that the manifest says, one edit a call; false behind the last. `context`: the
 * store. */
bool store_show_state(void *context, uint64_t index, struct manifest_edit *ret_edit);

#endif
