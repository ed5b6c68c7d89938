/* What lies in segments, at a start: the manifest, the index checkpoint, and what is newer. */
#ifndef MINIVAULT_STORE_LOAD_SEGMENTS_H
#define MINIVAULT_STORE_LOAD_SEGMENTS_H

#include "store/store_internal.h"

/* What they told that no part of the store knows yet. */
struct segments_found {
    uint64_t sequence_last; /* of chunks */
    uint64_t records;       /* in directories that the checkpoint did not have */
};

/* `note`: how far the log knows the manifest to have come. Errors: manifest_open's,
 * checkpoint_load's, segment_scan's. */
int store_load_segments(struct store *store, const struct wal_note *note,
                        struct segments_found *ret_found);

/* Once the log's last position is known: what segments have lost is in doubt up to there. */
int store_judge_losses(struct store *store, uint64_t last_position);

#endif
