/* The binary protocol's frames, by offset (a number before a field):
 *
 *   GET, DELETE, HEALTH, AUTH, HELLO   0 op, 1 keylen:u16, 3 key
 *   SET                                0 op, 1 keylen:u16, 3 key, vallen:u32, compressed, value
 *   typed (10 to FF, after HELLO)      0 op, 1 flags, 2 keylen:u16, 4 bodylen:u32, 8 key, body
 *
 * Each function checks that the bytes are there before it looks at them, and in 64 bits, where no
 * sum of lengths overflows. */
#include "proto/binary.h"

#define KEY_OFFSET 3
#define SET_LENGTHS_SIZE 5
#define TYPED_KEY_OFFSET 8

/* The key is whole and the lengths are known: what is left to see is whether the value is there.
 * It begins at `value_offset`, and the request has everything but its data. */
static inline enum binary_result parse_value(const uint8_t *data, size_t size,
                                             uint64_t value_offset,
                                             struct binary_request *ret_request,
                                             uint64_t *ret_frame_size)
{
    uint64_t frame_size = value_offset + ret_request->value.size;
    bool is_whole = size >= frame_size;
    ret_request->value.data = is_whole ? data + value_offset : NULL;
    *ret_frame_size = frame_size;
    return is_whole ? BINARY_DONE : BINARY_PARTIAL;
}

static enum binary_result parse_typed(const uint8_t *data, size_t size,
                                      struct binary_request *ret_request, uint64_t *ret_frame_size)
{
    *ret_frame_size = 0;
    if (size < TYPED_KEY_OFFSET)
        return BINARY_PARTIAL;
    uint64_t body_offset = TYPED_KEY_OFFSET + load_u16(data + 2);
    if (size < body_offset)
        return BINARY_PARTIAL;
    ret_request->op = data[0];
    ret_request->compressed = data[1];
    ret_request->key = (struct slice){data + TYPED_KEY_OFFSET, load_u16(data + 2)};
    ret_request->value.size = load_u32(data + 4);
    return parse_value(data, size, body_offset, ret_request, ret_frame_size);
}

enum binary_result binary_parse(const uint8_t *data, size_t size, bool typed,
                                struct binary_request *ret_request, uint64_t *ret_frame_size)
{
    *ret_frame_size = 0;
    if (size == 0)
        return BINARY_PARTIAL;
    uint8_t op = data[0];
    if (typed && op >= MINIVAULT_TYPED)
        return parse_typed(data, size, ret_request, ret_frame_size);
    if (op < MINIVAULT_GET || op > MINIVAULT_HELLO || op == MINIVAULT_SYNC) {
        ret_request->op = op;
        return BINARY_UNKNOWN_OP;
    }
    if (size < KEY_OFFSET)
        return BINARY_PARTIAL;
    uint32_t key_size = load_u16(data + 1);
    uint64_t key_end = KEY_OFFSET + key_size;
    if (size < key_end)
        return BINARY_PARTIAL;
    if (op == MINIVAULT_SET && size < key_end + SET_LENGTHS_SIZE)
        return BINARY_PARTIAL;
    ret_request->op = op;
    ret_request->key = (struct slice){data + KEY_OFFSET, key_size};
    if (op == MINIVAULT_SET) {
        ret_request->value.size = load_u32(data + key_end);
        ret_request->compressed = data[key_end + 4];
        return parse_value(data, size, key_end + SET_LENGTHS_SIZE, ret_request, ret_frame_size);
    }
    ret_request->compressed = 0;
    ret_request->value = (struct slice){NULL, 0};
    *ret_frame_size = key_end;
    return BINARY_DONE;
}

void binary_answer_header(uint8_t *target, uint8_t status, uint32_t data_size)
{
    target[0] = status;
    store_u32(target + 1, data_size);
}

const char *binary_status_text(uint8_t status)
{
    static const char *const texts[] = {
        [MINIVAULT_OK] = "ok",
        [MINIVAULT_NOT_FOUND] = "not found",
        [MINIVAULT_NOT_APPLIED] = "not applied: the write was refused and no replica took it",
        [MINIVAULT_AMBIGUOUS] = "ambiguous: the write may or may not have been applied",
        [MINIVAULT_SUPERSEDED] = "superseded by a newer version",
        [MINIVAULT_OVERLOADED] = "overloaded: try again later",
        [MINIVAULT_NO_SPACE] = "no space left: the disk is full, or too small for this value",
        [MINIVAULT_CORRUPT] = "the stored value is damaged",
        [MINIVAULT_AUTH_REQUIRED] = "authentication required",
        [MINIVAULT_TOO_LARGE] = "too large",
        [MINIVAULT_BAD_REQUEST] = "bad request",
        [MINIVAULT_UNSUPPORTED] = "not supported",
        [MINIVAULT_NOT_READY] = "not ready",
    };
    if (status < sizeof texts / sizeof texts[0])
        return texts[status];
    return status == MINIVAULT_ERROR ? "error" : "unknown status";
}
