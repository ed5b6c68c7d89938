/* The simulated world: several hosts in one thread, under virtual time, from one seed.
 *
 *     struct sim        time, chance, the queue of events
 *     struct sim_disk   a machine's disk; outlives the hosts (processes) that run on it
 *     struct io         a host: what the server under test gets, opened by sim_host_open
 *     struct sim_peer   a client at the other end of a connection, driven by the harness
 *
 * Nothing happens but in events, and events happen only within io_run, io_wait and sim_advance. The
 * same seed and the same calls give the same events (sim_trace_hash).
 *
 * The disk. Files have two contents: what processes see, and what is on stable media. At a power
 * loss every 512-byte sector that differs becomes old, new or torn; every change of a directory
 * that no sync covered happened or not, each by itself; writes in flight are done in part.
 * io_allocate'd space reads as zeros. A failed sync of a file in the page cache leaves what it was
 * to cover unsynced for ever, though it is still seen and later syncs succeed, as Linux does; of a
 * file opened with IO_OPEN_DIRECT, the device has lost some of it, which is seen at once.
 *
 * The memory. Writes and sends read their buffer when they complete, so that a buffer that was
 * reused early shows as corruption; in strict mode the change itself is found. Receives lend memory
 * that is gone when the completion returns. A breach of io.h's contract prints what and when, and
 * aborts.
 *
 * Ideas from: TigerBeetle's src/testing/storage.zig and packet_simulator.zig, SQLite's src/test6.c.
 */
#ifndef MINIVAULT_IO_IO_SIM_H
#define MINIVAULT_IO_IO_SIM_H

#include "base/prng.h"
#include "io/io.h"

struct sim;
struct sim_disk;
struct sim_peer;

/* Chances are in parts per million. */
struct sim_options {
    bool strict;          /* buffers and paths in flight are checked against their sums */
    uint64_t pass_ns_max; /* what one io_run costs at most, apart from waiting */
    uint32_t pause_ppm;   /* of io_run: the process gets no CPU for up to pause_ns_max */
    uint64_t pause_ns_max;
};

struct sim_network_options {
    uint64_t latency_ns_max; /* the usual delay of a packet is below */
    uint32_t stall_ppm;      /* a packet, and all behind it, takes up to stall_ns_max */
    uint64_t stall_ns_max;
    uint32_t reset_ppm; /* of connections: reset at some instant within 100 ms */
    uint32_t split_ppm; /* sends and receives cut where it hurts */
};

struct sim_disk_options {
    uint64_t capacity;       /* bytes: beyond it ENOSPC */
    uint64_t file_size_max;  /* of the process: beyond it EFBIG; 0: no limit */
    uint64_t latency_ns_max; /* the usual duration of an operation is below */
    uint32_t stall_ppm;      /* an operation takes up to stall_ns_max */
    uint64_t stall_ns_max;
    uint32_t read_error_ppm; /* EIO */
    uint32_t write_error_ppm;
    uint32_t sync_error_ppm;
    uint32_t no_space_ppm; /* ENOSPC of what needs new space */
};

/* ---- the world ---- */

/* Usual latencies, strict, no faults. Never fails: a simulator without memory aborts. */
struct sim *sim_create(uint64_t seed);

/* After its hosts were closed. Frees disks and peers, too. */
void sim_free(struct sim *sim);

/* May be changed at any time. */
struct sim_options *sim_options(struct sim *sim);
struct sim_network_options *sim_network_options(struct sim *sim);

uint64_t sim_now_ns(const struct sim *sim);

/* The world's own chance: for whatever belongs to the world rather than to the workload. */
struct prng *sim_prng(struct sim *sim);

/* A harness's own event: embedded, zeroed before its first use. `fire` may schedule it again, and
 * must not free a host. */
struct sim_event {
    struct heap_node node;
    void (*fire)(struct sim_event *event);
    bool is_scheduled;
};

