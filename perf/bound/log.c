/* The log of the durable mode: fills batches, writes them with O_DIRECT and RWF_DSYNC, and says up
 * to where everything is durable. */
#include "log.h"

#include "../common/ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Writes zeroes to the whole file: a write into extents that are unwritten would go to a worker
 * thread. */
static int zero_file(struct log *log)
{
    memset(log->memory, 0, LOG_BATCH_SIZE);
    for (uint64_t offset = 0; offset < log->file_size; offset += LOG_BATCH_SIZE) {
        ssize_t written = pwrite(log->file, log->memory, LOG_BATCH_SIZE, (off_t)offset);
        if (written < 0)
            return -errno;
        if (written != LOG_BATCH_SIZE)
            return -EIO;
    }
    return fsync(log->file) < 0 ? -errno : 0;
}

static int open_file(struct log *log, const char *folder)
{
    char path[4096];
    int size = snprintf(path, sizeof path, "%s/bound-%ld.log", folder, (long)getpid());
    if (size < 0 || (size_t)size >= sizeof path)
        return -ENAMETOOLONG;
    log->file = open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600);
    if (log->file < 0)
        return -errno;
    (void)unlink(path);
    int error = zero_file(log);
    if (error < 0)
        (void)close(log->file);
    return error;
}

static int allocate_batches(struct log *log, uint32_t waiter_count_max)
{
    size_t size = (size_t)log->batch_count * LOG_BATCH_SIZE;
    log->memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (log->memory == MAP_FAILED)
        return -errno;
    log->waiter_memory = calloc((size_t)log->batch_count * waiter_count_max, sizeof(uint32_t));
    if (log->waiter_memory == NULL) {
        (void)munmap(log->memory, size);
        return -ENOMEM;
    }
    struct iovec buffers[LOG_BATCHES_MAX];
    for (uint32_t i = 0; i < log->batch_count; i++) {
        log->batches[i].data = log->memory + (size_t)i * LOG_BATCH_SIZE;
        log->batches[i].waiters = log->waiter_memory + (size_t)i * waiter_count_max;
        buffers[i] = (struct iovec){.iov_base = log->batches[i].data, .iov_len = LOG_BATCH_SIZE};
    }
    return io_uring_register_buffers(log->ring, buffers, log->batch_count);
}

int log_open(struct log *log, struct io_uring *ring, const struct log_settings *settings)
{
    assert(settings->write_count_max >= 1 && settings->write_count_max <= LOG_WRITES_MAX);
    assert(settings->file_size % LOG_BATCH_SIZE == 0);
    *log = (struct log){.ring = ring,
                        .write_operation = settings->write_operation,
                        .file_size = settings->file_size,
                        .write_count_max = settings->write_count_max,
                        .batch_count = settings->write_count_max + 2,
                        .filling = 1};
    int error = allocate_batches(log, settings->waiter_count_max);
    if (error < 0)
        return error;
    return open_file(log, settings->folder);
}

bool log_reserve(struct log *log, uint32_t size)
{
    assert(size <= LOG_BATCH_SIZE);
    if (LOG_BATCH_SIZE - log_batch_at(log, log->filling)->size >= size)
        return true;
    if (log->filling + 1 - log->durable > log->batch_count)
        return false;
    log->filling++;
    assert(log_batch_at(log, log->filling)->size == 0);
    return true;
}

void log_append(struct log *log, const uint8_t *data, uint32_t size)
{
    struct log_batch *batch = log_batch_at(log, log->filling);
    assert(LOG_BATCH_SIZE - batch->size >= size);
    memcpy(batch->data + batch->size, data, size);
    batch->size += size;
}

void log_add_waiter(struct log *log, uint32_t connection)
{
    struct log_batch *batch = log_batch_at(log, log->filling);
    batch->waiters[batch->waiter_count++] = connection;
}

static void write_batch(struct log *log, uint64_t number)
{
    struct log_batch *batch = log_batch_at(log, number);
    uint32_t size = (batch->size + LOG_BLOCK_SIZE - 1) / LOG_BLOCK_SIZE * LOG_BLOCK_SIZE;
    memset(batch->data + batch->size, 0, size - batch->size);
    batch->size = size;
    if (log->file_offset + size > log->file_size)
        log->file_offset = 0;
    uint32_t slot = (uint32_t)(number % log->batch_count);
    struct io_uring_sqe *sqe = ring_get_sqe(log->ring);
    io_uring_prep_write_fixed(sqe, log->file, batch->data, size, log->file_offset, (int)slot);
    sqe->rw_flags = RWF_DSYNC;
    io_uring_sqe_set_data64(sqe, ring_tag(log->write_operation, slot));
    log->file_offset += size;
}

static uint32_t writes_in_flight(struct log *log)
{
    uint32_t count = 0;
    for (uint64_t number = log->durable + 1; number <= log->submitted; number++)
        count += !log_batch_at(log, number)->is_written;
    return count;
}

void log_submit(struct log *log)
{
    uint32_t in_flight = writes_in_flight(log);
    while (in_flight < log->write_count_max && log->submitted < log->filling) {
        uint64_t number = log->submitted + 1;
        if (log_batch_at(log, number)->size == 0)
            return;
        /* The batch that is being filled can only go when there is a slot for its successor. */
        if (number == log->filling) {
            if (log->filling + 1 - log->durable > log->batch_count)
                return;
            log->filling++;
        }
        write_batch(log, number);
        log->submitted = number;
        in_flight++;
    }
}

int log_complete(struct log *log, uint64_t batch_slot, int result)
{
    assert(batch_slot < log->batch_count);
    struct log_batch *batch = &log->batches[batch_slot];
    if (result < 0)
        return result;
    if ((uint32_t)result != batch->size)
        return -EIO;
    batch->is_written = true;
    batch->size = 0;
    /* Answers leave in the order of the log: a later batch waits for the earlier ones. */
    while (log->durable < log->submitted && log_batch_at(log, log->durable + 1)->is_written) {
        log->durable++;
        log_batch_at(log, log->durable)->is_written = false;
    }
    return 0;
}
