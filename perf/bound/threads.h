/* bound's threads: each has a listener, a ring and connections of its own. */
#ifndef PERF_BOUND_THREADS_H
#define PERF_BOUND_THREADS_H

#include "listen.h"
#include "server.h"

#include <stdbool.h>

#define THREADS_MAX 256u

/* Listens, starts the threads and serves until one of them breaks. No more threads than processors
 * are pinned, and then a connection belongs to the thread on the processor of its client;
 * `is_roaming` leaves both to the kernel. Connections are split with some to spare, since the
 * kernel's hash does not. Says on stderr what failed.
 *
 * Errors: -errno. Nothing is unwound: the program ends. */
int threads_run(const struct listen_settings *listen_settings,
                const struct server_settings *server_settings, bool is_roaming);

#endif
