/* Whether the data directory still is where it was opened.
 *
 * Open files outlive their names: after `rm -rf` or `mv` of the directory the log goes on taking
 * writes, which nobody will find again, and what is created or removed by name would be in whatever
 * lies there now. So who writes asks first. */
#ifndef MINIVAULT_STORE_DISK_PRESENCE_H
#define MINIVAULT_STORE_DISK_PRESENCE_H

#include "base/log.h"
#include "io/io.h"

struct presence {
    struct io *io;
    const struct log *log;
    const char *data_path, *log_directory;
    struct io_file_identity identity; /* of the log's directory */
    uint64_t looked_ns;
    bool is_gone;
};

/* Takes what lies there now. The paths are the caller's and stay. Errors: stat(2)'s. */
int presence_begin(struct presence *presence, struct io *io, const struct log *log,
                   const char *data_path, const char *log_directory);

/* Looks once a second, and says when it goes and when it is back. Returns whether it is gone. */
bool presence_step(struct presence *presence);

#endif
