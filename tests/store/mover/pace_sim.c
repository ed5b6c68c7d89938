/* Sets beside a mover that cannot keep up: nobody waits for long, and the log stays within bounds.
 */
#include "store/mover/pace.h"
#include "tests/support/support.h"

#define SEGMENT (32 * MIB)
#define RECORD 1104u

struct model {
    struct world *world;
    struct io *io;
    struct pace pace;
    struct pace_log log;
    uint64_t open;       /* bytes in the segment that is being filled */
    uint64_t taken;      /* bytes of sets in all */
    uint64_t refused_ns; /* since then sets wait; 0: they do not */
    uint64_t longest_ns;
};

static struct model *model_new(void)
{
    struct model *model = calloc(1, sizeof *model);
    model->world = world_open(NULL);
    model->io = world_io(model->world);
    model->log = (struct pace_log){.keep = 4 * SEGMENT, .max = 12 * SEGMENT};
    pace_init(&model->pace, model->io);
    return model;
}

static void model_free(struct model *model)
{
    pace_stop(&model->pace);
    while (pace_is_busy(&model->pace))
        cr_assert_geq(io_run(model->io, UINT64_MAX), 0);
    world_close(model->world);
    free(model);
}

static void to_next_pass(struct model *model)
{
    struct probe timer;
    probe_init(&timer);
    io_timer(model->io, &timer.op, io_now_ns(model->io) + NS_PER_MS);
    while (timer.count == 0)
        cr_assert_geq(io_run(model->io, UINT64_MAX), 0);
    (void)pace_step(&model->pace, &model->log);
}

/* One pass: as many sets as are taken, at most `most` bytes. */
static void offer(struct model *model, uint64_t most)
{
    uint64_t now_ns = io_now_ns(model->io);
    for (uint64_t bytes = 0; bytes < most; bytes += RECORD) {
        if (!pace_admits(&model->pace)) {
            model->refused_ns = model->refused_ns != 0 ? model->refused_ns : now_ns;
            return;
        }
        if (model->refused_ns != 0)
            model->longest_ns = max_u64(model->longest_ns, now_ns - model->refused_ns);
        model->refused_ns = 0;
        pace_took(&model->pace, RECORD);
        model->taken += RECORD;
        model->open += RECORD;
        if (model->open >= SEGMENT) {
            model->open -= SEGMENT;
            model->log.length += SEGMENT;
        }
    }
}

/* A segment of the log is emptied in `job_ms`; after three of them comes as much other work. */
static void run(struct model *model, uint32_t seconds, uint32_t job_ms)
{
    for (uint32_t ms = 0; ms < seconds * 1000; ms++) {
        to_next_pass(model);
        offer(model, MIB); /* a GB a second */
        bool is_log = ms / job_ms % 6 < 3;
        if (is_log && ms % job_ms == 0 && model->log.length > model->log.keep)
            model->log.length -= SEGMENT;
    }
}

Test(pace, log_stays_within_its_length_and_nobody_waits_for_long, .timeout = 60)
{
    static const uint32_t job_ms[] = {40, 80, 160, 320};
    for (uint32_t i = 0; i < 4; i++) {
        struct model *model = model_new();
        run(model, 4, job_ms[i]); /* until the rate is known */
        model->taken = model->longest_ns = 0;
        run(model, 40, job_ms[i]);
        double emptied = 40.0 * 1000 / job_ms[i] / 2 * SEGMENT;
        cr_expect_leq(model->log.length, model->log.max + SEGMENT);
        cr_expect_gt(model->log.length, model->log.keep);
        cr_expect_leq(model->longest_ns, 10 * NS_PER_MS, "%u ms: %f ms", job_ms[i],
                      (double)model->longest_ns / 1e6);
        cr_expect_gt((double)model->taken, 0.8 * emptied, "%u ms", job_ms[i]);
        cr_expect_lt((double)model->taken, 1.3 * emptied, "%u ms", job_ms[i]);
        model_free(model);
    }
}

Test(pace, nobody_waits_while_the_log_is_short, .timeout = 60)
{
    struct model *model = model_new();
    run(model, 2, 10);
    cr_expect_eq(model->longest_ns, 0);
    cr_expect_eq(model->refused_ns, 0);
    cr_expect_lt(model->log.length, model->log.keep + 4 * SEGMENT);
    model_free(model);
}

Test(pace, nobody_waits_for_a_mover_that_does_not_move, .timeout = 60)
{
    struct model *model = model_new();
    run(model, 4, 160);
    while (pace_admits(&model->pace))
        pace_took(&model->pace, RECORD);
    model->log.max = UINT64_MAX;
    cr_assert(pace_step(&model->pace, &model->log), "those that wait are told");
    cr_assert(pace_admits(&model->pace));
    model_free(model);
}

Test(pace, who_waits_is_woken, .timeout = 60)
{
    struct model *model = model_new();
    run(model, 4, 160);
    while (pace_admits(&model->pace))
        pace_took(&model->pace, RECORD);
    cr_assert(pace_is_busy(&model->pace));
    uint64_t began_ns = io_now_ns(model->io);
    do
        cr_assert_geq(io_run(model->io, UINT64_MAX), 0, "there is something to wait for");
    while (!pace_step(&model->pace, &model->log));
    cr_assert_leq(io_now_ns(model->io) - began_ns, 2 * NS_PER_MS);
    cr_assert(pace_admits(&model->pace));
    model_free(model);
}
