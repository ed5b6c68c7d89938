/* The price of a read, and waiting until it is paid. */
#include "store/scrub/scrub_rate.h"

#include "base/assert.h"

/* How often the size of what is on the disk is asked for. */
#define DISK_ASK_NS (60 * NS_PER_S)

static uint64_t rate_of(const struct scrub_rate *rate)
{
    uint64_t wanted = max_u64(SCRUB_RATE_MIN, rate->disk_used / (SCRUB_PASS_NS / NS_PER_S));
    return wanted / max_u64(rate->options->shard_count, 1);
}

/* Value files are in no account of ours: the whole file system's bytes are at least as many. */
static uint64_t rate_of_disk(struct scrub_rate *rate)
{
    uint64_t now_ns = io_now_ns(rate->io);
    uint64_t free_size, total_size;
    if (rate->disk_asked_ns != 0 && now_ns - rate->disk_asked_ns < DISK_ASK_NS)
        return rate_of(rate);
    rate->disk_asked_ns = max_u64(now_ns, 1);
    if (io_disk_space(rate->io, rate->options->path, &free_size, &total_size) == 0)
        rate->disk_used = total_size > free_size ? total_size - free_size : 0;
    return rate_of(rate);
}

static uint64_t price_ns(struct scrub_rate *rate, uint64_t size)
{
    static_assert(SCRUB_WINDOW_SIZE * NS_PER_S < UINT64_MAX / 1024, "a price does not overflow");
    assert(size <= SCRUB_WINDOW_SIZE);
    rate->rate = rate->options->rate == SCRUB_AUTO ? rate_of_disk(rate) : rate->options->rate;
    assert(rate->rate > 0);
    return size * NS_PER_S / rate->rate;
}

static void woken(struct io_op *op, int32_t result)
{
    (void)op;
    (void)result;
}

void scrub_rate_init(struct scrub_rate *rate, struct io *io, const struct scrub_options *options)
{
    assert(options->rate != SCRUB_OFF);
    *rate = (struct scrub_rate){.io = io, .options = options};
    (void)price_ns(rate, 0);
}

void scrub_rate_sleep(struct scrub_rate *rate, uint64_t deadline_ns)
{
    assert(!scrub_rate_is_asleep(rate));
    rate->timer.done = woken;
    io_timer(rate->io, &rate->timer, deadline_ns);
}

void scrub_rate_wake(struct scrub_rate *rate)
{
    io_cancel(rate->io, &rate->timer);
}

bool scrub_rate_is_asleep(const struct scrub_rate *rate)
{
    return io_op_is_active(&rate->timer);
}

/* Small reads go on until a window's worth is owed, so that a server that is idle otherwise is not
 * woken for each of them. */
bool scrub_rate_may_read(struct scrub_rate *rate)
{
    if (rate->paid_ns < io_now_ns(rate->io) + price_ns(rate, SCRUB_WINDOW_SIZE))
        return true;
    scrub_rate_sleep(rate, rate->paid_ns);
    return false;
}

void scrub_rate_pay(struct scrub_rate *rate, uint64_t size)
{
    uint64_t from_ns = max_u64(rate->paid_ns, io_now_ns(rate->io));
    rate->paid_ns = from_ns + price_ns(rate, max_u64(size, DISK_BLOCK_SIZE));
    assert(rate->paid_ns > from_ns);
}

void scrub_rate_count(struct scrub_rate *rate, uint64_t size)
{
    rate->bytes += size;
}

void scrub_rate_stats(const struct scrub_rate *rate, struct scrub_stats *stats)
{
    stats->rate = rate->rate;
    stats->bytes = rate->bytes;
}
