/* What a request does with a key, whatever protocol it came by: get, set, delete, here or at the
 * shard that owns the key; and the answer in the connection's output. */
#include "net/client/server_internal.h"

#include "base/assert.h"

enum taken operation_answer(struct connection *connection, struct reply_form form,
                            const struct shard_answer *answer)
{
    struct loop *server = connection->server;
    if (output_answer(&connection->output, &server->outputs, form, answer) < 0) {
        /* Not even memory for the reply: this one client loses its connection, nobody else
         * anything. */
        connection_abort(connection);
    }
    return TAKEN;
}

/* ---- answers that come later ---- */

static struct output_block *reserve(struct connection *connection, struct reply_form form,
                                    shard_waiter_done *done)
{
    struct output *output = &connection->output;
    struct output_block *block =
        output_reserve(output, &connection->server->outputs, connection, form);
    if (block != NULL)
        block->waiter.done = done;
    return block;
}

static void end_pending(struct connection *connection)
{
    assert(connection->pending_count > 0);
    connection->pending_count--;
    connection_touch(connection);
    if (!list_is_empty(&connection->downloads))
        connection_wake(connection); /* one of them may be the first now */
}

static void get_done(struct shard_waiter *waiter, const struct shard_answer *answer)
{
    struct output_block *block = container_of(waiter, struct output_block, waiter);
    struct connection *connection = block->owner;
    connection->asked_count -= output_is_lent(block);
    if (block->is_large) {
        block->is_large = false;
        connection->large_pending--;
        connection_wake(connection);
    }
    download_answer(connection, block, answer);
    end_pending(connection);
}

static void write_done(struct shard_waiter *waiter, const struct shard_answer *answer)
{
    struct output_block *block = container_of(waiter, struct output_block, waiter);
    struct connection *connection = block->owner;
    connection->asked_count--;
    output_fill(&connection->output, &connection->server->outputs, block, answer);
    end_pending(connection);
}

/* What became of a request to another shard, with its reserved place. */
static enum taken await(struct connection *connection, struct output_block *block,
                        enum shard_outcome outcome)
{
    if (outcome == SHARD_PENDING) {
        connection->pending_count++;
        connection->asked_count++;
        return TAKEN;
    }
    output_unreserve(&connection->output, &connection->server->outputs, block);
    return outcome == SHARD_LARGE ? IS_LARGE : BLOCKED;
}

/* Of a write that another shard is asked for. */
static struct output_block *reserve_write(struct connection *connection, struct reply_form form)
{
    struct output_block *block = reserve(connection, form, write_done);
    if (block != NULL)
        output_lend(block);
    return block;
}

/* ---- get ---- */

/* Whose value may be in no cache. */
static struct output_block *reserve_value(struct connection *connection, struct reply_form form)
{
    if (!output_has_memory(&connection->server->outputs))
        return NULL;
    return reserve(connection, form, get_done);
}

static enum taken get_from_disk(struct connection *connection, struct reply_form form,
                                struct slice key)
{
    struct loop *server = connection->server;
    struct output_block *block = reserve_value(connection, form);
    if (block == NULL)
        return BLOCKED;
    struct shard_answer shard_answer;
    switch (shard_get(&server->shard, key, &block->waiter, &shard_answer)) {
    case SHARD_PENDING:
        connection->pending_count++;
        block->is_large = shard_answer.in_value_file;
        connection->large_pending += block->is_large;
        return TAKEN;
    case SHARD_ANSWERED:
        download_answer(connection, block, &shard_answer);
        return TAKEN;
    default:
        output_unreserve(&connection->output, &server->outputs, block);
        return BLOCKED;
    }
}

static enum taken get_from_file(struct connection *connection, struct reply_form form,
                                const struct shard_answer *shard_answer)
{
    if (!store_has_stream(connection->server->shard.store))
        return BLOCKED;
    /* `done`: should it have to be looked up again. */
    struct output_block *block = reserve(connection, form, get_done);
    if (block == NULL)
        return BLOCKED;
    download_answer(connection, block, shard_answer);
    return TAKEN;
}

static enum taken ask_get(struct connection *connection, struct reply_form form, struct slice key,
                          struct shard_place place)
{
    struct output_block *block = reserve_value(connection, form);
    if (block == NULL)
        return BLOCKED;
    output_lend(block);
    return await(connection, block,
                 shard_ask_get(&connection->server->shard, place, key, &block->waiter));
}

enum taken operation_get(struct connection *connection, struct reply_form form, struct slice key,
                         struct shard_place place)
{
    struct shard *shard = &connection->server->shard;
    struct shard_answer shard_answer;
    if (!shard_owns(shard, place))
        return ask_get(connection, form, key, place);
    if (!shard_get_at_once(shard, key, place.store, &shard_answer))
        return get_from_disk(connection, form, key);
    if (shard_answer.in_value_file)
        return get_from_file(connection, form, &shard_answer);
    return operation_answer(connection, form, &shard_answer);
}

/* ---- set and delete ---- */

/* What comes free is for those who wait, in their order, before it is for whoever happens to come:
 * else a few wait for as long as the store is busy. They are retried at the end of the pass. */
static bool has_to_queue(const struct loop *server)
{
    return !server->is_retrying &&
           (server->sets_waiting > 0 || shard_has_waiting_writes(&server->shard));
}

static enum taken ask_set(struct connection *connection, struct reply_form form,
                          const struct operation_set *set, struct shard_place place)
{
    struct output_block *block = reserve_write(connection, form);
    if (block == NULL)
        return BLOCKED;
    return await(connection, block,
                 shard_ask_set(&connection->server->shard, place, set->key, set->value, set->zstd,
                               &block->waiter));
}

enum taken operation_set(struct connection *connection, struct reply_form form,
                         const struct operation_set *set, struct shard_place place)
{
    struct shard *shard = &connection->server->shard;
    struct shard_answer shard_answer;
    if (!shard_owns(shard, place))
        return ask_set(connection, form, set, place);
    if (has_to_queue(connection->server)) {
        connection_set_waits(connection, true);
        return BLOCKED;
    }
    switch (shard_set(shard, set->key, set->value, set->zstd, &shard_answer)) {
    case SHARD_ANSWERED:
        return operation_answer(connection, form, &shard_answer);
    case SHARD_LARGE:
        return IS_LARGE;
    default:
        connection_set_waits(connection, true);
        return BLOCKED;
    }
}

static enum taken ask_delete(struct connection *connection, struct reply_form form,
                             struct slice key, struct shard_place place)
{
    struct output_block *block = reserve_write(connection, form);
    if (block == NULL)
        return BLOCKED;
    return await(connection, block,
                 shard_ask_delete(&connection->server->shard, place, key, &block->waiter));
}

enum taken operation_delete(struct connection *connection, struct reply_form form, struct slice key,
                            struct shard_place place)
{
    struct shard *shard = &connection->server->shard;
    struct shard_answer shard_answer;
    if (!shard_owns(shard, place))
        return ask_delete(connection, form, key, place);
    if (shard_delete(shard, key, &shard_answer) == SHARD_BUSY)
        return BLOCKED;
    return operation_answer(connection, form, &shard_answer);
}
