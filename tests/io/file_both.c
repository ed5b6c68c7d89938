/* Files: opening, reading, writing, syncing, locking. What survives a crash is the simulator's to
 * test. */
#include "tests/support/support.h"

#define CREATE (IO_OPEN_WRITE | IO_OPEN_CREATE)

Test(io_file, absent_one_is_created_only_when_asked)
{
    struct world *world = world_open(NULL);
    cr_assert_eq(open_file(world, "f", IO_OPEN_READ), -ENOENT);
    cr_assert_eq(open_file(world, "f", IO_OPEN_WRITE), -ENOENT);
    int file = open_file(world, "f", CREATE);
    cr_assert_geq(file, 0);
    cr_assert_eq(io_file_size(world_io(world), file), 0);
    cr_assert_eq(open_file(world, "f", CREATE | IO_OPEN_EXCLUSIVE), -EEXIST);
    cr_assert_geq(open_file(world, "f", CREATE), 0, "without EXCLUSIVE it may be there");
    cr_assert_geq(open_file(world, "g", CREATE | IO_OPEN_EXCLUSIVE | IO_OPEN_DIRECT), 0);
    cr_assert_eq(open_file(world, "absent/f", CREATE), -ENOENT);
    cr_assert_eq(open_file(world, "f", IO_OPEN_DIRECTORY), -ENOTDIR);
    world_close(world);
}

Test(io_file, handles_run_out_and_come_back)
{
    struct io_options options = WORLD_OPTIONS;
    options.files_max = 3;
    struct world *world = world_open(&options);
    int files[3];
    for (int i = 0; i < 3; i++) {
        files[i] = open_file(world, "f", CREATE);
        cr_assert_geq(files[i], 0);
    }
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(open_file(world, "f", IO_OPEN_READ), -ENFILE);
        cr_assert_eq(close_file(world, files[i % 3]), 0);
        files[i % 3] = open_file(world, "f", IO_OPEN_READ);
        cr_assert_geq(files[i % 3], 0);
    }
    cr_assert_eq(open_file(world, "new", CREATE), -ENFILE);
    cr_assert_eq(close_file(world, files[0]), 0);
    cr_assert_eq(open_file(world, "new", IO_OPEN_READ), -ENOENT, "what was refused left no trace");
    world_close(world);
}

Test(io_file, many_opens_at_once_never_exceed_the_maximum)
{
    struct io_options options = WORLD_OPTIONS;
    options.files_max = 4;
    struct world *world = world_open(&options);
    struct probe probes[16];
    for (int i = 0; i < 16; i++) {
        probe_init(&probes[i]);
        io_open_file(world_io(world), &probes[i].op, world_path(world, "f"), CREATE);
    }
    uint32_t opened = 0;
    for (int i = 0; i < 16; i++) {
        RUN_UNTIL(world, probes[i].count > 0);
        if (probes[i].result >= 0)
            opened++;
        else
            cr_assert_eq(probes[i].result, -ENFILE);
    }
    cr_assert_eq(opened, 4);
    world_close(world);
}

Test(io_file, what_was_written_is_read)
{
    struct world *world = world_open(NULL);
    int file = open_file(world, "f", CREATE);
    uint8_t data[10000], back[10000];
    stream_fill(1, 0, data, sizeof data);
    cr_assert_eq(write_file(world, file, data, 5000, 0, IO_WRITE_PLAIN), 5000);
    cr_assert_eq(write_file(world, file, data + 5000, 5000, 5000, IO_WRITE_DSYNC), 5000);
    cr_assert_eq(io_file_size(world_io(world), file), 10000);
    cr_assert_eq(read_file(world, file, back, sizeof back, 0), 10000);
    cr_assert_arr_eq(back, data, sizeof back);
    cr_assert_eq(write_file(world, file, data, 3, 4998, IO_WRITE_PLAIN), 3);
    cr_assert_eq(read_file(world, file, back, 5, 4997), 5);
    cr_assert_eq(back[0], data[4997]);
    cr_assert_arr_eq(back + 1, data, 3);
    cr_assert_eq(back[4], data[5001]);
    world_close(world);
}

Test(io_file, read_is_short_only_at_the_end)
{
    struct world *world = world_open(NULL);
    int file = open_file(world, "f", CREATE);
    uint8_t data[1000], back[4096];
    stream_fill(2, 0, data, sizeof data);
    cr_assert_eq(write_file(world, file, data, sizeof data, 0, IO_WRITE_PLAIN), 1000);
    cr_assert_eq(read_file(world, file, back, sizeof back, 0), 1000);
    cr_assert_eq(read_file(world, file, back, sizeof back, 990), 10);
    cr_assert_arr_eq(back, data + 990, 10);
    cr_assert_eq(read_file(world, file, back, sizeof back, 1000), 0);
    cr_assert_eq(read_file(world, file, back, 1, 1 << 30), 0);
    world_close(world);
}

