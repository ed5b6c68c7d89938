/* Which CPUs there are, and in which order shards take them. */
#include "node/pin.h"

#include "base/assert.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

static_assert(PIN_CPUS_MAX <= CPU_SETSIZE, "cpu_set_t has them all");

static void read_allowed(cpu_set_t *ret_set)
{
    CPU_ZERO(ret_set);
    if (sched_getaffinity(0, sizeof *ret_set, ret_set) < 0)
        CPU_SET(0, ret_set);
}

uint32_t pin_cpu_count(void)
{
    cpu_set_t allowed;
    read_allowed(&allowed);
    return (uint32_t)CPU_COUNT(&allowed);
}

static const char *read_cpu(const char *text, uint32_t *ret_cpu)
{
    char *end;
    if (*text < '0' || *text > '9')
        return NULL;
    unsigned long number = strtoul(text, &end, 10);
    if (number >= PIN_CPUS_MAX)
        return NULL;
    *ret_cpu = (uint32_t)number;
    return end;
}

/* One "3" or "0-3". Returns what follows, or NULL. */
static const char *read_range(const char *text, uint32_t *ret_first, uint32_t *ret_last)
{
    text = read_cpu(text, ret_first);
    *ret_last = *ret_first;
    if (text != NULL && *text == '-')
        text = read_cpu(text + 1, ret_last);
    return text != NULL && *ret_first <= *ret_last ? text : NULL;
}

/* Calls for the CPUs in order; at most PIN_SHARDS_MAX are kept. Returns how many. */
static int read_list(const char *text, uint16_t *ret_cpus)
{
    int count = 0;
    for (;;) {
        uint32_t first = 0, last = 0;
        text = read_range(text, &first, &last);
        if (text == NULL || (*text != ',' && *text != '\0'))
            return -EINVAL;
        for (uint32_t cpu = first; cpu <= last && count < (int)PIN_SHARDS_MAX; cpu++)
            ret_cpus[count++] = (uint16_t)cpu;
        if (*text == '\0')
            return count;
        text++;
    }
}

int pin_check(const char *text)
{
    uint16_t cpus[PIN_SHARDS_MAX];
    if (strcmp(text, "auto") == 0 || strcmp(text, "off") == 0)
        return 0;
    return read_list(text, cpus) < 0 ? -EINVAL : 0;
}

static int list_allowed(const cpu_set_t *allowed, uint16_t *ret_cpus)
{
    int count = 0;
    for (uint32_t cpu = 0; cpu < PIN_CPUS_MAX && count < (int)PIN_SHARDS_MAX; cpu++)
        if (CPU_ISSET(cpu, allowed))
            ret_cpus[count++] = (uint16_t)cpu;
    return count;
}

int pin_resolve(const char *text, uint32_t shard_count, struct pins *ret_pins)
{
    cpu_set_t allowed;
    uint16_t cpus[PIN_SHARDS_MAX];
    *ret_pins = (struct pins){.is_on = false};
    read_allowed(&allowed);
    bool is_auto = strcmp(text, "auto") == 0;
    if (strcmp(text, "off") == 0 || (is_auto && shard_count > (uint32_t)CPU_COUNT(&allowed)))
        return 0;
    int count = is_auto ? list_allowed(&allowed, cpus) : read_list(text, cpus);
    if (count <= 0)
        return -EINVAL;
    ret_pins->is_on = true;
    for (uint32_t i = 0; i < shard_count; i++) {
        ret_pins->cpus[i] = cpus[i % (uint32_t)count];
        if (!CPU_ISSET(ret_pins->cpus[i], &allowed))
            return -ENXIO;
    }
    return 0;
}

int pin_thread(uint32_t cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) < 0 ? -errno : 0;
}
