/* The account's part off the hot path: blocks that become one, and what only -slowlog needs, a note
 * for each request under way. */
#include "net/client/account.h"

int account_apply(struct account_books *books, const struct log *log, uint64_t slowlog_ns)
{
    int result = 0;
    if (slowlog_ns > 0 && books->notes == NULL)
        result = slowlog_open(log, slowlog_ns, &books->notes);
    if (books->notes != NULL && slowlog_ns > 0)
        slowlog_set_threshold(books->notes, slowlog_ns);
    books->slowlog = slowlog_ns > 0 ? books->notes : NULL;
    return result;
}

void account_close(struct account_books *books)
{
    slowlog_close(books->notes);
}

void account_durable(struct account_books *books, uint64_t position)
{
    if (books->slowlog != NULL)
        slowlog_durable(books->slowlog, position, io_now_ns(books->io));
}

void account_tick(struct account_books *books, uint64_t now_ns)
{
    if (books->slowlog != NULL)
        slowlog_tick(books->slowlog, now_ns);
}

void account_note(struct account *account, struct account_books *books,
                  const struct account_request *request)
{
    struct slow_request *note = slowlog_take(books->slowlog);
    if (note == NULL)
        return;
    *note = (struct slow_request){.next = account->slow,
                                  .arrived_ns = request->arrived_ns,
                                  .taken_ns = io_now_ns(books->io),
                                  .client = request->client,
                                  .key_hash = request->key_hash,
                                  .size = request->size,
                                  .operation = request->operation};
    account->slow = note;
}

/* The newest note, unless there was none left for it: then that one has its answer. */
void account_note_answer(struct account *account, const struct account_books *books, uint8_t status,
                         uint64_t size, uint64_t gate)
{
    struct slow_request *note = account->slow;
    if (note == NULL || note->answered_ns != 0)
        return;
    note->answered_ns = io_now_ns(books->io);
    note->status = status;
    note->size += size;
    note->gate = gate;
}

void account_end(struct account *account, struct account_books *books, bool is_sent)
{
    struct slow_request *note = account->slow;
    account->slow = NULL;
    while (note != NULL) {
        struct slow_request *next = note->next;
        bool is_slow = is_sent && books->slowlog != NULL &&
                       slowlog_report(books->slowlog, note, books->sent_ns);
        metrics_add(&books->metrics->values[METRICS_SLOW], is_slow);
        slowlog_put(books->notes, note);
        note = next;
    }
}

void account_join(struct account *account, struct account *other)
{
    for (uint32_t i = 0; i < other->cohorts; i++) {
        uint16_t *counts = account_cohort(account, other->arrived_ns[i]);
        for (uint32_t j = 0; j < METRICS_TIMED_COUNT; j++)
            counts[j] = (uint16_t)(counts[j] + other->counts[i][j]);
    }
    other->cohorts = 0;
    struct slow_request **end = &account->slow;
    while (*end != NULL)
        end = &(*end)->next;
    *end = other->slow;
    other->slow = NULL;
}
