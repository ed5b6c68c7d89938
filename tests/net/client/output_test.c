/* A connection's queue of replies, without a connection: order, gates, streams and lent room. */
#include "net/client/output.h"
#include "tests/support/store_fixture.h"

#define PIECE 1000u

/* A stream whose pieces come when the test lets them. */
struct source {
    struct output_stream stream;
    uint8_t bytes[10 * PIECE];
    uint32_t available; /* pieces that may be shown */
    uint32_t shown, released;
    bool ended;
};

static struct source *of_stream(struct output_stream *stream)
{
    return container_of(stream, struct source, stream);
}

static const uint8_t *source_next(struct output_stream *stream, uint32_t *ret_size)
{
    struct source *source = of_stream(stream);
    cr_assert_eq(source->shown, source->released, "one piece at a time");
    if (source->available == 0)
        return NULL;
    source->available--;
    *ret_size = (uint32_t)min_u64(PIECE, stream->left);
    return source->bytes + PIECE * source->shown++;
}

static void source_release(struct output_stream *stream)
{
    of_stream(stream)->released++;
}

static void source_ended(struct output_stream *stream)
{
    cr_assert_eq(stream->left, 0);
    of_stream(stream)->ended = true;
}

static void source_init(struct source *source, uint64_t size)
{
    memset(source, 0, sizeof *source);
    source->stream = (struct output_stream){size, source_next, source_release, source_ended};
    for (uint32_t i = 0; i < sizeof source->bytes; i++)
        source->bytes[i] = (uint8_t)(i * 7 + i / PIECE);
}

struct world {
    struct fixture fixture;
    struct output_shared shared;
    struct metrics metrics;
    struct output output;
    struct source source;
    uint8_t sent[20 * PIECE];
    size_t sent_size;
};

static void world_init(struct world *world, uint64_t stream_size)
{
    memset(world, 0, sizeof *world);
    fixture_start(&world->fixture, MIB);
    world->shared.store = world->fixture.store;
    world->shared.memory_bytes_max = 64 * MIB;
    world->shared.books.metrics = &world->metrics;
    cr_assert_eq(pool_init(&world->shared.blocks, OUTPUT_BLOCK_SIZE, 64), 0);
    output_init(&world->output, &world->shared);
    source_init(&world->source, stream_size);
}

static void world_deinit(struct world *world)
{
    cr_assert_eq(world->shared.blocks.count_used, 0, "every block came back");
    cr_assert_eq(world->output.bytes, 0, "and every byte was counted off");
    pool_deinit(&world->shared.blocks);
    fixture_shut(&world->fixture);
    fixture_remove(&world->fixture);
}

/* One send: takes what is gathered. Returns how many bytes. */
static size_t send_once(struct world *world)
{
    uint32_t count = output_gather(&world->output);
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct iovec *slice = &world->output.send.slices[i];
        memcpy(world->sent + world->sent_size + size, slice->iov_base, slice->iov_len);
        size += slice->iov_len;
    }
    world->sent_size += size;
    if (count > 0)
        output_sent(&world->output);
    return size;
}

static void answer(struct world *world, const char *value)
{
    struct shard_answer shard_answer = {.data = (const uint8_t *)value,
                                        .size = (uint32_t)strlen(value)};
    cr_assert_eq(output_answer(&world->output, reply_form_binary(false), &shard_answer), 0);
}

static struct output_block *reserve_and_stream(struct world *world, uint64_t gate)
{
    struct output_block *block = output_reserve(&world->output, NULL, reply_form_binary(false));
    cr_assert_not_null(block);
    output_fill_stream(&world->output, block, gate, &world->source.stream);
    return block;
}

Test(output, a_stream_goes_piece_by_piece_between_its_neighbours)
{
    struct world world;
    world_init(&world, 2 * PIECE + 10);
    answer(&world, "before");
    (void)reserve_and_stream(&world, 0);
    answer(&world, "behind");
    cr_assert_eq(send_once(&world), 5 + 6, "no header before the first piece");
    cr_assert_eq(send_once(&world), 0);
    world.source.available = 1;
    cr_assert_eq(send_once(&world), 5 + PIECE);
    cr_assert_eq(world.source.released, 1);
    cr_assert_eq(send_once(&world), 0, "what is behind waits");
    world.source.available = 2;
    cr_assert_eq(send_once(&world), PIECE);
    cr_assert(!world.source.ended);
    cr_assert_eq(send_once(&world), 10 + 5 + 6, "the last piece takes the next reply along");
    cr_assert(world.source.ended);
    cr_assert_eq(world.source.released, 3);
    cr_assert(output_is_empty(&world.output));
    static const uint8_t header[] = {0, 0xDA, 0x07, 0, 0};
    cr_assert_eq(memcmp(world.sent + 11, header, 5), 0);
    cr_assert_eq(memcmp(world.sent + 16, world.source.bytes, 2 * PIECE + 10), 0);
    cr_assert_eq(memcmp(world.sent + 16 + 2 * PIECE + 10 + 5, "behind", 6), 0);
    world_deinit(&world);
}

Test(output, a_stream_waits_for_its_gate)
{
    struct world world;
    world_init(&world, PIECE);
    uint64_t gate = fixture_set(&world.fixture, text("k"), text("v"));
    (void)reserve_and_stream(&world, gate);
    world.source.available = 1;
    cr_assert_eq(send_once(&world), 0);
    cr_assert_eq(world.source.shown, 0, "no piece is taken before it may leave");
    cr_assert_eq(output_gate(&world.output), gate);
    fixture_settle(&world.fixture, gate);
    cr_assert_eq(send_once(&world), 5 + PIECE);
    cr_assert(world.source.ended);
    world_deinit(&world);
}

