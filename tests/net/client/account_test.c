/* How replies are counted and timed, without a connection. */
#include "net/client/account.h"

#include "minivault/protocol.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct slice key = {(const uint8_t *)"key", 3};

struct book {
    struct metrics metrics;
    struct account_books books;
    struct account account;
    struct account_request request;
};

static void book_init(struct book *book)
{
    memset(book, 0, sizeof *book);
    book->books.metrics = &book->metrics;
}

static void reply(struct book *book, enum metrics_operation operation, uint64_t arrived_ns)
{
    book->request.arrived_ns = arrived_ns;
    account_request(&book->request, &book->books, operation, key, 0);
    account_reply(&book->account, &book->books, &book->request, MINIVAULT_OK, 0, 0);
}

static void leave(struct book *book, uint64_t at_ns)
{
    book->books.sent_ns = at_ns;
    account_leave(&book->account, &book->books);
}

Test(account, replies_of_one_block_have_their_own_latencies)
{
    struct book book;
    book_init(&book);
    const struct histogram *gets = &book.metrics.latency[METRICS_GET];
    const struct histogram *sets = &book.metrics.latency[METRICS_SET];
    reply(&book, METRICS_GET, 1000);
    reply(&book, METRICS_SET, 1000);
    reply(&book, METRICS_GET, 1000);
    reply(&book, METRICS_GET, 1040);
    cr_assert_eq(histogram_total(gets), 0, "not before they leave");
    leave(&book, 1050);
    cr_assert_eq(gets->buckets[histogram_bucket(50)], 2);
    cr_assert_eq(gets->buckets[histogram_bucket(10)], 1);
    cr_assert_eq(sets->buckets[histogram_bucket(50)], 1);
    leave(&book, 2000);
    cr_assert_eq(histogram_total(gets), 3, "once");
    cr_assert_eq(histogram_total(sets), 1);
}

Test(account, too_many_arrivals_count_as_the_last_one_known)
{
    struct book book;
    book_init(&book);
    const struct histogram *gets = &book.metrics.latency[METRICS_GET];
    for (uint64_t i = 0; i < 5; i++)
        reply(&book, METRICS_GET, 1000 + i * 10);
    leave(&book, 1050);
    cr_assert_eq(gets->buckets[histogram_bucket(50)], 1);
    cr_assert_eq(gets->buckets[histogram_bucket(40)], 1);
    cr_assert_eq(gets->buckets[histogram_bucket(30)], 3, "too long, never too short");
    cr_assert_eq(histogram_total(gets), 5);
}

Test(account, a_reserved_reply_counts_as_what_it_became)
{
    struct book book;
    book_init(&book);
    book.request.arrived_ns = 1000;
    account_request(&book.request, &book.books, METRICS_GET, key, 0);
    account_reserve(&book.account, &book.books, &book.request);
    account_request(&book.request, &book.books, METRICS_SET, key, 5); /* the next request */
    cr_assert_eq(book.metrics.requests[METRICS_GET][MINIVAULT_CORRUPT], 0);
    account_fill(&book.account, &book.books, MINIVAULT_CORRUPT, 0, 0);
    cr_assert_eq(book.metrics.requests[METRICS_GET][MINIVAULT_CORRUPT], 1);
    leave(&book, 1064);
    cr_assert_eq(book.metrics.latency[METRICS_GET].buckets[histogram_bucket(64)], 1);
}

Test(account, untimed_operations_are_counted_only)
{
    struct book book;
    book_init(&book);
    reply(&book, METRICS_STATS, 1000);
    leave(&book, 5000);
    cr_assert_eq(book.metrics.requests[METRICS_STATS][MINIVAULT_OK], 1);
    for (uint32_t i = 0; i < METRICS_TIMED_COUNT; i++)
        cr_assert_eq(histogram_total(&book.metrics.latency[i]), 0);
}

Test(account, a_status_that_nobody_knows_is_an_error)
{
    struct book book;
    book_init(&book);
    account_request(&book.request, &book.books, METRICS_OTHER, key, 0);
    account_reply(&book.account, &book.books, &book.request, 0x77, 0, 0);
    account_reply(&book.account, &book.books, &book.request, MINIVAULT_ERROR, 0, 0);
    cr_assert_eq(book.metrics.requests[METRICS_OTHER][METRICS_OUTCOME_COUNT - 1], 2);
}

Test(account, blocks_that_become_one_keep_every_latency)
{
    struct book book, other;
    book_init(&book);
    book_init(&other);
    reply(&book, METRICS_GET, 1000);
    reply(&other, METRICS_GET, 1000);
    reply(&other, METRICS_SET, 1010);
    reply(&other, METRICS_SET, 1020);
    reply(&other, METRICS_GET, 1030);
    account_join(&book.account, &other.account);
    leave(&book, 1050);
    const struct histogram *gets = &book.metrics.latency[METRICS_GET];
    const struct histogram *sets = &book.metrics.latency[METRICS_SET];
    cr_assert_eq(gets->buckets[histogram_bucket(50)], 2);
    cr_assert_eq(sets->buckets[histogram_bucket(40)], 1);
    cr_assert_eq(histogram_total(gets) + histogram_total(sets), 5);
    leave(&other, 2000);
    cr_assert_eq(histogram_total(&other.metrics.latency[METRICS_GET]), 0, "they have gone");
}

Test(account, what_only_prepares_a_reply_counts_for_nothing)
{
    struct book book;
    book_init(&book);
    book.request.operation = METRICS_OPERATION_COUNT;
    account_reply(&book.account, &book.books, &book.request, MINIVAULT_OK, 25, 0);
    for (uint32_t i = 0; i < METRICS_OPERATION_COUNT; i++)
        cr_assert_eq(book.metrics.requests[i][MINIVAULT_OK], 0);
    cr_assert_eq(book.account.cohorts, 0);
}

/* HTTP's errors are whole replies of its own. */
Test(account, a_refusal_counts_although_the_shard_said_ok)
{
    struct book book;
    book_init(&book);
    account_request(&book.request, &book.books, METRICS_SET, key, 0);
    book.request.refusal = MINIVAULT_BAD_REQUEST;
    account_reply(&book.account, &book.books, &book.request, MINIVAULT_OK, 0, 0);
    cr_assert_eq(book.metrics.requests[METRICS_SET][MINIVAULT_BAD_REQUEST], 1);
    cr_assert_eq(book.metrics.requests[METRICS_SET][MINIVAULT_OK], 0);
    account_request(&book.request, &book.books, METRICS_SET, key, 0);
    account_reply(&book.account, &book.books, &book.request, MINIVAULT_OK, 0, 0);
    cr_assert_eq(book.metrics.requests[METRICS_SET][MINIVAULT_OK], 1, "the next one is another");
}
