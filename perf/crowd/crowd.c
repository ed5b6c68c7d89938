/* One thread of crowd: it opens connections by chains of requests, keeps them, and checks each
 * answer. */
#include "crowd.h"

#include "../common/clock.h"
#include "base/bytes.h"
#include "minivault/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* A chain of four stays whole within one submission. */
#define RING_ENTRIES 4096
#define CHAIN_LENGTH 4
#define TURN_NS 50000000

enum operation {
    OPERATION_SOCKET,
    OPERATION_CONNECT,
    OPERATION_SEND,
    OPERATION_ANSWER,
    OPERATION_READ,
    OPERATION_CLOSE,
    OPERATION_PEEK,
};

static const char *const operation_names[] = {"socket", "connect", "send", "receive",
                                              "read",   "close",   "peek"};

static uint32_t answer_stride(const struct crowd *crowd)
{
    return crowd->settings.is_slow ? crowd->settings.read_size : crowd->settings.answer_size;
}

static uint8_t *answer_of(struct crowd *crowd, uint32_t index)
{
    return crowd->answers + (size_t)index * answer_stride(crowd);
}

static struct io_uring_sqe *fixed(struct io_uring_sqe *sqe, enum operation operation,
                                  uint32_t index, unsigned flags)
{
    sqe->flags |= IOSQE_FIXED_FILE | flags;
    io_uring_sqe_set_data64(sqe, ring_tag(operation, index));
    return sqe;
}

static void chain_start(struct crowd *crowd, uint32_t index)
{
    const struct crowd_settings *settings = &crowd->settings;
    const unsigned linked = IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
    if (io_uring_sq_space_left(&crowd->ring) < CHAIN_LENGTH)
        (void)io_uring_submit(&crowd->ring);
    struct io_uring_sqe *sqe = ring_get_sqe(&crowd->ring);
    io_uring_prep_socket_direct(sqe, AF_INET, SOCK_STREAM, 0, index, 0);
    sqe->flags |= linked;
    io_uring_sqe_set_data64(sqe, ring_tag(OPERATION_SOCKET, index));
    sqe = ring_get_sqe(&crowd->ring);
    io_uring_prep_connect(sqe, (int)index, (const struct sockaddr *)&settings->address,
                          sizeof settings->address);
    (void)fixed(sqe, OPERATION_CONNECT, index, linked);
    sqe = ring_get_sqe(&crowd->ring);
    io_uring_prep_send(sqe, (int)index, settings->request, settings->request_size,
                       MSG_NOSIGNAL | MSG_WAITALL);
    /* A slow reader's chain ends here: it takes its first bytes with the others. */
    (void)fixed(sqe, OPERATION_SEND, index, settings->is_slow ? 0 : linked);
    if (!settings->is_slow) {
        sqe = ring_get_sqe(&crowd->ring);
        io_uring_prep_recv(sqe, (int)index, answer_of(crowd, index), settings->answer_size,
                           MSG_WAITALL);
        (void)fixed(sqe, OPERATION_ANSWER, index, 0);
    }
    crowd->states[index] = CLIENT_OPENING;
    crowd->begun_ns[index] = crowd->now_ns;
    crowd->opening_count++;
}

static void note_error(struct crowd *crowd, const char *what, const char *why)
{
    if (crowd->first_error[0] == '\0')
        (void)snprintf(crowd->first_error, sizeof crowd->first_error, "%s: %s", what, why);
}

/* Whether the answer is that of a GET, with a value of the right size. */
static bool is_answer(const struct crowd *crowd, const uint8_t *answer)
{
    return answer[0] == MINIVAULT_OK &&
           load_u32(answer + 1) == crowd->settings.answer_size - MINIVAULT_ANSWER_HEADER_SIZE;
}

static bool is_chain_good(struct crowd *crowd, enum operation last, uint32_t index, int result)
{
    const struct crowd_settings *settings = &crowd->settings;
    if (result < 0) {
        note_error(crowd, operation_names[last], strerror(-result));
        return false;
    }
    if (settings->is_slow)
        return true;
    if (last != OPERATION_ANSWER || (uint32_t)result != settings->answer_size) {
        note_error(crowd, operation_names[last], result == 0 ? "closed by the server" : "short");
        return false;
    }
    if (is_answer(crowd, answer_of(crowd, index)))
        return true;
    note_error(crowd, "receive", "not the answer of a GET with a value of the right size");
    return false;
}

static void chain_done(struct crowd *crowd, enum operation last, uint32_t index, int result)
{
    struct crowd_tally *tally = &crowd->tally;
    crowd->opening_count--;
    if (is_chain_good(crowd, last, index, result)) {
        crowd->states[index] = CLIENT_OPEN;
        tally->answered++;
        tally->last_answer_ns = crowd->now_ns;
        histogram_add(&tally->latency, crowd->now_ns - crowd->begun_ns[index], 1);
    } else {
        crowd->states[index] = CLIENT_FAILED;
        tally->failed++;
    }
}

static void close_start(struct crowd *crowd, uint32_t index)
{
    struct io_uring_sqe *sqe = ring_get_sqe(&crowd->ring);
    io_uring_prep_close_direct(sqe, index);
    io_uring_sqe_set_data64(sqe, ring_tag(OPERATION_CLOSE, index));
    crowd->states[index] = CLIENT_CLOSING;
}

static void read_done(struct crowd *crowd, uint32_t index, int result)
{
    if (result > 0) {
        crowd->tally.bytes_read += (uint64_t)result;
        crowd->states[index] = CLIENT_OPEN;
    } else if (result == -EAGAIN) {
        crowd->states[index] = CLIENT_OPEN;
    } else {
        crowd->tally.closed++;
        close_start(crowd, index);
    }
}

