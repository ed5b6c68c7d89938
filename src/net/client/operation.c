/* Get, set, delete: here or at the shard that owns the key; and the answer in the client's output.
 */
#include "net/client/operation.h"

#include "net/client/download.h"

#include "base/assert.h"

enum taken operation_answer(struct client *client, struct reply_form form,
                            const struct shard_answer *answer)
{
    if (output_answer(&client->output, form, answer) < 0) {
        /* Not even memory for the reply: this one client loses its connection, nobody else
         * anything. */
        client_abort(client);
    }
    return TAKEN;
}

/* ---- answers that come later ---- */

static void end_asking(struct shard_waiter *waiter, const struct shard_answer *answer,
                       bool is_large)
{
    void *owner;
    struct output_block *block = output_waiting(waiter, &owner);
    bool is_asked = output_is_lent(block);
    download_fill(owner, block, answer);
    client_end_pending(owner, is_asked, is_large);
}

static void asking_done(struct shard_waiter *waiter, const struct shard_answer *answer)
{
    end_asking(waiter, answer, false);
}

/* Of a value that may lie in a file. A download that has to look it up again has asking_done. */
static void large_done(struct shard_waiter *waiter, const struct shard_answer *answer)
{
    void *owner;
    (void)output_waiter(output_waiting(waiter, &owner), asking_done);
    end_asking(waiter, answer, true);
}

/* What became of a request to another shard, with its reserved place. */
static enum taken await(struct client *client, struct output_block *block,
                        enum shard_outcome outcome)
{
    if (outcome == SHARD_PENDING) {
        client_begin_pending(client, true, false);
        return TAKEN;
    }
    output_unreserve(&client->output, block);
    return outcome == SHARD_LARGE ? IS_LARGE : BLOCKED;
}

/* The place of an answer that another shard is asked for. */
static struct output_block *reserve_asked(struct client *client, struct reply_form form)
{
    struct output_block *block = output_reserve(&client->output, client, form);
    if (block != NULL)
        output_lend(block);
    return block;
}

/* ---- get ---- */

static enum taken get_from_disk(struct client *client, struct reply_form form, struct slice key)
{
    struct output_block *block = output_reserve(&client->output, client, form);
    if (block == NULL)
        return BLOCKED;
    struct shard_answer shard_answer;
    switch (
        shard_get(client->shared->shard, key, output_waiter(block, asking_done), &shard_answer)) {
    case SHARD_PENDING:
        if (shard_answer.in_value_file)
            (void)output_waiter(block, large_done);
        client_begin_pending(client, false, shard_answer.in_value_file);
        return TAKEN;
    case SHARD_ANSWERED:
        download_fill(client, block, &shard_answer);
        return TAKEN;
    default:
        output_unreserve(&client->output, block);
        return BLOCKED;
    }
}

static enum taken get_from_file(struct client *client, struct reply_form form,
                                const struct shard_answer *shard_answer)
{
    if (!store_has_stream(client->shared->shard->store))
        return BLOCKED;
    struct output_block *block = output_reserve(&client->output, client, form);
    if (block == NULL)
        return BLOCKED;
    (void)output_waiter(block, asking_done); /* should it have to be looked up again */
    download_fill(client, block, shard_answer);
    return TAKEN;
}

static enum taken ask_get(struct client *client, struct reply_form form, struct slice key,
                          struct key_place place)
{
    struct output_block *block = reserve_asked(client, form);
    if (block == NULL)
        return BLOCKED;
    return await(
        client, block,
        shard_ask_get(client->shared->shard, place, key, output_waiter(block, asking_done)));
}

enum taken operation_get(struct client *client, struct reply_form form, struct slice key,
                         struct key_place place)
{
    struct shard *shard = client->shared->shard;
    struct shard_answer shard_answer;
    bool is_owned = shard_owns(shard, place);
    if (!is_owned || !shard_get_at_once(shard, key, place, &shard_answer)) {
        if (!output_has_memory(&client->shared->outputs))
            return BLOCKED; /* the value may be in no cache */
        return is_owned ? get_from_disk(client, form, key) : ask_get(client, form, key, place);
    }
    if (shard_answer.in_value_file)
        return get_from_file(client, form, &shard_answer);
    return operation_answer(client, form, &shard_answer);
}

/* ---- set and delete ---- */

/* What comes free is for those who wait, in their order, before it is for whoever happens to come:
 * else a few wait for as long as the store is busy. They are retried at the end of the pass. */
static bool has_to_queue(const struct client_shared *shared)
{
    return !shared->is_retrying &&
           (shared->sets_waiting > 0 || shard_has_waiting_writes(shared->shard));
}

static enum taken ask_set(struct client *client, struct reply_form form,
                          const struct operation_set *set, struct key_place place)
{
    struct output_block *block = reserve_asked(client, form);
    if (block == NULL)
        return BLOCKED;
    return await(client, block,
                 shard_ask_set(client->shared->shard, place, set->key, set->value, set->zstd,
                               output_waiter(block, asking_done)));
}

enum taken operation_set(struct client *client, struct reply_form form,
                         const struct operation_set *set, struct key_place place)
{
    struct shard *shard = client->shared->shard;
    struct shard_answer shard_answer;
    if (!shard_owns(shard, place))
        return ask_set(client, form, set, place);
    if (has_to_queue(client->shared)) {
        client_set_waits(client, true);
        return BLOCKED;
    }
    switch (shard_set(shard, set->key, set->value, set->zstd, &shard_answer)) {
    case SHARD_ANSWERED:
        return operation_answer(client, form, &shard_answer);
    case SHARD_LARGE:
        return IS_LARGE;
    default:
        client_set_waits(client, true);
        return BLOCKED;
    }
}

static enum taken ask_delete(struct client *client, struct reply_form form, struct slice key,
                             struct key_place place)
{
    struct output_block *block = reserve_asked(client, form);
    if (block == NULL)
        return BLOCKED;
    return await(
        client, block,
        shard_ask_delete(client->shared->shard, place, key, output_waiter(block, asking_done)));
}

enum taken operation_delete(struct client *client, struct reply_form form, struct slice key,
                            struct key_place place)
{
    struct shard *shard = client->shared->shard;
    struct shard_answer shard_answer;
    if (!shard_owns(shard, place))
        return ask_delete(client, form, key, place);
    if (shard_delete(shard, key, &shard_answer) == SHARD_BUSY)
        return BLOCKED;
    return operation_answer(client, form, &shard_answer);
}
