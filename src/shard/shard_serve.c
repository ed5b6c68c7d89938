/* The owner's side: what other shards ask of this one's keys.
 *
 *   mail -> arrived -> executed -------------------> answered
 *                        |   |                          ^
 *                        |   +-> gated: not durable yet-+
 *                        |   +-> pending: on the disk --+
 *                        v
 *                      waiting: the store has no room; executed again in order
 *
 * What arrives in a pass is executed behind it, so that the cache misses of its keys overlap. A
 * write that has to wait makes those behind it wait, too, and gets of keys that such a write may be
 * about: so requests for one key keep their order. The asserts cite the invariants of shard.h. */
#include "shard/shard.h"

#include "base/assert.h"
#include "base/units.h"
#include "shard/shard_mail.h"
#include "store/store_keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* How far ahead of its execution a request's cache entry is loaded. */
#define AHEAD 8u

/* Bytes of memory that answers to gets bring from other shards, on their way at a time, in a node;
 * each shard has its part. */
#define ANSWERS_MAX (16 * MIB)
#define ANSWERS_MIN (1 * MIB)

struct serving {
    struct shard_waiter waiter; /* of a get that is pending */
    struct shard *shard;
    struct post_request *request;
    uint64_t gate;
    struct store_upload *upload; /* of a commit that waits, or NULL */
    struct shard_mail_ask ask;
    struct shard_mail_reply reply;
    struct key_place place;
    uint32_t from;
    struct list_node node;
};

static struct serving *of_node(struct list_node *node)
{
    return container_of(node, struct serving, node);
}

/* ---- the end ---- */

static void post_reply(struct serving *serving)
{
    struct shard *shard = serving->shard;
    void *body = post_answer(shard->post, serving->from, serving->request);
    memcpy(body, &serving->reply, sizeof serving->reply);
    pool_put(&shard->inbox.servings, serving);
}

static void finish(struct serving *serving, uint64_t gate)
{
    struct shard *shard = serving->shard;
    serving->gate = gate;
    if (gate <= store_durable(shard->store))
        post_reply(serving);
    else
        list_push_back(&shard->inbox.gated, &serving->node);
}

/* Gates grow as requests are executed, all but those of gets, which may wait a little longer than
 * they have to. */
static void release_gated(struct shard *shard)
{
    uint64_t durable = store_durable(shard->store);
    for (struct list_node *node; (node = list_first(&shard->inbox.gated)) != NULL;) {
        if (of_node(node)->gate > durable)
            return;
        list_remove(node);
        post_reply(of_node(node));
    }
}

/* ---- values ---- */

/* Whether an answer may take so much memory along: not more is on its way than twice what the asker
 * reckons with. What it had not taken when `posted` was written down may still be on its way. */
static bool may_carry(struct shard *shard, uint32_t to, uint64_t size)
{
    struct shard_carried *carried = &shard->inbox.carried[to];
    if (post_has_taken(shard->post, to, carried->posted)) {
        carried->before = carried->since;
        carried->since = 0;
        carried->posted = post_posted(shard->post, to);
    }
    uint64_t all = carried->before + carried->since;
    if (all > 0 && all + size > 2 * shard->answers_max)
        return false;
    carried->since += size;
    return true;
}

/* Puts the value where the asker finds it. Returns false when there is no memory for it. */
static bool put_value(struct serving *serving, const struct shard_answer *answer)
{
    struct shard_mail_reply *reply = &serving->reply;
    reply->size = answer->size;
    if (answer->size == 0)
        return true;
    uint8_t *to;
    if (!answer->in_value_file && answer->size <= SHARD_MAIL_VALUE_MAX) {
        reply->where = SHARD_MAIL_HERE;
        to = reply->bytes;
    } else if (!answer->in_value_file && answer->size <= serving->ask.lent_size) {
        reply->where = SHARD_MAIL_IN_LENT;
        to = serving->ask.lent;
    } else {
        if (!answer->in_value_file && !may_carry(serving->shard, serving->from, answer->size))
            return false;
        reply->where = SHARD_MAIL_IN_MEMORY;
        to = malloc(answer->size);
        if (to == NULL)
            return false;
        reply->memory = to;
        reply->file = answer->file;
    }
    memcpy(to, answer->data, answer->size);
    return true;
}

static void finish_get(struct serving *serving, const struct shard_answer *answer)
{
    serving->reply =
        (struct shard_mail_reply){.status = answer->status, .in_value_file = answer->in_value_file};
    struct store *store = serving->shard->store;
    bool is_lent = !answer->in_value_file || store_lend_file(store, &answer->file);
    bool is_put = is_lent && put_value(serving, answer);
    if (is_lent && !is_put && answer->in_value_file)
        store_take_back_file(store, &answer->file);
    if (!is_put)
        serving->reply = (struct shard_mail_reply){.status = MINIVAULT_OVERLOADED};
    else if (answer->status == MINIVAULT_ERROR)
        serving->reply.size = (uint32_t)-answer->error;
    finish(serving, answer->gate);
}

