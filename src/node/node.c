#include "node/node.h"

#include "store/reshard/store_directory.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define LINE_SIZE 64

struct node_desk {
    alignas(LINE_SIZE) _Atomic uint64_t turned_ns;
    alignas(LINE_SIZE) pthread_mutex_t lock;
    struct node_report report; /* under the lock */
};

static int open_desks(struct node *node)
{
    node->desks = aligned_alloc(LINE_SIZE, node->shard_count * sizeof *node->desks);
    if (node->desks == NULL)
        return -ENOMEM;
    memset(node->desks, 0, node->shard_count * sizeof *node->desks);
    for (uint32_t i = 0; i < node->shard_count; i++)
        (void)pthread_mutex_init(&node->desks[i].lock, NULL);
    return 0;
}

static int open_all(struct node *node)
{
    node->metrics = calloc(node->shard_count, sizeof(struct metrics *));
    int result = node->metrics != NULL ? open_desks(node) : -ENOMEM;
    if (result == 0)
        result = lease_open(node->config->connections_max, node->shard_count, &node->places);
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

void node_close(struct node *node)
{
    if (node == NULL)
        return;
    if (node->rate != NULL)
        rate_close(node->rate);
    if (node->office != NULL)
        post_office_close(node->office);
    if (node->places != NULL)
        lease_close(node->places);
    for (uint32_t i = 0; node->desks != NULL && i < node->shard_count; i++)
        (void)pthread_mutex_destroy(&node->desks[i].lock);
    if (node->directory != NULL)
        store_directory_free(node->directory);
    free(node->directory);
    free(node->desks);
    free(node->metrics);
    free(node);
}

void node_turned(struct node *node, uint32_t shard, uint64_t now_ns)
{
    atomic_store_explicit(&node->desks[shard].turned_ns, now_ns, memory_order_relaxed);
}

uint64_t node_turned_ns(const struct node *node, uint32_t shard)
{
    return atomic_load_explicit(&node->desks[shard].turned_ns, memory_order_relaxed);
}

void node_tell(struct node *node, uint32_t shard, const struct node_report *report)
{
    struct node_desk *desk = &node->desks[shard];
    (void)pthread_mutex_lock(&desk->lock);
    desk->report = *report;
    (void)pthread_mutex_unlock(&desk->lock);
}

void node_read(struct node *node, uint32_t shard, struct node_report *ret_report)
{
    struct node_desk *desk = &node->desks[shard];
    (void)pthread_mutex_lock(&desk->lock);
    *ret_report = desk->report;
    (void)pthread_mutex_unlock(&desk->lock);
}
