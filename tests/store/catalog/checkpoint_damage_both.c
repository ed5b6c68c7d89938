/* Checkpoints that cannot be used: damaged, foreign, of blocks that are sound but do not fit. */
#include "checkpoint_fixture.h"

#include "base/bytes.h"
#include "base/checksum.h"
#include "store/catalog/checkpoint_format.h"

#define BLOCK CHECKPOINT_BLOCK_MIN

static struct world *open_world(void)
{
    static const struct io_options options = CHECKPOINT_OPTIONS;
    return world_open(&options);
}

static const char *folder(struct world *world)
{
    return world_path(world, ".");
}

static int load_into(struct world *world, struct index *index)
{
    return load_checkpoint(world_io(world), folder(world), index);
}

struct image {
    uint8_t *data;
    uint32_t size;
};

static struct image read_image(struct world *world)
{
    int file = open_file(world, CHECKPOINT_NAME, IO_OPEN_READ);
    cr_assert_geq(file, 0);
    struct image image = {.size = (uint32_t)io_file_size(world_io(world), file)};
    image.data = aligned_bytes(image.size + BLOCK);
    cr_assert_eq(read_file(world, file, image.data, image.size, 0), (int32_t)image.size);
    cr_assert_eq(close_file(world, file), 0);
    return image;
}

static void write_image(struct world *world, const uint8_t *data, uint32_t size)
{
    struct io *io = world_io(world);
    struct io_op op = {0};
    io_unlink(io, &op, world_path(world, CHECKPOINT_NAME));
    (void)io_wait(io, &op);
    int file = open_file(world, CHECKPOINT_NAME, IO_OPEN_WRITE | IO_OPEN_CREATE);
    cr_assert_geq(file, 0);
    if (size > 0)
        cr_assert_eq(write_file(world, file, data, size, 0, IO_WRITE_PLAIN), (int32_t)size);
    cr_assert_eq(close_file(world, file), 0);
}

/* A world with a checkpoint of `count` slots, and its bytes. */
static struct world *world_with_checkpoint(uint64_t count, struct image *ret_image)
{
    struct world *world = open_world();
    struct index *index = index_with(count);
    cr_assert_eq(write_checkpoint(world_io(world), folder(world), index, 65536), 0);
    index_free(index);
    *ret_image = read_image(world);
    return world;
}

/* What loading an image that differs says. */
static int load_image(struct world *world, const uint8_t *data, uint32_t size, uint64_t count)
{
    write_image(world, data, size);
    return try_load(world_io(world), folder(world), count);
}

