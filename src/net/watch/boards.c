/* A board a shard: its report under a lock, the time of its last pass without one. */
#include "net/watch/boards.h"

#include "base/assert.h"

#include <errno.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LINE_SIZE 64

struct board {
    alignas(LINE_SIZE) _Atomic uint64_t passed_ns;
    alignas(LINE_SIZE) pthread_mutex_t lock;
    struct shard_report report; /* under the lock */
};

struct boards {
    uint32_t count;
    const struct metrics **metrics;
    struct board *boards;
};

static int open_all(struct boards *boards)
{
    boards->metrics = calloc(boards->count, sizeof boards->metrics[0]);
    boards->boards = aligned_alloc(LINE_SIZE, boards->count * sizeof boards->boards[0]);
    if (boards->metrics == NULL || boards->boards == NULL)
        return -ENOMEM;
    memset(boards->boards, 0, boards->count * sizeof boards->boards[0]);
    for (uint32_t i = 0; i < boards->count; i++)
        (void)pthread_mutex_init(&boards->boards[i].lock, NULL);
    return 0;
}

int boards_open(uint32_t shard_count, struct boards **ret_boards)
{
    struct boards *boards = calloc(1, sizeof *boards);
    if (boards == NULL)
        return -ENOMEM;
    boards->count = shard_count;
    int result = open_all(boards);
    if (result < 0) {
        free(boards->metrics);
        free(boards->boards);
        free(boards);
        return result;
    }
    *ret_boards = boards;
    return 0;
}

void boards_close(struct boards *boards)
{
    if (boards == NULL)
        return;
    for (uint32_t i = 0; i < boards->count; i++)
        (void)pthread_mutex_destroy(&boards->boards[i].lock);
    free(boards->metrics);
    free(boards->boards);
    free(boards);
}

static struct board *board_of(const struct boards *boards, uint32_t shard)
{
    assert(shard < boards->count);
    return &boards->boards[shard];
}

void boards_set_metrics(struct boards *boards, uint32_t shard, const struct metrics *metrics)
{
    assert(shard < boards->count);
    boards->metrics[shard] = metrics;
}

const struct metrics *const *boards_metrics(const struct boards *boards)
{
    return boards->metrics;
}

void boards_passed(struct boards *boards, uint32_t shard, uint64_t now_ns)
{
    atomic_store_explicit(&board_of(boards, shard)->passed_ns, now_ns, memory_order_relaxed);
}

uint64_t boards_passed_ns(const struct boards *boards, uint32_t shard)
{
    return atomic_load_explicit(&board_of(boards, shard)->passed_ns, memory_order_relaxed);
}

void boards_tell(struct boards *boards, uint32_t shard, const struct shard_report *report)
{
    struct board *board = board_of(boards, shard);
    (void)pthread_mutex_lock(&board->lock);
    board->report = *report;
    (void)pthread_mutex_unlock(&board->lock);
}

void boards_read(struct boards *boards, uint32_t shard, struct shard_report *ret_report)
{
    struct board *board = board_of(boards, shard);
    (void)pthread_mutex_lock(&board->lock);
    *ret_report = board->report;
    (void)pthread_mutex_unlock(&board->lock);
}
