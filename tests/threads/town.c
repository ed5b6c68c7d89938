/* Towns of threads, each with a world and a post, that ask each other, sleep whenever they have
 * nothing to do, and answer late and out of order.
 *
 * Asserted: requests and answers keep their order between each two threads; a request's bytes are
 * what they were until it is answered (its asker then overwrites and frees them, so that a late
 * read is a race or a use after free); a slot of a common lease is held meanwhile, and there are
 * never more; the way down ends for all. */
#include "threads.h"

#include "base/assert.h"
#include "base/list.h"
#include "shard/lease.h"
#include "shard/post.h"
#include "shard/rate.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define THREADS_MAX 5u
#define LETTERS_MAX 64u
#define LETTER_BYTES 96u
#define SLOTS_LEFT_OUT 8u /* the lease has fewer slots than there are letters */
#define TICK_NS (100 * NS_PER_MS)
#define TICKS_STUCK 300u
#define RATE UINT64_C(1000000)

struct scenario {
    const char *name;
    uint32_t thread_count;
    uint32_t letter_count; /* of a thread: so many requests under way */
    uint32_t delay;        /* up to so many empty turns between two steps */
    uint32_t answers_late; /* one in so many is kept for a later pass; 0: none */
    uint64_t busy_poll_ns;
};

static const struct scenario scenarios[] = {
    {"one request to and fro", 2, 1, 100, 0, 0},
    {"the same, spinning before the sleep", 2, 1, 100, 0, 20 * NS_PER_US},
    {"batches between two", 2, LETTERS_MAX, 300, 3, 0},
    {"one request each of three", 3, 1, 1000, 0, 0},
    {"five, who answer late", 5, LETTERS_MAX, 1000, 2, 20 * NS_PER_US},
};

struct town;
struct resident;

struct letter {
    struct post_request request;
    struct list_node node; /* while it is not under way */
    struct resident *asker;
    uint8_t *bytes;
    uint64_t seed;
    uint32_t to;
};

/* A request that is answered later. */
struct errand {
    uint32_t from;
    struct letter *letter;
};

struct note {
    uint64_t seed;
    uint64_t number;
    const uint8_t *bytes;
};

struct resident {
    pthread_t thread;
    struct town *town;
    uint32_t index;
    struct prng prng;
    struct io *io;
    struct post *post;
    struct letter letters[LETTERS_MAX];
    struct list idle;
    struct errand errands[THREADS_MAX * LETTERS_MAX];
    uint32_t errand_count;
    uint64_t asked_to[THREADS_MAX], asked_by[THREADS_MAX];
    uint64_t answers_to[THREADS_MAX], answers_of[THREADS_MAX];
    uint64_t left; /* requests still to be asked */
    uint64_t served, sleeps;
    _Atomic uint64_t progress;
};

struct town {
    const struct scenario *scenario;
    struct post_office *office;
    struct lease *lease;
    struct rate *rate;
    uint64_t slots;
    _Atomic uint64_t slots_used;
    _Atomic uint32_t ended;
    struct resident residents[THREADS_MAX];
};

static void dawdle(struct resident *resident)
{
    delay_randomly(&resident->prng, resident->town->scenario->delay);
}

/* ---- letters ---- */

static void fill(uint8_t *bytes, uint64_t seed)
{
    struct prng prng = {seed};
    for (uint32_t i = 0; i < LETTER_BYTES; i++)
        bytes[i] = (uint8_t)prng_next(&prng);
}

static void check(const uint8_t *bytes, uint64_t seed)
{
    struct prng prng = {seed};
    for (uint32_t i = 0; i < LETTER_BYTES; i++) {
        uint8_t expected = (uint8_t)prng_next(&prng);
        assert(bytes[i] == expected);
    }
}

static void letter_answered(struct post_request *request, const void *body)
{
    struct letter *letter = container_of(request, struct letter, request);
    struct resident *asker = letter->asker;
    struct note note;
    memcpy(&note, body, sizeof note);
    assert(note.seed == letter->seed);
    assert(note.number == asker->answers_of[letter->to]++);
    check(letter->bytes, letter->seed);
    memset(letter->bytes, 0xDD, LETTER_BYTES);
    free(letter->bytes);
    (void)atomic_fetch_sub(&asker->town->slots_used, 1);
    lease_put(asker->town->lease, asker->index);
    list_push_back(&asker->idle, &letter->node);
    (void)atomic_fetch_add_explicit(&asker->progress, 1, memory_order_relaxed);
}

static void answer(struct resident *resident, const struct errand *errand)
{
    struct note note = {.number = resident->answers_to[errand->from]++};
    note.seed = errand->letter->seed;
    check(errand->letter->bytes, note.seed);
    void *body = post_answer(resident->post, errand->from, &errand->letter->request);
    memcpy(body, &note, sizeof note);
}

