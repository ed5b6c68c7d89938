/* Records with attributes of tags that nobody knows, of every kind: plain, compressed, in a value
 * file, tombstones. On a bench's store; kinds follow each other from key to key. */
#ifndef TESTS_SUPPORT_ATTRIBUTE_BENCH_H
#define TESTS_SUPPORT_ATTRIBUTE_BENCH_H

#include "tests/support/mover_bench.h"

#define ATTRIBUTE_BYTES_MAX 600u

static inline uint8_t attribute_flags(uint32_t key)
{
    static const uint8_t flags[] = {0, RECORD_ZSTD, RECORD_IN_VALUE_FILE, RECORD_TOMBSTONE};
    return flags[key % 4];
}

/* One entry or several, of up to 255 bytes each. */
static inline struct slice attribute_bytes(uint32_t key, uint8_t *bytes)
{
    struct prng prng = {key};
    uint32_t size = 0;
    for (uint32_t i = 0; i <= key % 3 && size + 2 + 255 <= ATTRIBUTE_BYTES_MAX; i++) {
        bytes[size++] = (uint8_t)prng_next(&prng);
        uint8_t length = bytes[size++] = (uint8_t)prng_next(&prng);
        for (uint32_t at = 0; at < length; at++)
            bytes[size++] = (uint8_t)prng_next(&prng);
    }
    return (struct slice){bytes, size};
}

/* Appends the key's record, of which only the attributes are uncommon. */
static inline void attribute_write(struct bench *bench, uint32_t key)
{
    uint8_t attributes[ATTRIBUTE_BYTES_MAX];
    uint8_t value[200] = {0};
    bench_fill(key, 1, value, sizeof value);
    struct record record = {
        .attributes = attribute_bytes(key, attributes),
        .key = bench_name(bench, key),
        .value = {value, attribute_flags(key) & RECORD_TOMBSTONE ? 0 : sizeof value},
        .flags = attribute_flags(key),
    };
    struct plan plan;
    uint64_t gate;
    for (;;) {
        enum store_status status = plan_write(bench->store, record.key, &plan);
        if (status == STORE_OK)
            status = plan_commit(bench->store, &plan, &record, record.value, &gate);
        if (status == STORE_OK)
            break;
        cr_assert_eq(status, STORE_BUSY);
        cr_assert(bench_pass(bench));
    }
    while (store_durable(bench->store) < gate)
        cr_assert(bench_pass(bench));
}

static inline void attribute_fetched(struct fetch *fetch, int result)
{
    cr_assert_eq(result, 0);
    fetch->location = UINT64_MAX; /* done */
}

/* The key's newest record as it lies on the disk, wherever that is. Calls `check` with it. */
static inline void attribute_read(struct bench *bench, uint32_t key,
                                  void (*check)(uint32_t key, const struct record *record))
{
    struct store *store = bench->store;
    struct key_place place = store_place(store, bench_name(bench, key));
    struct index_entry entry;
    cr_assert_geq(index_find(store->index, place.partition, place.hash, &entry, 1), 1, "key %u",
                  key);
    /* The last look-up's buffer, which only 256 look-ups at once would use. */
    struct fetch fetch;
    fetch_init(&fetch, (uint8_t *)io_region(store->io) + (LOOKUPS_MAX - 1) * FETCH_BUFFER_SIZE);
    cr_assert_eq(store->lookups.active, 0);
    if (fetch_start(&store->fetcher, &fetch, &entry, attribute_fetched) == 0)
        while (fetch.location != UINT64_MAX)
            cr_assert(bench_pass(bench));
    cr_assert(slice_equal(fetch_record(&fetch)->key, bench_name(bench, key)));
    check(key, fetch_record(&fetch));
    fetch_release(&fetch);
}

static inline void attribute_expect_same(uint32_t key, const struct record *record)
{
    uint8_t bytes[ATTRIBUTE_BYTES_MAX];
    cr_assert(slice_equal(record->attributes, attribute_bytes(key, bytes)), "key %u", key);
    cr_assert_eq(record->flags, attribute_flags(key));
}

static inline void attribute_expect_none(uint32_t key, const struct record *record)
{
    cr_assert_eq(record->attributes.size, 0, "key %u", key);
}

#endif
