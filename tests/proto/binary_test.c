/* The parser of the binary protocol by itself: every frame at every split. */
#include "proto/binary.h"

#include "tests/support/guard.h"

#include <criterion/criterion.h>

#define FRAME(text) (const uint8_t *)(text), sizeof(text) - 1

/* Every kind of frame, and what must come out of it. */
static const struct sample {
    const char *name;
    const uint8_t *bytes;
    uint32_t size;
    bool typed_only;
    uint8_t op;
    uint8_t compressed;
    const char *key;
    uint32_t key_size;
    const char *value; /* NULL: the operation has none */
    uint32_t value_size;
} samples[] = {
    {"get", FRAME("\1\3\0key"), false, MINIVAULT_GET, 0, "key", 3, NULL, 0},
    {"get, empty key", FRAME("\1\0\0"), false, MINIVAULT_GET, 0, "", 0, NULL, 0},
    {"get, key of commands", FRAME("\1\4\0\1\0\0\2"), false, 1, 0, "\1\0\0\2", 4, NULL, 0},
    {"set", FRAME("\2\3\0key\5\0\0\0\0value"), false, 2, 0, "key", 3, "value", 5},
    {"set, zstd", FRAME("\2\1\0k\2\0\0\0\1zz"), false, 2, 1, "k", 1, "zz", 2},
    {"set, unknown encoding", FRAME("\2\1\0k\1\0\0\0\2z"), false, 2, 2, "k", 1, "z", 1},
    {"set, empty value", FRAME("\2\1\0k\0\0\0\0\0"), false, 2, 0, "k", 1, "", 0},
    {"set, empty key", FRAME("\2\0\0\1\0\0\0\0v"), false, 2, 0, "", 0, "v", 1},
    {"set, all empty", FRAME("\2\0\0\0\0\0\0\0"), false, 2, 0, "", 0, "", 0},
    {"delete", FRAME("\3\3\0key"), false, MINIVAULT_DELETE, 0, "key", 3, NULL, 0},
    {"health", FRAME("\5\0\0"), false, MINIVAULT_HEALTH, 0, "", 0, NULL, 0},
    {"health, ignored key", FRAME("\5\6\0health"), false, 5, 0, "health", 6, NULL, 0},
    {"auth", FRAME("\6\6\0secret"), false, MINIVAULT_AUTH, 0, "secret", 6, NULL, 0},
    {"hello", FRAME("\7\13\0minivault/2"), false, 7, 0, MINIVAULT_HELLO_NAME, 11, NULL, 0},
    {"typed", FRAME("\x10\x81\3\0\4\0\0\0keybody"), true, 0x10, 0x81, "key", 3, "body", 4},
    {"typed, no key", FRAME("\x11\0\0\0\4\0\0\0body"), true, 0x11, 0, "", 0, "body", 4},
    {"typed, no body", FRAME("\x7F\0\3\0\0\0\0\0key"), true, 0x7F, 0, "key", 3, "", 0},
    {"typed, nothing", FRAME("\xFF\xFF\0\0\0\0\0\0"), true, 0xFF, 0xFF, "", 0, "", 0},
};
#define SAMPLE_COUNT (sizeof samples / sizeof samples[0])

static void assert_request(const struct sample *sample, const struct binary_request *request,
                           const uint8_t *data, uint64_t frame_size)
{
    cr_assert_eq(frame_size, sample->size, "%s", sample->name);
    cr_assert_eq(request->op, sample->op, "%s", sample->name);
    cr_assert_eq(request->compressed, sample->compressed, "%s", sample->name);
    cr_assert_eq(request->key.size, sample->key_size, "%s", sample->name);
    cr_assert_eq(memcmp(request->key.data, sample->key, sample->key_size), 0, "%s", sample->name);
    cr_assert(request->key.data >= data && request->key.data <= data + frame_size);
    cr_assert_eq(request->value.size, sample->value_size, "%s", sample->name);
    if (sample->value == NULL) {
        cr_assert_null(request->value.data, "%s", sample->name);
        return;
    }
    cr_assert_eq(request->value.data, data + frame_size - sample->value_size, "%s", sample->name);
    cr_assert_eq(memcmp(request->value.data, sample->value, sample->value_size), 0);
}

Test(binary, every_frame_is_parsed)
{
    struct guard guard;
    guard_init(&guard, 1);
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        const struct sample *sample = &samples[i];
        const uint8_t *data = guard_copy(&guard, sample->bytes, sample->size);
        /* Plain frames stay what they are after HELLO. */
        for (int typed = sample->typed_only; typed <= 1; typed++) {
            struct binary_request request;
            uint64_t frame_size = 0;
            memset(&request, 0xEE, sizeof request);
            cr_assert_eq(binary_parse(data, sample->size, typed, &request, &frame_size),
                         BINARY_DONE, "%s", sample->name);
            assert_request(sample, &request, data, frame_size);
        }
    }
}

