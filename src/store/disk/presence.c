/* The log's directory by its name, against what it was. */
#include "store/disk/presence.h"

#include "base/assert.h"
#include "base/units.h"
#include "store/disk/filesystem.h"

#include <errno.h>

#define PRESENCE_INTERVAL_NS NS_PER_S

int presence_begin(struct presence *presence, struct io *io, const struct log *log,
                   const char *data_path, const char *log_directory)
{
    *presence = (struct presence){.io = io,
                                  .log = log,
                                  .data_path = data_path,
                                  .log_directory = log_directory,
                                  .looked_ns = io_now_ns(io)};
    int result = io_identify(io, log_directory, &presence->identity);
    return result < 0 ? filesystem_cannot(log, "look at", log_directory, result) : 0;
}

/* An error that says nothing about the name (no access any more, a failing device) is not an
 * absence. */
static bool is_elsewhere(const struct presence *presence)
{
    struct io_file_identity now;
    int result = io_identify(presence->io, presence->log_directory, &now);
    if (result < 0)
        return result == -ENOENT || result == -ENOTDIR;
    return now.device != presence->identity.device || now.inode != presence->identity.inode;
}

bool presence_step(struct presence *presence)
{
    assert(presence->log_directory != NULL);
    uint64_t now_ns = io_now_ns(presence->io);
    if (now_ns - presence->looked_ns < PRESENCE_INTERVAL_NS)
        return presence->is_gone;
    presence->looked_ns = now_ns;
    bool is_gone = is_elsewhere(presence);
    if (is_gone && !presence->is_gone)
        log_error(presence->log,
                  "the data directory %s was moved or removed while it was in use (there is no %s "
                  "any more, or another one). Sets and deletes are refused from now on; those of "
                  "the last second or two are lost where it was removed. Moved: put it back, or "
                  "stop this process and start it with -data where it lies now",
                  presence->data_path, presence->log_directory);
    if (!is_gone && presence->is_gone)
        log_warn(presence->log, "%s is back where it was: sets and deletes are taken again",
                 presence->log_directory);
    presence->is_gone = is_gone;
    return is_gone;
}
