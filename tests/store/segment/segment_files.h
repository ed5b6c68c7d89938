/* Partition segments for tests: built in memory, then written into a world's directory. */
#ifndef TESTS_STORE_SEGMENT_SEGMENT_FILES_H
#define TESTS_STORE_SEGMENT_SEGMENT_FILES_H

#include "tests/support/support.h"

#include "store/unit/segment_format.h"
#include "store/segment/segments.h"

#include <inttypes.h>
#include <stdio.h>

#define FILES_DIRECTORY_ID 0xD1D2D3D4D5D6D7D8u
#define FILES_PARTITION 0xA7u

/* A segment file that grows in memory. */
struct image {
    uint8_t *bytes; /* `capacity`, aligned */
    uint64_t capacity;
    uint64_t end;
    uint64_t number;
    uint64_t sequence; /* of the last chunk */
};

static inline uint64_t salt_of(uint64_t number)
{
    return number * 0x9E3779B97F4A7C15u + 1;
}

static inline struct segment_header image_header(const struct image *image)
{
    return (struct segment_header){
        .partition = FILES_PARTITION,
        .source = SEGMENT_FROM_LOG,
        .directory_id = FILES_DIRECTORY_ID,
        .log_id = 3,
        .number = image->number,
        .salt = salt_of(image->number),
        .created = 99,
    };
}

/* With its header. */
static inline void image_init(struct image *image, uint64_t number, uint64_t capacity)
{
    *image = (struct image){.bytes = aligned_bytes(capacity),
                            .capacity = capacity,
                            .end = SEGMENT_DATA_OFFSET,
                            .number = number,
                            .sequence = number * 1000};
    struct segment_header header = image_header(image);
    segment_header_encode(&header, image->bytes);
}

static inline void image_deinit(struct image *image)
{
    free(image->bytes);
}

/* Record i of the chunk with this sequence, as its directory says it. */
static inline struct segment_entry entry_of(uint64_t sequence, uint32_t i, uint32_t record_size)
{
    return (struct segment_entry){
        .hash = sequence << 32 | i,
        .version = {.clock = sequence * 7 + i, .origin = i},
        .record_size = record_size,
        .in_value_file = i % 3 == 1,
        .tombstone = i % 3 == 2,
    };
}

/* Appends a chunk of `count` records of the same size. Returns its offset. */
static inline uint64_t image_add_chunk(struct image *image, uint32_t count, uint32_t record_size)
{
    uint64_t padded = round_up(record_size, SEGMENT_RECORD_ALIGNMENT);
    uint64_t size = segment_chunk_size(count, count * padded);
    uint64_t offset = image->end;
    uint8_t *chunk = image->bytes + offset;
    cr_assert_leq(offset + size, image->capacity);
    memset(chunk, 0, size);
    struct segment_chunk_header header = {
        .directory_id = FILES_DIRECTORY_ID,
        .record_count = count,
        .salt = salt_of(image->number),
        .segment = image->number,
        .offset = offset,
        .sequence = ++image->sequence,
        .records_size = (uint32_t)(count * padded),
    };
    for (uint32_t i = 0; i < count; i++) {
        struct segment_entry entry = entry_of(header.sequence, i, record_size);
        segment_entry_encode(&entry,
                             chunk + SEGMENT_CHUNK_HEADER_SIZE + (size_t)i * SEGMENT_ENTRY_SIZE);
    }
    stream_fill((uint32_t)header.sequence, 0, chunk + segment_chunk_records_offset(count),
                count * padded);
    segment_chunk_header_encode(&header, chunk);
    image->end += size;
    return offset;
}

/* The file's path in the world: good until the world is closed. */
static inline const char *segment_file(struct world *world, uint64_t number)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%02x/seg-%016" PRIx64, FILES_PARTITION, number);
    return world_path(world, name);
}

static inline void make_folder(struct world *world)
{
    char name[8];
    (void)snprintf(name, sizeof name, "%02x", FILES_PARTITION);
    cr_assert_eq(io_make_directory(world_io(world), world_path(world, name)), 0);
}

static inline int open_segment_file(struct world *world, uint64_t number, uint32_t flags)
{
    struct io_op op = {0};
    io_open_file(world_io(world), &op, segment_file(world, number), flags);
    return io_wait(world_io(world), &op);
}

/* Writes the first `size` bytes. */
static inline void image_write(struct image *image, struct world *world, uint64_t size)
{
    int file = open_segment_file(world, image->number, IO_OPEN_WRITE | IO_OPEN_CREATE);
    cr_assert_geq(file, 0);
    cr_assert_eq(write_file(world, file, image->bytes, (uint32_t)size, 0, IO_WRITE_PLAIN),
                 (int32_t)size);
    cr_assert_eq(sync_file(world, file), 0);
    cr_assert_eq(close_file(world, file), 0);
}

#endif
