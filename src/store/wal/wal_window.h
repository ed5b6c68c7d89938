/* The window through which a log's files are scanned: a whole file has its place in the address
 * space, so that every batch lies in one piece; memory far behind is given back. Its user reads.
 *
 * Invariants:
 *   1. [begin, end) of the file `file` is in memory; both are multiples of a part, but for the end
 *      at the file's own.
 *   2. What is in memory lies within the capacity. */
#ifndef MINIVAULT_STORE_WAL_WINDOW_H
#define MINIVAULT_STORE_WAL_WINDOW_H

#include "store/wal/wal_scan.h"

#define WAL_PART_SIZE ((uint32_t)MIB)

struct wal_window {
    /* The caller's. */
    struct wal_scan *scan; /* its files; unreadable blocks are noted there */
    void *context;
    /* From now on parts of scan->files[file] are read, from `offset` on. Errors: -errno. */
    int (*rewind)(void *context, uint32_t file, uint64_t offset);
    /* Reads `size` bytes to `target`, which is image + offset: the part behind the last one, or, when
     * is_block, a single block. Returns how many there are: fewer only at the end of the file.
     * Errors: -errno. */
    int64_t (*read)(void *context, uint8_t *target, uint64_t offset, uint32_t size, bool is_block);
    /* The window's. */
    uint8_t *image; /* reserved address space */
    uint64_t capacity;
    uint32_t file; /* of the scan's; UINT32_MAX: none */
    uint64_t begin;
    uint64_t end;
};

/* `size`: of the largest file. Errors: -ENOMEM. */
int wal_window_init(struct wal_window *window, uint64_t size);
void wal_window_deinit(struct wal_window *window);

/* Makes [from, upto) of the file readable at (*ret_image)[from, upto). Blocks that the device does
 * not give are zeros, and noted. Errors: `rewind`'s; `read`'s that are not the device's. */
int wal_window_load(struct wal_window *window, uint32_t file, uint64_t from, uint64_t upto,
                    const uint8_t **ret_image);

/* The files changed their places in the list, or the memory was used for something else. */
static inline void wal_window_forget(struct wal_window *window)
{
    window->file = UINT32_MAX;
}

#endif