static void letter_asked(void *context, uint32_t from, struct post_request *request,
                         const void *body)
{
    struct resident *resident = context;
    uint32_t late = resident->town->scenario->answers_late;
    struct errand errand = {from, container_of(request, struct letter, request)};
    struct note note;
    memcpy(&note, body, sizeof note);
    assert(note.number == resident->asked_by[from]++);
    check(note.bytes, note.seed);
    if (late == 0 || prng_below(&resident->prng, late) != 0)
        answer(resident, &errand);
    else
        resident->errands[resident->errand_count++] = errand;
}

static uint32_t choose_other(struct resident *resident)
{
    uint32_t count = resident->town->scenario->thread_count;
    uint32_t other = (uint32_t)prng_below(&resident->prng, count - 1);
    return other + (other >= resident->index);
}

static bool take_slot(struct resident *resident)
{
    struct town *town = resident->town;
    if (!lease_take(town->lease, resident->index))
        return false;
    uint64_t used = atomic_fetch_add(&town->slots_used, 1) + 1;
    assert(used <= town->slots);
    return true;
}

/* Returns whether there was a letter, a slot and a credit. */
static bool ask(struct resident *resident)
{
    struct list_node *node = list_first(&resident->idle);
    if (resident->left == 0 || node == NULL || !take_slot(resident))
        return false;
    struct letter *letter = container_of(node, struct letter, node);
    uint32_t to = choose_other(resident);
    letter->request.answered = letter_answered;
    void *body = post_ask(resident->post, to, &letter->request);
    assert(body != NULL); /* there are more credits than letters */
    list_remove(node);
    resident->left--;
    letter->to = to;
    letter->seed = prng_next(&resident->prng);
    letter->bytes = malloc(LETTER_BYTES);
    assert(letter->bytes != NULL);
    fill(letter->bytes, letter->seed);
    struct note note = {letter->seed, resident->asked_to[to]++, letter->bytes};
    memcpy(body, &note, sizeof note);
    return true;
}

/* ---- passes ---- */

static void answer_errands(struct resident *resident)
{
    uint64_t count = prng_below(&resident->prng, resident->errand_count + 1);
    if (count == 0 && resident->errand_count > 0)
        count = 1;
    for (; count > 0; count--) {
        uint32_t chosen = (uint32_t)prng_below(&resident->prng, resident->errand_count);
        answer(resident, &resident->errands[chosen]);
        resident->errands[chosen] = resident->errands[--resident->errand_count];
    }
}

static void work(struct resident *resident)
{
    (void)post_take(resident->post);
    dawdle(resident);
    answer_errands(resident);
    uint64_t count = 1 + prng_below(&resident->prng, resident->town->scenario->letter_count);
    while (count > 0 && ask(resident))
        count--;
    resident->served += rate_take(resident->town->rate, resident->index, io_now_ns(resident->io));
    dawdle(resident);
    post_flush(resident->post);
}

static bool is_done(const struct resident *resident)
{
    return resident->left == 0 && post_asking(resident->post) == 0;
}

/* There is nothing to do until somebody asks or answers. */
static bool is_idle(const struct resident *resident)
{
    return !is_done(resident) && resident->errand_count == 0 &&
           (resident->left == 0 || list_is_empty(&resident->idle));
}

static void run(struct io *io, uint64_t wait_ns)
{
    int result = io_run(io, wait_ns);
    assert(result >= 0);
}

static void pass(struct resident *resident)
{
    work(resident);
    dawdle(resident);
    if (!is_idle(resident) || !post_may_sleep(resident->post)) {
        run(resident->io, 0);
        return;
    }
    resident->sleeps++;
    rate_rest(resident->town->rate, resident->index);
    run(resident->io, UINT64_MAX);
    post_woke(resident->post);
}

static void end(struct resident *resident)
{
    for (;;) {
        work(resident);
        if (resident->errand_count == 0 && post_end(resident->post))
            return;
        run(resident->io, NS_PER_MS);
    }
}

struct io *open_thread_world(uint64_t busy_poll_ns)
{
    struct io_options options = {.sockets_max = 1,
                                 .files_max = 1,
                                 .receive_buffer_size = 4096,
                                 .receive_buffer_count = 1,
                                 .busy_poll_ns = busy_poll_ns};
    char message[IO_ERROR_SIZE];
    struct io *io;
    if (io_open(&options, &io, message) < 0) {
        (void)fprintf(stderr, "threads: %s\n", message);
        exit(EXIT_FAILURE);
    }
    return io;
}

static void *live(void *context)
{
    struct resident *resident = context;
    resident->io = open_thread_world(resident->town->scenario->busy_poll_ns);
    post_join(resident->post, resident->io, letter_asked, resident);
    while (!is_done(resident))
        pass(resident);
    end(resident);
    io_close(resident->io);
    (void)atomic_fetch_add(&resident->town->ended, 1);
    return NULL;
}

