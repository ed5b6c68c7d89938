/* Compression by itself: what was encoded comes back, and damaged or hostile frames end with an
 * error within the limits. */
#include "base/compress.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/prng.h"
#include "tests/support/guard.h"
#include "tests/support/zstd_frame.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#define SLICE ((size_t)(256 * KIB))
#define WINDOW_1_KIB 0
#define WINDOW_8_MIB (13 << 3)
#define BLOCK_SIZE_MAX (128 * 1024)

enum { RAW = 0, RLE = 1, COMPRESSED = 2 };

/* A frame made by hand (RFC 8878), so that it can say anything. */
struct frame {
    uint8_t *bytes;
    size_t size;
};

static void frame_put(struct frame *frame, const void *bytes, size_t size)
{
    frame->bytes = realloc(frame->bytes, frame->size + size);
    cr_assert_not_null(frame->bytes);
    memcpy(frame->bytes + frame->size, bytes, size);
    frame->size += size;
}

static struct frame frame_begin(uint8_t descriptor)
{
    struct frame frame = {0};
    frame_put(&frame, "\x28\xB5\x2F\xFD", 4);
    frame_put(&frame, &descriptor, 1);
    return frame;
}

/* A frame that does not tell its content's size. */
static struct frame frame_begin_window(uint8_t window)
{
    struct frame frame = frame_begin(0);
    frame_put(&frame, &window, 1);
    return frame;
}

/* A frame with its content's size in 8 bytes. */
static struct frame frame_begin_declared(uint8_t window, uint64_t content_size)
{
    struct frame frame = frame_begin(0xC0);
    frame_put(&frame, &window, 1);
    frame_put(&frame, &content_size, 8);
    return frame;
}

/* A frame that is one segment: its content's size, in 8 bytes, is its window too. */
static struct frame frame_begin_single(uint64_t content_size)
{
    struct frame frame = frame_begin(0xE0);
    frame_put(&frame, &content_size, 8);
    return frame;
}

static void frame_put_block(struct frame *frame, int type, bool last, const void *bytes,
                            uint32_t size)
{
    uint32_t header = (uint32_t)last | (uint32_t)type << 1 | size << 3;
    frame_put(frame, &header, 3);
    frame_put(frame, bytes, type == RLE ? 1 : size);
}

/* `size` zeros, in as many blocks as it takes. */
static void frame_put_zeros(struct frame *frame, uint64_t size)
{
    while (size > BLOCK_SIZE_MAX) {
        frame_put_block(frame, RLE, false, "", BLOCK_SIZE_MAX);
        size -= BLOCK_SIZE_MAX;
    }
    frame_put_block(frame, RLE, true, "", (uint32_t)size);
}

/* Steps to the end and returns the last result; the memory is within its bounds all along. */
static int decode(struct decompressor *decompressor, size_t slice_size, uint64_t size_max,
                  uint64_t *ret_step_count)
{
    uint64_t step_count = 0;
    int result = 0;
    while (result == 0) {
        result = decompressor_step(decompressor, slice_size);
        step_count++;
        uint64_t memory = decompressor_memory(decompressor);
        uint64_t produced_max = step_count * slice_size;
        cr_assert_leq(memory, size_max + 1);
        cr_assert_leq(memory, max_u64(DECOMPRESS_OUTPUT_FIRST, 2 * produced_max));
        if (result < 0)
            cr_assert_eq(memory, 0, "an error frees the output");
    }
    *ret_step_count = step_count;
    return result;
}

/* The same in pieces of `piece_size`, from before an unreadable page to before another one. */
static int move_frame(const uint8_t *bytes, size_t size, uint64_t size_max, size_t piece_size,
                      uint8_t *ret_value)
{
    struct guard from, to;
    guard_init(&from, piece_size);
    guard_init(&to, piece_size);
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    decompressor_begin_moving(decompressor, size, size_max);
    uint64_t used = 0, made = 0;
    int result = 0;
    while (result == 0) {
        size_t input_size = min_u64(piece_size, size - used);
        struct decompressor_buffers buffers = {
            .input = guard_copy(&from, bytes + used, input_size),
            .input_size = input_size,
            .output = to.base + to.size - piece_size,
            .output_size = piece_size,
        };
        result = decompressor_move(decompressor, &buffers);
        cr_assert(result != 0 || buffers.input_used + buffers.output_used > 0, "it stands still");
        used += buffers.input_used;
        if (ret_value != NULL && result >= 0)
            memcpy(ret_value + made, buffers.output, buffers.output_used);
        made += buffers.output_used;
        cr_assert(made <= size_max || result < 0);
    }
    cr_assert(result < 0 || used == size);
    decompressor_free(decompressor);
    guard_deinit(&from);
    guard_deinit(&to);
    return result;
}

