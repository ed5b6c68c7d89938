/* A log file's bytes in memory, part by part. The invariants stand in wal_window.h. */
#include "store/wal/wal_window.h"

#include "base/assert.h"
#include "base/memory.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define SAVED_SIZE (64 * MIB) /* behind what is looked at */

int wal_window_init(struct wal_window *window, uint64_t size)
{
    window->capacity = round_up(max_u64(size, WAL_PART_SIZE), WAL_PART_SIZE);
    void *image = memory_map(window->capacity);
    if (image == NULL)
        return -ENOMEM;
    window->image = image;
    wal_window_forget(window);
    return 0;
}

void wal_window_deinit(struct wal_window *window)
{
    if (window->image != NULL)
        memory_unmap(window->image, window->capacity);
    window->image = NULL;
}

static void give_back(struct wal_window *window, uint64_t upto)
{
    assert(upto % WAL_PART_SIZE == 0);
    assert(upto <= window->capacity); /* invariant 2 */
    if (upto > window->begin)
        (void)madvise(window->image + window->begin, upto - window->begin, MADV_DONTNEED);
    window->begin = upto;
}

static void note_unreadable(struct wal_window *window, uint64_t offset, int error)
{
    struct wal_scan *scan = window->scan;
    struct wal_scan_file *file = &scan->files[window->file];
    bool is_first = file->unreadable_last == WAL_READABLE;
    file->unreadable_last = is_first ? offset : max_u64(offset, file->unreadable_last);
    if (is_first)
        scan->note(scan->context, &(struct wal_scan_note){.kind = WAL_NOTE_UNREADABLE,
                                                          .file = window->file,
                                                          .from = offset,
                                                          .error = error});
}

/* After the device refused a part: block by block, since some of it may still be readable. */
static int read_blocks(struct wal_window *window, uint64_t offset, uint32_t size)
{
    for (uint64_t end = offset + size; offset < end; offset += WAL_BLOCK_SIZE) {
        uint8_t *target = window->image + offset;
        int64_t count = window->read(window->context, target, offset, WAL_BLOCK_SIZE, true);
        if (count == WAL_BLOCK_SIZE)
            continue;
        if (count < 0 && !disk_is_device_error((int)count))
            return (int)count;
        memset(target, 0, WAL_BLOCK_SIZE);
        note_unreadable(window, offset, count < 0 ? (int)count : -EIO);
    }
    return 0;
}

/* Reads the part behind what is in memory. */
static int read_part(struct wal_window *window)
{
    uint64_t offset = window->end;
    uint64_t left = window->scan->files[window->file].size - offset;
    uint32_t size = (uint32_t)min_u64(WAL_PART_SIZE, left);
    assert(size > 0);
    assert(offset + size <= window->capacity); /* invariant 2 */
    window->end += size;
    uint8_t *target = window->image + offset;
    int64_t count = window->read(window->context, target, offset, size, false);
    if (count < 0)
        return disk_is_device_error((int)count) ? read_blocks(window, offset, size) : (int)count;
    assert((uint64_t)count <= size);
    memset(target + count, 0, size - (uint64_t)count);
    return 0;
}

int wal_window_load(struct wal_window *window, uint32_t file, uint64_t from, uint64_t upto,
                    const uint8_t **ret_image)
{
    assert(from <= upto);
    assert(upto <= window->scan->files[file].size);
    int error = 0;
    if (file != window->file || from < window->begin || from > window->end) {
        give_back(window, round_up(window->end, WAL_PART_SIZE));
        window->begin = window->end = round_down(from, WAL_PART_SIZE);
        error = window->rewind(window->context, file, window->begin);
        window->file = error == 0 ? file : UINT32_MAX;
    }
    while (error == 0 && window->end < upto)
        error = read_part(window);
    if (from > window->begin + SAVED_SIZE)
        give_back(window, round_down(from, WAL_PART_SIZE));
    *ret_image = window->image;
    return error;
}
