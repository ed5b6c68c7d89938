/* Values in files of their own, through the store in the real world: uploads, replacements, deletes
 * and restarts. */
#include "tests/support/store_fixture.h"

#include "base/prng.h"
#include "store/start/start.h"
#include "store/store_large.h"
#include "store/value/stream_pool.h"
#include "tests/support/colliding_keys.h"

#include <dirent.h>
#include <errno.h>

#define LARGE_SIZE 300000u

static uint8_t *noise(uint32_t size, uint64_t seed)
{
    uint8_t *bytes = malloc(size + 8);
    struct prng prng = {seed};
    for (uint32_t i = 0; i < size; i += 8)
        store_u64(bytes + i, prng_next(&prng));
    return bytes;
}

/* ---- a client of the uploads ---- */

struct sender {
    struct store_upload *upload;
    bool finished;
    int result;
};

static void sender_room(void *context)
{
    (void)context;
}

static void sender_finished(void *context, int result)
{
    struct sender *sender = context;
    cr_assert(!sender->finished);
    sender->finished = true;
    sender->result = result;
}

static void sender_begin(struct fixture *fixture, struct sender *sender, struct slice key)
{
    *sender = (struct sender){0};
    struct value_writer_events events = {sender, sender_room, sender_finished};
    cr_assert_eq(
        store_upload_begin(fixture->store, key, LARGE_SIZE, NULL, &events, &sender->upload),
        STORE_OK);
}

/* Everything but the commit. */
static void sender_send(struct fixture *fixture, struct sender *sender, uint64_t seed)
{
    uint8_t *bytes = noise(LARGE_SIZE, seed);
    struct value_writer *writer = store_upload_writer(sender->upload);
    for (uint32_t sent = 0, room = 0; sent < LARGE_SIZE;) {
        uint8_t *buffer = value_writer_buffer(writer, &room);
        if (buffer == NULL) {
            cr_assert_eq(value_writer_error(writer), 0);
            fixture_pass(fixture);
            continue;
        }
        uint32_t part = (uint32_t)min_u64(room, LARGE_SIZE - sent);
        memcpy(buffer, bytes + sent, part);
        sent += part;
        cr_assert_eq(value_writer_filled(writer, part), 0);
    }
    value_writer_finish(writer);
    for (int i = 0; i < 1000 && !sender->finished; i++)
        fixture_pass(fixture);
    cr_assert(sender->finished && sender->result == 0, "result %d", sender->result);
    free(bytes);
}

static void sender_commit(struct fixture *fixture, struct sender *sender, struct slice key)
{
    uint64_t gate = 0;
    enum store_status status = STORE_BUSY;
    for (int i = 0; i < 1000 && status == STORE_BUSY; i++) {
        status = store_upload_commit(sender->upload, key, &gate);
        if (status == STORE_BUSY)
            fixture_pass(fixture);
    }
    cr_assert_eq(status, STORE_OK, "commit: %d", status);
    store_upload_close(sender->upload);
    fixture_settle(fixture, gate);
}

static void set_large(struct fixture *fixture, struct slice key, uint64_t seed)
{
    struct sender sender;
    sender_begin(fixture, &sender, key);
    sender_send(fixture, &sender, seed);
    sender_commit(fixture, &sender, key);
}

