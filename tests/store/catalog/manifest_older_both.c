/* A manifest that is older than what the superblock and the log know of it, another one, or none.
 */
#include "manifest_model.h"
#include "tests/support/support.h"

#define NAME "manifest-3"

struct fixture {
    struct world *world;
    struct model *model;
    struct prng prng;
};

/* With a manifest of a few groups, shut. Returns how far it has come. */
static struct manifest_mark fixture_write(struct fixture *fixture)
{
    *fixture = (struct fixture){.world = world_open(NULL), .prng = {7}};
    fixture->model = model_create(world_path(fixture->world, ""));
    struct model *model = fixture->model;
    cr_assert_eq(model_open(model, world_io(fixture->world)), 0);
    for (uint32_t i = 0; i < 5; i++)
        cr_assert_eq(model_append_wait(model, &fixture->prng, 10), 0);
    struct manifest_mark mark = manifest_tell(model->manifest);
    model_shut(model);
    cr_assert_neq(mark.salt, 0);
    cr_assert_eq(mark.edition, 1);
    cr_assert_eq(mark.blocks, 6);
    return mark;
}

static int reopen(struct fixture *fixture)
{
    int result = model_open(fixture->model, world_io(fixture->world));
    if (result == 0)
        model_shut(fixture->model);
    return result;
}

static void fixture_close(struct fixture *fixture)
{
    world_close(fixture->world);
    free(fixture->model);
}

Test(manifest_older, the_one_that_is_known_is_taken)
{
    struct fixture fixture;
    struct manifest_mark mark = fixture_write(&fixture);
    struct manifest_options *options = &fixture.model->options;
    options->known.closed = mark;
    options->known.seen = mark;
    options->known.is_closed = true;
    cr_assert_eq(reopen(&fixture), 0, "%s", fixture.model->said);
    options->known.is_closed = false;
    options->known.closed.blocks--;
    cr_assert_eq(reopen(&fixture), 0, "groups may have been added");
    fixture_close(&fixture);
}

Test(manifest_older, one_with_fewer_groups_or_of_an_older_edition_is_refused)
{
    struct fixture fixture;
    struct manifest_mark mark = fixture_write(&fixture);
    const struct manifest_mark none = {0};
    struct manifest_mark later[] = {mark, mark};
    later[0].blocks += 2;
    later[1].edition++;
    later[1].blocks = 1;
    for (uint32_t i = 0; i < 4; i++) {
        struct manifest_options *options = &fixture.model->options;
        options->known.closed = i < 2 ? later[i] : none;
        options->known.seen = i < 2 ? none : later[i - 2];
        cr_assert_eq(reopen(&fixture), -EBADMSG, "case %u", i);
        cr_assert(strstr(fixture.model->said, NAME) != NULL, "%s", fixture.model->said);
        options->accept_loss = true;
        cr_assert_eq(model_open(fixture.model, world_io(fixture.world)), 0);
        cr_assert(manifest_has_loss(fixture.model->manifest));
        model_shut(fixture.model);
        options->accept_loss = false;
    }
    fixture_close(&fixture);
}

Test(manifest_older, after_a_clean_shutdown_only_that_very_one_is_taken)
{
    struct fixture fixture;
    struct manifest_mark mark = fixture_write(&fixture);
    struct manifest_options *options = &fixture.model->options;
    options->known.closed = mark;
    options->known.is_closed = true;
    options->known.closed.salt++;
    cr_assert_eq(reopen(&fixture), -EBADMSG);
    options->known.closed.salt--;
    options->known.closed.blocks -= 2;
    cr_assert_eq(reopen(&fixture), -EBADMSG);
    options->known.is_closed = false;
    options->known.closed.salt++;
    cr_assert_eq(reopen(&fixture), 0, "it may have been written anew");
    fixture_close(&fixture);
}

Test(manifest_older, none_where_there_was_one_is_refused_until_the_loss_is_accepted)
{
    struct fixture fixture;
    struct manifest_mark mark = fixture_write(&fixture);
    struct model *model = fixture.model;
    model->options.known.seen =
        (struct manifest_mark){.edition = mark.edition, .blocks = mark.blocks};
    struct io_op op = {0};
    io_unlink(world_io(fixture.world), &op, world_path(fixture.world, NAME));
    cr_assert_eq(io_wait(world_io(fixture.world), &op), 0);
    for (uint32_t i = 0; i < 2; i++)
        cr_assert_eq(reopen(&fixture), -EBADMSG, "nothing is made in its place");
    model->options.accept_loss = true;
    cr_assert_eq(model_open(model, world_io(fixture.world)), 0);
    cr_assert(manifest_is_new(model->manifest) && manifest_has_loss(model->manifest));
    model_shut(model);
    model->options.accept_loss = false;
    cr_assert_eq(reopen(&fixture), -EBADMSG, "as long as nothing was appended");
    model->options.accept_loss = true;
    cr_assert_eq(model_open(model, world_io(fixture.world)), 0);
    model->now = model->shown;
    cr_assert_eq(model_append_wait(model, &fixture.prng, 3), 0);
    cr_assert_eq(manifest_tell(model->manifest).edition, 2);
    model_shut(model);
    model->options.accept_loss = false;
    cr_assert_eq(reopen(&fixture), 0, "%s", model->said);
    fixture_close(&fixture);
}
