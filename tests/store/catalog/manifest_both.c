/* The manifest: what was appended is shown, what was cut short is not, what is damaged is said. */
#include "manifest_model.h"
#include "tests/support/support.h"

#include "base/bytes.h"
#include "base/checksum.h"

#include <stdio.h>

#define NAME "manifest-3"
#define BLOCK MANIFEST_BLOCK_SIZE

struct fixture {
    struct world *world;
    struct model *model;
    struct prng prng;
};

static struct fixture fixture_open(void)
{
    struct fixture fixture = {.world = world_open(NULL), .prng = {7}};
    fixture.model = model_create(world_path(fixture.world, ""));
    return fixture;
}

static int reopen(struct fixture *fixture)
{
    return model_open(fixture->model, world_io(fixture->world));
}

/* Opens what must be sound and show what was acknowledged. */
static void reopen_well(struct fixture *fixture)
{
    int result = reopen(fixture);
    cr_assert_eq(result, 0, "%s: %s", strerror(-result), fixture->model->said);
    cr_assert(model_table_equal(&fixture->model->shown, &fixture->model->now));
    cr_assert(!manifest_has_loss(fixture->model->manifest));
}

static void append(struct fixture *fixture, uint32_t count)
{
    int result = model_append_wait(fixture->model, &fixture->prng, count);
    cr_assert_eq(result, 0, "%s", strerror(-result));
}

static void fixture_close(struct fixture *fixture)
{
    if (fixture->model->manifest != NULL)
        model_shut(fixture->model);
    world_close(fixture->world);
    free(fixture->model);
}

static bool said(const struct fixture *fixture, const char *text)
{
    return strstr(fixture->model->said, text) != NULL;
}

/* ---- behind the program's back ---- */

static void block_read(struct fixture *fixture, uint32_t index, uint8_t *block)
{
    int file = open_file(fixture->world, NAME, IO_OPEN_READ);
    cr_assert_geq(file, 0);
    cr_assert_eq(read_file(fixture->world, file, block, BLOCK, (uint64_t)index * BLOCK),
                 (int32_t)BLOCK);
    (void)close_file(fixture->world, file);
}

static void block_write(struct fixture *fixture, uint32_t index, const uint8_t *block)
{
    int file = open_file(fixture->world, NAME, IO_OPEN_WRITE);
    cr_assert_geq(file, 0);
    cr_assert_eq(
        write_file(fixture->world, file, block, BLOCK, (uint64_t)index * BLOCK, IO_WRITE_DSYNC),
        (int32_t)BLOCK);
    (void)close_file(fixture->world, file);
}

static void flip(struct fixture *fixture, uint32_t index, uint32_t at)
{
    uint8_t block[BLOCK];
    block_read(fixture, index, block);
    block[at] ^= 0x10;
    block_write(fixture, index, block);
}

static uint32_t used_blocks(const struct fixture *fixture)
{
    return (uint32_t)(model_used(fixture->model) / BLOCK);
}

/* Writes block `index` of the file as a writer of the file would have. */
static void forge(struct fixture *fixture, uint32_t index, uint16_t flags, uint64_t number)
{
    uint8_t bytes[BLOCK];
    struct manifest_block block;
    block_read(fixture, 0, bytes);
    cr_assert_geq(manifest_block_decode(bytes, &block), 0);
    block.flags = flags;
    block.sequence = index + 1;
    block.count = 1;
    block.edits[0] = model_edit(MANIFEST_SEGMENT, number, 77);
    manifest_block_encode(&block, bytes);
    block_write(fixture, index, bytes);
}

static bool exists(struct fixture *fixture, const char *name)
{
    int file = open_file(fixture->world, name, IO_OPEN_READ);
    if (file >= 0)
        (void)close_file(fixture->world, file);
    return file >= 0;
}