Test(binary, every_split_of_every_frame_is_partial)
{
    struct guard guard;
    guard_init(&guard, 1);
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        const struct sample *sample = &samples[i];
        uint32_t lengths_end = sample->size - sample->value_size;
        for (uint32_t size = 0; size < sample->size; size++) {
            const uint8_t *data = guard_copy(&guard, sample->bytes, size);
            struct binary_request request;
            uint64_t frame_size = 77;
            memset(&request, 0xEE, sizeof request);
            cr_assert_eq(binary_parse(data, size, true, &request, &frame_size), BINARY_PARTIAL,
                         "%s, %u bytes", sample->name, size);
            if (sample->typed_only || sample->op == MINIVAULT_SET)
                cr_assert_eq(frame_size, size >= lengths_end ? sample->size : 0, "%s, %u bytes",
                             sample->name, size);
            else
                cr_assert_eq(frame_size, 0);
            if (frame_size == 0)
                continue;
            cr_assert_eq(request.op, sample->op);
            cr_assert_eq(request.compressed, sample->compressed);
            cr_assert(slice_equal(request.key,
                                  (struct slice){(const uint8_t *)sample->key, sample->key_size}));
            cr_assert_eq(request.value.size, sample->value_size);
            cr_assert_null(request.value.data);
        }
    }
}

Test(binary, what_follows_a_frame_does_not_change_it)
{
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        for (int fill = 0; fill <= 255; fill += 51) {
            uint8_t bytes[64];
            cr_assert_lt(samples[i].size, sizeof bytes);
            memset(bytes, fill, sizeof bytes);
            memcpy(bytes, samples[i].bytes, samples[i].size);
            struct binary_request request;
            uint64_t frame_size = 0;
            cr_assert_eq(binary_parse(bytes, sizeof bytes, true, &request, &frame_size),
                         BINARY_DONE);
            assert_request(&samples[i], &request, bytes, frame_size);
        }
    }
}

Test(binary, pipelined_frames_come_in_order)
{
    uint8_t bytes[1024];
    size_t size = 0;
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        memcpy(bytes + size, samples[i].bytes, samples[i].size);
        size += samples[i].size;
    }
    size_t position = 0;
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        struct binary_request request;
        uint64_t frame_size = 0;
        cr_assert_eq(binary_parse(bytes + position, size - position, true, &request, &frame_size),
                     BINARY_DONE);
        assert_request(&samples[i], &request, bytes + position, frame_size);
        position += frame_size;
    }
    cr_assert_eq(position, size);
}

Test(binary, nothing_is_partial)
{
    struct binary_request request;
    uint64_t frame_size = 77;
    cr_assert_eq(binary_parse(NULL, 0, false, &request, &frame_size), BINARY_PARTIAL);
    cr_assert_eq(frame_size, 0);
}

Test(binary, unknown_operations_are_seen_at_their_first_byte)
{
    struct guard guard;
    guard_init(&guard, 1);
    for (int typed = 0; typed <= 1; typed++) {
        for (unsigned op = 0; op <= 255; op++) {
            const uint8_t *data = guard_copy(&guard, &(uint8_t){(uint8_t)op}, 1);
            struct binary_request request = {.op = 99};
            uint64_t frame_size = 77;
            enum binary_result result = binary_parse(data, 1, typed, &request, &frame_size);
            bool is_plain = op >= 1 && op <= 7 && op != MINIVAULT_SYNC;
            bool is_typed = typed && op >= 0x10;
            cr_assert_eq(result, is_plain || is_typed ? BINARY_PARTIAL : BINARY_UNKNOWN_OP,
                         "op %02x, typed %d", op, typed);
            cr_assert_eq(frame_size, 0);
            if (result == BINARY_UNKNOWN_OP)
                cr_assert_eq(request.op, op);
        }
    }
}

Test(binary, sync_from_a_client_is_unknown)
{
    struct binary_request request;
    uint64_t frame_size = 77;
    const uint8_t *sync = (const uint8_t *)"\4\3\0key\5\0\0\0\0value";
    cr_assert_eq(binary_parse(sync, 16, false, &request, &frame_size), BINARY_UNKNOWN_OP);
    cr_assert_eq(request.op, MINIVAULT_SYNC);
    cr_assert_eq(binary_parse(sync, 16, true, &request, &frame_size), BINARY_UNKNOWN_OP);
    cr_assert_eq(request.op, MINIVAULT_SYNC);
}

Test(binary, typed_operations_are_unknown_before_hello)
{
    struct binary_request request;
    uint64_t frame_size = 77;
    const uint8_t *typed = (const uint8_t *)"\x10\0\3\0\4\0\0\0keybody";
    cr_assert_eq(binary_parse(typed, 15, false, &request, &frame_size), BINARY_UNKNOWN_OP);
    cr_assert_eq(request.op, 0x10);
    cr_assert_eq(frame_size, 0);
}

