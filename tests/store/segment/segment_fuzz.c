/* A partition segment from bytes that somebody else wrote: no crash, no read past them, and what is
 * accepted is what we would write.
 *
 * The first byte is a mode. Its lowest bit says that the checksums are made right, so that what
 * lies behind them is reached; the next one chooses what the rest is laid over: a good segment
 * header, or a good chunk. The next two bytes are where it is laid. The chunk is followed as
 * recovery would: its header first, then as many bytes as the header says, each time with no byte
 * more in memory. The input as text is parsed as a name, too. */
#include "base/checksum.h"
#include "base/hash.h"
#include "tests/support/fuzz.h"
#include "store/record/record.h"
#include "store/unit/segment_format.h"
#include "store/segment/segments.h"
#include "store/unit/unit.h"

#include <errno.h>
#include <stdlib.h>

#define INPUT_FROM 3
#define ENTRIES 100u
#define RECORD_SIZE 52u
#define SIZE (2 * SEGMENT_BLOCK_SIZE)

enum mode { MODE_SEAL = 1, MODE_CHUNK = 2 };

static void put_header(uint8_t *target)
{
    struct segment_header header = {
        .partition = 1, .source = 2, .directory_id = 3, .number = 4, .salt = 5, .created = 6};
    segment_header_encode(&header, target);
}

static void put_chunk(uint8_t *target)
{
    struct segment_chunk_header header = {.directory_id = 3,
                                          .record_count = ENTRIES,
                                          .salt = 5,
                                          .segment = 4,
                                          .offset = SEGMENT_DATA_OFFSET,
                                          .sequence = 7,
                                          .records_size = ENTRIES * 56};
    for (uint32_t i = 0; i < ENTRIES; i++) {
        struct segment_entry entry = {
            .hash = i, .version = {i, i}, .record_size = RECORD_SIZE, .tombstone = i % 2};
        segment_entry_encode(&entry,
                             target + SEGMENT_CHUNK_HEADER_SIZE + (size_t)i * SEGMENT_ENTRY_SIZE);
    }
    segment_chunk_header_encode(&header, target);
}

static void seal(uint8_t mode, uint8_t *bytes)
{
    if (!(mode & MODE_CHUNK)) {
        store_u32(bytes + 8, crc32c(bytes + 12, SEGMENT_BLOCK_SIZE - 12));
        return;
    }
    uint64_t directory = (uint64_t)load_u32(bytes + 24) * SEGMENT_ENTRY_SIZE;
    if (directory <= SIZE - SEGMENT_CHUNK_HEADER_SIZE)
        store_u32(bytes + 28, crc32c(bytes + SEGMENT_CHUNK_HEADER_SIZE, directory));
    store_u32(bytes + 8, crc32c(bytes + 12, SEGMENT_CHUNK_HEADER_SIZE - 12));
}

/* SIZE bytes. */
static void make_bytes(const uint8_t *data, size_t size, uint8_t *bytes)
{
    if (data[0] & MODE_CHUNK)
        put_chunk(bytes);
    else
        put_header(bytes);
    size_t offset = load_u16(data + 1) % SIZE;
    for (size_t i = INPUT_FROM; i < size && offset + i - INPUT_FROM < SIZE; i++)
        bytes[offset + i - INPUT_FROM] ^= data[i];
    if (data[0] & MODE_SEAL)
        seal(data[0], bytes);
}

static void check_header(const uint8_t *bytes)
{
    uint8_t *block = fuzz_copy(bytes, SEGMENT_BLOCK_SIZE);
    uint8_t again[SEGMENT_BLOCK_SIZE];
    struct segment_header header;
    int result = segment_header_decode(block, &header);
    REQUIRE(result == 0 || result == -EBADMSG || result == -EPROTONOSUPPORT);
    if (result == 0) {
        segment_header_encode(&header, again);
        REQUIRE(memcmp(again, block, sizeof again) == 0);
    }
    free(block);
}

