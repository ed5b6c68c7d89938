/* The log reader under libFuzzer, without files: over images of segments in memory.
 *
 * Input: one byte of mode, then what the mode says:
 *
 *   0  changes of 6 bytes each, anywhere: kind, segment, offset (u24), length
 *   1  the same, but only in the last two batches, which are not proved durable
 *   2  the first segment's batches as they come: raw bytes behind the two header blocks
 *   3  header and mark of a segment: raw bytes
 *
 * What must hold:
 *
 * 1. A record that is shown is, byte for byte, the one that was written at that position (modes 0
 * and 1), and is shown once.
 * 2. When only the unproved tail is changed, everything before it is shown, what is shown of the
 * tail is a prefix, and nothing counts as damage but a file that is cut short.
 * 3. The positions go on behind everything that was shown.
 * 4. No byte beyond an image is read: each lies alone on the heap, under ASan. */
#include "base/prng.h"
#include "tests/support/fuzz.h"
#include "store/wal/wal_scan.h"

#include <stdlib.h>

#define SEGMENTS 3u
#define BATCHES 4u /* of each segment, besides the seal */
#define RECORDS 3u /* of each batch */
#define POSITIONS (SEGMENTS * BATCHES * RECORDS)
#define SEGMENT_SIZE ((uint64_t)96 * KIB)
#define VALUE_MAX 6000u
#define CHANGE_SIZE 6u
#define DIRECTORY_ID 0xD1D2D3D4D5D6D7D8

struct images {
    struct wal_scan_file places[SEGMENTS];
    uint8_t *bytes[SEGMENTS];
    uint64_t tail; /* where the last two batches of the last segment begin */
    uint64_t proved;
    bool is_raw;
    bool shown[POSITIONS + 1];
    uint64_t shown_last;
};

/* ---- what was written ---- */

static uint32_t value_of(uint64_t position, bool is_stale, uint8_t *value)
{
    struct prng prng = {is_stale ? ~position : position};
    uint32_t size = (uint32_t)prng_below(&prng, position % 5 == 0 ? VALUE_MAX : 300);
    for (uint32_t i = 0; i < size; i += sizeof(uint64_t)) {
        uint64_t random = prng_next(&prng);
        memcpy(value + i, &random, min_u64(sizeof random, size - i));
    }
    return size;
}

static uint64_t put_record(uint8_t *target, uint64_t position, bool is_stale)
{
    uint8_t value[VALUE_MAX];
    uint8_t key[8];
    store_u64(key, position * 0x9E3779B97F4A7C15u);
    uint32_t size = value_of(position, is_stale, value);
    uint8_t attribute[] = {(uint8_t)position, 3, 1, 2, 3};
    struct record record = {
        .attributes = {attribute, position % 3 == 0 ? sizeof attribute : 0},
        .key = {key, sizeof key},
        .value = {value, size},
        .decoded_size = size,
        .version = {.clock = position << 16, .origin = 1},
        .position = position,
    };
    record_encode(&record, target);
    return round_up(record_size(&record), WAL_RECORD_ALIGNMENT);
}

/* Returns the batch's size. `count` 0: the seal. `durable` lags by two batches, as with two writes
 * in flight. */
static uint64_t put_batch(const struct log_file_header *segment, uint8_t *bytes, uint64_t offset,
                          uint64_t first, uint32_t count, bool is_stale)
{
    uint64_t lag = 2 * RECORDS;
    struct wal_batch_header header = {
        .flags = count == 0 ? WAL_BATCH_SEAL : 0,
        .directory_id = segment->directory_id,
        .log_id = segment->log_id,
        .generation = segment->generation,
        .salt = segment->salt,
        .number = segment->number,
        .offset = offset,
        .position_first = first,
        .record_count = count,
        .durable = first > lag ? first - 1 - lag + RECORDS : 0,
        .generation_base = segment->generation_base,
    };
    uint8_t *target = bytes + offset + WAL_BATCH_HEADER_SIZE;
    for (uint32_t i = 0; i < count; i++)
        header.payload_size +=
            (uint32_t)put_record(target + header.payload_size, first + i, is_stale);
    wal_batch_header_encode(&header, bytes + offset);
    return wal_batch_size(&header);
}

