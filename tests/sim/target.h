/* The server under test: the only place of the simulator that knows how it is started, run and
 * stopped. */
#ifndef TESTS_SIM_TARGET_H
#define TESTS_SIM_TARGET_H

#include "base/log.h"
#include "io/io_sim.h"
#include "node/config.h"

#define TARGET_SHARDS_MAX 5u

struct node;
struct loop;

/* A process's shards are hosts of one machine, which run in turn and die together. */
struct target_shard {
    struct io *io;
    struct loop *server; /* NULL: it has not started */
    bool is_drained;
};

struct target {
    struct sim *sim;
    struct sim_disk *disk;
    struct config config;
    struct log log;
    struct node *node;
    struct io *io; /* the first shard's; NULL: it is not running */
    struct target_shard shards[TARGET_SHARDS_MAX];
};

/* What a run may choose. */
struct target_options {
    enum wal_durability durability;
    uint64_t cache_size;
    uint32_t value_size_max;
    uint32_t value_file_min;
    uint32_t stream_buffers;
    uint64_t log_file_size_more; /* beyond the least that takes such values */
    uint64_t log_keep_bytes;     /* of sealed log, before it is moved to segments */
    uint64_t compact_min;        /* dead bytes of segments that are worth a job */
    uint32_t mover_window;       /* bytes that the mover reads at once */
    bool has_small_stage;        /* the mover takes little into memory at once */
    uint64_t checkpoint_min;     /* moved records that are worth an index checkpoint */
    uint32_t connections_max;
};

/* `log` gets what the server says. */
void target_init(struct target *target, struct sim *sim, const struct target_options *options,
                 const struct log *log);

/* A process of so many shards on the disk's machine. Its clock is off by `clock_ms`. */
void target_start(struct target *target, uint32_t shard_count, int64_t clock_ms);

/* The machine's clock jumps, and stands still or goes on. */
void target_jump(struct target *target, int64_t delta_ms, bool is_frozen);

/* Start-up and recovery. Errors: the server's; -ESHUTDOWN when the host crashed meanwhile. */
int target_open(struct target *target);

/* 0: go on; 1: drained; -errno. */
int target_pass(struct target *target);
void target_drain(struct target *target);
void target_crash(struct target *target, enum sim_crash crash);
uint16_t target_port(const struct target *target);

/* The largest value that is not refused. */
uint32_t target_value_size_max(const struct target *target);

/* The end of the process, in any state. */
void target_close(struct target *target);

#endif