static void create(struct fixture *fixture, const char *name)
{
    int file = open_file(fixture->world, name, IO_OPEN_WRITE | IO_OPEN_CREATE);
    cr_assert_geq(file, 0);
    (void)close_file(fixture->world, file);
}

/* ---- what is appended is shown ---- */

Test(manifest, a_new_one_is_empty_and_says_that_it_is_new)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    cr_assert(manifest_is_new(fixture.model->manifest));
    cr_assert(!manifest_is_busy(fixture.model->manifest));
    cr_assert_eq(fixture.model->shown_count, 0);
    cr_assert_str_empty(fixture.model->said);
    model_shut(fixture.model);
    reopen_well(&fixture);
    cr_assert(!manifest_is_new(fixture.model->manifest));
    cr_assert_eq(fixture.model->shown_count, 0);
    fixture_close(&fixture);
}

Test(manifest, groups_of_every_size_are_shown_again)
{
    static const uint32_t counts[] = {1, 0, 125, 126, 127, 252, 253, 4095, 4096, 3};
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        append(&fixture, counts[i]);
        model_shut(fixture.model);
        reopen_well(&fixture);
        cr_assert_str_empty(fixture.model->said, "a clean end leaves nothing to drop");
    }
    fixture_close(&fixture);
}

static int each_in_order(void *context, const struct manifest_edit *edit)
{
    uint64_t *count = context;
    cr_assert_eq(edit->number, 1 + *count % 500);
    cr_assert_eq(edit->end, ++*count);
    return 0;
}

Test(manifest, edits_are_shown_in_the_order_in_which_they_came)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    struct model *model = fixture.model;
    struct manifest_edit edits[300];
    model->op.done = model_done;
    for (uint64_t count = 0; count < 3000;) {
        for (uint32_t i = 0; i < 300; i++, count++)
            edits[i] = model_edit(MANIFEST_SEGMENT, 1 + count % 500, count + 1);
        manifest_append(model->manifest, &model->op, edits, 300);
        cr_assert(model_settle(model));
        cr_assert_eq(model->result, 0);
    }
    model_shut(model);
    uint64_t count = 0;
    cr_assert_eq(manifest_open(model->io, &model->log, &model->options, each_in_order, &count,
                               &model->manifest),
                 0);
    cr_assert_eq(count, 3000);
    fixture_close(&fixture);
}

static void append_next(struct manifest_op *op, int result)
{
    struct model *model = container_of(op, struct model, op);
    model_done(op, result);
    cr_assert(!manifest_is_busy(model->manifest));
    if (model->done_count == 400)
        return;
    uint64_t number = 1 + model->done_count % 7;
    struct manifest_edit edit = model_edit(MANIFEST_SEGMENT, number, model->done_count);
    model_table_apply(&model->next, &edit);
    manifest_append(model->manifest, op, &edit, 1);
}

Test(manifest, done_may_append_the_next_group)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    struct model *model = fixture.model;
    model->op.done = append_next;
    manifest_append(model->manifest, &model->op, NULL, 0);
    cr_assert(manifest_is_busy(model->manifest));
    RUN_UNTIL(fixture.world, model->done_count == 400);
    cr_assert_eq(model->result, 0);
    cr_assert_eq(model_rewrites(model), 2, "the first file, and one when it had grown");
    model_shut(model);
    reopen_well(&fixture);
    fixture_close(&fixture);
}

Test(manifest, shutting_waits_for_the_group_under_way)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    model_append(fixture.model, &fixture.prng, 1000);
    model_shut(fixture.model);
    cr_assert_eq(fixture.model->done_count, 1);
    cr_assert_eq(fixture.model->result, 0);
    reopen_well(&fixture);
    fixture_close(&fixture);
}

Test(manifest, each_shard_has_its_own)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    append(&fixture, 10);
    model_shut(fixture.model);
    fixture.model->options.shard = MODEL_SHARD + 1;
    cr_assert_eq(reopen(&fixture), 0);
    cr_assert(manifest_is_new(fixture.model->manifest));
    model_shut(fixture.model);
    fixture.model->options.shard = MODEL_SHARD;
    reopen_well(&fixture);
    fixture_close(&fixture);
}

