/* Paths: truncate, rename, unlink, directories. */
#include "tests/support/support.h"

#define CREATE (IO_OPEN_WRITE | IO_OPEN_CREATE)

static void create(struct world *world, const char *name, uint32_t size)
{
    int file = open_file(world, name, CREATE);
    cr_assert_geq(file, 0);
    uint8_t data[1000];
    stream_fill(1, 0, data, sizeof data);
    if (size > 0)
        cr_assert_eq(write_file(world, file, data, size, 0, IO_WRITE_PLAIN), (int32_t)size);
    cr_assert_eq(close_file(world, file), 0);
}

static int32_t rename_file(struct world *world, const char *from, const char *to)
{
    struct io_op op = {0};
    io_rename(world_io(world), &op, world_path(world, from), world_path(world, to));
    return io_wait(world_io(world), &op);
}

static int32_t unlink_file(struct world *world, const char *name)
{
    struct io_op op = {0};
    io_unlink(world_io(world), &op, world_path(world, name));
    return io_wait(world_io(world), &op);
}

static int32_t truncate_file(struct world *world, const char *name, uint64_t size)
{
    struct io_op op = {0};
    io_truncate(world_io(world), &op, world_path(world, name), size);
    return io_wait(world_io(world), &op);
}

/* The size, or -errno. */
static int64_t size_of(struct world *world, const char *name)
{
    int file = open_file(world, name, IO_OPEN_READ);
    if (file < 0)
        return file;
    int64_t size = io_file_size(world_io(world), file);
    cr_assert_eq(close_file(world, file), 0);
    return size;
}

Test(io_path, truncate_cuts_and_grows)
{
    struct world *world = world_open(NULL);
    create(world, "f", 1000);
    cr_assert_eq(truncate_file(world, "f", 400), 0);
    cr_assert_eq(size_of(world, "f"), 400);
    cr_assert_eq(truncate_file(world, "f", 600), 0);
    int file = open_file(world, "f", IO_OPEN_READ);
    uint8_t back[1000];
    cr_assert_eq(read_file(world, file, back, sizeof back, 0), 600);
    cr_assert(stream_matches(1, 0, back, 400));
    for (int i = 400; i < 600; i++)
        cr_assert_eq(back[i], 0, "what was cut does not come back");
    cr_assert_eq(truncate_file(world, "f", 0), 0);
    cr_assert_eq(io_file_size(world_io(world), file), 0);
    cr_assert_eq(truncate_file(world, "absent", 0), -ENOENT);
    world_close(world);
}

Test(io_path, rename_replaces_its_target)
{
    struct world *world = world_open(NULL);
    create(world, "a", 10);
    create(world, "b", 20);
    cr_assert_eq(rename_file(world, "a", "b"), 0);
    cr_assert_eq(size_of(world, "a"), -ENOENT);
    cr_assert_eq(size_of(world, "b"), 10);
    cr_assert_eq(rename_file(world, "a", "c"), -ENOENT);
    cr_assert_eq(rename_file(world, "b", "absent/b"), -ENOENT);
    world_close(world);
}

Test(io_path, open_file_outlives_its_name)
{
    struct world *world = world_open(NULL);
    create(world, "f", 500);
    int file = open_file(world, "f", IO_OPEN_READ);
    cr_assert_eq(unlink_file(world, "f"), 0);
    cr_assert_eq(unlink_file(world, "f"), -ENOENT);
    cr_assert_eq(open_file(world, "f", IO_OPEN_READ), -ENOENT);
    uint8_t back[500];
    cr_assert_eq(read_file(world, file, back, sizeof back, 0), 500);
    cr_assert(stream_matches(1, 0, back, 500));
    cr_assert_eq(close_file(world, file), 0);
    world_close(world);
}

struct listing {
    uint32_t count;
    uint32_t seen; /* a bit for each name of one letter from 'a' on */
    uint32_t stop_at;
};

static int list_entry(void *context, const char *name)
{
    struct listing *listing = context;
    cr_assert_eq(strlen(name), 1, "%s", name);
    cr_assert(name[0] >= 'a' && name[0] < 'a' + 26, "%s", name);
    uint32_t bit = 1u << (name[0] - 'a');
    cr_assert_eq(listing->seen & bit, 0, "each name once");
    listing->seen |= bit;
    return ++listing->count == listing->stop_at ? 42 : 0;
}

