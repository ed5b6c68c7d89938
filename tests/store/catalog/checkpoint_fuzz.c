/* A block of an index checkpoint from bytes that somebody else wrote: no crash, no read past it,
 * and what is accepted is sound and means what we would write.
 *
 * The first byte is a mode: its lowest bit says that both checksums are made right, so that what
 * lies behind them is reached; the next two say what the rest is laid over, a good block of that
 * kind. The next two bytes are where it is laid. The input as text is parsed as a name, too. */
#include "store/catalog/checkpoint_format.h"

#include "base/bytes.h"
#include "base/checksum.h"
#include "tests/support/fuzz.h"

#include <errno.h>
#include <stdlib.h>

#define HEADER CHECKPOINT_BLOCK_HEADER_SIZE
#define SIZE (2 * CHECKPOINT_BLOCK_MIN)
#define INPUT_FROM 3

static void put_good_block(enum checkpoint_kind kind, uint8_t *target)
{
    bool is_single = kind == CHECKPOINT_BEGIN || kind == CHECKPOINT_END;
    uint32_t count = is_single ? 1 : 200;
    struct checkpoint_file file = {.is_segment = true, .file = 5, .number = 6};
    struct checkpoint_block block = {.kind = kind,
                                     .directory_id = 1,
                                     .number = 2,
                                     .sequence = 3,
                                     .entry_count = count,
                                     .size = checkpoint_block_size(kind, count)};
    for (uint32_t i = 0; kind == CHECKPOINT_FILES && i < count; i++)
        checkpoint_file_encode(&file, target + HEADER + (size_t)i * CHECKPOINT_FILE_SIZE);
    checkpoint_block_encode(&block, target);
}

static void seal(uint8_t *block)
{
    uint32_t size = load_u32(block + 52);
    if (size >= HEADER && size <= SIZE)
        store_u32(block + 56, crc32c(block + HEADER, size - HEADER));
    store_u32(block + 8, crc32c(block + 12, HEADER - 12));
}

static void make_block(const uint8_t *data, size_t size, uint8_t *block)
{
    uint8_t mode = size > 0 ? data[0] : 0;
    put_good_block((mode >> 1 & 3) + 1, block);
    if (size < INPUT_FROM)
        return;
    size_t offset = load_u16(data + 1) % SIZE;
    for (size_t i = INPUT_FROM; i < size && offset + i - INPUT_FROM < SIZE; i++)
        block[offset + i - INPUT_FROM] ^= data[i];
    if (mode & 1)
        seal(block);
}

static void check_entry(enum checkpoint_kind kind, const uint8_t *entry)
{
    uint8_t again[INDEX_PACKED_SIZE];
    if (kind == CHECKPOINT_FILES) {
        struct checkpoint_file file;
        if (checkpoint_file_decode(entry, &file) == 0) {
            checkpoint_file_encode(&file, again);
            REQUIRE(memcmp(again, entry, CHECKPOINT_FILE_SIZE) == 0);
        }
    } else if (kind == CHECKPOINT_SLOTS) {
        struct index_entry slot;
        uint64_t hash;
        index_unpack(entry, &hash, &slot);
        REQUIRE(checkpoint_location_key(slot.location) < CHECKPOINT_FILES_MAX);
        if (slot.read_size > INDEX_RECORD_SIZE_MAX)
            return;
        index_pack(hash, &slot, again);
        REQUIRE(memcmp(again, entry, INDEX_PACKED_SIZE) == 0);
    }
}

static void check_block(const struct checkpoint_block *block, uint8_t *data)
{
    uint32_t used = HEADER + block->entry_count * checkpoint_entry_size(block->kind);
    REQUIRE(block->entry_count <= checkpoint_block_room(block->kind, block->size));
    for (uint32_t at = HEADER; at < used; at += checkpoint_entry_size(block->kind))
        check_entry(block->kind, data + at);
    bool is_padded = true;
    for (uint32_t at = used; at < block->size; at++)
        is_padded = is_padded && data[at] == 0;
    uint8_t header[HEADER];
    memcpy(header, data, HEADER);
    checkpoint_block_encode(block, data);
    REQUIRE(!is_padded || memcmp(header, data, HEADER) == 0);
}

static void check_name(const uint8_t *data, size_t size)
{
    char *name = calloc(1, size + 1);
    REQUIRE(name != NULL);
    if (size > 0)
        memcpy(name, data, size);
    uint64_t number;
    bool is_temporary;
    if (checkpoint_name_parse(name, &number, &is_temporary) == 0) {
        char path[CHECKPOINT_PATH_MAX];
        REQUIRE(checkpoint_path("d", number, is_temporary, path) == 0);
        REQUIRE(strcmp(path + 2, name) == 0);
    }
    free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *block = calloc(1, SIZE); /* on the heap, so that a read past it is seen */
    REQUIRE(block != NULL);
    make_block(data, size, block);
    struct checkpoint_block found;
    int result = checkpoint_block_decode(block, SIZE, &found);
    REQUIRE(result == 0 || result == -EBADMSG || result == -EPROTONOSUPPORT);
    bool is_sound = load_u32(block + 8) == crc32c(block + 12, HEADER - 12);
    REQUIRE(result == -EBADMSG || is_sound);
    if (result == 0)
        check_block(&found, block);
    free(block);
    check_name(data, size);
    return 0;
}
