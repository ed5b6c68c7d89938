/* Refused writes: a line a second. */
#include "store/disk/refusal.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

const char *refusal_meaning(struct io *io, const char *path, int error)
{
    assert(error < 0);
    switch (error) {
    case -ENOSPC:
        if (io_inodes_free(io, path) == 0)
            return "the file system has no inodes left: remove files from it, or make it anew with "
                   "more of them (mkfs.ext4 -N)";
        return "the disk is full: free some space on it, or delete keys";
    case -EDQUOT:
        return "the disk quota is used up: raise it, or delete keys";
    case -EMFILE:
        return "the process has as many open files as it may have: raise LimitNOFILE";
    case -ENFILE:
        return "the system has as many open files as it may have: raise fs.file-max";
    case -EFBIG:
        return "files may not become so large: raise LimitFSIZE";
    case -ENOMEM:
        return "there is no memory left: lower -cache, or give the process more";
    case -EROFS:
        return "the file system is read-only: the kernel's log says since when";
    case -EACCES:
    case -EPERM:
        return "this user may not: give it the data directory (chown -R)";
    default:
        return "the device failed: look at the kernel's log and replace it";
    }
}

bool refusal_may_pass(int error)
{
    return error == -ENOSPC || error == -EDQUOT || error == -EFBIG || error == -ENOMEM ||
           error == -EMFILE || error == -ENFILE;
}

void refusals_tell(struct refusals *refusals, const char *what, int error)
{
    uint64_t now_ns = io_now_ns(refusals->io);
    refusals->untold++;
    if (refusals->told_ns != 0 && now_ns - refusals->told_ns < NS_PER_S)
        return;
    log_warn(refusals->log,
             "%s: %s was refused (refusals since the last such line: %" PRIu64 "): %s: %s",
             refusals->path, what, refusals->untold, strerror(-error),
             refusal_meaning(refusals->io, refusals->path, error));
    refusals->told_ns = now_ns;
    refusals->untold = 0;
}
