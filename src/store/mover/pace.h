/* How fast sets may come while the mover is behind: about as fast as the log is emptied, so that
 * each waits a little, instead of all of them for whole jobs once the log has its greatest length.
 *
 * A token bucket of bytes. Between a quarter of the way from what the log keeps to its greatest
 * length, where it begins, and that length, its rate falls from one and a half times to half of
 * what the log was emptied with lately; where the two meet the log stays. Sets spend tokens,
 * deletes do too but are never kept waiting. As RocksDB's delayed writes, but by what was measured.
 */
#ifndef MINIVAULT_STORE_PACE_H
#define MINIVAULT_STORE_PACE_H

#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

struct pace {
    struct io *io;
    struct io_op timer;    /* wakes the loop when there are tokens again */
    bool is_on;            /* tokens count */
    int64_t tokens;        /* bytes; below 0: the last set took more than there was */
    uint64_t rate;         /* of the tokens, bytes a second */
    uint64_t emptied_rate; /* bytes of log a second, lately; 0: not known */
    uint64_t emptied_ns;   /* end of the last sample of it */
    uint64_t length;       /* of the log at the last step */
    uint64_t step_ns;
};

/* How long the log is, in bytes of sealed log files. */
struct pace_log {
    uint64_t length;
    uint64_t keep;  /* so much stays there: moving begins beyond it */
    uint64_t max;   /* more than keep; UINT64_MAX: it is not moved, so that waiting is in vain */
    bool is_hollow; /* next to nothing is alive, and nobody writes */
    uint64_t spares_below; /* log files that come free stay as spares below this length of both */
};

void pace_init(struct pace *pace, struct io *io);

/* Once a pass. Returns whether sets may go on that had to wait. */
bool pace_step(struct pace *pace, const struct pace_log *log);

/* Whether a set may be taken now. If not, pace_step says when: the loop is woken for it. */
bool pace_admits(struct pace *pace);

/* So many bytes of records were taken. */
static inline void pace_took(struct pace *pace, uint64_t bytes)
{
    pace->tokens -= (int64_t)bytes;
}

/* Ends the timer, which may end later: pace_is_busy. */
void pace_stop(struct pace *pace);

static inline bool pace_is_busy(const struct pace *pace)
{
    return io_op_is_active(&pace->timer);
}

#endif