Test(manifest, what_each_returns_ends_the_opening)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    append(&fixture, 300);
    model_shut(fixture.model);
    fixture.model->each_fails_at = 200;
    cr_assert_eq(reopen(&fixture), -EUCLEAN);
    cr_assert_eq(fixture.model->shown_count, 200);
    cr_assert_str_empty(fixture.model->said);
    fixture.model->each_fails_at = 0;
    reopen_well(&fixture);
    fixture_close(&fixture);
}

/* ---- a new file ---- */

Test(manifest, a_grown_one_is_written_anew_and_a_group_waits_for_that)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    struct model *model = fixture.model;
    uint32_t waited = 0;
    for (uint32_t i = 0; i < 60; i++) {
        append(&fixture, 1 + (uint32_t)prng_below(&fixture.prng, MANIFEST_GROUP_MAX));
        /* Nothing waits now: a rewrite that has begun goes on beside the next group. */
        waited += manifest_is_busy(model->manifest);
        int file = open_file(fixture.world, NAME, IO_OPEN_READ);
        uint64_t size = (uint64_t)io_file_size(world_io(fixture.world), file);
        (void)close_file(fixture.world, file);
        cr_assert_leq(model_used(model), size);
        cr_assert_leq(size, MANIFEST_SIZE_MAX + MANIFEST_RESERVE);
    }
    cr_assert_geq(model_rewrites(model), 3);
    cr_assert_geq(waited, 2);
    cr_assert(model_settle(model));
    cr_assert(!exists(&fixture, NAME ".new"));
    model_shut(model);
    reopen_well(&fixture);
    fixture_close(&fixture);
}

Test(manifest, a_leftover_of_a_rewrite_is_removed)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    append(&fixture, 10);
    model_shut(fixture.model);
    create(&fixture, NAME ".new");
    reopen_well(&fixture);
    cr_assert(!exists(&fixture, NAME ".new"));
    /* And so is one that is there when it is needed. */
    create(&fixture, NAME ".new");
    for (uint32_t i = 0; i < 9; i++)
        append(&fixture, MANIFEST_GROUP_MAX);
    cr_assert(model_settle(fixture.model));
    cr_assert_eq(model_rewrites(fixture.model), 1);
    cr_assert(!exists(&fixture, NAME ".new"));
    model_shut(fixture.model);
    reopen_well(&fixture);
    fixture_close(&fixture);
}

/* ---- a torn tail ---- */

/* Blocks of a group that was cut short, from the place where the next one begins. */
static void check_torn(const uint16_t *flags, uint32_t count)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    append(&fixture, 200);
    model_shut(fixture.model);
    reopen_well(&fixture);
    uint32_t end = used_blocks(&fixture);
    model_shut(fixture.model);
    for (uint32_t i = 0; i < count; i++)
        if (flags[i] != UINT16_MAX)
            forge(&fixture, end + i, flags[i], 100 + i);
    reopen_well(&fixture);
    cr_assert(said(&fixture, "cut short"));
    cr_assert_eq(used_blocks(&fixture), end);
    uint8_t block[BLOCK];
    static const uint8_t zeros[BLOCK];
    for (uint32_t i = 0; i < count; i++) {
        block_read(&fixture, end + i, block);
        cr_assert_arr_eq(block, zeros, BLOCK, "it cannot become whole later");
    }
    append(&fixture, 1); /* takes the place of the first block only */
    model_shut(fixture.model);
    reopen_well(&fixture);
    cr_assert_str_empty(fixture.model->said);
    fixture_close(&fixture);
}

