/* The moment in which a wake-up could be lost: in each round one thread announces its sleep while
 * the other posts and looks whether somebody sleeps. Whoever is to sleep then must have been woken.
 *
 * Nobody really sleeps here, so that there are many rounds, and the sleeper waits a little longer
 * after each round that it was too early in, and less after the others, so that both meet. Without
 * the fences in src/shard/post.c some of the rounds are lost on a machine with two processors. */
#include "threads.h"

#include "base/assert.h"
#include "shard/post.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define ROUNDS_A_REQUEST 20u
#define DELAY_MAX 60u
#define TURNS_MAX 5000u
#define SPINS_MAX 1000u

struct race {
    struct post_office *office;
    struct post *sleeper, *writer;
    struct post_request request;
    uint64_t rounds;
    uint64_t sleeper_turns;
    uint64_t wakes;           /* the writer's in this round */
    _Atomic uint64_t started; /* rounds that the sleeper has begun */
    _Atomic uint64_t posted;  /* rounds in which the writer is through */
};

static void wait_for(_Atomic uint64_t *count, uint64_t least)
{
    for (uint32_t spins = 0; atomic_load_explicit(count, memory_order_acquire) < least; spins++)
        if (spins >= SPINS_MAX)
            (void)sched_yield();
}

static void nothing_answered(struct post_request *request, const void *body)
{
    (void)request;
    (void)body;
}

static void answer_at_once(void *context, uint32_t from, struct post_request *request,
                           const void *body)
{
    (void)body;
    struct race *race = context;
    (void)post_answer(race->sleeper, from, request);
}

static void *post_each_round(void *context)
{
    struct race *race = context;
    struct prng prng = {3};
    race->request.answered = nothing_answered;
    for (uint64_t round = 1; round <= race->rounds; round++) {
        uint64_t before = post_counts(race->writer).wakes;
        void *body = post_ask(race->writer, 0, &race->request);
        assert(body != NULL);
        memset(body, 0, MAIL_BODY_SIZE);
        wait_for(&race->started, round);
        delay_randomly(&prng, DELAY_MAX);
        post_flush(race->writer);
        race->wakes = post_counts(race->writer).wakes - before;
        atomic_store_explicit(&race->posted, round, memory_order_release);
        while (post_take(race->writer) == 0)
            (void)sched_yield();
    }
    return NULL;
}

/* Returns whether it would have slept on although there is something in its box. */
static bool sleep_once(struct race *race, struct prng *prng, uint64_t round)
{
    atomic_store_explicit(&race->started, round, memory_order_release);
    delay(race->sleeper_turns);
    delay_randomly(prng, DELAY_MAX);
    bool sleeps = post_may_sleep(race->sleeper);
    wait_for(&race->posted, round);
    bool is_lost = sleeps && race->wakes == 0;
    if (sleeps && race->sleeper_turns < TURNS_MAX)
        race->sleeper_turns += 2;
    else if (!sleeps && race->sleeper_turns > 2)
        race->sleeper_turns -= 2;
    if (sleeps)
        post_woke(race->sleeper);
    while (post_take(race->sleeper) == 0)
        (void)sched_yield();
    post_flush(race->sleeper);
    return is_lost;
}

void run_races(uint64_t rounds, struct tally *tally)
{
    struct race race = {.rounds = rounds * ROUNDS_A_REQUEST};
    int error = post_office_open(2, &race.office);
    assert(error == 0);
    race.sleeper = post_office_post(race.office, 0);
    race.writer = post_office_post(race.office, 1);
    struct io *io = open_thread_world(0);
    post_join(race.sleeper, io, answer_at_once, &race);
    post_join(race.writer, NULL, NULL, NULL);
    pthread_t writer;
    error = pthread_create(&writer, NULL, post_each_round, &race);
    assert(error == 0);
    struct prng prng = {4};
    uint64_t lost = 0;
    for (uint64_t round = 1; round <= race.rounds; round++)
        lost += sleep_once(&race, &prng, round);
    (void)pthread_join(writer, NULL);
    uint64_t woken = post_counts(race.writer).wakes;
    (void)printf("%llu announcements of a sleep: %llu woken, %llu lost\n",
                 (unsigned long long)race.rounds, (unsigned long long)woken,
                 (unsigned long long)lost);
    post_office_close(race.office);
    io_close(io);
    tally->passed += lost == 0;
    tally->failed += lost != 0;
}
