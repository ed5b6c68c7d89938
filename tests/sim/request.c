/* Makes a client's requests, and checks the answers to them. */
#include "client.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/compress.h"
#include "minivault/protocol.h"
#include "tests/support/zstd_frame.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LARGE_SIZE_MAX (2 * MIB)

/* ---- asking ---- */

static struct slice key_of(const struct client *client, uint32_t key)
{
    return client->workload->keys.list[key];
}

/* Opcode and key; `more` bytes follow. Returns where. */
static uint8_t *put_head(struct client *client, uint8_t op, struct slice key, size_t more)
{
    uint8_t *at = client_reserve(client, 3 + key.size + more);
    at[0] = op;
    store_u16(at + 1, (uint16_t)key.size);
    memcpy(at + 3, key.data, key.size);
    return at + 3 + key.size;
}

void request_hello(struct client *client)
{
    static const char name[] = MINIVAULT_HELLO_NAME;
    struct slice key = {(const uint8_t *)name, sizeof name - 1};
    (void)put_head(client, MINIVAULT_HELLO, key, 0);
    (void)client_push(client, MINIVAULT_HELLO);
}

static void make_get(struct client *client, uint32_t key)
{
    struct workload *workload = client->workload;
    (void)put_head(client, MINIVAULT_GET, key_of(client, key), 0);
    struct request *request = client_push(client, MINIVAULT_GET);
    checker_begin_read(workload->checker, client->connection, key, sim_now_ns(workload->sim),
                       &request->reading);
}

static void make_delete(struct client *client, uint32_t key)
{
    struct workload *workload = client->workload;
    (void)put_head(client, MINIVAULT_DELETE, key_of(client, key), 0);
    struct request *request = client_push(client, MINIVAULT_DELETE);
    request->write = checker_begin(workload->checker, client->connection, key, true, 0,
                                   sim_now_ns(workload->sim));
}

static uint32_t choose_size(struct workload *workload)
{
    struct prng *prng = &workload->prng;
    if (prng_below(prng, 100) < workload->large_percent) {
        uint64_t size_max = min_u64(workload->value_size_max, LARGE_SIZE_MAX);
        if (prng_below(prng, 4) > 0)
            size_max = min_u64(size_max, 300 * KIB);
        return (uint32_t)prng_below(prng, size_max + 1);
    }
    if (prng_below(prng, 16) == 0)
        return 0;
    /* From 8 bytes on no two writes have the same value. */
    return 8 + (uint32_t)prng_below(prng, workload->small_size_max);
}

static void put_value(uint8_t *at, uint32_t size, bool is_zstd, const uint8_t *value)
{
    store_u32(at, size);
    at[4] = is_zstd ? 1 : 0;
    memcpy(at + 5, value, size);
}

static void put_compressed(struct client *client, struct slice key, const uint8_t *value,
                           uint32_t size)
{
    size_t bound = compress_bound(size);
    uint8_t *frame = malloc(bound);
    assert(frame != NULL);
    int64_t frame_size = compress_frame(frame, bound, value, size);
    assert(frame_size > 0);
    uint8_t *at = put_head(client, MINIVAULT_SET, key, 5 + (size_t)frame_size);
    put_value(at, (uint32_t)frame_size, true, frame);
    free(frame);
}

static void make_set(struct client *client, uint32_t key)
{
    struct workload *workload = client->workload;
    struct prng *prng = &workload->prng;
    uint32_t size = choose_size(workload);
    bool is_too_large =
        prng_below(prng, 1000) == 0 && workload->value_size_max < VALUE_SIZE_LIMIT / 2;
    if (is_too_large)
        size = workload->value_size_max + 1 + (uint32_t)prng_below(prng, 1000);
    uint64_t write = checker_begin(workload->checker, client->connection, key, false, size,
                                   sim_now_ns(workload->sim));
    uint8_t *value = malloc(size + 1);
    assert(value != NULL);
    value_fill(write, value, size);
    /* A frame is a little larger than what does not compress. */
    bool may_compress = compress_bound(size) <= workload->value_size_max;
    if (may_compress && prng_below(prng, 100) < workload->zstd_percent)
        put_compressed(client, key_of(client, key), value, size);
    else
        put_value(put_head(client, MINIVAULT_SET, key_of(client, key), 5 + size), size, false,
                  value);
    free(value);
    struct request *request = client_push(client, MINIVAULT_SET);
    request->write = write;
    request->must_be_refused = is_too_large;
}

