/* Removals: an unlink that nobody waits for. */
#include "store/value/stream.h"

#include <errno.h>
#include <string.h>

static const struct stream_kind removal_kind = {.granted = NULL};

static void unlink_done(struct io_op *op, int32_t result)
{
    struct stream *stream = container_of(op, struct stream, op);
    if (result < 0 && result != -ENOENT)
        log_warn(stream->pool->log, "%s: removing it failed: %s; the next start tries again",
                 stream->path, strerror(-result));
    stream_free(stream);
}

void value_file_remove(struct stream_pool *pool, const struct value_file_name *name)
{
    struct stream *stream = stream_create(pool, &removal_kind, sizeof *stream, name, 0, NULL);
    if (stream == NULL)
        return;
    stream->op.done = unlink_done;
    io_unlink(pool->io, &stream->op, stream->path);
}