/* Decodes a frame that lies before an unreadable page. Moved it gives the same. */
static int decode_frame(const uint8_t *bytes, size_t size, uint64_t size_max)
{
    struct guard guard;
    guard_init(&guard, size + 1);
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    decompressor_begin(decompressor, guard_copy(&guard, bytes, size), size, size_max);
    uint64_t step_count = 0;
    int result = decode(decompressor, SLICE, size_max, &step_count);
    decompressor_free(decompressor);
    guard_deinit(&guard);
    cr_assert_eq(move_frame(bytes, size, size_max, 4096, NULL), result);
    return result;
}

/* The same for a frame made by hand, which it frees. */
static int decode_made(struct frame frame, uint64_t size_max)
{
    int result = decode_frame(frame.bytes, frame.size, size_max);
    free(frame.bytes);
    return result;
}

static uint8_t *text_create(size_t size)
{
    uint8_t *text = malloc(size + 1);
    struct prng prng = {size};
    for (size_t i = 0; i < size; i++)
        text[i] = "etaoin shrdlu"[prng_below(&prng, 13)];
    return text;
}

/* Compresses text, decodes it with this slice and compares. */
static void assert_round_trip(struct decompressor *decompressor, size_t size, size_t slice_size)
{
    uint8_t *text = text_create(size);
    size_t bound = compress_bound(size);
    uint8_t *bytes = malloc(bound);
    int64_t frame_size = compress_frame(bytes, bound, text, size);
    cr_assert_gt(frame_size, 0);
    decompressor_begin(decompressor, bytes, (size_t)frame_size, size);
    uint64_t step_count = 0;
    cr_assert_eq(decode(decompressor, slice_size, size, &step_count), 1);
    cr_assert_geq(step_count * slice_size, size, "no step did more than its slice");
    size_t decoded_size = 99;
    uint8_t *decoded = decompressor_take(decompressor, &decoded_size);
    cr_assert_eq(decoded_size, size);
    cr_assert_eq(decoded == NULL, size == 0);
    if (size > 0)
        cr_assert_eq(memcmp(decoded, text, size), 0, "size %zu, slice %zu", size, slice_size);
    cr_assert_eq(decompressor_memory(decompressor), 0);
    free(decoded);
    uint8_t *moved = malloc(size + 1);
    cr_assert_eq(move_frame(bytes, (size_t)frame_size, size, slice_size, moved), 1);
    cr_assert_eq(memcmp(moved, text, size), 0, "size %zu, pieces of %zu", size, slice_size);
    free(moved);
    free(bytes);
    free(text);
}

