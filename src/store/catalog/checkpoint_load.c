/* Reading a checkpoint: whole units, one processed while the next one is read.
 *
 * What is in the file is verified, block by block, before it is believed. Invariants of the loader:
 * 1. Units are processed in order, each once it has been read whole; reads are asked for ahead.
 * 2. A unit's memory is read into only when what it had before is processed.
 * 3. A location names a file of the table, or its slot is dropped or refused.
 * 4. The next block has no smaller kind or partition than the last (checkpoint_order.c). */
#include "store/catalog/checkpoint_format.h"

#include "base/assert.h"
#include "store/disk/filesystem.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define UNITS 2u
#define OFFSET_MASK (((uint64_t)1 << LOCATION_OFFSET_BITS) - 1)
#define TOLD_EVERY_NS NS_PER_S

/* What the table of files says of a file of the locations. */
enum { FILE_UNLISTED, FILE_GONE, FILE_FIRST };

struct unit {
    struct io_op op;
    uint8_t *data;
    uint32_t size;
};

struct loader {
    struct io *io;
    const struct log *log;
    const struct checkpoint_options *options;
    struct index *index;
    checkpoint_each_file *each_file;
    void *context;

    int handle;
    uint64_t asked; /* of the file */
    struct unit units[UNITS];
    uint64_t told_ns;

    struct checkpoint_order order;
    uint64_t dropped;
    uint32_t *files; /* by key: FILE_UNLISTED, FILE_GONE or the new key + FILE_FIRST */
    char path[CHECKPOINT_PATH_MAX];
};

/* ---- what cannot be used ---- */

static const char *advice(int error)
{
    return error == -EPROTONOSUPPORT ? "use the release that wrote it, or move the file away"
                                     : filesystem_advice(error);
}

static int refuse(const struct loader *loader, uint64_t offset, int error, const char *what)
{
    log_error(loader->log, "%s: cannot be used: at byte %" PRIu64 ": %s (%s)%s%s", loader->path,
              offset, what, strerror(-error), checkpoint_is_lost(error) ? "" : "; ",
              checkpoint_is_lost(error) ? "" : advice(error));
    return error;
}

/* ---- entries ---- */

static int take_files(struct loader *loader, const struct checkpoint_block *block,
                      const uint8_t *entries)
{
    for (uint32_t i = 0; i < block->entry_count; i++) {
        struct checkpoint_file file;
        int error = checkpoint_file_decode(entries + (size_t)i * CHECKPOINT_FILE_SIZE, &file);
        if (error < 0)
            return error;
        uint32_t now = loader->each_file(loader->context, &file);
        assert(now == UINT32_MAX || now < LOCATION_FILES_MAX);
        loader->files[checkpoint_file_key(file.is_segment, file.file)] =
            now == UINT32_MAX ? FILE_GONE : checkpoint_file_key(file.is_segment, now) + FILE_FIRST;
    }
    return 0;
}

static int take_slots(struct loader *loader, const struct checkpoint_block *block,
                      const uint8_t *entries)
{
    const struct checkpoint_options *options = loader->options;
    const uint64_t read_size_max = checkpoint_read_size_max();
    for (uint32_t i = 0; i < block->entry_count; i++) {
        struct index_entry entry;
        uint64_t hash;
        index_unpack(entries + (size_t)i * INDEX_PACKED_SIZE, &hash, &entry);
        uint32_t file = loader->files[checkpoint_location_key(entry.location)];
        if (file == FILE_UNLISTED || entry.read_size > read_size_max)
            return -EBADMSG;
        if (file == FILE_GONE) {
            loader->dropped++;
            continue;
        }
        assert(file >= FILE_FIRST); /* invariant 3 */
        entry.location =
            (uint64_t)(file - FILE_FIRST) << LOCATION_OFFSET_BITS | (entry.location & OFFSET_MASK);
        /* The walk may have shown a slot more than once: then the later location counts. */
        int result = index_put(loader->index, block->partition, hash, &entry);
        if (result > 0)
            result = options->each_twin(loader->context, block->partition, hash, &entry);
        if (result < 0)
            return result;
    }
    return 0;
}

/* A hint that promises more than the file has is no reason to take memory. Without the room the
 * table grows as ever. */
static void reserve(struct loader *loader, const struct checkpoint_block *block)
{
    uint64_t count = min_u64(block->slots_hint, loader->order.size / INDEX_PACKED_SIZE);
    (void)index_reserve(loader->index, block->partition, count);
}

/* ---- blocks ---- */

/* `end` is where the block ends in the file. */
static int take_block(struct loader *loader, const struct checkpoint_block *block,
                      const uint8_t *data, uint64_t end)
{
    struct checkpoint_order *order = &loader->order;
    const uint8_t *entries = data + CHECKPOINT_BLOCK_HEADER_SIZE;
    bool goes_on = order->kind == CHECKPOINT_SLOTS && block->partition == order->partition;
    int error = checkpoint_order_take(order, block, data, end);
    if (error == 0 && block->kind == CHECKPOINT_FILES)
        return take_files(loader, block, entries);
    if (error < 0 || block->kind != CHECKPOINT_SLOTS)
        return error;
    if (!goes_on)
        reserve(loader, block);
    return take_slots(loader, block, entries);
}

static const char *reason(const struct loader *loader, int error)
{
    if (loader->order.what != NULL)
        return loader->order.what;
    return error == -ENOMEM ? "no memory for its slots" : "an entry that cannot be one";
}

