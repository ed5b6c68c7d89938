/* What touches every byte: hashes, checksums, the parser, the record. */
#include "micro.h"

#include "base/checksum.h"
#include "base/hash.h"
#include "proto/binary.h"
#include "store/record/record.h"

#include <stdlib.h>
#include <string.h>

#define ROUND_OPERATIONS 1000000
#define LARGE_SIZE 4096
#define KEY_SIZE 16
#define VALUE_SIZE 100
#define SLOTS 64 /* different inputs, all in the nearest cache */

struct bytes_state {
    uint8_t secret[HASH_SECRET_SIZE];
    uint8_t large[LARGE_SIZE];
    uint8_t keys[SLOTS][KEY_SIZE];
    uint8_t gets[SLOTS * (3 + KEY_SIZE)];
    uint8_t sets[SLOTS * (3 + KEY_SIZE + 5 + VALUE_SIZE)];
    uint8_t record[RECORD_HEADER_SIZE + KEY_SIZE + VALUE_SIZE];
};

/* Requests as a client sends them, one behind the other. */
static void make_requests(struct bytes_state *state)
{
    uint8_t *get = state->gets;
    uint8_t *set = state->sets;
    for (uint32_t i = 0; i < SLOTS; i++) {
        get[0] = MINIVAULT_GET;
        store_u16(get + 1, KEY_SIZE);
        memcpy(get + 3, state->keys[i], KEY_SIZE);
        get += 3 + KEY_SIZE;
        set[0] = MINIVAULT_SET;
        store_u16(set + 1, KEY_SIZE);
        memcpy(set + 3, state->keys[i], KEY_SIZE);
        store_u32(set + 3 + KEY_SIZE, VALUE_SIZE);
        set[3 + KEY_SIZE + 4] = 0;
        memset(set + 3 + KEY_SIZE + 5, 'v', VALUE_SIZE);
        set += 3 + KEY_SIZE + 5 + VALUE_SIZE;
    }
}

static void *bytes_open(const struct micro_options *options)
{
    (void)options;
    struct bytes_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    struct prng prng = {3};
    for (size_t i = 0; i < sizeof state->secret; i++)
        state->secret[i] = (uint8_t)prng_next(&prng);
    for (size_t i = 0; i < sizeof state->large; i++)
        state->large[i] = (uint8_t)prng_next(&prng);
    for (uint32_t i = 0; i < SLOTS; i++)
        for (uint32_t j = 0; j < KEY_SIZE; j++)
            state->keys[i][j] = (uint8_t)prng_next(&prng);
    make_requests(state);
    return state;
}

static double per_operation(uint64_t start_ns)
{
    return (double)(clock_thread_cpu_ns() - start_ns) / ROUND_OPERATIONS;
}

static double round_hash_key(void *context)
{
    struct bytes_state *state = context;
    uint64_t start = clock_thread_cpu_ns();
    for (uint32_t i = 0; i < ROUND_OPERATIONS; i++) {
        uint64_t hash = hash_key(state->keys[i % SLOTS], KEY_SIZE);
        micro_keep(&hash);
    }
    return per_operation(start);
}

static double round_hash_keyed(void *context)
{
    struct bytes_state *state = context;
    uint64_t start = clock_thread_cpu_ns();
    for (uint32_t i = 0; i < ROUND_OPERATIONS; i++) {
        uint64_t hash = hash_keyed(state->secret, state->keys[i % SLOTS], KEY_SIZE);
        micro_keep(&hash);
    }
    return per_operation(start);
}

static double checksum(const struct bytes_state *state, size_t size)
{
    uint64_t start = clock_thread_cpu_ns();
    for (uint32_t i = 0; i < ROUND_OPERATIONS; i++) {
        uint32_t crc = crc32c(state->large, size);
        micro_keep(&crc);
    }
    return per_operation(start);
}

static double round_crc_small(void *context)
{
    return checksum(context, RECORD_HEADER_SIZE + KEY_SIZE + VALUE_SIZE);
}

static double round_crc_large(void *context)
{
    return checksum(context, LARGE_SIZE);
}

static double parse(const uint8_t *data, size_t size)
{
    uint64_t start = clock_thread_cpu_ns();
    size_t at = 0;
    for (uint32_t i = 0; i < ROUND_OPERATIONS; i++) {
        struct binary_request request;
        uint64_t frame_size;
        if (binary_parse(data + at, size - at, false, &request, &frame_size) != BINARY_DONE)
            abort();
        micro_keep(&request);
        at += frame_size;
        at = at == size ? 0 : at;
    }
    return per_operation(start);
}

static double round_parse_get(void *context)
{
    struct bytes_state *state = context;
    return parse(state->gets, sizeof state->gets);
}

static double round_parse_set(void *context)
{
    struct bytes_state *state = context;
    return parse(state->sets, sizeof state->sets);
}

static struct record make_record(const struct bytes_state *state, uint32_t i)
{
    return (struct record){
        .key = {state->keys[i % SLOTS], KEY_SIZE},
        .value = {state->large, VALUE_SIZE},
        .decoded_size = VALUE_SIZE,
        .version = {i, 1},
        .position = i,
    };
}

static double round_record_encode(void *context)
{
    struct bytes_state *state = context;
    uint64_t start = clock_thread_cpu_ns();
    for (uint32_t i = 0; i < ROUND_OPERATIONS; i++) {
        struct record record = make_record(state, i);
        record_encode(&record, state->record);
        micro_keep(state->record);
    }
    return per_operation(start);
}

static double round_record_decode(void *context)
{
    struct bytes_state *state = context;
    struct record record = make_record(state, 1);
    record_encode(&record, state->record);
    uint64_t start = clock_thread_cpu_ns();
    for (uint32_t i = 0; i < ROUND_OPERATIONS; i++) {
        if (record_decode(state->record, sizeof state->record, &record) < 0)
            abort();
        micro_keep(&record);
    }
    return per_operation(start);
}

static const struct micro_case cases[] = {
    {"hash_key, 16 bytes", NULL, 0, round_hash_key},
    {"hash_keyed, 16 bytes", NULL, 0, round_hash_keyed},
    {"crc32c, 164 bytes", NULL, 0, round_crc_small},
    {"crc32c, 4096 bytes", NULL, 0, round_crc_large},
    {"binary_parse, GET", NULL, 0, round_parse_get},
    {"binary_parse, SET of 100 bytes", NULL, 0, round_parse_set},
    {"record_encode, 100 bytes", NULL, 0, round_record_encode},
    {"record_decode, 100 bytes", NULL, 0, round_record_decode},
};

const struct micro_group micro_bytes = {
    .cases = cases,
    .case_count = sizeof cases / sizeof cases[0],
    .open = bytes_open,
    .close = free,
    .figures = NULL,
};
