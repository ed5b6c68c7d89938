/* Sets of large values, which go to files of their own by an upload. */
#include "engine.h"

#include <errno.h>
#include <string.h>

static void fail(struct caller *caller, int error)
{
    if (caller->engine->error == 0)
        caller->engine->error = error;
}

static void room(void *context)
{
    engine_upload(context);
}

static void commit(struct caller *caller)
{
    struct slice key = engine_key(caller);
    enum store_status status = store_upload_commit(caller->upload, key, &caller->gate);
    if (status == STORE_BUSY)
        return; /* the next pass tries again */
    store_upload_close(caller->upload);
    caller->upload = NULL;
    caller->engine->uploading--;
    if (status != STORE_OK)
        fail(caller, -EIO);
    engine_wait(caller);
}

static void finished(void *context, int result)
{
    struct caller *caller = context;
    caller->is_finished = true;
    if (result < 0)
        fail(caller, result);
}

/* Returns false when there is no memory now. */
static bool fill(struct caller *caller)
{
    struct engine *engine = caller->engine;
    struct value_writer *writer = store_upload_writer(caller->upload);
    uint32_t space = 0;
    uint8_t *buffer = value_writer_buffer(writer, &space);
    if (buffer == NULL) {
        fail(caller, value_writer_error(writer));
        return false;
    }
    uint32_t size = (uint32_t)min_u64(space, engine->options.value_size - caller->uploaded);
    memcpy(buffer, engine->value + caller->uploaded, size);
    caller->uploaded += size;
    fail(caller, value_writer_filled(writer, size));
    return true;
}

static bool begin(struct caller *caller)
{
    struct engine *engine = caller->engine;
    struct value_writer_events events = {.context = caller, .room = room, .finished = finished};
    if (!store_has_stream(engine->store)) {
        fail(caller, -EBUSY); /* more callers than it has streams */
        return false;
    }
    caller->uploaded = 0;
    caller->is_finishing = false;
    caller->is_finished = false;
    enum store_status status =
        store_upload_begin(engine->store, engine_key(caller), engine->options.value_size, NULL,
                           &events, &caller->upload);
    if (status != STORE_OK)
        fail(caller, -EIO);
    return status == STORE_OK;
}

void engine_upload(struct caller *caller)
{
    struct engine *engine = caller->engine;
    if (caller->upload == NULL && !begin(caller))
        return;
    while (caller->uploaded < engine->options.value_size && engine->error == 0)
        if (!fill(caller))
            return;
    if (engine->error < 0)
        return;
    if (!caller->is_finishing) {
        caller->is_finishing = true;
        value_writer_finish(store_upload_writer(caller->upload));
    } else if (caller->is_finished) {
        commit(caller);
    }
}
