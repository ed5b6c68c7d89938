/* bound: the server that does nothing but answer. What it reaches bounds what a server with a store
 * can reach. */
#include "threads.h"

#include "../common/options.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>

struct command_line {
    const char *host;
    uint64_t port;
    uint64_t threads;
    bool is_roaming;
    uint64_t connections;
    uint64_t value_size;
    uint64_t busy_poll_us;
    const char *durable;
    uint64_t writes;
    uint64_t log_mib;
};

static int parse(struct command_line *line, int argc, char **argv)
{
    const struct option_spec specs[] = {
        {"host", OPTION_STRING, &line->host, "ADDRESS", 0, 0, "IPv4 address to listen on"},
        {"port", OPTION_U64, &line->port, "N", 1, 65535, "TCP port"},
        {"threads", OPTION_U64, &line->threads, "N", 1, THREADS_MAX,
         "each with a listener and a ring; pinned when there are as many CPUs"},
        {"no-pin", OPTION_FLAG, &line->is_roaming, NULL, 0, 0,
         "threads roam, and the kernel's hash chooses a connection's thread"},
        {"connections", OPTION_U64, &line->connections, "N", 1, 65536,
         "most connections at a time"},
        {"value-size", OPTION_U64, &line->value_size, "BYTES", 0, 16 << 20,
         "size of the value that answers every GET"},
        {"busy-poll", OPTION_U64, &line->busy_poll_us, "MICROSECONDS", 0, 1000000,
         "spin this long for more work before sleeping; 0: sleep at once"},
        {"durable", OPTION_STRING, &line->durable, "DIR", 0, 0,
         "answer a SET when its bytes are on stable media in DIR"},
        {"writes", OPTION_U64, &line->writes, "N", 1, LOG_WRITES_MAX,
         "RWF_DSYNC writes in flight under --durable"},
        {"log-size", OPTION_U64, &line->log_mib, "MIB", 64, 65536,
         "size of the zeroed log under --durable; it is overwritten in a circle"},
    };
    const struct option_table table = {
        .usage = "bound: answers GET, SET, DELETE, HEALTH and AUTH of the binary protocol with "
                 "canned bytes.",
        .specs = specs,
        .spec_count = sizeof specs / sizeof specs[0],
    };
    int error = options_parse(&table, argc, argv);
    if (error == 0 && line->durable != NULL && line->threads > 1) {
        fprintf(stderr, "--durable: with one thread only\n");
        return -EINVAL;
    }
    return error;
}

int main(int argc, char **argv)
{
    struct command_line line = {
        .host = "127.0.0.1",
        .port = 3100,
        .threads = 1,
        .connections = 1024,
        .value_size = 100,
        .busy_poll_us = 50,
        .writes = 1,
        .log_mib = 256,
    };
    int error = parse(&line, argc, argv);
    if (error < 0)
        return error == -ECANCELED ? 0 : 2;
    struct listen_settings listening = {
        .host = line.host,
        .port = (uint16_t)line.port,
        .thread_count = (uint32_t)line.threads,
    };
    struct server_settings settings = {
        .connection_count_max = (uint32_t)line.connections,
        .value_size = (uint32_t)line.value_size,
        .busy_poll_ns = line.busy_poll_us * 1000,
        .durable_folder = line.durable,
        .write_count_max = (uint32_t)line.writes,
        .log_size = line.log_mib << 20,
    };
    return threads_run(&listening, &settings, line.is_roaming) < 0 ? 1 : 0;
}
