/* Adaptive compression: what it costs where nothing can be gained, and what it gains.
 *
 * Each kind of values goes through squeeze (store/squeeze.h), as its own stream, and is compared
 * with giving every value to zstd:
 *
 *   noise   what is compressed or encrypted already
 *   dense   7.4 bits a byte: looks compressible and is, but by less than an eighth
 *   JSON    as an API keeps it
 *   mixed   noise and JSON in turns: trying can never be given up */
#include "micro.h"

#include "base/bytes.h"
#include "base/compress.h"
#include "base/units.h"
#include "store/record/squeeze.h"

#include <stdio.h>
#include <stdlib.h>

#define VALUES 1024u
#define SIZE_MIN 1025u
#define SIZE_MAX_HERE (4 * (uint32_t)KIB)
#define ROUND_OPERATIONS (32 * VALUES)

enum kind { NOISE, DENSE, JSON, MIXED, KINDS };

struct stream {
    struct slice values[VALUES];
    uint8_t *memory;
    struct squeeze squeeze;
    bool is_open;
};

struct squeeze_state {
    struct stream streams[KINDS];
    struct ZSTD_CCtx_s *compressor;
    uint8_t *frame;
};

static void fill_noise(uint8_t *bytes, uint32_t size, struct prng *prng)
{
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)prng_next(prng);
}

static void fill_dense(uint8_t *bytes, uint32_t size, struct prng *prng)
{
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(prng_below(prng, 10) == 0 ? 0 : prng_next(prng));
}

static int write_item(char *text, size_t size, struct prng *prng)
{
    return snprintf(text, size,
                    "{\"id\":%u,\"session\":\"%016llx\",\"active\":%s,\"score\":%u.%03u,"
                    "\"tags\":[\"group-%u\",\"group-%u\"],"
                    "\"created\":\"2025-%02u-%02uT%02u:%02u:00Z\"},",
                    (uint32_t)prng_below(prng, 1000000), (unsigned long long)prng_next(prng),
                    prng_below(prng, 2) == 0 ? "true" : "false", (uint32_t)prng_below(prng, 1000),
                    (uint32_t)prng_below(prng, 1000), (uint32_t)prng_below(prng, 100),
                    (uint32_t)prng_below(prng, 100), 1 + (uint32_t)prng_below(prng, 12),
                    1 + (uint32_t)prng_below(prng, 28), (uint32_t)prng_below(prng, 24),
                    (uint32_t)prng_below(prng, 60));
}

static void fill_json(uint8_t *bytes, uint32_t size, struct prng *prng)
{
    char item[256];
    for (uint32_t at = 0; at < size;) {
        uint32_t length = (uint32_t)write_item(item, sizeof item, prng);
        length = (uint32_t)min_u64(length, size - at);
        memcpy(bytes + at, item, length);
        at += length;
    }
}

static bool stream_open(struct stream *stream, enum kind kind, struct prng *prng)
{
    static void (*const fill[])(uint8_t *, uint32_t, struct prng *) = {fill_noise, fill_dense,
                                                                       fill_json};
    stream->memory = malloc((size_t)VALUES * SIZE_MAX_HERE);
    stream->is_open = squeeze_init(&stream->squeeze, SIZE_MAX_HERE, 1) == 0;
    if (stream->memory == NULL || !stream->is_open)
        return false;
    for (uint32_t i = 0; i < VALUES; i++) {
        uint8_t *bytes = stream->memory + i * SIZE_MAX_HERE;
        uint32_t size = SIZE_MIN + (uint32_t)prng_below(prng, SIZE_MAX_HERE - SIZE_MIN + 1);
        enum kind kind_here = kind != MIXED ? kind : prng_below(prng, 2) == 0 ? NOISE : JSON;
        fill[kind_here](bytes, size, prng);
        stream->values[i] = (struct slice){bytes, size};
    }
    return true;
}

static void squeeze_close(void *context)
{
    struct squeeze_state *state = context;
    for (uint32_t i = 0; i < KINDS; i++) {
        if (state->streams[i].is_open)
            squeeze_deinit(&state->streams[i].squeeze);
        free(state->streams[i].memory);
    }
    compressor_free(state->compressor);
    free(state->frame);
    free(state);
}

