/* The binary protocol's parser under libFuzzer.
 *
 * Input: one byte of options (bit 0: HELLO was said; bits 1 to 7 seed the choice of splits), then
 * what a client sends. What must hold:
 *
 * 1. A part of a frame is never a frame, nor unknown when the whole is known; the size that it
 *    announces is the whole frame's.
 * 2. A parsed request, encoded again, is the same bytes.
 * 3. The requests do not depend on how the stream is cut into pieces.
 * 4. No byte beyond the given ones is read: each part lies alone on the heap, under ASan. */
#include "base/prng.h"
#include "tests/support/fuzz.h"
#include "proto/binary.h"

#include <stdlib.h>

#define REQUESTS_MAX 64
/* Parts of a frame are tried at every size up to here, at random ones above. */
#define PARTS_WHOLE_MAX 96
#define PARTS_RANDOM_COUNT 16

struct stream {
    uint64_t ends[REQUESTS_MAX]; /* where each request ends */
    size_t count;
    enum binary_result last; /* what stopped it */
    uint8_t last_op;         /* with BINARY_UNKNOWN_OP */
};

static void require_same_request(const struct binary_request *part,
                                 const struct binary_request *whole)
{
    REQUIRE(part->op == whole->op);
    REQUIRE(part->compressed == whole->compressed);
    REQUIRE(slice_equal(part->key, whole->key));
    REQUIRE(part->value.size == whole->value.size);
    REQUIRE(part->value.data == NULL);
}

/* Rule 1, for the first `part_size` bytes of a frame. */
static void require_part(const uint8_t *frame, uint64_t frame_size, size_t part_size, bool typed,
                         const struct binary_request *whole)
{
    uint8_t *part = fuzz_copy(frame, part_size);
    struct binary_request request;
    uint64_t announced_size = 1;
    REQUIRE(binary_parse(part, part_size, typed, &request, &announced_size) == BINARY_PARTIAL);
    REQUIRE(announced_size == 0 || announced_size == frame_size);
    if (announced_size != 0)
        require_same_request(&request, whole);
    free(part);
}

static void require_parts(const uint8_t *frame, uint64_t frame_size, bool typed,
                          const struct binary_request *whole, struct prng *prng)
{
    for (size_t size = 0; size < frame_size && size <= PARTS_WHOLE_MAX; size++)
        require_part(frame, frame_size, size, typed, whole);
    for (int i = 0; i < PARTS_RANDOM_COUNT && frame_size > PARTS_WHOLE_MAX; i++)
        require_part(frame, frame_size, prng_below(prng, frame_size), typed, whole);
}

/* Rule 2. Written from docs/protocol.md, not from the parser. */
static void require_encoding(const uint8_t *frame, uint64_t frame_size,
                             const struct binary_request *request)
{
    uint8_t *bytes = malloc(frame_size);
    REQUIRE(bytes != NULL);
    uint8_t *end = bytes;
    bool is_typed = request->op >= MINIVAULT_TYPED;
    bool is_set = request->op == MINIVAULT_SET;
    REQUIRE(frame_size ==
            3 + (uint64_t)request->key.size + 5 * (is_typed || is_set) + request->value.size);
    *end++ = request->op;
    if (is_typed)
        *end++ = request->compressed;
    store_u16(end, (uint16_t)request->key.size);
    end += 2;
    if (is_typed) {
        store_u32(end, request->value.size);
        end += 4;
    }
    memcpy(end, request->key.data, request->key.size);
    end += request->key.size;
    if (is_set) {
        store_u32(end, request->value.size);
        end[4] = request->compressed;
        end += 5;
    }
    if (is_typed || is_set) {
        memcpy(end, request->value.data, request->value.size);
        end += request->value.size;
    } else {
        REQUIRE(request->value.data == NULL && request->value.size == 0);
        REQUIRE(request->compressed == 0);
    }
    REQUIRE(end == bytes + frame_size);
    REQUIRE(memcmp(bytes, frame, frame_size) == 0);
    free(bytes);
}

/* All requests of the whole stream, each held against rules 1 and 2. */
static void parse_whole(const uint8_t *data, size_t size, bool typed, struct prng *prng,
                        struct stream *ret_stream)
{
    size_t position = 0;
    ret_stream->count = 0;
    ret_stream->last = BINARY_PARTIAL;
    while (ret_stream->count < REQUESTS_MAX) {
        const uint8_t *frame = data + position;
        struct binary_request request;
        uint64_t frame_size = 1;
        ret_stream->last = binary_parse(frame, size - position, typed, &request, &frame_size);
        if (ret_stream->last == BINARY_UNKNOWN_OP) {
            REQUIRE(position < size && request.op == frame[0] && frame_size == 0);
            ret_stream->last_op = request.op;
        }
        if (ret_stream->last == BINARY_PARTIAL)
            REQUIRE(frame_size == 0 || frame_size > size - position);
        if (ret_stream->last != BINARY_DONE)
            return;
        REQUIRE(frame_size >= 3 && frame_size <= size - position);
        require_parts(frame, frame_size, typed, &request, prng);
        require_encoding(frame, frame_size, &request);
        position += frame_size;
        ret_stream->ends[ret_stream->count++] = position;
    }
}

/* Rule 3: what arrived so far grows piece by piece, as in a connection. */
static void require_pieces(const uint8_t *data, size_t size, bool typed, struct prng *prng,
                           const struct stream *whole)
{
    size_t arrived = 0;
    size_t position = 0;
    size_t count = 0;
    enum binary_result result = BINARY_PARTIAL;
    while (arrived < size && count < whole->count && result != BINARY_UNKNOWN_OP) {
        uint64_t piece_max = prng_below(prng, 4) == 0 ? size - arrived : 12;
        arrived += 1 + prng_below(prng, piece_max < size - arrived ? piece_max : size - arrived);
        uint8_t *pending = fuzz_copy(data + position, arrived - position);
        size_t parsed = 0;
        do {
            struct binary_request request;
            uint64_t frame_size = 1;
            result = binary_parse(pending + parsed, arrived - position - parsed, typed, &request,
                                  &frame_size);
            if (result == BINARY_UNKNOWN_OP)
                REQUIRE(count == whole->count && request.op == whole->last_op);
            if (result != BINARY_DONE)
                break;
            parsed += frame_size;
            REQUIRE(count < whole->count && position + parsed == whole->ends[count]);
            count++;
        } while (count < whole->count);
        position += parsed;
        free(pending);
    }
    REQUIRE(count == whole->count);
    REQUIRE(result != BINARY_UNKNOWN_OP || whole->last == BINARY_UNKNOWN_OP);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    bool typed = (data[0] & 1) != 0;
    struct prng prng = {data[0]};
    struct stream stream = {.count = 0};
    parse_whole(data + 1, size - 1, typed, &prng, &stream);
    require_pieces(data + 1, size - 1, typed, &prng, &stream);
    return 0;
}