static void finish_write(struct serving *serving, const struct shard_answer *answer)
{
    serving->reply = (struct shard_mail_reply){.status = answer->status};
    finish(serving, answer->gate);
}

static void get_done(struct shard_waiter *waiter, const struct shard_answer *answer)
{
    finish_get(container_of(waiter, struct serving, waiter), answer);
}

/* ---- execution: false: the store has no room for it ---- */

static bool execute_get(struct serving *serving)
{
    struct shard *shard = serving->shard;
    struct slice key = shard_mail_key(&serving->ask);
    struct shard_answer answer;
    if (!shard_get_at_once(shard, key, serving->place, &answer)) {
        serving->waiter = (struct shard_waiter){.done = get_done};
        enum shard_outcome outcome = shard_get(shard, key, &serving->waiter, &answer);
        if (outcome != SHARD_ANSWERED)
            return outcome == SHARD_PENDING;
    }
    finish_get(serving, &answer);
    return true;
}

static bool execute_set(struct serving *serving)
{
    const struct shard_mail_ask *ask = &serving->ask;
    struct slice value = {ask->value, ask->value_size};
    struct shard_answer answer;
    switch (shard_set(serving->shard, shard_mail_key(ask), value, ask->kind == SHARD_MAIL_SET_FRAME,
                      &answer)) {
    case SHARD_BUSY:
        return false;
    case SHARD_LARGE: /* a frame that decodes to more than it says */
        answer = (struct shard_answer){.status = MINIVAULT_BAD_REQUEST};
        break;
    default:
        break;
    }
    finish_write(serving, &answer);
    return true;
}

static bool execute_delete(struct serving *serving)
{
    struct shard_answer answer;
    if (shard_delete(serving->shard, shard_mail_key(&serving->ask), &answer) == SHARD_BUSY)
        return false;
    finish_write(serving, &answer);
    return true;
}

static bool execute_version(struct serving *serving)
{
    struct store *store = serving->shard->store;
    bool is_taken = store_takes_key(store, shard_mail_key(&serving->ask));
    serving->reply =
        (struct shard_mail_reply){.status = is_taken ? MINIVAULT_OK : MINIVAULT_OVERLOADED};
    serving->reply.file.version = store_stamp(store);
    finish(serving, 0);
    return true;
}

static bool execute_commit(struct serving *serving)
{
    struct shard *shard = serving->shard;
    struct shard_answer answer = {.status = MINIVAULT_OVERLOADED};
    bool is_committed = false;
    if (serving->upload == NULL)
        serving->upload = store_adopt(shard->store, (const struct store_file *)serving->ask.value);
    if (serving->upload != NULL) {
        if (shard_upload_commit(shard, serving->upload, shard_mail_key(&serving->ask), &answer) ==
            SHARD_BUSY)
            return false;
        is_committed = store_upload_is_committed(serving->upload);
        store_upload_close(serving->upload);
    }
    serving->reply =
        (struct shard_mail_reply){.status = answer.status, .is_committed = is_committed};
    finish(serving, answer.gate);
    return true;
}

static bool execute_release(struct serving *serving)
{
    struct value_file_name file;
    memcpy(&file, serving->ask.value, sizeof file);
    store_take_back_file(serving->shard->store, &file);
    serving->reply = (struct shard_mail_reply){.status = MINIVAULT_OK};
    finish(serving, 0);
    return true;
}

static bool execute(struct serving *serving)
{
    switch ((enum shard_mail_kind)serving->ask.kind) {
    case SHARD_MAIL_GET:
        return execute_get(serving);
    case SHARD_MAIL_SET:
    case SHARD_MAIL_SET_FRAME:
        return execute_set(serving);
    case SHARD_MAIL_DELETE:
        return execute_delete(serving);
    case SHARD_MAIL_VERSION:
        return execute_version(serving);
    case SHARD_MAIL_COMMIT:
        return execute_commit(serving);
    case SHARD_MAIL_RELEASE:
        return execute_release(serving);
    }
    assert(false);
    return true;
}

/* ---- waiting for room ---- */

static bool is_write(const struct shard_mail_ask *ask)
{
    uint8_t kind = ask->kind;
    return kind == SHARD_MAIL_SET || kind == SHARD_MAIL_SET_FRAME || kind == SHARD_MAIL_DELETE ||
           kind == SHARD_MAIL_COMMIT;
}