/* ---- scenarios ---- */

static struct town *town_open(const struct scenario *scenario, uint64_t requests)
{
    struct town *town = calloc(1, sizeof *town);
    assert(town != NULL);
    town->scenario = scenario;
    uint32_t letters = scenario->thread_count * scenario->letter_count;
    town->slots = letters > SLOTS_LEFT_OUT * 2 ? letters - SLOTS_LEFT_OUT : letters;
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
    int result = post_office_open(scenario->thread_count, &town->office);
    assert(result == 0);
    result = lease_open((uint32_t)town->slots, scenario->thread_count, &town->lease);
    assert(result == 0);
    result = rate_open(RATE, scenario->thread_count, now_ns, &town->rate);
    assert(result == 0);
    for (uint32_t i = 0; i < scenario->thread_count; i++) {
        struct resident *resident = &town->residents[i];
        resident->town = town;
        resident->index = i;
        resident->prng.state = i;
        resident->left = requests;
        resident->post = post_office_post(town->office, i);
        list_init(&resident->idle);
        for (uint32_t l = 0; l < scenario->letter_count; l++) {
            resident->letters[l].asker = resident;
            list_push_back(&resident->idle, &resident->letters[l].node);
        }
    }
    return town;
}

static void town_close(struct town *town)
{
    rate_close(town->rate);
    lease_close(town->lease);
    post_office_close(town->office);
    free(town);
}

static uint64_t progress_of(struct town *town)
{
    uint64_t sum = atomic_load(&town->ended);
    for (uint32_t i = 0; i < town->scenario->thread_count; i++)
        sum += atomic_load_explicit(&town->residents[i].progress, memory_order_relaxed);
    return sum;
}

/* Returns false at a standstill. */
static bool watch(struct town *town)
{
    uint64_t before = 0;
    for (uint32_t still = 0; atomic_load(&town->ended) < town->scenario->thread_count; still++) {
        struct timespec tick = {.tv_nsec = (long)TICK_NS};
        (void)nanosleep(&tick, NULL);
        uint64_t now = progress_of(town);
        if (now != before)
            still = 0;
        before = now;
        if (still == TICKS_STUCK)
            return false;
    }
    return true;
}

static void check_end(struct town *town, uint64_t requests)
{
    uint64_t sleeps = 0, wakes = 0;
    uint32_t count = town->scenario->thread_count;
    for (uint32_t i = 0; i < count; i++) {
        struct resident *resident = &town->residents[i];
        struct post_counts counts = post_counts(resident->post);
        assert(counts.asked == requests);
        for (uint32_t other = 0; other < count; other++) {
            assert(resident->asked_to[other] == town->residents[other].asked_by[i]);
            assert(resident->answers_of[other] == resident->asked_to[other]);
        }
        sleeps += resident->sleeps;
        wakes += counts.wakes;
    }
    assert(lease_used(town->lease) == 0);
    assert(sleeps > 0 && wakes > 0);
    (void)printf("%s: %u threads, %llu requests each, %llu sleeps, %llu wakes\n",
                 town->scenario->name, count, (unsigned long long)requests,
                 (unsigned long long)sleeps, (unsigned long long)wakes);
}

/* Read while the threads may still run: what one sees of them when they do not. */
static void tell_standstill(const struct town *town)
{
    (void)printf("%s: it stands still: a wake-up was lost\n", town->scenario->name);
    for (uint32_t i = 0; i < town->scenario->thread_count; i++) {
        const struct resident *resident = &town->residents[i];
        struct post_counts counts = post_counts(resident->post);
        (void)printf("thread %u: %llu requests left, %u asked, %u to be answered, %llu taken, "
                     "%llu flushes, %llu wakes, %llu sleeps\n",
                     i, (unsigned long long)resident->left, post_asking(resident->post),
                     post_owing(resident->post), (unsigned long long)counts.taken,
                     (unsigned long long)counts.flushes, (unsigned long long)counts.wakes,
                     (unsigned long long)resident->sleeps);
    }
}

static bool run_scenario(const struct scenario *scenario, uint64_t requests)
{
    struct town *town = town_open(scenario, requests);
    for (uint32_t i = 0; i < scenario->thread_count; i++) {
        int error = pthread_create(&town->residents[i].thread, NULL, live, &town->residents[i]);
        assert(error == 0);
    }
    if (!watch(town)) {
        tell_standstill(town);
        return false;
    }
    for (uint32_t i = 0; i < scenario->thread_count; i++)
        (void)pthread_join(town->residents[i].thread, NULL);
    check_end(town, requests);
    town_close(town);
    return true;
}

void run_towns(uint64_t requests, struct tally *tally)
{
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (run_scenario(&scenarios[i], requests)) {
            tally->passed++;
            continue;
        }
        tally->failed++;
        return; /* its threads are still there */
    }
}
