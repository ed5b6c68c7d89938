/* What is asked of a new ring: its flags and sizes, the table of sockets and files, and that the
 * kernel refuse everything that this module does not use. And what is in the way of it and what to
 * do about that: sentences for the operator. */
#include "io/io_uring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

/* A full submission queue is submitted and filled again, so its size only bounds one enter's batch.
 * Multishot receives complete without an entry of their own: the completion queue is larger. Beyond
 * that the kernel keeps what overflows. */
#define ENTRIES_WANTED 512
#define ENTRIES_MIN 32
#define COMPLETIONS_PER_ENTRY 8

/* What this module uses; all of it is in Linux 6.1, but what has no name. */
static const struct {
    uint8_t opcode;
    const char *name;
} operations[] = {
    {IORING_OP_ACCEPT, "accept"},
    {IORING_OP_RECV, "receive"},
    {IORING_OP_SEND, "send"},
    {IORING_OP_SENDMSG, "gathered send"},
    {IORING_OP_SHUTDOWN, "shutdown"},
    {IORING_OP_CLOSE, "close"},
    {IORING_OP_OPENAT, "open"},
    {IORING_OP_READ, "read"},
    {IORING_OP_READ_FIXED, "registered read"},
    {IORING_OP_WRITE, "write"},
    {IORING_OP_WRITE_FIXED, "registered write"},
    {IORING_OP_FSYNC, "sync"},
    {IORING_OP_FALLOCATE, "fallocate"},
    {IORING_OP_FTRUNCATE, NULL},
    {IORING_OP_RENAMEAT, "rename"},
    {IORING_OP_UNLINKAT, "unlink"},
    {IORING_OP_ASYNC_CANCEL, "cancel"},
    {IORING_OP_FILES_UPDATE, "registered files"},
};

#define OPERATIONS_COUNT (sizeof operations / sizeof operations[0])

/* ---- sentences ---- */

/* Adds to `text` (IO_ERROR_SIZE bytes), with a space in between; what does not fit is cut. */
__attribute__((format(printf, 2, 3))) static void add(char *text, const char *format, ...)
{
    size_t used = strlen(text);
    if (used > 0 && used + 1 < IO_ERROR_SIZE)
        text[used++] = ' ';
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text + used, IO_ERROR_SIZE - used, format, arguments);
    va_end(arguments);
}

/* The start of a small file of /proc as a text; "" when it cannot be read. */
static void read_text(const char *path, char *ret_text, size_t size)
{
    ret_text[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, ret_text, size - 1);
    (void)close(fd);
    ret_text[got > 0 ? got : 0] = '\0';
}

static long read_number(const char *path, long otherwise)
{
    char text[32];
    read_text(path, text, sizeof text);
    char *end;
    long value = strtol(text, &end, 10);
    return end == text ? otherwise : value;
}

static bool has_seccomp_filter(void)
{
    char text[4096];
    read_text("/proc/self/status", text, sizeof text);
    const char *line = strstr(text, "\nSeccomp:");
    return line != NULL && strtol(line + strlen("\nSeccomp:"), NULL, 10) == 2;
}

static const char *kernel_release(struct utsname *name)
{
    return uname(name) == 0 ? name->release : "unknown";
}

/* ---- io_uring_setup ---- */

static const char PROFILE[] =
    "start the container with a profile that allows io_uring_setup, io_uring_enter and "
    "io_uring_register (Docker and Podman: --security-opt seccomp=images/seccomp.json), the "
    "systemd service with SystemCallFilter=@aio.";

static void explain_refusal(char *text)
{
    long disabled = read_number("/proc/sys/kernel/io_uring_disabled", 0);
    long group = read_number("/proc/sys/kernel/io_uring_group", -1);
    if (disabled == 2)
        add(text, "io_uring is refused (EPERM): kernel.io_uring_disabled is 2, nobody may use it. "
                  "Run `sysctl -w kernel.io_uring_disabled=0` on the host.");
    else if (disabled == 1)
        add(text,
            "io_uring is refused (EPERM): kernel.io_uring_disabled is 1, only CAP_SYS_ADMIN "
            "and the group kernel.io_uring_group (now %ld) may use it. Run as a member of "
            "that group (`sysctl -w kernel.io_uring_group=GID`), or run "
            "`sysctl -w kernel.io_uring_disabled=0`.",
            group);
    else
        add(text, "io_uring is refused (EPERM), though kernel.io_uring_disabled is 0.");
    if (disabled == 0 || has_seccomp_filter())
        add(text, "A seccomp filter refuses it too or instead: %s", PROFILE);
}

/* A filter may answer like a kernel that has none: Podman's default profile does. */
static void explain_absence(char *text)
{
    struct utsname name;
    if (has_seccomp_filter())
        add(text,
            "A seccomp filter hides io_uring (ENOSYS; kernel %s), as Podman's default profile "
            "does: %s",
            kernel_release(&name), PROFILE);
    else
        add(text,
            "This system has no io_uring (ENOSYS; kernel %s): minivault needs Linux 6.1 or "
            "later with CONFIG_IO_URING. Sandboxes such as gVisor have none.",
            kernel_release(&name));
}