Test(checkpoint_damage, flipped_bit_in_any_block_is_noticed)
{
    struct image image;
    struct world *world = world_with_checkpoint(20000, &image);
    cr_assert_gt(image.size, CHECKPOINT_UNIT_SIZE, "more than one unit");
    struct prng prng = {9};
    for (uint32_t block = 0; block < image.size; block += BLOCK) {
        uint64_t bit = prng_below(&prng, (uint64_t)BLOCK * 8);
        image.data[block + bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(load_image(world, image.data, image.size, 20000), -EBADMSG, "byte %lu",
                     block + bit / 8);
        image.data[block + bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_expect_eq(load_image(world, image.data, image.size, 20000), 0);
    free(image.data);
    world_close(world);
}

Test(checkpoint_damage, file_of_another_length_is_refused)
{
    struct image image;
    struct world *world = world_with_checkpoint(400, &image);
    for (uint32_t size = 0; size < image.size; size += BLOCK)
        cr_assert_eq(load_image(world, image.data, size, 400), -EBADMSG, "%u bytes", size);
    cr_expect_eq(load_image(world, image.data, image.size - 1, 400), -EBADMSG);
    cr_expect_eq(load_image(world, image.data, image.size + 1, 400), -EBADMSG);
    cr_expect_eq(load_image(world, image.data, image.size + BLOCK, 400), -EBADMSG);
    cr_expect_eq(load_image(world, image.data, image.size, 400), 0);
    free(image.data);
    world_close(world);
}

Test(checkpoint_damage, absent_one_is_told_apart)
{
    struct world *world = open_world();
    struct io *io = world_io(world);
    cr_expect_eq(try_load(io, folder(world), 0), -ENOENT);
    world_close(world);
}

static int load_as(struct world *world, uint64_t directory_id, uint32_t log_id)
{
    struct io *io = world_io(world);
    struct log log = {.level_min = LOG_WARN, .write = say_nothing};
    struct checkpoint_options options = checkpoint_options(io, folder(world));
    options.directory_id = directory_id;
    options.log_id = log_id;
    struct checkpoint_info info;
    uint64_t dropped;
    struct index *index = make_index();
    int result =
        checkpoint_load(io, &log, &options, NUMBER, index, same_file, NULL, &info, &dropped);
    index_free(index);
    return result;
}

Test(checkpoint_damage, one_of_another_directory_or_log_is_refused)
{
    struct image image;
    struct world *world = world_with_checkpoint(100, &image);
    cr_expect_eq(load_as(world, DIRECTORY_ID, LOG_ID), 0);
    cr_expect_eq(load_as(world, DIRECTORY_ID + 1, LOG_ID), -EXDEV);
    cr_expect_eq(load_as(world, DIRECTORY_ID, LOG_ID + 1), -EXDEV);
    free(image.data);
    world_close(world);
}

Test(checkpoint_damage, one_of_another_format_is_refused)
{
    struct image image;
    struct world *world = world_with_checkpoint(100, &image);
    store_u16(image.data + 12, CHECKPOINT_FORMAT + 1);
    store_u32(image.data + 8, crc32c(image.data + 12, CHECKPOINT_BLOCK_HEADER_SIZE - 12));
    cr_expect_eq(load_image(world, image.data, image.size, 100), -EPROTONOSUPPORT);
    cr_expect_eq(load_as(world, DIRECTORY_ID, LOG_ID), -EPROTONOSUPPORT);
    free(image.data);
    world_close(world);
}

Test(checkpoint_damage, one_under_a_wrong_name_is_refused)
{
    struct image image;
    struct world *world = world_with_checkpoint(100, &image);
    struct io *io = world_io(world);
    struct io_op op = {0};
    io_rename(io, &op, world_path(world, CHECKPOINT_NAME),
              world_path(world, "checkpoint-0000000000c0ffef"));
    cr_assert_eq(io_wait(io, &op), 0);
    struct log log = {.level_min = LOG_WARN, .write = say_nothing};
    struct checkpoint_options options = checkpoint_options(io, folder(world));
    struct checkpoint_info info;
    uint64_t dropped;
    struct index *index = make_index();
    cr_expect_eq(
        checkpoint_load(io, &log, &options, NUMBER + 1, index, same_file, NULL, &info, &dropped),
        -EBADMSG);
    index_free(index);
    free(image.data);
    world_close(world);
}

Test(checkpoint_damage, index_without_memory_says_so)
{
    struct image image;
    struct world *world = world_with_checkpoint(20000, &image);
    struct index *index;
    cr_assert_eq(index_create(300000, &index), 0);
    cr_expect_eq(load_into(world, index), -ENOMEM);
    index_free(index);
    free(image.data);
    world_close(world);
}

/* ---- sound blocks that make no sense together ---- */

/* Where block `sequence` begins. */
static uint32_t find_block(const struct image *image, uint64_t sequence)
{
    struct checkpoint_block block;
    for (uint32_t at = 0; at < image->size; at += block.size) {
        cr_assert_eq(checkpoint_block_decode(image->data + at, image->size - at, &block), 0);
        if (block.sequence == sequence)
            return at;
    }
    cr_assert_fail("no block %lu", sequence);
    return 0;
}

/* Seals a changed block again. */
static void seal(struct image *image, uint32_t at, const struct checkpoint_block *block)
{
    checkpoint_block_encode(block, image->data + at);
}

static struct checkpoint_block block_at(const struct image *image, uint32_t at)
{
    struct checkpoint_block block;
    cr_assert_eq(checkpoint_block_decode(image->data + at, image->size - at, &block), 0);
    return block;
}

/* Changes block `sequence` as `change` does, and puts it back. */
static void expect_refused(struct world *world, struct image *image, uint64_t sequence,
                           void (*change)(struct checkpoint_block *block, uint8_t *data),
                           const char *what)
{
    uint32_t at = find_block(image, sequence);
    struct checkpoint_block block = block_at(image, at);
    uint8_t before[BLOCK];
    memcpy(before, image->data + at, BLOCK);
    change(&block, image->data + at);
    seal(image, at, &block);
    cr_expect_eq(load_image(world, image->data, image->size, 3000), -EBADMSG, "%s", what);
    memcpy(image->data + at, before, BLOCK);
}

static void change_sequence(struct checkpoint_block *block, uint8_t *data)
{
    (void)data;
    block->sequence++;
}
static void change_number(struct checkpoint_block *block, uint8_t *data)
{
    (void)data;
    block->number++;
}
static void change_directory(struct checkpoint_block *block, uint8_t *data)
{
    (void)data;
    block->directory_id++;
}
static void change_partition(struct checkpoint_block *block, uint8_t *data)
{
    (void)data;
    block->partition = 2;
}
static void change_count(struct checkpoint_block *block, uint8_t *data)
{
    (void)data;
    block->entry_count--;
}
static void change_kind(struct checkpoint_block *block, uint8_t *data)
{
    (void)data;
    *block = (struct checkpoint_block){.kind = CHECKPOINT_FILES,
                                       .directory_id = block->directory_id,
                                       .number = block->number,
                                       .sequence = block->sequence,
                                       .size = block->size};
}
static void change_slot_file(struct checkpoint_block *block, uint8_t *data)
{
    (void)block;
    data[CHECKPOINT_BLOCK_HEADER_SIZE + 19 + 5] = 0x7F;
}
static void change_slot_size(struct checkpoint_block *block, uint8_t *data)
{
    (void)block;
    data[CHECKPOINT_BLOCK_HEADER_SIZE + 25] = 0x3F;
}
static void change_file_kind(struct checkpoint_block *block, uint8_t *data)
{
    (void)block;
    data[CHECKPOINT_BLOCK_HEADER_SIZE] = 3;
}
static void change_file_id(struct checkpoint_block *block, uint8_t *data)
{
    (void)block;
    data[CHECKPOINT_BLOCK_HEADER_SIZE + 6] = 8;
}
static void change_total(struct checkpoint_block *block, uint8_t *data)
{
    (void)block;
    data[CHECKPOINT_BLOCK_HEADER_SIZE]++;
}

Test(checkpoint_damage, sound_blocks_that_do_not_fit_together_are_refused)
{
    struct image image;
    struct world *world = world_with_checkpoint(3000, &image);
    uint64_t last = block_at(&image, image.size - BLOCK).sequence;
    for (uint64_t sequence = 0; sequence <= last; sequence += last / 2) {
        expect_refused(world, &image, sequence, change_sequence, "a sequence");
        expect_refused(world, &image, sequence, change_number, "a number");
        if (sequence > 0)
            expect_refused(world, &image, sequence, change_directory, "a directory");
    }
    expect_refused(world, &image, 1, change_count, "a file less");
    expect_refused(world, &image, 1, change_file_kind, "a file of no kind");
    expect_refused(world, &image, 1, change_file_id, "a file id out of range");
    expect_refused(world, &image, 60, change_partition, "a partition that came already");
    expect_refused(world, &image, 60, change_count, "a slot less");
    expect_refused(world, &image, 60, change_kind, "files behind slots");
    expect_refused(world, &image, 60, change_slot_file, "a slot in a file that is not listed");
    expect_refused(world, &image, 60, change_slot_size, "a record that is too large");
    expect_refused(world, &image, last, change_total, "another total");
    cr_expect_eq(load_image(world, image.data, image.size, 3000), 0);
    free(image.data);
    world_close(world);
}

/* A hint is only a hint. */
Test(checkpoint_damage, promise_of_too_many_slots_does_no_harm)
{
    struct image image;
    struct world *world = world_with_checkpoint(3000, &image);
    uint32_t at = find_block(&image, 5);
    struct checkpoint_block block = block_at(&image, at);
    block.slots_hint = UINT64_MAX;
    seal(&image, at, &block);
    cr_expect_eq(load_image(world, image.data, image.size, 3000), 0);
    free(image.data);
    world_close(world);
}
