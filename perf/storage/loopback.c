/* loopback: a server that only receives and discards, or sends from memory: what it reaches with
 * large values bounds a server behind the same sockets.
 *
 * It speaks as much of the binary protocol as mvload needs: GET is answered with `--value-size`
 * bytes, SET is swallowed. One thread, epoll, 256 KiB a system call; the head of a request is
 * received by itself, which only large values can afford. */
#include "../common/options.h"
#include "base/bytes.h"
#include "minivault/protocol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIECE_SIZE (256u << 10)
#define KEY_SIZE_MAX 250u
#define PREFIX_SIZE 3u     /* op, key length */
#define SET_SUFFIX_SIZE 5u /* value length, flag */
#define ANSWER_SIZE MINIVAULT_ANSWER_HEADER_SIZE
#define EVENTS_MAX 64

struct settings {
    uint64_t port;
    uint64_t value_size;
};

struct connection {
    int socket;
    uint8_t head[PREFIX_SIZE + KEY_SIZE_MAX + SET_SUFFIX_SIZE];
    uint32_t head_size;
    uint64_t body_left;   /* of a SET, to be swallowed */
    uint64_t answer_size; /* 0: no answer is due */
    uint64_t answer_sent;
};

struct server {
    int epoll;
    int listener;
    uint8_t *piece;
    uint8_t *answer; /* a GET's: head and value */
    uint64_t answer_size;
};

/* 1: all of it; 0: the socket has no more, or takes no more, now. */
static int pause_or(ssize_t count)
{
    if (count > 0)
        return 1;
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return count == 0 ? -ECONNRESET : -errno;
}

static int send_answer(const struct server *server, struct connection *connection)
{
    static const uint8_t done[ANSWER_SIZE] = {MINIVAULT_OK};
    const uint8_t *data = connection->answer_size == ANSWER_SIZE ? done : server->answer;
    while (connection->answer_sent < connection->answer_size) {
        uint64_t left = connection->answer_size - connection->answer_sent;
        ssize_t sent = send(connection->socket, data + connection->answer_sent, left, MSG_NOSIGNAL);
        int result = pause_or(sent);
        if (result != 1)
            return result;
        connection->answer_sent += (uint64_t)sent;
    }
    connection->answer_size = 0;
    connection->head_size = 0;
    return 1;
}

static int swallow(const struct server *server, struct connection *connection)
{
    while (connection->body_left > 0) {
        uint64_t wanted = connection->body_left < PIECE_SIZE ? connection->body_left : PIECE_SIZE;
        ssize_t count = recv(connection->socket, server->piece, wanted, 0);
        int result = pause_or(count);
        if (result != 1)
            return result;
        connection->body_left -= (uint64_t)count;
    }
    return 1;
}

/* The bytes that a head has, as far as it has come. 0: this is no request for us. */
static uint32_t head_size_of(const struct connection *connection)
{
    if (connection->head_size < PREFIX_SIZE)
        return PREFIX_SIZE;
    uint8_t op = connection->head[0];
    uint32_t key_size = load_u16(connection->head + 1);
    if (key_size > KEY_SIZE_MAX || (op != MINIVAULT_GET && op != MINIVAULT_SET))
        return 0;
    return PREFIX_SIZE + key_size + (op == MINIVAULT_SET ? SET_SUFFIX_SIZE : 0);
}

static int receive_head(struct connection *connection)
{
    uint32_t wanted;
    while ((wanted = head_size_of(connection)) > connection->head_size) {
        ssize_t count = recv(connection->socket, connection->head + connection->head_size,
                             wanted - connection->head_size, 0);
        int result = pause_or(count);
        if (result != 1)
            return result;
        connection->head_size += (uint32_t)count;
    }
    return wanted == 0 ? -EBADMSG : 1;
}

/* One request, or as much of it as can be done now: 1 when it was answered. */
static int serve(const struct server *server, struct connection *connection)
{
    if (connection->answer_size == 0) {
        bool is_new = connection->body_left == 0;
        int result = is_new ? receive_head(connection) : 1;
        if (result != 1)
            return result;
        bool is_set = connection->head[0] == MINIVAULT_SET;
        if (is_new && is_set)
            connection->body_left =
                load_u32(connection->head + connection->head_size - SET_SUFFIX_SIZE);
        result = swallow(server, connection);
        if (result != 1)
            return result;
        connection->answer_size = is_set ? ANSWER_SIZE : server->answer_size;
        connection->answer_sent = 0;
    }
    return send_answer(server, connection);
}

static void accept_one(const struct server *server)
{
    int socket = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct connection *connection = socket < 0 ? NULL : calloc(1, sizeof *connection);
    if (connection == NULL) {
        if (socket >= 0)
            (void)close(socket);
        return;
    }
    int on = 1;
    (void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection->socket = socket;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = connection};
    (void)epoll_ctl(server->epoll, EPOLL_CTL_ADD, socket, &event);
}

static void run(const struct server *server)
{
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(server->epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (connection == NULL) {
                accept_one(server);
                continue;
            }
            int result = 1;
            while (result == 1)
                result = serve(server, connection);
            if (result < 0) {
                (void)close(connection->socket);
                free(connection);
            }
        }
    }
}

static int listen_on(struct server *server, uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    (void)setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(server->listener, 1024) < 0)
        return -errno;
    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(server->epoll, EPOLL_CTL_ADD, server->listener, &event) < 0 ? -errno : 0;
}

static int open_server(struct server *server, const struct settings *settings)
{
    server->answer_size = ANSWER_SIZE + settings->value_size;
    server->piece = malloc(PIECE_SIZE);
    server->answer = malloc(server->answer_size);
    if (server->piece == NULL || server->answer == NULL)
        return -ENOMEM;
    memset(server->answer, 'x', server->answer_size);
    server->answer[0] = MINIVAULT_OK;
    store_u32(server->answer + 1, (uint32_t)settings->value_size);
    return listen_on(server, (uint16_t)settings->port);
}

int main(int argc, char **argv)
{
    struct settings settings = {.port = 3102, .value_size = 1 << 20};
    const struct option_spec specs[] = {
        {"port", OPTION_U64, &settings.port, "N", 1, 65535, "TCP port on 127.0.0.1"},
        {"value-size", OPTION_U64, &settings.value_size, "BYTES", 1, 100 << 20,
         "size of the value that answers every GET"},
    };
    const struct option_table table = {
        .usage = "loopback: swallows SETs and answers GETs of the binary protocol, from memory.",
        .specs = specs,
        .spec_count = sizeof specs / sizeof specs[0],
    };
    int error = options_parse(&table, argc, argv);
    if (error < 0)
        return error == -ECANCELED ? 0 : 2;
    struct server server = {0};
    error = open_server(&server, &settings);
    if (error < 0) {
        fprintf(stderr, "loopback: port %llu: %s\n", (unsigned long long)settings.port,
                strerror(-error));
        return 1;
    }
    run(&server);
    return 0;
}
