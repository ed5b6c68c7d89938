#include "store/fetch.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool fetch_has_room(const struct fetcher *fetcher, uint64_t read_size)
{
    return read_size + DISK_BLOCK_SIZE <= FETCH_BUFFER_SIZE ||
           fetcher->large_bytes + read_size <= FETCH_LARGE_BYTES_MAX;
}

static int decode_at(struct fetch *fetch, const uint8_t *data, uint64_t size)
{
    int64_t result = record_decode(data, size, &fetch->record);
    if (result >= 0)
        return 0;
    log_error(fetch->fetcher->log,
              "corrupt record in log file %" PRIu32 " at offset %" PRIu64
              ": answered as CORRUPT; restore the key from a replica or a backup",
              wal_location_file(fetch->location), wal_location_offset(fetch->location));
    return -EBADMSG;
}

static void read_done(struct io_op *op, int32_t result)
{
    struct fetch *fetch = container_of(op, struct fetch, op);
    struct fetcher *fetcher = fetch->fetcher;
    uint32_t file = wal_location_file(fetch->location);
    wal_unpin_file(fetcher->wal, file);
    if (result < 0) {
        log_error(fetcher->log, "cannot read log file %" PRIu32 " at offset %" PRIu64 ": %s", file,
                  wal_location_offset(fetch->location), strerror(-result));
        fetch->done(fetch, result);
        return;
    }
    const uint8_t *data = fetch->large != NULL ? fetch->large : fetch->buffer;
    if ((uint64_t)result <= fetch->skip) {
        log_error(fetcher->log, "log file %" PRIu32 " ends before offset %" PRIu64, file,
                  wal_location_offset(fetch->location));
        fetch->done(fetch, -EBADMSG);
        return;
    }
    fetch->done(fetch, decode_at(fetch, data + fetch->skip, (uint64_t)result - fetch->skip));
}

static int take_large(struct fetch *fetch, uint64_t size)
{
    fetch->large = aligned_alloc(DISK_BLOCK_SIZE, size);
    if (fetch->large == NULL)
        return -ENOMEM;
    fetch->large_size = size;
    fetch->fetcher->large_bytes += size;
    return 0;
}

int fetch_start(struct fetcher *fetcher, struct fetch *fetch, const struct index_entry *entry,
                fetch_done *done)
{
    assert(fetch->large == NULL);
    fetch->fetcher = fetcher;
    fetch->location = entry->location;
    fetch->done = done;
    const uint8_t *in_memory = wal_peek(fetcher->wal, entry->location);
    fetch->in_memory = in_memory != NULL;
    if (in_memory != NULL) {
        int result = decode_at(fetch, in_memory, entry->read_size);
        return result < 0 ? result : 1;
    }
    uint64_t offset = wal_location_offset(entry->location);
    uint64_t begin = round_down(offset, DISK_BLOCK_SIZE);
    uint64_t end =
        min_u64(round_up(offset + entry->read_size, DISK_BLOCK_SIZE), fetcher->segment_size);
    assert(end > offset);
    uint8_t *buffer = fetch->buffer;
    if (end - begin > FETCH_BUFFER_SIZE) {
        if (take_large(fetch, end - begin) < 0)
            return -ENOMEM;
        buffer = fetch->large;
    }
    fetch->skip = offset - begin;
    int handle = wal_pin_file(fetcher->wal, wal_location_file(entry->location));
    fetch->op.done = read_done;
    io_read(fetcher->io, &fetch->op, handle, buffer, (uint32_t)(end - begin), begin);
    return 0;
}

int fetch_keep(struct fetch *fetch)
{
    if (!fetch->in_memory)
        return 0;
    struct slice key = fetch->record.key;
    struct slice value = fetch->record.value;
    if (take_large(fetch, round_up((uint64_t)key.size + value.size, DISK_BLOCK_SIZE)) < 0)
        return -ENOMEM;
    memcpy(fetch->large, key.data, key.size);
    if (value.size > 0)
        memcpy(fetch->large + key.size, value.data, value.size);
    fetch->record.key.data = fetch->large;
    fetch->record.value.data = fetch->large + key.size;
    fetch->in_memory = false;
    return 0;
}

void fetch_release(struct fetch *fetch)
{
    assert(!io_op_is_active(&fetch->op));
    if (fetch->large == NULL)
        return;
    fetch->fetcher->large_bytes -= fetch->large_size;
    free(fetch->large);
    fetch->large = NULL;
}