Test(manifest, a_group_that_was_cut_short_never_returns)
{
    check_torn((uint16_t[]){MANIFEST_GROUP_FIRST}, 1);
    check_torn((uint16_t[]){MANIFEST_GROUP_FIRST, 0}, 2);
    check_torn((uint16_t[]){MANIFEST_GROUP_FIRST, UINT16_MAX, MANIFEST_GROUP_LAST}, 3);
    check_torn((uint16_t[]){UINT16_MAX, 0, MANIFEST_GROUP_LAST}, 3);
    check_torn((uint16_t[]){UINT16_MAX, MANIFEST_GROUP_LAST}, 2);
    check_torn((uint16_t[]){0, MANIFEST_GROUP_LAST}, 2);
    check_torn((uint16_t[]){MANIFEST_GROUP_LAST}, 1);
}

Test(manifest, garbage_behind_the_last_group_is_a_torn_tail)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    append(&fixture, 200);
    uint32_t end = used_blocks(&fixture);
    model_shut(fixture.model);
    uint8_t block[BLOCK];
    memset(block, 0x5A, sizeof block);
    block_write(&fixture, end, block); /* over the seal */
    block_write(&fixture, end + 200, block);
    reopen_well(&fixture);
    append(&fixture, 2);
    model_shut(fixture.model);
    reopen_well(&fixture);
    fixture_close(&fixture);
}

Test(manifest, a_block_of_another_file_does_not_count)
{
    struct fixture fixture = fixture_open();
    reopen_well(&fixture);
    append(&fixture, 200);
    model_shut(fixture.model);
    reopen_well(&fixture);
    uint32_t end = used_blocks(&fixture);
    model_shut(fixture.model);
    uint8_t bytes[BLOCK];
    struct manifest_block block;
    block_read(&fixture, 0, bytes);
    cr_assert_geq(manifest_block_decode(bytes, &block), 0);
    block.count = 1;
    block.edits[0] = model_edit(MANIFEST_SEGMENT, 9, 9);
    struct manifest_block changed[3] = {block, block, block};
    changed[0].sequence = end + 1;
    changed[0].salt++;
    changed[1].sequence = end + 1;
    changed[1].directory_id++;
    changed[2].sequence = end + 2; /* misdirected by a block */
    for (uint32_t i = 0; i < 3; i++) {
        manifest_block_encode(&changed[i], bytes);
        block_write(&fixture, end, bytes);
        reopen_well(&fixture);
        model_shut(fixture.model);
    }
    fixture_close(&fixture);
}

/* ---- damage ---- */

/* Three groups of 1, 3 and 2 blocks behind the first block, sealed. *ret_table is what the first
 * of them says. */
static void write_groups(struct fixture *fixture, struct model_table *ret_table)
{
    reopen_well(fixture);
    append(fixture, 50);
    *ret_table = fixture->model->now;
    append(fixture, 300);
    append(fixture, 200);
    cr_assert_eq(used_blocks(fixture), 7);
    model_shut(fixture->model);
}

static void check_refused(struct fixture *fixture, const char *offset)
{
    cr_assert_eq(reopen(fixture), -EBADMSG);
    cr_assert(said(fixture, NAME), "%s", fixture->model->said);
    cr_assert(said(fixture, offset), "%s", fixture->model->said);
    cr_assert(said(fixture, "-accept-loss"));
    cr_assert(said(fixture, "backup"));
    cr_assert_eq(fixture->model->shown_count, 0, "nothing is shown of what is damaged");
}

Test(manifest, damage_in_any_block_that_counts_is_refused)
{
    static const char *offsets[] = {
        "offset 0:",     "offset 4096:",  "offset 8192:", "offset 12288:",
        "offset 16384:", "offset 20480:", "offset 24576:"};
    struct fixture fixture = fixture_open();
    struct model_table table;
    write_groups(&fixture, &table);
    for (uint32_t block = 0; block < 7; block++) {
        flip(&fixture, block, 40 + 500 * block);
        check_refused(&fixture, offsets[block]);
        check_refused(&fixture, offsets[block]);
        flip(&fixture, block, 40 + 500 * block);
        reopen_well(&fixture);
        model_shut(fixture.model);
    }
    fixture_close(&fixture);
}

