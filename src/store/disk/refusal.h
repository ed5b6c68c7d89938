/* Why writes are refused, in the operator's words: an errno alone does not say what to do. */
#ifndef MINIVAULT_STORE_REFUSAL_H
#define MINIVAULT_STORE_REFUSAL_H

#include "base/log.h"
#include "io/io.h"

/* All zero but for the first three, which are the owner's. */
struct refusals {
    struct io *io;
    const struct log *log;
    const char *path; /* the data directory */
    struct log_limit limit;
};

/* What the error of a write below `path` means, and what to do about it. */
const char *refusal_meaning(struct io *io, const char *path, int error);

/* Whether a write that failed with `error` may go well later: space, quota, memory, descriptors or
 * the limit of file sizes are short, and the device is well. */
bool refusal_may_pass(int error);

/* A write was refused: a line in the log, once a second at most, with how many it stands for.
 * `what`: what was refused, as in "a set". */
void refusals_tell(struct refusals *refusals, const char *what, int error);

#endif