static int take_unit(struct loader *loader, const struct unit *unit, uint64_t offset)
{
    uint32_t at = 0;
    while (at < unit->size) {
        struct checkpoint_block block;
        const uint8_t *data = unit->data + at;
        int error = checkpoint_block_decode(data, unit->size - at, &block);
        if (error < 0)
            return refuse(loader, offset + at, error,
                          error == -EPROTONOSUPPORT ? "another format" : "a damaged block");
        error = take_block(loader, &block, data, offset + at + block.size);
        if (error < 0)
            return refuse(loader, offset + at, error, reason(loader, error));
        at += block.size;
    }
    return 0;
}

/* ---- units ---- */

static struct unit *unit_at(struct loader *loader, uint64_t offset)
{
    return &loader->units[offset / CHECKPOINT_UNIT_SIZE % UNITS];
}

static int ask(struct loader *loader)
{
    if (loader->asked == loader->order.size)
        return 0;
    struct unit *unit = unit_at(loader, loader->asked);
    assert(!io_op_is_active(&unit->op));        /* invariant 2 */
    assert(loader->asked < loader->order.size); /* invariant 1 */
    unit->size = (uint32_t)min_u64(CHECKPOINT_UNIT_SIZE, loader->order.size - loader->asked);
    unit->op = (struct io_op){0};
    io_read(loader->io, &unit->op, loader->handle, unit->data, unit->size, loader->asked);
    loader->asked += unit->size;
    /* So that the device has it before this unit is processed. */
    int result = io_run(loader->io, 0);
    return result < 0 ? result : 0;
}

static void tell_progress(struct loader *loader, uint64_t offset)
{
    uint64_t now_ns = io_now_ns(loader->io);
    if (now_ns - loader->told_ns < TOLD_EVERY_NS)
        return;
    loader->told_ns = now_ns;
    log_info(loader->log, "%s: %" PRIu64 " slots loaded, %" PRIu64 " %% of the file", loader->path,
             loader->order.slots, offset * 100 / loader->order.size);
}

static int load_unit(struct loader *loader, uint64_t offset)
{
    struct unit *unit = unit_at(loader, offset);
    assert(offset < loader->asked); /* invariant 1 */
    int32_t result = io_wait(loader->io, &unit->op);
    if (result < 0)
        return refuse(loader, offset, result, "cannot be read");
    if ((uint32_t)result != unit->size)
        return refuse(loader, offset, -EBADMSG, "it has become shorter");
    int error = take_unit(loader, unit, offset);
    tell_progress(loader, offset);
    return error;
}

static int load_units(struct loader *loader)
{
    int error = 0;
    for (uint32_t i = 0; i < UNITS && error == 0; i++)
        error = ask(loader);
    uint64_t offset = 0;
    for (; offset < loader->order.size && error == 0; offset += CHECKPOINT_UNIT_SIZE) {
        error = load_unit(loader, offset);
        if (error == 0)
            error = ask(loader);
    }
    if (error == 0 && loader->order.kind != CHECKPOINT_END)
        error = refuse(loader, loader->order.size, -EBADMSG, "it has no end");
    return error;
}

/* What is still being read into memory of the region ends first. */
static void wait_for_reads(struct loader *loader)
{
    for (uint32_t i = 0; i < UNITS; i++) {
        if (io_op_is_active(&loader->units[i].op))
            (void)io_wait(loader->io, &loader->units[i].op);
    }
}

/* ---- a file ---- */

static int load_file(struct loader *loader)
{
    int handle = disk_wait_open(loader->io, loader->path, IO_OPEN_READ | IO_OPEN_DIRECT);
    if (handle < 0)
        return handle == -ENOENT ? handle : refuse(loader, 0, handle, "cannot be opened");
    int64_t size = io_file_size(loader->io, handle);
    int error = 0;
    if (size < 0) {
        error = refuse(loader, 0, (int)size, "cannot be read");
    } else if (size < 2 * (int64_t)CHECKPOINT_BLOCK_MIN || size % CHECKPOINT_BLOCK_MIN != 0) {
        error = refuse(loader, (uint64_t)size, -EBADMSG, "no checkpoint ends there");
    } else {
        loader->handle = handle;
        loader->order.size = (uint64_t)size;
        error = load_units(loader);
        wait_for_reads(loader);
    }
    (void)disk_wait_close(loader->io, handle);
    return error;
}

int checkpoint_load(struct io *io, const struct log *log, const struct checkpoint_options *options,
                    uint64_t number, struct index *index, checkpoint_each_file *each_file,
                    void *context, struct checkpoint_info *ret_info, uint64_t *ret_dropped)
{
    assert(index_count(index) == 0);
    assert(options->each_twin != NULL);
    assert((uintptr_t)options->memory % DISK_BLOCK_SIZE == 0);
    struct loader *loader = calloc(1, sizeof *loader);
    if (loader == NULL)
        return -ENOMEM;
    *loader = (struct loader){.io = io,
                              .log = log,
                              .options = options,
                              .order = {.directory_id = options->directory_id,
                                        .log_id = options->log_id,
                                        .number = number},
                              .index = index,
                              .each_file = each_file,
                              .context = context,
                              .told_ns = io_now_ns(io)};
    for (uint32_t i = 0; i < UNITS; i++)
        loader->units[i].data = options->memory + (size_t)i * CHECKPOINT_UNIT_SIZE;
    loader->files = calloc(CHECKPOINT_FILES_MAX, sizeof *loader->files);
    int error = loader->files == NULL ? -ENOMEM
                                      : checkpoint_path(options->path, number, false, loader->path);
    if (error == 0)
        error = load_file(loader);
    if (error == 0) {
        *ret_info = (struct checkpoint_info){.number = number,
                                             .position = loader->order.begin.position,
                                             .chunk_sequence = loader->order.begin.chunk_sequence,
                                             .clock_ceiling = loader->order.begin.clock_ceiling,
                                             .slots = loader->order.slots};
        *ret_dropped = loader->dropped;
    }
    free(loader->files);
    free(loader);
    return error;
}
