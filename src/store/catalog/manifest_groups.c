/* Which groups of a manifest are complete, and whether what lies behind them is a torn tail or
 * damage. The rules stand in manifest.h. */
#include "store/catalog/manifest.h"

#include "base/assert.h"
#include "base/bytes.h"

#include <errno.h>

static void note_damage(struct manifest_groups *groups, uint32_t index, const char *what)
{
    if (groups->is_damaged)
        return;
    groups->is_damaged = true;
    groups->damage = index;
    groups->what = what;
}

bool manifest_groups_have(const struct manifest_groups *groups, uint32_t index,
                          const struct manifest_block *block)
{
    return block->directory_id == groups->directory_id && block->salt == groups->mark.salt &&
           block->edition == groups->mark.edition && block->sequence == (uint64_t)index + 1;
}

/* The block does not go on where the one before it ended; NULL: it is not sound. */
static void take_break(struct manifest_groups *groups, uint32_t index, bool is_first)
{
    if (!groups->is_broken)
        groups->broken = index;
    groups->is_broken = true;
    if (groups->mark.blocks == 0)
        note_damage(groups, groups->broken,
                    "the first group, which is the whole state, is not complete");
    else if (is_first && index > groups->mark.blocks)
        note_damage(groups, groups->broken, "a group that is not complete has others behind it");
}

int manifest_groups_take(struct manifest_groups *groups, uint32_t index, const uint8_t *data,
                         struct manifest_block *ret_block)
{
    assert(groups->mark.blocks <= index);
    int result = manifest_block_decode(data, ret_block);
    if (result == -EPROTONOSUPPORT)
        return result;
    if (result >= 0 && index == 0) {
        if (ret_block->directory_id != groups->directory_id)
            return -EXDEV;
        groups->mark.salt = ret_block->salt;
        groups->mark.edition = ret_block->edition;
    }
    if (!bytes_are_zero(data, MANIFEST_BLOCK_SIZE))
        groups->dirty_end = index + 1;
    bool is_sound = result >= 0 && manifest_groups_have(groups, index, ret_block);
    bool is_first = is_sound && ret_block->flags & MANIFEST_GROUP_FIRST;
    if (!is_sound || groups->is_broken || is_first == groups->is_in_group) {
        take_break(groups, index, is_first);
        return 0;
    }
    groups->is_in_group = !(ret_block->flags & MANIFEST_GROUP_LAST);
    if (!groups->is_in_group)
        groups->mark.blocks = index + 1;
    return 1;
}

void manifest_groups_miss(struct manifest_groups *groups, uint32_t index)
{
    note_damage(groups, groups->is_broken ? groups->broken : index, "the device does not give it");
    groups->is_broken = true;
}

void manifest_groups_end(struct manifest_groups *groups)
{
    if (groups->mark.blocks == 0)
        note_damage(groups, 0, "it is cut off within its first group");
}

bool manifest_mark_is_older(const struct manifest_mark *mark, const struct manifest_mark *other)
{
    return mark->edition < other->edition ||
           (mark->edition == other->edition && mark->blocks < other->blocks);
}

bool manifest_mark_is_other(const struct manifest_mark *mark, const struct manifest_mark *closed,
                            bool is_closed)
{
    bool must_be_same = is_closed && closed->salt != 0;
    return manifest_mark_is_older(mark, closed) ||
           (must_be_same && (mark->salt != closed->salt || mark->blocks > closed->blocks + 1));
}
