/* The log of slow operations by itself: the stages, the threshold and the limit of lines. */
#include "net/watch/slowlog.h"

#include "base/units.h"
#include "minivault/protocol.h"
#include "net/watch/metrics.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define MS NS_PER_MS

struct book {
    struct log log;
    struct slowlog *slowlog;
    struct slow_request request; /* a SET, which waits for write 50 */
    char last[LOG_LINE_MAX + 1];
    uint32_t lines;
};

static void keep_line(void *context, const char *line, uint32_t size)
{
    struct book *book = context;
    memcpy(book->last, line, size);
    book->last[size] = '\0';
    book->lines++;
}

static void book_open(struct book *book, uint64_t threshold_ns)
{
    memset(book, 0, sizeof *book);
    book->log = (struct log){.write = keep_line, .context = book};
    book->request = (struct slow_request){.arrived_ns = 1000 * MS,
                                          .taken_ns = 1010 * MS,
                                          .answered_ns = 1030 * MS,
                                          .gate = 50,
                                          .client = 17,
                                          .key_hash = 0x0a2c0e3f00c1d2e4,
                                          .size = 1000,
                                          .operation = METRICS_SET,
                                          .status = MINIVAULT_OK};
    cr_assert_eq(slowlog_open(&book->log, threshold_ns, &book->slowlog), 0);
}

/* Whether it was slow, when it was sent then. */
static bool report(struct book *book, uint64_t sent_ns)
{
    return slowlog_report(book->slowlog, &book->request, sent_ns);
}

/* Its line ends so when it was sent then; nothing more comes into the book. */
static void expect_end(struct book *book, uint64_t sent_ns, const char *end)
{
    cr_assert(report(book, sent_ns));
    cr_assert_not_null(strstr(book->last, end), "%s", book->last);
    slowlog_close(book->slowlog);
}

Test(slowlog, a_line_tells_the_stages)
{
    struct book book;
    book_open(&book, 100 * MS);
    slowlog_durable(book.slowlog, 40, 1050 * MS);
    slowlog_durable(book.slowlog, 50, 1070 * MS);
    slowlog_durable(book.slowlog, 60, 1090 * MS);
    cr_assert(report(&book, 1110 * MS));
    cr_assert_str_eq(book.last,
                     "WARN slow set of key hash 0a2c0e3f00c1d2e4: ok, 1000 bytes, connection 17, "
                     "110.0 ms: waited 10.0, answered after 20.0, durable after 40.0, sent after "
                     "40.0\n");
    slowlog_close(book.slowlog);
}

Test(slowlog, what_waits_for_no_write_is_durable_at_once)
{
    struct book book;
    book_open(&book, 100 * MS);
    book.request.gate = 0;
    slowlog_durable(book.slowlog, 60, 1090 * MS);
    expect_end(&book, 1130 * MS, "durable after 0.0, sent after 100.0");
}

Test(slowlog, what_was_durable_before_the_answer_did_not_wait_for_it)
{
    struct book book;
    book_open(&book, 100 * MS);
    slowlog_durable(book.slowlog, 60, 1020 * MS);
    expect_end(&book, 1130 * MS, "durable after 0.0, sent after 100.0");
}

/* The times of only so many writes are known. */
Test(slowlog, of_a_forgotten_write_the_oldest_known_time_counts)
{
    struct book book;
    book_open(&book, 100 * MS);
    for (uint64_t i = 0; i < 100; i++)
        slowlog_durable(book.slowlog, 50 + i, (1100 + i) * MS);
    expect_end(&book, 1300 * MS, "durable after 106.0, sent after 164.0");
}

Test(slowlog, only_what_reaches_the_threshold_is_slow)
{
    struct book book;
    book_open(&book, 100 * MS);
    cr_assert_not(report(&book, 1100 * MS - 1));
    cr_assert_eq(book.lines, 0);
    cr_assert(report(&book, 1100 * MS));
    cr_assert_eq(book.lines, 1);
    book.request.answered_ns = 0;
    cr_assert_not(report(&book, 9000 * MS), "it has no answer");
    slowlog_close(book.slowlog);
}

Test(slowlog, ten_lines_a_second_and_one_for_the_rest)
{
    struct book book;
    book_open(&book, 100 * MS);
    for (uint32_t i = 0; i < 35; i++)
        cr_assert(report(&book, 2000 * MS + i));
    cr_assert_eq(book.lines, 10);
    slowlog_tick(book.slowlog, 2999 * MS);
    cr_assert_eq(book.lines, 10, "the second is not over");
    slowlog_tick(book.slowlog, 3001 * MS);
    cr_assert_eq(book.lines, 11);
    cr_assert_str_eq(book.last, "WARN slow requests: 25 more, not listed\n");
    cr_assert(report(&book, 3002 * MS));
    cr_assert_eq(book.lines, 12, "a new second");
    slowlog_tick(book.slowlog, 5000 * MS);
    cr_assert_eq(book.lines, 12, "nothing was left out");
    slowlog_close(book.slowlog);
}

Test(slowlog, notes_run_out_and_come_back)
{
    struct book book;
    struct slow_request *all = NULL, *note;
    uint32_t count = 0;
    book_open(&book, MS);
    while ((note = slowlog_take(book.slowlog)) != NULL) {
        cr_assert_eq(note->answered_ns + note->size + note->gate, 0, "all zero");
        note->size = 1;
        note->next = all;
        all = note;
        count++;
    }
    cr_assert_eq(count, SLOWLOG_NOTES);
    slowlog_put(book.slowlog, all);
    note = slowlog_take(book.slowlog);
    cr_assert_eq(note, all);
    cr_assert_eq(note->size, 0);
    slowlog_close(book.slowlog);
}