static void explain_memory(char *text)
{
    struct rlimit limit = {0};
    (void)getrlimit(RLIMIT_MEMLOCK, &limit);
    add(text, "The kernel has no memory for a ring, not even for a small one (ENOMEM).");
    if (limit.rlim_cur == RLIM_INFINITY)
        add(text, "RLIMIT_MEMLOCK is unlimited: look at the memory limit of the cgroup.");
    else
        add(text,
            "RLIMIT_MEMLOCK is %llu KiB: raise it (LimitMEMLOCK=infinity in the systemd "
            "service, `ulimit -l unlimited` in a shell), or the cgroup's memory limit.",
            (unsigned long long)(limit.rlim_cur / KIB));
}

/* Says why io_uring_setup failed with `error` (-errno). Returns what io_open returns. */
static int explain_setup(int error, char *ret_error)
{
    struct utsname name;
    ret_error[0] = '\0';
    switch (-error) {
    case EPERM:
    case EACCES:
        explain_refusal(ret_error);
        return -EPERM;
    case ENOSYS:
        explain_absence(ret_error);
        return -ENOSYS;
    case EINVAL:
        add(ret_error,
            "This kernel (%s) is too old: its io_uring lacks DEFER_TASKRUN. minivault needs "
            "Linux 6.1 or later.",
            kernel_release(&name));
        return -EOPNOTSUPP;
    case ENOMEM:
        explain_memory(ret_error);
        return -ENOMEM;
    case EMFILE:
        return explain_register(error, "the ring", ret_error);
    default:
        add(ret_error, "io_uring_setup failed: %s.", strerror(-error));
        return error;
    }
}

int explain_probe(const struct io_uring_probe *probe, char *ret_error)
{
    char missing[256] = "";
    for (size_t i = 0; i < OPERATIONS_COUNT; i++) {
        if (operations[i].name == NULL || io_uring_opcode_supported(probe, operations[i].opcode))
            continue;
        size_t used = strlen(missing);
        (void)snprintf(missing + used, sizeof missing - used, "%s%s", used > 0 ? ", " : "",
                       operations[i].name);
    }
    if (missing[0] == '\0')
        return 0;
    struct utsname name;
    add(ret_error, "This kernel's (%s) io_uring lacks: %s. minivault needs Linux 6.1 or later.",
        kernel_release(&name), missing);
    return -EOPNOTSUPP;
}

/* ---- registrations ---- */

/* A table of `wanted` registered files does not fit. Returns -EMFILE. */
static int explain_files(uint64_t wanted, uint64_t limit, char *ret_error)
{
    add(ret_error,
        "The table of sockets and files wants %llu places, but the limit of open files "
        "(RLIMIT_NOFILE) is %llu, hard: raise it (LimitNOFILE=%llu in the systemd service, "
        "`ulimit -n` in a shell, --ulimit nofile= for a container).",
        (unsigned long long)wanted, (unsigned long long)limit, (unsigned long long)(wanted + 1024));
    return -EMFILE;
}

int explain_register(int error, const char *what, char *ret_error)
{
    if (error == -EMFILE) {
        struct rlimit limit = {0};
        (void)getrlimit(RLIMIT_NOFILE, &limit);
        add(ret_error,
            "No descriptor is left for %s: the limit of open files (RLIMIT_NOFILE) is %llu. "
            "Raise it (LimitNOFILE= in the systemd service, `ulimit -n` in a shell).",
            what, (unsigned long long)limit.rlim_cur);
    } else if (error == -ENOMEM) {
        add(ret_error,
            "No memory for %s: look at the memory limit of the cgroup and at RLIMIT_MEMLOCK "
            "(LimitMEMLOCK= in the systemd service, `ulimit -l` in a shell).",
            what);
    } else if (error == -EINVAL) {
        struct utsname name;
        add(ret_error,
            "This kernel (%s) does not know %s as we need it: minivault needs Linux 6.1 or "
            "later.",
            kernel_release(&name), what);
        return -EOPNOTSUPP;
    } else {
        add(ret_error, "Setting up %s failed: %s.", what, strerror(-error));
    }
    return error;
}

/* ---- warnings ---- */

static void warn_sockets(uint32_t wanted, uint32_t got, uint64_t limit, char *ret_error)
{
    add(ret_error,
        "Only %u of %u sockets fit into the limit of open files (RLIMIT_NOFILE %llu): further "
        "connections are refused. To have them all, raise the hard limit "
        "(LimitNOFILE=%llu in the systemd service).",
        got, wanted, (unsigned long long)limit, (unsigned long long)(limit + (wanted - got)));
}