Test(compress, what_was_encoded_comes_back)
{
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    const size_t sizes[] = {0,
                            1,
                            2,
                            255,
                            256,
                            257,
                            1000,
                            16383,
                            16384,
                            16385,
                            32768,
                            32769,
                            BLOCK_SIZE_MAX,
                            BLOCK_SIZE_MAX + 1,
                            1000000};
    const size_t slices[] = {1, 7, 4096, SLICE, 100 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (size_t j = 0; j < sizeof slices / sizeof slices[0]; j++)
            assert_round_trip(decompressor, sizes[i], slices[j]);
    assert_round_trip(decompressor, 20 * MIB, SLICE);
    decompressor_free(decompressor);
}

Test(compress, the_declared_size_is_told_by_the_first_bytes)
{
    static uint8_t source[100000], frame[200000];
    int64_t size = compress_frame(frame, sizeof frame, source, sizeof source);
    cr_assert_gt(size, 0);
    cr_assert_eq(compress_declared_size(frame, (size_t)size), sizeof source);
    cr_assert_eq(compress_declared_size(frame, 18), sizeof source);
    cr_assert_eq(compress_declared_size(frame, 5), 0, "too few of them");
    cr_assert_eq(compress_declared_size(frame, 0), 0);
    cr_assert_eq(compress_declared_size(source, sizeof source), 0, "no frame");
}

Test(compress, every_truncation_is_an_error)
{
    const size_t sizes[] = {0, 1, 300, 5000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint8_t *text = text_create(sizes[i]);
        uint8_t bytes[6000];
        int64_t size = compress_frame(bytes, sizeof bytes, text, sizes[i]);
        cr_assert_gt(size, 0);
        cr_assert_eq(decode_frame(bytes, (size_t)size, sizes[i]), 1);
        for (int64_t cut = 0; cut < size; cut++)
            cr_assert_eq(decode_frame(bytes, (size_t)cut, sizes[i]), -EBADMSG, "%d", (int)cut);
        free(text);
    }
}

Test(compress, every_truncation_of_a_frame_of_many_blocks_is_an_error)
{
    struct frame frame = frame_begin_window(WINDOW_8_MIB);
    for (int i = 0; i < 40; i++)
        frame_put_block(&frame, i % 2, i == 39, "0123456789", 10);
    cr_assert_eq(decode_frame(frame.bytes, frame.size, 400), 1);
    for (size_t cut = 0; cut < frame.size; cut++)
        cr_assert_eq(decode_frame(frame.bytes, cut, 400), -EBADMSG, "%zu", cut);
    free(frame.bytes);
}

Test(compress, garbage_is_an_error)
{
    uint8_t bytes[2000];
    struct prng prng = {5};
    for (int round = 0; round < 2000; round++) {
        size_t size = prng_below(&prng, sizeof bytes);
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)prng_next(&prng);
        cr_assert_eq(decode_frame(bytes, size, MIB), -EBADMSG);
    }
}

Test(compress, damage_never_exceeds_the_bounds)
{
    uint8_t *text = text_create(5000);
    uint8_t bytes[6000];
    int64_t size = compress_frame(bytes, sizeof bytes, text, 5000);
    cr_assert_gt(size, 0);
    struct prng prng = {6};
    for (int64_t i = 0; i < size; i++) {
        uint8_t kept = bytes[i];
        bytes[i] ^= (uint8_t)(1 + prng_below(&prng, 255));
        /* `decode` asserts the bounds; a flipped literal may well decode. */
        int result = decode_frame(bytes, (size_t)size, 5000);
        cr_assert(result == 1 || result == -EBADMSG || result == -EFBIG);
        bytes[i] = kept;
    }
    free(text);
}

Test(compress, other_formats_are_refused)
{
    cr_assert_eq(decode_frame((const uint8_t *)"", 0, MIB), -EBADMSG);
    cr_assert_eq(decode_frame((const uint8_t *)"\x1F\x8B\x08\0\0\0\0\0\0\3\3\0", 12, MIB), -EBADMSG,
                 "gzip");
    for (int i = 0x1E; i < 0x28; i++) {
        struct frame frame = frame_begin_window(WINDOW_8_MIB);
        frame_put_block(&frame, RAW, true, "old", 3);
        frame.bytes[0] = (uint8_t)i;
        cr_assert_eq(decode_made(frame, MIB), -EBADMSG, "zstd before 0.8");
    }
}

Test(compress, a_bomb_stops_at_the_limit)
{
    struct frame frame = frame_begin_window(WINDOW_8_MIB);
    frame_put_zeros(&frame, GIB);
    cr_assert_lt(frame.size, 40000);
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    decompressor_begin(decompressor, frame.bytes, frame.size, 16 * MIB);
    uint64_t step_count = 0;
    cr_assert_eq(decode(decompressor, SLICE, 16 * MIB, &step_count), -EFBIG);
    cr_assert_leq(step_count, 16 * MIB / SLICE + 1, "no work beyond the limit");
    decompressor_free(decompressor);
    free(frame.bytes);
}