/* Every record lies behind the directory and within the chunk. */
static void check_directory(const struct segment_chunk_header *header, const uint8_t *chunk)
{
    uint64_t at = segment_chunk_records_offset(header->record_count);
    for (uint32_t i = 0; i < header->record_count; i++) {
        const uint8_t *data = chunk + SEGMENT_CHUNK_HEADER_SIZE + (size_t)i * SEGMENT_ENTRY_SIZE;
        uint8_t again[SEGMENT_ENTRY_SIZE];
        struct segment_entry entry;
        segment_entry_decode(data, &entry);
        REQUIRE(entry.record_size > RECORD_HEADER_SIZE);
        segment_entry_encode(&entry, again);
        REQUIRE(memcmp(again, data, sizeof again) == 0);
        at += round_up(entry.record_size, SEGMENT_RECORD_ALIGNMENT);
    }
    REQUIRE(at <= segment_chunk_size(header->record_count, header->records_size));
    REQUIRE(segment_chunk_size(header->record_count, header->records_size) <=
            SEGMENT_CHUNK_SIZE_MAX);
}

static void check_chunk(const uint8_t *bytes)
{
    uint8_t *head = fuzz_copy(bytes, SEGMENT_CHUNK_HEADER_SIZE);
    struct segment_chunk_header header;
    int result = segment_chunk_header_decode(head, &header);
    free(head);
    REQUIRE(result == 0 || result == -EBADMSG || result == -EPROTONOSUPPORT);
    if (result < 0)
        return;
    uint64_t size = segment_chunk_records_offset(header.record_count);
    REQUIRE(size <= SEGMENT_CHUNK_SIZE_MAX);
    if (size > SIZE)
        return;
    uint8_t *chunk = fuzz_copy(bytes, size);
    result = segment_directory_check(&header, chunk);
    REQUIRE(result == 0 || result == -EBADMSG);
    if (result == 0) {
        check_directory(&header, chunk);
        segment_chunk_header_encode(&header, chunk);
        REQUIRE(memcmp(chunk, bytes, size) == 0);
    }
    free(chunk);
}

/* What the reader of units makes of the file whose chunks are the bytes. */
static int need(void *context, uint64_t offset, uint64_t size, const uint8_t **ret_data)
{
    const uint8_t *bytes = context;
    if (offset - SEGMENT_DATA_OFFSET + size > SIZE)
        return -ERANGE;
    *ret_data = bytes + offset - SEGMENT_DATA_OFFSET;
    return 0;
}

static void check_units(uint8_t *bytes)
{
    uint64_t end = SEGMENT_DATA_OFFSET + SIZE;
    struct unit_scan scan = {
        .file = {.is_segment = true, .directory_id = 3, .salt = 5, .number = 4, .end = end},
        .at = SEGMENT_DATA_OFFSET,
        .need = need,
        .context = bytes};
    static const uint8_t secret[HASH_SECRET_SIZE] = {0};
    enum unit_step step = UNIT_SKIPPED;
    for (uint32_t steps = 0; step != UNIT_END; steps++) {
        step = unit_scan_step(&scan);
        REQUIRE(steps < 8 && step != UNIT_WAIT && scan.at <= end);
        struct unit_cursor cursor = {0};
        struct unit_record record;
        while (step == UNIT_FOUND && unit_next(&scan.unit, scan.data, &cursor, &record) == 1) {
            REQUIRE(record.offset + record.size <= scan.at);
            (void)unit_record_verify(&record, 0, secret);
        }
    }
}

static void check_name(const uint8_t *data, size_t size)
{
    char *name = calloc(1, size + 1);
    REQUIRE(name != NULL);
    if (size > 0)
        memcpy(name, data, size);
    uint64_t number;
    if (segment_name_parse(name, &number) == 0)
        REQUIRE(strlen(name) == strlen("seg-0123456789abcdef"));
    free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_name(data, size);
    if (size < INPUT_FROM)
        return 0;
    uint8_t *bytes = calloc(1, SIZE);
    REQUIRE(bytes != NULL);
    make_bytes(data, size, bytes);
    check_header(bytes);
    check_chunk(bytes);
    check_units(bytes);
    free(bytes);
    return 0;
}
