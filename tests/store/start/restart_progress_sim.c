/* A start that takes long says how far it is, a line a second at most; a quick one says nothing. */
#include "tests/support/scrub_bench.h"

struct progress {
    uint32_t log_lines;
    uint32_t segment_lines;
};

static void count_line(void *context, const char *line, uint32_t size)
{
    struct progress *progress = context;
    (void)size;
    progress->log_lines += strstr(line, "of the log are read") != NULL;
    progress->segment_lines += strstr(line, "segments are read") != NULL;
}

/* Returns how long it took. */
static uint64_t restart(struct bench *bench, struct progress *ret_progress)
{
    bench_shut(bench);
    *ret_progress = (struct progress){0};
    bench->log = (struct log){.level_min = LOG_INFO, .write = count_line, .context = ret_progress};
    uint64_t begun_ns = sim_now_ns(bench->sim);
    bench_start(bench);
    return (sim_now_ns(bench->sim) - begun_ns) / NS_PER_S;
}

Test(restart, slow_one_tells_how_far_it_is, .timeout = 60)
{
    struct progress progress;
    struct bench *bench = bench_open(61, SCRUB_OFF);
    fill(bench);
    cr_assert_leq(restart(bench, &progress), 1);
    cr_assert_eq(progress.log_lines + progress.segment_lines, 0, "a quick one says nothing");
    sim_disk_options(bench->disk)->stall_ppm = 1000000;
    sim_disk_options(bench->disk)->stall_ns_max = 4 * NS_PER_S;
    uint64_t seconds = restart(bench, &progress);
    sim_disk_options(bench->disk)->stall_ppm = 0;
    cr_assert_geq(progress.log_lines, 1);
    cr_assert_geq(progress.segment_lines, 1);
    cr_assert_leq(progress.log_lines + progress.segment_lines, seconds);
    bench_close(bench);
}
