/* Steering: the kernel chooses the shard of a new connection by a program of ours (bpf/steer.bpf.c)
 * instead of by its hash.
 *
 * The way of a node:
 *
 *     steer_open             loads the program; needs CAP_BPF. On failure the node goes on without,
 *                            and the kernel's hash spreads connections over the listeners
 *     steer_set_home         for each CPU whose shard is pinned to it
 *     steer_add_listener     for each shard and port: a listening socket with SO_REUSEPORT
 *     steer_attach           once a port, when all its listeners are added: from here on it chooses
 *     steer_load_*           each shard tells its load and drains itself (net/steer_load.h)
 *     steer_close
 *
 * Capabilities may be dropped as soon as steer_open has returned: the rest goes by descriptors and
 * by memory that both sides see.
 *
 * A listener is closed only after its shard drains and steer_load_is_settled: what is queued on it
 * then was chosen by nobody, or came too late to wait for. While other listeners of the port are
 * left, the kernel moves even that to them. */
#ifndef MINIVAULT_NET_STEER_H
#define MINIVAULT_NET_STEER_H

#include "bpf/steer.h"

#include "base/log.h"

#include <stddef.h>

struct steer;

#define STEER_ERROR_SIZE 512

/* Loads the program and its maps for `shard_count` shards (1 to STEER_SHARDS_MAX), none of which
 * has a listener yet. At `level_min` LOG_DEBUG what libbpf and the kernel's verifier say goes to
 * stderr, as lines of the log: libbpf has one such place for the whole process. On failure
 * `ret_error` (STEER_ERROR_SIZE bytes) is one sentence: what is missing and how to grant it.
 * Errors: -EPERM (no CAP_BPF), -EACCES (CAP_BPF is there, but a call is refused), -ENOSYS (a kernel
 * without bpf), -ENOMEM, others: the kernel does not take the program. */
int steer_open(uint32_t shard_count, enum log_level level_min, struct steer **ret_steer,
               char *ret_error);

/* Unloads what no port uses any more: a program that is attached stays until the port's last
 * listener is closed. NULL does nothing. No steer_load may use its shards afterwards. */
void steer_close(struct steer *steer);

/* New connections that come in on `cpu` belong to `shard`. For shards that are pinned; without
 * homes the least loaded shard is chosen. A CPU from STEER_CPUS_MAX on is ignored. */
void steer_set_home(struct steer *steer, uint32_t cpu, uint32_t shard);

/* `descriptor` is a TCP socket that listens and had SO_REUSEPORT before it did; the map refers to
 * the socket, so the caller closes the descriptor when it likes. The socket leaves the map by
 * itself when it is closed. A shard is open to connections when its first listener is added.
 * Errors: -EINVAL (not such a socket), -EBUSY (it is in a map already), others of bpf(2). */
int steer_add_listener(struct steer *steer, enum steer_group group, uint32_t shard, int descriptor);

/* The program chooses among the listeners of the port that `descriptor`, one of them, listens on.
 * Errors: -EINVAL (no SO_REUSEPORT), others of setsockopt(2). */
int steer_attach(struct steer *steer, enum steer_group group, int descriptor);

/* Where a shard publishes its load: for steer_load_init. Valid until steer_close. */
struct steer_shard *steer_shard(struct steer *steer, uint32_t shard);

/* How many connections went where, and why, since steer_open. From any thread. */
void steer_read_decisions(const struct steer *steer, uint64_t *ret_counts);

/* The names of decisions, for metrics: "local", "least_loaded", "drained", "migrated", "fallback",
 * "none". */
const char *const *steer_decision_names(void);

#endif
