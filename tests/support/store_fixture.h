/* A store in a fresh directory on a real disk, over the real world, driven pass by pass. */
#ifndef TESTS_SUPPORT_STORE_FIXTURE_H
#define TESTS_SUPPORT_STORE_FIXTURE_H

#include "base/units.h"
#include "io/io.h"
#include "store/store.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fixture {
    char path[256];
    struct log log;
    struct io *io;
    struct store *store;
    struct store_options options;
    uint32_t files_max;
    uint32_t rooms;
    int failed;
};

static inline void fixture_durable(void *context, uint64_t position)
{
    (void)context;
    (void)position;
}

static inline void fixture_room(void *context)
{
    ((struct fixture *)context)->rooms++;
}

static inline void fixture_failed(void *context, int error)
{
    ((struct fixture *)context)->failed = error;
}

static inline int fixture_try_open(struct fixture *fixture)
{
    struct io_options options = {.sockets_max = 16,
                                 .files_max = fixture->files_max,
                                 .receive_buffer_size = 4096,
                                 .receive_buffer_count = 16,
                                 .region_size = store_region_size(&fixture->options)};
    char message[IO_ERROR_SIZE];
    cr_assert_eq(io_open(&options, &fixture->io, message), 0, "%s", message);
    fixture->store = NULL;
    return store_open(fixture->io, &fixture->log, &fixture->options, &fixture->store);
}

static inline void fixture_open(struct fixture *fixture)
{
    int result = fixture_try_open(fixture);
    cr_assert_eq(result, 0, "store_open: %d", result);
}

static inline void fixture_init(struct fixture *fixture, uint64_t cache_size)
{
    memset(fixture, 0, sizeof *fixture);
    (void)snprintf(fixture->path, sizeof fixture->path, "build/tmp-store-%d-XXXXXX", (int)getpid());
    cr_assert_eq(system("mkdir -p build"), 0);
    cr_assert_not_null(mkdtemp(fixture->path));
    log_init_stderr(&fixture->log, LOG_ERROR);
    fixture->files_max = 256;
    fixture->options = (struct store_options){
        .path = fixture->path,
        .cache_size = cache_size,
        .log_file_size = 4 * MIB,
        .value_size_max = 1 * MIB,
        .durability = WAL_COMMIT,
        .lock_wait_ns = 0,
        .events = {fixture, fixture_durable, fixture_room, fixture_failed},
    };
}

static inline void fixture_start(struct fixture *fixture, uint64_t cache_size)
{
    fixture_init(fixture, cache_size);
    fixture_open(fixture);
}

static inline void fixture_pass(struct fixture *fixture)
{
    bool more = store_flush(fixture->store, STORE_PASS_BYTES);
    cr_assert_geq(io_run(fixture->io, more ? 0 : 20 * NS_PER_MS), 0);
}

/* Until everything appended is durable. */
static inline void fixture_settle(struct fixture *fixture, uint64_t gate)
{
    for (int i = 0; i < 1000 && store_durable(fixture->store) < gate; i++)
        fixture_pass(fixture);
    cr_assert_geq(store_durable(fixture->store), gate);
}

/* A clean end. */
static inline void fixture_shut(struct fixture *fixture)
{
    cr_assert_eq(store_shut(fixture->store), 0);
    io_close(fixture->io);
    store_free(fixture->store);
}

/* An end as by kill -9: whatever the world has not got is gone. */
static inline void fixture_kill(struct fixture *fixture)
{
    io_close(fixture->io);
    store_free(fixture->store);
}

static inline void fixture_remove(struct fixture *fixture)
{
    char command[512];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", fixture->path);
    cr_assert_eq(system(command), 0);
}

static inline struct slice text(const char *string)
{
    return (struct slice){(const uint8_t *)string, (uint32_t)strlen(string)};
}

static inline uint64_t fixture_set(struct fixture *fixture, struct slice key, struct slice value)
{
    uint64_t gate = 0;
    enum store_status status;
    for (int i = 0; i < 1000; i++) {
        status = store_set(fixture->store, key, value, value, false, &gate);
        if (status != STORE_BUSY)
            break;
        fixture_pass(fixture);
    }
    cr_assert_eq(status, STORE_OK, "set: %d", status);
    return gate;
}

static inline uint64_t fixture_delete(struct fixture *fixture, struct slice key)
{
    uint64_t gate = 0;
    enum store_status status;
    for (int i = 0; i < 1000; i++) {
        status = store_delete(fixture->store, key, &gate);
        if (status != STORE_BUSY)
            break;
        fixture_pass(fixture);
    }
    cr_assert_eq(status, STORE_OK, "delete: %d", status);
    return gate;
}

/* What a get found, copied: value is malloc'ed. */
struct found {
    struct store_waiter waiter;
    bool done;
    enum store_status status;
    uint8_t *value;
    uint32_t size;
};

static inline void found_fill(struct found *found, enum store_status status,
                              const struct store_value *value)
{
    found->done = true;
    found->status = status;
    if (status != STORE_OK)
        return;
    found->size = value->size;
    found->value = malloc(value->size + 1);
    memcpy(found->value, value->data, value->size);
    found->value[value->size] = '\0';
}

static inline void found_done(struct store_waiter *waiter, enum store_status status,
                              const struct store_value *value)
{
    found_fill(container_of(waiter, struct found, waiter), status, value);
}

static inline enum store_status fixture_get(struct fixture *fixture, struct slice key,
                                            struct found *ret_found)
{
    memset(ret_found, 0, sizeof *ret_found);
    ret_found->waiter.done = found_done;
    for (int i = 0; i < 1000; i++) {
        struct store_value value;
        enum store_status status = store_get(fixture->store, key, &ret_found->waiter, &value);
        if (status != STORE_BUSY && status != STORE_PENDING)
            found_fill(ret_found, status, &value);
        if (status != STORE_BUSY)
            break;
        fixture_pass(fixture);
    }
    for (int i = 0; i < 1000 && !ret_found->done; i++)
        fixture_pass(fixture);
    cr_assert(ret_found->done, "the get was never answered");
    return ret_found->status;
}

static inline void fixture_expect(struct fixture *fixture, struct slice key, struct slice value)
{
    struct found found;
    enum store_status status = fixture_get(fixture, key, &found);
    cr_assert_eq(status, STORE_OK, "get %.*s: %d", (int)key.size, key.data, status);
    cr_assert_eq(found.size, value.size);
    cr_assert_eq(memcmp(found.value, value.data, value.size), 0);
    free(found.value);
}

static inline void fixture_expect_absent(struct fixture *fixture, struct slice key)
{
    struct found found;
    enum store_status status = fixture_get(fixture, key, &found);
    cr_assert_eq(status, STORE_NOT_FOUND, "get %.*s: %d", (int)key.size, key.data, status);
}

#endif
