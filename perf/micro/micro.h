/* micro: what the pieces of the hot path cost, in this process, on one core.
 *
 * A case is measured in rounds. The rounds of all cases are interleaved, so that whatever disturbs
 * the machine disturbs them alike; time is CPU time of the thread; medians are compared. A case
 * whose name ends in " (bound)" is what the hardware asks for at least; the case named before it is
 * divided by it. */
#ifndef PERF_MICRO_H
#define PERF_MICRO_H

#include "../common/clock.h"
#include "base/prng.h"

#include <stdbool.h>
#include <stddef.h>

struct micro_options {
    uint64_t keys;       /* of the cache */
    uint64_t index_keys; /* of the index */
    uint64_t value_size;
};

/* Something else that a case knows, beside its time. */
struct micro_figure {
    const char *name;
    double value;
};
#define MICRO_FIGURES_MAX 4

struct micro_case {
    const char *name;
    const char *bound; /* the case that this one is compared with, or NULL */
    double ratio_max;  /* what the comparison should show at most */
    /* One round. Returns nanoseconds for one operation. */
    double (*round)(void *state);
};

struct micro_group {
    const struct micro_case *cases;
    size_t case_count;
    /* The state that all cases of the group share; NULL: no memory. */
    void *(*open)(const struct micro_options *options);
    void (*close)(void *state);
    /* Figures after the last round, at most MICRO_FIGURES_MAX. May be NULL. */
    size_t (*figures)(void *state, struct micro_figure *ret_figures);
};

extern const struct micro_group micro_cache;
extern const struct micro_group micro_index;
extern const struct micro_group micro_absent;
extern const struct micro_group micro_bytes;
extern const struct micro_group micro_squeeze;

/* Keeps the compiler from leaving out what nobody looks at. */
static inline void micro_keep(const void *pointer)
{
    __asm__ volatile("" : : "r"(pointer) : "memory");
}

#endif
