#include "shard/shard.h"

#include "base/units.h"

#include <errno.h>
#include <stdlib.h>

static uint8_t status_of(enum store_status status)
{
    switch (status) {
    case STORE_OK:
        return MINIVAULT_OK;
    case STORE_NOT_FOUND:
        return MINIVAULT_NOT_FOUND;
    case STORE_NO_SPACE:
        return MINIVAULT_NO_SPACE;
    case STORE_CORRUPT:
        return MINIVAULT_CORRUPT;
    case STORE_TOO_LARGE:
        return MINIVAULT_TOO_LARGE;
    case STORE_FAILED:
        return MINIVAULT_NOT_READY;
    case STORE_PENDING:
    case STORE_BUSY:
        break;
    }
    return MINIVAULT_OVERLOADED;
}

static void fill(struct shard_answer *answer, enum store_status status,
                 const struct store_value *value)
{
    *answer = (struct shard_answer){.status = status_of(status), .gate = value->gate};
    if (status == STORE_OK) {
        answer->data = value->data;
        answer->size = value->size;
        answer->entry = value->entry;
    }
}

static void waiter_done(struct store_waiter *store_waiter, enum store_status status,
                        const struct store_value *value)
{
    struct shard_waiter *waiter = container_of(store_waiter, struct shard_waiter, store);
    struct shard_answer answer;
    fill(&answer, status, value);
    waiter->done(waiter, &answer);
}

bool shard_get_cached(struct shard *shard, struct slice key, struct store_place place,
                      struct shard_answer *ret_answer)
{
    enum store_status status;
    struct store_value value;
    if (!store_get_cached(shard->store, key, place, &status, &value))
        return false;
    shard->gets++;
    fill(ret_answer, status, &value);
    return true;
}

enum shard_outcome shard_get(struct shard *shard, struct slice key, struct shard_waiter *waiter,
                             struct shard_answer *ret_answer)
{
    waiter->store.done = waiter_done;
    struct store_value value;
    enum store_status status = store_get(shard->store, key, &waiter->store, &value);
    if (status == STORE_BUSY)
        return SHARD_BUSY;
    shard->gets++;
    if (status == STORE_PENDING)
        return SHARD_PENDING;
    fill(ret_answer, status, &value);
    return SHARD_ANSWERED;
}

static enum shard_outcome answer_write(enum store_status status, uint64_t gate, uint64_t *count,
                                       struct shard_answer *ret_answer)
{
    if (status == STORE_BUSY)
        return SHARD_BUSY;
    (*count)++;
    *ret_answer = (struct shard_answer){.status = status_of(status), .gate = gate};
    return SHARD_ANSWERED;
}

enum shard_outcome shard_delete(struct shard *shard, struct slice key,
                                struct shard_answer *ret_answer)
{
    uint64_t gate = 0;
    enum store_status status = store_delete(shard->store, key, &gate);
    return answer_write(status, gate, &shard->deletes, ret_answer);
}

enum shard_outcome shard_set_decoded(struct shard *shard, struct slice key, struct slice frame,
                                     struct slice decoded, struct shard_answer *ret_answer)
{
    uint64_t gate = 0;
    enum store_status status = store_set(shard->store, key, frame, decoded, true, &gate);
    return answer_write(status, gate, &shard->sets, ret_answer);
}

static enum shard_outcome set_small_frame(struct shard *shard, struct slice key, struct slice frame,
                                          struct shard_answer *ret_answer)
{
    uint8_t *data = NULL;
    size_t size = 0;
    int result = store_decode_small(shard->store, frame, &data, &size);
    if (result == 0)
        return SHARD_DECODE;
    if (result < 0) {
        *ret_answer = (struct shard_answer){.status = shard_decode_status(result)};
        return SHARD_ANSWERED;
    }
    enum shard_outcome outcome =
        shard_set_decoded(shard, key, frame, (struct slice){data, (uint32_t)size}, ret_answer);
    free(data);
    return outcome;
}

enum shard_outcome shard_set(struct shard *shard, struct slice key, struct slice value, bool zstd,
                             struct shard_answer *ret_answer)
{
    if (zstd)
        return set_small_frame(shard, key, value, ret_answer);
    uint64_t gate = 0;
    enum store_status status = store_set(shard->store, key, value, value, false, &gate);
    return answer_write(status, gate, &shard->sets, ret_answer);
}

uint8_t shard_decode_status(int error)
{
    switch (error) {
    case -EFBIG:
        return MINIVAULT_TOO_LARGE;
    case -ENOMEM:
        return MINIVAULT_OVERLOADED;
    default:
        return MINIVAULT_BAD_REQUEST;
    }
}
