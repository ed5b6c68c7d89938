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

/* The same for a frame that comes in pieces and whose output goes to buffers of the caller: what it
 * decodes to and what is refused are the same. `frame_size`: all of it. A frame that is moved
 * cannot be stepped. */
void decompressor_begin_moving(struct decompressor *decompressor, size_t frame_size,
                               uint64_t decoded_size_max);

struct decompressor_buffers {
    const uint8_t *input; /* the next bytes of the frame */
    size_t input_size;    /* may be 0: to go on with what is held already */
    size_t input_used;    /* result */
    uint8_t *output;
    size_t output_size; /* at least 1 */
    size_t output_used; /* result; may hold a byte over the limit when that is the error */
};

/* Moves bytes until the output is full or the input used up with nothing more to come of it.
 * Returns and errors as decompressor_step: 1 once the whole frame was decoded and all of it was
 * taken. */
int decompressor_move(struct decompressor *decompressor, struct decompressor_buffers *buffers);

/* The decoded size that a frame's first bytes tell, 0 when they tell none or there are too few of
 * them: to prepare for, not to rely on. */
uint64_t compress_declared_size(const uint8_t *frame, size_t size);

/* The memory that this context holds for output now, in bytes: at most twice what it has decoded,
 * or DECOMPRESS_OUTPUT_FIRST. */
#define DECOMPRESS_OUTPUT_FIRST 16384
size_t decompressor_memory(const struct decompressor *decompressor);

/* The bytes that suffice for the frame of so many. */
size_t compress_bound(size_t source_size);

/* A context that is kept from one frame to the next, at zstd's fastest level: what we compress
 * ourselves is on its way to the log, and somebody waits for it. Making a context for each frame
 * would cost more than compressing a small value. */
struct ZSTD_CCtx_s;

/* NULL: no memory. */
struct ZSTD_CCtx_s *compressor_create(void);
void compressor_free(struct ZSTD_CCtx_s *compressor); /* NULL: nothing */

/* Encodes into one frame with its content size, and returns its bytes; 0: no memory. `target_size`
 * is at least compress_bound's. What a frame contains does not depend on those before it. */
size_t compressor_frame(struct ZSTD_CCtx_s *compressor, uint8_t *target, size_t target_size,
                        const uint8_t *source, size_t source_size);

#endif
