/* Starts the threads of bound, each with a server of its own, and waits for them. */
#include "threads.h"

#include "../common/cpu.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct thread {
    pthread_t handle;
    uint32_t index;
    bool is_pinned;
    int error;
    struct server_settings settings;
    pthread_barrier_t *barrier; /* all have opened, or failed to */
    struct server server;
};

static void *thread_run(void *argument)
{
    struct thread *thread = argument;
    if (thread->is_pinned)
        (void)cpu_pin(thread->index);
    thread->error = server_open(&thread->server, &thread->settings);
    (void)pthread_barrier_wait(thread->barrier);
    if (thread->error < 0)
        return NULL;
    int error = server_run(&thread->server);
    fprintf(stderr, "bound: thread %u stopped: %s\n", thread->index, strerror(-error));
    exit(1); /* the others never end by themselves */
}

/* The kernel's hash gives a thread more than its share now and then: by less than an eighth and 64
 * connections, eight standard deviations and more at any count. */
static uint32_t split(uint32_t connection_count, uint32_t thread_count)
{
    if (thread_count == 1)
        return connection_count;
    uint32_t share = connection_count / thread_count;
    return share + share / 8 + 64;
}

static int start(struct thread *threads, uint32_t count, const int *listeners,
                 const struct server_settings *settings, pthread_barrier_t *barrier, bool is_pinned)
{
    for (uint32_t i = 0; i < count; i++) {
        threads[i].index = i;
        threads[i].is_pinned = is_pinned;
        threads[i].barrier = barrier;
        threads[i].settings = *settings;
        threads[i].settings.listener = listeners[i];
        threads[i].settings.connection_count_max = split(settings->connection_count_max, count);
        int error = -pthread_create(&threads[i].handle, NULL, thread_run, &threads[i]);
        if (error < 0)
            return error;
    }
    return 0;
}

static int serve(struct thread *threads, uint32_t count, pthread_barrier_t *barrier,
                 const struct listen_settings *settings)
{
    (void)pthread_barrier_wait(barrier);
    for (uint32_t i = 0; i < count; i++)
        if (threads[i].error < 0)
            return threads[i].error;
    fprintf(stderr, "bound: listening on %s:%u\n", settings->host, settings->port);
    for (uint32_t i = 0; i < count; i++)
        (void)pthread_join(threads[i].handle, NULL);
    return 0;
}

int threads_run(const struct listen_settings *listen_settings,
                const struct server_settings *server_settings, bool is_roaming)
{
    uint32_t count = listen_settings->thread_count;
    assert(count >= 1 && count <= THREADS_MAX);
    bool is_pinned = count > 1 && !is_roaming && count <= cpu_count();
    struct listen_settings listening = *listen_settings;
    listening.is_steered_by_cpu = is_pinned;
    int listeners[THREADS_MAX];
    int error = listen_open(&listening, listeners);
    if (error < 0) {
        fprintf(stderr, "bound: listening: %s\n", strerror(-error));
        return error;
    }
    struct thread *threads = calloc(count, sizeof *threads);
    pthread_barrier_t barrier;
    if (threads == NULL)
        return -ENOMEM;
    error = -pthread_barrier_init(&barrier, NULL, count + 1);
    if (error == 0)
        error = start(threads, count, listeners, server_settings, &barrier, is_pinned);
    if (error == 0)
        error = serve(threads, count, &barrier, &listening);
    return error;
}
