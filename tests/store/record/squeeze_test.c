/* Which values are compressed, by itself. */
#include "store/record/squeeze.h"

#include "base/compress.h"
#include "base/units.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <zstd.h>

#define SIZE_MAX_TESTED ((uint32_t)(256 * KIB))
#define VALUE_SIZE 2000u

static uint8_t *bytes_create(uint32_t size)
{
    uint8_t *bytes = malloc(size);
    cr_assert_not_null(bytes);
    return bytes;
}

static void fill_noise(uint8_t *bytes, uint32_t size, struct prng *prng)
{
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)prng_next(prng);
}

static void fill_text(uint8_t *bytes, uint32_t size, struct prng *prng)
{
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t) "etaoin shrdlu"[prng_below(prng, 13)];
}

/* Bytes as evenly distributed as noise, but every 512 of them come again. */
static void fill_repeats(uint8_t *bytes, uint32_t size, struct prng *prng)
{
    fill_noise(bytes, size < 512 ? size : 512, prng);
    for (uint32_t i = 512; i < size; i++)
        bytes[i] = bytes[i - 512];
}

static void setup(struct squeeze *state)
{
    cr_assert_eq(squeeze_init(state, SIZE_MAX_TESTED, 1), 0);
}

static void assert_decodes_to(struct slice frame, struct slice value)
{
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    decompressor_begin(decompressor, frame.data, frame.size, value.size);
    cr_assert_eq(decompressor_step(decompressor, value.size + 1), 1);
    size_t size = 0;
    uint8_t *decoded = decompressor_take(decompressor, &size);
    cr_assert_eq(size, value.size);
    cr_assert_eq(memcmp(decoded, value.data, size), 0);
    free(decoded);
    decompressor_free(decompressor);
}

/* Feeds `count` values of one kind and returns how many were compressed. */
typedef void fill_function(uint8_t *bytes, uint32_t size, struct prng *prng);
static uint32_t feed(struct squeeze *state, fill_function *fill, uint32_t count, struct prng *prng)
{
    uint8_t bytes[VALUE_SIZE];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        fill(bytes, sizeof bytes, prng);
        struct slice frame;
        kept += (uint32_t)squeeze(state, (struct slice){bytes, sizeof bytes}, &frame);
    }
    return kept;
}

Test(squeeze, text_of_any_size_is_compressed_and_comes_back)
{
    struct squeeze state;
    setup(&state);
    struct prng prng = {2};
    const uint32_t sizes[] = {1025, 1026, 4096, 65535, 65536, 131072, 131073, SIZE_MAX_TESTED};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *bytes = bytes_create(sizes[i]);
        fill_text(bytes, sizes[i], &prng);
        struct slice value = {bytes, sizes[i]};
        struct slice frame = {NULL, 0};
        cr_assert_eq(squeeze(&state, value, &frame), 1, "%u", sizes[i]);
        cr_assert_leq(frame.size, sizes[i] - (sizes[i] + 7) / 8);
        assert_decodes_to(frame, value);
        free(bytes);
    }
    cr_assert_eq(state.stats.kept, sizeof sizes / sizeof sizes[0]);
    squeeze_deinit(&state);
}

Test(squeeze, sizes_out_of_bounds_are_left_alone)
{
    struct squeeze state;
    setup(&state);
    uint8_t *bytes = bytes_create(SIZE_MAX_TESTED + 1);
    memset(bytes, 'a', SIZE_MAX_TESTED + 1);
    struct slice frame = {NULL, 7};
    cr_assert_eq(squeeze(&state, (struct slice){NULL, 0}, &frame), 0);
    cr_assert_eq(squeeze(&state, (struct slice){bytes, 1}, &frame), 0);
    cr_assert_eq(squeeze(&state, (struct slice){bytes, 1024}, &frame), 0);
    cr_assert_eq(squeeze(&state, (struct slice){bytes, SIZE_MAX_TESTED + 1}, &frame), 0);
    cr_assert(frame.data == NULL && frame.size == 7, "outputs are untouched");
    cr_assert_eq(state.stats.values, 0, "and nothing is learned from them");
    cr_assert_eq(squeeze(&state, (struct slice){bytes, 1025}, &frame), 1);
    cr_assert_eq(squeeze(&state, (struct slice){bytes, SIZE_MAX_TESTED}, &frame), 1);
    free(bytes);
    squeeze_deinit(&state);
}

