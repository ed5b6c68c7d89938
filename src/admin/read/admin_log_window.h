/* A log segment's bytes for wal_scan.h: each segment has its place in the address space as a whole,
 * so that every batch lies in one piece; what lies far behind is given back. */
#ifndef MINIVAULT_ADMIN_ADMIN_LOG_WINDOW_H
#define MINIVAULT_ADMIN_ADMIN_LOG_WINDOW_H

#include "admin/read/admin.h"

struct log_window {
    struct admin *admin;
    uint8_t *image; /* reserved address space */
    uint64_t capacity;
    const struct catalog_file *file; /* NULL: none */
    int handle;
    uint64_t begin; /* [begin, end) is in memory */
    uint64_t end;
};

/* `size`: of the largest file. Errors: -ENOMEM. */
int window_init(struct log_window *window, struct admin *admin, uint64_t size);
void window_deinit(struct log_window *window);

/* Makes [from, upto) of the file readable at window->image + from. Blocks that the device does not
 * give are zeros, reported, and noted in `segment`. Errors: -errno (it cannot be opened), reported.
 */
int window_load(struct log_window *window, const struct catalog_file *file,
                struct wal_scan_segment *segment, uint64_t from, uint64_t upto);

#endif
