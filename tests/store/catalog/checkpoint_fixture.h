/* What the checkpoint's tests share: an index whose slots are known, and a checkpoint of it written
 * and read in one go. */
#ifndef TESTS_STORE_CATALOG_CHECKPOINT_FIXTURE_H
#define TESTS_STORE_CATALOG_CHECKPOINT_FIXTURE_H

#include "base/prng.h"
#include "store/catalog/checkpoint.h"
#include "tests/support/support.h"

#include <stdio.h>

#define CHECKPOINT_OPTIONS                                                                         \
    {                                                                                              \
        .sockets_max = 4, .files_max = 8, .receive_buffer_size = 4096, .receive_buffer_count = 4,  \
        .region_size = CHECKPOINT_MEMORY_SIZE                                                      \
    }

#define SEGMENT_BIT (1ull << 47)
#define OFFSET_BITS 28
#define FILES_PER_KIND 8u
#define FILES (2 * FILES_PER_KIND)
#define DIRECTORY_ID 0xD1D2D3D4D5D6D7D8u
#define LOG_ID 3u
#define NUMBER 0xC0FFEEu
#define PASSES_MAX 1000000u

/* ---- slots ---- */

struct slot {
    uint32_t partition;
    uint64_t hash;
    struct index_entry entry;
};

/* Slot `i` of all: every kind of file, size, bit. */
static inline struct slot slot_at(uint64_t i)
{
    struct prng prng = {i * 0x9E3779B97F4A7C15u + 1};
    uint64_t random = prng_next(&prng);
    uint64_t file = random % FILES_PER_KIND;
    return (struct slot){
        .partition = (uint32_t)(random >> 56),
        .hash = prng_next(&prng) & ((1ull << 56) - 1),
        .entry =
            {
                .version = {.clock = i + 1, .origin = (uint32_t)random | 1},
                .location = (random & 8 ? SEGMENT_BIT : 0) | file << OFFSET_BITS |
                            (prng_next(&prng) & ((1u << OFFSET_BITS) - 1)),
                .read_size = index_read_size(prng_below(&prng, INDEX_RECORD_SIZE_MAX) + 1),
                .tombstone = i % 7 == 0,
                .in_value_file = i % 5 == 0,
            },
    };
}

static inline void put_slot(struct index *index, const struct slot *slot)
{
    cr_assert_eq(index_add(index, slot->partition, slot->hash, &slot->entry), 0);
}

static inline struct index *make_index(void)
{
    struct index *index;
    cr_assert_eq(index_create(0, &index), 0);
    return index;
}

/* An index with the slots 0 to count - 1. */
static inline struct index *index_with(uint64_t count)
{
    struct index *index = make_index();
    for (uint64_t i = 0; i < count; i++) {
        struct slot slot = slot_at(i);
        put_slot(index, &slot);
    }
    return index;
}

static inline bool entries_are_equal(const struct index_entry *a, const struct index_entry *b)
{
    return version_compare(a->version, b->version) == 0 && a->location == b->location &&
           a->read_size == b->read_size && a->tombstone == b->tombstone &&
           a->in_value_file == b->in_value_file;
}

/* Whether the index has exactly this slot. */
static inline bool has_slot(const struct index *index, const struct slot *slot)
{
    struct index_entry found;
    return index_get(index, slot->partition, slot->hash, slot->entry.version, &found) == 0 &&
           entries_are_equal(&found, &slot->entry);
}

/* Whether the index has the slots 0 to count - 1 and nothing else. */
static inline bool has_slots(const struct index *index, uint64_t count)
{
    bool has_all = index_count(index) == count;
    for (uint64_t i = 0; i < count && has_all; i++) {
        struct slot slot = slot_at(i);
        has_all = has_slot(index, &slot);
    }
    return has_all;
}

/* ---- checkpoints ---- */

struct outcome {
    uint32_t count; /* of calls of `done` */
    int result;
};

static inline void take_outcome(void *context, int result)
{
    struct outcome *outcome = context;
    outcome->count++;
    outcome->result = result;
}

static inline void say_nothing(void *context, const char *line, uint32_t size)
{
    (void)line;
    if (context != NULL)
        *(uint32_t *)context += size;
}

static inline struct checkpoint_options checkpoint_options(struct io *io, const char *path)
{
    return (struct checkpoint_options){
        .path = path, .directory_id = DIRECTORY_ID, .log_id = LOG_ID, .memory = io_region(io)};
}

