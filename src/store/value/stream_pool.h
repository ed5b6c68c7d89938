/* The buffers that all streams of a shard share: the writers and readers of value files.
 *
 * However large values are and however many of them come and go, they take this memory and no more.
 * The rules:
 *
 * 1. A stream that holds no buffer gets one before any other stream gets another one. When there is
 *    none it waits; those that wait are served first come, first served.
 * 2. A stream that holds buffers gets one more, up to STREAM_BUFFERS_MAX, only while nobody waits
 *    and at least as many stay free as there are streams that hold none.
 * 3. What a stream holds beyond its first buffer and does not need at once (what was read ahead) is
 *    taken back as soon as somebody waits.
 *
 * So a client that stalls keeps one buffer while it sends, and what was shown to it while it
 * receives. When as many clients stall as there are buffers, others wait until one goes on or is
 * given up: that is what time limits on clients are for. */
#ifndef MINIVAULT_STORE_STREAM_POOL_H
#define MINIVAULT_STORE_STREAM_POOL_H

#include "base/log.h"
#include "base/units.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

#define VALUE_FILE_BUFFER_SIZE ((uint32_t)(256 * KIB))
#define STREAM_BUFFERS_MAX 8u
#define STREAM_FOLDERS_MAX 256u /* open at once: the partitions' */

struct stream_pool;

/* `memory`: `count` (at least 1) times VALUE_FILE_BUFFER_SIZE bytes, aligned to 4096, best in the
 * world's region; they are the pool's until stream_pool_free. `path`: the data directory; the
 * string stays the caller's; its folders 00 to ff, as far as streams use them, are there. Each
 * writer and each reader has one file open, and each folder that one of them has synced another
 * one (io_options.files_max). Errors: -ENOMEM. */
int stream_pool_create(struct io *io, const struct log *log, const char *path, uint8_t *memory,
                       uint32_t count, struct stream_pool **ret_pool);

/* Either the pool is not busy, or the world was closed: then all streams go with it, and nobody
 * uses them again, not even to close them. */
void stream_pool_free(struct stream_pool *pool);

/* Writers and readers that were opened and not yet closed. */
uint32_t stream_pool_streams(const struct stream_pool *pool);

/* Whether anything is still under way: writers, readers (also closed ones, until they are gone),
 * removals. For shutting: close all streams, then run the world until this is false. */
bool stream_pool_is_busy(const struct stream_pool *pool);

#endif
