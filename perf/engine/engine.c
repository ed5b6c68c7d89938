/* Runs the phases of the engine benchmark: callers that each have one set or get under way, over
 * the store itself. */
#include "engine.h"

#include "../common/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Gets that are answered from memory go on in the same pass, so many times. */
#define TURNS_MAX 8

static void on_durable(void *context, uint64_t position)
{
    (void)context;
    (void)position;
}

static void on_room(void *context)
{
    (void)context;
}

static void on_failed(void *context, int error)
{
    struct engine *engine = context;
    engine->error = error < 0 ? error : -error;
}

static bool is_large(const struct engine *engine)
{
    return engine->options.value_size >= store_value_file_min(engine->store);
}

void engine_finish(struct caller *caller)
{
    struct engine *engine = caller->engine;
    histogram_add(&engine->result->latency, clock_now_ns() - caller->began_ns, 1);
    engine->result->requests++;
    list_push_back(&engine->idle, &caller->node);
}

/* ---- gets ---- */

static void take(struct caller *caller, enum store_status status, const struct store_value *value)
{
    struct engine *engine = caller->engine;
    if (status == STORE_OK && !value->in_value_file)
        memcpy(engine->read, value->data, min_u64(value->size, engine->options.value_size));
    else if (status == STORE_NOT_FOUND)
        engine->result->misses++;
    else
        engine->error = -EIO;
    engine_finish(caller);
}

static void get_done(struct store_waiter *waiter, enum store_status status,
                     const struct store_value *value)
{
    struct caller *caller = container_of(waiter, struct caller, waiter);
    if (status != STORE_BUSY) {
        take(caller, status, value);
        return;
    }
    caller->has_key = true;
    list_push_front(&caller->engine->idle, &caller->node);
}

/* ---- requests ---- */

static uint64_t next_number(struct engine *engine)
{
    uint64_t number = engine->begun++;
    if (engine->kind == ENGINE_FILL_SEQUENTIAL)
        return number % engine->keys.key_count;
    return key_draw(&engine->keys, &engine->prng);
}

static enum store_status set(struct caller *caller)
{
    struct engine *engine = caller->engine;
    struct slice value = {engine->value, (uint32_t)engine->options.value_size};
    enum store_status status =
        store_set(engine->store, engine_key(caller), value, value, false, &caller->gate);
    if (status == STORE_OK)
        engine_wait(caller);
    return status;
}

static enum store_status get(struct caller *caller)
{
    struct engine *engine = caller->engine;
    struct store_value value;
    caller->waiter.done = get_done;
    enum store_status status =
        store_get(engine->store, engine_key(caller), &caller->waiter, &value);
    if (status != STORE_PENDING && status != STORE_BUSY)
        take(caller, status, &value);
    return status;
}

/* Returns false when the store has no room. */
static bool begin(struct caller *caller)
{
    struct engine *engine = caller->engine;
    if (!caller->has_key) {
        key_write(&engine->keys, caller->key, next_number(engine));
        caller->began_ns = clock_now_ns();
    }
    caller->has_key = false;
    if (engine->kind != ENGINE_READ_RANDOM && is_large(engine)) {
        engine->uploading++;
        engine_upload(caller);
        return true;
    }
    enum store_status status = engine->kind == ENGINE_READ_RANDOM ? get(caller) : set(caller);
    if (status == STORE_BUSY) {
        caller->has_key = true;
        list_push_front(&engine->idle, &caller->node);
        return false;
    }
    if (status != STORE_OK && status != STORE_PENDING && status != STORE_NOT_FOUND)
        engine->error = -EIO;
    return true;
}

/* ---- passes ---- */

/* Those whose uploads wait for something that may have come. */
static void go_on_uploading(struct engine *engine)
{
    for (uint64_t i = 0; engine->uploading > 0 && i < engine->options.callers; i++) {
        struct caller *caller = &engine->callers[i];
        if (caller->upload != NULL)
            engine_upload(caller);
    }
}

static void release(struct engine *engine)
{
    uint64_t durable = store_durable(engine->store);
    for (struct list_node *node; (node = list_first(&engine->waiting)) != NULL;) {
        struct caller *caller = container_of(node, struct caller, node);
        if (caller->gate > durable)
            return;
        list_remove(node);
        engine_finish(caller);
    }
}

/* Returns whether the store was full. */
static bool issue(struct engine *engine)
{
    uint64_t turns = engine->options.callers * TURNS_MAX;
    for (uint64_t i = 0; i < turns; i++) {
        struct list_node *node = list_first(&engine->idle);
        if (node == NULL || engine->error != 0)
            return false;
        struct caller *caller = container_of(node, struct caller, node);
        if (engine->begun >= engine->requests && !caller->has_key)
            return false;
        list_remove(node);
        if (!begin(caller))
            return true;
    }
    return false;
}

