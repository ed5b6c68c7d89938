/* Which values are tried, and what the tries teach.
 *
 * Invariants:
 * 1. The score is a share of SCORE_ONE.
 * 2. Of the values that are large enough, each is passed over, noise, or tried. */
#include "store/record/squeeze.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <stdlib.h>

#define SCORE_ONE 65536u
#define SCORE_WEIGHT 64u             /* what one try counts */
#define SCORE_PAID (SCORE_ONE / 8)   /* at least, after a try that paid */
#define SCORE_ALL (SCORE_ONE / 16)   /* at least this: every value is tried */
#define SCORE_OFTEN (SCORE_ONE / 64) /* at least this: 1 value in 16 */
/* At least this: nearly all that comes pays, so a look at it first would be wasted. */
#define SCORE_SURE (SCORE_ONE - SCORE_ONE / 8)
#define TRY_OFTEN 16u
#define TRY_SELDOM 64u

/* The sample: 8 bytes at 32 places. */
#define SAMPLE_PLACES 32u
#define SAMPLE_RUN 8u
/* Equal pairs among 256 bytes: 127.5 on average where all values are as likely, with a standard
 * deviation of 11; 255 where it is 7 bits a byte, which would save the eighth. */
#define NOISE_PAIRS_MAX 192u
#define NOISE_TRY 16u
#define NOISE_UNSEEN 1024u

int squeeze_init(struct squeeze *squeeze, uint32_t value_size_max, uint64_t seed)
{
    *squeeze = (struct squeeze){
        .frame_size = compress_bound(value_size_max),
        .value_size_max = value_size_max,
        .score = SCORE_ONE,
        .prng = {seed},
    };
    squeeze->compressor = compressor_create();
    squeeze->frame = malloc(squeeze->frame_size);
    if (squeeze->compressor != NULL && squeeze->frame != NULL)
        return 0;
    squeeze_deinit(squeeze);
    return -ENOMEM;
}

void squeeze_deinit(struct squeeze *squeeze)
{
    compressor_free(squeeze->compressor);
    free(squeeze->frame);
}

/* Whether a sample of the bytes is as evenly distributed as chance would have it. */
static bool looks_like_noise(struct slice value)
{
    uint8_t counts[256] = {0};
    uint32_t stride = value.size / SAMPLE_PLACES;
    uint32_t pairs = 0;
    assert(stride >= SAMPLE_RUN);
    for (uint32_t place = 0; place < SAMPLE_PLACES; place++) {
        const uint8_t *bytes = value.data + place * stride;
        for (uint32_t i = 0; i < SAMPLE_RUN; i++)
            pairs += counts[bytes[i]]++;
    }
    return pairs <= NOISE_PAIRS_MAX;
}

/* Returns the size of the frame when it pays, else 0. */
static uint32_t frame_make(struct squeeze *squeeze, struct slice value)
{
    squeeze->stats.tried++;
    size_t size = compressor_frame(squeeze->compressor, squeeze->frame, squeeze->frame_size,
                                   value.data, value.size);
    /* 0: zstd had no memory. Then this value is written as it is. */
    if (size == 0 || size > value.size - (value.size + 7) / 8)
        return 0;
    squeeze->stats.kept++;
    squeeze->stats.kept_bytes += value.size;
    squeeze->stats.kept_frame_bytes += size;
    return (uint32_t)size;
}

static uint32_t value_try(struct squeeze *squeeze, struct slice value)
{
    if (squeeze->noise_unseen > 0) {
        squeeze->noise_unseen--;
        return frame_make(squeeze, value);
    }
    if (squeeze->score >= SCORE_SURE || !looks_like_noise(value))
        return frame_make(squeeze, value);
    if (prng_below(&squeeze->prng, NOISE_TRY) != 0) {
        squeeze->stats.noise++;
        return 0;
    }
    uint32_t size = frame_make(squeeze, value);
    if (size > 0)
        squeeze->noise_unseen = NOISE_UNSEEN;
    return size;
}

static void learn(struct squeeze *squeeze, bool paid)
{
    uint32_t score = squeeze->score;
    if (paid)
        score = (uint32_t)max_u64(score + (SCORE_ONE - score) / SCORE_WEIGHT, SCORE_PAID);
    else
        score -= score / SCORE_WEIGHT;
    assert(score <= SCORE_ONE); /* invariant 1 */
    squeeze->score = score;
    if (score >= SCORE_ALL)
        return;
    uint64_t every = score >= SCORE_OFTEN ? TRY_OFTEN : TRY_SELDOM;
    squeeze->pass_left = (uint32_t)prng_below(&squeeze->prng, 2 * every - 1);
}

int squeeze(struct squeeze *squeeze, struct slice value, struct slice *ret_frame)
{
    if (value.size <= SQUEEZE_SIZE_MIN || value.size > squeeze->value_size_max)
        return 0;
    squeeze->stats.values++;
    if (squeeze->pass_left > 0) {
        squeeze->pass_left--;
        squeeze->stats.passed++;
        return 0;
    }
    uint32_t size = value_try(squeeze, value);
    const struct squeeze_stats *stats = &squeeze->stats;
    assert(stats->values == stats->passed + stats->noise + stats->tried); /* invariant 2 */
    learn(squeeze, size > 0);
    if (size == 0)
        return 0;
    *ret_frame = (struct slice){squeeze->frame, size};
    return 1;
}
