/* The real world for the contract tests: POSIX sockets to 127.0.0.1, a directory under TMPDIR. */
#include "world.h"

#include "base/assert.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATHS_MAX 256
#define PATH_SIZE 512

struct world {
    struct io *io;
    char directory[PATH_SIZE / 2];
    char *paths[PATHS_MAX];
    uint32_t path_count;
    int peers[WORLD_PEERS_MAX]; /* descriptors; -1: closed */
    int peer_count;
};

static void make_directory(struct world *world)
{
    const char *parent = getenv("TMPDIR");
    (void)snprintf(world->directory, sizeof world->directory, "%s/minivault-io-XXXXXX",
                   parent != NULL ? parent : "/tmp");
    cr_assert_not_null(mkdtemp(world->directory), "%s: %s", world->directory, strerror(errno));
}

struct world *world_open(const struct io_options *options)
{
    static const struct io_options usual = WORLD_OPTIONS;
    struct world *world = calloc(1, sizeof *world);
    cr_assert_not_null(world);
    char message[IO_ERROR_SIZE];
    int error = io_open(options != NULL ? options : &usual, &world->io, message);
    cr_assert_eq(error, 0, "%s", message);
    make_directory(world);
    return world;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

void world_close(struct world *world)
{
    io_close(world->io);
    for (int peer = 0; peer < world->peer_count; peer++)
        if (world->peers[peer] >= 0)
            (void)close(world->peers[peer]);
    (void)nftw(world->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    for (uint32_t i = 0; i < world->path_count; i++)
        free(world->paths[i]);
    free(world);
}

struct io *world_io(struct world *world)
{
    return world->io;
}

const char *world_path(struct world *world, const char *name)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/%s", world->directory, name);
    for (uint32_t i = 0; i < world->path_count; i++)
        if (strcmp(world->paths[i], path) == 0)
            return world->paths[i];
    assert(world->path_count < PATHS_MAX);
    char *kept = strdup(path);
    cr_assert_not_null(kept);
    world->paths[world->path_count++] = kept;
    return kept;
}

/* ---- peers ---- */

static int descriptor_of(struct world *world, int peer)
{
    assert(peer >= 0 && peer < world->peer_count);
    assert(world->peers[peer] >= 0);
    return world->peers[peer];
}

int world_peer_connect(struct world *world, uint16_t port)
{
    assert(world->peer_count < WORLD_PEERS_MAX);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int error = -errno;
        (void)close(fd);
        return error;
    }
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    world->peers[world->peer_count] = fd;
    return world->peer_count++;
}

int64_t world_peer_send(struct world *world, int peer, const void *data, size_t size)
{
    ssize_t sent = send(descriptor_of(world, peer), data, size, MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

int64_t world_peer_receive(struct world *world, int peer, void *buffer, size_t size)
{
    ssize_t got = recv(descriptor_of(world, peer), buffer, size, 0);
    return got < 0 ? -errno : got;
}

void world_peer_shutdown(struct world *world, int peer)
{
    (void)shutdown(descriptor_of(world, peer), SHUT_WR);
}

void world_peer_close(struct world *world, int peer)
{
    (void)close(descriptor_of(world, peer));
    world->peers[peer] = -1;
}

void world_peer_reset(struct world *world, int peer)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(descriptor_of(world, peer), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    world_peer_close(world, peer);
}