Test(io_file, hole_reads_as_zeros)
{
    struct world *world = world_open(NULL);
    int file = open_file(world, "f", CREATE);
    uint8_t byte = 9, back[101];
    cr_assert_eq(write_file(world, file, &byte, 1, 100, IO_WRITE_PLAIN), 1);
    cr_assert_eq(read_file(world, file, back, sizeof back, 0), 101);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(back[i], 0);
    cr_assert_eq(back[100], 9);
    world_close(world);
}

Test(io_file, direct_one_takes_aligned_blocks)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    int file = open_file(world, "f", CREATE | IO_OPEN_DIRECT);
    cr_assert_geq(file, 0);
    uint32_t size = 16 * 4096;
    uint8_t *data = aligned_bytes(size), *back = aligned_bytes(2 * size);
    stream_fill(3, 0, data, size);
    cr_assert_eq(write_file(world, file, data, size, 0, IO_WRITE_DSYNC), (int32_t)size);
    cr_assert_eq(write_file(world, file, data, 4096, 4096, IO_WRITE_PLAIN), 4096);
    cr_assert_eq(sync_file(world, file), 0);
    cr_assert_eq(read_file(world, file, back, size, 0), (int32_t)size);
    cr_assert_arr_eq(back, data, 4096);
    cr_assert_arr_eq(back + 4096, data, 4096);
    cr_assert_arr_eq(back + 8192, data + 8192, size - 8192);
    cr_assert_eq(read_file(world, file, back, 2 * size, 0), (int32_t)size, "short at the end");
    cr_assert_eq(read_file(world, file, back, 4096, size), 0);
    cr_assert_eq(io_file_size(io, file), size);
    int buffered = open_file(world, "f", IO_OPEN_READ);
    cr_assert(!io_file_is_direct(io, buffered));
    cr_assert_eq(read_file(world, buffered, back, 100, size - 100), 100);
    cr_assert_arr_eq(back, data + size - 100, 100);
    free(data);
    free(back);
    world_close(world);
}

Test(io_file, direct_read_stops_at_an_end_that_is_not_aligned)
{
    struct world *world = world_open(NULL);
    int file = open_file(world, "f", CREATE);
    uint8_t *data = aligned_bytes(8192), *back = aligned_bytes(8192);
    stream_fill(4, 0, data, 8192);
    cr_assert_eq(write_file(world, file, data, 5000, 0, IO_WRITE_DSYNC), 5000);
    int direct = open_file(world, "f", IO_OPEN_READ | IO_OPEN_DIRECT);
    cr_assert_eq(read_file(world, direct, back, 8192, 0), 5000);
    cr_assert_arr_eq(back, data, 5000);
    free(data);
    free(back);
    world_close(world);
}

struct unaligned {
    struct world *world;
    int file;
    uint8_t *data;
    uint32_t shift, size, offset;
};

static void write_unaligned(void *context)
{
    struct unaligned *this = context;
    struct io_op op = {0};
    io_write(world_io(this->world), &op, this->file, this->data + this->shift, this->size,
             this->offset, IO_WRITE_PLAIN);
}

Test(io_file, direct_one_that_is_not_aligned_is_our_error)
{
    struct world *world = world_open(NULL);
    int file = open_file(world, "f", CREATE | IO_OPEN_DIRECT);
    struct unaligned context = {.world = world, .file = file, .data = aligned_bytes(16384)};
    static const uint32_t wrong[][3] = {{512, 4096, 0}, {0, 4095, 0}, {0, 4096, 512}};
    for (int i = 0; i < 3; i++) {
        context.shift = wrong[i][0];
        context.size = wrong[i][1];
        context.offset = wrong[i][2];
        cr_assert(is_refused(write_unaligned, &context));
    }
    free(context.data);
    world_close(world);
}

Test(io_file, region_is_aligned_and_as_good_as_any_memory)
{
    struct world *world = world_open(NULL);
    uint8_t *region = io_region(world_io(world));
    cr_assert_not_null(region);
    cr_assert_eq((uintptr_t)region % 4096, 0);
    int file = open_file(world, "f", CREATE | IO_OPEN_DIRECT);
    uint32_t size = 1 << 20;
    stream_fill(5, 0, region, size);
    cr_assert_eq(write_file(world, file, region, size, 0, IO_WRITE_DSYNC), (int32_t)size);
    uint8_t *back = aligned_bytes(size);
    cr_assert_eq(read_file(world, file, back, size, 0), (int32_t)size);
    cr_assert(stream_matches(5, 0, back, size));
    memset(region, 0, size);
    cr_assert_eq(read_file(world, file, region + 4096, size - 4096, 4096), (int32_t)size - 4096);
    cr_assert(stream_matches(5, 4096, region + 4096, size - 4096));
    cr_assert_eq(region[4095], 0);
    free(back);
    world_close(world);
}

