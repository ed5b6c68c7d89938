/* What a manifest should say: a table of segments that the groups change, as the store's own. */
#ifndef TESTS_STORE_CATALOG_MANIFEST_MODEL_H
#define TESTS_STORE_CATALOG_MANIFEST_MODEL_H

#include "base/prng.h"
#include "base/units.h"
#include "store/catalog/manifest.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_SEGMENTS 6000u
#define MODEL_DIRECTORY_ID 0x1234567890ABCDEFu
#define MODEL_SHARD 3u

struct model_table {
    uint64_t ends[MODEL_SEGMENTS]; /* by number; 0: no such segment */
    uint64_t checkpoint;
};

struct model {
    struct log log;
    char said[4096]; /* what was logged */
    struct io *io;
    struct manifest_options options;
    struct manifest *manifest;
    uint64_t edition;         /* before it was opened: 0 when there was none */
    struct model_table now;   /* what was acknowledged */
    struct model_table next;  /* and with the group that is under way, or failed */
    struct model_table shown; /* by the last open */
    uint64_t shown_count;
    uint32_t each_fails_at; /* 0: never */
    uint64_t cursor;
    struct manifest_op op;
    struct manifest_edit edits[MANIFEST_GROUP_MAX];
    uint32_t done_count;
    int result;
};

static inline void model_remember(void *context, const char *line, uint32_t size)
{
    struct model *model = context;
    size_t used = strlen(model->said);
    if (used + size < sizeof model->said)
        memcpy(model->said + used, line, size);
    if (getenv("MINIVAULT_TEST_LOG") != NULL)
        (void)fwrite(line, 1, size, stderr);
}

static inline void model_table_apply(struct model_table *table, const struct manifest_edit *edit)
{
    if (edit->kind == MANIFEST_CHECKPOINT) {
        table->checkpoint = edit->number;
        return;
    }
    cr_assert_lt(edit->number, MODEL_SEGMENTS);
    table->ends[edit->number] = edit->kind == MANIFEST_SEGMENT ? edit->end : 0;
}

static inline struct manifest_edit model_edit(enum manifest_kind kind, uint64_t number,
                                              uint64_t end)
{
    return (struct manifest_edit){
        .kind = kind,
        .partition = (uint8_t)(number * 3),
        .source = (uint8_t)(1 + number % 2),
        .log_id = MODEL_SHARD,
        .number = number,
        .end = end,
        .created = number * 0x100000001u,
    };
}

/* Every field is as it was written. */
static inline int model_each(void *context, const struct manifest_edit *edit)
{
    struct model *model = context;
    struct manifest_edit expected = model_edit(edit->kind, edit->number, edit->end);
    cr_assert_eq(edit->partition, expected.partition);
    cr_assert_eq(edit->source, expected.source);
    cr_assert_eq(edit->log_id, expected.log_id);
    cr_assert_eq(edit->created, expected.created);
    model_table_apply(&model->shown, edit);
    return ++model->shown_count == model->each_fails_at ? -EUCLEAN : 0;
}

static inline bool model_snapshot(void *context, uint64_t index, struct manifest_edit *ret_edit)
{
    struct model *model = context;
    if (index == 0) {
        model->cursor = 0;
        if (model->now.checkpoint != 0) {
            *ret_edit = model_edit(MANIFEST_CHECKPOINT, model->now.checkpoint, 0);
            return true;
        }
    }
    while (model->cursor < MODEL_SEGMENTS && model->now.ends[model->cursor] == 0)
        model->cursor++;
    if (model->cursor == MODEL_SEGMENTS)
        return false;
    *ret_edit = model_edit(MANIFEST_SEGMENT, model->cursor, model->now.ends[model->cursor]);
    model->cursor++;
    return true;
}

static inline struct model *model_create(const char *path)
{
    struct model *model = calloc(1, sizeof *model);
    cr_assert_not_null(model);
    model->log = (struct log){.level_min = LOG_INFO, .write = model_remember, .context = model};
    model->options = (struct manifest_options){
        .path = path,
        .directory_id = MODEL_DIRECTORY_ID,
        .shard = MODEL_SHARD,
        .snapshot = model_snapshot,
        .context = model,
    };
    return model;
}

static inline int model_open(struct model *model, struct io *io)
{
    model->io = io;
    model->options.memory = io_region(io);
    memset(&model->shown, 0, sizeof model->shown);
    memset(model->said, 0, sizeof model->said);
    model->shown_count = 0;
    model->manifest = NULL;
    int result =
        manifest_open(io, &model->log, &model->options, model_each, model, &model->manifest);
    if (result == 0)
        model->edition =
            manifest_is_new(model->manifest) ? 0 : manifest_tell(model->manifest).edition;
    return result;
}

/* How often it was written anew since it was opened, the first file's writing among them. */
static inline uint64_t model_rewrites(const struct model *model)
{
    return manifest_tell(model->manifest).edition - model->edition;
}

/* Bytes of the file with groups in them. */
static inline uint64_t model_used(const struct model *model)
{
    return manifest_tell(model->manifest).blocks * MANIFEST_BLOCK_SIZE;
}

static inline bool model_table_equal(const struct model_table *a, const struct model_table *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static inline void model_done(struct manifest_op *op, int result)
{
    struct model *model = container_of(op, struct model, op);
    model->done_count++;
    model->result = result;
    if (result == 0)
        model->now = model->next;
}

/* Chooses a group, as far as possible one that changes the table wherever it is cut. */
static inline void model_choose(struct model *model, struct prng *prng, uint32_t count)
{
    model->next = model->now;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t number = 1 + prng_below(prng, MODEL_SEGMENTS - 1);
        uint64_t dice = prng_below(prng, 16);
        enum manifest_kind kind = dice == 0  ? MANIFEST_CHECKPOINT
                                  : dice < 8 ? MANIFEST_REMOVE
                                             : MANIFEST_SEGMENT;
        model->edits[i] = model_edit(kind, number, prng_next(prng) | 1);
        model_table_apply(&model->next, &model->edits[i]);
    }
}

/* Appends a group of the model's choice. */
static inline void model_append(struct model *model, struct prng *prng, uint32_t count)
{
    model_choose(model, prng, count);
    model->op.done = model_done;
    uint32_t before = model->done_count;
    manifest_append(model->manifest, &model->op, model->edits, count);
    /* They were copied. */
    memset(model->edits, 0xEE, count * sizeof *model->edits);
    cr_assert_eq(model->done_count, before, "done comes from the loop");
}

/* Runs the world until the manifest has nothing more to do. Returns false when the world ended. */
static inline bool model_settle(struct model *model)
{
    int result = 0;
    for (uint32_t i = 0; i < 100000 && result >= 0 && manifest_is_busy(model->manifest); i++)
        result = io_run(model->io, 100 * NS_PER_MS);
    cr_assert(result < 0 || !manifest_is_busy(model->manifest), "never");
    return result >= 0;
}

static inline int model_append_wait(struct model *model, struct prng *prng, uint32_t count)
{
    uint32_t before = model->done_count;
    model_append(model, prng, count);
    while (model->done_count == before)
        if (io_run(model->io, 100 * NS_PER_MS) < 0)
            return -ESHUTDOWN;
    return model->result;
}

static inline void model_shut(struct model *model)
{
    int result = manifest_shut(model->manifest);
    cr_assert_eq(result, 0, "shut: %s", strerror(-result));
    manifest_free(model->manifest);
    model->manifest = NULL;
}

#endif