static void completion_dispatch(struct crowd *crowd, const struct io_uring_cqe *cqe)
{
    enum operation operation = (enum operation)ring_tag_operation(cqe->user_data);
    uint32_t index = ring_tag_index(cqe->user_data);
    switch (operation) {
    case OPERATION_SOCKET:
    case OPERATION_CONNECT:
    case OPERATION_SEND:
    case OPERATION_ANSWER:
        chain_done(crowd, operation, index, cqe->res);
        return;
    case OPERATION_READ:
        read_done(crowd, index, cqe->res);
        return;
    case OPERATION_CLOSE:
        chain_start(crowd, index);
        return;
    case OPERATION_PEEK:
        crowd->opening_count--;
        crowd->tally.closed += cqe->res != -EAGAIN;
        return;
    }
}

/* Submits, waits a little at most, takes the completions. */
static int turn(struct crowd *crowd)
{
    int error = ring_turn_for(&crowd->ring, TURN_NS);
    if (error < 0)
        return error;
    struct io_uring_cqe *cqe;
    crowd->now_ns = clock_now_ns();
    unsigned head;
    unsigned count = 0;
    io_uring_for_each_cqe(&crowd->ring, head, cqe)
    {
        completion_dispatch(crowd, cqe);
        count++;
    }
    io_uring_cq_advance(&crowd->ring, count);
    return 0;
}

/* Until each client was answered or has failed, or the time is over. */
static int open_all(struct crowd *crowd)
{
    const struct crowd_settings *settings = &crowd->settings;
    crowd->start_ns = clock_now_ns();
    crowd->now_ns = crowd->start_ns;
    while (crowd->now_ns - crowd->start_ns < settings->timeout_ns) {
        while (crowd->next < settings->client_count && crowd->opening_count < settings->window)
            chain_start(crowd, crowd->next++);
        if (crowd->opening_count == 0)
            return 0;
        int error = turn(crowd);
        if (error < 0)
            return error;
    }
    note_error(crowd, "open", "the time is over");
    return 0;
}

static void read_some(struct crowd *crowd)
{
    if (!crowd->settings.is_slow || crowd->now_ns < crowd->next_read_ns)
        return;
    crowd->next_read_ns = crowd->now_ns + crowd->settings.read_interval_ns;
    for (uint32_t i = 0; i < crowd->settings.client_count; i++) {
        if (crowd->states[i] != CLIENT_OPEN)
            continue;
        struct io_uring_sqe *sqe = ring_get_sqe(&crowd->ring);
        io_uring_prep_recv(sqe, (int)i, answer_of(crowd, i), crowd->settings.read_size,
                           MSG_DONTWAIT);
        (void)fixed(sqe, OPERATION_READ, i, 0);
        crowd->states[i] = CLIENT_READING;
    }
}

static int hold(struct crowd *crowd)
{
    int error = 0;
    while (error == 0 && !__atomic_load_n(crowd->is_ending, __ATOMIC_ACQUIRE)) {
        read_some(crowd);
        error = turn(crowd);
    }
    return error;
}

/* Counts the clients whose server has gone: an idle one has nothing to receive. Slow readers have
 * counted all the time. */
static int count_closed(struct crowd *crowd)
{
    for (uint32_t i = 0; i < crowd->settings.client_count && !crowd->settings.is_slow; i++) {
        if (crowd->states[i] != CLIENT_OPEN)
            continue;
        struct io_uring_sqe *sqe = ring_get_sqe(&crowd->ring);
        io_uring_prep_recv(sqe, (int)i, answer_of(crowd, i), 1, MSG_PEEK | MSG_DONTWAIT);
        (void)fixed(sqe, OPERATION_PEEK, i, 0);
        crowd->opening_count++;
    }
    int error = 0;
    uint64_t end_ns = clock_now_ns() + NANOSECONDS_PER_SECOND;
    while (error == 0 && crowd->opening_count > 0 && clock_now_ns() < end_ns)
        error = turn(crowd);
    return error;
}

static int prepare(struct crowd *crowd)
{
    uint32_t count = crowd->settings.client_count;
    crowd->states = calloc(count, sizeof *crowd->states);
    crowd->begun_ns = calloc(count, sizeof *crowd->begun_ns);
    crowd->answers = calloc(count, answer_stride(crowd));
    if (crowd->states == NULL || crowd->begun_ns == NULL || crowd->answers == NULL)
        return -ENOMEM;
    int error = ring_open(&crowd->ring, RING_ENTRIES);
    if (error < 0) {
        note_error(crowd, "ring", ring_explain(error));
        return error;
    }
    error = io_uring_register_files_sparse(&crowd->ring, count);
    if (error < 0)
        note_error(crowd, "direct descriptors", "more --threads, or a higher `ulimit -n`");
    return error;
}

void *crowd_run(void *argument)
{
    struct crowd *crowd = argument;
    crowd->error = prepare(crowd);
    (void)pthread_barrier_wait(crowd->barrier);
    if (crowd->error == 0)
        crowd->error = open_all(crowd);
    (void)pthread_barrier_wait(crowd->barrier);
    if (crowd->error == 0)
        crowd->error = hold(crowd);
    if (crowd->error == 0)
        crowd->error = count_closed(crowd);
    if (crowd->error < 0)
        note_error(crowd, "ring", strerror(-crowd->error));
    return NULL;
}
