/* The simulated world for the contract tests: one host, one disk, the simulator's peers. The seed
 * is fixed, so that a test fails always or never; MINIVAULT_SEED gives another. */
#include "world.h"

#include "io/io_sim.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATHS_MAX 256
#define PATH_SIZE 512
#define DIRECTORY "world"

struct world {
    struct sim *sim;
    struct io *io;
    char *paths[PATHS_MAX];
    uint32_t path_count;
    struct sim_peer *peers[WORLD_PEERS_MAX]; /* NULL: closed */
    int peer_count;
};

static uint64_t choose_seed(void)
{
    const char *text = getenv("MINIVAULT_SEED");
    return text != NULL ? strtoull(text, NULL, 10) : 1;
}

struct world *world_open(const struct io_options *options)
{
    static const struct io_options usual = WORLD_OPTIONS;
    struct world *world = calloc(1, sizeof *world);
    cr_assert_not_null(world);
    world->sim = sim_create(choose_seed());
    /* Some tests want few bytes in one piece. */
    sim_network_options(world->sim)->split_ppm = 0;
    struct sim_disk *disk = sim_disk_create(world->sim);
    sim_host_open(world->sim, disk, options != NULL ? options : &usual, &world->io);
    cr_assert_eq(io_make_directory(world->io, DIRECTORY), 0);
    return world;
}

void world_close(struct world *world)
{
    io_close(world->io);
    sim_free(world->sim);
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
    (void)snprintf(path, sizeof path, DIRECTORY "/%s", name);
    for (uint32_t i = 0; i < world->path_count; i++) {
        if (strcmp(world->paths[i], path) == 0)
            return world->paths[i];
    }
    cr_assert_lt(world->path_count, PATHS_MAX);
    char *kept = strdup(path);
    cr_assert_not_null(kept);
    world->paths[world->path_count++] = kept;
    return kept;
}

/* ---- peers ---- */

static struct sim_peer *peer_of(struct world *world, int peer)
{
    cr_assert(peer >= 0 && peer < world->peer_count);
    cr_assert_not_null(world->peers[peer]);
    return world->peers[peer];
}

int world_peer_connect(struct world *world, uint16_t port)
{
    cr_assert_lt(world->peer_count, WORLD_PEERS_MAX);
    if (!sim_is_listening(world->io, port))
        return -ECONNREFUSED;
    world->peers[world->peer_count] = sim_connect(world->io, port, NULL, NULL);
    return world->peer_count++;
}

int64_t world_peer_send(struct world *world, int peer, const void *data, size_t size)
{
    int64_t sent = sim_peer_send(peer_of(world, peer), data, size);
    return sent == 0 ? -EAGAIN : sent;
}

int64_t world_peer_receive(struct world *world, int peer, void *buffer, size_t size)
{
    return sim_peer_receive(peer_of(world, peer), buffer, size);
}

void world_peer_shutdown(struct world *world, int peer)
{
    sim_peer_shutdown(peer_of(world, peer));
}

void world_peer_close(struct world *world, int peer)
{
    sim_peer_close(peer_of(world, peer));
    world->peers[peer] = NULL;
}

void world_peer_reset(struct world *world, int peer)
{
    sim_peer_reset(peer_of(world, peer));
    world->peers[peer] = NULL;
}
