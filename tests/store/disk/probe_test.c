/* The probe of the device, in the real world. */
#include "store/disk/probe.h"

#include "base/units.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct io *open_world(void)
{
    struct io_options options = {.sockets_max = 4,
                                 .files_max = 16,
                                 .receive_buffer_size = 4096,
                                 .receive_buffer_count = 4,
                                 .region_size = 128 * KIB};
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(io_open(&options, &io, message), 0, "%s", message);
    return io;
}

Test(probe, it_chooses_in_a_moment_and_leaves_nothing_behind)
{
    char path[] = "build/tmp-probe-XXXXXX";
    cr_assert(mkdir("build", 0777) == 0 || errno == EEXIST);
    cr_assert_not_null(mkdtemp(path));
    struct io *io = open_world();
    struct log log;
    log_init_stderr(&log, LOG_ERROR);
    struct probe_result result = {.writes_in_flight = 99};
    uint64_t begin = io_now_ns(io);
    cr_assert_eq(probe_device(io, &log, path, io_region(io), &result), 0);
    cr_expect_lt(io_now_ns(io) - begin, 10 * NS_PER_S);
    cr_expect(result.writes_in_flight == 1 || result.writes_in_flight == 2);
    cr_expect(result.use_dsync || result.writes_in_flight == 1, "fdatasync is one stream");
    cr_expect_lt(result.dsync_us, 10000000);
    cr_expect_lt(result.fdatasync_us, 10000000);
    io_close(io);
    cr_expect_eq(rmdir(path), 0, "it is empty again");
}

Test(probe, a_directory_that_is_not_there_is_an_error)
{
    struct io *io = open_world();
    struct log log;
    log_init_stderr(&log, LOG_ERROR);
    struct probe_result result = {.writes_in_flight = 99};
    cr_expect_eq(probe_device(io, &log, "build/no-such-directory", io_region(io), &result),
                 -ENOENT);
    cr_expect_eq(result.writes_in_flight, 99, "untouched");
    io_close(io);
}
