/* Reads and checks the command line of mvload, and derives from it the values and the keys. */
#include "config.h"

#include "../common/options.h"
#include "base/prng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_SIZE_MAX (100.0 * 1024 * 1024)

/* Values of at least this many bytes are not copied into every request. */
#define VALUE_APART_MIN (64u << 10)

static int parse(struct config *config, int argc, char **argv)
{
    const struct option_spec specs[] = {
        {"protocol", OPTION_CHOICE, &config->protocol_kind, "binary|resp|memcached|http", 0, 0,
         "dialect to speak"},
        {"http-json", OPTION_FLAG, &config->is_http_json, NULL, 0, 0,
         "with http: PUT and GET /KEY with JSON bodies instead of /v1/kv/KEY"},
        {"host", OPTION_STRING, &config->host, "ADDRESS", 0, 0, "the server's IPv4 address"},
        {"port", OPTION_U64, &config->port, "N", 0, 65535,
         "its TCP port; 0: the protocol's usual one"},
        {"auth", OPTION_STRING, &config->auth, "SECRET", 0, 0, "log in (not with memcached)"},
        {"connections", OPTION_U64, &config->connections, "N", 1, 65536,
         "connections, over all threads"},
        {"depth", OPTION_U64, &config->depth, "N", 1, 65536,
         "requests in flight per connection, at most"},
        {"threads", OPTION_U64, &config->threads, "N", 1, 256, "client threads, each with a ring"},
        {"busy-poll", OPTION_FLAG, &config->is_busy_poll, NULL, 0, 0,
         "spin for replies, never sleep"},
        {"pin", OPTION_FLAG, &config->is_pinned, NULL, 0, 0,
         "the n-th thread stays on the n-th CPU that we may use"},
        {"hello", OPTION_FLAG, &config->is_hello, NULL, 0, 0,
         "with binary: open connections with HELLO, so that replies have typed statuses"},
        {"keys", OPTION_U64, &config->keys, "N", 1, 1e12, "size of the key space"},
        {"first-key", OPTION_U64, &config->first_key, "N", 0, 1e12,
         "number of the first key: to ask for keys that nobody has set"},
        {"key-size", OPTION_U64, &config->key_size, "BYTES", KEY_SIZE_MIN, KEY_SIZE_MAX,
         "keys are key:000000012345, zeroes filling up"},
        {"distribution", OPTION_CHOICE, &config->distribution, "uniform|zipf", 0, 0,
         "how keys are drawn; Zipf has exponent 0.99"},
        {"locality", OPTION_CHOICE, &config->locality, "any|local|cross", 0, 0,
         "only keys of the connection's shard, or of any other; with --hello"},
        {"value-size", OPTION_U64, &config->value_size, "BYTES", 0, VALUE_SIZE_MAX,
         "size of the values; a GET is checked for it"},
        {"noise", OPTION_FLAG, &config->is_noise, NULL, 0, 0,
         "values that cannot be compressed, instead of letters (not with --http-json)"},
        {"reads", OPTION_DOUBLE, &config->reads, "SHARE", 0, 1, "share of GETs, the rest are SETs"},
        {"op", OPTION_CHOICE, &config->op, "mixed|get|set", 0, 0, "get: --reads 1, set: --reads 0"},
        {"inserts", OPTION_DOUBLE, &config->inserts, "SHARE", 0, 1,
         "share of the SETs that take a new key, behind the key space; the rest overwrite"},
        {"first-insert", OPTION_U64, &config->first_insert, "N", 0, 1e12,
         "number of the first of the new keys; 0: the one behind the key space"},
        {"seed", OPTION_U64, &config->seed, "N", 0, 1e18, "of the draws"},
        {"prefill", OPTION_FLAG, &config->is_prefill, NULL, 0, 0,
         "first SET every key once; an error ends the run"},
        {"warmup", OPTION_DOUBLE, &config->warmup_seconds, "SECONDS", 0, 1e6,
         "load before the measurement"},
        {"seconds", OPTION_DOUBLE, &config->seconds, "SECONDS", 0, 1e6,
         "length of the measurement; 0: only prefill"},
        {"requests", OPTION_U64, &config->requests, "N", 0, 1e15,
         "end the measurement after so many replies, if --seconds are not over before; 0: no"},
        {"rate", OPTION_DOUBLE, &config->rate, "N", 0, 1e9,
         "open loop: requests a second, evenly spaced, latency from the intended time; 0: closed "
         "loop"},
        {"allow-misses", OPTION_FLAG, &config->is_allow_misses, NULL, 0, 0,
         "misses are no failure"},
        {"allow-refusals", OPTION_FLAG, &config->is_allow_refusals, NULL, 0, 0,
         "nor are requests that the server has no room for (OVERLOADED after HELLO, 429)"},
        {"json", OPTION_FLAG, &config->is_json, NULL, 0, 0,
         "the result as one JSON object on stdout"},
    };
    const struct option_table table = {
        .usage = "mvload: loads a key-value server and measures it. Exit code: 0; 1 when a request "
                 "failed or\n"
                 "missed; 2 for a bad command line. First of several choices is the default.",
        .specs = specs,
        .spec_count = sizeof specs / sizeof specs[0],
    };
    return options_parse(&table, argc, argv);
}