Test(output, a_stream_that_is_given_up_leaves_nothing)
{
    struct world world;
    world_init(&world, 2 * PIECE);
    struct output_block *block = reserve_and_stream(&world, 0);
    answer(&world, "behind");
    world.source.available = 1;
    cr_assert_eq(send_once(&world), 5 + PIECE);
    block->stream = NULL; /* as its owner does */
    block->external = NULL;
    cr_assert(output_drop(&world.output));
    cr_assert(!world.source.ended);
    world_deinit(&world);
}

Test(output, a_reply_is_not_appended_to_a_streams_block)
{
    struct world world;
    world_init(&world, PIECE);
    (void)reserve_and_stream(&world, 0);
    answer(&world, "one");
    answer(&world, "two");
    cr_assert_eq(world.output.block_count, 2, "the stream's own, and one for both");
    world.source.available = 1;
    cr_assert_eq(send_once(&world), 5 + PIECE + 2 * (5 + 3));
    world_deinit(&world);
}

/* ---- places of their own ---- */

static struct output_block *reserve(struct world *world, bool typed)
{
    struct output_block *block = output_reserve(&world->output, NULL, reply_form_binary(typed));
    cr_assert_not_null(block);
    return block;
}

static void fill(struct world *world, struct output_block *block, const char *value)
{
    struct shard_answer shard_answer = {.data = (const uint8_t *)value,
                                        .size = (uint32_t)strlen(value)};
    output_fill(&world->output, block, &shard_answer);
}

Test(output, small_replies_of_their_own_places_leave_as_one)
{
    struct world world;
    world_init(&world, 0);
    struct output_block *blocks[12];
    for (int i = 0; i < 12; i++)
        blocks[i] = reserve(&world, false);
    for (int i = 11; i > 0; i--)
        fill(&world, blocks[i], i % 2 == 0 ? "even" : "odd");
    cr_assert_eq(send_once(&world), 0, "the first is not known");
    fill(&world, blocks[0], "even");
    cr_assert_eq(send_once(&world), 6 * (5 + 4) + 6 * (5 + 3), "more than there are slices");
    cr_assert_eq(memcmp(world.sent + 5, "even", 4), 0);
    cr_assert_eq(memcmp(world.sent + 9 + 5, "odd", 3), 0);
    cr_assert(output_is_empty(&world.output));
    world_deinit(&world);
}

Test(output, what_is_not_known_yet_stays_behind_what_leaves)
{
    struct world world;
    world_init(&world, 0);
    struct output_block *one = reserve(&world, false);
    struct output_block *two = reserve(&world, false);
    struct output_block *three = reserve(&world, false);
    fill(&world, three, "three");
    fill(&world, one, "one");
    cr_assert_eq(send_once(&world), 5 + 3);
    fill(&world, two, "two");
    cr_assert_eq(send_once(&world), 5 + 3 + 5 + 5);
    world_deinit(&world);
}

Test(output, an_answer_in_the_lent_room_is_not_copied)
{
    struct world world;
    world_init(&world, 0);
    struct output_block *block = reserve(&world, false);
    output_lend(block);
    struct shard_waiter *waiter = &block->waiter;
    cr_assert_eq(waiter->lent + waiter->lent_size, block->bytes + sizeof block->bytes);
    memset(waiter->lent, 'r', waiter->lent_size);
    struct shard_answer shard_answer = {
        .data = waiter->lent, .size = waiter->lent_size, .is_in_lent = true};
    output_fill(&world.output, block, &shard_answer);
    cr_assert_eq(block->external_size, 0, "larger than what is copied, and there already");
    cr_assert_eq(send_once(&world), 5 + shard_answer.size);
    cr_assert_eq(world.sent[5], 'r');
    cr_assert_eq(world.sent[4 + shard_answer.size], 'r');
    world_deinit(&world);
}

Test(output, memory_that_comes_with_an_answer_goes_with_its_reply)
{
    static const uint32_t sizes[] = {100, REPLY_INLINE_MAX + 1};
    struct world world;
    world_init(&world, 0);
    for (int i = 0; i < 2; i++) {
        struct output_block *block = reserve(&world, false);
        uint8_t *memory = malloc(sizes[i]);
        memset(memory, 'm', sizes[i]);
        struct shard_answer shard_answer = {.data = memory, .size = sizes[i], .memory = memory};
        output_fill(&world.output, block, &shard_answer);
        cr_assert_eq(world.shared.memory_bytes, i == 0 ? 0 : sizes[i], "a small one was copied");
        cr_assert_eq(send_once(&world), 5 + sizes[i]);
        cr_assert_eq(world.shared.memory_bytes, 0);
    }
    struct output_block *block = reserve(&world, false);
    struct shard_answer refusal = {.status = MINIVAULT_NOT_FOUND, .memory = malloc(10)};
    output_fill(&world.output, block, &refusal);
    cr_assert_eq(send_once(&world), 5, "and one that says nothing of it frees it all the same");
    world_deinit(&world);
}

Test(output, a_reserved_place_keeps_the_form_of_its_request)
{
    struct world world;
    world_init(&world, 0);
    struct output_block *plain = reserve(&world, false);
    struct output_block *typed = reserve(&world, true);
    struct shard_answer refusal = {.status = MINIVAULT_NOT_FOUND};
    output_fill(&world.output, typed, &refusal);
    output_fill(&world.output, plain, &refusal);
    static const uint8_t expected[] = {0xFF, 0, 0, 0, 0, 0x01, 9, 0, 0, 0};
    cr_assert_eq(send_once(&world), sizeof expected + strlen("not found"));
    cr_assert_eq(memcmp(world.sent, expected, sizeof expected), 0);
    world_deinit(&world);
}
