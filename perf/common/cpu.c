/* Counts the processors that the process may use, and pins threads to them. */
#include "cpu.h"

#include <errno.h>
#include <sched.h>

static uint32_t allowed_get(cpu_set_t *ret_allowed)
{
    if (sched_getaffinity(0, sizeof *ret_allowed, ret_allowed) < 0)
        CPU_ZERO(ret_allowed);
    return (uint32_t)CPU_COUNT(ret_allowed);
}

uint32_t cpu_count(void)
{
    cpu_set_t allowed;
    uint32_t count = allowed_get(&allowed);
    return count == 0 ? 1 : count;
}

int cpu_pin(uint32_t index)
{
    cpu_set_t allowed;
    uint32_t count = allowed_get(&allowed);
    uint32_t rest = count == 0 ? 0 : index % count;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || rest-- > 0)
            continue;
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET(cpu, &only);
        return sched_setaffinity(0, sizeof only, &only) < 0 ? -errno : 0;
    }
    return -ENODEV;
}
