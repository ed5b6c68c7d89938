/* A server of one shard on a machine of the simulator, which says nothing. Its owner changes the
 * configuration between init and open. */
#ifndef TESTS_SUPPORT_SIM_SERVER_H
#define TESTS_SUPPORT_SIM_SERVER_H

#include "base/assert.h"
#include "io/io_sim.h"
#include "lone_server.h"

struct sim_server {
    struct sim *sim;
    struct io *io;
    struct lone_server lone;
    struct loop *server; /* its */
    struct config config;
    struct log log;
};

static inline void sim_server_say_nothing(void *context, const char *line, uint32_t size)
{
    (void)context;
    (void)line;
    (void)size;
}

static inline void sim_server_init(struct sim_server *server, uint64_t seed)
{
    *server = (struct sim_server){
        .sim = sim_create(seed),
        .log = {.level_min = LOG_ERROR, .write = sim_server_say_nothing},
    };
    config_init_defaults(&server->config);
    server->config.data_path = "/data";
    server->config.connections_max = 100;
    server->config.cache_size = 8 * MIB;
}

static inline void sim_server_open(struct sim_server *server)
{
    struct io_options options;
    loop_io_options(&server->config, 1, &options);
    sim_host_open(server->sim, sim_disk_create(server->sim), &options, &server->io);
    int result = lone_server_open(&server->lone, server->io, &server->config, &server->log);
    assert(result == 0);
    server->server = server->lone.server;
}

static inline void sim_server_pass(struct sim_server *server)
{
    int result = loop_pass(server->server);
    assert(result == 0);
}

static inline void sim_server_run(struct sim_server *server, uint64_t duration_ns)
{
    uint64_t end_ns = sim_now_ns(server->sim) + duration_ns;
    while (sim_now_ns(server->sim) < end_ns)
        sim_server_pass(server);
}

static inline void sim_server_close(struct sim_server *server)
{
    io_close(server->io);
    lone_server_close(&server->lone);
    sim_free(server->sim);
}

#endif