/* Segment 0 is a generation of its own, which ends in a torn tail: a batch whose positions the next
 * generation gave again. 1 and 2 are the next generation; the last one has no seal. */
static void put_segment(struct images *images, uint32_t index)
{
    uint64_t first = 1 + (uint64_t)index * BATCHES * RECORDS;
    uint8_t *bytes = calloc(1, SEGMENT_SIZE);
    REQUIRE(bytes != NULL);
    struct log_file_header header = {
        .state = WAL_HEADER_ACTIVE,
        .directory_id = DIRECTORY_ID,
        .generation = index == 0 ? 1 : 2,
        .salt = 0x5A17 + index,
        .number = index + 1,
        .file_size = SEGMENT_SIZE,
        .previous = index,
        .last_before = first - 1,
        .generation_base = index == 0 ? 0 : BATCHES * RECORDS,
    };
    log_file_header_encode(&header, NULL, bytes);
    uint64_t offset = WAL_DATA_OFFSET;
    for (uint32_t batch = 0; batch < BATCHES; batch++) {
        if (batch == BATCHES - 2)
            images->tail = offset;
        offset += put_batch(&header, bytes, offset, first + batch * RECORDS, RECORDS, false);
    }
    uint64_t next = first + BATCHES * RECORDS;
    if (index == 0)
        (void)put_batch(&header, bytes, offset, next, RECORDS, true);
    else if (index == 1)
        (void)put_batch(&header, bytes, offset, next, 0, false);
    images->bytes[index] = bytes;
    images->places[index] = (struct wal_scan_file){
        .header = header, .size = SEGMENT_SIZE, .path = "image", .unreadable_last = WAL_READABLE};
}

/* ---- what is done to it ---- */

enum change { CHANGE_FLIP, CHANGE_ZERO, CHANGE_FILL, CHANGE_COPY, CHANGE_CUT, CHANGE_COUNT };

static void change(struct images *images, const uint8_t *input, bool tail_only)
{
    uint32_t index = tail_only ? SEGMENTS - 1 : input[1] % SEGMENTS;
    struct wal_scan_file *place = &images->places[index];
    uint8_t *bytes = images->bytes[index];
    uint64_t lowest = tail_only ? images->tail : 0;
    uint64_t offset = lowest + (load_u32(input + 2) & 0xFFFFFF) % (SEGMENT_SIZE - lowest);
    uint64_t block = round_down(offset, WAL_BLOCK_SIZE);
    switch (input[0] % CHANGE_COUNT) {
    case CHANGE_FLIP:
        bytes[offset] ^= (uint8_t)(1u << (input[5] % 8));
        break;
    case CHANGE_ZERO:
        memset(bytes + block, 0, WAL_BLOCK_SIZE);
        break;
    case CHANGE_FILL:
        memset(bytes + offset, 0xFF, min_u64(input[5], SEGMENT_SIZE - offset));
        break;
    case CHANGE_COPY: {
        uint32_t source = input[5] % SEGMENTS;
        uint64_t from = round_down((uint64_t)input[5] / SEGMENTS * WAL_BLOCK_SIZE % SEGMENT_SIZE,
                                   WAL_BLOCK_SIZE);
        memmove(bytes + block, images->bytes[source] + from, WAL_BLOCK_SIZE);
        break;
    }
    case CHANGE_CUT:
        place->size = min_u64(place->size, block);
        break;
    }
}

/* ---- what is read ---- */

static int load(void *context, uint32_t segment, uint64_t from, uint64_t upto,
                const uint8_t **ret_image)
{
    struct images *images = context;
    REQUIRE(segment < SEGMENTS);
    REQUIRE(from <= upto && upto <= images->places[segment].size);
    *ret_image = images->bytes[segment];
    return 0;
}

static int check_record(void *context, uint32_t segment, uint64_t offset,
                        const struct record *record)
{
    struct images *images = context;
    const uint8_t *bytes = images->bytes[segment];
    REQUIRE(offset % WAL_RECORD_ALIGNMENT == 0);
    REQUIRE(record->key.data >= bytes + offset);
    REQUIRE(record->value.data + record->value.size <= bytes + images->places[segment].size);
    images->shown_last = max_u64(images->shown_last, record->position);
    if (images->is_raw)
        return 0;
    uint64_t position = record->position;
    REQUIRE(position >= 1 && position <= POSITIONS);
    REQUIRE(!images->shown[position]);
    images->shown[position] = true;
    uint8_t value[VALUE_MAX];
    uint32_t size = value_of(position, false, value);
    REQUIRE(record->key.size == 8 && load_u64(record->key.data) == position * 0x9E3779B97F4A7C15u);
    REQUIRE(record->attributes.size == (record->position % 3 == 0 ? 5 : 0));
    REQUIRE(record->value.size == size && memcmp(record->value.data, value, size) == 0);
    return 0;
}

