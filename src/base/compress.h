/* zstd, bounded: the only file that includes zstd is compress.c.
 *
 * A client's compressed value is one zstd frame (RFC 8878). It is decoded in slices, so that a
 * large one cannot hold the loop, into memory that grows with what was really produced: nothing is
 * allocated from a declared length. The window is at most 8 MiB (ZSTD_d_windowLogMax 23); a context
 * keeps one, beside its output, once it has met a frame that wants it. What a frame decodes to does
 * not depend on how it is sliced (unless it refers to bytes beyond its window: RFC 8878 forbids
 * that, and zstd does not always notice). */
#ifndef MINIVAULT_BASE_COMPRESS_H
#define MINIVAULT_BASE_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DECOMPRESS_WINDOW_LOG_MAX 23

struct decompressor; /* one zstd context, reusable */

/* Errors: -ENOMEM. */
int decompressor_create(struct decompressor **ret_decompressor);
void decompressor_free(struct decompressor *decompressor);

/* Begins one frame, `size` bytes that stay the caller's and must not change until the last step.
 * The decoded value may have at most `decoded_size_max` bytes. What came before is abandoned. */
void decompressor_begin(struct decompressor *decompressor, const uint8_t *frame, size_t size,
                        uint64_t decoded_size_max);

/* Decodes at most `slice_size` more bytes, and looks at no more than that many of the frame: empty
 * blocks cost time too. Returns 0: call again; 1: done, the result is whole.
 * Errors: -EBADMSG (not one well-formed frame: garbage, truncated, skippable, bytes behind it, a
 * window over 8 MiB, a dictionary), -EFBIG (it decodes to more than decoded_size_max, or says so),
 * -ENOMEM. After an error only begin or free may follow (its output is freed already), after 1 also
 * take. */
int decompressor_step(struct decompressor *decompressor, size_t slice_size);

/* Hands over the decoded bytes (malloc'ed, the caller frees them; NULL only when *ret_size is 0)
 * after a step returned 1. */
uint8_t *decompressor_take(struct decompressor *decompressor, size_t *ret_size);

/* The memory that this context holds for output now, in bytes: at most twice what it has decoded,
 * or DECOMPRESS_OUTPUT_FIRST. */
#define DECOMPRESS_OUTPUT_FIRST 16384
size_t decompressor_memory(const struct decompressor *decompressor);

/* Encodes into one frame with its content size; for tests and tools. Returns the frame's size.
 * Errors: -ENOSPC (target too small; compress_bound tells what suffices), -ENOMEM. */
int64_t compress_frame(uint8_t *target, size_t target_size, const uint8_t *source,
                       size_t source_size);
size_t compress_bound(size_t source_size);

#endif
