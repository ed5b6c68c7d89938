/* A connection of mvload: it connects, writes requests, and reads replies in order. */
#include "connection.h"

#include "text.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A send carries at most this much, but always one request. */
#define OUTPUT_SIZE_MAX (256u << 10)

static int connect_socket(const struct config *config)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)config->port)};
    if (inet_pton(AF_INET, config->host, &address.sin_addr) != 1)
        return -EINVAL;
    int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0)
        return -errno;
    int on = 1;
    (void)setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(file, (const struct sockaddr *)&address, sizeof address) < 0) {
        int error = -errno;
        (void)close(file);
        return error;
    }
    return file;
}

/* Receives until the reply is whole, body included, and the text that it has ends with a NUL. */
static int receive_reply(int file, const struct protocol *protocol, uint8_t *buffer,
                         size_t capacity, struct reply *ret_reply)
{
    size_t received = 0;
    while (received < capacity - 1) {
        ssize_t count = recv(file, buffer + received, capacity - 1 - received, 0);
        if (count <= 0)
            return count < 0 ? -errno : -EACCES;
        received += (size_t)count;
        buffer[received] = 0;
        int result = protocol->read_reply(buffer, received, false, ret_reply);
        if (result < 0)
            return result;
        if (result == 1 && received >= ret_reply->head_size + ret_reply->body_size)
            return 0;
    }
    return -EBADMSG;
}

/* Sends the `size` bytes of a request and takes its reply into the same buffer. */
static int converse(int file, const struct protocol *protocol, uint8_t *buffer, size_t capacity,
                    size_t size, struct reply *ret_reply)
{
    if (send(file, buffer, size, MSG_NOSIGNAL) != (ssize_t)size)
        return -EPIPE;
    int error = receive_reply(file, protocol, buffer, capacity, ret_reply);
    if (error < 0)
        return error;
    return ret_reply->outcome == REPLY_DONE ? 0 : -EACCES;
}

static int read_member(const char *json, const char *name, uint32_t *ret_number)
{
    const char *at = strstr(json, name);
    uint64_t number = 0;
    if (at == NULL)
        return -EBADMSG;
    at += strlen(name);
    if (text_read_number((const uint8_t *)at, strlen(at), &number) == 0 || number > UINT32_MAX)
        return -EBADMSG;
    *ret_number = (uint32_t)number;
    return 0;
}

static int say_hello(struct connection *connection, const struct protocol *protocol,
                     uint8_t *buffer, size_t capacity)
{
    struct reply reply;
    size_t size = protocol->write_hello(buffer);
    int error = converse(connection->socket, protocol, buffer, capacity, size, &reply);
    if (error < 0)
        return error;
    const char *json = (const char *)buffer + reply.head_size;
    error = read_member(json, "\"shards\":", &connection->shard_count);
    if (error == 0)
        error = read_member(json, "\"shard\":", &connection->shard);
    return error < 0 || connection->shard < connection->shard_count ? error : -EBADMSG;
}

/* Before the ring has the socket. */
static int introduce(struct connection *connection, const struct config *config)
{
    const struct protocol *protocol = config->protocol;
    uint8_t buffer[REPLY_HEAD_SIZE_MAX];
    connection->shard_count = 1;
    if (protocol->write_hello != NULL) {
        int error = say_hello(connection, protocol, buffer, sizeof buffer);
        if (error < 0)
            return error;
    }
    if (config->auth == NULL || protocol->is_auth_in_request || protocol->write_auth == NULL)
        return 0;
    struct reply reply;
    size_t size = protocol->write_auth(buffer, &config->traffic);
    return converse(connection->socket, protocol, buffer, sizeof buffer, size, &reply);
}

static int allocate(struct connection *connection, const struct config *config, uint32_t depth_max)
{
    uint64_t wanted = (uint64_t)depth_max * config->request_size_max;
    if (wanted > OUTPUT_SIZE_MAX)
        wanted =
            config->request_size_max > OUTPUT_SIZE_MAX ? config->request_size_max : OUTPUT_SIZE_MAX;
    uint32_t pending_capacity = 1;
    while (pending_capacity < depth_max)
        pending_capacity *= 2;
    connection->output_capacity = (uint32_t)wanted;
    connection->pending_mask = pending_capacity - 1;
    connection->output = malloc(wanted);
    connection->pending = calloc(pending_capacity, sizeof *connection->pending);
    return connection->output == NULL || connection->pending == NULL ? -ENOMEM : 0;
}