Test(manifest, an_accepted_loss_shows_what_stands_before_and_is_settled_by_an_append)
{
    struct fixture fixture = fixture_open();
    struct model *model = fixture.model;
    struct model_table table;
    write_groups(&fixture, &table);
    flip(&fixture, 3, 1000);
    model->options.accept_loss = true;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(reopen(&fixture), 0);
        cr_assert(manifest_has_loss(model->manifest));
        cr_assert(!manifest_is_new(model->manifest));
        cr_assert(model_table_equal(&model->shown, &table));
        cr_assert(said(&fixture, "offset 12288"), "%s", model->said);
        model_shut(model);
    }
    model->options.accept_loss = false;
    check_refused(&fixture, "offset 12288"); /* nothing has changed */
    model->options.accept_loss = true;
    cr_assert_eq(reopen(&fixture), 0);
    model->now = model->shown;
    append(&fixture, 0);
    cr_assert(!manifest_has_loss(model->manifest));
    append(&fixture, 100);
    model_shut(model);
    model->options.accept_loss = false;
    reopen_well(&fixture);
    fixture_close(&fixture);
}

Test(manifest, accept_loss_changes_nothing_where_nothing_is_lost)
{
    struct fixture fixture = fixture_open();
    struct model_table table;
    write_groups(&fixture, &table);
    fixture.model->options.accept_loss = true;
    reopen_well(&fixture);
    append(&fixture, 5);
    model_shut(fixture.model);
    reopen_well(&fixture);
    fixture_close(&fixture);
}

Test(manifest, a_file_without_its_first_group_is_damaged)
{
    struct fixture fixture = fixture_open();
    create(&fixture, NAME);
    check_refused(&fixture, "offset 0:");
    fixture.model->options.accept_loss = true;
    cr_assert_eq(reopen(&fixture), 0);
    cr_assert(manifest_has_loss(fixture.model->manifest));
    append(&fixture, 10);
    model_shut(fixture.model);
    fixture.model->options.accept_loss = false;
    reopen_well(&fixture);
    model_shut(fixture.model);
    uint8_t zeros[BLOCK] = {0};
    block_write(&fixture, 0, zeros);
    check_refused(&fixture, "offset 0:");
    fixture_close(&fixture);
}

Test(manifest, that_of_another_directory_is_refused)
{
    struct fixture fixture = fixture_open();
    struct model_table table;
    write_groups(&fixture, &table);
    fixture.model->options.directory_id ^= 1;
    fixture.model->options.accept_loss = true;
    cr_assert_eq(reopen(&fixture), -EXDEV);
    cr_assert(said(&fixture, "1234567890abcdef"), "%s", fixture.model->said);
    fixture.model->options.directory_id ^= 1;
    reopen_well(&fixture);
    fixture_close(&fixture);
}

Test(manifest, what_a_later_release_wrote_is_refused)
{
    struct fixture fixture = fixture_open();
    struct model_table table;
    write_groups(&fixture, &table);
    fixture.model->options.accept_loss = true;
    for (uint32_t index = 0; index < 9; index++) { /* also where the seal is, and behind it */
        uint8_t kept[BLOCK];
        uint8_t block[BLOCK];
        block_read(&fixture, index, kept);
        block_read(&fixture, 0, block);
        block[12] = 2;
        store_u32(block + 8, crc32c(block + 12, BLOCK - 12));
        block_write(&fixture, index, block);
        cr_assert_eq(reopen(&fixture), -EPROTONOSUPPORT);
        cr_assert(said(&fixture, "release"));
        block_write(&fixture, index, kept);
        reopen_well(&fixture);
        model_shut(fixture.model);
    }
    fixture_close(&fixture);
}
