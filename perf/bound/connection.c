/* A connection's input and output: frames are taken off the front. Answers leave in order, a write's
 * once the write is durable. */
#include "connection.h"

#include "base/bytes.h"
#include "minivault/protocol.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* It doubles until a pipeline's answers fit; 50,000 connections that ask one GET take no more. */
#define OUTPUT_SIZE_FIRST 512u

static const uint8_t answer_done[MINIVAULT_ANSWER_HEADER_SIZE] = {0};

void connection_open(struct connection *connection)
{
    struct output output = connection->output;
    uint64_t batch_waited = connection->batch_waited;
    memset(connection, 0, offsetof(struct connection, input));
    connection->is_open = true;
    connection->output.data =
        output.data; /* the memory of the slot's former connection serves again */
    connection->output.capacity = output.capacity;
    connection->batch_waited = batch_waited;
}

void connection_close(struct connection *connection)
{
    assert(!connection->is_sending);
    assert(!connection->is_receiving);
    connection->is_open = false;
}

/* Makes room for `size` more bytes. */
static int output_reserve(struct connection *connection, uint32_t size)
{
    struct output *output = &connection->output;
    if (output->capacity - output->end >= size)
        return 0;
    uint32_t used = output->end - output->start;
    if (!connection->is_sending && output->capacity - used >= size && output->start >= used) {
        memcpy(output->data, output->data + output->start, used);
        output->start = 0;
        output->end = used;
        return 0;
    }
    uint64_t capacity = output->capacity == 0 ? OUTPUT_SIZE_FIRST : output->capacity;
    while (capacity < 2 * ((uint64_t)used + size))
        capacity *= 2;
    if (capacity > OUTPUT_SIZE_MAX)
        return -ENOBUFS;
    uint8_t *data = malloc(capacity);
    if (data == NULL)
        return -ENOBUFS;
    if (used > 0)
        memcpy(data, output->data + output->start, used);
    /* Only the first buffer since the send began is the kernel's. */
    if (connection->is_sending && output->retired == NULL)
        output->retired = output->data;
    else
        free(output->data);
    output->data = data;
    output->capacity = (uint32_t)capacity;
    output->start = 0;
    output->end = used;
    return 0;
}

/* Counts new bytes as sendable, or adds them to the answers that wait. */
static void output_account(struct connection *connection, uint32_t index, struct log *log,
                           bool is_logged, uint32_t size)
{
    if (!is_logged && connection->mark_count == 0) {
        connection->output.sendable_size += size;
        return;
    }
    uint32_t last =
        (connection->mark_first + connection->mark_count + LOG_BATCHES_MAX - 1) % LOG_BATCHES_MAX;
    bool has_mark = connection->mark_count > 0;
    if (has_mark && (!is_logged || connection->marks[last].batch == log->filling)) {
        connection->marks[last].size += size;
        return;
    }
    assert(connection->mark_count < LOG_BATCHES_MAX);
    uint32_t next = (connection->mark_first + connection->mark_count) % LOG_BATCHES_MAX;
    connection->marks[next] = (struct mark){.batch = log->filling, .size = size};
    connection->mark_count++;
    if (connection->batch_waited != log->filling)
        log_add_waiter(log, index);
    connection->batch_waited = log->filling;
}

static int answer(struct connection *connection, uint32_t index, const struct answers *answers,
                  struct log *log, uint8_t op)
{
    const uint8_t *data = answer_done;
    uint32_t size = sizeof answer_done;
    if (op == MINIVAULT_GET) {
        data = answers->value;
        size = answers->value_size;
    } else if (op == MINIVAULT_HEALTH) {
        data = answers->health;
        size = answers->health_size;
    }
    int error = output_reserve(connection, size);
    if (error < 0)
        return error;
    memcpy(connection->output.data + connection->output.end, data, size);
    connection->output.end += size;
    output_account(connection, index, log, op == MINIVAULT_SET && log != NULL, size);
    return 0;
}

/* The size of the frame's header, which is all but a SET's value, and the size of that value. A
 * header size of 0 means that more bytes are needed. */
