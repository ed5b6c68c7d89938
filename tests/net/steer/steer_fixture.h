/* Listeners of one port in a network namespace of the test's own, the steering program loaded into
 * the real kernel, and clients on loopback. Skips, and says why, where the kernel refuses. */
#ifndef TESTS_NET_STEER_STEER_FIXTURE_H
#define TESTS_NET_STEER_STEER_FIXTURE_H

#include "net/steer/steer.h"
#include "net/steer/steer_load.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GROUP_SHARDS_MAX 16
#define GROUP_CLIENTS_MAX 2048

struct group {
    struct steer *steer;
    uint32_t shard_count;
    uint16_t port;
    int listeners[GROUP_SHARDS_MAX];
    uint32_t accepted[GROUP_SHARDS_MAX];
    int servers[GROUP_CLIENTS_MAX]; /* accepted sockets, of all listeners */
    uint32_t server_count;
    int clients[GROUP_CLIENTS_MAX];
    uint32_t client_count;
};

static inline void set_capabilities(uint64_t kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {
        {.effective = (uint32_t)kept, .permitted = (uint32_t)kept},
        {.effective = (uint32_t)(kept >> 32), .permitted = (uint32_t)(kept >> 32)}};
    cr_assert_eq(syscall(SYS_capset, &header, sets), 0, "%s", strerror(errno));
}

/* Without a namespace of its own a test shares the host's loopback: also good, only less alone. */
static inline void enter_namespace(void)
{
    if (unshare(CLONE_NEWNET) < 0)
        return;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &request), 0, "%s", strerror(errno));
    (void)close(fd);
}

static inline void raise_file_limit(void)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < 2 * GROUP_CLIENTS_MAX)
        cr_skip_test("RLIMIT_NOFILE is too low here");
}

/* A socket that listens on `port` of loopback (0: any), or with `dual` on every address of both
 * families. */
static inline int listen_on(uint16_t port, bool is_dual, bool is_shared)
{
    int on = 1, off = 0;
    int fd = socket(is_dual ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 && is_dual)
        cr_skip_test("no IPv6 here");
    cr_assert_geq(fd, 0);
    struct sockaddr_in four = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (is_shared)
        cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
    if (is_dual)
        cr_assert_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off), 0);
    const void *address = is_dual ? (const void *)&six : (const void *)&four;
    cr_assert_eq(bind(fd, address, is_dual ? sizeof six : sizeof four), 0, "%s", strerror(errno));
    cr_assert_eq(listen(fd, 4096), 0);
    return fd;
}

static inline uint16_t port_of(int fd)
{
    struct sockaddr_in6 address;
    socklen_t size = sizeof address;
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    return ntohs(address.sin6_port); /* at the same place in both families */
}

static inline void open_steer(uint32_t shard_count, struct steer **ret_steer)
{
    char error[STEER_ERROR_SIZE] = "";
    int result = steer_open(shard_count, LOG_INFO, ret_steer, error);
    if (result == -EPERM || result == -EACCES || result == -ENOSYS) {
        /* Also to stderr: Criterion itself is silent about what it skips. */
        (void)fprintf(stderr, "SKIPPED: steering cannot be tested here: %s\n", error);
        cr_skip_test("steering cannot be tested here: %s", error);
    }
    cr_assert_eq(result, 0, "%s", error);
}

/* Listeners without the program: the kernel's hash. */
static inline void open_listeners(struct group *group, uint32_t shard_count, bool is_dual)
{
    *group = (struct group){.shard_count = shard_count};
    enter_namespace();
    raise_file_limit();
    for (uint32_t i = 0; i < shard_count; i++) {
        group->listeners[i] = listen_on(group->port, is_dual, true);
        group->port = port_of(group->listeners[i]);
    }
}

static inline void steer_group(struct group *group, struct steer *steer, enum steer_group which)
{
    for (uint32_t i = 0; i < group->shard_count; i++)
        cr_assert_eq(steer_add_listener(steer, which, i, group->listeners[i]), 0);
    cr_assert_eq(steer_attach(steer, which, group->listeners[0]), 0);
}

static inline void open_group(struct group *group, uint32_t shard_count, bool is_dual)
{
    open_listeners(group, shard_count, is_dual);
    open_steer(shard_count, &group->steer);
    steer_group(group, group->steer, STEER_CLIENTS);
}

/* Returns 0 or -errno. */
static inline int connect_once(struct group *group)
{
    cr_assert_lt(group->client_count, GROUP_CLIENTS_MAX);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(group->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int error = -errno;
        (void)close(fd);
        return error;
    }
    group->clients[group->client_count++] = fd;
    return 0;
}

static inline void connect_many(struct group *group, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        cr_assert_eq(connect_once(group), 0);
}

/* Accepts what is queued on a shard's listener; returns how many that were. */
static inline uint32_t accept_queued(struct group *group, uint32_t shard)
{
    uint32_t before = group->accepted[shard];
    for (;;) {
        int fd = accept4(group->listeners[shard], NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            cr_assert_eq(errno, EAGAIN, "%s", strerror(errno));
            return group->accepted[shard] - before;
        }
        group->accepted[shard]++;
        group->servers[group->server_count++] = fd;
    }
}

/* Returns how many were queued on all listeners that are open. */
static inline uint32_t accept_all(struct group *group)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < group->shard_count; i++)
        if (group->listeners[i] >= 0)
            sum += accept_queued(group, i);
    return sum;
}

/* Every client's byte arrives at some server's end, and the answers at every client. */
static inline void expect_all_alive(struct group *group)
{
    cr_assert_eq(group->client_count, group->server_count);
    char byte = 'q';
    for (uint32_t i = 0; i < group->client_count; i++)
        cr_assert_eq(send(group->clients[i], &byte, 1, MSG_NOSIGNAL), 1, "%s", strerror(errno));
    for (uint32_t i = 0; i < group->server_count; i++) {
        cr_assert_eq(recv(group->servers[i], &byte, 1, 0), 1, "%s", strerror(errno));
        cr_assert_eq(send(group->servers[i], &byte, 1, MSG_NOSIGNAL), 1);
    }
    for (uint32_t i = 0; i < group->client_count; i++)
        cr_assert_eq(recv(group->clients[i], &byte, 1, 0), 1, "%s", strerror(errno));
}

/* As the shards of a server do at SIGTERM, each its own. */
static inline void drain_all(struct group *group)
{
    for (uint32_t i = 0; i < group->shard_count; i++) {
        struct steer_load load;
        steer_load_init(&load, steer_shard(group->steer, i), 0);
        steer_load_drain(&load);
    }
}

static inline void close_listener(struct group *group, uint32_t shard)
{
    cr_assert_eq(close(group->listeners[shard]), 0);
    group->listeners[shard] = -1;
}

static inline void close_group(struct group *group)
{
    steer_close(group->steer);
    for (uint32_t i = 0; i < group->client_count; i++)
        (void)close(group->clients[i]);
    for (uint32_t i = 0; i < group->server_count; i++)
        (void)close(group->servers[i]);
    for (uint32_t i = 0; i < group->shard_count; i++)
        if (group->listeners[i] >= 0)
            (void)close(group->listeners[i]);
}

static inline uint64_t decided(const struct group *group, enum steer_decision decision)
{
    uint64_t counts[STEER_DECISION_COUNT];
    steer_read_decisions(group->steer, counts);
    return counts[decision];
}

/* On loopback the CPU that sends the SYN is the one that takes it. */
static inline void pin_to(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        cr_skip_test("CPU %d is not there", cpu);
}

#endif
