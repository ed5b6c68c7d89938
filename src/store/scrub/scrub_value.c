/* Value files: every block against the descriptor in the record that names the file. A file may be
 * replaced and removed at any time: what is wrong with it counts as long as its record is alive. */
#include "store/scrub/scrub_value.h"

#include "base/assert.h"
#include "base/checksum.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void scrub_value_init(struct scrub_value *value, struct io *io, const struct scrub_options *options,
                      struct scrub_rate *rate, struct findings *findings)
{
    *value = (struct scrub_value){.io = io,
                                  .options = options,
                                  .rate = rate,
                                  .findings = findings,
                                  .phase = SCRUB_VALUE_OVER,
                                  .handle = -1,
                                  .buffer = options->memory + SCRUB_WINDOW_SIZE};
}

int scrub_value_begin(struct scrub_value *value, const struct record *record, uint64_t hash)
{
    assert(value->phase == SCRUB_VALUE_OVER);
    assert(value->handle < 0);
    int error = value_file_descriptor_check(record->value, &value->size);
    if (error < 0)
        return error;
    value->name = value_file_named(hash_key(record->key.data, record->key.size), record->value);
    value->version = record->version;
    value->hash = hash;
    value->phase = SCRUB_VALUE_OPENING;
    value->at = 0;
    value->read_size = SCRUB_WINDOW_SIZE;
    value->refused_at = UINT64_MAX;
    value->is_bad = false;
    memcpy(value->descriptor, record->value.data, record->value.size);
    char name[VALUE_FILE_NAME_SIZE];
    value_file_name_write(&value->name, name);
    (void)snprintf(value->path, sizeof value->path, "%s%s", value->options->path, name);
    return 0;
}

static bool is_alive(const struct scrub_value *value)
{
    struct index_entry slot;
    return index_get(value->options->index, value->name.partition, value->hash, value->version,
                     &slot) == 0;
}

/* The file of an older write may be gone. */
static bool is_newest(const struct scrub_value *value)
{
    return index_is_newest(value->options->index, value->name.partition, value->hash,
                           value->version);
}

static struct finding finding_at(const struct scrub_value *value, uint64_t offset)
{
    return (struct finding){.kind = FINDING_VALUE,
                            .number = value->name.version.clock,
                            .origin = value->name.version.origin,
                            .offset = offset};
}

static void report_damage(struct scrub_value *value, uint64_t offset, const char *what)
{
    assert(offset <= value->size);
    struct finding finding = finding_at(value, offset);
    findings_damage(value->findings, &finding, is_newest(value),
                    "%s is damaged at offset %" PRIu64
                    ": %s. What is damaged is never shown: write its key again, or restore it "
                    "from a replica or a backup, and check the device",
                    value->path, offset, what);
}

/* Which says nothing of what is in it. */
static void note_unreadable(struct scrub_value *value, int error)
{
    struct finding finding = finding_at(value, 0);
    findings_incomplete(value->findings);
    if (is_newest(value))
        findings_unreadable(value->findings, &finding, value->path, error);
}

/* ---- opening and closing ---- */

static void opened(struct io_op *op, int32_t result)
{
    struct scrub_value *value = container_of(op, struct scrub_value, op);
    assert(value->phase == SCRUB_VALUE_OPENING);
    value->handle = result;
    value->phase = result >= 0 ? SCRUB_VALUE_READING : SCRUB_VALUE_OVER;
    bool is_lost = result == -ENOENT || (result < 0 && disk_is_device_error(result));
    if (is_lost && is_newest(value))
        report_damage(value, 0, strerror(-result));
    else if (result < 0 && !is_lost)
        note_unreadable(value, result);
}

static void open_file(struct scrub_value *value)
{
    value->op.done = opened;
    io_open_file(value->io, &value->op, value->path, IO_OPEN_READ | IO_OPEN_DIRECT);
}

static void closed(struct io_op *op, int32_t result)
{
    struct scrub_value *value = container_of(op, struct scrub_value, op);
    (void)result;
    assert(value->phase == SCRUB_VALUE_CLOSING);
    value->handle = -1;
    value->phase = SCRUB_VALUE_OVER;
}

static void close_file(struct scrub_value *value)
{
    value->op.done = closed;
    io_close_file(value->io, &value->op, value->handle);
}

/* ---- reading ---- */

