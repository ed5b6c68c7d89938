/* cgroups(7): /proc/self/cgroup has a line "ID:CONTROLLERS:PATH" for each hierarchy; version 2's is
 * "0::PATH". A limit holds for all below the group, so all on the way up count. */
#include "node/cgroup.h"

#include "base/units.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_SIZE 4096u
#define TEXT_SIZE 4096u

/* A small file as a text. Returns false: there is none. */
static bool read_text(char *ret_text, const char *directory, const char *name)
{
    char path[2 * PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = file >= 0 ? read(file, ret_text, TEXT_SIZE - 1) : -1;
    if (file >= 0)
        (void)close(file);
    ret_text[size > 0 ? size : 0] = '\0';
    return size > 0;
}

/* In CPUs, rounded up; 0: no limit, which is "max" or -1. */
static uint32_t cpus_of(const char *quota_text, const char *period_text)
{
    long long quota = strtoll(quota_text, NULL, 10), period = strtoll(period_text, NULL, 10);
    if (quota <= 0 || period <= 0)
        return 0;
    return (uint32_t)min_u64(((uint64_t)quota + (uint64_t)period - 1) / (uint64_t)period,
                             UINT32_MAX);
}

static uint64_t quota_of(const char *directory, bool is_v2)
{
    char quota[TEXT_SIZE], period[TEXT_SIZE];
    if (!is_v2)
        return read_text(quota, directory, "cpu.cfs_quota_us") &&
                       read_text(period, directory, "cpu.cfs_period_us")
                   ? cpus_of(quota, period)
                   : 0;
    if (!read_text(quota, directory, "cpu.max"))
        return 0;
    const char *space = strchr(quota, ' ');
    return space != NULL ? cpus_of(quota, space) : 0;
}

/* In bytes; 0: no limit, which is "max" or the greatest number of whole pages. */
static uint64_t memory_of(const char *directory, bool is_v2)
{
    char limit[TEXT_SIZE];
    if (!read_text(limit, directory, is_v2 ? "memory.max" : "memory.limit_in_bytes"))
        return 0;
    long long bytes = strtoll(limit, NULL, 10);
    return bytes > 0 && bytes < LLONG_MAX / 2 ? (uint64_t)bytes : 0;
}

/* What is limited: the controller's name, and how a group's files tell the limit. */
struct resource {
    const char *controller;
    uint64_t (*limit_of)(const char *directory, bool is_v2);
};

/* From the group at `path` below the hierarchy's mount up to its root. A path that is not visible
 * here is one of the host's: then the mount shows the container's own group as its root. */
static uint64_t smallest_limit(const struct resource *resource, const char *mount, char *path,
                               bool is_v2)
{
    char directory[2 * PATH_SIZE];
    uint64_t smallest = 0;
    for (;;) {
        (void)snprintf(directory, sizeof directory, "%s%s", mount, path);
        uint64_t limit = resource->limit_of(directory, is_v2);
        if (limit != 0 && (smallest == 0 || limit < smallest))
            smallest = limit;
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return smallest;
        *slash = '\0';
    }
}

/* Whether the name is one of those between commas. */
static bool has_controller(const char *controllers, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = controllers; (at = strstr(at, name)) != NULL; at += size)
        if ((at == controllers || at[-1] == ',') && (at[size] == ',' || at[size] == '\0'))
            return true;
    return false;
}

static uint64_t find_limit(const struct resource *resource, const char *root)
{
    char text[TEXT_SIZE], mount[PATH_SIZE], *rest = text;
    (void)snprintf(mount, sizeof mount, "%s/proc/self", root);
    if (!read_text(text, mount, "cgroup"))
        return 0;
    uint64_t smallest = 0;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        char *controllers = strchr(line, ':');
        char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *controllers++ = '\0';
        *path++ = '\0';
        bool is_v2 = strcmp(line, "0") == 0 && *controllers == '\0';
        if (!is_v2 && !has_controller(controllers, resource->controller))
            continue;
        (void)snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s%s", root, is_v2 ? "" : "/",
                       is_v2 ? "" : resource->controller);
        uint64_t limit = smallest_limit(resource, mount, path, is_v2);
        if (limit != 0 && (smallest == 0 || limit < smallest))
            smallest = limit;
    }
    return smallest;
}

uint32_t cgroup_cpus(const char *root)
{
    return (uint32_t)find_limit(&(struct resource){"cpu", quota_of}, root);
}

uint64_t cgroup_memory(const char *root)
{
    return find_limit(&(struct resource){"memory", memory_of}, root);
}
