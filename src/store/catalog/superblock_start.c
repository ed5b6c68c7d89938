/* Counting starts, so that an older copy of one shard among newer ones is noticed.
 *
 * The superblocks of a directory have a start number each. A start goes through all of them twice:
 *
 *     found               M-1 M  M       M: the greatest; one is behind after a crash
 *     level               M   M  M       only when they differ
 *     phase 1             M+1 M+1 M+1    each step is durable in all before the next one begins
 *     phase 2             M+2 M+2 M+2    now the stores are opened, and write
 *
 * Cut short anywhere, this leaves the numbers at most one apart. A copy of a shard's files that was
 * taken before the start has M at most. Everything that a store wrote since stands beside M+2. So
 * numbers that are two or more apart are an older copy, and the start is refused, unless the operator
 * has accepted the loss: then the older ones come level with the others, too. */
#include "store/catalog/superblock.h"

#include "base/assert.h"
#include "store/disk/filesystem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* One superblock on its way to the next number. */
struct counted {
    struct superblock_file file;
    struct io_op op;
    bool is_behind;
};

/* All superblocks of the directory, by shard. */
struct count {
    struct counted *all;
    uint32_t size;
    uint32_t lowest, greatest; /* shards */
};

static uint64_t number_of(const struct count *count, uint32_t shard)
{
    return count->all[shard].file.now.start_number;
}

static int open_all(struct count *count, struct superblock_file *node, const struct log *log,
                    const char *data_path, uint64_t lock_wait_ns)
{
    count->all[0].file = *node;
    for (uint32_t shard = 1; shard < node->now.shard_count; shard++) {
        int result = superblock_open_shard(node->io, log, data_path, &node->now, shard,
                                           lock_wait_ns, &count->all[shard].file);
        if (result < 0)
            return result;
        count->size = shard + 1;
        if (number_of(count, shard) < number_of(count, count->lowest))
            count->lowest = shard;
        if (number_of(count, shard) > number_of(count, count->greatest))
            count->greatest = shard;
    }
    return 0;
}

static bool is_older(const struct count *count, uint32_t shard, char *ret_text)
{
    return superblock_is_outdated(&count->all[shard].file.now,
                                  &count->all[count->greatest].file.now, ret_text);
}

static void accept_ages(const struct count *count, const struct log *log, const char *data_path,
                        bool *ret_older)
{
    char text[SUPERBLOCK_TEXT_SIZE];
    for (uint32_t shard = 0; shard < count->size; shard++) {
        if (!is_older(count, shard, text))
            continue;
        ret_older[shard] = true;
        log_warn(log,
                 "-accept-loss: %s: shard %" PRIu32 " is an older copy, of start number %" PRIu64
                 ", that of shard %" PRIu32 " is %" PRIu64
                 ": its later writes are lost, it goes on with what is left",
                 data_path, shard, number_of(count, shard), count->greatest,
                 number_of(count, count->greatest));
    }
}

static int check_ages(const struct count *count, const struct log *log, const char *data_path)
{
    char text[SUPERBLOCK_TEXT_SIZE];
    if (!is_older(count, count->lowest, text))
        return 0;
    log_error(log, "%s: %s; nothing was changed", data_path, text);
    return -EXDEV;
}

/* Writes `number` into all that have a lower one, side by side, and waits for them. */
static int raise_to(struct count *count, uint64_t number)
{
    int result = 0;
    for (uint32_t shard = 0; shard < count->size; shard++) {
        struct counted *counted = &count->all[shard];
        counted->is_behind = counted->file.now.start_number < number;
        if (!counted->is_behind)
            continue;
        counted->file.now.start_number = number;
        counted->op = (struct io_op){0};
        superblock_update_begin(&counted->file, &counted->op);
    }
    for (uint32_t shard = 0; shard < count->size; shard++) {
        struct counted *counted = &count->all[shard];
        int error = counted->is_behind ? superblock_update_end(&counted->file, &counted->op) : 0;
        result = error < 0 ? error : result;
    }
    return result;
}

static int raise_all(struct count *count)
{
    uint64_t greatest = number_of(count, count->greatest);
    int result = 0;
    for (uint64_t step = 0; result == 0 && step <= 2; step++)
        result = raise_to(count, greatest + step);
    return result;
}

static void close_others(struct count *count)
{
    for (uint32_t shard = 1; shard < count->size; shard++)
        superblock_close(&count->all[shard].file);
    free(count->all);
}

int superblock_count_start(struct superblock_file *node, const struct log *log,
                           const char *data_path, uint64_t lock_wait_ns, bool *ret_older)
{
    assert(node->handle >= 0);
    assert(node->now.shards_before == 0); /* a conversion ends first: it renames superblocks */
    struct count count = {.size = 1};
    count.all = calloc(node->now.shard_count, sizeof *count.all);
    if (count.all == NULL)
        return -ENOMEM;
    int result = open_all(&count, node, log, data_path, lock_wait_ns);
    if (result == 0 && ret_older != NULL)
        accept_ages(&count, log, data_path, ret_older);
    else if (result == 0)
        result = check_ages(&count, log, data_path);
    if (result == 0) {
        result = raise_all(&count);
        if (result < 0)
            (void)filesystem_cannot(log, "note this start in the superblocks of", data_path,
                                    result);
    }
    *node = count.all[0].file;
    close_others(&count);
    return result;
}