/* The table of all files that slot_at uses. */
static inline void fill_files(struct checkpoint_file *files)
{
    for (uint32_t i = 0; i < FILES; i++)
        files[i] = (struct checkpoint_file){.is_segment = i >= FILES_PER_KIND,
                                            .file = i % FILES_PER_KIND,
                                            .number = 1000 + i,
                                            .end = 5000 + i};
}

static const struct checkpoint_info usual_info = {
    .number = NUMBER, .position = 77, .chunk_sequence = 88, .clock_ceiling = 99};

static inline struct checkpoint_writer *begin_checkpoint(struct io *io, const char *path,
                                                         const struct index *index,
                                                         struct outcome *outcome)
{
    static const struct log quiet = {.level_min = LOG_ERROR, .write = say_nothing};
    struct checkpoint_options options = checkpoint_options(io, path);
    struct checkpoint_file files[FILES];
    struct checkpoint_writer *writer = NULL;
    fill_files(files);
    *outcome = (struct outcome){0};
    cr_assert_eq(checkpoint_begin(io, &quiet, &options, &usual_info, index, files, FILES,
                                  take_outcome, outcome, &writer),
                 0);
    return writer;
}

/* Steps until `done`, or the world's end (then the writer is freed). Returns done's result. */
static inline int finish_checkpoint(struct io *io, struct checkpoint_writer *writer,
                                    struct outcome *outcome, uint64_t budget)
{
    for (uint32_t pass = 0; outcome->count == 0; pass++) {
        cr_assert_lt(pass, PASSES_MAX);
        bool is_busy = checkpoint_step(writer, budget) > 0;
        if (io_run(io, is_busy ? 0 : NS_PER_MS) < 0)
            return -ESHUTDOWN;
    }
    cr_assert_eq(outcome->count, 1);
    return outcome->result;
}

/* The usual checkpoint of `index` in the folder `path`. */
static inline int write_checkpoint(struct io *io, const char *path, const struct index *index,
                                   uint64_t budget)
{
    struct outcome outcome;
    struct checkpoint_writer *writer = begin_checkpoint(io, path, index, &outcome);
    int result = finish_checkpoint(io, writer, &outcome, budget);
    if (outcome.count == 0)
        checkpoint_free(writer);
    return result;
}

/* The file keeps its id. */
static inline uint32_t same_file(void *context, const struct checkpoint_file *file)
{
    (void)context;
    return file->file;
}

/* Into `index`; what is said on the log must come with an error, and no error but -ENOENT without.
 */
static inline int load_counted(struct io *io, const char *path, struct index *index,
                               uint64_t *ret_slots)
{
    uint32_t said = 0;
    struct log log = {.level_min = LOG_WARN, .write = say_nothing, .context = &said};
    struct checkpoint_options options = checkpoint_options(io, path);
    struct checkpoint_info info;
    uint64_t dropped;
    int result =
        checkpoint_load(io, &log, &options, NUMBER, index, same_file, NULL, &info, &dropped);
    cr_assert_eq(said > 0, result < 0 && result != -ENOENT);
    if (result < 0)
        return result;
    cr_assert_eq(info.number, usual_info.number);
    cr_assert_eq(info.position, usual_info.position);
    cr_assert_eq(info.chunk_sequence, usual_info.chunk_sequence);
    cr_assert_eq(info.clock_ceiling, usual_info.clock_ceiling);
    cr_assert_eq(dropped, 0);
    *ret_slots = info.slots;
    return 0;
}

static inline int load_checkpoint(struct io *io, const char *path, struct index *index)
{
    uint64_t slots;
    return load_counted(io, path, index, &slots);
}

/* What loading into a new index returns; when it is 0 the index must have the slots 0 to count - 1.
 */
static inline int try_load(struct io *io, const char *path, uint64_t count)
{
    struct index *index = make_index();
    int result = load_checkpoint(io, path, index);
    if (result == 0)
        cr_assert(has_slots(index, count), "a loaded checkpoint is whole");
    index_free(index);
    return result;
}

#define CHECKPOINT_NAME "checkpoint-0000000000c0ffee"

static inline int count_entry(void *context, const char *name)
{
    (void)name;
    (*(uint32_t *)context)++;
    return 0;
}

static inline uint32_t entries_in(struct io *io, const char *path)
{
    uint32_t count = 0;
    cr_assert_eq(io_list_directory(io, path, count_entry, &count), 0);
    return count;
}

#endif
