/* The durable mode's log: bytes in, and word when they are on stable media. No index, no checksum,
 * no recovery.
 *
 * A zeroed, preallocated file is overwritten from its start to its end and again, in batches: 4
 * KiB-aligned registered buffers, each written with O_DIRECT and RWF_DSYNC. Group commit without a
 * timer: while fewer than `write_count_max` writes are in flight, what was appended in this loop is
 * written at once; otherwise it gathers in the next batch until a write completes.
 *
 * Batches are numbered from 1. durable <= submitted <= filling always: up to `durable` all are on
 * media, up to `submitted` they were given to the disk, `filling` is the one that takes bytes. A
 * batch lives in slot number modulo batch_count, so filling - durable <= batch_count. */
#ifndef PERF_BOUND_LOG_H
#define PERF_BOUND_LOG_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_WRITES_MAX 16
#define LOG_BATCHES_MAX (LOG_WRITES_MAX + 2)
#define LOG_BATCH_SIZE (1u << 20)
#define LOG_BLOCK_SIZE 4096u

struct log_batch {
    uint8_t *data;
    uint32_t size;
    bool is_written;
    uint32_t *waiters; /* the connections whose answers wait for this batch */
    uint32_t waiter_count;
};

struct log {
    struct io_uring *ring;
    uint32_t write_operation; /* the operation of the completions' tags */
    int file;
    uint64_t file_size;
    uint64_t file_offset;
    uint32_t write_count_max;
    uint32_t batch_count;
    uint64_t durable;
    uint64_t submitted;
    uint64_t filling;
    uint8_t *memory;
    uint32_t *waiter_memory;
    struct log_batch batches[LOG_BATCHES_MAX];
};

struct log_settings {
    const char *folder;
    uint64_t file_size; /* a multiple of LOG_BATCH_SIZE, larger than all batches together */
    uint32_t write_count_max;
    uint32_t waiter_count_max; /* how many connections there can be */
    uint32_t write_operation;
};

/* Creates and zeroes the file; it has no name from then on, so that it goes with the process.
 *
 * Errors: -errno of open, write, the allocation or the registration of the buffers. */
int log_open(struct log *log, struct io_uring *ring, const struct log_settings *settings);

static inline struct log_batch *log_batch_at(struct log *log, uint64_t number)
{
    return &log->batches[number % log->batch_count];
}

/* Makes room for `size` bytes; false when that must wait for a write to complete. */
bool log_reserve(struct log *log, uint32_t size);

/* Takes bytes for which log_reserve made room. */
void log_append(struct log *log, const uint8_t *data, uint32_t size);

/* Notes that `connection` has an answer that waits for the batch that is being filled. */
void log_add_waiter(struct log *log, uint32_t connection);

/* Queues the writes that may start now. */
void log_submit(struct log *log);

/* Takes the completion of a write. The caller then tells the waiters of the batches from the old
 * `durable` + 1 to the new one.
 *
 * Errors: the -errno of the write; -EIO when it was short. */
int log_complete(struct log *log, uint64_t batch_slot, int result);

#endif
