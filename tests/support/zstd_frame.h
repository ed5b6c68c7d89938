/* A value as a client compresses it. */
#ifndef MINIVAULT_TESTS_ZSTD_FRAME_H
#define MINIVAULT_TESTS_ZSTD_FRAME_H

#include <stdint.h>
#include <zstd.h>

/* Encodes into one frame with its content size, at zstd's default level. Returns the frame's size,
 * or -1: the target is smaller than compress_bound wants. */
static inline int64_t compress_frame(uint8_t *target, size_t target_size, const uint8_t *source,
                                     size_t source_size)
{
    size_t result = ZSTD_compress(target, target_size, source, source_size, 3);
    return ZSTD_isError(result) ? -1 : (int64_t)result;
}

#endif
