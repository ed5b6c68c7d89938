/* What is asked of a new ring: its flags and sizes, the table of sockets and files, and that the
 * kernel refuse everything that this module does not use. */
#include "io/io_uring.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

/* A full submission queue is submitted and filled again, so its size only bounds one enter's batch.
 * Multishot receives complete without an entry of their own: the completion queue is larger. Beyond
 * that the kernel keeps what overflows. */
#define ENTRIES_WANTED 512
#define ENTRIES_MIN 32
#define COMPLETIONS_PER_ENTRY 8

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
    static const uint8_t operations[] = {
        IORING_OP_ACCEPT,       IORING_OP_RECV,         IORING_OP_SEND,        IORING_OP_SENDMSG,
        IORING_OP_SHUTDOWN,     IORING_OP_CLOSE,        IORING_OP_OPENAT,      IORING_OP_READ,
        IORING_OP_READ_FIXED,   IORING_OP_WRITE,        IORING_OP_WRITE_FIXED, IORING_OP_FSYNC,
        IORING_OP_FALLOCATE,    IORING_OP_FTRUNCATE,    IORING_OP_RENAMEAT,    IORING_OP_UNLINKAT,
        IORING_OP_ASYNC_CANCEL, IORING_OP_FILES_UPDATE,
    };
    static const uint8_t registrations[] = {
        IORING_REGISTER_FILES_UPDATE, IORING_UNREGISTER_FILES,  IORING_UNREGISTER_BUFFERS,
        IORING_UNREGISTER_PBUF_RING,  IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS,
    };
    struct io_uring_restriction rules[sizeof operations + sizeof registrations + 1];
    memset(rules, 0, sizeof rules);
    unsigned count = 0;
    for (size_t i = 0; i < sizeof operations; i++, count++) {
        if (operations[i] == IORING_OP_FTRUNCATE && !has_ftruncate)
            continue;
        rules[count].opcode = IORING_RESTRICTION_SQE_OP;
        rules[count].sqe_op = operations[i];
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
