/* A thread a shard: they rise together, step by step, and pass until the end. */
#include "node/threads.h"

#include "base/assert.h"
#include "net/privilege.h"
#include "node/loop.h"
#include "net/steer/steer.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct thread {
    struct threads *all;
    uint32_t number;
    pthread_t thread;
    bool is_started;
    struct io *io; /* under the lock for others, who may wake it; NULL: there is none */
    struct loop *loop;
    uint64_t keys;                  /* as it was recovered */
    int descriptors[LISTENERS_MAX]; /* of the listeners, for steering, or -1 */
    bool is_ended;                  /* under the lock, as is the result */
    uint32_t reloads;               /* taken */
    int result;
};

struct threads {
    const struct config *config;
    const struct log *log;
    const struct pins *pins;
    uint32_t count;
    struct node *node;
    struct steer *steer; /* NULL: the kernel's hash spreads connections */
    uint16_t port;
    char warning[IO_ERROR_SIZE]; /* of the first world: the others have the same */
    atomic_bool drain;
    _Atomic uint32_t reloads; /* asked for */
    struct settings settings; /* the newest, under the lock */
    pthread_mutex_t lock;
    pthread_cond_t met;
    uint32_t waiting;  /* at the present meeting */
    uint32_t meetings; /* that are over */
    int worst;         /* result at a meeting; stays */
    struct thread threads[];
};

/* ---- meetings ---- */

/* Waits until all are here. Returns the first error that any of them brought, or 0. */
static int meet(struct threads *all, int result)
{
    (void)pthread_mutex_lock(&all->lock);
    if (all->worst == 0 && result < 0)
        all->worst = result;
    uint32_t meeting = all->meetings;
    if (++all->waiting == all->count) {
        all->waiting = 0;
        all->meetings++;
        (void)pthread_cond_broadcast(&all->met);
    }
    while (all->meetings == meeting)
        (void)pthread_cond_wait(&all->met, &all->lock);
    int worst = all->worst;
    (void)pthread_mutex_unlock(&all->lock);
    return worst;
}

/* ---- the way up ---- */

static int pin(const struct thread *thread)
{
    const struct threads *all = thread->all;
    if (!all->pins->is_on)
        return 0;
    uint32_t cpu = all->pins->cpus[thread->number];
    int result = pin_thread(cpu);
    if (result < 0)
        log_error(all->log, "cannot pin a thread to CPU %u: %s; choose others with -pin", cpu,
                  strerror(-result));
    return result;
}

static void set_io(struct thread *thread, struct io *io)
{
    (void)pthread_mutex_lock(&thread->all->lock);
    thread->io = io;
    (void)pthread_mutex_unlock(&thread->all->lock);
}

static int open_world(struct thread *thread)
{
    struct threads *all = thread->all;
    struct io_options options;
    char message[IO_ERROR_SIZE];
    struct io *io = NULL;
    loop_io_options(all->config, all->count, &options);
    int result = io_open(&options, &io, message);
    set_io(thread, io);
    if (result < 0)
        log_error(all->log, "cannot start: %s", message);
    else if (thread->number == 0)
        memcpy(all->warning, message, sizeof message);
    return result;
}

static int drop_privileges(const struct thread *thread, enum privilege_kept kept)
{
    int result = privilege_drop(kept);
    if (result < 0)
        log_error(thread->all->log,
                  "cannot drop capabilities: %s; let the seccomp profile of this process allow "
                  "capset(2)",
                  strerror(-result));
    return result;
}

static int begin_world(struct thread *thread)
{
    int result = pin(thread);
    if (result == 0)
        result = open_world(thread);
    return result < 0 ? result : drop_privileges(thread, PRIVILEGE_KEEP_BIND);
}

static const enum steer_group groups[LISTENERS_MAX] = {
    [LISTENER_BINARY] = STEER_CLIENTS,
    [LISTENER_HTTP] = STEER_HTTP,
};

static int listen_on(struct thread *thread, bool is_turn)
{
    struct threads *all = thread->all;
    if (!is_turn)
        return 0;
    int result = loop_listen(thread->loop, all->port, thread->descriptors);
    if (result == 0)
        all->port = loop_port(thread->loop);
    for (int i = 0; result == 0 && all->steer != NULL && i < LISTENERS_MAX; i++)
        if (thread->descriptors[i] >= 0)
            result =
                steer_add_listener(all->steer, groups[i], thread->number, thread->descriptors[i]);
    return result;
}

