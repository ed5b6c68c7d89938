/* How much CPU time and memory the control groups of this process allow: what a container was given.
 */
#ifndef MINIVAULT_NODE_CGROUP_H
#define MINIVAULT_NODE_CGROUP_H

#include <stdint.h>

/* The smallest quota of the process's group and of those above it, in whole CPUs, rounded up; 0:
 * there is none. Version 2 (cpu.max) and version 1 (cpu.cfs_quota_us), where the process sees them:
 * in a container its own group may be the root. `root`: where proc and sys are, "" but for tests. */
uint32_t cgroup_cpus(const char *root);

/* The same of memory, in bytes: memory.max, memory.limit_in_bytes. */
uint64_t cgroup_memory(const char *root);

#endif