static inline void sim_event_init(struct sim_event *event, void (*fire)(struct sim_event *event))
{
    *event = (struct sim_event){.fire = fire};
}

/* At `time_ns`, or now when that has passed. Moves an event that is already scheduled. */
void sim_schedule(struct sim *sim, struct sim_event *event, uint64_t time_ns);
void sim_unschedule(struct sim *sim, struct sim_event *event);

/* Lets the time pass without any host running. */
void sim_advance(struct sim *sim, uint64_t until_ns);

/* Everything that happened so far, in one number. */
uint64_t sim_trace_hash(const struct sim *sim);

/* Called with one line for each thing that happens. */
typedef void sim_trace(void *context, const char *line);
void sim_set_trace(struct sim *sim, sim_trace *trace, void *context);

/* ---- disks ---- */

/* An empty disk, 1 GiB. It is freed with the world. */
struct sim_disk *sim_disk_create(struct sim *sim);
struct sim_disk_options *sim_disk_options(struct sim_disk *disk);

/* Flips one bit of what is on stable media, somewhere in the `size` bytes at `offset` of a file, as
 * far as it reaches. Returns false when there is nothing. */
bool sim_disk_rot(struct sim_disk *disk, const char *path, uint64_t offset, uint64_t size);

/* Cuts the power while no host runs on it: what was left unsynced (a killed host's writes) is lost
 * or not. */
void sim_disk_lose_power(struct sim_disk *disk);

/* ---- hosts ---- */

/* A process starts on this disk's machine: io.h's functions work on *ret_io. Several may run on one
 * machine. */
void sim_host_open(struct sim *sim, struct sim_disk *disk, const struct io_options *options,
                   struct io **ret_io);

enum sim_crash {
    SIM_POWER_LOSS, /* the machine: every host on this disk dies, what is not synced is lost or torn
                     */
    SIM_KILL, /* the process: plain writes that completed stay, those in flight may still land; its
                 locks are held until they have */
};

/* No completion runs any more; io_run and io_wait return -ESHUTDOWN, other calls do nothing and
 * fail. The memory stays valid until io_close. */
void sim_host_crash(struct io *io, enum sim_crash crash);

/* At an instant to come: after `count` more steps (operations executed, completions run), also
 * within io_wait. */
void sim_host_crash_after(struct io *io, uint64_t count, enum sim_crash crash);

bool sim_host_is_crashed(const struct io *io);

/* Steps so far. */
uint64_t sim_host_steps(const struct io *io);

/* The wall clock. It starts at the world's and may jump, both ways, and stand still. */
void sim_host_jump(struct io *io, int64_t delta_ms);
void sim_host_freeze(struct io *io, bool is_frozen);

/* ---- clients ---- */

/* Connects to `port` of a host's machine. `changed` (may be NULL) is called, from an event, when
 * bytes can be received, when the stream ended or broke, and when more can be sent after a
 * sim_peer_send that took less than all. */
typedef void sim_peer_changed(struct sim_peer *peer, void *context);
struct sim_peer *sim_connect(struct io *io, uint16_t port, sim_peer_changed *changed,
                             void *context);

/* Whether somebody listens there now. */
bool sim_is_listening(const struct io *io, uint16_t port);

/* Takes as much as fits; 0: wait for `changed`. Errors: -ECONNREFUSED, -ECONNRESET, -EPIPE. */
int64_t sim_peer_send(struct sim_peer *peer, const void *data, size_t size);

/* Returns how many bytes were there; 0 at the end of the stream. Errors: -EAGAIN, -ECONNREFUSED,
 * -ECONNRESET. */
int64_t sim_peer_receive(struct sim_peer *peer, void *buffer, size_t size);

/* Sends FIN; receiving goes on. */
void sim_peer_shutdown(struct sim_peer *peer);

/* Ends the connection, orderly or with a reset, and frees the peer. */
void sim_peer_close(struct sim_peer *peer);
void sim_peer_reset(struct sim_peer *peer);

#endif