Test(compress, a_bomb_of_one_kilobyte_stops_at_the_limit)
{
    struct frame frame = frame_begin_window(WINDOW_8_MIB);
    frame_put_zeros(&frame, 32 * MIB);
    cr_assert_leq(frame.size, 1100);
    cr_assert_eq(decode_frame(frame.bytes, frame.size, 16 * MIB), -EFBIG);
    cr_assert_eq(decode_frame(frame.bytes, frame.size, 32 * MIB - 1), -EFBIG);
    cr_assert_eq(decode_frame(frame.bytes, frame.size, 32 * MIB), 1);
    free(frame.bytes);
}

Test(compress, a_declared_size_over_the_limit_is_refused_up_front)
{
    const uint64_t declared[] = {MIB + 1, GIB, UINT32_MAX, (uint64_t)1 << 62, UINT64_MAX - 2};
    for (size_t i = 0; i < sizeof declared / sizeof declared[0]; i++) {
        struct frame frame = frame_begin_declared(WINDOW_8_MIB, declared[i]);
        frame_put_block(&frame, RAW, true, "tiny", 4);
        struct decompressor *decompressor = NULL;
        cr_assert_eq(decompressor_create(&decompressor), 0);
        decompressor_begin(decompressor, frame.bytes, frame.size, MIB);
        cr_assert_eq(decompressor_step(decompressor, 1), -EFBIG, "the first byte is too much");
        cr_assert_eq(decompressor_memory(decompressor), 0);
        decompressor_free(decompressor);
        free(frame.bytes);
    }
}

Test(compress, a_declared_size_that_is_not_true_is_refused)
{
    struct frame more = frame_begin_declared(WINDOW_8_MIB, 100 * MIB);
    frame_put_block(&more, RAW, true, "tiny", 4);
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    decompressor_begin(decompressor, more.bytes, more.size, 100 * MIB);
    for (int result = 0; result == 0;) {
        result = decompressor_step(decompressor, 1);
        cr_assert(result == 0 || result == -EBADMSG);
        cr_assert_leq(decompressor_memory(decompressor), DECOMPRESS_OUTPUT_FIRST,
                      "nothing is allocated from a declared length");
    }
    decompressor_free(decompressor);
    free(more.bytes);

    more = frame_begin_declared(WINDOW_8_MIB, 5);
    frame_put_block(&more, RAW, false, "tiny", 4);
    frame_put_block(&more, RAW, true, "", 0);
    cr_assert_eq(decode_made(more, 100 * MIB), -EBADMSG, "the last block is empty");

    struct frame less = frame_begin_declared(WINDOW_8_MIB, 4);
    frame_put_zeros(&less, GIB);
    cr_assert_eq(decode_made(less, 100 * MIB), -EBADMSG);
    less = frame_begin_single(4);
    frame_put_block(&less, RAW, true, "12345", 5);
    cr_assert_eq(decode_made(less, 100 * MIB), -EBADMSG);
    less = frame_begin_declared(WINDOW_1_KIB, 100000);
    for (int i = 0; i < 200; i++)
        frame_put_block(&less, RLE, i == 199, "", 1024);
    cr_assert_eq(decode_made(less, 100 * MIB), -EBADMSG, "it is seen long before the end");
    less = frame_begin_declared(WINDOW_8_MIB, 0);
    frame_put_block(&less, RAW, true, "1", 1);
    cr_assert_eq(decode_made(less, 100 * MIB), -EBADMSG);
}

Test(compress, the_limit_itself_is_allowed)
{
    for (uint64_t size = 16383; size <= 16386; size++) {
        struct frame frame = frame_begin_window(WINDOW_8_MIB);
        frame_put_zeros(&frame, size);
        cr_assert_eq(decode_frame(frame.bytes, frame.size, size), 1);
        cr_assert_eq(decode_frame(frame.bytes, frame.size, size - 1), -EFBIG);
        free(frame.bytes);
        frame = frame_begin_declared(WINDOW_8_MIB, size);
        frame_put_zeros(&frame, size);
        cr_assert_eq(decode_frame(frame.bytes, frame.size, size), 1);
        cr_assert_eq(decode_frame(frame.bytes, frame.size, size - 1), -EFBIG);
        free(frame.bytes);
    }
    struct frame frame = frame_begin_window(WINDOW_8_MIB);
    frame_put_block(&frame, RAW, true, "", 0);
    cr_assert_eq(decode_frame(frame.bytes, frame.size, 0), 1, "an empty value is a value");
    free(frame.bytes);
    frame = frame_begin_window(WINDOW_8_MIB);
    frame_put_block(&frame, RAW, true, "1", 1);
    cr_assert_eq(decode_made(frame, 0), -EFBIG);
}

