/* The probe: which way of making log writes durable is fastest on this device. Run when a directory
 * is formatted and by -probe; the result is kept in the superblock. */
#ifndef MINIVAULT_STORE_PROBE_H
#define MINIVAULT_STORE_PROBE_H

#include "base/log.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

struct probe_result {
    bool use_dsync;
    uint8_t writes_in_flight; /* 1 or 2 */
    uint32_t dsync_us;        /* medians of a 4 KiB overwrite */
    uint32_t fdatasync_us;
};

/* Overwrites a scratch file in `directory` (created, zeroed, removed again) with 4 KiB and 64 KiB
 * blocks each way, in turn, for at most about 300 ms, and compares medians of durable bytes per
 * second. Synchronous. `buffer`: 128 KiB of the region. Errors: -EIO, -ENOSPC, ...; a file system
 * that cannot do O_DIRECT is logged as a warning. */
int probe_device(struct io *io, const struct log *log, const char *directory, uint8_t *buffer,
                 struct probe_result *ret_result);

#endif
