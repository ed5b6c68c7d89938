/* libbpf, and only here: loading, maps, attaching. Everything after that is shared memory. */
#include "net/steer/steer.h"

#include "base/assert.h"
#include "build/bpf/steer.skel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

struct steer {
    struct steer_bpf *loaded;
    struct steer_state *state; /* the program's memory, mapped */
    const uint64_t *decisions; /* the map's, STEER_DECISION_COUNT of them */
};

#define DECISIONS_SIZE (STEER_DECISION_COUNT * sizeof(uint64_t))

/* ---- what libbpf says ---- */

static uint64_t wall_ms(void *context)
{
    (void)context;
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* libbpf gives its printer nothing to find a log by, and no state stands at file scope here: so
 * each message makes its own. The verifier's text comes as one message of many lines. */
static int print_debug(enum libbpf_print_level level, const char *format, va_list arguments)
{
    (void)level;
    struct log log;
    char *text = NULL;
    int size = vasprintf(&text, format, arguments);
    if (size < 0)
        return 0;
    log_init_stderr(&log, LOG_DEBUG);
    log.wall_ms = wall_ms;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        if (*line != '\0')
            log_debug(&log, "%s", line);
    free(text);
    return size;
}

/* ---- what is missing ---- */

static bool has_capability(unsigned number)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &header, sets) < 0)
        return false;
    return (sets[number / 32].effective >> number % 32 & 1) != 0;
}

/* Which of libbpf's calls a seccomp profile refuses, or NULL. Their arguments are wrong, so that a
 * call that gets through answers EINVAL. Some libbpf (1.5) holds the places of maps with a
 * memfd_create(2), which dup3(2) replaces; others (1.1) make neither call. */
static const char *refused_call(void)
{
    if (syscall(SYS_bpf, -1, NULL, 0) < 0 && errno == EPERM)
        return "bpf(2)";
    if (memfd_create("", UINT_MAX) < 0 && errno != EINVAL)
        return "memfd_create(2)";
    if (dup3(0, 0, 0) < 0 && errno != EINVAL)
        return "dup3(2)";
    return NULL;
}

static int explain(int error, char *ret_error)
{
    const char *call = refused_call();
    struct utsname kernel = {0};
    (void)uname(&kernel);
    if (error == -EPERM && !has_capability(CAP_BPF) && !has_capability(CAP_SYS_ADMIN))
        (void)snprintf(ret_error, STEER_ERROR_SIZE,
                       "CAP_BPF is missing: grant it with AmbientCapabilities=CAP_BPF in the unit, "
                       "setcap cap_bpf+ep on the program, or --cap-add BPF for a container");
    else if (error == -EPERM || (error == -ENOSYS && call != NULL)) {
        (void)snprintf(
            ret_error, STEER_ERROR_SIZE,
            "%s is refused although CAP_BPF is there: allow it in the container's seccomp profile, "
            "as images/seccomp.json does, and in the security module; in a user namespace (a "
            "rootless container) CAP_BPF does not count",
            call != NULL ? call : "bpf(2)");
        return -EACCES;
    } else if (error == -ENOSYS)
        (void)snprintf(ret_error, STEER_ERROR_SIZE,
                       "Linux %s here has no bpf(2): it needs CONFIG_BPF_SYSCALL", kernel.release);
    else
        (void)snprintf(ret_error, STEER_ERROR_SIZE,
                       "Linux %s does not take the program (%s): it needs 6.1 or later; -log-level "
                       "debug shows what the verifier says",
                       kernel.release, strerror(-error));
    return error;
}

/* ---- opening and closing ---- */

static int load(struct steer *steer)
{
    steer->loaded = steer_bpf__open();
    if (steer->loaded == NULL)
        return -errno;
    int error = steer_bpf__load(steer->loaded);
    if (error < 0)
        return error;
    steer->state = &steer->loaded->bss->state;
    int map = bpf_map__fd(steer->loaded->maps.decisions);
    void *mapped = mmap(NULL, DECISIONS_SIZE, PROT_READ, MAP_SHARED, map, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    steer->decisions = mapped;
    return 0;
}

int steer_open(uint32_t shard_count, enum log_level level_min, struct steer **ret_steer,
               char *ret_error)
{
    assert(shard_count >= 1);
    assert(shard_count <= STEER_SHARDS_MAX);
    (void)libbpf_set_print(level_min == LOG_DEBUG ? print_debug : NULL);
    struct steer *steer = calloc(1, sizeof *steer);
    int error = steer == NULL ? -ENOMEM : load(steer);
    if (error < 0) {
        steer_close(steer);
        return explain(error, ret_error);
    }
    steer->state->shard_count = shard_count;
    *ret_steer = steer;
    return 0;
}

void steer_close(struct steer *steer)
{
    if (steer == NULL)
        return;
    if (steer->decisions != NULL)
        (void)munmap((void *)steer->decisions, DECISIONS_SIZE);
    steer_bpf__destroy(steer->loaded);
    free(steer);
}

/* ---- the maps ---- */

void steer_set_home(struct steer *steer, uint32_t cpu, uint32_t shard)
{
    assert(shard < steer->state->shard_count);
    if (cpu < STEER_CPUS_MAX)
        __atomic_store_n(&steer->state->home_of_cpu[cpu], (uint16_t)(shard + 1), __ATOMIC_RELAXED);
}

int steer_add_listener(struct steer *steer, enum steer_group group, uint32_t shard, int descriptor)
{
    assert(group < STEER_GROUP_COUNT);
    assert(shard < steer->state->shard_count);
    uint32_t key = group * STEER_SHARDS_MAX + shard;
    uint64_t value = (uint64_t)descriptor;
    int map = bpf_map__fd(steer->loaded->maps.listeners);
    int error = bpf_map_update_elem(map, &key, &value, BPF_ANY);
    if (error < 0)
        return error;
    uint32_t absent = STEER_ABSENT;
    (void)__atomic_compare_exchange_n(&steer->state->shards[shard].state, &absent, STEER_OPEN,
                                      false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    return 0;
}

int steer_attach(struct steer *steer, enum steer_group group, int descriptor)
{
    assert(group < STEER_GROUP_COUNT);
    struct bpf_program *program = group == STEER_CLIENTS ? steer->loaded->progs.steer_clients
                                                         : steer->loaded->progs.steer_http;
    int number = bpf_program__fd(program);
    if (setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &number, sizeof number) < 0)
        return -errno;
    return 0;
}

struct steer_shard *steer_shard(struct steer *steer, uint32_t shard)
{
    assert(shard < steer->state->shard_count);
    return &steer->state->shards[shard];
}

/* ---- what happened ---- */

void steer_read_decisions(const struct steer *steer, uint64_t *ret_counts)
{
    for (int i = 0; i < STEER_DECISION_COUNT; i++)
        ret_counts[i] = __atomic_load_n(&steer->decisions[i], __ATOMIC_RELAXED);
}

const char *const *steer_decision_names(void)
{
    static const char *const names[STEER_DECISION_COUNT] = {
        [STEER_LOCAL] = "local",       [STEER_LEAST] = "least_loaded", [STEER_DRAINED] = "drained",
        [STEER_MIGRATED] = "migrated", [STEER_FALLBACK] = "fallback",  [STEER_NONE] = "none",
    };
    return names;
}
