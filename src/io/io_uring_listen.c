/* Listening sockets. Opened in the ordinary way, then moved into the ring's table: immediate, since
 * start-up wants the port at once. */
#include "io/io_uring.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A dead client is noticed after two minutes. */
#define KEEPALIVE_IDLE_S 60
#define KEEPALIVE_INTERVAL_S 15
#define KEEPALIVE_PROBES 4

/* Bytes that the kernel takes of what it cannot send yet: without a bound it takes all that its
 * send buffer has room for, up to 4 MiB (tcp_wmem) for a client that does not read. A thousand of
 * those held 1.5 GB, all that TCP may have on this machine, so that everybody else's sockets were
 * short; with the bound 32 MB. What is on its way does not count, so long paths lose nothing, and
 * GETs of 1 MiB on loopback are as fast. */
#define UNSENT_BYTES_MAX (128 * 1024)

struct address {
    struct sockaddr_storage storage;
    socklen_t size;
};

/* Errors: -EINVAL: not a numeric address. */
static int address_parse(const char *host, uint16_t port, struct address *ret_address)
{
    char service[8];
    (void)snprintf(service, sizeof service, "%u", (unsigned)port);
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return -EINVAL;
    memcpy(&ret_address->storage, found->ai_addr, found->ai_addrlen);
    ret_address->size = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

/* What a listener has, the connections that it accepts inherit. */
static int set_options(int fd, int family)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {SOL_SOCKET, SO_REUSEADDR, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {IPPROTO_TCP, TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        int error = set_option(fd, options[i].level, options[i].name, options[i].value);
        if (error < 0)
            return error;
    }
    return family == AF_INET6 ? set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) : 0;
}

/* Who else may listen on the port. */
enum sharing {
    SHARE_NOT,
    SHARE_FIRST, /* nobody yet, later sockets of this user that join */
    SHARE_JOIN,
};

/* A socket that binds with SO_REUSEPORT joins whoever has it too, another process's listener as
 * well, and would silently take half of its connections. So the first one binds without, which
 * fails when anybody listens there, and is open to others only then. */
static int bind_to(int fd, const struct address *address, enum sharing sharing)
{
    if (sharing == SHARE_JOIN) {
        int error = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
        if (error < 0)
            return error;
    }
    if (bind(fd, (const struct sockaddr *)&address->storage, address->size) < 0)
        return -errno;
    return sharing == SHARE_FIRST ? set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) : 0;
}

static int bind_and_listen(int fd, const struct address *address, int backlog, enum sharing sharing,
                           uint16_t *ret_port)
{
    int error = bind_to(fd, address, sharing);
    if (error < 0)
        return error;
    if (listen(fd, backlog) < 0)
        return -errno;
    struct address bound = {.size = sizeof bound.storage};
    if (getsockname(fd, (struct sockaddr *)&bound.storage, &bound.size) < 0)
        return -errno;
    /* The port is at the same place in both families. */
    *ret_port = ntohs(((struct sockaddr_in *)&bound.storage)->sin_port);
    return 0;
}

/* Returns the descriptor of a listening socket. */
static int open_listener(const struct address *address, int backlog, enum sharing sharing,
                         uint16_t *ret_port)
{
    int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int error = set_options(fd, address->storage.ss_family);
    if (error == 0)
        error = bind_and_listen(fd, address, backlog, sharing, ret_port);
    if (error < 0) {
        (void)close(fd);
        return error;
    }
    return fd;
}

/* Looks for the completion of the installation without taking it: the loop takes and ignores it
 * later. */
static int find_installed(struct io_uring *ring, const int *slot)
{
    unsigned head;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(ring, head, cqe)
    {
        if (cqe->user_data == RING_TAG_INSTALL) {
            cqe->user_data = RING_TAG_NONE;
            return cqe->res < 0 ? cqe->res : *slot;
        }
    }
    return -EBUSY;
}

/* Lets the kernel choose a slot of the range of sockets, as it does for accept. It does so while submitting. */
static int install(struct io *io, int fd)
{
    struct io_uring_sqe *sqe = ring_entry(io);
    if (sqe == NULL)
        return -EAGAIN;
    int slot = fd;
    io_uring_prep_files_update(sqe, &slot, 1, (int)IORING_FILE_INDEX_ALLOC);
    io_uring_sqe_set_data64(sqe, RING_TAG_INSTALL);
    int submitted = io_uring_submit(ring_of(io));
    if (submitted < 0)
        return submitted;
    return find_installed(ring_of(io), &slot);
}

/* Returns the descriptor of a listening socket. */
static int open_at(const char *host, uint16_t port, int backlog, enum sharing sharing,
                   uint16_t *ret_port)
{
    struct address address;
    int error = address_parse(host == NULL ? "::" : host, port, &address);
    if (error < 0)
        return error;
    int fd = open_listener(&address, backlog, sharing, ret_port);
    if (host == NULL && (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)) {
        /* IPv6 is off on this host. */
        error = address_parse("0.0.0.0", port, &address);
        assert(error == 0);
        fd = open_listener(&address, backlog, sharing, ret_port);
    }
    return fd;
}

int io_listen(struct io *io, const char *host, uint16_t port, int backlog, int *ret_listener,
              uint16_t *ret_port)
{
    uint16_t bound_port = 0;
    int fd = open_at(host, port, backlog, SHARE_NOT, &bound_port);
    if (fd < 0)
        return fd;
    int listener = install(io, fd);
    (void)close(fd); /* the table keeps the socket */
    if (listener < 0)
        return listener;
    *ret_listener = listener;
    *ret_port = bound_port;
    return 0;
}

int io_listen_shared(struct io *io, const char *host, uint16_t port, int backlog, bool is_first,
                     struct io_listener *ret_listener)
{
    assert(is_first || port != 0);
    uint16_t bound_port = 0;
    int fd = open_at(host, port, backlog, is_first ? SHARE_FIRST : SHARE_JOIN, &bound_port);
    if (fd < 0)
        return fd;
    int listener = install(io, fd);
    if (listener < 0) {
        (void)close(fd);
        return listener;
    }
    *ret_listener = (struct io_listener){.handle = listener, .descriptor = fd, .port = bound_port};
    return 0;
}