Test(binary, the_longest_key_arrives_byte_by_byte)
{
    static uint8_t bytes[3 + 65535];
    memset(bytes, 'k', sizeof bytes);
    memcpy(bytes, "\1\xFF\xFF", 3);
    struct guard guard;
    guard_init(&guard, sizeof bytes);
    struct binary_request request;
    uint64_t frame_size = 77;
    for (size_t size = 3; size < sizeof bytes; size++) {
        const uint8_t *data = guard_copy(&guard, bytes, size);
        cr_assert_eq(binary_parse(data, size, false, &request, &frame_size), BINARY_PARTIAL);
        cr_assert_eq(frame_size, 0);
    }
    const uint8_t *data = guard_copy(&guard, bytes, sizeof bytes);
    cr_assert_eq(binary_parse(data, sizeof bytes, false, &request, &frame_size), BINARY_DONE);
    cr_assert_eq(frame_size, sizeof bytes);
    cr_assert_eq(request.key.size, MINIVAULT_KEY_SIZE_MAX);
}

Test(binary, the_longest_value_is_announced_without_overflow)
{
    struct guard guard;
    guard_init(&guard, 1);
    struct binary_request request;
    uint64_t frame_size = 0;
    const uint8_t *data = guard_copy(&guard, "\2\1\0k\xFF\xFF\xFF\xFF\0\1\0\0", 12);
    cr_assert_eq(binary_parse(data, 12, false, &request, &frame_size), BINARY_PARTIAL);
    cr_assert_eq(frame_size, 9 + (uint64_t)UINT32_MAX);
    cr_assert_eq(request.value.size, UINT32_MAX);
    cr_assert_null(request.value.data);
    cr_assert(slice_equal(request.key, (struct slice){(const uint8_t *)"k", 1}));
}

Test(binary, the_longest_frames_are_announced_without_overflow)
{
    static uint8_t bytes[8 + 65535 + 5];
    struct guard guard;
    guard_init(&guard, sizeof bytes);
    struct binary_request request;
    uint64_t frame_size = 0;
    memcpy(bytes, "\xFF\0\xFF\xFF\xFF\xFF\xFF\xFF", 8);
    const uint8_t *data = guard_copy(&guard, bytes, 8 + 65535);
    cr_assert_eq(binary_parse(data, 8 + 65535, true, &request, &frame_size), BINARY_PARTIAL);
    cr_assert_eq(frame_size, 8 + 65535 + (uint64_t)UINT32_MAX);
    cr_assert_eq(request.value.size, UINT32_MAX);
    data = guard_copy(&guard, bytes, 8 + 65534);
    cr_assert_eq(binary_parse(data, 8 + 65534, true, &request, &frame_size), BINARY_PARTIAL);
    cr_assert_eq(frame_size, 0, "the key is not whole");

    memcpy(bytes, "\2\xFF\xFF", 3);
    memcpy(bytes + 3 + 65535, "\xFF\xFF\xFF\xFF\1", 5);
    data = guard_copy(&guard, bytes, 3 + 65535 + 5);
    cr_assert_eq(binary_parse(data, 3 + 65535 + 5, false, &request, &frame_size), BINARY_PARTIAL);
    cr_assert_eq(frame_size, 3 + 65535 + 5 + (uint64_t)UINT32_MAX);
    cr_assert_eq(request.compressed, 1);
}

Test(binary, a_value_over_the_limit_is_announced_with_its_size)
{
    struct binary_request request;
    uint64_t frame_size = 0;
    uint8_t bytes[9] = "\2\1\0k";
    store_u32(bytes + 4, MINIVAULT_VALUE_SIZE_MAX + 1);
    cr_assert_eq(binary_parse(bytes, 9, false, &request, &frame_size), BINARY_PARTIAL);
    cr_assert_eq(request.value.size, MINIVAULT_VALUE_SIZE_MAX + 1);
    cr_assert_eq(frame_size, 9 + (uint64_t)MINIVAULT_VALUE_SIZE_MAX + 1);
}

Test(binary, an_answer_begins_with_status_and_size)
{
    uint8_t bytes[MINIVAULT_ANSWER_HEADER_SIZE + 1];
    bytes[MINIVAULT_ANSWER_HEADER_SIZE] = 0xAA;
    binary_answer_header(bytes, MINIVAULT_OK, 0x01020304);
    cr_assert_arr_eq(bytes, "\0\4\3\2\1", 5);
    binary_answer_header(bytes, MINIVAULT_ERROR, 0);
    cr_assert_arr_eq(bytes, "\xFF\0\0\0\0", 5);
    cr_assert_eq(bytes[MINIVAULT_ANSWER_HEADER_SIZE], 0xAA);
}

Test(binary, every_status_has_its_own_text)
{
    const char *unknown = binary_status_text(0x0D);
    for (unsigned status = 0; status <= 255; status++) {
        const char *text = binary_status_text((uint8_t)status);
        cr_assert_not_null(text);
        cr_assert_gt(strlen(text), 0);
        bool is_known = status <= MINIVAULT_NOT_READY || status == MINIVAULT_ERROR;
        cr_assert_eq(strcmp(text, unknown) != 0, is_known, "status %02x", status);
        for (unsigned other = 0; other < status && is_known; other++)
            cr_assert_neq(strcmp(text, binary_status_text((uint8_t)other)), 0);
    }
}
