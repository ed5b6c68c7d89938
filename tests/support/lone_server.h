/* A server of a node of its own, without threads: up in one step, for tests that drive its passes.
 */
#ifndef TESTS_SUPPORT_LONE_SERVER_H
#define TESTS_SUPPORT_LONE_SERVER_H

#include "node/loop.h"

struct lone_server {
    struct node *node;
    struct loop *server;
};

/* `config` and `log` outlive it. Returns 0 or -errno. */
static inline int lone_server_open(struct lone_server *lone, struct io *io,
                                   const struct config *config, const struct log *log)
{
    int descriptors[LISTENERS_MAX];
    int result = node_open(config, log, 1, NULL, &lone->node);
    if (result == 0)
        result = loop_create(io, lone->node, 0, &lone->server);
    if (result == 0)
        result = loop_listen(lone->server, config->port, descriptors);
    if (result == 0)
        loop_begin(lone->server, NULL);
    return result;
}

/* After the world was closed. */
static inline void lone_server_close(struct lone_server *lone)
{
    loop_close(lone->server);
    node_close(lone->node);
}

#endif
