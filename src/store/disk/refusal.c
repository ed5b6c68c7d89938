/* Refused writes: a line a second. */
#include "store/disk/refusal.h"

#include "store/disk/filesystem.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* strerror calls it a full disk where there is space but no inode. */
const char *refusal_meaning(struct io *io, const char *path, int error)
{
    if (error != -ENOSPC)
        return filesystem_advice(error);
    if (io_inodes_free(io, path) == 0)
        return "the file system has no inodes left: remove files from it, or make it anew with "
               "more "
               "of them (mkfs.ext4 -N)";
    return "the disk is full: free some space on it, or delete keys";
}

bool refusal_may_pass(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -EFBIG || error == -ENOMEM ||
           error == -EMFILE || error == -ENFILE;
}

void refusals_tell(struct refusals *refusals, const char *what, int error)
{
    uint64_t count = log_limit_count(&refusals->limit, io_now_ns(refusals->io));
    if (count > 0)
        log_warn(refusals->log,
                 "%s: %s was refused (refusals since the last such line: %" PRIu64 "): %s: %s",
                 refusals->path, what, count, strerror(-error),
                 refusal_meaning(refusals->io, refusals->path, error));
}
