/* The bounded decoder under libFuzzer, held against zstd's own one-shot decoder.
 *
 * Input: one byte of options, two bytes of limit (in units of 16 bytes), then what a client says is
 * a frame. Or, with OPTION_TEXT, a text: repeated up to the limit and compressed it must come back,
 * and with OPTION_DAMAGE one byte of its frame is changed first. What must hold:
 *
 * 1. Whatever the input: the output's memory stays within what was decoded and within the limit,
 *    the steps come to an end, and the result does not depend on the slice.
 *    It is the same when the frame is moved in pieces of the slice's size.
 * 2. What is decoded is what ZSTD_decompress makes of it. What is refused, ZSTD_decompress refuses
 *    too, or it is not one plain frame with a window of at most 8 MiB and a value within the limit.
 *
 * Two exceptions, both malformed. A frame whose content is larger than its window may refer to
 * bytes beyond the window, which the one-shot decoder does not notice and a streaming one cannot
 * keep: what it finds there depends on its buffers. And a compressed block of no bytes is an empty
 * block to zstd's streaming decoder and an error to its one-shot decoder. */
#define ZSTD_STATIC_LINKING_ONLY
#include "base/bytes.h"
#include "base/compress.h"
#include "base/units.h"
#include "tests/support/fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <zstd.h>

#define OPTION_SLICE 0x07 /* which of slice_sizes */
#define OPTION_CHECKSUM 0x08
#define OPTION_SMALL_WINDOW 0x10
#define OPTION_NO_SIZE 0x20
#define OPTION_DAMAGE 0x40
#define OPTION_TEXT 0x80

#define TEXT_SIZE_MAX ((uint64_t)300 * 1024) /* three blocks */

struct outcome {
    int result; /* decompressor_step's last */
    uint8_t *value;
    size_t size;
};

static bool is_same(const uint8_t *first, const uint8_t *second, size_t size)
{
    return size == 0 || memcmp(first, second, size) == 0;
}

/* Rule 1, for one slice size. */
static struct outcome decode(const uint8_t *frame, size_t frame_size, uint64_t size_max,
                             size_t slice_size)
{
    struct decompressor *decompressor = NULL;
    REQUIRE(decompressor_create(&decompressor) == 0);
    decompressor_begin(decompressor, frame, frame_size, size_max);
    struct outcome outcome = {0};
    uint64_t step_count = 0;
    while (outcome.result == 0) {
        outcome.result = decompressor_step(decompressor, slice_size);
        step_count++;
        uint64_t memory = decompressor_memory(decompressor);
        REQUIRE(memory <= size_max + 1);
        REQUIRE(memory <= max_u64(DECOMPRESS_OUTPUT_FIRST, 2 * step_count * slice_size));
        /* Each step but two uses up its slice of the frame or of the value. */
        REQUIRE(step_count <= (frame_size + size_max + 1) / slice_size + 3);
    }
    if (outcome.result == 1) {
        outcome.value = decompressor_take(decompressor, &outcome.size);
        REQUIRE(outcome.size <= size_max);
        REQUIRE(outcome.value != NULL || outcome.size == 0);
    } else {
        REQUIRE(outcome.result == -EBADMSG || outcome.result == -EFBIG);
        REQUIRE(decompressor_memory(decompressor) == 0);
    }
    decompressor_free(decompressor);
    return outcome;
}

/* Moves the frame in pieces of `piece_size`, both ways. */
static struct outcome move(const uint8_t *frame, size_t frame_size, uint64_t size_max,
                           size_t piece_size)
{
    struct decompressor *decompressor = NULL;
    struct outcome outcome = {.value = malloc(size_max + piece_size)};
    REQUIRE(outcome.value != NULL && decompressor_create(&decompressor) == 0);
    decompressor_begin(decompressor, NULL, frame_size, size_max);
    size_t used = 0;
    while (outcome.result == 0) {
        struct decompressor_buffers buffers = {
            .input = frame + used,
            .input_size = min_u64(piece_size, frame_size - used),
            .output = outcome.value + outcome.size,
            .output_size = piece_size,
        };
        outcome.result = decompressor_move(decompressor, &buffers);
        REQUIRE(buffers.input_used <= buffers.input_size);
        REQUIRE(buffers.output_used <= buffers.output_size);
        REQUIRE(outcome.result != 0 || buffers.input_used + buffers.output_used > 0);
        used += buffers.input_used;
        outcome.size += buffers.output_used;
    }
    REQUIRE(outcome.result != 1 || (used == frame_size && outcome.size <= size_max));
    if (outcome.result < 0) {
        REQUIRE(outcome.result == -EBADMSG || outcome.result == -EFBIG);
        free(outcome.value);
        outcome = (struct outcome){.result = outcome.result};
    }
    decompressor_free(decompressor);
    return outcome;
}

/* Whether it is one plain frame that we take, as far as its header and its extent tell. */
static bool is_plain_frame(const uint8_t *frame, size_t frame_size, ZSTD_frameHeader *ret_header)
{
    if (frame_size < 4 || load_u32(frame) != ZSTD_MAGICNUMBER)
        return false;
    if (ZSTD_getFrameHeader(ret_header, frame, frame_size) != 0)
        return false;
    if (ret_header->windowSize > (uint64_t)1 << DECOMPRESS_WINDOW_LOG_MAX)
        return false;
    return ret_header->dictID == 0 && ZSTD_findFrameCompressedSize(frame, frame_size) == frame_size;
}