Test(compress, windows_up_to_8_mib_are_allowed)
{
    for (int window = 0; window <= 255; window++) {
        struct frame frame = frame_begin_window((uint8_t)window);
        frame_put_block(&frame, RAW, true, "small", 5);
        int expected = window <= WINDOW_8_MIB ? 1 : -EBADMSG; /* A8: 2 GB */
        cr_assert_eq(decode_made(frame, MIB), expected, "window %02x", window);
        frame = frame_begin_declared((uint8_t)window, 5);
        frame_put_block(&frame, RAW, true, "small", 5);
        cr_assert_eq(decode_made(frame, MIB), expected, "window %02x, declared", window);
        frame = frame_begin_declared((uint8_t)window, 0);
        frame_put_block(&frame, RAW, true, "", 0);
        cr_assert_eq(decode_made(frame, MIB), expected, "window %02x, empty", window);
    }
}

Test(compress, a_single_segment_is_its_own_window)
{
    struct frame frame = frame_begin_single(8 * MIB);
    frame_put_zeros(&frame, 8 * MIB);
    cr_assert_eq(decode_made(frame, 100 * MIB), 1);
    frame = frame_begin_single(8 * MIB + 1);
    frame_put_zeros(&frame, 8 * MIB + 1);
    cr_assert_eq(decode_made(frame, 100 * MIB), -EBADMSG);
}

Test(compress, skippable_frames_are_refused)
{
    struct frame frame = {0};
    for (int i = 0; i < 100000; i++)
        frame_put(&frame, "\x50\x2A\x4D\x18\0\0\0\0", 8);
    cr_assert_eq(decode_frame(frame.bytes, frame.size, MIB), -EBADMSG);
    cr_assert_eq(decode_frame(frame.bytes, 8, MIB), -EBADMSG);

    struct frame value = frame_begin_window(WINDOW_8_MIB);
    frame_put_block(&value, RAW, true, "value", 5);
    struct frame behind = {0};
    frame_put(&behind, value.bytes, value.size);
    frame_put(&behind, frame.bytes, 8);
    cr_assert_eq(decode_made(behind, MIB), -EBADMSG);
    frame_put(&frame, value.bytes, value.size);
    cr_assert_eq(decode_made(frame, MIB), -EBADMSG, "the value comes behind 10^5 of them");
    free(value.bytes);
}

Test(compress, there_is_one_frame_and_nothing_behind_it)
{
    struct frame frame = frame_begin_window(WINDOW_8_MIB);
    frame_put_block(&frame, RAW, true, "value", 5);
    size_t size = frame.size;
    cr_assert_eq(decode_frame(frame.bytes, size, MIB), 1);
    frame_put(&frame, "", 1);
    cr_assert_eq(decode_frame(frame.bytes, size + 1, MIB), -EBADMSG);
    uint8_t again[16];
    memcpy(again, frame.bytes, size);
    frame.size = size;
    frame_put(&frame, again, size);
    cr_assert_eq(decode_made(frame, MIB), -EBADMSG, "two frames");
}

Test(compress, dictionaries_are_refused)
{
    for (uint8_t id = 0; id < 2; id++) {
        struct frame frame = frame_begin(0x01);
        frame_put(&frame, &(uint8_t){WINDOW_8_MIB}, 1);
        frame_put(&frame, &id, 1);
        frame_put_block(&frame, RAW, true, "value", 5);
        cr_assert_eq(decode_made(frame, MIB), id == 0 ? 1 : -EBADMSG, "0 means none");
    }
}

