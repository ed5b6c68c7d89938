/* Notes when a request reached each stage, and logs requests that took at least the threshold. The
 * lines of a second are bounded, so that a slow disk does not fill the log. */
#include "net/watch/slowlog.h"

#include "base/assert.h"
#include "base/hash.h"
#include "base/pool.h"
#include "base/units.h"
#include "net/watch/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* When the log became durable up to where: the newest of these events. A request whose own is
 * forgotten by the time it is sent waited for its client, not for the log. */
#define DURABLE_EVENTS 64u

struct slowlog {
    const struct log *log;
    uint64_t threshold_ns;
    struct pool notes;
    uint64_t second_began_ns;
    uint64_t left_out;
    uint32_t lines; /* in this second */
    uint64_t durable_count;
    struct durable {
        uint64_t position, at_ns;
    } durable[DURABLE_EVENTS];
};

int slowlog_open(const struct log *log, uint64_t threshold_ns, struct slowlog **ret_slowlog)
{
    assert(threshold_ns > 0);
    struct slowlog *slowlog = calloc(1, sizeof *slowlog);
    if (slowlog == NULL)
        return -ENOMEM;
    slowlog->log = log;
    slowlog->threshold_ns = threshold_ns;
    int error = pool_init(&slowlog->notes, sizeof(struct slow_request), SLOWLOG_NOTES);
    if (error < 0) {
        free(slowlog);
        return error;
    }
    *ret_slowlog = slowlog;
    return 0;
}

void slowlog_set_threshold(struct slowlog *slowlog, uint64_t threshold_ns)
{
    assert(threshold_ns > 0);
    slowlog->threshold_ns = threshold_ns;
}

void slowlog_close(struct slowlog *slowlog)
{
    if (slowlog == NULL)
        return;
    pool_deinit(&slowlog->notes);
    free(slowlog);
}

uint64_t slowlog_key_hash(struct slice key)
{
    return hash_key(key.data, key.size);
}

struct slow_request *slowlog_take(struct slowlog *slowlog)
{
    struct slow_request *note = pool_get(&slowlog->notes);
    if (note != NULL)
        memset(note, 0, sizeof *note);
    return note;
}

void slowlog_put(struct slowlog *slowlog, struct slow_request *note)
{
    pool_put(&slowlog->notes, note);
}

void slowlog_durable(struct slowlog *slowlog, uint64_t position, uint64_t now_ns)
{
    struct durable *next = &slowlog->durable[slowlog->durable_count++ % DURABLE_EVENTS];
    *next = (struct durable){position, now_ns};
}

/* When what the answer shows became durable, as far as is known: between the answer and the send.
 */
static uint64_t durable_since(const struct slowlog *slowlog, const struct slow_request *note,
                              uint64_t sent_ns)
{
    uint64_t since_ns = sent_ns;
    if (note->gate == 0)
        return note->answered_ns;
    uint64_t count = min_u64(slowlog->durable_count, DURABLE_EVENTS);
    for (uint64_t i = 1; i <= count; i++) {
        const struct durable *event =
            &slowlog->durable[(slowlog->durable_count - i) % DURABLE_EVENTS];
        if (event->position < note->gate)
            break;
        since_ns = min_u64(since_ns, event->at_ns);
    }
    return max_u64(since_ns, note->answered_ns);
}

static double ms(uint64_t end_ns, uint64_t begin_ns)
{
    return end_ns > begin_ns ? (double)(end_ns - begin_ns) / (double)NS_PER_MS : 0;
}

static void write_line(const struct slowlog *slowlog, const struct slow_request *note,
                       uint64_t sent_ns)
{
    uint64_t durable_ns = durable_since(slowlog, note, sent_ns);
    log_warn(slowlog->log,
             "slow %s of key hash %016" PRIx64 ": %s, %" PRIu64 " bytes, connection %" PRIu64
             ", %.1f ms: waited %.1f, answered after %.1f, durable after %.1f, sent after %.1f",
             metrics_operation_name(note->operation), note->key_hash,
             metrics_outcome_name(metrics_outcome(note->status)), note->size, note->client,
             ms(sent_ns, note->arrived_ns), ms(note->taken_ns, note->arrived_ns),
             ms(note->answered_ns, note->taken_ns), ms(durable_ns, note->answered_ns),
             ms(sent_ns, durable_ns));
}

void slowlog_tick(struct slowlog *slowlog, uint64_t now_ns)
{
    if (now_ns - slowlog->second_began_ns < NS_PER_S)
        return;
    if (slowlog->left_out > 0)
        log_warn(slowlog->log, "slow requests: %" PRIu64 " more, not listed", slowlog->left_out);
    slowlog->second_began_ns = now_ns;
    slowlog->left_out = 0;
    slowlog->lines = 0;
}

bool slowlog_report(struct slowlog *slowlog, const struct slow_request *note, uint64_t sent_ns)
{
    if (note->answered_ns == 0 || sent_ns - note->arrived_ns < slowlog->threshold_ns)
        return false;
    slowlog_tick(slowlog, sent_ns);
    if (slowlog->lines < SLOWLOG_LINES_MAX) {
        slowlog->lines++;
        write_line(slowlog, note, sent_ns);
    } else {
        slowlog->left_out++;
    }
    return true;
}