/* Walks the blocks of a frame whose extent is known to be right. */
static bool has_empty_compressed_block(const uint8_t *frame, size_t header_size)
{
    const uint8_t *block = frame + header_size;
    for (;;) {
        uint32_t header = load_u16(block) | (uint32_t)block[2] << 16;
        bool is_last = (header & 1) != 0;
        uint32_t type = header >> 1 & 3;
        uint32_t size = header >> 3;
        if (type == 2 && size == 0)
            return true;
        if (is_last)
            return false;
        block += 3 + (type == 1 ? 1 : size);
    }
}

/* Rule 2. */
static void require_reference(const uint8_t *frame, size_t frame_size, uint64_t size_max,
                              const struct outcome *outcome)
{
    ZSTD_frameHeader header;
    if (!is_plain_frame(frame, frame_size, &header)) {
        REQUIRE(outcome->result != 1);
        return;
    }
    uint8_t *value = malloc(size_max + 1);
    REQUIRE(value != NULL);
    size_t size = ZSTD_decompress(value, size_max, frame, frame_size);
    bool is_accepted = !ZSTD_isError(size);
    if (outcome->result != 1) {
        REQUIRE(!is_accepted || size > header.windowSize);
    } else if (is_accepted) {
        REQUIRE(outcome->size == size);
        REQUIRE(size > header.windowSize || is_same(outcome->value, value, size));
    } else {
        REQUIRE(has_empty_compressed_block(frame, header.headerSize));
    }
    free(value);
}

/* Rule 1, for two ways to slice. */
static void require_same_outcome(const uint8_t *frame, size_t frame_size, uint64_t size_max,
                                 const struct outcome *first, const struct outcome *second)
{
    ZSTD_frameHeader header;
    if (is_plain_frame(frame, frame_size, &header) && size_max > header.windowSize)
        return;
    REQUIRE(first->result == second->result);
    REQUIRE(first->size == second->size);
    REQUIRE(is_same(first->value, second->value, first->size));
}

static void fuzz_frame(const uint8_t *frame, size_t frame_size, uint64_t size_max,
                       size_t slice_size)
{
    struct outcome outcome = decode(frame, frame_size, size_max, slice_size);
    struct outcome other = decode(frame, frame_size, size_max, 256 * KIB);
    struct outcome moved = move(frame, frame_size, size_max, slice_size);
    require_same_outcome(frame, frame_size, size_max, &outcome, &other);
    require_same_outcome(frame, frame_size, size_max, &outcome, &moved);
    require_reference(frame, frame_size, size_max, &outcome);
    free(moved.value);
    free(other.value);
    free(outcome.value);
}

static uint8_t *text_create(const uint8_t *piece, size_t piece_size, size_t size)
{
    uint8_t *text = calloc(1, size + 1);
    REQUIRE(text != NULL);
    for (size_t i = 0; i < size && piece_size > 0; i += piece_size)
        memcpy(text + i, piece, min_u64(piece_size, size - i));
    return text;
}

static size_t encode(uint8_t *frame, size_t capacity, const uint8_t *text, size_t size,
                     uint8_t options)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    REQUIRE(context != NULL);
    (void)ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, (options & OPTION_CHECKSUM) != 0);
    (void)ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, (options & OPTION_NO_SIZE) == 0);
    if ((options & OPTION_SMALL_WINDOW) != 0)
        (void)ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, ZSTD_WINDOWLOG_MIN);
    size_t frame_size = ZSTD_compress2(context, frame, capacity, text, size);
    REQUIRE(!ZSTD_isError(frame_size));
    (void)ZSTD_freeCCtx(context);
    return frame_size;
}

static void fuzz_text(const uint8_t *piece, size_t piece_size, uint64_t size, size_t slice_size,
                      uint8_t options)
{
    uint8_t *text = text_create(piece, piece_size, size);
    size_t bound = ZSTD_COMPRESSBOUND(size) + ZSTD_FRAMEHEADERSIZE_MAX + size / 100;
    uint8_t *frame = malloc(bound);
    REQUIRE(frame != NULL);
    size_t frame_size = encode(frame, bound, text, size, options);
    if ((options & OPTION_DAMAGE) != 0 && piece_size >= 5) {
        frame[load_u32(piece) % frame_size] ^= piece[4];
        fuzz_frame(frame, frame_size, size, slice_size);
    } else {
        struct outcome outcome = decode(frame, frame_size, size, slice_size);
        REQUIRE(outcome.result == 1 && outcome.size == size);
        REQUIRE(is_same(outcome.value, text, size));
        free(outcome.value);
        outcome = move(frame, frame_size, size, slice_size);
        REQUIRE(outcome.result == 1 && outcome.size == size);
        REQUIRE(is_same(outcome.value, text, size));
        free(outcome.value);
        if (size > 0)
            REQUIRE(decode(frame, frame_size, size - 1, slice_size).result == -EFBIG);
    }
    free(frame);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t slice_sizes[] = {1, 2, 3, 17, 100, 1000, 4096, 65536};
    if (size < 3)
        return 0;
    uint8_t options = data[0];
    size_t slice_size = slice_sizes[options & OPTION_SLICE];
    uint64_t limit = min_u64(16 * (uint64_t)load_u16(data + 1), 2048 * slice_size);
    if ((options & OPTION_TEXT) != 0)
        fuzz_text(data + 3, size - 3, min_u64(limit, TEXT_SIZE_MAX), slice_size, options);
    else
        fuzz_frame(data + 3, size - 3, limit, slice_size);
    return 0;
}