/* Once all listen. Without it the kernel's hash goes on. */
static void attach(const struct thread *thread)
{
    const struct threads *all = thread->all;
    if (thread->number != 0 || all->steer == NULL)
        return;
    for (uint32_t i = 0; all->pins->is_on && i < all->count; i++)
        steer_set_home(all->steer, all->pins->cpus[i], i);
    int result = 0;
    for (int i = 0; result == 0 && i < LISTENERS_MAX; i++)
        if (thread->descriptors[i] >= 0)
            result = steer_attach(all->steer, groups[i], thread->descriptors[i]);
    if (result < 0)
        log_warn(all->log, "cannot steer connections: %s; the kernel's hash spreads them",
                 strerror(-result));
}

static void close_descriptors(struct thread *thread)
{
    for (int i = 0; i < LISTENERS_MAX; i++) {
        if (thread->descriptors[i] >= 0)
            (void)close(thread->descriptors[i]);
        thread->descriptors[i] = -1;
    }
}

static void tell(const struct thread *thread)
{
    const struct threads *all = thread->all;
    uint64_t slots = 0, keys = 0;
    if (thread->number != 0)
        return;
    for (uint32_t i = 0; i < all->count; i++) {
        slots += loop_slots(all->threads[i].loop);
        keys += all->threads[i].keys;
    }
    if (slots < all->config->connections_max)
        log_warn(all->log,
                 "at most %" PRIu64
                 " of %u connections are served at once, the rest is refused. %s",
                 slots, all->config->connections_max, all->warning);
    else if (all->warning[0] != '\0')
        log_warn(all->log, "%s", all->warning);
    if (all->count > 1)
        log_info(all->log, "recovered %" PRIu64 " keys in all", keys);
    log_info(all->log, "listening on port %u", all->port);
}

/* Everything up to the first pass. *ret_is_created: the loop has a store that is to be shut. */
static int rise(struct thread *thread, bool *ret_is_created)
{
    struct threads *all = thread->all;
    *ret_is_created = false;
    int result = meet(all, begin_world(thread));
    if (result == 0)
        result = meet(all, thread->number == 0 ? loop_prepare(thread->io, all->node) : 0);
    if (result < 0)
        return result;
    result = loop_create(thread->io, all->node, thread->number, &thread->loop);
    *ret_is_created = result == 0;
    thread->keys = result == 0 ? loop_keys(thread->loop) : 0;
    result = meet(all, result);
    if (result == 0)
        result = meet(all, listen_on(thread, thread->number == 0));
    if (result == 0)
        result = meet(all, listen_on(thread, thread->number != 0));
    if (result == 0)
        attach(thread);
    if (result == 0)
        result = meet(all, drop_privileges(thread, PRIVILEGE_KEEP_NONE));
    close_descriptors(thread);
    return result;
}

static void take_reload(struct thread *thread)
{
    struct threads *all = thread->all;
    if (atomic_load_explicit(&all->reloads, memory_order_relaxed) == thread->reloads)
        return;
    (void)pthread_mutex_lock(&all->lock);
    struct settings settings = all->settings;
    thread->reloads = all->reloads;
    (void)pthread_mutex_unlock(&all->lock);
    loop_apply(thread->loop, &settings);
}

static int pass_until_the_end(struct thread *thread)
{
    struct threads *all = thread->all;
    loop_begin(thread->loop, all->steer != NULL ? steer_shard(all->steer, thread->number) : NULL);
    /* Who is served may ask for the whole node: each shard has told of itself by then. */
    (void)meet(all, 0);
    tell(thread);
    for (;;) {
        if (atomic_load(&all->drain))
            loop_drain(thread->loop);
        take_reload(thread);
        int result = loop_pass(thread->loop);
        if (result != 0)
            return result < 0 ? result : 0;
    }
}

static int run(struct thread *thread)
{
    bool is_created;
    int result = rise(thread, &is_created);
    if (result == 0)
        return pass_until_the_end(thread);
    if (is_created)
        loop_shut(thread->loop);
    return result;
}

