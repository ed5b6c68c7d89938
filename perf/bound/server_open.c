/* Opens and closes a server of bound: its ring, its tables and the answers, which are made in
 * advance. */
#include "server.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING_ENTRIES 1024
#define BUFFER_COUNT 1024
/* Holds a pipeline of 16 SETs of 100 bytes several times. */
#define BUFFER_SIZE 16384

/* The fields that clients of the protocol decode. */
static const char health_json[] =
    "{\"status\":\"ok\",\"uptime_seconds\":0,\"cache_items\":0,\"cache_size_mb\":0,"
    "\"storage_size_mb\":0,\"goroutines\":1,\"memory_mb\":0}";

static int report(const char *what, int error)
{
    fprintf(stderr, "bound: %s: %s\n", what, strerror(-error));
    return error;
}

/* A whole answer: status 0, the length, the data. NULL when there is no memory. */
static uint8_t *make_answer(const uint8_t *data, uint32_t size)
{
    uint8_t *frame = malloc(5 + (size_t)size);
    if (frame == NULL)
        return NULL;
    frame[0] = 0;
    memcpy(frame + 1, &size, sizeof size);
    if (data != NULL)
        memcpy(frame + 5, data, size);
    else
        memset(frame + 5, 'x', size);
    return frame;
}

static int make_answers(struct server *server)
{
    uint32_t health_size = sizeof health_json - 1;
    server->answers = (struct answers){
        .value = make_answer(NULL, server->settings.value_size),
        .value_size = 5 + server->settings.value_size,
        .health = make_answer((const uint8_t *)health_json, health_size),
        .health_size = 5 + health_size,
    };
    return server->answers.value == NULL || server->answers.health == NULL ? -ENOMEM : 0;
}

static int allocate(struct server *server)
{
    uint32_t count = server->settings.connection_count_max;
    server->connections = calloc(count, sizeof *server->connections);
    server->dirty.items = calloc(count, sizeof *server->dirty.items);
    server->parked.items = calloc(count, sizeof *server->parked.items);
    server->held = calloc(BUFFER_COUNT, sizeof *server->held);
    if (server->connections == NULL || server->dirty.items == NULL ||
        server->parked.items == NULL || server->held == NULL)
        return -ENOMEM;
    return make_answers(server);
}

static int durable_open(struct server *server)
{
    struct log_settings settings = {
        .folder = server->settings.durable_folder,
        .file_size = server->settings.log_size,
        .write_count_max = server->settings.write_count_max,
        .waiter_count_max = server->settings.connection_count_max,
        .write_operation = SERVER_OPERATION_WRITE,
    };
    server->log_or_null = &server->log;
    return log_open(&server->log, &server->ring, &settings);
}

int server_open(struct server *server, const struct server_settings *settings)
{
    *server = (struct server){.settings = *settings};
    int error = allocate(server);
    if (error < 0)
        return report("memory", error);
    error = ring_open(&server->ring, RING_ENTRIES);
    if (error < 0) {
        fprintf(stderr, "bound: %s\n", ring_explain(error));
        return error;
    }
    error = io_uring_register_files_sparse(&server->ring, settings->connection_count_max);
    if (error < 0)
        return report("direct descriptors (raise `ulimit -n`, or lower --connections)", error);
    error = buffer_pool_open(&server->buffers, &server->ring, BUFFER_COUNT, BUFFER_SIZE);
    if (error < 0)
        return report("receive buffers (Linux 6.0 or later)", error);
    if (settings->durable_folder != NULL) {
        error = durable_open(server);
        if (error < 0)
            return report("the log (O_DIRECT needs a real disk, not tmpfs)", error);
    }
    return 0;
}
