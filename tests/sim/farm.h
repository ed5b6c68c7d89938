/* Many seeds, on all cores: a process for each job, so that a seed that kills its process is found,
 * too. */
#ifndef TESTS_SIM_FARM_H
#define TESTS_SIM_FARM_H

#include <stdbool.h>
#include <stdint.h>

/* Runs new seeds for `seconds`; stops at the first that fails and says how to replay it. `first`:
 * where the seeds begin; 0: anywhere. Returns the exit code. */
int farm_run(uint64_t seconds, uint32_t jobs, uint64_t first);

/* Runs one seed in a process of its own. Returns whether it passed. */
bool farm_try(uint64_t seed);

#endif
