/* The log's way to stderr: a thread of its own writes, so that no shard ever waits for whoever reads
 * there.
 *
 *     log_event, any thread            the writer's thread
 *     line -> [ 256 KiB of lines ] --> write(2), one a line -> stderr
 *
 * stderr is inherited and may be a pipe whose reader has stopped, a terminal that is held with
 * Ctrl-S, or a full disk. O_NONBLOCK is no way out: it belongs to the open file, which other
 * processes share. A line that finds no room is dropped and counted (log.h, `dropped`); once a
 * line has gone out again, another one says how many were lost. */
#ifndef MINIVAULT_NODE_LOG_WRITER_H
#define MINIVAULT_NODE_LOG_WRITER_H

#include "base/log.h"

#define LOG_WRITER_BUFFER_SIZE ((size_t)256 * 1024)

/* How long closing waits for stderr to take what is left. */
#define LOG_WRITER_PATIENCE_MS 1000u

struct log_writer;

/* From here on `log`, which outlives the writer, writes through it (log->write and log->context;
 * the caller's wall_ms gets the writer as its context). The thread takes no signals and keeps no
 * capabilities. Errors: -ENOMEM, -EAGAIN (no thread); the log then is as it was. */
int log_writer_open(struct log *log, struct log_writer **ret_writer);

/* Waits until stderr has taken all lines, at most LOG_WRITER_PATIENCE_MS. Others may go on logging. */
void log_writer_flush(struct log_writer *writer);

/* Flushes, and ends the thread: nobody else logs any more; the log then writes by itself again.
 * Returns false when stderr does not take what is left: the thread goes on with the log, and the
 * process has to end by _exit. */
bool log_writer_close(struct log_writer *writer);

#endif
