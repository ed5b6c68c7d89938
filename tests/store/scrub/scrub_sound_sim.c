/* The scrubber over a sound disk: nothing is suspected, and the disk is read no faster than it
 * should be. */
#include "tests/support/scrub_bench.h"

/* ---- a sound disk ---- */

static void write_something(struct bench *bench)
{
    uint32_t number = (uint32_t)prng_below(&bench->prng, KEYS);
    uint32_t kind = (uint32_t)prng_below(&bench->prng, 100);
    if (kind == 0)
        set_large(bench, number % LARGE_KEYS);
    else if (kind < 10)
        delete_small(bench, number);
    else
        set_small(bench, number);
}

/* Also with a device that stalls, so that what the scrubber reads changes under its hands. */
Test(scrub, nothing_is_suspected_while_writes_and_the_mover_go_on, .timeout = 240)
{
    uint32_t compactions = 0;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct bench *bench = bench_open(seed, seed % 3 == 0 ? 4 * MIB : 100 * GIB);
        sim_disk_options(bench->disk)->stall_ppm = seed % 2 == 0 ? 20000 : 0;
        sim_disk_options(bench->disk)->stall_ns_max = 50 * NS_PER_MS;
        for (uint32_t i = 0; i < 25000; i++) {
            write_something(bench);
            bench->store->scrub->pass_next_ns = 0; /* no rest */
            pass(bench);
        }
        scrub_passes(bench, 1);
        struct store_stats stats;
        store_stats(bench->store, &stats);
        compactions += stats.mover.compacted_bytes > 0;
        cr_assert_gt(stats.mover.jobs, 3);
        cr_assert_gt(stats.scrub.passes, 2);
        cr_assert_gt(stats.scrub.bytes, 4 * MIB);
        cr_assert_eq(stats.findings.damaged + stats.findings.damaged_dead, 0);
        cr_assert_eq(bench->line_count, 0, "seed %" PRIu64 ": %s", seed, bench->lines[0]);
        bench_close(bench);
    }
    cr_assert_gt(compactions, 0);
}

/* Whatever it is doing when the process ends, one way or the other. */
Test(scrub, it_can_be_stopped_anywhere, .timeout = 120)
{
    struct bench *bench = bench_open(21, FAST);
    fill(bench);
    for (uint32_t i = 0; i < 60; i++) {
        if (i % 3 == 0) {
            sim_host_crash(bench->io, SIM_KILL);
            io_close(bench->io);
            store_free(bench->store);
        } else {
            bench_shut(bench);
        }
        bench_start(bench);
        for (uint64_t n = prng_below(&bench->prng, 500); n > 0; n--)
            pass(bench);
    }
    cr_assert_eq(findings_of(bench).damaged, 0);
    cr_assert_eq(bench->line_count, 0, "%s", bench->lines[0]);
    bench_close(bench);
}

/* What fails once and is there the next time is no damage; what fails is never read for ever. */
Test(scrub, a_device_that_refuses_some_reads_does_not_hold_it_up, .timeout = 120)
{
    for (uint64_t seed = 31; seed < 36; seed++) {
        struct bench *bench = bench_open(seed, FAST);
        fill(bench);
        sim_disk_options(bench->disk)->read_error_ppm = seed == 31 ? 1000000 : 100000;
        scrub_passes(bench, 3);
        sim_disk_options(bench->disk)->read_error_ppm = 0;
        cr_assert(seed != 31 || findings_of(bench).damaged > 0);
        bench_close(bench);
    }
}

/* ---- the rate ---- */

/* Returns how often an otherwise idle store was woken until then. */
static uint32_t idle_until(struct bench *bench, uint64_t until_ns)
{
    uint32_t passes = 0;
    for (; io_now_ns(bench->io) < until_ns; passes++) {
        bool more = store_flush(bench->store, STORE_PASS_BYTES);
        uint64_t now_ns = io_now_ns(bench->io);
        uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        cr_assert_geq(io_run(bench->io, more ? 0 : left_ns), 0);
    }
    return passes;
}

Test(scrub, the_rate_is_kept, .timeout = 120)
{
    static const uint64_t rates[] = {SCRUB_AUTO, 1 * MIB, 3 * MIB};
    for (uint32_t i = 0; i < 3; i++) {
        struct bench *bench = bench_open(41 + i, SCRUB_OFF);
        fill(bench);
        bench_shut(bench);
        bench->options.scrub_rate = rates[i];
        bench_start(bench);
        uint64_t rate = scrubbed(bench).rate;
        cr_assert_eq(rate, rates[i] == SCRUB_AUTO ? MIB : rates[i]);
        uint64_t began_ns = io_now_ns(bench->io);
        for (uint32_t second = 1; scrubbed(bench).passes == 0; second++) {
            cr_assert_lt(second, 60);
            (void)idle_until(bench, began_ns + second * NS_PER_S);
            uint64_t bytes = scrubbed(bench).bytes;
            cr_assert_leq(bytes, second * rate + 2 * MIB, "%" PRIu64 " bytes in %" PRIu32 " s",
                          bytes, second);
            if (scrubbed(bench).passes == 0)
                cr_assert_geq(bytes + MIB, second * rate * 9 / 10, "too slow");
        }
        cr_assert_gt(scrubbed(bench).bytes, 4 * MIB);
        bench_close(bench);
    }
}

/* A disk of 100 GB-days and more: seven days for a pass, whatever its size. */
Test(scrub, the_rate_grows_with_the_disk)
{
    struct bench *bench = bench_open(51, SCRUB_AUTO);
    struct scrub *scrub = bench->store->scrub;
    uint64_t size = 10000 * GIB;
    scrub->rate.disk_used = size;
    scrub_rate_pay(&scrub->rate, 4096);
    uint64_t rate = scrubbed(bench).rate;
    cr_assert_eq(rate, size / (SCRUB_PASS_NS / NS_PER_S));
    cr_assert_leq(size / rate, SCRUB_PASS_NS / NS_PER_S + 1);
    bench_close(bench);
}

Test(scrub, an_idle_store_sleeps)
{
    static const uint64_t rates[] = {SCRUB_AUTO, 1 * MIB};
    for (uint32_t i = 0; i < 2; i++) {
        struct bench *bench = bench_open(61 + i, SCRUB_OFF);
        fill(bench);
        bench_shut(bench);
        bench->options.scrub_rate = rates[i];
        bench_start(bench);
        (void)idle_until(bench, io_now_ns(bench->io) + 60 * NS_PER_S);
        uint64_t began_ns = io_now_ns(bench->io);
        uint64_t read = scrubbed(bench).bytes;
        uint32_t wakes = idle_until(bench, began_ns + 60 * NS_PER_S);
        if (rates[i] == SCRUB_AUTO) {
            /* One a second is the store's own look for work. */
            cr_assert_leq(wakes, 64, "an hour's rest, and %" PRIu32 " passes", wakes);
            cr_assert_eq(scrubbed(bench).bytes, read);
            cr_assert_geq(scrubbed(bench).pass_age_s, 60);
        } else {
            cr_assert_gt(scrubbed(bench).passes, 4);
        }
        bench_close(bench);
    }
}

Test(scrub, off_is_off)
{
    struct bench *bench = bench_open(71, SCRUB_OFF);
    fill(bench);
    struct scrub_stats stats = scrubbed(bench);
    cr_assert_eq(stats.rate, 0);
    cr_assert_eq(stats.bytes, 0);
    cr_assert_eq(stats.pass_age_s, 0);
    bench_close(bench);
}
