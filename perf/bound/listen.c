/* Opens one listener for each thread on one port; with several threads a filter steers each
 * connection by the processor that it arrives on. */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>

/* As many as the kernel lets wait: net.core.somaxconn. */
#define BACKLOG 65535

/* Classic BPF, as ip(7) has it for SO_ATTACH_REUSEPORT_CBPF: needs no privilege, knows no load. */
static int steer_by_cpu(int listener, uint32_t thread_count)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_CPU)),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, thread_count),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    if (setsockopt(listener, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0)
        return -errno;
    return 0;
}

static int open_one(const struct listen_settings *settings, int *ret_listener)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(settings->port)};
    if (inet_pton(AF_INET, settings->host, &address.sin_addr) != 1)
        return -EINVAL;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0)
        return -errno;
    *ret_listener = listener;
    int on = 1;
    (void)setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    (void)setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (settings->thread_count > 1 &&
        setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
        return -errno;
    if (bind(listener, (const struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, BACKLOG) < 0)
        return -errno;
    return 0;
}

int listen_open(const struct listen_settings *settings, int *ret_listeners)
{
    for (uint32_t i = 0; i < settings->thread_count; i++) {
        int error = open_one(settings, &ret_listeners[i]);
        if (error < 0)
            return error;
    }
    if (settings->thread_count == 1 || !settings->is_steered_by_cpu)
        return 0;
    return steer_by_cpu(ret_listeners[0], settings->thread_count);
}