static uint64_t key_bit(const struct serving *serving)
{
    return (uint64_t)1 << (serving->place.keyed >> 58);
}

static void wait_for_room(struct shard_inbox *inbox, struct serving *serving)
{
    list_push_back(&inbox->waiting, &serving->node);
    inbox->waiting_keys |= key_bit(serving);
    inbox->waiting_count += is_write(&serving->ask);
}

static bool must_wait(const struct shard_inbox *inbox, const struct serving *serving)
{
    return (is_write(&serving->ask) && inbox->waiting_count > 0) ||
           (inbox->waiting_keys & key_bit(serving)) != 0;
}

void shard_retry(struct shard *shard)
{
    struct shard_inbox *inbox = &shard->inbox;
    if (shard->post == NULL)
        return;
    for (struct list_node *node; (node = list_first(&inbox->waiting)) != NULL;) {
        struct serving *serving = of_node(node);
        bool was_write = is_write(&serving->ask);
        list_remove(node);
        if (!execute(serving)) {
            list_push_front(&inbox->waiting, node);
            return;
        }
        assert(inbox->waiting_count >= was_write); /* invariant 1 */
        inbox->waiting_count -= was_write;
    }
    assert(inbox->waiting_count == 0); /* invariant 1 */
    inbox->waiting_keys = 0;
}

/* ---- arriving ---- */

static void asked(void *context, uint32_t from, struct post_request *request, const void *body)
{
    struct shard *shard = context;
    struct serving *serving = pool_get(&shard->inbox.servings);
    assert(serving != NULL); /* there are as many as all others' credits */
    serving->shard = shard;
    serving->request = request;
    serving->from = from;
    serving->upload = NULL;
    memcpy(&serving->ask, body, sizeof serving->ask);
    /* Not out of the copy, which is still on its way to memory. */
    store_prefetch(shard->store, shard_mail_key(body), is_write(body), &serving->place);
    list_push_back(&shard->inbox.arrived, &serving->node);
}

static struct list_node *load(struct shard *shard, struct list_node *node)
{
    if (node == NULL)
        return NULL;
    struct serving *serving = of_node(node);
    store_prefetch_entry(shard->store, shard_mail_key(&serving->ask), &serving->place);
    return list_next(&shard->inbox.arrived, node);
}

static void execute_arrived(struct shard *shard)
{
    struct shard_inbox *inbox = &shard->inbox;
    struct list_node *ahead = list_first(&inbox->arrived);
    for (uint32_t i = 0; i < AHEAD; i++)
        ahead = load(shard, ahead);
    for (struct list_node *node; (node = list_first(&inbox->arrived)) != NULL;) {
        struct serving *serving = of_node(node);
        ahead = load(shard, ahead);
        list_remove(node);
        if (must_wait(inbox, serving) || !execute(serving))
            wait_for_room(inbox, serving);
    }
}

bool shard_serve(struct shard *shard)
{
    if (shard->post == NULL)
        return false;
    bool came = post_take(shard->post) > 0;
    execute_arrived(shard);
    release_gated(shard);
    shard_post_releases(shard);
    return came;
}

/* ---- opening and closing ---- */

/* An owner carries up to twice what the asker reckons with. */
uint64_t shard_memory_max(uint32_t shard_count, uint32_t parts)
{
    if (shard_count == 1)
        return 0;
    return share_u64(SHARD_COPY_BYTES_MAX, parts, SHARD_COPY_BYTES_MIN) +
           2 * share_u64(ANSWERS_MAX, parts, ANSWERS_MIN);
}

int shard_open(struct shard *shard, struct io *io, struct post_office *office)
{
    struct shard_inbox *inbox = &shard->inbox;
    list_init(&shard->releases);
    list_init(&inbox->arrived);
    list_init(&inbox->gated);
    list_init(&inbox->waiting);
    if (office == NULL)
        return 0;
    shard->answers_max = share_u64(ANSWERS_MAX, shard->parts, ANSWERS_MIN);
    shard->answer_mean = store_value_file_min(shard->store);
    inbox->carried = calloc(shard->count, sizeof *inbox->carried);
    if (inbox->carried == NULL)
        return -ENOMEM;
    uint32_t count = (shard->count - 1) * post_office_credits(office);
    int result = pool_init(&inbox->servings, sizeof(struct serving), count);
    if (result < 0)
        return result;
    shard->post = post_office_post(office, shard->number);
    post_join(shard->post, io, asked, shard);
    return 0;
}

void shard_close(struct shard *shard)
{
    free(shard->inbox.carried);
    if (shard->inbox.servings.base == NULL)
        return;
    shard_forget_releases(shard);
    pool_deinit(&shard->inbox.servings);
}
