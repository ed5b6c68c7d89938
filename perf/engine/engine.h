/* The storage engine in process: a store over io_uring that so many callers use at a time, as
 * db_bench's threads do. A caller's set is over when it is on stable media, and only then does it
 * begin the next one; so there are at most `callers` writes in flight.
 *
 * engine.c runs the phases, upload.c does the sets of values that go to a file of their own. */
#ifndef PERF_ENGINE_ENGINE_H
#define PERF_ENGINE_ENGINE_H

#include "../mvload/keys.h"

#include "base/histogram.h"
#include "base/list.h"
#include "io/io.h"
#include "store/store.h"
#include "store/store_large.h"

#include <stdbool.h>
#include <stdint.h>

enum engine_kind {
    ENGINE_FILL_RANDOM,     /* sets of keys drawn from all */
    ENGINE_FILL_SEQUENTIAL, /* sets of all keys, one after the other */
    ENGINE_READ_RANDOM,     /* gets of keys drawn from all; some may be absent */
};

struct engine_options {
    const char *folder;
    uint64_t callers;
    uint64_t keys;
    uint64_t key_size;
    uint64_t value_size;
    uint64_t cache_mib;
    uint64_t value_file_min; /* 0: the store's own */
};

struct engine_result {
    uint64_t requests;
    uint64_t misses;
    double seconds;
    struct histogram latency;
};

struct engine;

/* One of the callers: at most one request at a time. */
struct caller {
    struct list_node node; /* idle, or waiting for the media */
    struct engine *engine;
    struct store_waiter waiter;
    struct store_upload *upload;
    uint64_t uploaded; /* bytes of the value that the writer has */
    bool is_finishing; /* the writer was told that this was all */
    bool is_finished;  /* the file is on stable media: it can be committed */
    bool has_key;      /* a request that was refused for want of room: the same again */
    uint64_t gate;
    uint64_t began_ns;
    uint8_t key[KEY_SIZE_MAX];
};

struct engine {
    struct engine_options options;
    struct log log;
    struct io *io;
    struct store *store;
    struct key_space keys;
    struct prng prng;
    uint8_t *value;
    uint8_t *read; /* where gets copy what they found */
    struct caller *callers;
    struct list idle;
    struct list waiting; /* for their gates, in the order of the log */
    uint32_t uploading;
    enum engine_kind kind;
    uint64_t begun;
    uint64_t requests; /* of this phase, all told */
    int error;
    struct engine_result *result;
};

/* Opens or formats the folder. Says on stderr what failed. Errors: -errno. */
int engine_open(struct engine *engine, const struct engine_options *options);

/* Runs a phase of `requests` requests, or of `seconds` at most. Errors: -errno; -EIO: a request was
 * refused or found damage. */
int engine_run(struct engine *engine, enum engine_kind kind, uint64_t requests, double seconds,
               struct engine_result *ret_result);

/* Shuts the store cleanly. */
void engine_close(struct engine *engine);

/* The caller's request is over. */
void engine_finish(struct caller *caller);

/* Goes on as far as it can now; again when the store has room, or has written. Ends in the list of
 * those that wait for their gate. */
void engine_upload(struct caller *caller);

/* Waits for its gate from now on. */
static inline void engine_wait(struct caller *caller)
{
    list_push_back(&caller->engine->waiting, &caller->node);
}

static inline struct slice engine_key(const struct caller *caller)
{
    return (struct slice){caller->key, caller->engine->keys.key_size};
}

#endif
