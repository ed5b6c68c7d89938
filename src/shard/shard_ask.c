/* The asker's side: requests for keys of other shards, and the answers to them. The asserts cite the
 * invariants of shard.h. */
#include "shard/shard.h"

#include "base/assert.h"
#include "base/units.h"
#include "shard/shard_mail.h"

#include <stdlib.h>
#include <string.h>

/* The answers over which the mean of the memory that they bring is taken. */
#define MEAN_OVER 16u

static enum shard_outcome busy(struct shard *shard)
{
    shard->is_starved = true;
    return SHARD_BUSY;
}

static void tell_room(struct shard *shard)
{
    if (!shard->is_starved)
        return;
    shard->is_starved = false;
    shard->events.room(shard->events.context);
}

/* The key, for an answer that shows it (in_value_file), and for an owner when it is too long for the
 * message. */
static const uint8_t *key_of(const struct shard_waiter *waiter)
{
    if (waiter->copy != NULL)
        return waiter->copy;
    return waiter->key_size <= SHARD_MAIL_KEY_MAX
               ? waiter->lent
               : waiter->lent + waiter->lent_size - waiter->key_size;
}

/* ---- asking ---- */

/* Puts key and value where the owner reads them: the value at the begin of the lent memory, the key
 * at its end. A short key travels in the message; it is stored, at the begin, only for a request
 * without a value, whose answer may show it. What does not fit goes into memory of its own. Returns
 * false when there is none. */
static bool save(struct shard *shard, struct slice key, struct slice value,
                 struct shard_waiter *waiter)
{
    waiter->copy = NULL;
    waiter->key_size = key.size;
    uint64_t size = (uint64_t)key.size + value.size;
    if (size + SHARD_LENT_MIN / 2 <= waiter->lent_size) {
        if (key.size > SHARD_MAIL_KEY_MAX)
            memcpy(waiter->lent + waiter->lent_size - key.size, key.data, key.size);
        else if (value.size == 0)
            memcpy(waiter->lent, key.data, key.size);
        if (value.size > 0)
            memcpy(waiter->lent, value.data, value.size);
        return true;
    }
    uint64_t size_max = share_u64(SHARD_COPY_BYTES_MAX, shard->parts, SHARD_COPY_BYTES_MIN);
    if (shard->copy_bytes + size > size_max && shard->copy_bytes > 0)
        return false;
    waiter->copy = malloc(size);
    if (waiter->copy == NULL)
        return false;
    waiter->copy_size = (uint32_t)size;
    shard->copy_bytes += size;
    memcpy(waiter->copy, key.data, key.size);
    if (value.size > 0)
        memcpy(waiter->copy + key.size, value.data, value.size);
    return true;
}

static void answered(struct post_request *request, const void *body);

/* A value without bytes is a pointer that travels as it is. */
static enum shard_outcome ask(struct shard *shard, struct key_place place,
                              enum shard_mail_kind kind, struct slice key, struct slice value,
                              struct shard_waiter *waiter)
{
    assert(!shard_owns(shard, place));
    assert(waiter->lent_size >= SHARD_LENT_MIN);
    if (post_credits(shard->post, place.owner) == 0 || !save(shard, key, value, waiter))
        return busy(shard);
    waiter->shard = shard;
    waiter->post = (struct post_request){.answered = answered};
    struct shard_mail_ask *body = post_ask(shard->post, place.owner, &waiter->post);
    assert(body != NULL);
    const uint8_t *saved = waiter->copy != NULL ? waiter->copy + key.size : waiter->lent;
    *body = (struct shard_mail_ask){
        .kind = (uint8_t)kind,
        .lent = waiter->lent,
        .lent_size = waiter->lent_size - (waiter->copy == NULL ? key.size : 0),
        .value = value.size > 0 ? saved : value.data,
        .value_size = value.size,
    };
    bool is_sent = key.size <= SHARD_MAIL_KEY_MAX;
    shard_mail_set_key(body, is_sent ? key.data : key_of(waiter), (uint16_t)key.size);
    shard->asked++;
    return SHARD_PENDING;
}

/* A value's size is known only when it comes. So outstanding GETs are limited by the recent mean of
 * the memory that answers brought; an owner refuses to send more than twice as much. */
enum shard_outcome shard_ask_get(struct shard *shard, struct key_place place, struct slice key,
                                 struct shard_waiter *waiter)
{
    uint64_t expected = (shard->gets_asked + 1) * shard->answer_mean;
    if (shard->gets_asked > 0 && expected > shard->answers_max)
        return busy(shard);
    enum shard_outcome outcome = ask(shard, place, SHARD_MAIL_GET, key, (struct slice){0}, waiter);
    waiter->is_get = outcome == SHARD_PENDING;
    shard->gets_asked += waiter->is_get;
    return outcome;
}