Test(store_large, too_many_open_files_are_no_failure)
{
    struct fixture fixture;
    struct sender senders[300]; /* the fixture's world has fewer files */
    uint32_t refused = 0;
    fixture_start(&fixture, MIB);
    for (uint32_t i = 0; i < 300; i++) {
        sender_begin(&fixture, &senders[i], text("k"));
        value_writer_finish(store_upload_writer(senders[i].upload));
    }
    for (uint32_t i = 0; i < 300; i++) {
        for (int pass = 0; pass < 1000 && !senders[i].finished; pass++)
            fixture_pass(&fixture);
        cr_assert(senders[i].finished);
        if (senders[i].result < 0) {
            cr_assert_eq(senders[i].result, -ENFILE);
            cr_assert_eq(store_upload_failed(fixture.store, senders[i].result), STORE_BUSY);
            refused++;
        }
    }
    cr_assert(refused >= 44 && refused < 300, "%u", refused);
    for (uint32_t i = 0; i < 300; i++)
        store_upload_close(senders[i].upload);
    for (int pass = 0; pass < 1000 && stream_pool_is_busy(fixture.store->streams); pass++)
        fixture_pass(&fixture); /* their files are closed */
    set_large(&fixture, text("k"), 1);
    cr_assert_eq(fixture.failed, 0);
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

Test(store_large, only_what_the_device_refuses_is_a_failure)
{
    struct fixture fixture;
    fixture_start(&fixture, MIB);
    cr_assert_eq(store_upload_failed(fixture.store, -ENOMEM), STORE_BUSY);
    cr_assert_eq(store_upload_failed(fixture.store, -EMFILE), STORE_BUSY);
    cr_assert_eq(store_upload_failed(fixture.store, -EIO), STORE_FAILED);
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

/* ---- a client of the downloads ---- */

struct receiver {
    struct store_waiter waiter;
    bool done;
    enum store_status status;
    uint8_t descriptor[VALUE_FILE_DESCRIPTOR_MAX];
    struct store_value value;
};

static void receiver_take(struct receiver *receiver, enum store_status status,
                          const struct store_value *value)
{
    receiver->done = true;
    receiver->status = status;
    receiver->value = *value;
    if (status != STORE_OK)
        return;
    cr_assert(value->in_value_file);
    memcpy(receiver->descriptor, value->data, value->size);
    receiver->value.data = receiver->descriptor;
}

static void receiver_done(struct store_waiter *waiter, enum store_status status,
                          const struct store_value *value)
{
    receiver_take(container_of(waiter, struct receiver, waiter), status, value);
}

static void receiver_ready(void *context)
{
    (void)context;
}

static void receiver_get(struct fixture *fixture, struct slice key, struct receiver *ret_receiver)
{
    *ret_receiver = (struct receiver){.waiter.done = receiver_done};
    struct store_value value;
    enum store_status status = store_get(fixture->store, key, &ret_receiver->waiter, &value);
    if (status != STORE_PENDING)
        receiver_take(ret_receiver, status, &value);
    else
        cr_assert(value.in_value_file, "the index knows that it may be a large one");
    for (int i = 0; i < 1000 && !ret_receiver->done; i++)
        fixture_pass(fixture);
    cr_assert(ret_receiver->done);
}

static void expect_large(struct fixture *fixture, struct slice key, uint64_t seed)
{
    struct receiver receiver;
    receiver_get(fixture, key, &receiver);
    cr_assert_eq(receiver.status, STORE_OK);
    struct value_reader_events events = {NULL, receiver_ready};
    struct value_reader *reader = NULL;
    cr_assert_eq(store_download_open(fixture->store, &receiver.value, &events, &reader), 0);
    uint8_t *bytes = noise(LARGE_SIZE, seed);
    for (uint32_t got = 0, size = 0; got < LARGE_SIZE;) {
        const uint8_t *piece = value_reader_piece(reader, &size);
        cr_assert_eq(value_reader_error(reader), 0);
        if (piece == NULL) {
            fixture_pass(fixture);
            continue;
        }
        cr_assert_leq(size, LARGE_SIZE - got);
        cr_assert_eq(memcmp(piece, bytes + got, size), 0);
        got += size;
        value_reader_release(reader);
    }
    free(bytes);
    store_download_close(fixture->store, reader);
}

/* ---- what lies on the disk ---- */

static uint32_t count_files(const struct fixture *fixture)
{
    uint32_t count = 0;
    for (uint32_t partition = 0; partition < 256; partition++) {
        char path[300];
        (void)snprintf(path, sizeof path, "%s/%02x", fixture->path, partition);
        DIR *directory = opendir(path);
        for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
            struct value_file_name name;
            count += value_file_name_parse((uint8_t)partition, entry->d_name, &name) == 0;
        }
        if (directory != NULL)
            (void)closedir(directory);
    }
    return count;
}

static void expect_files(struct fixture *fixture, uint32_t count)
{
    for (int i = 0; i < 500 && count_files(fixture) != count; i++)
        fixture_pass(fixture);
    cr_assert_eq(count_files(fixture), count);
}

/* Pushes everything out of the cache, and out of the log's memory. */
static void push_out(struct fixture *fixture)
{
    uint8_t *filler = noise(4000, 1);
    uint64_t gate = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "filler %u", i);
        gate = fixture_set(fixture, text(key), (struct slice){filler, 4000});
    }
    fixture_settle(fixture, gate);
    free(filler);
}

