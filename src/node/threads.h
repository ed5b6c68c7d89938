/* The shards' threads: they come up together, step by step, and end together.
 *
 *     world -> (0: the directory) -> store -> (0: the port) -> listener -> (0: steering) -> passes
 *
 * After each step they wait for each other; when one of them failed, all stop. */
#ifndef MINIVAULT_NODE_THREADS_H
#define MINIVAULT_NODE_THREADS_H

#include "base/log.h"
#include "node/config.h"
#include "node/loop.h"
#include "node/pin.h"

struct threads;

/* Sent to the process each time when a thread has ended. */
#define THREADS_SIGNAL SIGUSR2

/* Starts them. Signals must be blocked, so that they come to the caller's thread. `config` and
 * `log` outlive them. Failures are logged. Errors: -ENOMEM, -EAGAIN. */
int threads_start(const struct config *config, const struct log *log, uint32_t shard_count,
                  const struct pins *pins, struct threads **ret_threads);

/* Lets them drain and end. */
void threads_drain(struct threads *threads);

/* Each takes it before its next pass. */
void threads_reload(struct threads *threads, const struct settings *settings);

/* After THREADS_SIGNAL. Returns 1: some still run; 0: all have ended well; -errno: one has failed,
 * the others may still run: the process must end. */
int threads_look(struct threads *threads);

/* After threads_look returned 0: waits for the last of them, and frees everything. */
void threads_close(struct threads *threads);

#endif
