/* What wal_scan.c and wal_scan_show.c share. */
#ifndef MINIVAULT_STORE_WAL_SCAN_INTERNAL_H
#define MINIVAULT_STORE_WAL_SCAN_INTERNAL_H

#include "store/wal/wal_scan.h"

/* Damage at [from, upto) of a segment: counted and noted. */
void scan_note_place(struct wal_scan *scan, uint32_t index, uint64_t from, uint64_t upto,
                     const char *what);

/* The positions from scan->expected to `last` (none: nothing happens) are missing before `offset`,
 * although they were durable; scan->expected goes on behind them. */
void scan_note_lost(struct wal_scan *scan, uint32_t index, uint64_t offset, uint64_t last);

/* Shows the records of a batch whose records are sound as a whole; scan->expected goes on behind
 * it. Errors: -EPROTONOSUPPORT (noted), the callback's. */
int scan_show_batch(struct wal_scan *scan, uint32_t index, uint64_t offset,
                    const struct wal_batch_header *batch, const uint8_t *payload);

/* The same for a batch of which only the header is sound: shows the records that are sound
 * themselves. */
int scan_salvage(struct wal_scan *scan, uint32_t index, uint64_t offset,
                 const struct wal_batch_header *batch, const uint8_t *payload);

#endif
