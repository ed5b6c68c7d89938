#include "admin/read/admin_log_window.h"

#include "admin/read/admin_files.h"
#include "base/assert.h"
#include "base/memory.h"
#include "base/units.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define PART_SIZE MIB
#define KEPT_SIZE (64 * MIB)

int window_init(struct log_window *window, struct admin *admin, uint64_t size)
{
    uint64_t capacity = round_up(max_u64(size, PART_SIZE), PART_SIZE);
    void *image = memory_map(capacity);
    if (image == NULL)
        return -ENOMEM;
    *window =
        (struct log_window){.admin = admin, .image = image, .capacity = capacity, .handle = -1};
    return 0;
}

void window_deinit(struct log_window *window)
{
    admin_close(window->handle);
    memory_unmap(window->image, window->capacity);
    window->image = NULL;
}

static void give_back(struct log_window *window, uint64_t upto)
{
    if (upto > window->begin)
        (void)madvise(window->image + window->begin, upto - window->begin, MADV_DONTNEED);
    window->begin = upto;
}

static int change_file(struct log_window *window, const struct catalog_file *file)
{
    admin_close(window->handle);
    window->file = NULL;
    window->handle = admin_open_file(window->admin->directory, file->name);
    if (window->handle < 0) {
        report_failure(&window->admin->report, "%s cannot be opened: %s", file->name,
                       strerror(-window->handle));
        return window->handle;
    }
    window->file = file;
    return 0;
}

/* After the device refused a part: block by block, since some of it may still be readable. */
static void read_blocks(struct log_window *window, struct wal_scan_segment *segment,
                        uint64_t offset, uint64_t size)
{
    for (uint64_t end = offset + size; offset < end; offset += WAL_BLOCK_SIZE) {
        uint8_t *target = window->image + offset;
        int64_t count = admin_read(window->handle, target, WAL_BLOCK_SIZE, offset);
        if (count >= 0)
            continue;
        memset(target, 0, WAL_BLOCK_SIZE);
        if (segment->unreadable_last == WAL_READABLE)
            report_damage(&window->admin->report, segment->path, offset,
                          "it cannot be read, %s: the device has lost it", strerror((int)-count));
        segment->unreadable_last = offset;
    }
}

/* Reads the part behind what is in memory. */
static void read_part(struct log_window *window, struct wal_scan_segment *segment)
{
    uint64_t size = min_u64(PART_SIZE, segment->size - window->end);
    int64_t count = admin_read(window->handle, window->image + window->end, size, window->end);
    if (count < 0)
        read_blocks(window, segment, window->end, size);
    window->end += size;
    report_progress(&window->admin->report, size, segment->path);
}

int window_load(struct log_window *window, const struct catalog_file *file,
                struct wal_scan_segment *segment, uint64_t from, uint64_t upto)
{
    assert(upto <= segment->size && segment->size <= window->capacity);
    bool is_same = file == window->file;
    if (!is_same || from < window->begin || from > window->end) {
        give_back(window, window->end);
        window->begin = window->end = round_down(from, PART_SIZE);
    }
    int error = is_same ? 0 : change_file(window, file);
    while (error == 0 && window->end < upto)
        read_part(window, segment);
    if (from > window->begin + KEPT_SIZE)
        give_back(window, round_down(from, PART_SIZE));
    return error;
}
