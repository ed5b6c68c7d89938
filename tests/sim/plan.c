/* Chooses from the seed what a run is like: the server's options, the load, the faults. */
#include "run.h"

static uint64_t below(struct run *run, uint64_t bound)
{
    return prng_below(&run->prng, bound);
}

static bool happens(struct run *run, uint32_t percent)
{
    return below(run, 100) < percent;
}

static enum wal_durability choose_durability(struct run *run)
{
    uint64_t dice = below(run, 100);
    if (dice < 75)
        return WAL_COMMIT;
    return dice < 90 ? WAL_INTERVAL : WAL_NONE;
}

static enum trouble choose_trouble(struct run *run)
{
    return happens(run, 60) ? TROUBLE_NONE : (enum trouble)below(run, TROUBLE_COUNT);
}

static void choose_target(struct run *run)
{
    static const uint64_t cache_sizes[] = {64 * KIB, 256 * KIB, MIB, 16 * MIB};
    static const uint32_t value_file_mins[] = {1000, 16 * KIB, 16 * KIB, 256 * KIB};
    static const uint32_t stream_buffers[] = {1, 2, 5, 20};
    run->plan.target = (struct target_options){
        .durability = choose_durability(run),
        .cache_size = cache_sizes[below(run, 4)],
        .value_size_max = (uint32_t)(happens(run, 85) ? 64 * KIB : 2 * MIB),
        .value_file_min = value_file_mins[below(run, 4)],
        .stream_buffers = stream_buffers[below(run, 4)],
        .log_file_size_more = below(run, 4) * 64 * KIB,
        .connections_max = 2 * RUN_CLIENTS_MAX,
    };
}

/* How soon records move on from the log, and whether there are enough of them that segments are
 * compacted, too. With a chance of its own: what older seeds choose stays as
 * it was. */
static void choose_moves(struct run *run)
{
    static const uint64_t log_keep_bytes[] = {1, 1, 512 * KIB, 0};
    static const uint64_t compact_mins[] = {1, 16 * KIB, 128 * KIB, 0};
    static const uint64_t checkpoint_mins[] = {1, 100, 2000, 0};
    static const uint32_t windows[] = {4 * KIB, 16 * KIB, 64 * KIB, 0};
    struct prng prng = {~run->seed};
    run->plan.target.log_keep_bytes = log_keep_bytes[prng_below(&prng, 4)];
    if (prng_below(&prng, 4) == 0)
        run->plan.requests_max += 4000;
    run->plan.target.compact_min = compact_mins[prng_below(&prng, 4)];
    run->plan.target.checkpoint_min = checkpoint_mins[prng_below(&prng, 4)];
    run->plan.target.mover_window = windows[prng_below(&prng, 4)];
    run->plan.target.has_small_stage = prng_below(&prng, 2) == 0;
}

/* Half of the runs have one shard, as older seeds. */
static void choose_shards(struct run *run)
{
    struct prng prng = {run->seed ^ UINT64_C(0x5348415244)};
    bool has_many = prng_below(&prng, 2) == 0;
    bool changes = has_many && prng_below(&prng, 2) == 0;
    run->plan.shards_usual = has_many ? 1 + (uint32_t)prng_below(&prng, TARGET_SHARDS_MAX) : 1;
    run->plan.shards_max = changes && run->plan.trouble != TROUBLE_ROT ? TARGET_SHARDS_MAX : 1;
}

static void choose_workload(struct run *run)
{
    static const uint32_t key_counts[] = {10, 30, 100, 300, 2000};
    static const uint64_t think_ns[] = {0, 0, 200 * NS_PER_US, 5 * NS_PER_MS};
    struct workload *workload = &run->workload;
    uint32_t depth_bits = (uint32_t)below(run, 6);
    workload->depth_max = 1u << depth_bits;
    workload->think_ns_max = think_ns[below(run, 4)];
    workload->set_percent = 30 + (uint32_t)below(run, 40);
    workload->delete_percent = (uint32_t)below(run, 20);
    workload->large_percent = happens(run, 30) ? 1 + (uint32_t)below(run, 20) : 0;
    workload->small_size_max = happens(run, 50) ? 200 : 4000;
    workload->zstd_percent = happens(run, 30) ? 20 : 0;
    workload->typed_percent = (uint32_t)below(run, 101);
    workload->hang_up_ppm = happens(run, 30) ? 2000 : 0;
    keys_create(&workload->keys, &run->prng, key_counts[below(run, 5)]);
}

void plan_make(struct run *run)
{
    struct plan *plan = &run->plan;
    choose_target(run);
    choose_workload(run);
    plan->trouble = choose_trouble(run);
    plan->rounds = 1 + (uint32_t)below(run, 4);
    plan->client_count = 1 + (uint32_t)below(run, RUN_CLIENTS_MAX);
    plan->requests_max = 20 + below(run, 600);
    plan->clock_jump_ns_max = happens(run, 30) ? 20 * NS_PER_MS : 0;
    plan->start_crash_percent = happens(run, 50) ? 50 : 0;
    choose_moves(run);
    choose_shards(run);
    if (plan->trouble == TROUBLE_ROT)
        plan->rounds = 1;
    if (plan->trouble == TROUBLE_READ_ERRORS || plan->trouble == TROUBLE_ROT)
        run->workload.typed_percent = 100;
}

static void apply_to_disk(struct run *run)
{
    struct sim_disk_options *disk = sim_disk_options(run->target.disk);
    static const uint64_t latencies_ns[] = {20 * NS_PER_US, 300 * NS_PER_US, 3 * NS_PER_MS};
    disk->latency_ns_max = latencies_ns[below(run, 3)];
    disk->stall_ppm = happens(run, 50) ? 1000 : 0;
    disk->stall_ns_max = 50 * NS_PER_MS;
    /* Batches that are written, and those behind them, when the process dies; and the device's
     * worst. */
    run->plan.loss_ns = 20 * NS_PER_MS + 20 * disk->latency_ns_max + 8 * disk->stall_ns_max;
}

void plan_apply(struct run *run)
{
    struct sim_network_options *network = sim_network_options(run->sim);
    sim_options(run->sim)->strict = happens(run, 75);
    sim_options(run->sim)->pause_ppm = happens(run, 30) ? 2000 : 0;
    network->split_ppm = (uint32_t)below(run, 300000);
    apply_to_disk(run);
    if (run->plan.trouble != TROUBLE_RESETS)
        return;
    network->reset_ppm = 300000;
    network->stall_ppm = 2000;
    run->workload.may_close = true;
}
