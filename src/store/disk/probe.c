/* Times the ways to make a block durable on this device, so that the log uses the fastest one. */
#include "store/disk/probe.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCRATCH_SIZE ((uint32_t)(1 * MIB))
#define WRITE_SIZE ((uint32_t)(64 * KIB))
#define ROUNDS_MAX 32
#define PROBE_NS (300 * NS_PER_MS)
#define PATH_SIZE_MAX 4096

struct probe {
    struct io *io;
    int file;
    uint8_t *buffer; /* 2 × WRITE_SIZE */
    uint64_t offset;
};

static uint64_t next_offset(struct probe *probe)
{
    probe->offset = (probe->offset + WRITE_SIZE) % SCRATCH_SIZE;
    assert(probe->offset % WRITE_SIZE == 0);
    return probe->offset;
}

static int write_plain(struct probe *probe, uint32_t size)
{
    struct io_op op = {0};
    io_write(probe->io, &op, probe->file, probe->buffer, size, next_offset(probe), IO_WRITE_PLAIN);
    return io_wait(probe->io, &op);
}

static int write_and_sync(struct probe *probe, uint32_t size)
{
    int result = write_plain(probe, size);
    return result < 0 ? result : disk_wait_sync(probe->io, probe->file);
}

/* Two writes at once. */
static int write_two(struct probe *probe)
{
    struct io_op ops[2] = {{0}, {0}};
    for (int i = 0; i < 2; i++)
        io_write(probe->io, &ops[i], probe->file, probe->buffer + (size_t)i * WRITE_SIZE,
                 WRITE_SIZE, next_offset(probe), IO_WRITE_DSYNC);
    int first = io_wait(probe->io, &ops[0]);
    int second = io_wait(probe->io, &ops[1]);
    return first < 0 ? first : second;
}

static int compare_times(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

enum way { DSYNC_SMALL, FDATASYNC_SMALL, DSYNC_LARGE, FDATASYNC_LARGE, TWO_LARGE, WAYS };

/* Nanoseconds until one write is durable, or -errno. */
static int64_t time_one(struct probe *probe, enum way way)
{
    bool is_small = way == DSYNC_SMALL || way == FDATASYNC_SMALL;
    uint32_t size = is_small ? (uint32_t)DISK_BLOCK_SIZE : WRITE_SIZE;
    uint64_t begin = io_now_ns(probe->io);
    int result;
    if (way == TWO_LARGE)
        result = write_two(probe);
    else if (way == FDATASYNC_SMALL || way == FDATASYNC_LARGE)
        result = write_and_sync(probe, size);
    else
        result = disk_wait_write(probe->io, probe->file, probe->buffer, size, next_offset(probe));
    int64_t took = (int64_t)(io_now_ns(probe->io) - begin);
    return result < 0 ? result : took / (way == TWO_LARGE ? 2 : 1);
}

/* All ways in turn, so that a slow moment hits them alike; medians. */
static int measure(struct probe *probe, int64_t *ret_medians)
{
    int64_t times[WAYS][ROUNDS_MAX];
    uint64_t begin = io_now_ns(probe->io);
    int rounds = 0;
    for (; rounds < ROUNDS_MAX && io_now_ns(probe->io) - begin < PROBE_NS; rounds++) {
        for (int way = 0; way < WAYS; way++) {
            times[way][rounds] = time_one(probe, (enum way)way);
            if (times[way][rounds] < 0)
                return (int)times[way][rounds];
        }
    }
    assert(rounds > 0);
    for (int way = 0; way < WAYS; way++) {
        qsort(times[way], (size_t)rounds, sizeof times[way][0], compare_times);
        ret_medians[way] = times[way][rounds / 2];
    }
    return 0;
}

/* Writes the whole scratch file once, so that the probe overwrites mapped blocks as the log does.
 */
static int lay_out(struct probe *probe)
{
    struct io_op op = {0};
    io_allocate(probe->io, &op, probe->file, SCRATCH_SIZE);
    int result = io_wait(probe->io, &op);
    for (uint32_t size = 0; result >= 0 && size < SCRATCH_SIZE; size += WRITE_SIZE)
        result = write_plain(probe, WRITE_SIZE);
    return result < 0 ? result : disk_wait_sync(probe->io, probe->file);
}

static int probe_file(struct probe *probe, struct probe_result *ret_result)
{
    int64_t medians[WAYS];
    memset(probe->buffer, 0, 2 * WRITE_SIZE);
    int result = lay_out(probe);
    if (result == 0)
        result = measure(probe, medians);
    if (result < 0)
        return result;
    /* A busy log writes large batches: those decide. What is simpler and usually faster has to be
     * clearly slower to lose, since the machine may be busy now. One sync stream with fdatasync. */
    bool use_dsync = medians[DSYNC_LARGE] * 4 <= medians[FDATASYNC_LARGE] * 5;
    *ret_result = (struct probe_result){
        .use_dsync = use_dsync,
        .writes_in_flight =
            use_dsync && medians[TWO_LARGE] * 10 <= medians[DSYNC_LARGE] * 11 ? 2 : 1,
        .dsync_us = (uint32_t)((uint64_t)medians[DSYNC_SMALL] / NS_PER_US),
        .fdatasync_us = (uint32_t)((uint64_t)medians[FDATASYNC_SMALL] / NS_PER_US),
    };
    return 0;
}

int probe_device(struct io *io, const struct log *log, const char *directory, uint8_t *buffer,
                 struct probe_result *ret_result)
{
    char path[PATH_SIZE_MAX];
    int length = snprintf(path, sizeof path, "%s/probe", directory);
    if (length < 0 || (size_t)length >= sizeof path)
        return -ENAMETOOLONG;
    struct probe probe = {.io = io, .buffer = buffer};
    assert((uintptr_t)buffer % DISK_BLOCK_SIZE == 0);
    probe.file = disk_wait_open(io, path, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_DIRECT);
    if (probe.file < 0)
        return probe.file;
    if (!io_file_is_direct(io, probe.file))
        log_warn(log,
                 "the file system of %s has no O_DIRECT: reads and writes go through the page "
                 "cache, slower and "
                 "with double memory. Use ext4 or XFS",
                 directory);
    int result = probe_file(&probe, ret_result);
    (void)disk_wait_close(io, probe.file);
    int unlinked = disk_wait_unlink(io, path);
    return result < 0 ? result : unlinked;
}
