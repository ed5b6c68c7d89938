/* The pace's arithmetic: samples of how fast the log is emptied, from them the rate of the tokens,
 * and the tokens. pace.h tells what they are for.
 *
 * Invariants:
 * 1. While it is on there is a rate, and the log's greatest length is known.
 * 2. Tokens never gather beyond a burst.
 * 3. The part of the way that the log has come is 0 or more, as the pace is on only beyond its
 *    begin. */
#include "store/mover/pace.h"

#include "base/assert.h"
#include "base/units.h"

/* Time over which the rate of emptying is averaged: several jobs of the mover, and the compactions
 * between them. */
#define AVERAGE_NS NS_PER_S

/* What may gather while nobody comes: a few passes. */
#define BURST_NS (10 * NS_PER_MS)

/* How often those that wait are looked after. */
#define WAKE_NS (NS_PER_MS / 2)

/* What is left of the log's growth where the pace begins, and where the log ends, as parts of the
 * rate with which it is emptied: halves. */
#define HALVES_FIRST 3u
#define HALVES_LAST 1u

void pace_init(struct pace *pace, struct io *io)
{
    *pace = (struct pace){.io = io, .step_ns = io_now_ns(io), .emptied_ns = io_now_ns(io)};
}

/* One sample for each time that a segment has been emptied. */
static void note_length(struct pace *pace, const struct pace_log *log, uint64_t now_ns)
{
    uint64_t length = pace->length;
    pace->length = log->length;
    bool is_idle = log->length <= log->keep || log->max == UINT64_MAX;
    if (log->length < length && !is_idle && now_ns > pace->emptied_ns) {
        uint64_t lasted_ns = now_ns - pace->emptied_ns;
        double rate = (double)(length - log->length) * (double)NS_PER_S / (double)lasted_ns;
        double weight = (double)lasted_ns / (double)(lasted_ns + AVERAGE_NS);
        double before = pace->emptied_rate > 0 ? (double)pace->emptied_rate : rate;
        pace->emptied_rate = (uint64_t)(before + (rate - before) * weight) + 1;
    }
    if (log->length < length || is_idle)
        pace->emptied_ns = now_ns;
}

static void judge(struct pace *pace, const struct pace_log *log)
{
    bool was_on = pace->is_on;
    uint64_t begin = log->keep + (log->max - log->keep) / 4;
    pace->is_on = log->max != UINT64_MAX && log->length > begin && pace->emptied_rate > 0;
    if (!pace->is_on)
        return;
    if (!was_on)
        pace->tokens = 0;
    assert(log->max > begin);    /* invariant 1 */
    assert(log->length > begin); /* invariant 3 */
    double way = (double)(log->length - begin) / (double)(log->max - begin);
    double halves = HALVES_FIRST - (HALVES_FIRST - HALVES_LAST) * (way < 1 ? way : 1);
    assert(halves >= HALVES_LAST); /* invariant 3 */
    pace->rate = (uint64_t)((double)pace->emptied_rate * halves / 2) + 1;
}

bool pace_step(struct pace *pace, const struct pace_log *log)
{
    uint64_t now_ns = io_now_ns(pace->io);
    assert(log->max > log->keep);
    assert(now_ns >= pace->step_ns);
    uint64_t passed_ns = min_u64(now_ns - pace->step_ns, NS_PER_S);
    pace->step_ns = now_ns;
    note_length(pace, log, now_ns);
    bool was_empty = pace->is_on && pace->tokens <= 0;
    judge(pace, log);
    if (!pace->is_on)
        return was_empty;
    assert(pace->rate > 0); /* invariant 1 */
    int64_t burst = (int64_t)(pace->rate * BURST_NS / NS_PER_S) + 1;
    pace->tokens += (int64_t)((double)pace->rate * (double)passed_ns / (double)NS_PER_S);
    if (pace->tokens > burst)
        pace->tokens = burst; /* invariant 2 */
    return was_empty && pace->tokens > 0;
}

bool pace_admits(struct pace *pace)
{
    if (!pace->is_on || pace->tokens > 0)
        return true;
    if (!io_op_is_active(&pace->timer)) /* the pass that follows it steps */
        io_timer(pace->io, &pace->timer, io_now_ns(pace->io) + WAKE_NS);
    return false;
}

void pace_stop(struct pace *pace)
{
    if (io_op_is_active(&pace->timer))
        io_cancel(pace->io, &pace->timer);
}
