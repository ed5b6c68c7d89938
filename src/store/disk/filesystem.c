/* Warns of file systems on which data is less safe or writes take longer, and explains errors that
 * come from the file system. */
#include "store/disk/filesystem.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>

struct shortfall {
    const char *name;
    const char *what;
};

static const struct shortfall shortfalls[] = {
    {"btrfs", "it turns O_DIRECT into buffered writes and copies every block that is overwritten: "
              "writes take longer and the disk fills up sooner"},
    {"tmpfs", "its files are in memory: all data is lost when the machine stops, whatever "
              "-durability says"},
    {"ramfs", "its files are in memory: all data is lost when the machine stops, whatever "
              "-durability says"},
    {"nfs", "a lock and a sync are only as good as its server's: an acknowledged write may be lost "
            "when that stops"},
    {"fuse", "a sync is only as good as the program behind it: an acknowledged write may be lost"},
    {"overlay", "what a container writes goes with the container: mount a volume for the data"},
};

void filesystem_warn(struct io *io, const struct log *log, const char *path)
{
    const char *name = io_file_system(io, path);
    assert(name != NULL);
    for (size_t i = 0; i < sizeof shortfalls / sizeof shortfalls[0]; i++) {
        if (strcmp(shortfalls[i].name, name) == 0)
            log_warn(log, "the data directory is on %s: %s. Use ext4 or XFS", name,
                     shortfalls[i].what);
    }
}

void filesystem_explain(struct io *io, const struct log *log, const char *path, int error)
{
    assert(error < 0);
    if (error == -EOPNOTSUPP)
        log_error(log, "%s is on %s, which lacks O_DIRECT or cannot reserve space: use ext4 or XFS",
                  path, io_file_system(io, path));
}