static int header_parse(const uint8_t *data, uint32_t size, uint32_t *ret_header_size,
                        uint32_t *ret_value_size)
{
    uint32_t header_size = 0;
    uint32_t value_size = 0;
    if (size >= 3) {
        uint8_t op = data[0];
        uint32_t key_size = load_u16(data + 1);
        bool is_known = (op >= MINIVAULT_GET && op <= MINIVAULT_DELETE) || op == MINIVAULT_HEALTH ||
                        op == MINIVAULT_AUTH;
        if (!is_known || key_size > KEY_SIZE_MAX)
            return -EBADMSG;
        header_size = 3 + key_size + (op == MINIVAULT_SET ? 5 : 0);
        if (size < header_size)
            header_size = 0;
        else if (op == MINIVAULT_SET)
            value_size = load_u32(data + 3 + key_size);
    }
    *ret_header_size = header_size;
    *ret_value_size = value_size;
    return 0;
}

/* Completes the header that an earlier buffer began. `*ret_used` bytes of data went into it. */
static int header_complete(struct connection *connection, const uint8_t *data, uint32_t size,
                           uint32_t *ret_header_size, uint32_t *ret_value_size, uint32_t *ret_used)
{
    uint32_t held = connection->input_size;
    uint32_t taken = HEADER_SIZE_MAX - held < size ? HEADER_SIZE_MAX - held : size;
    memcpy(connection->input + held, data, taken);
    int error = header_parse(connection->input, held + taken, ret_header_size, ret_value_size);
    if (error < 0)
        return error;
    if (*ret_header_size == 0) {
        assert(taken == size);
        connection->input_size = held + taken;
        *ret_used = size;
    } else {
        *ret_used = *ret_header_size - held;
        connection->input_size = 0;
    }
    return 0;
}

/* Takes bytes of the value that is being skipped, and answers when it is complete. */
static int value_receive(struct connection *connection, uint32_t index,
                         const struct answers *answers, struct log *log, const uint8_t *data,
                         uint32_t size)
{
    if (log != NULL)
        log_append(log, data, size);
    connection->input_skip_size -= size;
    if (connection->input_skip_size > 0)
        return 0;
    return answer(connection, index, answers, log, connection->input_op);
}

int connection_receive(struct connection *connection, uint32_t index, const struct answers *answers,
                       struct log *log, const uint8_t *data, uint32_t size)
{
    while (size > 0) {
        uint32_t used = 0;
        if (connection->input_skip_size > 0) {
            used = connection->input_skip_size < size ? connection->input_skip_size : size;
            int error = value_receive(connection, index, answers, log, data, used);
            if (error < 0)
                return error;
            data += used;
            size -= used;
            continue;
        }
        const uint8_t *header = data;
        uint32_t header_size = 0;
        uint32_t value_size = 0;
        bool is_held = connection->input_size > 0;
        int error = is_held
                        ? header_complete(connection, data, size, &header_size, &value_size, &used)
                        : header_parse(data, size, &header_size, &value_size);
        if (error < 0)
            return error;
        if (header_size == 0) {
            if (!is_held) {
                memcpy(connection->input, data, size);
                connection->input_size = size;
            }
            return 0;
        }
        if (is_held)
            header = connection->input;
        else
            used = header_size;
        uint8_t op = header[0];
        data += used;
        size -= used;
        if (op == MINIVAULT_SET && log != NULL)
            log_append(log, header, header_size);
        connection->input_op = op;
        connection->input_skip_size = value_size;
        if (value_size > 0)
            continue;
        error = answer(connection, index, answers, log, op);
        if (error < 0)
            return error;
    }
    return 0;
}

void connection_release(struct connection *connection, uint64_t durable)
{
    while (connection->mark_count > 0 &&
           connection->marks[connection->mark_first].batch <= durable) {
        connection->output.sendable_size += connection->marks[connection->mark_first].size;
        connection->mark_first = (connection->mark_first + 1) % LOG_BATCHES_MAX;
        connection->mark_count--;
    }
}

void connection_sent(struct connection *connection, uint32_t size)
{
    struct output *output = &connection->output;
    assert(connection->is_sending);
    assert(size <= output->sendable_size);
    connection->is_sending = false;
    free(output->retired);
    output->retired = NULL;
    output->start += size;
    output->sendable_size -= size;
    if (output->start == output->end) {
        output->start = 0;
        output->end = 0;
    }
}