/* Noise with more and more zeros at its end: somewhere the frame is just small enough. */
Test(squeeze, an_eighth_less_is_kept_a_byte_more_is_not)
{
    struct ZSTD_CCtx_s *compressor = compressor_create();
    cr_assert_not_null(compressor);
    struct prng prng = {3};
    uint8_t bytes[VALUE_SIZE + 1], target[2 * VALUE_SIZE];
    bool at_threshold = false, a_byte_over = false;
    for (uint32_t size = VALUE_SIZE - 7; size <= VALUE_SIZE + 1; size++) {
        fill_noise(bytes, size, &prng);
        for (uint32_t zeros = 200; zeros < 320; zeros++) {
            memset(bytes + size - zeros, 0, zeros);
            size_t expected = compressor_frame(compressor, target, sizeof target, bytes, size);
            cr_assert_gt(expected, 0);
            struct squeeze state;
            setup(&state);
            struct slice frame;
            int kept = squeeze(&state, (struct slice){bytes, size}, &frame);
            cr_assert_eq(state.stats.tried, 1);
            cr_assert_eq(kept, 8 * expected <= 7 * (uint64_t)size, "%u", zeros);
            at_threshold |= kept && 8 * (expected + 1) > 7 * (uint64_t)size;
            a_byte_over |= !kept && 8 * (expected - 1) <= 7 * (uint64_t)size;
            squeeze_deinit(&state);
        }
    }
    cr_assert(at_threshold && a_byte_over, "the sweep met both sides of the threshold");
    compressor_free(compressor);
}

Test(squeeze, noise_is_hardly_ever_tried)
{
    struct squeeze state;
    setup(&state);
    struct prng prng = {4};
    cr_assert_eq(feed(&state, fill_noise, 20000, &prng), 0);
    const struct squeeze_stats *stats = &state.stats;
    cr_assert_eq(stats->values, 20000);
    cr_assert_eq(stats->passed + stats->noise + stats->tried, 20000);
    cr_assert_leq(stats->noise + stats->tried, 20000 / 64 + 400, "1 in 64, after learning that");
    cr_assert_leq(stats->tried, 50, "and most of these look like noise");
    cr_assert_gt(stats->tried, 5, "but some are tried");
    squeeze_deinit(&state);
}

/* 7.4 bits a byte: passes for text, and does not pay. */
static void fill_dense(uint8_t *bytes, uint32_t size, struct prng *prng)
{
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(prng_below(prng, 10) == 0 ? 0 : prng_below(prng, 256));
}

Test(squeeze, what_does_not_pay_is_tried_once_in_64)
{
    struct squeeze state;
    setup(&state);
    struct prng prng = {5};
    cr_assert_eq(feed(&state, fill_dense, 2000, &prng), 0);
    struct squeeze_stats learned = state.stats;
    cr_assert_eq(feed(&state, fill_dense, 64000, &prng), 0);
    uint64_t tried = state.stats.tried + state.stats.noise - learned.tried - learned.noise;
    cr_assert_geq(tried, 800);
    cr_assert_leq(tried, 1250);
    squeeze_deinit(&state);
}

Test(squeeze, text_after_noise_is_noticed_with_its_first_try)
{
    struct prng prng = {6};
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct squeeze state;
        cr_assert_eq(squeeze_init(&state, SIZE_MAX_TESTED, seed), 0);
        (void)feed(&state, fill_noise, 3000, &prng);
        uint32_t missed = 0;
        while (feed(&state, fill_text, 1, &prng) == 0)
            missed++;
        cr_assert_leq(missed, 126, "twice the mean distance at most");
        cr_assert_eq(feed(&state, fill_text, 500, &prng), 500, "from there on every one");
        squeeze_deinit(&state);
    }
}