Test(io_path, list_calls_for_every_entry_and_stops_when_told)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct listing empty = {0};
    cr_assert_eq(io_list_directory(io, world_path(world, ""), list_entry, &empty), 0);
    cr_assert_eq(empty.count, 0);
    create(world, "a", 1);
    create(world, "b", 0);
    cr_assert_eq(io_make_directory(io, world_path(world, "c")), 0);
    create(world, "c/d", 1);
    struct listing all = {0};
    cr_assert_eq(io_list_directory(io, world_path(world, ""), list_entry, &all), 0);
    cr_assert_eq(all.seen, 7);
    struct listing inner = {0};
    cr_assert_eq(io_list_directory(io, world_path(world, "c"), list_entry, &inner), 0);
    cr_assert_eq(inner.seen, 8);
    struct listing some = {.stop_at = 2};
    cr_assert_eq(io_list_directory(io, world_path(world, ""), list_entry, &some), 42);
    cr_assert_eq(some.count, 2);
    cr_assert_eq(io_list_directory(io, world_path(world, "x"), list_entry, &some), -ENOENT);
    world_close(world);
}

Test(io_path, directory_may_be_there_already)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    cr_assert_eq(io_make_directory(io, world_path(world, "d")), 0);
    cr_assert_eq(io_make_directory(io, world_path(world, "d")), 0);
    cr_assert_eq(io_make_directory(io, world_path(world, "absent/d")), -ENOENT);
    create(world, "d/f", 10);
    cr_assert_eq(rename_file(world, "d/f", "f"), 0);
    cr_assert_eq(size_of(world, "f"), 10);
    world_close(world);
}

Test(io_path, only_an_empty_directory_is_removed)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    cr_assert_eq(io_make_directory(io, world_path(world, "d")), 0);
    create(world, "d/f", 10);
    cr_assert_eq(io_remove_directory(io, world_path(world, "d")), -ENOTEMPTY);
    cr_assert_eq(io_remove_directory(io, world_path(world, "d/f")), -ENOTDIR);
    cr_assert_eq(rename_file(world, "d/f", "f"), 0);
    cr_assert_eq(io_remove_directory(io, world_path(world, "d")), 0);
    cr_assert_eq(io_remove_directory(io, world_path(world, "d")), -ENOENT);
    cr_assert_eq(size_of(world, "f"), 10);
    world_close(world);
}

Test(io_path, a_name_leads_to_the_same_file_until_another_takes_it)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct io_file_identity first, again, other;
    cr_assert_eq(io_identify(io, world_path(world, "d"), &first), -ENOENT);
    cr_assert_eq(io_make_directory(io, world_path(world, "d")), 0);
    cr_assert_eq(io_identify(io, world_path(world, "d"), &first), 0);
    create(world, "d/f", 10);
    cr_assert_eq(io_identify(io, world_path(world, "d"), &again), 0);
    cr_assert(first.device == again.device && first.inode == again.inode);
    cr_assert_eq(io_identify(io, world_path(world, "d/f"), &other), 0);
    cr_assert_neq(first.inode, other.inode);
    cr_assert_eq(io_identify(io, world_path(world, "d/f/g"), &other), -ENOTDIR);
    cr_assert_eq(rename_file(world, "d/f", "f"), 0);
    cr_assert_eq(io_identify(io, world_path(world, "d/f"), &other), -ENOENT);
    cr_assert_eq(io_remove_directory(io, world_path(world, "d")), 0);
    cr_assert_eq(io_identify(io, world_path(world, "d"), &again), -ENOENT);
    world_close(world);
}

Test(io_path, disk_space_is_plausible)
{
    struct world *world = world_open(NULL);
    uint64_t free_bytes = 0, total_bytes = 0;
    int error = io_disk_space(world_io(world), world_path(world, ""), &free_bytes, &total_bytes);
    cr_assert_eq(error, 0);
    cr_assert_gt(total_bytes, 0);
    cr_assert_leq(free_bytes, total_bytes);
    world_close(world);
}
