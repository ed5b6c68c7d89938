/* Requests for a shard's own keys: the store is called, its statuses become the protocol's. */
#include "shard/shard.h"

#include "base/hash.h"
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
    case STORE_UNREADABLE:
        return MINIVAULT_ERROR;
    case STORE_PENDING:
    case STORE_BUSY:
    case STORE_NO_MEMORY:
        break;
    }
    return MINIVAULT_OVERLOADED;
}

static void fill(struct shard_answer *answer, enum store_status status,
                 const struct store_value *value)
{
    *answer = (struct shard_answer){
        .status = status_of(status), .gate = value->gate, .error = value->error};
    if (status == STORE_OK) {
        answer->data = value->data;
        answer->size = value->size;
        answer->entry = value->entry;
        answer->in_value_file = value->in_value_file;
        answer->file = value->file;
        answer->key = value->key;
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

void shard_locate(const struct shard *shard, struct slice key, bool is_write,
                  struct key_place *ret_place)
{
    uint32_t owner = shard->number;
    if (shard->count > 1)
        owner = hash_partition(hash_key(key.data, key.size)) % shard->count;
    if (owner == shard->number)
        store_prefetch(shard->store, key, is_write, ret_place);
    else
        *ret_place = (struct key_place){0};
    ret_place->owner = (uint16_t)owner;
}

bool shard_get_at_once(struct shard *shard, struct slice key, struct key_place place,
                       struct shard_answer *ret_answer)
{
    enum store_status status;
    struct store_value value;
    if (!store_get_at_once(shard->store, key, place, &status, &value))
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
    if (status == STORE_PENDING) {
        *ret_answer = (struct shard_answer){.in_value_file = value.in_value_file};
        return SHARD_PENDING;
    }
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

static enum shard_outcome set_frame(struct shard *shard, struct slice key, struct slice frame,
                                    struct shard_answer *ret_answer)
{
    uint8_t *data = NULL;
    size_t size = 0;
    int result = store_decode_small(shard->store, frame, &data, &size);
    if (result < 0) {
        *ret_answer = (struct shard_answer){.status = shard_decode_status(result)};
        return SHARD_ANSWERED;
    }
    if (result == 0 || size >= store_value_file_min(shard->store)) {
        free(data);
        return SHARD_LARGE;
    }
    uint64_t gate = 0;
    struct slice decoded = {data, (uint32_t)size};
    enum store_status status = store_set(shard->store, key, frame, decoded, true, &gate);
    free(data);
    return answer_write(status, gate, &shard->sets, ret_answer);
}

bool shard_is_large(const struct shard *shard, uint64_t size, bool zstd)
{
    return zstd ? size > store_frame_size_max(shard->store)
                : size >= store_value_file_min(shard->store);
}

enum shard_outcome shard_set(struct shard *shard, struct slice key, struct slice value, bool zstd,
                             struct shard_answer *ret_answer)
{
    if (shard_is_large(shard, value.size, zstd))
        return SHARD_LARGE;
    if (zstd)
        return set_frame(shard, key, value, ret_answer);
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

uint8_t shard_upload(struct shard *shard, struct slice key, uint64_t size_hint,
                     const struct version *version, const struct value_writer_events *events,
                     struct store_upload **ret_upload)
{
    return status_of(store_upload_begin(shard->store, key, size_hint, version, events, ret_upload));
}

enum shard_outcome shard_upload_commit(struct shard *shard, struct store_upload *upload,
                                       struct slice key, struct shard_answer *ret_answer)
{
    uint64_t gate = 0;
    enum store_status status = store_upload_commit(upload, key, &gate);
    return answer_write(status, gate, &shard->sets, ret_answer);
}

uint8_t shard_upload_failed(struct shard *shard, int error)
{
    enum store_status status = store_upload_failed(shard->store, error);
    return status == STORE_FAILED ? MINIVAULT_NOT_APPLIED : status_of(status);
}

int shard_download(struct shard *shard, const struct shard_answer *answer,
                   const struct value_reader_events *events, struct value_reader **ret_reader)
{
    struct store_value value = {
        .data = answer->data, .size = answer->size, .in_value_file = true, .file = answer->file};
    return store_download_open(shard->store, &value, events, ret_reader);
}