int connection_open(struct connection *connection, const struct config *config, uint32_t depth_max)
{
    memset(connection, 0, offsetof(struct connection, head));
    connection->socket = connect_socket(config);
    if (connection->socket < 0)
        return connection->socket;
    int error = introduce(connection, config);
    if (error == 0)
        error = allocate(connection, config, depth_max);
    connection->is_open = error == 0;
    return error;
}

void connection_close(struct connection *connection)
{
    if (connection->socket >= 0)
        (void)close(connection->socket);
    free(connection->output);
    free(connection->pending);
    connection->is_open = false;
}

/* Adds what lies in [start, start + size) of the output stream and is not sent yet. */
static void add_part(struct connection *connection, const uint8_t *data, uint32_t start,
                     uint32_t size)
{
    uint32_t sent = connection->output_sent > start ? connection->output_sent - start : 0;
    if (sent >= size)
        return;
    connection->parts[connection->message.msg_iovlen++] =
        (struct iovec){.iov_base = (void *)(data + sent), .iov_len = size - sent};
}

const struct msghdr *connection_message(struct connection *connection)
{
    uint32_t value_size = connection->value_size;
    uint32_t head_size = value_size > 0 ? connection->value_at : connection->output_size;
    connection->message = (struct msghdr){.msg_iov = connection->parts};
    add_part(connection, connection->output, 0, head_size);
    add_part(connection, connection->value, head_size, value_size);
    add_part(connection, connection->output + head_size, head_size + value_size,
             connection->output_size - head_size);
    return &connection->message;
}

bool connection_sent(struct connection *connection, uint32_t size)
{
    connection->output_sent += size;
    if (connection->output_sent < connection->output_size + connection->value_size)
        return false;
    connection->output_sent = 0;
    connection->output_size = 0;
    connection->value_size = 0;
    return true;
}

static int finish(struct connection *connection, struct finished *ret_finished)
{
    uint64_t pending = connection->pending[connection->pending_first];
    connection->pending_first = (connection->pending_first + 1) & connection->pending_mask;
    connection->pending_count--;
    connection->is_in_body = false;
    ret_finished->reply = connection->reply;
    ret_finished->intended_ns = pending >> 1;
    ret_finished->is_get = pending & 1;
    return 1;
}

/* Reads a head that began in an earlier buffer; `*ret_used` bytes of data belong to it. */
static int read_held_head(struct connection *connection, const struct protocol *protocol,
                          bool is_get, const uint8_t *data, uint32_t size, uint32_t *ret_used)
{
    uint32_t held = connection->head_size;
    uint32_t taken = REPLY_HEAD_SIZE_MAX - held < size ? REPLY_HEAD_SIZE_MAX - held : size;
    memcpy(connection->head + held, data, taken);
    int result = protocol->read_reply(connection->head, held + taken, is_get, &connection->reply);
    if (result == 1) {
        assert(connection->reply.head_size > held);
        *ret_used = connection->reply.head_size - held;
        connection->head_size = 0;
    } else if (result == 0) {
        if (taken < size)
            return -EBADMSG;
        *ret_used = size;
        connection->head_size = held + taken;
    }
    return result;
}

static int read_head(struct connection *connection, const struct protocol *protocol,
                     const uint8_t *data, uint32_t size, uint32_t *ret_used)
{
    if (connection->pending_count == 0)
        return -EBADMSG;
    bool is_get = connection->pending[connection->pending_first] & 1;
    if (connection->head_size > 0)
        return read_held_head(connection, protocol, is_get, data, size, ret_used);
    int result = protocol->read_reply(data, size, is_get, &connection->reply);
    if (result == 1) {
        *ret_used = connection->reply.head_size;
    } else if (result == 0) {
        if (size >= REPLY_HEAD_SIZE_MAX)
            return -EBADMSG;
        memcpy(connection->head, data, size);
        connection->head_size = size;
        *ret_used = size;
    }
    return result;
}

int connection_next_reply(struct connection *connection, const struct protocol *protocol,
                          const uint8_t **data, uint32_t *size, struct finished *ret_finished)
{
    while (*size > 0) {
        uint32_t used = 0;
        if (!connection->is_in_body) {
            int result = read_head(connection, protocol, *data, *size, &used);
            if (result < 0)
                return result;
            connection->is_in_body = result == 1;
            connection->body_rest_size = connection->reply.body_size;
        } else {
            used =
                connection->body_rest_size < *size ? (uint32_t)connection->body_rest_size : *size;
            connection->body_rest_size -= used;
        }
        *data += used;
        *size -= used;
        if (connection->is_in_body && connection->body_rest_size == 0)
            return finish(connection, ret_finished);
    }
    return 0;
}
