/* Value files: every block against the descriptor in the record that names the file. A file may be
 * replaced and removed at any time: what is wrong with it counts as long as its record is alive. */
#include "store/scrub/scrub_internal.h"
#include "store/disk/wait.h"

#include "base/checksum.h"
#include "store/wal/wal_recover_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int scrub_value_begin(struct scrub *scrub, const struct record *record, uint64_t hash)
{
    struct scrub_value *value = &scrub->value;
    int error = value_file_descriptor_check(record->value, &value->size);
    if (error < 0)
        return error;
    value->name = value_file_named(hash_key(record->key.data, record->key.size), record->value);
    value->version = record->version;
    value->hash = hash;
    value->handle = -1;
    value->at = 0;
    value->checked = 0;
    value->asked = 0;
    value->read_size = SCRUB_WINDOW_SIZE;
    value->refused_at = UINT64_MAX;
    value->is_bad = false;
    memcpy(value->descriptor, record->value.data, record->value.size);
    char name[VALUE_FILE_NAME_SIZE];
    value_file_name_write(&value->name, name);
    (void)snprintf(value->path, sizeof value->path, "%s%s", scrub->options.path, name);
    return 0;
}

static bool is_alive(const struct scrub *scrub)
{
    const struct scrub_value *value = &scrub->value;
    struct index_entry slot;
    return index_get(scrub->options.index, value->name.partition, value->hash, value->version,
                     &slot) == 0;
}

/* A slot beside a newer one is probably an older write of the same key, whose file may be gone. */
static bool is_newest(const struct scrub *scrub)
{
    const struct scrub_value *value = &scrub->value;
    struct index_entry newest;
    return index_find(scrub->options.index, value->name.partition, value->hash, &newest, 1) > 0 &&
           version_compare(newest.version, value->version) == 0;
}

/* ---- opening and closing ---- */

static void opened(struct io_op *op, int32_t result)
{
    struct scrub *scrub = container_of(op, struct scrub, op);
    scrub->value.handle = result;
    scrub->phase = result >= 0 ? SCRUB_VALUE_READING : SCRUB_CHECKING;
    bool is_lost = result == -ENOENT || (result < 0 && disk_is_device_error(result));
    if (is_lost && is_newest(scrub))
        scrub_report_value(scrub, 0, strerror(-result));
}

static void open_file(struct scrub *scrub)
{
    scrub->op.done = opened;
    io_open_file(scrub->io, &scrub->op, scrub->value.path, IO_OPEN_READ | IO_OPEN_DIRECT);
}

static void closed(struct io_op *op, int32_t result)
{
    struct scrub *scrub = container_of(op, struct scrub, op);
    (void)result;
    scrub->value.handle = -1;
    scrub->phase = SCRUB_CHECKING;
}

static void close_file(struct scrub *scrub)
{
    scrub->op.done = closed;
    io_close_file(scrub->io, &scrub->op, scrub->value.handle);
}

/* ---- reading ---- */

static void read_done(struct io_op *op, int32_t result)
{
    struct scrub *scrub = container_of(op, struct scrub, op);
    scrub->value.result = result;
    scrub->phase = SCRUB_VALUE_CHECKING;
    if (result > 0)
        scrub->stats.bytes += (uint32_t)result;
}

/* Returns whether it waits for nothing. */
static bool read_next(struct scrub *scrub)
{
    struct scrub_value *value = &scrub->value;
    if (value->at >= value->size || !is_alive(scrub)) {
        scrub->phase = SCRUB_VALUE_CLOSING;
        return true;
    }
    if (!scrub_may_read(scrub))
        return false;
    value->asked = (uint32_t)min_u64(value->read_size, value->size - value->at);
    value->checked = 0;
    scrub->op.done = read_done;
    io_read(scrub->io, &scrub->op, value->handle, value->buffer,
            (uint32_t)round_up(value->asked, DISK_BLOCK_SIZE), value->at);
    scrub_pay(scrub, value->asked);
    return false;
}

/* ---- checking ---- */

/* Blocks that are bad in a row are one place. */
static void note_block(struct scrub *scrub, const char *problem)
{
    struct scrub_value *value = &scrub->value;
    if (problem != NULL && !value->is_bad)
        scrub_report_value(scrub, value->at, problem);
    value->is_bad = problem != NULL;
    value->at += min_u64(VALUE_FILE_BLOCK_SIZE, value->size - value->at);
}

/* The device refused a part: block by block, since some of it may still be readable. */
static void handle_error(struct scrub *scrub)
{
    struct scrub_value *value = &scrub->value;
    if (!disk_is_device_error(value->result))
        value->at = value->size; /* not now */
    else if (value->asked > VALUE_FILE_BLOCK_SIZE)
        value->read_size = VALUE_FILE_BLOCK_SIZE;
    else if (value->refused_at != value->at)
        value->refused_at = value->at; /* once more */
    else
        note_block(scrub, strerror(-value->result));
    scrub->phase = SCRUB_VALUE_READING;
}

static bool is_block_sound(const struct scrub_value *value, uint32_t size)
{
    uint64_t block = value->at / VALUE_FILE_BLOCK_SIZE;
    uint32_t wanted = load_u32(value->descriptor + VALUE_FILE_DESCRIPTOR_HEADER_SIZE + 4 * block);
    return crc32c(value->buffer + value->checked, size) == wanted;
}

static void check_block(struct scrub *scrub)
{
    struct scrub_value *value = &scrub->value;
    uint32_t size = (uint32_t)min_u64(VALUE_FILE_BLOCK_SIZE, value->asked - value->checked);
    if (value->checked + size > (uint32_t)value->result) {
        scrub_report_value(scrub, value->at, "the file ends before");
        value->at = value->size;
        scrub->phase = SCRUB_VALUE_READING;
        return;
    }
    note_block(scrub, is_block_sound(value, size) ? NULL : "its checksum is wrong");
    value->checked += size;
    if (value->checked == value->asked)
        scrub->phase = SCRUB_VALUE_READING;
}

static bool check_blocks(struct scrub *scrub, uint64_t budget)
{
    if (scrub->value.result < 0) {
        handle_error(scrub);
        return true;
    }
    for (uint64_t used = 0; used < budget && scrub->phase == SCRUB_VALUE_CHECKING;
         used += VALUE_FILE_BLOCK_SIZE)
        check_block(scrub);
    return true;
}

bool scrub_value_step(struct scrub *scrub, uint64_t budget)
{
    switch (scrub->phase) {
    case SCRUB_VALUE_OPENING:
        open_file(scrub);
        return false;
    case SCRUB_VALUE_READING:
        return read_next(scrub);
    case SCRUB_VALUE_CHECKING:
        return check_blocks(scrub, budget);
    case SCRUB_VALUE_CLOSING:
        close_file(scrub);
        return false;
    default:
        assert(false);
        return false;
    }
}