Test(squeeze, a_mixed_stream_keeps_all_that_pays)
{
    struct squeeze state;
    setup(&state);
    struct prng prng = {7};
    uint32_t texts = 0, kept = 0;
    for (uint32_t i = 0; i < 5000; i++) {
        bool is_text = prng_below(&prng, 4) == 0;
        texts += is_text;
        kept += feed(&state, is_text ? fill_text : fill_noise, 1, &prng);
    }
    cr_assert_geq(kept, texts - texts / 100);
    cr_assert_leq(state.stats.tried - kept, 5000 / 10, "noise cost no more than a look");
    squeeze_deinit(&state);
}

/* With a fixed distance between two tries, a stream that repeats could hide what pays for ever. */
Test(squeeze, a_rare_kind_in_a_stream_that_repeats_is_found)
{
    struct squeeze state;
    setup(&state);
    struct prng prng = {8};
    uint32_t kept = 0;
    for (uint32_t i = 0; i < 64 * 256; i++)
        kept += feed(&state, i % 64 == 5 ? fill_text : fill_noise, 1, &prng);
    cr_assert_gt(kept, 10);
    squeeze_deinit(&state);
}

Test(squeeze, repeats_that_look_like_noise_are_compressed_nevertheless)
{
    struct squeeze state;
    setup(&state);
    struct prng prng = {9};
    uint32_t kept = feed(&state, fill_repeats, 20000, &prng);
    cr_assert_geq(kept, 19000);
    squeeze_deinit(&state);
}

Test(squeeze, the_same_values_after_the_same_seed_yield_the_same)
{
    struct squeeze a, b;
    cr_assert_eq(squeeze_init(&a, SIZE_MAX_TESTED, 11), 0);
    cr_assert_eq(squeeze_init(&b, SIZE_MAX_TESTED, 11), 0);
    struct prng prng = {10};
    uint8_t bytes[4000];
    for (uint32_t i = 0; i < 5000; i++) {
        uint32_t size = 1000 + (uint32_t)prng_below(&prng, 3001);
        bool is_text = prng_below(&prng, 30) == 0;
        (is_text ? fill_text : fill_noise)(bytes, size, &prng);
        struct slice frame_a = {NULL, 0}, frame_b = {NULL, 0};
        int result = squeeze(&a, (struct slice){bytes, size}, &frame_a);
        cr_assert_eq(squeeze(&b, (struct slice){bytes, size}, &frame_b), result);
        cr_assert(result == 0 || slice_equal(frame_a, frame_b));
    }
    cr_assert_eq(memcmp(&a.stats, &b.stats, sizeof a.stats), 0);
    squeeze_deinit(&a);
    squeeze_deinit(&b);
}

/* What came before must not show in a frame: the context is used again. */
Test(squeeze, a_frame_does_not_depend_on_those_before_it)
{
    struct squeeze fresh, used;
    setup(&used);
    struct prng prng = {12};
    (void)feed(&used, fill_text, 300, &prng);
    for (uint32_t i = 0; i < 50; i++) {
        uint8_t bytes[5000];
        uint32_t size = 1025 + (uint32_t)prng_below(&prng, 3900);
        fill_text(bytes, size, &prng);
        setup(&fresh);
        struct slice frame_fresh, frame_used;
        cr_assert_eq(squeeze(&fresh, (struct slice){bytes, size}, &frame_fresh), 1);
        cr_assert_eq(squeeze(&used, (struct slice){bytes, size}, &frame_used), 1);
        cr_assert(slice_equal(frame_fresh, frame_used));
        squeeze_deinit(&fresh);
    }
    squeeze_deinit(&used);
}

Test(squeeze, memory_is_bounded)
{
    struct squeeze state;
    setup(&state);
    uint8_t *bytes = bytes_create(SIZE_MAX_TESTED);
    struct prng prng = {13};
    fill_text(bytes, SIZE_MAX_TESTED, &prng);
    for (uint32_t i = 0; i < 500; i++) {
        uint32_t size = 1025 + (uint32_t)prng_below(&prng, SIZE_MAX_TESTED - 1024);
        struct slice frame;
        cr_assert_eq(squeeze(&state, (struct slice){bytes, size}, &frame), 1);
        size_t memory = state.frame_size + ZSTD_sizeof_CCtx(state.compressor);
        cr_assert_leq(memory, 5 * (uint64_t)SIZE_MAX_TESTED);
    }
    free(bytes);
    squeeze_deinit(&state);
}
