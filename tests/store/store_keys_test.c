/* New keys beyond the index's part of the memory are refused; nothing else is. */
#include "store/store_keys.h"

#include "store/store_internal.h"
#include "store/store_large.h"
#include "tests/support/store_fixture.h"

#define KEYS 3072u /* as many for each partition */
#define CACHE_SIZE (1 * MIB)

static uint32_t lines; /* that the log got; the store's thread is the test's */

static void count_line(void *context, const char *line, uint32_t size)
{
    (void)context;
    cr_assert_not_null(memmem(line, size, "Raise -memory", 13), "%.*s", (int)size, line);
    lines++;
}

static struct slice key_of(char *buffer, uint64_t number)
{
    int size = snprintf(buffer, 32, "key%08llu", (unsigned long long)number);
    return (struct slice){(const uint8_t *)buffer, (uint32_t)size};
}

static enum store_status set(struct fixture *f, uint64_t number, struct slice value,
                             uint64_t *ret_gate)
{
    char key[32];
    enum store_status status = STORE_BUSY;
    for (int i = 0; i < 1000 && status == STORE_BUSY; i++) {
        status = store_set(f->store, key_of(key, number), value, value, false, ret_gate);
        if (status == STORE_BUSY)
            fixture_pass(f);
    }
    return status;
}

/* With a limit of KEYS, and one more key than fits. */
static void start(struct fixture *f)
{
    fixture_init(f, CACHE_SIZE);
    f->files_max = store_files_max(); /* the mover writes to all partitions */
    lines = 0;
    f->log = (struct log){.level_min = LOG_WARN, .write = count_line};
    f->options.index_size = KEYS * STORE_KEY_BYTES;
    fixture_open(f);
}

static void fill(struct fixture *f)
{
    uint64_t gate = 0;
    for (uint32_t i = 0; i < KEYS; i++)
        cr_assert_eq(set(f, i, text("value"), &gate), STORE_OK, "key %u", i);
    fixture_settle(f, gate);
}

static void end(struct fixture *f)
{
    fixture_shut(f);
    fixture_remove(f);
}

Test(store_keys, beyond_the_limit_new_keys_are_refused_and_nothing_else)
{
    struct fixture f;
    char key[32];
    uint64_t gate = 0;
    start(&f);
    fill(&f);
    cr_assert(!store_has_memory(f.store));
    for (uint32_t i = 0; i < 1000; i++)
        cr_assert_eq(set(&f, KEYS + i, text("value"), &gate), STORE_NO_MEMORY);
    cr_assert_eq(lines, 1, "once a second at most");
    for (uint32_t i = 0; i < KEYS; i++)
        cr_assert_eq(set(&f, i, text("other"), &gate), STORE_OK, "key %u", i);
    fixture_expect(&f, key_of(key, 7), text("other"));
    fixture_expect_absent(&f, key_of(key, KEYS));
    fixture_delete(&f, key_of(key, 7));
    fixture_expect_absent(&f, key_of(key, 7));
    cr_assert_eq(set(&f, 7, text("again"), &gate), STORE_OK, "it still has its slot");
    struct store_stats stats;
    store_stats(f.store, &stats);
    cr_assert_eq(stats.keys_refused, 1000);
    cr_assert_eq(stats.index_limit, f.options.index_size);
    end(&f);
}

/* Their keys are in no cache: an old slot that was left to the mover would count, too. */
Test(store_keys, overwrites_of_keys_that_are_not_in_memory_leave_the_index_as_large_as_it_was)
{
    struct fixture f;
    uint64_t gate = 0;
    start(&f);
    static uint8_t bytes[2000];
    struct slice value = {bytes, sizeof bytes};
    for (uint32_t i = 0; i < KEYS; i++)
        cr_assert_eq(set(&f, i, value, &gate), STORE_OK, "key %u", i);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < KEYS; i++)
            cr_assert_eq(set(&f, i, value, &gate), STORE_OK, "key %u", i);
        fixture_settle(&f, gate);
    }
    cr_assert_leq(index_count(f.store->index), KEYS + PROOFS_MAX);
    end(&f);
}

static void ignore(void *context)
{
    (void)context;
}

static void ignore_result(void *context, int result)
{
    (void)context;
    (void)result;
}

Test(store_keys, an_upload_of_a_new_key_is_refused_before_it_begins)
{
    struct fixture f;
    char key[32];
    struct store_upload *upload;
    struct value_writer_events events = {.context = &f, .room = ignore, .finished = ignore_result};
    start(&f);
    fill(&f);
    cr_assert_eq(store_upload_begin(f.store, key_of(key, KEYS), 0, NULL, &events, &upload),
                 STORE_NO_MEMORY);
    cr_assert_eq(store_upload_begin(f.store, key_of(key, 1), 0, NULL, &events, &upload), STORE_OK);
    store_upload_close(upload);
    end(&f);
}

Test(store_keys, a_start_takes_all_keys_whatever_the_limit)
{
    struct fixture f;
    char key[32];
    uint64_t gate = 0;
    start(&f);
    fill(&f);
    fixture_shut(&f);
    f.options.index_size /= 2;
    f.options.cache_size = 2 * MIB;
    lines = 0;
    fixture_open(&f);
    cr_assert_eq(lines, 1, "it says so");
    cr_assert_eq(index_count(f.store->index), KEYS);
    for (uint32_t i = 0; i < KEYS; i++)
        fixture_expect(&f, key_of(key, i), text("value"));
    cr_assert_eq(set(&f, KEYS, text("value"), &gate), STORE_NO_MEMORY);
    cr_assert_eq(set(&f, 1, text("other"), &gate), STORE_OK);
    end(&f);
}

/* A few of them: usually tombstones would stay until they outnumber the rest. */
Test(store_keys, after_some_were_deleted_new_keys_are_taken, .timeout = 120)
{
    struct fixture f;
    char key[32];
    uint64_t gate = 0;
    start(&f);
    fill(&f);
    for (uint32_t i = 0; i < KEYS / 8; i++)
        gate = fixture_delete(&f, key_of(key, i));
    fixture_settle(&f, gate);
    cr_assert_eq(set(&f, KEYS, text("value"), &gate), STORE_NO_MEMORY, "not yet");
    while (!store_has_memory(f.store))
        fixture_pass(&f);
    cr_assert_eq(set(&f, KEYS, text("value"), &gate), STORE_OK);
    for (uint32_t i = 0; i < KEYS / 8; i++)
        fixture_expect_absent(&f, key_of(key, i));
    end(&f);
}
