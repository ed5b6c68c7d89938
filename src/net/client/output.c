/* The queue of blocks: appended to, filled, gathered into a send, and given back. */
#include "net/client/output.h"

#include "net/client/limits.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int output_shared_open(struct output_shared *shared, uint32_t count, uint32_t reserve,
                       uint64_t memory_bytes_max)
{
    assert(reserve <= count);
    int result = pool_init(&shared->blocks, OUTPUT_BLOCK_SIZE, count);
    if (result < 0)
        return result;
    pool_prefer_huge(&shared->blocks);
    shared->reserve = reserve;
    shared->memory_bytes_max = memory_bytes_max;
    return 0;
}

void output_shared_close(struct output_shared *shared)
{
    if (shared->blocks.base != NULL)
        pool_deinit(&shared->blocks);
    account_close(&shared->books);
}

uint64_t output_shared_memory(const struct output_shared *shared)
{
    return (uint64_t)shared->blocks.count_touched * OUTPUT_BLOCK_SIZE;
}

void output_init(struct output *output, struct output_shared *shared)
{
    *output = (struct output){.shared = shared};
    list_init(&output->blocks);
}

bool output_has_room(const struct output *output)
{
    struct output_shared *shared = output->shared;
    if (output->bytes > LIMITS_OUTPUT_BYTES_MAX)
        return false;
    if (output->block_count == 0)
        return shared->blocks.count_used < shared->blocks.count_max;
    uint64_t taken = (uint64_t)shared->blocks.count_used + shared->reserve;
    uint64_t free_count = taken < shared->blocks.count_max ? shared->blocks.count_max - taken : 0;
    /* An answer takes two blocks at the most: one that is reserved and one that follows it. */
    if (output->block_count + 2 <= 2 + free_count / 4)
        return true;
    shared->starved = true;
    return false;
}

bool output_has_memory(struct output_shared *shared)
{
    if (!output_is_short_of_memory(shared))
        return true;
    shared->starved = true;
    return false;
}

static struct output_block *last_block(const struct output *output)
{
    return container_of(output->blocks.head.prev, struct output_block, node);
}

static struct output_block *first_block(const struct output *output)
{
    return container_of(output->blocks.head.next, struct output_block, node);
}

static struct output_block *add_block(struct output *output)
{
    struct output_block *block = pool_get(&output->shared->blocks);
    if (block == NULL)
        return NULL;
    memset(block, 0, offsetof(struct output_block, bytes));
    list_push_back(&output->blocks, &block->node);
    output->block_count++;
    return block;
}

/* The block to append to. One that waits for its gate takes replies of its own pass only: a client
 * that keeps writing would otherwise push the gate ahead of itself for ever. */
static struct output_block *open_block(struct output *output, uint32_t need)
{
    if (!list_is_empty(&output->blocks)) {
        struct output_block *block = last_block(output);
        bool closed =
            block->sending || block->pending || block->external_size > 0 || block->stream != NULL;
        bool fits = need <= sizeof block->bytes - block->size;
        if (!closed && fits && (block->pass == output->shared->pass || block->gate == 0))
            return block;
    }
    return add_block(output);
}

static void remove_block(struct output *output, struct output_block *block)
{
    struct output_shared *shared = output->shared;
    if (block->entry != NULL)
        store_unpin(shared->store, block->entry);
    if (block->memory != NULL)
        output_give_memory(shared, block->external_size);
    free(block->memory);
    account_end(&block->account, &shared->books, false);
    list_remove(&block->node);
    assert(output->block_count > 0);
    output->block_count--;
    assert(output->bytes >= (uint64_t)block->size + block->external_size); /* invariant 2 */
    output->bytes -= block->size + block->external_size;
    pool_put(&shared->blocks, block);
    shared->has_room = shared->has_room || shared->starved;
    shared->starved = false;
}

/* Makes a value that is not copied inline outlive the pass. Errors: -ENOMEM. */
static int attach(struct output_shared *shared, struct output_block *block,
                  const struct reply_value *value)
{
    block->external = value->data;
    if (value->entry != NULL) {
        store_pin(shared->store, value->entry);
        block->entry = value->entry;
    } else {
        block->memory = value->memory != NULL ? value->memory : malloc(value->size);
        if (block->memory == NULL) {
            block->external = NULL;
            return -ENOMEM;
        }
        if (value->memory == NULL) {
            memcpy(block->memory, value->data, value->size);
            block->external = block->memory;
        }
        shared->memory_bytes += value->size;
    }
    block->external_size = value->size;
    return 0;
}

/* Writes an answer behind what the block has; there is room for its inline part. Errors: -ENOMEM.
 */