static void *squeeze_open(const struct micro_options *options)
{
    (void)options;
    struct squeeze_state *state = calloc(1, sizeof *state);
    if (state == NULL)
        return NULL;
    struct prng prng = {6};
    state->frame = malloc(compress_bound(SIZE_MAX_HERE));
    state->compressor = compressor_create();
    bool is_made = state->frame != NULL && state->compressor != NULL;
    for (uint32_t i = 0; is_made && i < KINDS; i++)
        is_made = stream_open(&state->streams[i], (enum kind)i, &prng);
    if (is_made)
        return state;
    squeeze_close(state);
    return NULL;
}

static double per_operation(uint64_t start_ns)
{
    return (double)(clock_thread_cpu_ns() - start_ns) / ROUND_OPERATIONS;
}

static double adaptive(struct squeeze_state *state, enum kind kind)
{
    struct stream *stream = &state->streams[kind];
    uint64_t start = clock_thread_cpu_ns();
    for (uint32_t i = 0; i < ROUND_OPERATIONS; i++) {
        struct slice frame;
        int result = squeeze(&stream->squeeze, stream->values[i % VALUES], &frame);
        micro_keep(&result);
    }
    return per_operation(start);
}

static double always(struct squeeze_state *state, enum kind kind)
{
    struct stream *stream = &state->streams[kind];
    size_t frame_size = compress_bound(SIZE_MAX_HERE);
    uint64_t start = clock_thread_cpu_ns();
    for (uint32_t i = 0; i < ROUND_OPERATIONS; i++) {
        struct slice value = stream->values[i % VALUES];
        size_t size =
            compressor_frame(state->compressor, state->frame, frame_size, value.data, value.size);
        micro_keep(&size);
    }
    return per_operation(start);
}

static double round_noise(void *context)
{
    return adaptive(context, NOISE);
}

static double round_noise_always(void *context)
{
    return always(context, NOISE);
}

static double round_dense(void *context)
{
    return adaptive(context, DENSE);
}

static double round_dense_always(void *context)
{
    return always(context, DENSE);
}

static double round_json(void *context)
{
    return adaptive(context, JSON);
}

static double round_json_always(void *context)
{
    return always(context, JSON);
}

static double round_mixed(void *context)
{
    return adaptive(context, MIXED);
}

static double round_mixed_always(void *context)
{
    return always(context, MIXED);
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : 100 * (double)part / (double)whole;
}

static size_t squeeze_figures(void *context, struct micro_figure *ret_figures)
{
    struct squeeze_state *state = context;
    const struct squeeze_stats *noise = &state->streams[NOISE].squeeze.stats;
    const struct squeeze_stats *dense = &state->streams[DENSE].squeeze.stats;
    const struct squeeze_stats *json = &state->streams[JSON].squeeze.stats;
    const struct squeeze_stats *mixed = &state->streams[MIXED].squeeze.stats;
    ret_figures[0] = (struct micro_figure){"squeeze: noise, % given to zstd",
                                           percent(noise->tried, noise->values)};
    ret_figures[1] = (struct micro_figure){"squeeze: dense, % given to zstd",
                                           percent(dense->tried, dense->values)};
    ret_figures[2] = (struct micro_figure){"squeeze: JSON, frames in % of the values",
                                           percent(json->kept_frame_bytes, json->kept_bytes)};
    ret_figures[3] =
        (struct micro_figure){"squeeze: mixed, % compressed", percent(mixed->kept, mixed->values)};
    return 4;
}

static const struct micro_case cases[] = {
    {"squeeze, noise of 1 to 4 KiB", "zstd always, noise", 0.02, round_noise},
    {"zstd always, noise", NULL, 0, round_noise_always},
    {"squeeze, dense of 1 to 4 KiB", "zstd always, dense", 0.02, round_dense},
    {"zstd always, dense", NULL, 0, round_dense_always},
    {"squeeze, JSON of 1 to 4 KiB", "zstd always, JSON", 1.10, round_json},
    {"zstd always, JSON", NULL, 0, round_json_always},
    {"squeeze, mixed of 1 to 4 KiB", "zstd always, mixed", 0.95, round_mixed},
    {"zstd always, mixed", NULL, 0, round_mixed_always},
};

const struct micro_group micro_squeeze = {
    .cases = cases,
    .case_count = sizeof cases / sizeof cases[0],
    .open = squeeze_open,
    .close = squeeze_close,
    .figures = squeeze_figures,
};
