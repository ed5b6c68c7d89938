/* Threads on processors of their own: the n-th thread on the n-th processor that the process may
 * use, so that `taskset` still decides which these are. */
#ifndef PERF_COMMON_CPU_H
#define PERF_COMMON_CPU_H

#include <stdint.h>

/* How many processors the calling thread may use; at least 1. */
uint32_t cpu_count(void);

/* Binds the calling thread to the processor of number `index`, modulo their count. To be called
 * before any other thread is bound from this one, since a new thread inherits the binding.
 *
 * Errors: -errno of sched_setaffinity. */
int cpu_pin(uint32_t index);

#endif
