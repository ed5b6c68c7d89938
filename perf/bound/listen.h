/* The listeners of bound: one a thread, all on one port. */
#ifndef PERF_BOUND_LISTEN_H
#define PERF_BOUND_LISTEN_H

#include <stdbool.h>
#include <stdint.h>

struct listen_settings {
    const char *host; /* an IPv4 address */
    uint16_t port;
    uint32_t thread_count;
    /* A connection goes to the thread whose number is that of the CPU that took its SYN, modulo
     * thread_count; otherwise, and with one thread, the kernel's hash decides. */
    bool is_steered_by_cpu;
};

/* Opens `thread_count` listeners, in the order of the threads: the kernel numbers the members of a
 * reuseport group in that order. TCP_NODELAY is inherited by what they accept. They are open until
 * the program ends, also after an error.
 *
 * Errors: -EINVAL when `host` is no IPv4 address; -errno of the socket. */
int listen_open(const struct listen_settings *settings, int *ret_listeners);

#endif