static void read_done(struct io_op *op, int32_t result)
{
    struct scrub_value *value = container_of(op, struct scrub_value, op);
    assert(value->phase == SCRUB_VALUE_READING);
    value->result = result;
    value->phase = SCRUB_VALUE_CHECKING;
    if (result <= 0)
        return;
    struct finding finding = finding_at(value, 0);
    scrub_rate_count(value->rate, (uint32_t)result);
    findings_readable(value->findings, &finding);
}

static enum scrub_progress read_next(struct scrub_value *value)
{
    if (value->at >= value->size || !is_alive(value)) {
        value->phase = SCRUB_VALUE_CLOSING;
        return SCRUB_GOES_ON;
    }
    if (!scrub_rate_may_read(value->rate))
        return SCRUB_WAITS;
    assert(value->at % VALUE_FILE_BLOCK_SIZE == 0);
    value->asked = (uint32_t)min_u64(value->read_size, value->size - value->at);
    value->checked = 0;
    value->op.done = read_done;
    io_read(value->io, &value->op, value->handle, value->buffer,
            (uint32_t)round_up(value->asked, DISK_BLOCK_SIZE), value->at);
    scrub_rate_pay(value->rate, value->asked);
    return SCRUB_WAITS;
}

/* ---- checking ---- */

/* Blocks that are bad in a row are one place. */
static void note_block(struct scrub_value *value, const char *problem)
{
    if (problem != NULL && !value->is_bad)
        report_damage(value, value->at, problem);
    value->is_bad = problem != NULL;
    value->at += min_u64(VALUE_FILE_BLOCK_SIZE, value->size - value->at);
}

/* The device refused a part: block by block, since some of it may still be readable. */
static void handle_error(struct scrub_value *value)
{
    if (!disk_is_device_error(value->result)) {
        note_unreadable(value, value->result);
        value->at = value->size; /* not now */
    } else if (value->asked > VALUE_FILE_BLOCK_SIZE) {
        value->read_size = VALUE_FILE_BLOCK_SIZE;
    } else if (value->refused_at != value->at) {
        value->refused_at = value->at; /* once more */
    } else {
        note_block(value, strerror(-value->result));
    }
    value->phase = SCRUB_VALUE_READING;
}

static bool is_block_sound(const struct scrub_value *value, uint32_t size)
{
    uint64_t block = value->at / VALUE_FILE_BLOCK_SIZE;
    uint32_t wanted = load_u32(value->descriptor + VALUE_FILE_DESCRIPTOR_HEADER_SIZE + 4 * block);
    return crc32c(value->buffer + value->checked, size) == wanted;
}

static void check_block(struct scrub_value *value)
{
    uint32_t size = (uint32_t)min_u64(VALUE_FILE_BLOCK_SIZE, value->asked - value->checked);
    if (value->checked + size > (uint32_t)value->result) {
        report_damage(value, value->at, "the file ends before");
        value->at = value->size;
        value->phase = SCRUB_VALUE_READING;
        return;
    }
    note_block(value, is_block_sound(value, size) ? NULL : "its checksum is wrong");
    value->checked += size;
    if (value->checked == value->asked)
        value->phase = SCRUB_VALUE_READING;
}

enum scrub_progress scrub_value_step(struct scrub_value *value, uint64_t budget)
{
    if (io_op_is_active(&value->op))
        return SCRUB_WAITS;
    switch (value->phase) {
    case SCRUB_VALUE_OPENING:
        open_file(value);
        return SCRUB_WAITS;
    case SCRUB_VALUE_READING:
        return read_next(value);
    case SCRUB_VALUE_CHECKING:
        if (value->result < 0)
            handle_error(value);
        for (uint64_t used = 0; used < budget && value->phase == SCRUB_VALUE_CHECKING;
             used += VALUE_FILE_BLOCK_SIZE)
            check_block(value);
        return SCRUB_GOES_ON;
    case SCRUB_VALUE_CLOSING:
        close_file(value);
        return SCRUB_WAITS;
    case SCRUB_VALUE_OVER:
        break;
    }
    return SCRUB_OVER;
}

bool scrub_value_stop(struct scrub_value *value)
{
    bool is_busy = io_op_is_active(&value->op);
    if (!is_busy && value->phase != SCRUB_VALUE_OVER) {
        value->phase = value->handle < 0 ? SCRUB_VALUE_OVER : SCRUB_VALUE_CLOSING;
        (void)scrub_value_step(value, 0);
    }
    return is_busy || value->phase != SCRUB_VALUE_OVER;
}
