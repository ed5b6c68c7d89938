/* What io_sim.c has for the other io_sim*.c files: chance, time, the trace and the end of it all.
 *
 *     io_sim.c         the world: time, chance, the queue of events
 *     io_sim_inode.c   contents of files, volatile and durable
 *     io_sim_tree.c    a machine's disk: its directories, volatile and durable
 *     io_sim_host.c    a host: its operations, their completions, its loop and its clocks
 *     io_sim_file.c    what operations do to files
 *     io_sim_wire.c    connections: two ends and the packets between them; the clients
 *     io_sim_net.c     what operations do to sockets: a host's ends of connections
 *     io_sim_crash.c   how hosts start, crash and end, and what a crash does to what was in flight */
#ifndef MINIVAULT_IO_IO_SIM_INTERNAL_H
#define MINIVAULT_IO_IO_SIM_INTERNAL_H

#include "base/assert.h"
#include "base/list.h"
#include "io/io_sim.h"

#define MILLION 1000000u

/* The machines' disks: struct sim_disk. */
struct list *sim_disks(struct sim *sim);

/* Frees the world once its disks are gone. */
void sim_destroy(struct sim *sim);

/* The number of a new host, from 1: 0 stands for the world itself. */
uint32_t sim_number_host(struct sim *sim);

/* Changes how many completions wait in all hosts, and returns how many. */
uint64_t sim_count_ready(struct sim *sim, int32_t change);

/* Memory or death. */
void *sim_allocate(size_t size);

/* Prints what breach of io.h's contract was found, and aborts. */
__attribute__((noreturn, format(printf, 2, 3))) void sim_breach(const struct sim *sim,
                                                                const char *format, ...);

/* One thing that happened, for the hash and the trace. */
void sim_note(struct sim *sim, uint32_t host, const char *what, int64_t a, int64_t b);

/* A number below `bound`, by chance. */
uint64_t sim_below(struct sim *sim, uint64_t bound);

/* Whether something of this chance happens now. */
bool sim_happens(struct sim *sim, uint32_t ppm);

/* Usually some part of `max`, with a tail towards the short ones. */
uint64_t sim_delay(struct sim *sim, uint64_t max_ns);

/* How long something takes that usually takes less than `usual_ns_max`, and now and then stalls. */
uint64_t sim_latency(struct sim *sim, uint64_t usual_ns_max, uint32_t stall_ppm,
                     uint64_t stall_ns_max);

bool sim_has_events(const struct sim *sim);

/* Fires what is due at `now_ns`, or moves to the next event when that is at most `until_ns`. False:
 * there is none. */
bool sim_step(struct sim *sim, uint64_t until_ns);

#endif
