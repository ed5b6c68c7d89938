/* Warns of file systems on which data is less safe or writes take longer, and says what to do about
 * errors that come from the file system. */
#include "store/disk/filesystem.h"

#include "base/assert.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <string.h>

struct shortfall {
    const char *name;
    const char *what;
    const char *advice; /* NULL: another file system */
};

static const struct shortfall shortfalls[] = {
    {"ext4 with data=journal",
     "it turns O_DIRECT into buffered writes and writes all data twice, first to its journal: "
     "writes take longer, and need memory for the page cache",
     "Mount it with data=ordered, the default"},
    {"btrfs",
     "it turns O_DIRECT into buffered writes and copies every block that is overwritten: "
     "writes take longer and the disk fills up sooner",
     NULL},
    {"tmpfs",
     "its files are in memory: all data is lost when the machine stops, whatever "
     "-durability says",
     NULL},
    {"ramfs",
     "its files are in memory: all data is lost when the machine stops, whatever "
     "-durability says",
     NULL},
    {"nfs",
     "a lock and a sync are only as good as its server's: an acknowledged write may be lost "
     "when that stops",
     NULL},
    {"fuse", "a sync is only as good as the program behind it: an acknowledged write may be lost",
     NULL},
    {"overlay", "what a container writes goes with the container: mount a volume for the data",
     NULL},
};

void filesystem_warn(struct io *io, const struct log *log, const char *path)
{
    const char *name = io_file_system(io, path);
    assert(name != NULL);
    for (size_t i = 0; i < sizeof shortfalls / sizeof shortfalls[0]; i++) {
        if (strcmp(shortfalls[i].name, name) == 0)
            log_warn(log, "the data directory %s is on %s: %s. %s", path, name, shortfalls[i].what,
                     shortfalls[i].advice != NULL ? shortfalls[i].advice : "Use ext4 or XFS");
    }
}

void filesystem_explain(struct io *io, const struct log *log, const char *path, int error)
{
    assert(error < 0);
    if (error == -EOPNOTSUPP)
        log_error(log, "%s is on %s, which lacks O_DIRECT or cannot reserve space: use ext4 or XFS",
                  path, io_file_system(io, path));
}

/* ---- errors ---- */

struct remedy {
    int error;
    const char *advice;
};

#define PUT_BACK "put back the one that was here, or restore the data directory from a backup"
#define ALLOW                                                                                      \
    "let the user that runs this process read and write it (chown, chmod), and pass the folders "  \
    "above it"
#define RAISE_FILES "raise the limit of open files (ulimit -n, LimitNOFILE=)"

static const struct remedy remedies[] = {
    {EACCES, ALLOW},
    {EPERM, ALLOW},
    {EROFS, "mount the file system writable; where it has become read-only by itself, the kernel's "
            "messages say why"},
    {ENOSPC, "free some space, or inodes, on that disk"},
    {EDQUOT, "raise the quota, or free some space"},
    {ENOENT, PUT_BACK},
    {ENOTDIR, "something else has this name: move it away, and " PUT_BACK},
    {EISDIR, "something else has this name: move it away, and " PUT_BACK},
    {ENAMETOOLONG, "give -data a shorter path"},
    {EFBIG, "raise the limit of file sizes (ulimit -f, LimitFSIZE=)"},
    {EMFILE, RAISE_FILES},
    {ENFILE, RAISE_FILES},
    {ENOMEM, "give this process more memory, or lower -cache or -shards"},
    {EOPNOTSUPP, "use ext4 or XFS"},
    {EBADMSG, "the lines above say where"}, /* also ours, of what was logged in detail */
};

const char *filesystem_advice(int error)
{
    assert(error < 0);
    for (size_t i = 0; i < sizeof remedies / sizeof remedies[0]; i++)
        if (remedies[i].error == -error)
            return remedies[i].advice;
    return disk_is_device_error(error)
               ? "the device fails: the kernel's messages say more. Restore the data directory "
                 "from a backup once it is mended"
               : "the lines above, or the kernel's messages, say more";
}

int filesystem_cannot(const struct log *log, const char *what, const char *path, int error)
{
    log_error(log, "cannot %s %s: %s; %s", what, path, strerror(-error), filesystem_advice(error));
    return error;
}
