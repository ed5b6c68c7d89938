/* Compresses raw values on their way to the log, where that pays.
 *
 * A value above 1 KiB is compressed when that saves at least an eighth of it; else it stays as it
 * is. Whether to try at all is learned from the last tries: values of one time are mostly of one
 * kind, and photographs, archives and ciphertext never shrink.
 *
 *   score       = a moving average of "it paid" (1) and "it did not" (0), over about 64 tries
 *   score >= 1/16    every value is tried
 *   score >= 1/64    1 value in 16, on average
 *   below            1 value in 64
 *
 * One try that pays lifts the score to at least 1/8, so that what compresses again is noticed with
 * its first value that is tried. How many values are passed over is drawn by lot from a seed, since
 * a fixed number would see only one phase of a stream that repeats; the same values after the same
 * seed yield the same frames.
 *
 * Unless nearly all tries pay, 256 bytes of a value are counted before zstd sees it: when they look
 * like noise, the try has failed without one. That costs a tenth of what zstd needs to find that
 * out for 1 KiB, a hundredth for 64 KiB (perf/micro). Bytes that look like noise can still repeat
 * themselves, so one value in 16 that looks like it is tried anyway, and when that pays, looks do
 * not count for the next 1,024 tries.
 *
 * No I/O, no clock, no allocation but zstd's own, which follows the size of the values. */
#ifndef MINIVAULT_STORE_SQUEEZE_H
#define MINIVAULT_STORE_SQUEEZE_H

#include "base/bytes.h"
#include "base/compress.h"
#include "base/prng.h"

#include <stdint.h>

/* Values up to this size are left alone. */
#define SQUEEZE_SIZE_MIN 1024u

struct squeeze_stats {
    uint64_t values;     /* above SQUEEZE_SIZE_MIN and not too large */
    uint64_t passed;     /* of them: not looked at */
    uint64_t noise;      /* looked like noise, not tried */
    uint64_t tried;      /* given to zstd */
    uint64_t kept;       /* of the tried: compressed */
    uint64_t kept_bytes; /* their sizes before */
    uint64_t kept_frame_bytes;
};

struct squeeze {
    struct ZSTD_CCtx_s *compressor;
    uint8_t *frame;
    uint64_t frame_size; /* of the buffer */
    uint32_t value_size_max;
    uint32_t score;        /* 0 to 65,536, which is 1 */
    uint32_t pass_left;    /* values to pass over */
    uint32_t noise_unseen; /* tries for which looking like noise does not count */
    struct prng prng;
    struct squeeze_stats stats;
};

/* Values above `value_size_max` are left alone. Takes about as much memory as that for the frame,
 * and within zstd up to two and a half times as much. Errors: -ENOMEM. */
int squeeze_init(struct squeeze *squeeze, uint32_t value_size_max, uint64_t seed);
void squeeze_deinit(struct squeeze *squeeze);

/* Returns 1: the value is better stored as *ret_frame, one zstd frame that tells its content's
 * size, valid until the next call; 0: it is better stored as it is. */
int squeeze(struct squeeze *squeeze, struct slice value, struct slice *ret_frame);

#endif