static void learn(struct shard *shard, const struct shard_answer *answer)
{
    bool has_memory = answer->memory != NULL && !answer->in_value_file;
    assert(shard->gets_asked > 0); /* invariant 3 */
    shard->answer_mean -= shard->answer_mean / MEAN_OVER;
    shard->answer_mean += has_memory ? answer->size / MEAN_OVER : 0;
    shard->gets_asked--;
}

enum shard_outcome shard_ask_delete(struct shard *shard, struct key_place place, struct slice key,
                                    struct shard_waiter *waiter)
{
    return ask(shard, place, SHARD_MAIL_DELETE, key, (struct slice){0}, waiter);
}

/* Whether a frame decodes to a value for a file. Most tell; one that does not is decoded, to see.
 * The owner decodes it again, and judges the wrong ones. */
static bool is_large_frame(struct shard *shard, struct slice frame)
{
    uint64_t size_min = store_value_file_min(shard->store);
    if (compress_declared_size(frame.data, frame.size) != 0)
        return compress_declared_size(frame.data, frame.size) >= size_min;
    uint8_t *data = NULL;
    size_t size = 0;
    int result = store_decode_small(shard->store, frame, &data, &size);
    free(data);
    return result == 0 || size >= size_min;
}

enum shard_outcome shard_ask_set(struct shard *shard, struct key_place place, struct slice key,
                                 struct slice value, bool zstd, struct shard_waiter *waiter)
{
    if (shard_is_large(shard, value.size, zstd) || (zstd && is_large_frame(shard, value)))
        return SHARD_LARGE;
    enum shard_mail_kind kind = zstd ? SHARD_MAIL_SET_FRAME : SHARD_MAIL_SET;
    return ask(shard, place, kind, key, value, waiter);
}

enum shard_outcome shard_ask_version(struct shard *shard, struct key_place place, struct slice key,
                                     struct shard_waiter *waiter)
{
    return ask(shard, place, SHARD_MAIL_VERSION, key, (struct slice){0}, waiter);
}

enum shard_outcome shard_ask_commit(struct shard *shard, struct key_place place, struct slice key,
                                    struct store_upload *upload, struct shard_waiter *waiter)
{
    struct slice file = {(const uint8_t *)store_upload_file(upload), 0};
    enum shard_outcome outcome = ask(shard, place, SHARD_MAIL_COMMIT, key, file, waiter);
    if (outcome == SHARD_PENDING)
        waiter->upload = upload;
    return outcome;
}

/* ---- files that were lent ---- */

struct release {
    struct post_request request;
    struct shard *shard;
    struct value_file_name file;
    struct list_node node; /* until it is posted */
};

static void released(struct post_request *request, const void *body)
{
    struct release *release = container_of(request, struct release, request);
    struct shard *shard = release->shard;
    (void)body;
    free(release);
    tell_room(shard); /* its credit is one that others wait for */
}

static bool post_release(struct shard *shard, struct release *release)
{
    uint32_t owner = release->file.partition % shard->count;
    struct shard_mail_ask *body = post_ask(shard->post, owner, &release->request);
    if (body == NULL)
        return false;
    *body = (struct shard_mail_ask){.kind = SHARD_MAIL_RELEASE,
                                    .value = (const uint8_t *)&release->file};
    return true;
}

void shard_post_releases(struct shard *shard)
{
    for (struct list_node *node; (node = list_first(&shard->releases)) != NULL;) {
        if (!post_release(shard, container_of(node, struct release, node)))
            return;
        list_remove(node);
    }
}

void shard_forget_releases(struct shard *shard)
{
    for (struct list_node *node; (node = list_pop_front(&shard->releases)) != NULL;)
        free(container_of(node, struct release, node));
}

void shard_release_file(struct shard *shard, const struct value_file_name *file)
{
    struct release *release = calloc(1, sizeof *release);
    if (release == NULL)
        return; /* the file stays until the next start, though nothing may name it any more */
    release->request.answered = released;
    release->shard = shard;
    release->file = *file;
    list_push_back(&shard->releases, &release->node);
    shard_post_releases(shard);
}

/* ---- the answer ---- */

static void answered(struct post_request *request, const void *body)
{
    struct shard_waiter *waiter = container_of(request, struct shard_waiter, post);
    struct shard *shard = waiter->shard;
    uint8_t *copy = waiter->copy;
    uint32_t copy_size = waiter->copy_size;
    struct shard_answer answer;
    bool is_committed = shard_mail_read(body, waiter->lent, &answer);
    if (answer.in_value_file)
        answer.key = (struct slice){key_of(waiter), waiter->key_size};
    if (waiter->is_get)
        learn(shard, &answer);
    waiter->is_get = false;
    if (is_committed)
        store_upload_hand_over(waiter->upload);
    waiter->done(waiter, &answer); /* the waiter may be gone now */
    if (copy != NULL) {
        assert(shard->copy_bytes >= copy_size); /* invariant 4 */
        shard->copy_bytes -= copy_size;
        free(copy);
    }
    tell_room(shard);
}
