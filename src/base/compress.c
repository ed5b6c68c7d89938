/* Frames of zstd: decoding in slices into memory that grows, or piece by piece through the caller's,
 * and compressing. The states of a decompressor stand below. */
#include "base/compress.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

/* Magic number, descriptor, and one byte of window or content size. */
#define FRAME_HEADER_SIZE_MIN 6
#define FRAME_HEADER_SIZE_MAX 18
#define FRAME_DESCRIPTOR_OFFSET 4
#define FRAME_WINDOW_OFFSET 5
#define FRAME_SINGLE_SEGMENT 0x20

#define COMPRESSOR_LEVEL 1

/*   created, failed, done --begin--> begun --step: header good--> decoding --step--> done
 *   begun, decoding --step: error--> failed (the output is freed)
 *   begun, decoding, done --begin--> begun (the output is freed)
 *   done --take--> created
 *
 * decompressor_move goes the same way as step, without output of its own. */
enum state { CREATED, BEGUN, DECODING, DONE, FAILED };

struct decompressor {
    ZSTD_DCtx *context;
    enum state state;
    bool limit_declared; /* `limit` is the frame's own content size */
    const uint8_t *frame;
    size_t frame_size;
    size_t frame_position;
    uint8_t *output;
    size_t output_size; /* decoded so far */
    size_t output_capacity;
    size_t limit;        /* of output_size */
    bool is_full;        /* moving: there may be more output without any more input */
    uint8_t header_size; /* moving: what is there of the header */
    uint8_t header_used;
    uint8_t header[FRAME_HEADER_SIZE_MAX];
};

int decompressor_create(struct decompressor **ret_decompressor)
{
    struct decompressor *decompressor = calloc(1, sizeof *decompressor);
    if (decompressor == NULL)
        return -ENOMEM;
    decompressor->context = ZSTD_createDCtx();
    if (decompressor->context == NULL) {
        free(decompressor);
        return -ENOMEM;
    }
    size_t result = ZSTD_DCtx_setParameter(decompressor->context, ZSTD_d_windowLogMax,
                                           DECOMPRESS_WINDOW_LOG_MAX);
    assert(!ZSTD_isError(result));
    *ret_decompressor = decompressor;
    return 0;
}

static void output_free(struct decompressor *decompressor)
{
    free(decompressor->output);
    decompressor->output = NULL;
    decompressor->output_size = 0;
    decompressor->output_capacity = 0;
}

void decompressor_free(struct decompressor *decompressor)
{
    if (decompressor == NULL)
        return;
    output_free(decompressor);
    (void)ZSTD_freeDCtx(decompressor->context);
    free(decompressor);
}

void decompressor_begin(struct decompressor *decompressor, const uint8_t *frame, size_t size,
                        uint64_t decoded_size_max)
{
    assert(decoded_size_max < PTRDIFF_MAX);
    output_free(decompressor);
    size_t result = ZSTD_DCtx_reset(decompressor->context, ZSTD_reset_session_only);
    assert(!ZSTD_isError(result));
    decompressor->state = BEGUN;
    decompressor->limit_declared = false;
    decompressor->frame = frame;
    decompressor->frame_size = size;
    decompressor->frame_position = 0;
    decompressor->limit = decoded_size_max;
}

void decompressor_begin_moving(struct decompressor *decompressor, size_t frame_size,
                               uint64_t decoded_size_max)
{
    decompressor_begin(decompressor, NULL, frame_size, decoded_size_max);
    decompressor->is_full = true;
    decompressor->header_size = 0;
    decompressor->header_used = 0;
}

/* RFC 8878, 3.1.1.1.2: an exponent of five bits and a mantissa of three. */
static uint64_t window_size(uint8_t window_descriptor)
{
    uint64_t base = (uint64_t)1 << (10 + (window_descriptor >> 3));
    return base + base / 8 * (window_descriptor & 7);
}

/* Judges what the header says before anything is decoded. The magic number is checked here because
 * zstd would also take skippable frames and those of its old formats, the window because zstd looks
 * at it only when it needs one. */
static int frame_judge(struct decompressor *decompressor, const uint8_t *frame, size_t size)
{
    if (size < FRAME_HEADER_SIZE_MIN || load_u32(frame) != ZSTD_MAGICNUMBER)
        return -EBADMSG;
    unsigned long long declared = ZSTD_getFrameContentSize(frame, size);
    if (declared == ZSTD_CONTENTSIZE_ERROR)
        return -EBADMSG;
    if (declared != ZSTD_CONTENTSIZE_UNKNOWN) {
        if (declared > decompressor->limit)
            return -EFBIG;
        decompressor->limit = declared;
        decompressor->limit_declared = true;
    }
    /* The window of a frame that is a single segment is its whole content, whose size it tells. */
    bool is_single = (frame[FRAME_DESCRIPTOR_OFFSET] & FRAME_SINGLE_SEGMENT) != 0;
    uint64_t window = is_single ? declared : window_size(frame[FRAME_WINDOW_OFFSET]);
    if (window > (uint64_t)1 << DECOMPRESS_WINDOW_LOG_MAX)
        return -EBADMSG;
    return 0;
}

