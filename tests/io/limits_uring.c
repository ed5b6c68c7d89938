/* What the real world says when it cannot open, or not with all that was asked: the settings and
 * limits are set for real, in the process of each test. */
#include "io/io_uring.h"
#include "tests/support/support.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* From here on io_uring_setup fails with `error` for this process. */
static void refuse_setup(int error)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof program / sizeof program[0], .filter = program};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

static void set_limit(int resource, rlim_t value)
{
    struct rlimit limit = {.rlim_cur = value, .rlim_max = value};
    cr_assert_eq(setrlimit(resource, &limit), 0);
}

static int try_open(const struct io_options *options, struct io **ret_io, char *ret_error)
{
    static const struct io_options usual = WORLD_OPTIONS;
    memset(ret_error, 'x', IO_ERROR_SIZE);
    int error = io_open(options != NULL ? options : &usual, ret_io, ret_error);
    cr_assert_not_null(memchr(ret_error, '\0', IO_ERROR_SIZE), "the message ends");
    return error;
}

static void assert_says(const char *message, const char *text)
{
    cr_assert_not_null(strstr(message, text), "\"%s\" lacks \"%s\"", message, text);
}

Test(io_limits, nothing_is_said_when_all_is_granted)
{
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), 0);
    cr_assert_str_eq(message, "");
    io_close(io);
}

Test(io_limits, refusal_by_a_filter_names_the_profiles)
{
    refuse_setup(EPERM);
    struct io *io = NULL;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), -EPERM);
    cr_assert_null(io);
    assert_says(message, "EPERM");
    assert_says(message, "kernel.io_uring_disabled is 0");
    assert_says(message, "seccomp");
    assert_says(message, "io_uring_setup, io_uring_enter and io_uring_register");
    assert_says(message, "SystemCallFilter=@aio");
    cr_assert_eq(message[strlen(message) - 1], '.', "it is whole: %s", message);
}

/* Covers a file of /proc/sys, for this process alone. Returns false where that is not allowed. */
static bool cover_setting(const char *path, const char *value)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return false;
    char cover[] = "/tmp/minivault-setting-XXXXXX";
    int fd = mkstemp(cover);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, value, strlen(value)), (ssize_t)strlen(value));
    (void)close(fd);
    bool covered = mount(cover, path, NULL, MS_BIND, NULL) == 0;
    (void)unlink(cover);
    return covered;
}

static void refusal_by_the_setting_names_it(const char *value, const char *text, const char *advice)
{
    if (!cover_setting("/proc/sys/kernel/io_uring_disabled", value))
        cr_skip_test("may not mount here");
    refuse_setup(EPERM);
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), -EPERM);
    assert_says(message, text);
    assert_says(message, advice);
    cr_assert_eq(message[strlen(message) - 1], '.', "it is whole: %s", message);
}

Test(io_limits, refusal_by_the_setting_2_names_it)
{
    refusal_by_the_setting_names_it("2\n", "kernel.io_uring_disabled is 2",
                                    "sysctl -w kernel.io_uring_disabled=0");
}

Test(io_limits, refusal_by_the_setting_1_names_the_group)
{
    refusal_by_the_setting_names_it("1\n", "kernel.io_uring_disabled is 1",
                                    "kernel.io_uring_group (now -1)");
}

/* Podman's default profile. */
Test(io_limits, a_filter_that_hides_io_uring_is_named_with_what_to_do)
{
    refuse_setup(ENOSYS);
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), -ENOSYS);
    assert_says(message, "A seccomp filter hides io_uring");
    assert_says(message, "--security-opt seccomp=images/seccomp.json");
    cr_assert_eq(message[strlen(message) - 1], '.', "it is whole: %s", message);
}

Test(io_limits, kernel_without_io_uring_is_named)
{
    refuse_setup(ENOSYS);
    if (!cover_setting("/proc/self/status", "Seccomp:\t0\n"))
        cr_skip_test("may not mount here");
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), -ENOSYS);
    assert_says(message, "no io_uring");
    assert_says(message, "6.1");
}

Test(io_limits, kernel_that_is_too_old_is_named)
{
    refuse_setup(EINVAL);
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), -EOPNOTSUPP);
    assert_says(message, "too old");
    assert_says(message, "6.1");
}

Test(io_limits, missing_operations_are_named)
{
    struct io_uring_probe *probe = calloc(1, sizeof *probe + 256 * sizeof probe->ops[0]);
    cr_assert_not_null(probe);
    probe->last_op = 200;
    probe->ops_len = 201;
    for (int i = 0; i <= 200; i++)
        probe->ops[i].flags = IO_URING_OP_SUPPORTED;
    char message[IO_ERROR_SIZE] = "";
    cr_assert_eq(explain_probe(probe, message), 0);
    cr_assert_str_eq(message, "");
    probe->ops[IORING_OP_ACCEPT].flags = 0;
    probe->ops[IORING_OP_RENAMEAT].flags = 0;
    cr_assert_eq(explain_probe(probe, message), -EOPNOTSUPP);
    assert_says(message, "lacks: accept, rename.");
    free(probe);
}

Test(io_limits, no_memory_names_the_limit)
{
    set_limit(RLIMIT_MEMLOCK, 64 * KIB);
    refuse_setup(ENOMEM);
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), -ENOMEM);
    assert_says(message, "RLIMIT_MEMLOCK is 64 KiB");
    assert_says(message, "LimitMEMLOCK=");
}

