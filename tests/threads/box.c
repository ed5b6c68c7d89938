/* Two threads and the mailboxes between them, under ThreadSanitizer. */
#include "threads.h"

#include "base/assert.h"
#include "shard/mailbox.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define CELLS 4u
#define MESSAGES_A_REQUEST 10u
#define DELAY_MAX 100u

/* Neither thread sleeps; both yield when there is no cell and nothing to take. */
struct box_pair {
    struct mailbox box;
    struct mail cells[CELLS];
    struct mailbox_writer writer;
    struct mailbox_reader reader;
    uint64_t message_count;
    uint64_t full_count; /* the writer's */
};

/* Each message carries memory that its reader frees. */
static void *write_all(void *context)
{
    struct box_pair *pair = context;
    struct prng prng = {1};
    for (uint64_t i = 0; i < pair->message_count;) {
        struct mail *mail = mailbox_post(&pair->writer);
        if (mail == NULL) {
            pair->full_count++;
            mailbox_flush(&pair->writer);
            (void)sched_yield();
            continue;
        }
        uint64_t *number = malloc(sizeof *number);
        assert(number != NULL);
        *number = i++;
        mail->request = number;
        if (prng_below(&prng, 3) == 0)
            mailbox_flush(&pair->writer);
        delay_randomly(&prng, DELAY_MAX);
    }
    mailbox_flush(&pair->writer);
    return NULL;
}

static uint64_t read_some(struct box_pair *pair, struct prng *prng, uint64_t expected)
{
    if (mailbox_look(&pair->reader) == 0)
        (void)sched_yield();
    const struct mail *mail;
    while ((mail = mailbox_next(&pair->reader)) != NULL) {
        assert(*(uint64_t *)mail->request == expected);
        expected++;
        free(mail->request);
        delay_randomly(prng, DELAY_MAX);
        if (prng_below(prng, 3) == 0)
            mailbox_release(&pair->reader);
    }
    mailbox_release(&pair->reader);
    return expected;
}

void run_box(uint64_t messages, struct tally *tally)
{
    static struct box_pair pair;
    pair.message_count = messages * MESSAGES_A_REQUEST;
    mailbox_init(&pair.box, pair.cells, CELLS, &pair.writer, &pair.reader);
    pthread_t writer;
    int error = pthread_create(&writer, NULL, write_all, &pair);
    assert(error == 0);
    struct prng prng = {2};
    for (uint64_t taken = 0; taken < pair.message_count;)
        taken = read_some(&pair, &prng, taken);
    (void)pthread_join(writer, NULL);
    assert(mailbox_look(&pair.reader) == 0);
    (void)printf("a box of %u cells: %llu messages, %llu times full\n", CELLS,
                 (unsigned long long)pair.message_count, (unsigned long long)pair.full_count);
    tally->passed++;
}