/* Doubles the output, once it is full. It may hold one byte more than the limit: that byte shows
 * that there is too much. */
static int output_grow(struct decompressor *decompressor)
{
    assert(decompressor->output_size == decompressor->output_capacity);
    assert(decompressor->output_capacity <= decompressor->limit);
    size_t capacity = max_u64(2 * decompressor->output_capacity, DECOMPRESS_OUTPUT_FIRST);
    capacity = min_u64(capacity, decompressor->limit + 1);
    uint8_t *output = realloc(decompressor->output, capacity);
    if (output == NULL)
        return -ENOMEM;
    decompressor->output = output;
    decompressor->output_capacity = capacity;
    return 0;
}

static int error_of(size_t result)
{
    return ZSTD_getErrorCode(result) == ZSTD_error_memory_allocation ? -ENOMEM : -EBADMSG;
}

/* What zstd's result means now that output_size and frame_position are known. */
static int frame_end_judge(const struct decompressor *decompressor, size_t result)
{
    if (ZSTD_isError(result))
        return error_of(result);
    if (decompressor->output_size > decompressor->limit)
        return decompressor->limit_declared ? -EBADMSG : -EFBIG;
    if (result > 0)
        return 0;
    /* zstd does not compare the declared size when the last block is empty. */
    if (decompressor->limit_declared && decompressor->output_size < decompressor->limit)
        return -EBADMSG;
    return decompressor->frame_position == decompressor->frame_size ? 1 : -EBADMSG;
}

/* One call of zstd. `input` is the frame, its header or a piece of it. Returns 0: the frame goes
 * on, 1: it ended. Errors: as decompressor_step. */
static int piece_decode(struct decompressor *decompressor, ZSTD_inBuffer *input,
                        ZSTD_outBuffer *output)
{
    size_t input_before = input->pos;
    size_t output_before = output->pos;
    size_t result = ZSTD_decompressStream(decompressor->context, output, input);
    decompressor->frame_position += input->pos - input_before;
    decompressor->output_size += output->pos - output_before;
    decompressor->is_full = output->pos == output->size;
    return frame_end_judge(decompressor, result);
}

/* One slice. The first call of zstd finds no room for output: so it never takes its shortcut for a
 * value that fits as a whole. The shortcut judges malformed frames differently (empty compressed
 * blocks, distances beyond the window), and then it would depend on the slices what a frame decodes
 * to. Every turn but that one moves at least a byte. */
static int slice_decode(struct decompressor *decompressor, size_t slice_size)
{
    size_t frame_size = decompressor->frame_size;
    size_t frame_left = frame_size - decompressor->frame_position;
    size_t frame_end = decompressor->frame_position + min_u64(frame_left, slice_size);
    size_t output_end = decompressor->output_size + slice_size;
    for (;;) {
        ZSTD_inBuffer in = {decompressor->frame, frame_end, decompressor->frame_position};
        uint64_t end = min_u64(decompressor->output_capacity, output_end);
        ZSTD_outBuffer out = {decompressor->output, end, decompressor->output_size};
        int result = piece_decode(decompressor, &in, &out);
        if (result != 0)
            return result;
        if (decompressor->output_size == output_end)
            return 0;
        bool is_full = decompressor->output_size == decompressor->output_capacity;
        if (decompressor->frame_position == frame_end && frame_end < frame_size)
            return 0;
        if (decompressor->frame_position == frame_end && !is_full)
            return -EBADMSG;
        if (is_full)
            result = output_grow(decompressor);
        if (result != 0)
            return result;
    }
}

int decompressor_step(struct decompressor *decompressor, size_t slice_size)
{
    assert(decompressor->state == BEGUN || decompressor->state == DECODING);
    assert(slice_size > 0 && slice_size < PTRDIFF_MAX);
    int result = 0;
    if (decompressor->state == BEGUN)
        result = frame_judge(decompressor, decompressor->frame, decompressor->frame_size);
    if (result == 0) {
        decompressor->state = DECODING;
        result = slice_decode(decompressor, slice_size);
    }
    if (result < 0) {
        output_free(decompressor);
        decompressor->state = FAILED;
    } else if (result > 0) {
        decompressor->state = DONE;
    }
    return result;
}

/* ---- moving: the frame comes in pieces, the output goes to the caller's buffers ---- */