/* Root is not bound by RLIMIT_MEMLOCK as long as it has this capability. */
static void drop_lock_capability(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    cr_assert_eq(syscall(SYS_capget, &header, data), 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    cr_assert_eq(syscall(SYS_capset, &header, data), 0);
}

Test(io_limits, region_that_may_not_be_locked_works_unregistered)
{
    set_limit(RLIMIT_MEMLOCK, 128 * KIB);
    drop_lock_capability();
    struct world *world = world_open(NULL);
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), 0);
    assert_says(message, "disk buffers (1024 KiB) are not registered");
    assert_says(message, "RLIMIT_MEMLOCK is 128 KiB");
    assert_says(message, "LimitMEMLOCK=infinity");
    io_close(io);
    int file = open_file(world, "f", IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_DIRECT);
    uint8_t *region = io_region(world_io(world));
    stream_fill(1, 0, region, 65536);
    cr_assert_eq(write_file(world, file, region, 65536, 0, IO_WRITE_DSYNC), 65536);
    cr_assert_eq(read_file(world, file, region + 65536, 65536, 0), 65536);
    cr_assert(stream_matches(1, 0, region + 65536, 65536));
    world_close(world);
}

Test(io_limits, sockets_shrink_to_what_the_limit_of_files_leaves)
{
    set_limit(RLIMIT_NOFILE, 100);
    struct io_options options = WORLD_OPTIONS;
    options.sockets_max = 1000;
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(&options, &io, message), 0);
    cr_assert_eq(io_sockets_max(io), 68);
    assert_says(message, "Only 68 of 1000 sockets");
    assert_says(message, "RLIMIT_NOFILE 100");
    assert_says(message, "LimitNOFILE=1032");
    io_close(io);
    struct world *world = world_open(&options);
    struct contract_server server;
    contract_server_open(&server, world);
    int peer;
    for (int i = 0; i < 67; i++)
        (void)server_connect(&server, &peer);
    cr_assert_geq(world_peer_connect(world, server.port), 0);
    RUN_UNTIL(world, server.error_count == 1);
    cr_assert_eq(server.error, -ENFILE);
    world_close(world);
}

Test(io_limits, soft_limit_of_files_is_raised)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < 2000)
        cr_skip_test("the hard limit is too low");
    limit.rlim_cur = 100;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    struct io_options options = WORLD_OPTIONS;
    options.sockets_max = 1000;
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(&options, &io, message), 0);
    cr_assert_eq(io_sockets_max(io), 1000);
    cr_assert_str_eq(message, "");
    io_close(io);
}

Test(io_limits, too_few_files_are_named)
{
    set_limit(RLIMIT_NOFILE, 24);
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), -EMFILE);
    assert_says(message, "288 places");
    assert_says(message, "(RLIMIT_NOFILE) is 24");
    assert_says(message, "LimitNOFILE=");
}

Test(io_limits, no_descriptor_left_is_named)
{
    set_limit(RLIMIT_NOFILE, 64);
    while (dup(0) >= 0)
        ;
    struct io *io;
    char message[IO_ERROR_SIZE];
    cr_assert_eq(try_open(NULL, &io, message), -EMFILE);
    assert_says(message, "RLIMIT_NOFILE");
    close(63);
    cr_assert_eq(try_open(NULL, &io, message), -EMFILE, "one is enough for the wake-up only");
    assert_says(message, "RLIMIT_NOFILE");
}

/* ---- the disk's limits ---- */

Test(io_limits, write_that_the_kernel_cuts_short_goes_on_until_the_error)
{
    (void)signal(SIGXFSZ, SIG_IGN);
    struct world *world = world_open(NULL);
    set_limit(RLIMIT_FSIZE, 10000);
    int file = open_file(world, "f", IO_OPEN_WRITE | IO_OPEN_CREATE);
    static uint8_t data[20000];
    stream_fill(1, 0, data, sizeof data);
    cr_assert_eq(write_file(world, file, data, sizeof data, 0, IO_WRITE_PLAIN), -EFBIG);
    cr_assert_eq(io_file_size(world_io(world), file), 10000);
    world_close(world);
}

Test(io_limits, full_disk_is_told)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        cr_skip_test("may not mount here");
    struct world *world = world_open(NULL);
    const char *path = world_path(world, "disk");
    cr_assert_eq(io_make_directory(world_io(world), path), 0);
    cr_assert_eq(mount("none", path, "tmpfs", 0, "size=256k"), 0, "%s", strerror(errno));
    int file = open_file(world, "disk/f", IO_OPEN_WRITE | IO_OPEN_CREATE);
    uint8_t *region = io_region(world_io(world));
    cr_assert_eq(write_file(world, file, region, 1 << 20, 0, IO_WRITE_PLAIN), -ENOSPC);
    uint64_t free_bytes, total_bytes;
    cr_assert_eq(io_disk_space(world_io(world), path, &free_bytes, &total_bytes), 0);
    cr_assert_eq(total_bytes, 256 * KIB);
    cr_assert_eq(free_bytes, 0);
    cr_assert_eq(close_file(world, file), 0);
    cr_assert_eq(umount(path), 0);
    world_close(world);
}

Test(io_limits, file_system_without_direct_access_is_opened_without)
{
    struct world *world = world_open(NULL);
    struct io_op op = {0};
    io_open_file(world_io(world), &op, "/proc/version", IO_OPEN_READ | IO_OPEN_DIRECT);
    int file = io_wait(world_io(world), &op);
    cr_assert_geq(file, 0);
    cr_assert(!io_file_is_direct(world_io(world), file));
    uint8_t *data = aligned_bytes(4096);
    int32_t got = read_file(world, file, data, 4096, 0);
    cr_assert_gt(got, 0);
    cr_assert_eq(memcmp(data, "Linux", 5), 0);
    free(data);
    world_close(world);
}