static int write_answer(struct output *output, struct output_block *block, struct reply_form form,
                        const struct shard_answer *answer)
{
    struct reply_value value = {.size = 0};
    uint8_t *target = block->bytes + block->size;
    int32_t size = form.dialect->write(form, answer, target, &value);
    if (answer->memory != NULL && value.memory != answer->memory)
        free(answer->memory);
    if (size < 0)
        return size;
    assert((uint32_t)size <= sizeof block->bytes - block->size);
    if (value.size > 0 && attach(output->shared, block, &value) < 0)
        return -ENOMEM;
    block->size += (uint32_t)size;
    block->gate = block->gate > answer->gate ? block->gate : answer->gate;
    block->pass = output->shared->pass;
    output->bytes += (uint32_t)size + block->external_size;
    return 0;
}

int output_answer(struct output *output, struct reply_form form, const struct shard_answer *answer)
{
    struct output_block *block = open_block(output, reply_need(form.dialect, answer));
    if (block == NULL) {
        free(answer->memory);
        return -ENOMEM;
    }
    bool is_new = block->size == 0;
    int result = write_answer(output, block, form, answer);
    if (result == 0)
        account_reply(&block->account, &output->shared->books, &output->request, answer->status,
                      answer->size, answer->gate);
    else if (is_new)
        remove_block(output, block);
    return result;
}

struct output_block *output_reserve(struct output *output, void *owner, struct reply_form form)
{
    struct output_block *block = add_block(output);
    if (block == NULL)
        return NULL;
    block->pending = true;
    block->owner = owner;
    account_reserve(&block->account, &output->shared->books, &output->request);
    block->form = form;
    return block;
}

void output_lend(struct output_block *block)
{
    uint32_t offset = block->form.dialect->value_offset;
    block->waiter.lent = block->bytes + offset;
    block->waiter.lent_size = sizeof block->bytes - offset;
}

bool output_is_first(const struct output *output, const struct output_block *block)
{
    const struct list_node *node = list_first(&output->blocks);
    for (; node != &block->node; node = list_next(&output->blocks, node)) {
        const struct output_block *other = container_of(node, const struct output_block, node);
        if (other->pending || other->stream != NULL)
            return false;
    }
    return true;
}

void output_unreserve(struct output *output, struct output_block *block)
{
    assert(block->pending && block == last_block(output));
    remove_block(output, block);
}

/* Another shard's answer brings its memory along: gets are asked for while there is memory, and
 * half as much again may come of them. */
static bool is_beyond(const struct output_shared *shared, const struct shard_answer *answer)
{
    uint64_t most = shared->memory_bytes_max + shared->memory_bytes_max / 2;
    return answer->memory != NULL && shared->memory_bytes + answer->size > most;
}

void output_fill(struct output *output, struct output_block *block,
                 const struct shard_answer *answer)
{
    static const struct shard_answer overloaded = {.status = MINIVAULT_OVERLOADED};
    assert(block->pending);
    block->pending = false;
    if (is_beyond(output->shared, answer)) {
        free(answer->memory);
        answer = &overloaded;
    }
    account_fill(&block->account, &output->shared->books, answer->status, answer->size,
                 answer->gate);
    if (write_answer(output, block, block->form, answer) == 0)
        return;
    int result = write_answer(output, block, block->form, &overloaded);
    assert(result == 0);
}

/* Fills a place with OK and the head for a value of `size` bytes, of which `shown` are counted. */
static void fill_head(struct output *output, struct output_block *block, uint64_t gate,
                      uint64_t size, uint64_t shown)
{
    assert(block->pending && block->size == 0 && size <= UINT32_MAX);
    block->pending = false;
    account_fill(&block->account, &output->shared->books, MINIVAULT_OK, shown, gate);
    block->gate = gate;
    block->size = block->form.dialect->write_stream(block->form, size, block->bytes);
    output->bytes += block->size;
}

void output_fill_head(struct output *output, struct output_block *block, uint64_t gate,
                      uint64_t size)
{
    fill_head(output, block, gate, size, 0);
}

void output_fill_stream(struct output *output, struct output_block *block, uint64_t gate,
                        struct output_stream *stream)
{
    block->stream = stream;
    fill_head(output, block, gate, stream->left, stream->left);
}

/* Shows the stream's next piece. Returns false when there is none now. */
static bool load_piece(struct output *output, struct output_block *block)
{
    if (block->stream == NULL || block->external != NULL)
        return true;
    uint32_t size = 0;
    const uint8_t *piece = block->stream->next(block->stream, &size);
    if (piece == NULL)
        return false;
    assert(size > 0 && size <= block->stream->left);
    block->stream->left -= size;
    block->external = piece;
    block->external_size = size;
    block->external_sent = 0;
    output->bytes += size;
    return true;
}

static bool may_leave(const struct output_block *block, uint64_t durable)
{
    return !block->pending && block->gate <= durable;
}