static void make_health(struct client *client)
{
    (void)put_head(client, MINIVAULT_HEALTH, (struct slice){(const uint8_t *)"", 0}, 0);
    (void)client_push(client, MINIVAULT_HEALTH);
}

void request_make(struct client *client)
{
    struct workload *workload = client->workload;
    if (client->is_scanning) {
        make_get(client, client->scan_next++);
        return;
    }
    uint32_t key = (uint32_t)prng_below(&workload->prng, workload->keys.count);
    uint64_t dice = prng_below(&workload->prng, 100);
    if (dice < workload->set_percent)
        make_set(client, key);
    else if (dice < workload->set_percent + workload->delete_percent)
        make_delete(client, key);
    else if (prng_below(&workload->prng, 200) == 0)
        make_health(client);
    else
        make_get(client, key);
}

/* ---- judging ---- */

static void judge_write(struct client *client, const struct request *request, uint8_t status,
                        uint32_t size)
{
    struct workload *workload = client->workload;
    const char *what = request->op == MINIVAULT_SET ? "SET" : "DELETE";
    if (status == MINIVAULT_OK) {
        if (request->must_be_refused || size != 0)
            workload_fail(workload, "a %s is answered OK with %" PRIu32 " bytes, and should not",
                          what, size);
        checker_acknowledge(workload->checker, request->write, sim_now_ns(workload->sim));
        return;
    }
    workload->refusals++;
    /* A full disk refuses sets; a delete makes room in the end. */
    bool is_full = workload->may_refuse_writes && request->op == MINIVAULT_SET;
    if (request->must_be_refused || is_full) {
        checker_refuse(workload->checker, request->write);
        return;
    }
    if (!workload->may_fail)
        workload_fail(workload, "a %s is refused with status %u, for no reason", what, status);
    checker_fail(workload->checker, request->write);
}

static void judge_read(struct client *client, const struct request *request, uint8_t status,
                       const uint8_t *data, uint32_t size)
{
    struct workload *workload = client->workload;
    bool is_absent = status == (client->is_typed ? MINIVAULT_NOT_FOUND : MINIVAULT_ERROR);
    if (workload->may_fail && (status == MINIVAULT_CORRUPT || status == MINIVAULT_ERROR))
        return;
    if (status != MINIVAULT_OK && !is_absent) {
        workload_fail(workload, "a GET is answered with status %u", status);
        return;
    }
    if (!checker_read(workload->checker, &request->reading, is_absent ? NULL : data, size,
                      sim_now_ns(workload->sim)))
        workload_fail(workload, "a GET of connection %" PRIu64 ", sent at %" PRIu64 " us: %s",
                      client->connection, request->sent_ns / NS_PER_US,
                      checker_message(workload->checker));
}

static void judge_text(struct client *client, uint8_t status, const uint8_t *data, uint32_t size)
{
    if (status != MINIVAULT_OK || size < 2 || data[0] != '{' || data[size - 1] != '}')
        workload_fail(client->workload,
                      "HELLO or HEALTH is answered with status %u, %" PRIu32 " bytes", status,
                      size);
}

void request_judge(struct client *client, const struct request *request, uint8_t status,
                   const uint8_t *data, uint32_t size)
{
    bool is_plain = !client->is_typed;
    if (is_plain && status != MINIVAULT_OK && (status != MINIVAULT_ERROR || size != 0)) {
        workload_fail(client->workload, "a plain connection gets status %u with %" PRIu32 " bytes",
                      status, size);
        return;
    }
    if (request->op == MINIVAULT_GET)
        judge_read(client, request, status, data, size);
    else if (request->op == MINIVAULT_SET || request->op == MINIVAULT_DELETE)
        judge_write(client, request, status, size);
    else
        judge_text(client, status, data, size);
}