/* Nobody else wakes it any more: all have met, and none has posted yet, or all ended their post. */
static void close_world(struct thread *thread)
{
    struct io *io = thread->io;
    set_io(thread, NULL);
    if (io != NULL)
        io_close(io);
}

static void *thread_main(void *context)
{
    struct thread *thread = context;
    struct threads *all = thread->all;
    int result = run(thread);
    if (result == 0)
        close_world(thread);
    (void)pthread_mutex_lock(&all->lock);
    thread->is_ended = true;
    thread->result = result;
    (void)pthread_mutex_unlock(&all->lock);
    (void)kill(getpid(), THREADS_SIGNAL);
    return NULL;
}

/* ---- the outside ---- */

static void open_steering(struct threads *all)
{
    char message[STEER_ERROR_SIZE];
    if (all->count == 1)
        return;
    int result = steer_open(all->count, all->config->log_level, &all->steer, message);
    if (result == 0)
        return;
    all->steer = NULL;
    /* Who grants CAP_BPF wants steering, so anything else that is missing is a mistake. */
    log_event(all->log, result == -EPERM ? LOG_INFO : LOG_WARN,
              "connections are spread by the kernel's hash: %s", message);
}

static void free_all(struct threads *all)
{
    steer_close(all->steer);
    node_close(all->node);
    free(all);
}

int threads_start(const struct config *config, const struct log *log, uint32_t shard_count,
                  const struct pins *pins, struct threads **ret_threads)
{
    struct threads *all = calloc(1, sizeof *all + shard_count * sizeof all->threads[0]);
    if (all == NULL)
        return -ENOMEM;
    *all = (struct threads){.config = config,
                            .log = log,
                            .pins = pins,
                            .count = shard_count,
                            .port = config->port,
                            .lock = PTHREAD_MUTEX_INITIALIZER,
                            .met = PTHREAD_COND_INITIALIZER};
    open_steering(all);
    int result = node_open(config, log, shard_count, all->steer, &all->node);
    if (result < 0) {
        free_all(all);
        return result;
    }
    for (uint32_t i = 0; i < shard_count; i++) {
        struct thread *thread = &all->threads[i];
        *thread = (struct thread){.all = all, .number = i, .descriptors = {-1, -1}};
        result = -pthread_create(&thread->thread, NULL, thread_main, thread);
        if (result < 0) {
            /* Those that run wait for this one for ever: the process ends. */
            log_error(log,
                      "cannot start thread %u of %u: %s; lower -shards, or raise the limits of "
                      "threads and memory (ulimit -u, TasksMax=, pids.max)",
                      i + 1, shard_count, strerror(-result));
            return result;
        }
    }
    *ret_threads = all;
    return 0;
}

static void wake_all(struct threads *all)
{
    (void)pthread_mutex_lock(&all->lock);
    for (uint32_t i = 0; i < all->count; i++)
        if (all->threads[i].io != NULL)
            io_wake(all->threads[i].io);
    (void)pthread_mutex_unlock(&all->lock);
}

void threads_drain(struct threads *all)
{
    if (!atomic_exchange(&all->drain, true))
        wake_all(all);
}

void threads_reload(struct threads *all, const struct settings *settings)
{
    (void)pthread_mutex_lock(&all->lock);
    all->settings = *settings;
    all->reloads++;
    (void)pthread_mutex_unlock(&all->lock);
    wake_all(all);
}

int threads_look(struct threads *all)
{
    int result = 0;
    (void)pthread_mutex_lock(&all->lock);
    for (uint32_t i = 0; i < all->count; i++) {
        const struct thread *thread = &all->threads[i];
        if (thread->is_ended && thread->result < 0)
            result = thread->result;
        else if (!thread->is_ended && result == 0)
            result = 1;
    }
    (void)pthread_mutex_unlock(&all->lock);
    return result;
}

void threads_close(struct threads *all)
{
    for (uint32_t i = 0; i < all->count; i++)
        (void)pthread_join(all->threads[i].thread, NULL);
    for (uint32_t i = 0; i < all->count; i++)
        loop_close(all->threads[i].loop);
    free_all(all);
}
