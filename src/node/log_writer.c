/* A ring of bytes between those who log and the one thread that writes.
 *
 * 1. tail <= head <= tail + LOG_WRITER_BUFFER_SIZE; what lies between are whole lines.
 * 2. The lock is never held over a system call that may wait for somebody else. */
#include "node/log_writer.h"

#include "base/assert.h"
#include "base/units.h"
#include "net/privilege.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct log_writer {
    struct log *log;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* one of the following has */
    uint64_t head, tail;    /* bytes ever put in and taken out */
    bool is_writing;        /* a line that was taken out */
    bool is_closing;
    uint64_t told; /* of log->dropped: what a line has told of; the thread's own */
    char bytes[LOG_WRITER_BUFFER_SIZE];
};

/* ---- those who log ---- */

static void copy_in(struct log_writer *writer, const char *line, uint32_t size)
{
    size_t begin = writer->head % LOG_WRITER_BUFFER_SIZE;
    size_t first = LOG_WRITER_BUFFER_SIZE - begin < size ? LOG_WRITER_BUFFER_SIZE - begin : size;
    memcpy(writer->bytes + begin, line, first);
    memcpy(writer->bytes, line + first, size - first);
    writer->head += size;
}

/* log_write of log.h. */
static void put_line(void *context, const char *line, uint32_t size)
{
    struct log_writer *writer = context;
    assert(size > 0 && size <= LOG_LINE_MAX && line[size - 1] == '\n');
    (void)pthread_mutex_lock(&writer->lock);
    assert(writer->head - writer->tail <= LOG_WRITER_BUFFER_SIZE); /* 1 */
    if (LOG_WRITER_BUFFER_SIZE - (writer->head - writer->tail) >= size)
        copy_in(writer, line, size);
    else
        atomic_fetch_add_explicit(&writer->log->dropped, 1, memory_order_relaxed);
    (void)pthread_cond_broadcast(&writer->changed);
    (void)pthread_mutex_unlock(&writer->lock);
}

/* ---- the thread ---- */

/* Takes the oldest line out, once the one before has been written. Returns its size; 0: there is
 * none, and none is to come. */
static uint32_t take_line(struct log_writer *writer, char *line)
{
    uint32_t size = 0;
    (void)pthread_mutex_lock(&writer->lock);
    writer->is_writing = false;
    (void)pthread_cond_broadcast(&writer->changed);
    while (writer->head == writer->tail && !writer->is_closing)
        (void)pthread_cond_wait(&writer->changed, &writer->lock);
    while (writer->tail < writer->head && (size == 0 || line[size - 1] != '\n')) {
        assert(size < LOG_LINE_MAX); /* 1 */
        line[size++] = writer->bytes[writer->tail++ % LOG_WRITER_BUFFER_SIZE];
    }
    writer->is_writing = size > 0;
    (void)pthread_mutex_unlock(&writer->lock);
    return size;
}

/* Waits as long as it takes. Returns false when stderr refuses it. */
static bool write_line(const char *line, uint32_t size)
{
    while (size > 0) {
        ssize_t result = write(STDERR_FILENO, line, size);
        if (result > 0) {
            line += result;
            size -= (uint32_t)result;
            continue;
        }
        if (result == 0 || (errno != EINTR && errno != EAGAIN))
            return false;
        /* Somebody who shares it has made it O_NONBLOCK. */
        struct pollfd stderr_room = {.fd = STDERR_FILENO, .events = POLLOUT};
        (void)poll(&stderr_room, 1, -1);
    }
    return true;
}

/* Only once a line has gone out: so it does not add to what stderr refuses. */
static void tell_of_dropped(struct log_writer *writer)
{
    uint64_t dropped = log_dropped(writer->log);
    if (dropped == writer->told)
        return;
    uint64_t count = dropped - writer->told;
    writer->told = dropped;
    log_error(writer->log, "%llu line%s of this log %s dropped: stderr did not take them in time",
              (unsigned long long)count, count == 1 ? "" : "s", count == 1 ? "was" : "were");
}

static void *writer_main(void *context)
{
    struct log_writer *writer = context;
    char line[LOG_LINE_MAX];
    uint32_t size;
    /* When it fails, the shards' own attempts fail as well, and the process does not go on. */
    (void)privilege_drop(PRIVILEGE_KEEP_NONE);
    while ((size = take_line(writer, line)) > 0)
        if (write_line(line, size))
            tell_of_dropped(writer);
        else
            atomic_fetch_add_explicit(&writer->log->dropped, 1, memory_order_relaxed);
    return NULL;
}

/* ---- opening and closing ---- */

static int start_thread(struct log_writer *writer)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int result = -pthread_create(&writer->thread, NULL, writer_main, writer);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

int log_writer_open(struct log *log, struct log_writer **ret_writer)
{
    assert(log->write == NULL && log->whole == NULL);
    struct log_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL)
        return -ENOMEM;
    writer->log = log;
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&writer->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_mutex_init(&writer->lock, NULL);
    int result = start_thread(writer);
    if (result < 0) {
        free(writer);
        return result;
    }
    log->write = put_line;
    log->context = writer;
    *ret_writer = writer;
    return 0;
}

/* Whether stderr has taken all lines in time. */
static bool drain(struct log_writer *writer, bool is_closing)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LOG_WRITER_PATIENCE_MS / 1000;
    int error = 0;
    (void)pthread_mutex_lock(&writer->lock);
    writer->is_closing = is_closing;
    (void)pthread_cond_broadcast(&writer->changed);
    while ((writer->head != writer->tail || writer->is_writing) && error == 0)
        error = pthread_cond_timedwait(&writer->changed, &writer->lock, &until);
    bool is_empty = writer->head == writer->tail && !writer->is_writing;
    (void)pthread_mutex_unlock(&writer->lock);
    return is_empty;
}

void log_writer_flush(struct log_writer *writer)
{
    (void)drain(writer, false);
}

bool log_writer_close(struct log_writer *writer)
{
    if (!drain(writer, true))
        return false;
    (void)pthread_join(writer->thread, NULL);
    writer->log->write = NULL;
    (void)pthread_cond_destroy(&writer->changed);
    (void)pthread_mutex_destroy(&writer->lock);
    free(writer);
    return true;
}
