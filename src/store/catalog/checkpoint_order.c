/* The order of a checkpoint's blocks, and whether they add up. */
#include "store/catalog/checkpoint_format.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>

static int refuse(struct checkpoint_order *order, int error, const char *what)
{
    order->what = what;
    return error;
}

/* Whether this is the block, or one of the blocks, that can be next. */
static bool may_follow(const struct checkpoint_order *order, const struct checkpoint_block *block)
{
    if (block->sequence != order->sequence || block->number != order->number)
        return false;
    if (block->sequence == 0)
        return block->kind == CHECKPOINT_BEGIN;
    if (block->kind == CHECKPOINT_SLOTS && order->files != order->begin.file_count)
        return false;
    return block->kind != CHECKPOINT_BEGIN && order->kind != CHECKPOINT_END &&
           block->kind >= order->kind && block->directory_id == order->directory_id;
}

static int take_begin(struct checkpoint_order *order, const struct checkpoint_block *block,
                      const uint8_t *entry)
{
    memcpy(&order->begin, entry, sizeof order->begin);
    bool is_ours =
        block->directory_id == order->directory_id && order->begin.log_id == order->log_id;
    return is_ours ? 0 : refuse(order, -EXDEV, "it belongs to another data directory or log");
}

static int take_end(struct checkpoint_order *order, const uint8_t *data, uint64_t end)
{
    struct checkpoint_end_entry entry;
    memcpy(&entry, data, sizeof entry);
    bool is_whole = entry.slots == order->slots && entry.file_size == order->size &&
                    end == order->size && order->files == order->begin.file_count;
    return is_whole ? 0
                    : refuse(order, -EBADMSG, "an end that does not fit to what stands before it");
}

static int take_slots(struct checkpoint_order *order, const struct checkpoint_block *block)
{
    if (order->kind == CHECKPOINT_SLOTS && block->partition < order->partition)
        return refuse(order, -EBADMSG, "the slots of a partition that is over");
    order->partition = block->partition;
    order->slots += block->entry_count;
    return 0;
}

int checkpoint_order_take(struct checkpoint_order *order, const struct checkpoint_block *block,
                          const uint8_t *data, uint64_t end)
{
    int error = 0;
    if (!may_follow(order, block))
        return refuse(order, -EBADMSG, "a block that does not belong there");
    assert(block->kind >= order->kind);
    switch (block->kind) {
    case CHECKPOINT_BEGIN:
        error = take_begin(order, block, data + CHECKPOINT_BLOCK_HEADER_SIZE);
        break;
    case CHECKPOINT_FILES:
        order->files += block->entry_count;
        if (order->files > order->begin.file_count)
            error = refuse(order, -EBADMSG, "more files than it was begun with");
        break;
    case CHECKPOINT_SLOTS:
        error = take_slots(order, block);
        break;
    case CHECKPOINT_END:
        error = take_end(order, data + CHECKPOINT_BLOCK_HEADER_SIZE, end);
        break;
    }
    order->kind = block->kind;
    order->sequence++;
    return error;
}