/* Adds a block to the send; returns the count of slices. */
static uint32_t gather_block(struct output *output, struct output_block *block, uint32_t count,
                             uint64_t *gathered)
{
    struct iovec *slices = output->send.slices;
    if (block->size > 0)
        slices[count++] = (struct iovec){block->bytes, block->size};
    *gathered += block->size;
    uint32_t left = block->external_size - block->external_sent;
    output->sending_part = (uint32_t)min_u64(left, OUTPUT_SEND_MAX);
    if (left > 0)
        slices[count++] =
            (struct iovec){(void *)(block->external + block->external_sent), output->sending_part};
    *gathered += output->sending_part;
    account_leave(&block->account, &output->shared->books);
    block->sending = true;
    output->sending_count++;
    return count;
}

/* Small replies that had places of their own join the one before them: what takes one slice costs
 * less to send, and less to keep, than what takes many. */
static void absorb(struct output *output, struct output_block *block, uint64_t durable)
{
    struct list_node *node;
    while (block->external_size == 0 && block->stream == NULL &&
           (node = list_next(&output->blocks, &block->node)) != NULL) {
        struct output_block *next = container_of(node, struct output_block, node);
        bool is_small = next->external_size == 0 && next->stream == NULL &&
                        next->size <= sizeof block->bytes - block->size;
        if (!is_small || !may_leave(next, durable))
            return;
        memcpy(block->bytes + block->size, next->bytes, next->size);
        block->size += next->size;
        next->size = 0;
        account_join(&block->account, &next->account);
        remove_block(output, next);
    }
}

bool output_may_send(const struct output *output)
{
    return output->sending_count == 0 && !list_is_empty(&output->blocks) &&
           may_leave(first_block(output), store_durable(output->shared->store));
}

uint32_t output_gather(struct output *output)
{
    if (output->sending_count > 0)
        return 0;
    uint64_t durable = store_durable(output->shared->store);
    uint64_t gathered = 0;
    uint32_t count = 0;
    struct list_node *node = list_first(&output->blocks);
    while (node != NULL && count + 2 <= IO_SLICES_MAX && gathered < OUTPUT_SEND_MAX) {
        struct output_block *block = container_of(node, struct output_block, node);
        if (!may_leave(block, durable) || !load_piece(output, block))
            break;
        absorb(output, block, durable);
        count = gather_block(output, block, count, &gathered);
        if (output->sending_part < block->external_size - block->external_sent ||
            (block->stream != NULL && block->stream->left > 0))
            break;
        node = list_next(&output->blocks, node);
    }
    return count;
}

bool output_send(struct output *output, struct io *io, int socket, io_done *done)
{
    uint32_t count = output_gather(output);
    if (count == 0)
        return false;
    output->send.op.done = done;
    io_send(io, &output->send, socket, count);
    return true;
}

/* The whole of a piece went. Returns whether the block's last bytes went with it. */
static bool end_piece(struct output *output, struct output_block *block)
{
    struct output_stream *stream = block->stream;
    if (stream == NULL)
        return true;
    output->bytes -= block->external_size;
    block->external = NULL;
    block->external_size = 0;
    block->external_sent = 0;
    stream->release(stream);
    if (stream->left > 0)
        return false;
    block->stream = NULL;
    stream->ended(stream);
    return true;
}

void output_sent(struct output *output)
{
    for (; output->sending_count > 1; output->sending_count--) {
        (void)end_piece(output, first_block(output));
        remove_block(output, first_block(output));
    }
    if (output->sending_count == 0)
        return;
    struct output_block *last = first_block(output);
    assert(last->sending); /* invariant 1 */
    output->sending_count = 0;
    last->sending = false;
    last->external_sent += output->sending_part;
    if (last->external_sent == last->external_size && end_piece(output, last)) {
        remove_block(output, last);
        return;
    }
    output->bytes -= last->size;
    last->size = 0;
}

uint64_t output_gate(const struct output *output)
{
    if (list_is_empty(&output->blocks) || output->sending_count > 0)
        return 0;
    const struct output_block *block = first_block(output);
    return !block->pending && block->gate > store_durable(output->shared->store) ? block->gate : 0;
}

bool output_drop(struct output *output)
{
    struct list_node *node = list_first(&output->blocks);
    while (node != NULL) {
        struct output_block *block = container_of(node, struct output_block, node);
        node = list_next(&output->blocks, node);
        if (!block->pending && !block->sending)
            remove_block(output, block);
    }
    return list_is_empty(&output->blocks);
}

void output_free(struct output *output)
{
    struct list_node *node = list_first(&output->blocks);
    for (; node != NULL; node = list_next(&output->blocks, node))
        free(container_of(node, struct output_block, node)->memory);
}