static bool can_issue(const struct engine *engine)
{
    return engine->begun < engine->requests && !list_is_empty(&engine->idle);
}

static int pass(struct engine *engine)
{
    go_on_uploading(engine);
    bool is_full = issue(engine);
    bool more = store_flush(engine->store, STORE_PASS_BYTES);
    release(engine);
    bool at_once = more || (can_issue(engine) && !is_full);
    int result = io_run(engine->io, at_once ? 0 : NS_PER_MS);
    if (engine->error == 0 && result < 0)
        engine->error = result;
    return engine->error;
}

int engine_run(struct engine *engine, enum engine_kind kind, uint64_t requests, double seconds,
               struct engine_result *ret_result)
{
    *ret_result = (struct engine_result){0};
    engine->result = ret_result;
    engine->kind = kind;
    engine->begun = 0;
    engine->requests = requests;
    uint64_t start_ns = clock_now_ns();
    uint64_t end_ns = start_ns + (uint64_t)(seconds * 1e9);
    while (ret_result->requests < engine->requests) {
        int error = pass(engine);
        if (error < 0)
            return error;
        if (clock_now_ns() >= end_ns && engine->begun < engine->requests)
            engine->requests = engine->begun; /* what has begun ends */
    }
    ret_result->seconds = (double)(clock_now_ns() - start_ns) / 1e9;
    return 0;
}

/* ---- opening and closing ---- */

static int allocate(struct engine *engine)
{
    uint64_t size = engine->options.value_size;
    engine->callers = calloc(engine->options.callers, sizeof *engine->callers);
    engine->value = malloc(size + 8);
    engine->read = malloc(size + 1);
    if (engine->callers == NULL || engine->value == NULL || engine->read == NULL)
        return -ENOMEM;
    for (uint64_t i = 0; i < size; i += 8) {
        uint64_t noise = prng_next(&engine->prng);
        memcpy(engine->value + i, &noise, sizeof noise);
    }
    list_init(&engine->idle);
    list_init(&engine->waiting);
    for (uint64_t i = 0; i < engine->options.callers; i++) {
        engine->callers[i].engine = engine;
        key_prepare(&engine->keys, engine->callers[i].key);
        list_push_back(&engine->idle, &engine->callers[i].node);
    }
    return 0;
}

static void fill_store_options(struct engine *engine, struct store_options *ret_options)
{
    const struct engine_options *from = &engine->options;
    *ret_options = (struct store_options){
        .path = from->folder,
        .cache_size = from->cache_mib * MIB,
        .log_file_size = 64 * MIB,
        .value_size_max = 100 * MIB,
        .value_file_min = (uint32_t)from->value_file_min,
        .durability = WAL_COMMIT,
        .lock_wait_ns = 10 * NS_PER_S,
        .events = {engine, on_durable, on_room, on_failed},
    };
}

static int open_store(struct engine *engine)
{
    struct store_options options;
    fill_store_options(engine, &options);
    struct io_options io_options = {
        .sockets_max = 16,
        .files_max = store_files_max(),
        .receive_buffer_size = 4096,
        .receive_buffer_count = 16,
        .region_size = store_region_size(&options),
        .busy_poll_ns = 50 * NS_PER_US,
    };
    char message[IO_ERROR_SIZE];
    int error = io_open(&io_options, &engine->io, message);
    if (error < 0) {
        fprintf(stderr, "engine: %s\n", message);
        return error;
    }
    return store_open(engine->io, &engine->log, &options, &engine->store);
}

int engine_open(struct engine *engine, const struct engine_options *options)
{
    *engine = (struct engine){.options = *options, .prng = {.state = 1}};
    log_init_stderr(&engine->log, LOG_WARN);
    int error = key_space_init(&engine->keys, options->keys, (uint32_t)options->key_size, false);
    if (error == 0)
        error = allocate(engine);
    if (error < 0) {
        fprintf(stderr, "engine: %s\n", strerror(-error));
        return error;
    }
    return open_store(engine);
}

void engine_close(struct engine *engine)
{
    if (engine->store != NULL && engine->error == 0 && store_shut(engine->store) < 0)
        fprintf(stderr, "engine: the store did not shut\n");
    if (engine->io != NULL)
        io_close(engine->io);
    if (engine->store != NULL)
        store_free(engine->store);
    free(engine->callers);
    free(engine->value);
    free(engine->read);
}