Test(io_file, region_may_be_absent)
{
    struct io_options options = WORLD_OPTIONS;
    options.region_size = 0;
    struct world *world = world_open(&options);
    cr_assert_null(io_region(world_io(world)));
    int file = open_file(world, "f", CREATE);
    cr_assert_eq(write_file(world, file, "x", 1, 0, IO_WRITE_DSYNC), 1);
    world_close(world);
}

#define WRITES 64

Test(io_file, writes_in_flight_at_once_all_land)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    int file = open_file(world, "f", CREATE | IO_OPEN_DIRECT);
    uint8_t *region = io_region(io);
    struct probe probes[WRITES];
    stream_fill(6, 0, region, WRITES * 4096);
    for (uint32_t i = 0; i < WRITES; i++) {
        probe_init(&probes[i]);
        uint32_t block = (i * 37) % WRITES;
        io_write(io, &probes[i].op, file, region + block * 4096, 4096, block * 4096,
                 IO_WRITE_DSYNC);
    }
    for (uint32_t i = 0; i < WRITES; i++) {
        RUN_UNTIL(world, probes[i].count == 1);
        cr_assert_eq(probes[i].result, 4096);
    }
    uint8_t *back = aligned_bytes(WRITES * 4096);
    cr_assert_eq(read_file(world, file, back, WRITES * 4096, 0), WRITES * 4096);
    cr_assert(stream_matches(6, 0, back, WRITES * 4096));
    free(back);
    world_close(world);
}

Test(io_file, read_only_one_refuses_writes)
{
    struct world *world = world_open(NULL);
    cr_assert_eq(close_file(world, open_file(world, "f", CREATE)), 0);
    int file = open_file(world, "f", IO_OPEN_READ);
    cr_assert_eq(write_file(world, file, "x", 1, 0, IO_WRITE_PLAIN), -EBADF);
    world_close(world);
}

Test(io_file, sync_of_files_and_directories_succeeds)
{
    struct world *world = world_open(NULL);
    int file = open_file(world, "f", CREATE);
    cr_assert_eq(write_file(world, file, "x", 1, 0, IO_WRITE_PLAIN), 1);
    cr_assert_eq(sync_file(world, file), 0);
    int directory = open_file(world, ".", IO_OPEN_DIRECTORY);
    cr_assert_geq(directory, 0);
    cr_assert_eq(sync_file(world, directory), 0);
    cr_assert_eq(close_file(world, directory), 0);
    cr_assert_eq(open_file(world, "absent", IO_OPEN_DIRECTORY), -ENOENT);
    world_close(world);
}

Test(io_file, allocate_sets_the_size_and_reads_as_zeros)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    int file = open_file(world, "f", CREATE | IO_OPEN_DIRECT);
    struct io_op op = {0};
    io_allocate(io, &op, file, 1 << 20);
    int32_t result = io_wait(io, &op);
    if (result == -EOPNOTSUPP)
        cr_skip_test("this file system cannot reserve blocks");
    cr_assert_eq(result, 0);
    cr_assert_eq(io_file_size(io, file), 1 << 20);
    uint8_t *back = aligned_bytes(1 << 20);
    memset(back, 1, 1 << 20);
    cr_assert_eq(read_file(world, file, back, 1 << 20, 0), 1 << 20);
    for (uint32_t i = 0; i < 1 << 20; i++)
        cr_assert_eq(back[i], 0);
    free(back);
    world_close(world);
}

Test(io_file, lock_is_exclusive_until_the_close)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    int first = open_file(world, "lock", CREATE);
    cr_assert_eq(io_lock_file(io, first), 0);
    int second = open_file(world, "lock", IO_OPEN_WRITE);
    cr_assert_eq(io_lock_file(io, second), -EWOULDBLOCK);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(close_file(world, first), 0);
        cr_assert_eq(io_lock_file(io, second), 0, "a closed file holds no lock");
        first = second;
        second = open_file(world, "lock", IO_OPEN_WRITE);
        cr_assert_eq(io_lock_file(io, second), -EWOULDBLOCK);
    }
    world_close(world);
}
