/* What the file system under the data directory keeps of what the store promises. */
#ifndef MINIVAULT_STORE_FILESYSTEM_H
#define MINIVAULT_STORE_FILESYSTEM_H

#include "base/log.h"
#include "io/io.h"

/* Warns, in one line, when something is lost on this file system; ext4 and XFS are what the store
 * is made for. */
void filesystem_warn(struct io *io, const struct log *log, const char *path);

/* Says what the file system lacks when that is why the directory cannot be used: `error`. */
void filesystem_explain(struct io *io, const struct log *log, const char *path, int error);

/* What the operator can do about an error of a file: a clause without an end. */
const char *filesystem_advice(int error);

/* Logs "cannot WHAT PATH: the reason; what to do". Returns `error`. */
int filesystem_cannot(const struct log *log, const char *what, const char *path, int error);

#endif