void warn_region(size_t size, int error, char *ret_error)
{
    struct rlimit limit = {0};
    (void)getrlimit(RLIMIT_MEMLOCK, &limit);
    if (error == -ENOMEM && limit.rlim_cur != RLIM_INFINITY)
        add(ret_error,
            "The disk buffers (%llu KiB) are not registered: RLIMIT_MEMLOCK is %llu KiB. "
            "The disk gets slower; raise the limit (LimitMEMLOCK=infinity in the systemd "
            "service, `ulimit -l` in a shell).",
            (unsigned long long)(size / KIB), (unsigned long long)(limit.rlim_cur / KIB));
    else
        add(ret_error, "The disk buffers (%llu KiB) are not registered (%s). The disk gets slower.",
            (unsigned long long)(size / KIB), strerror(-error));
}

/* ---- the ring ---- */

static int create(struct io_uring *ring, char *ret_error)
{
    int error = 0;
    uint32_t entries = ENTRIES_WANTED;
    for (; entries >= ENTRIES_MIN; entries /= 2) {
        struct io_uring_params params = {
            .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                     IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED,
            .cq_entries = entries * COMPLETIONS_PER_ENTRY,
        };
        error = io_uring_queue_init_params(entries, ring, &params);
        if (error != -ENOMEM)
            break;
    }
    return error < 0 ? explain_setup(error, ret_error) : 0;
}

int setup_ring(struct io_uring *ring, bool *ret_has_ftruncate, char *ret_error)
{
    int error = create(ring, ret_error);
    if (error < 0)
        return error;
    struct io_uring_probe *found = io_uring_get_probe_ring(ring);
    if (found == NULL) {
        error = explain_register(-ENOMEM, "the list of operations", ret_error);
    } else {
        error = explain_probe(found, ret_error);
        *ret_has_ftruncate = io_uring_opcode_supported(found, IORING_OP_FTRUNCATE) != 0;
        io_uring_free_probe(found);
    }
    if (error < 0)
        io_uring_queue_exit(ring);
    return error;
}

/* ---- the table of files ---- */

/* Raises the soft limit to the hard one; the kernel compares the size of the table with the soft
 * one. */
static uint64_t raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur;
}

int setup_table(struct io_uring *ring, const struct io_options *options, uint32_t *ret_sockets_max,
                char *ret_error)
{
    uint64_t limit = raise_file_limit();
    uint32_t files_max = options->files_max;
    uint64_t wanted = (uint64_t)options->sockets_max + files_max;
    if (limit <= files_max + 1)
        return explain_files(wanted, limit, ret_error);
    uint32_t sockets_max = (uint32_t)min_u64(options->sockets_max, limit - files_max);
    int error = io_uring_register_files_sparse(ring, sockets_max + files_max);
    if (error == -EMFILE)
        return explain_files(wanted, limit, ret_error);
    if (error == 0)
        error = io_uring_register_file_alloc_range(ring, 0, sockets_max);
    if (error < 0)
        return explain_register(error, "the table of files", ret_error);
    if (sockets_max < options->sockets_max)
        warn_sockets(options->sockets_max, sockets_max, limit, ret_error);
    *ret_sockets_max = sockets_max;
    return 0;
}

/* ---- restrictions ---- */

static int restrict_ring(struct io_uring *ring, bool has_ftruncate)
{
    static const uint8_t registrations[] = {
        IORING_REGISTER_FILES_UPDATE, IORING_UNREGISTER_FILES,  IORING_UNREGISTER_BUFFERS,
        IORING_UNREGISTER_PBUF_RING,  IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS,
    };
    struct io_uring_restriction rules[OPERATIONS_COUNT + sizeof registrations + 1];
    memset(rules, 0, sizeof rules);
    unsigned count = 0;
    for (size_t i = 0; i < OPERATIONS_COUNT; i++) {
        if (operations[i].opcode == IORING_OP_FTRUNCATE && !has_ftruncate)
            continue;
        rules[count].opcode = IORING_RESTRICTION_SQE_OP;
        rules[count++].sqe_op = operations[i].opcode;
    }
    for (size_t i = 0; i < sizeof registrations; i++, count++) {
        rules[count].opcode = IORING_RESTRICTION_REGISTER_OP;
        rules[count].register_op = registrations[i];
    }
    rules[count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
    rules[count++].sqe_flags =
        IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT | IOSQE_ASYNC | IOSQE_CQE_SKIP_SUCCESS;
    return io_uring_register_restrictions(ring, rules, count);
}

int setup_enable(struct io_uring *ring, bool has_ftruncate, char *ret_error)
{
    int error = restrict_ring(ring, has_ftruncate);
    if (error < 0)
        return explain_register(error, "the restrictions", ret_error);
    error = io_uring_enable_rings(ring);
    if (error < 0)
        return explain_register(error, "the enabling of the ring", ret_error);
    (void)io_uring_register_ring_fd(ring); /* saves a look-up an enter; without it all works */
    return 0;
}