/* ---- tests ---- */

Test(store_large, a_value_comes_back_also_after_a_restart)
{
    struct fixture fixture;
    fixture_start(&fixture, 16 * MIB);
    set_large(&fixture, text("k"), 1);
    expect_large(&fixture, text("k"), 1);
    expect_files(&fixture, 1);
    fixture_kill(&fixture);
    fixture_open(&fixture);
    expect_large(&fixture, text("k"), 1);
    fixture_shut(&fixture);
    fixture_open(&fixture);
    expect_large(&fixture, text("k"), 1);
    expect_files(&fixture, 1);
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

Test(store_large, a_file_goes_when_its_value_is_replaced_or_deleted)
{
    struct fixture fixture;
    fixture_start(&fixture, 16 * MIB);
    set_large(&fixture, text("k"), 1);
    set_large(&fixture, text("k"), 2);
    expect_large(&fixture, text("k"), 2);
    expect_files(&fixture, 1);
    fixture_settle(&fixture, fixture_set(&fixture, text("k"), text("small")));
    expect_files(&fixture, 0);
    fixture_expect(&fixture, text("k"), text("small"));
    set_large(&fixture, text("k"), 3);
    fixture_settle(&fixture, fixture_delete(&fixture, text("k")));
    expect_files(&fixture, 0);
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

Test(store_large, a_file_goes_when_the_disk_alone_knows_whose_it_was)
{
    struct fixture fixture;
    fixture_start(&fixture, 256 * KIB);
    set_large(&fixture, text("k"), 1);
    set_large(&fixture, text("l"), 2);
    push_out(&fixture);
    set_large(&fixture, text("k"), 3);
    expect_files(&fixture, 2);
    expect_large(&fixture, text("k"), 3);
    push_out(&fixture);
    fixture_settle(&fixture, fixture_delete(&fixture, text("k")));
    fixture_settle(&fixture, fixture_set(&fixture, text("l"), text("small")));
    expect_files(&fixture, 0);
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

Test(store_large, what_is_not_committed_leaves_nothing)
{
    struct fixture fixture;
    struct sender begun, finished;
    fixture_start(&fixture, 16 * MIB);
    sender_begin(&fixture, &begun, text("k"));
    store_upload_close(begun.upload);
    sender_begin(&fixture, &finished, text("k"));
    sender_send(&fixture, &finished, 1);
    cr_assert_eq(count_files(&fixture), 1);
    store_upload_close(finished.upload);
    expect_files(&fixture, 0);
    fixture_expect_absent(&fixture, text("k"));
    /* And what a kill leaves behind goes at the next start. */
    sender_begin(&fixture, &finished, text("k"));
    sender_send(&fixture, &finished, 1);
    fixture_kill(&fixture);
    store_upload_forget(finished.upload);
    fixture_open(&fixture);
    cr_assert_eq(count_files(&fixture), 0);
    fixture_expect_absent(&fixture, text("k"));
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

/* `after` runs between the upload's begin and its commit; `is_pushed`: what it wrote is known to
 * the disk alone then. */
static void race(void (*after)(struct fixture *fixture), bool is_pushed, bool has_old,
                 struct fixture *fixture)
{
    struct sender sender;
    fixture_start(fixture, 256 * KIB);
    if (has_old)
        fixture_settle(fixture, fixture_set(fixture, text("k"), text("old")));
    sender_begin(fixture, &sender, text("k"));
    sender_send(fixture, &sender, 1);
    after(fixture);
    if (is_pushed)
        push_out(fixture);
    sender_commit(fixture, &sender, text("k"));
}

static void end_race(struct fixture *fixture)
{
    fixture_shut(fixture);
    fixture_remove(fixture);
}

static void set_newer(struct fixture *fixture)
{
    fixture_settle(fixture, fixture_set(fixture, text("k"), text("newer")));
}

static void set_newer_large(struct fixture *fixture)
{
    set_large(fixture, text("k"), 2);
}

static void set_newer_and_delete(struct fixture *fixture)
{
    set_newer(fixture);
    fixture_settle(fixture, fixture_delete(fixture, text("k")));
}

static void do_nothing(struct fixture *fixture)
{
    (void)fixture;
}

/* The upload's file is named before the other write is stamped, its record is stamped after it. */
static void expect_upload_counts(void (*after)(struct fixture *fixture))
{
    for (int i = 0; i < 4; i++) {
        struct fixture fixture;
        race(after, i & 1, i & 2, &fixture);
        expect_large(&fixture, text("k"), 1);
        expect_files(&fixture, 1);
        fixture_kill(&fixture);
        fixture_open(&fixture);
        expect_large(&fixture, text("k"), 1);
        expect_files(&fixture, 1);
        end_race(&fixture);
    }
}

Test(store_large, an_upload_replaces_a_write_that_came_before_its_commit)
{
    expect_upload_counts(set_newer);
}

Test(store_large, an_upload_replaces_an_upload_that_began_later_and_was_committed_before)
{
    expect_upload_counts(set_newer_large);
}

Test(store_large, an_upload_replaces_a_delete_that_came_before_its_commit)
{
    expect_upload_counts(set_newer_and_delete);
}

Test(store_large, an_upload_without_other_writes_counts)
{
    expect_upload_counts(do_nothing);
}

/* ---- files and records that do not come in one order ---- */

static struct version newest_version(struct fixture *fixture, struct slice key,
                                     struct value_file_name *ret_file)
{
    struct receiver receiver;
    receiver_get(fixture, key, &receiver);
    cr_assert_eq(receiver.status, STORE_OK);
    *ret_file = receiver.value.file;
    return receiver.value.version;
}

Test(store_large, a_file_is_named_at_the_begin_and_its_record_stamped_at_the_commit)
{
    struct fixture fixture;
    struct sender first, second;
    struct value_file_name first_file, second_file;
    fixture_start(&fixture, 16 * MIB);
    sender_begin(&fixture, &first, text("k"));
    sender_begin(&fixture, &second, text("k"));
    sender_send(&fixture, &second, 2);
    sender_send(&fixture, &first, 1);
    cr_expect_eq(count_files(&fixture), 2);
    sender_commit(&fixture, &second, text("k"));
    struct version before = newest_version(&fixture, text("k"), &second_file);
    sender_commit(&fixture, &first, text("k"));
    struct version after = newest_version(&fixture, text("k"), &first_file);
    cr_expect_gt(version_compare(after, before), 0);
    cr_expect_lt(version_compare(first_file.version, second_file.version), 0);
    cr_expect_lt(version_compare(second_file.version, before), 0);
    expect_large(&fixture, text("k"), 1);
    expect_files(&fixture, 1);
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

Test(store_large, a_kill_between_two_commits_leaves_the_first)
{
    struct fixture fixture;
    struct sender first, second;
    fixture_start(&fixture, 16 * MIB);
    sender_begin(&fixture, &first, text("k"));
    sender_begin(&fixture, &second, text("k"));
    sender_send(&fixture, &first, 1);
    sender_send(&fixture, &second, 2);
    sender_commit(&fixture, &second, text("k"));
    fixture_kill(&fixture);
    store_upload_forget(first.upload);
    fixture_open(&fixture);
    cr_expect_eq(count_files(&fixture), 1);
    expect_large(&fixture, text("k"), 2);
    fixture_shut(&fixture);
    fixture_open(&fixture);
    cr_expect_eq(count_files(&fixture), 1);
    expect_large(&fixture, text("k"), 2);
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

/* What the store says from now on goes to `said`, 4 * LOG_LINE_MAX bytes. */
static void save_line(void *said, const char *line, uint32_t size)
{
    if (strlen(said) + size < (size_t)4 * LOG_LINE_MAX)
        (void)strncat(said, line, size);
}

static void hear(struct fixture *fixture, char *said)
{
    fixture->log.write = save_line;
    fixture->log.context = said;
    log_set_level(&fixture->log, LOG_INFO);
}

/* With one XXH64, what has a file and what has none cannot be told apart by counting. */
Test(store_large, a_start_removes_what_no_record_names_beside_files_that_stay)
{
    struct fixture fixture;
    struct sender orphans[3];
    uint8_t keys[6][COLLIDING_KEY_SIZE];
    struct slice names[6];
    fixture_start(&fixture, 256 * KIB);
    for (uint32_t i = 0; i < 6; i++) {
        colliding_key(i, keys[i]);
        names[i] = (struct slice){keys[i], COLLIDING_KEY_SIZE};
    }
    for (uint32_t i = 0; i < 3; i++) {
        set_large(&fixture, names[i], i);
        sender_begin(&fixture, &orphans[i], names[i + 3]);
        sender_send(&fixture, &orphans[i], i + 3);
    }
    set_large(&fixture, names[1], 11);
    push_out(&fixture);
    expect_files(&fixture, 6);
    fixture_kill(&fixture);
    for (uint32_t i = 0; i < 3; i++)
        store_upload_forget(orphans[i].upload);
    char said[4 * LOG_LINE_MAX] = "";
    hear(&fixture, said);
    fixture_open(&fixture);
    cr_expect_not_null(strstr(said, ": 3 files that were never finished"), "%s", said);
    cr_expect_null(strstr(said, "large values are missing"), "%s", said);
    cr_expect_eq(count_files(&fixture), 3);
    for (uint32_t i = 0; i < 3; i++) {
        expect_large(&fixture, names[i], i == 1 ? 11 : i);
        fixture_expect_absent(&fixture, names[i + 3]);
    }
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

Test(store_large, a_start_tells_of_a_missing_file)
{
    struct fixture fixture;
    struct value_file_name file;
    char name[VALUE_FILE_NAME_SIZE];
    char path[400];
    fixture_start(&fixture, 16 * MIB);
    set_large(&fixture, text("k"), 1);
    set_large(&fixture, text("l"), 2);
    (void)newest_version(&fixture, text("k"), &file);
    value_file_name_write(&file, name);
    (void)snprintf(path, sizeof path, "%s%s", fixture.path, name);
    fixture_kill(&fixture);
    cr_assert_eq(unlink(path), 0);
    char said[4 * LOG_LINE_MAX] = "";
    hear(&fixture, said);
    fixture_open(&fixture);
    cr_expect_not_null(strstr(said, ": 1 large values are missing"), "%s", said);
    cr_expect_null(strstr(said, "files that were never finished"), "%s", said);
    expect_large(&fixture, text("l"), 2);
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}

Test(store_large, a_missing_file_is_told)
{
    struct fixture fixture;
    struct receiver receiver;
    fixture_start(&fixture, 16 * MIB);
    set_large(&fixture, text("k"), 1);
    receiver_get(&fixture, text("k"), &receiver);
    char name[VALUE_FILE_NAME_SIZE];
    char path[400];
    value_file_name_write(&receiver.value.file, name);
    (void)snprintf(path, sizeof path, "%s%s", fixture.path, name);
    cr_assert_eq(unlink(path), 0, "the name that a get shows is the file's");
    struct value_reader_events events = {NULL, receiver_ready};
    struct value_reader *reader = NULL;
    uint32_t size = 0;
    cr_assert_eq(store_download_open(fixture.store, &receiver.value, &events, &reader), 0);
    while (value_reader_error(reader) == 0) {
        cr_assert_null(value_reader_piece(reader, &size));
        fixture_pass(&fixture);
    }
    cr_assert_eq(value_reader_error(reader), -ENOENT);
    store_download_close(fixture.store, reader);
    fixture_shut(&fixture);
    fixture_remove(&fixture);
}
