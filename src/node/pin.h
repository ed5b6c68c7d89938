/* Which CPU each shard's thread runs on. */
#ifndef MINIVAULT_NODE_PIN_H
#define MINIVAULT_NODE_PIN_H

#include <stdbool.h>
#include <stdint.h>

#define PIN_SHARDS_MAX 256u
#define PIN_CPUS_MAX 1024u

struct pins {
    bool is_on;
    uint16_t cpus[PIN_SHARDS_MAX]; /* by shard */
};

/* How many CPUs this process may run on. */
uint32_t pin_cpu_count(void);

/* Checks the text of -pin: "auto", "off", or a list of CPUs ("0-3,8") in the order of the shards.
 * Errors: -EINVAL. */
int pin_check(const char *text);

/* What it means for so many shards. "auto" pins when each can have a CPU of its own, a list is used
 * again from its begin when it is shorter. Errors: -EINVAL; -ENXIO: a CPU of the list is none that
 * this process may run on. */
int pin_resolve(const char *text, uint32_t shard_count, struct pins *ret_pins);

/* Pins the calling thread. Errors: those of sched_setaffinity(2). */
int pin_thread(uint32_t cpu);

#endif