static const struct protocol *protocol_of(const struct config *config)
{
    switch ((enum protocol_kind)config->protocol_kind) {
    case PROTOCOL_BINARY:
        return config->is_hello ? &protocol_typed : &protocol_binary;
    case PROTOCOL_RESP:
        return &protocol_resp;
    case PROTOCOL_MEMCACHED:
        return &protocol_memcached;
    case PROTOCOL_HTTP:
        return config->is_http_json ? &protocol_http_json : &protocol_http;
    }
    return NULL;
}

static int complain(const char *text)
{
    fprintf(stderr, "mvload: %s\n", text);
    return -EINVAL;
}

static int check(const struct config *config)
{
    if (config->is_http_json && config->protocol_kind != PROTOCOL_HTTP)
        return complain("--http-json needs --protocol http");
    if (config->is_http_json && config->is_noise)
        return complain("--noise is not for --http-json");
    if (config->auth != NULL && config->protocol_kind == PROTOCOL_MEMCACHED)
        return complain("--auth is not for memcached");
    if (config->auth != NULL && strlen(config->auth) > 1024)
        return complain("--auth: at most 1024 bytes");
    if (config->is_hello && config->protocol_kind != PROTOCOL_BINARY)
        return complain("--hello needs --protocol binary");
    if (config->locality != LOCALITY_ANY && !config->is_hello)
        return complain("--locality needs --hello");
    if (config->threads > config->connections)
        return complain("--threads: no more than --connections");
    return 0;
}

/* Letters only, so that the value is the same in JSON as raw; or noise. */
static uint8_t *make_value(uint64_t size, bool is_noise)
{
    uint8_t *value = malloc(size + 1);
    struct prng prng = {.state = 1};
    for (uint64_t i = 0; value != NULL && i < size; i++)
        value[i] = is_noise ? (uint8_t)prng_next(&prng) : (uint8_t)('a' + i % 26);
    return value;
}

static uint32_t threshold_of(double share)
{
    return share >= 1 ? UINT32_MAX : (uint32_t)(share * 0x1p32);
}

static int derive_keys(struct config *config)
{
    struct key_space *space = &config->key_space;
    uint32_t key_size = (uint32_t)config->key_size;
    int error = key_space_init(space, config->keys, key_size, config->distribution == 1);
    if (error < 0)
        return complain("--key-size is too small for the numbers of --keys");
    if (config->first_key > 0 || config->inserts > 0)
        key_space_widen(space);
    config->insert_threshold = threshold_of(config->inserts);
    if (config->first_insert == 0)
        config->first_insert = config->first_key + config->keys;
    return 0;
}

static int derive(struct config *config)
{
    if (config->op != 0)
        config->reads = config->op == 1 ? 1 : 0;
    config->is_all_reads = config->reads >= 1;
    config->read_threshold = threshold_of(config->reads);
    config->protocol = protocol_of(config);
    if (config->port == 0)
        config->port = config->protocol->port;
    int error = derive_keys(config);
    if (error < 0)
        return error;
    uint8_t *value = make_value(config->value_size, config->is_noise);
    if (value == NULL)
        return -ENOMEM;
    config->traffic = (struct traffic){.key_size = (uint32_t)config->key_size,
                                       .value = value,
                                       .value_size = (uint32_t)config->value_size,
                                       .is_value_apart = config->value_size >= VALUE_APART_MIN,
                                       .auth = config->auth,
                                       .host = config->host};
    size_t auth_size = config->auth == NULL ? 0 : strlen(config->auth);
    uint64_t copied_size = config->traffic.is_value_apart ? 0 : config->value_size;
    config->request_size_max =
        (uint32_t)(config->key_size + copied_size + auth_size + strlen(config->host) +
                   config->protocol->request_overhead);
    return 0;
}

int config_init(struct config *config, int argc, char **argv)
{
    *config = (struct config){.host = "127.0.0.1",
                              .connections = 50,
                              .depth = 1,
                              .threads = 1,
                              .keys = 100000,
                              .key_size = 16,
                              .value_size = 100,
                              .reads = 0.5,
                              .seed = 1,
                              .warmup_seconds = 0.5,
                              .seconds = 5};
    int error = parse(config, argc, argv);
    if (error < 0)
        return error;
    error = check(config);
    if (error < 0)
        return error;
    return derive(config);
}

void config_deinit(struct config *config)
{
    free((void *)config->traffic.value);
}