Test(compress, checksums_and_reserved_bits_are_looked_at)
{
    struct frame frame = frame_begin(0x04);
    frame_put(&frame, &(uint8_t){WINDOW_8_MIB}, 1);
    frame_put_block(&frame, RAW, true, "value", 5);
    uint64_t checksum = hash_key((const uint8_t *)"value", 5);
    frame_put(&frame, &checksum, 4);
    cr_assert_eq(decode_frame(frame.bytes, frame.size, MIB), 1);
    for (size_t cut = 1; cut <= 4; cut++)
        cr_assert_eq(decode_frame(frame.bytes, frame.size - cut, MIB), -EBADMSG);
    frame.bytes[frame.size - 1] ^= 1;
    cr_assert_eq(decode_made(frame, MIB), -EBADMSG);

    frame = frame_begin(0x08);
    frame_put(&frame, &(uint8_t){WINDOW_8_MIB}, 1);
    frame_put_block(&frame, RAW, true, "value", 5);
    cr_assert_eq(decode_made(frame, MIB), -EBADMSG);
}

Test(compress, empty_blocks_are_sliced_too)
{
    struct frame frame = frame_begin_window(WINDOW_8_MIB);
    for (int i = 0; i < 100000; i++)
        frame_put_block(&frame, RAW, i == 99999, "", 0);
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    decompressor_begin(decompressor, frame.bytes, frame.size, MIB);
    uint64_t step_count = 0;
    cr_assert_eq(decode(decompressor, 1000, MIB, &step_count), 1);
    cr_assert_geq(step_count, frame.size / 1000, "no step looked at more than its slice");
    size_t size = 99;
    cr_assert_null(decompressor_take(decompressor, &size));
    cr_assert_eq(size, 0);
    decompressor_free(decompressor);
    free(frame.bytes);
}

/* zstd's one-shot decoder, to which it turns when the whole value fits into the room that it is
 * given, refuses a compressed block of no bytes; its streaming decoder does not. */
Test(compress, what_a_malformed_frame_decodes_to_does_not_depend_on_the_slice)
{
    struct frame frame = frame_begin_single(5);
    frame_put_block(&frame, COMPRESSED, false, "", 0);
    frame_put_block(&frame, RAW, true, "value", 5);
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    const size_t slices[] = {MIB, 100, 5, 4, 1};
    int result_first = 0;
    for (size_t i = 0; i < sizeof slices / sizeof slices[0]; i++) {
        uint64_t step_count = 0;
        decompressor_begin(decompressor, frame.bytes, frame.size, MIB);
        int result = decode(decompressor, slices[i], MIB, &step_count);
        cr_assert(i == 0 || result == result_first, "slice %zu: %d", slices[i], result);
        result_first = result;
    }
    decompressor_free(decompressor);
    free(frame.bytes);
}

Test(compress, a_context_is_reusable_after_anything)
{
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    assert_round_trip(decompressor, 100000, 4096);
    decompressor_begin(decompressor, (const uint8_t *)"garbage", 7, MIB);
    cr_assert_eq(decompressor_step(decompressor, SLICE), -EBADMSG);
    assert_round_trip(decompressor, 100000, 4096);

    struct frame frame = frame_begin_window(WINDOW_8_MIB);
    frame_put_zeros(&frame, 100000);
    decompressor_begin(decompressor, frame.bytes, frame.size, MIB);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(decompressor_step(decompressor, 100), 0, "abandoned half way");
    assert_round_trip(decompressor, 100000, 4096);

    decompressor_begin(decompressor, frame.bytes, frame.size, MIB);
    cr_assert_eq(decompressor_step(decompressor, SLICE), 1, "done and never taken");
    cr_assert_gt(decompressor_memory(decompressor), 0);
    assert_round_trip(decompressor, 100000, 4096);
    decompressor_begin(decompressor, frame.bytes, frame.size, MIB);
    decompressor_free(decompressor);
    decompressor_free(NULL);
    free(frame.bytes);
}

Test(compress, stepping_after_an_error_aborts, .signal = SIGABRT)
{
    struct decompressor *decompressor = NULL;
    cr_assert_eq(decompressor_create(&decompressor), 0);
    decompressor_begin(decompressor, (const uint8_t *)"garbage", 7, MIB);
    cr_assert_eq(decompressor_step(decompressor, SLICE), -EBADMSG);
    (void)decompressor_step(decompressor, SLICE);
}
