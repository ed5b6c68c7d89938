/* Opening and closing what a node has once. */
#include "node/node.h"

#include "store/reshard/store_directory.h"

#include <errno.h>
#include <stdlib.h>

static int open_all(struct node *node)
{
    node->metrics = calloc(node->shard_count, sizeof node->metrics[0]);
    int result = node->metrics != NULL ? 0 : -ENOMEM;
    if (result == 0)
        result = lease_open(node->config->connections_max, node->shard_count, &node->slots);
    if (result == 0 && node->shard_count > 1)
        result = post_office_open(node->shard_count, &node->office);
    if (result == 0 && node->config->rate_limit > 0)
        result = rate_open(node->config->rate_limit, node->shard_count, 0, &node->rate);
    return result;
}

int node_open(const struct config *config, const struct log *log, uint32_t shard_count,
              struct node **ret_node)
{
    struct node *node = calloc(1, sizeof *node);
    if (node == NULL)
        return -ENOMEM;
    node->config = config;
    node->log = log;
    node->shard_count = shard_count;
    int result = open_all(node);
    if (result < 0) {
        log_error(log, "not enough memory for %u shards", shard_count);
        node_close(node);
        return result;
    }
    *ret_node = node;
    return 0;
}

void node_set_steer(struct node *node, const struct steer *steer)
{
    node->steer = steer;
}

void node_close(struct node *node)
{
    if (node == NULL)
        return;
    if (node->rate != NULL)
        rate_close(node->rate);
    if (node->office != NULL)
        post_office_close(node->office);
    if (node->slots != NULL)
        lease_close(node->slots);
    free(node->metrics);
    if (node->directory != NULL)
        store_directory_free(node->directory);
    free(node->directory);
    free(node);
}