/* Collects the header and judges it. Returns 1 when that is done, 0: more is to come. */
static int header_collect(struct decompressor *decompressor, struct decompressor_buffers *buffers)
{
    size_t wanted = min_u64(FRAME_HEADER_SIZE_MAX, decompressor->frame_size);
    size_t part = min_u64(wanted - decompressor->header_size, buffers->input_size);
    memcpy(decompressor->header + decompressor->header_size, buffers->input, part);
    decompressor->header_size += (uint8_t)part;
    buffers->input_used = part;
    if (decompressor->header_size < wanted)
        return 0;
    int result = frame_judge(decompressor, decompressor->header, wanted);
    return result < 0 ? result : 1;
}

/* The header, which lies here: first without room for output, for the reason that slice_decode
 * gives. */
static int header_decode(struct decompressor *decompressor, ZSTD_outBuffer *output)
{
    ZSTD_inBuffer input = {decompressor->header, decompressor->header_size,
                           decompressor->header_used};
    ZSTD_outBuffer none = {output->dst, 0, 0};
    bool is_first = decompressor->header_used == 0;
    int result = piece_decode(decompressor, &input, is_first ? &none : output);
    decompressor->header_used = (uint8_t)input.pos;
    return result;
}

static int buffers_decode(struct decompressor *decompressor, struct decompressor_buffers *buffers)
{
    ZSTD_inBuffer input = {buffers->input, buffers->input_size, buffers->input_used};
    /* As in output_grow: one byte over the limit shows that there is too much. */
    size_t room = decompressor->limit + 1 - decompressor->output_size;
    ZSTD_outBuffer output = {buffers->output, min_u64(buffers->output_size, room), 0};
    int result = 0;
    /* Each turn uses up input, or fills output, or is the last. */
    while (result == 0) {
        bool in_header = decompressor->header_used < decompressor->header_size;
        bool has_input = in_header || input.pos < input.size;
        if (output.pos == output.size || (!has_input && !decompressor->is_full))
            break;
        result = in_header ? header_decode(decompressor, &output)
                           : piece_decode(decompressor, &input, &output);
    }
    buffers->input_used = input.pos;
    buffers->output_used = output.pos;
    bool is_all = decompressor->frame_position == decompressor->frame_size;
    return result == 0 && is_all && !decompressor->is_full ? -EBADMSG : result;
}

int decompressor_move(struct decompressor *decompressor, struct decompressor_buffers *buffers)
{
    assert(decompressor->state == BEGUN || decompressor->state == DECODING);
    assert(decompressor->frame == NULL && buffers->output_size > 0);
    assert(buffers->input_size <= decompressor->frame_size - decompressor->frame_position);
    buffers->input_used = 0;
    buffers->output_used = 0;
    int result = 1;
    if (decompressor->state == BEGUN)
        result = header_collect(decompressor, buffers);
    if (result == 0)
        return 0;
    if (result > 0) {
        decompressor->state = DECODING;
        result = buffers_decode(decompressor, buffers);
    }
    if (result != 0)
        decompressor->state = result < 0 ? FAILED : DONE;
    return result;
}

uint8_t *decompressor_take(struct decompressor *decompressor, size_t *ret_size)
{
    assert(decompressor->state == DONE);
    size_t size = decompressor->output_size;
    uint8_t *output = decompressor->output;
    if (size == 0) {
        free(output);
        output = NULL;
    } else if (size < decompressor->output_capacity) {
        /* Up to half of it is spare; when shrinking fails it is merely kept. */
        uint8_t *shrunk = realloc(output, size);
        output = shrunk != NULL ? shrunk : output;
    }
    decompressor->output = NULL;
    decompressor->output_size = 0;
    decompressor->output_capacity = 0;
    decompressor->state = CREATED;
    *ret_size = size;
    return output;
}

size_t decompressor_memory(const struct decompressor *decompressor)
{
    return decompressor->output_capacity;
}

uint64_t compress_declared_size(const uint8_t *frame, size_t size)
{
    unsigned long long declared = ZSTD_getFrameContentSize(frame, size);
    bool is_told = declared != ZSTD_CONTENTSIZE_UNKNOWN && declared != ZSTD_CONTENTSIZE_ERROR;
    return is_told ? declared : 0;
}

size_t compress_bound(size_t source_size)
{
    return ZSTD_compressBound(source_size);
}

struct ZSTD_CCtx_s *compressor_create(void)
{
    return ZSTD_createCCtx();
}

void compressor_free(struct ZSTD_CCtx_s *compressor)
{
    (void)ZSTD_freeCCtx(compressor);
}

size_t compressor_frame(struct ZSTD_CCtx_s *compressor, uint8_t *target, size_t target_size,
                        const uint8_t *source, size_t source_size)
{
    assert(target_size >= compress_bound(source_size));
    size_t result =
        ZSTD_compressCCtx(compressor, target, target_size, source, source_size, COMPRESSOR_LEVEL);
    return ZSTD_isError(result) ? 0 : result;
}
