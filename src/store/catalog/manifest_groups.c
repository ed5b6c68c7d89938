/* Which groups of a manifest are complete, whether what lies behind them is a torn tail or damage, and
 * whether a start goes on with it. The rules stand in manifest.h. */
#include "store/catalog/manifest.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "store/catalog/superblock.h"
#include "store/unit/segment_format.h"
#include "store/unit/wal_format.h"

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

/* ---- whether a start goes on with it ---- */

struct manifest_known manifest_known_of(const struct superblock *superblock,
                                        const struct wal_note *note)
{
    return (struct manifest_known){
        .closed = {superblock->manifest_salt, superblock->manifest_edition,
                   superblock->manifest_blocks},
        .seen = {.edition = note->major, .blocks = note->minor},
        .is_closed = superblock->clean,
    };
}

static bool is_older(const struct manifest_mark *mark, const struct manifest_mark *other)
{
    return mark->edition < other->edition ||
           (mark->edition == other->edition && mark->blocks < other->blocks);
}

/* What was there at the last clean shutdown cannot have become this file. One block more is the seal,
 * which was not counted then. */
static bool is_other(const struct manifest_mark *mark, const struct manifest_known *known)
{
    const struct manifest_mark *closed = &known->closed;
    bool must_be_same = known->is_closed && closed->salt != 0;
    return known->is_older || is_older(mark, closed) || is_older(mark, &known->seen) ||
           (must_be_same && (mark->salt != closed->salt || mark->blocks > closed->blocks + 1));
}

const char *manifest_judge(const struct manifest_groups *groups, const struct manifest_known *known)
{
    if (groups->is_damaged)
        return "restore the data directory from a backup, or start once with -accept-loss to go on "
               "with what stands before this place";
    if (is_other(&groups->mark, known))
        return "it is older than the log tells, or not the one that its superblock tells of: one "
               "of them was replaced. Put back the one that was here, restore the data directory "
               "from a backup, or start once with -accept-loss to go on with what this one says "
               "and with all segments that are there";
    return NULL;
}

const char *manifest_judge_missing(const struct manifest_known *known, bool has_segments)
{
    if (known->seen.edition == 0 && !has_segments)
        return NULL;
    return "it is missing, although the log or segments tell of it. Restore it from a backup, or "
           "start once with -accept-loss to build it anew from the segments: keys that were "
           "deleted long ago may come back then";
}

const char *manifest_judge_edit(const struct manifest_edit *edit, uint32_t shard,
                                uint32_t shard_count)
{
    if (edit->partition % shard_count != shard)
        return "which is another shard's: it is the manifest of another time, or of another "
               "directory. Put back the one that was here";
    if (!segment_source_is_known(edit->source))
        return "whose source this release does not know: use the release that wrote it";
    return NULL;
}