static void check_tail(const struct images *images, const struct wal_scan *scan)
{
    uint64_t tail_first = POSITIONS - 2 * RECORDS + 1;
    for (uint64_t position = 1; position < tail_first; position++)
        REQUIRE(images->shown[position]);
    for (uint64_t position = tail_first; position <= POSITIONS; position++)
        REQUIRE(images->shown[position] == (position <= scan->found.last_position));
    bool is_cut = images->places[SEGMENTS - 1].size < SEGMENT_SIZE;
    REQUIRE((scan->found.damaged_batches > 0) == is_cut);
    REQUIRE(!is_cut || scan->found.damaged_last > scan->found.last_position);
    REQUIRE(is_cut || scan->found.damaged_last == 0);
}

/* A place lies in its segment, and what is lost are positions. */
static void check_note(void *context, const struct wal_scan_note *note)
{
    const struct images *images = context;
    REQUIRE(note->file < SEGMENTS);
    uint64_t size = images->places[note->file].size;
    uint64_t file_size = images->places[note->file].header.file_size;
    REQUIRE(note->from <= size);
    if (note->kind == WAL_NOTE_DAMAGE)
        REQUIRE(note->upto >= note->from && note->upto <= max_u64(size, file_size) &&
                note->what != NULL);
    if (note->kind == WAL_NOTE_LOST)
        REQUIRE(note->position_first <= note->position_last);
}

static void read_log(struct images *images, bool tail_only)
{
    struct wal_scan scan = {
        .files = images->places,
        .file_count = SEGMENTS,
        .context = images,
        .load = load,
        .record = check_record,
        .note = check_note,
    };
    int result = wal_scan_run(&scan);
    REQUIRE(result == 0 || images->is_raw);
    if (result == 0)
        REQUIRE(scan.found.last_position >= images->shown_last);
    if (tail_only)
        check_tail(images, &scan);
    struct wal_scan inferring = {
        .files = images->places, .file_count = SEGMENTS, .context = images, .load = load};
    for (uint32_t i = 0; i < SEGMENTS; i++)
        REQUIRE(wal_scan_infer(&inferring, i, i) >= 0);
}

static void read_headers(const uint8_t *data, size_t size)
{
    uint8_t *block = calloc(1, WAL_BLOCK_SIZE);
    REQUIRE(block != NULL);
    memcpy(block, data, min_u64(size, WAL_BLOCK_SIZE));
    struct log_file_header header;
    struct wal_batch_header batch;
    if (log_file_header_decode(block, &header) == 0) {
        uint8_t again[WAL_BLOCK_SIZE];
        struct wal_listing listing;
        wal_listing_decode(block, &listing);
        log_file_header_encode(&header, &listing, again);
        bool is_more = memcmp(again + 128, block + 128, WAL_BLOCK_SIZE - 128) != 0;
        REQUIRE(is_more || memcmp(again, block, WAL_BLOCK_SIZE) == 0);
    }
    (void)wal_batch_header_decode(block, &batch);
    free(block);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    uint8_t mode = data[0] % 4;
    data++;
    size--;
    if (mode == 3) {
        read_headers(data, size);
        return 0;
    }
    struct images images = {.is_raw = mode == 2};
    for (uint32_t i = 0; i < SEGMENTS; i++)
        put_segment(&images, i);
    if (mode == 2)
        memcpy(images.bytes[0] + WAL_DATA_OFFSET, data,
               min_u64(size, SEGMENT_SIZE - WAL_DATA_OFFSET));
    for (size_t at = 0; mode < 2 && at + CHANGE_SIZE <= size; at += CHANGE_SIZE)
        change(&images, data + at, mode == 1);
    read_log(&images, mode == 1);
    for (uint32_t i = 0; i < SEGMENTS; i++)
        free(images.bytes[i]);
    return 0;
}
