/* Reads one partition segment at a start: the headers and directories of its chunks, not the
 * records.
 *
 * Only a sound chunk of this very segment (directory, number, salt, offset) that ends within `end`
 * is shown. Anything else below `end` is damage, which is logged with file and offset, once for
 * each place; then the scan goes on with the next chunk: behind the bad one when its header is
 * sound and only its directory is not, otherwise at the next block where one begins. */
#ifndef MINIVAULT_STORE_SEGMENT_SCAN_H
#define MINIVAULT_STORE_SEGMENT_SCAN_H

#include "base/log.h"
#include "io/io.h"
#include "store/unit/unit.h"

/* One chunk, verified but for its records: header and directory are at `data`, until it returns. Stops
 * the scan when not 0. */
typedef int segment_scan_each(void *context, const struct unit *unit, const uint8_t *data);

struct segment_scan {
    const char *path; /* of the file */
    uint8_t partition;
    struct unit_file file; /* the end is the manifest's: what lies beyond does not count */
    uint64_t from;         /* the offset of a chunk: those before it are not looked at */
    segment_scan_each *each;
    void *context;
    /* results */
    bool is_damaged;
    uint64_t damaged_from; /* where that begins */
    uint64_t bytes_read;
    uint64_t sequence_max; /* of the sound chunk headers from `from` on */
};

/* Synchronous. With from == file.end nothing is read. `from` and the end are multiples of 4096. A
 * segment header that is damaged, or a device that does not give some bytes, is damage. Errors are
 * logged but for -ENOMEM and what `each` returned: open's (-ENOENT, ...), -EXDEV (of another
 * directory), -EPROTONOSUPPORT, a read's that says nothing of the device (-ECANCELED, ...). */
int segment_scan(struct io *io, const struct log *log, struct segment_scan *scan);

#endif
