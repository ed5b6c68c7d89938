/* The mailbox between two shards by itself, in every order of steps. */
#include "shard/mailbox.h"

#include "base/prng.h"

#include <criterion/criterion.h>
#include <signal.h>

#define CELLS 8u

struct pair {
    struct mailbox box;
    struct mail cells[CELLS];
    struct mailbox_writer writer;
    struct mailbox_reader reader;
    uint32_t posted, taken; /* what the next message says, and what it has to say */
};

/* `first` is where the counts stand: they wrap at 2^32. */
static void pair_init(struct pair *pair, uint32_t cell_count, uint32_t first)
{
    mailbox_init(&pair->box, pair->cells, cell_count, &pair->writer, &pair->reader);
    atomic_store(&pair->box.tail, first);
    atomic_store(&pair->box.head, first);
    pair->writer.posted = pair->writer.flushed = pair->writer.head_seen = first;
    pair->reader.taken = pair->reader.released = pair->reader.tail_seen = first;
    pair->posted = pair->taken = 0;
}

/* Returns how many found a cell. */
static uint32_t post(struct pair *pair, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct mail *mail = mailbox_post(&pair->writer);
        if (mail == NULL)
            return i;
        memcpy(mail->body, &pair->posted, sizeof pair->posted);
        pair->posted++;
    }
    return count;
}

/* Takes at most `count` of what the last look found; they have to come in order. */
static uint32_t take(struct pair *pair, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct mail *mail = mailbox_next(&pair->reader);
        if (mail == NULL)
            return i;
        cr_assert_eq(memcmp(mail->body, &pair->taken, sizeof pair->taken), 0);
        pair->taken++;
    }
    return count;
}

static uint32_t look_and_take_all(struct pair *pair)
{
    (void)mailbox_look(&pair->reader);
    uint32_t count = take(pair, UINT32_MAX);
    mailbox_release(&pair->reader);
    return count;
}

Test(mailbox, a_new_one_is_empty)
{
    struct pair pair;
    pair_init(&pair, CELLS, 0);
    cr_assert_null(mailbox_next(&pair.reader));
    cr_assert_eq(mailbox_look(&pair.reader), 0);
    cr_assert_null(mailbox_next(&pair.reader));
    mailbox_release(&pair.reader);
    mailbox_flush(&pair.writer);
    cr_assert_eq(mailbox_look(&pair.reader), 0);
}

Test(mailbox, what_is_posted_is_seen_after_the_flush_only)
{
    struct pair pair;
    pair_init(&pair, CELLS, 0);
    cr_assert_eq(post(&pair, 3), 3);
    cr_assert_eq(mailbox_look(&pair.reader), 0);
    mailbox_flush(&pair.writer);
    cr_assert_null(mailbox_next(&pair.reader), "it has not looked");
    cr_assert_eq(mailbox_look(&pair.reader), 3);
    cr_assert_eq(take(&pair, 4), 3);
}

Test(mailbox, a_look_shows_what_was_there_then)
{
    struct pair pair;
    pair_init(&pair, CELLS, 0);
    cr_assert_eq(post(&pair, 2), 2);
    mailbox_flush(&pair.writer);
    cr_assert_eq(mailbox_look(&pair.reader), 2);
    cr_assert_eq(post(&pair, 1), 1);
    mailbox_flush(&pair.writer);
    cr_assert_eq(take(&pair, 3), 2);
    cr_assert_eq(mailbox_look(&pair.reader), 1);
    cr_assert_eq(take(&pair, 3), 1);
}

Test(mailbox, a_full_one_refuses_until_cells_are_given_back)
{
    struct pair pair;
    pair_init(&pair, CELLS, 0);
    cr_assert_eq(post(&pair, CELLS + 1), CELLS);
    mailbox_flush(&pair.writer);
    cr_assert_eq(mailbox_look(&pair.reader), CELLS);
    cr_assert_eq(take(&pair, 3), 3);
    cr_assert_null(mailbox_post(&pair.writer), "taken is not given back");
    mailbox_release(&pair.reader);
    cr_assert_eq(post(&pair, CELLS), 3);
    mailbox_flush(&pair.writer);
    cr_assert_eq(take(&pair, CELLS), CELLS - 3);
    cr_assert_eq(look_and_take_all(&pair), 3);
    cr_assert_eq(post(&pair, CELLS + 1), CELLS);
}

Test(mailbox, what_is_not_shown_yet_counts_as_full)
{
    struct pair pair;
    pair_init(&pair, CELLS, 0);
    cr_assert_eq(post(&pair, CELLS), CELLS);
    cr_assert_null(mailbox_post(&pair.writer));
    cr_assert_eq(look_and_take_all(&pair), 0);
    cr_assert_null(mailbox_post(&pair.writer));
}

Test(mailbox, one_cell_is_enough)
{
    struct pair pair;
    pair_init(&pair, 1, UINT32_MAX);
    for (uint32_t i = 0; i < 5; i++) {
        cr_assert_eq(post(&pair, 2), 1);
        mailbox_flush(&pair.writer);
        cr_assert_eq(look_and_take_all(&pair), 1);
    }
}

Test(mailbox, counts_wrap)
{
    for (uint32_t before = 0; before <= CELLS + 1; before++) {
        struct pair pair;
        pair_init(&pair, CELLS, UINT32_MAX - before);
        for (uint32_t i = 0; i < 4; i++) {
            cr_assert_eq(post(&pair, CELLS + 1), CELLS);
            mailbox_flush(&pair.writer);
            cr_assert_eq(look_and_take_all(&pair), CELLS);
        }
    }
}

Test(mailbox, any_order_of_steps_keeps_the_order_of_messages)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct prng prng = {seed};
        struct pair pair;
        pair_init(&pair, 1u << prng_below(&prng, 4), UINT32_MAX - (uint32_t)(seed % 64));
        for (uint32_t step = 0; step < 2000; step++) {
            switch (prng_below(&prng, 5)) {
            case 0:
                (void)post(&pair, (uint32_t)prng_below(&prng, CELLS + 2));
                break;
            case 1:
                mailbox_flush(&pair.writer);
                break;
            case 2:
                (void)mailbox_look(&pair.reader);
                break;
            case 3:
                (void)take(&pair, (uint32_t)prng_below(&prng, CELLS));
                break;
            default:
                mailbox_release(&pair.reader);
                break;
            }
            cr_assert_leq(pair.taken, pair.posted);
            cr_assert_leq(pair.posted - pair.taken, CELLS);
        }
        mailbox_flush(&pair.writer);
        (void)look_and_take_all(&pair);
        (void)look_and_take_all(&pair);
        cr_assert_eq(pair.taken, pair.posted, "seed %llu", (unsigned long long)seed);
    }
}

Test(mailbox, cells_are_a_power_of_two, .signal = SIGABRT)
{
    struct pair pair;
    pair_init(&pair, 6, 0);
}
