/* mail: what it costs to ask another shard, on two processors.
 *
 *     mail [--rounds N] [--batches N]
 *
 * Two threads, each pinned to a processor of its own. One asks BATCH requests in a pass; the other
 * takes and answers them all in its next; a round trip is over when all answers were taken. Neither
 * sleeps (spinning), or both sleep in io_run whenever they have nothing to do (sleeping).
 *
 * The bound: the same round trips with nothing but two counters, each on a line of its own, so two
 * lines that change processors a batch. A message is a line of its own, which the bound does not
 * carry; "lines" adds exactly that: BATCH lines to and fro between the two counters.
 *
 * Medians of interleaved rounds, and the least, which is what an undisturbed machine would show.
 *
 * Then what a pass pays for looking into the boxes of 1 to 255 other shards that all are empty. */
#include "../common/clock.h"

#include "base/assert.h"
#include "base/units.h"
#include "shard/post.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_MAX 64u
#define ROUNDS_MAX 101u
#define SLEEPING_PART 20u /* sleeping takes longer: so many times fewer batches */
#define LOOKS 20000u

enum way { COUNTERS, LINES, SPINNING, SLEEPING, WAY_COUNT };
static const char *const way_names[] = {"counters (bound)", "lines (bound)", "post, spinning",
                                        "post, sleeping"};
static const uint32_t batch_sizes[] = {1, 16, BATCH_MAX};
#define SIZE_COUNT (sizeof batch_sizes / sizeof batch_sizes[0])

struct line {
    alignas(64) _Atomic uint64_t count;
};

struct bench {
    struct line there, back; /* of the bounds */
    struct mail lines[2][BATCH_MAX];
    struct post_office *office;
    struct post_request requests[BATCH_MAX];
    enum way way;
    uint32_t batch;
    uint64_t warm, batches;
    uint32_t answered; /* of this batch */
    uint64_t took_ns;
    pthread_barrier_t barrier;
    int processors[2];
};

static void pin(int processor)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)processor, &set);
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

/* ---- the bounds ---- */

static void wait_for(const struct line *line, uint64_t least)
{
    while (atomic_load_explicit(&line->count, memory_order_acquire) < least)
        clock_relax();
}

static void copy_lines(struct mail *to, const struct mail *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        to[i].body[0] = (uint8_t)(from[i].body[0] + 1);
}

static void bound_ask(struct bench *bench, uint64_t from, uint64_t count)
{
    uint32_t lines = bench->way == LINES ? bench->batch : 0;
    for (uint64_t i = from + 1; i <= from + count; i++) {
        copy_lines(bench->lines[0], bench->lines[1], lines);
        atomic_store_explicit(&bench->there.count, i, memory_order_release);
        wait_for(&bench->back, i);
    }
}

static void bound_answer(struct bench *bench)
{
    uint32_t lines = bench->way == LINES ? bench->batch : 0;
    for (uint64_t i = 1; i <= bench->warm + bench->batches; i++) {
        wait_for(&bench->there, i);
        copy_lines(bench->lines[1], bench->lines[0], lines);
        atomic_store_explicit(&bench->back.count, i, memory_order_release);
    }
}

/* ---- the post ---- */

static void count_answer(struct post_request *request, const void *body)
{
    (void)request;
    uint32_t *count;
    memcpy(&count, body, sizeof count);
    (*count)++;
}

static void answer_at_once(void *context, uint32_t from, struct post_request *request,
                           const void *body)
{
    memcpy(post_answer(context, from, request), body, MAIL_BODY_SIZE);
}

/* Waits for what comes, asleep or not. Returns how many messages came. */
static uint32_t take(const struct bench *bench, struct post *post, struct io *io)
{
    uint32_t count = post_take(post);
    if (count > 0 || bench->way == SPINNING) {
        clock_relax();
        return count;
    }
    if (post_may_sleep(post)) {
        int result = io_run(io, UINT64_MAX);
        assert(result >= 0);
        post_woke(post);
    }
    return post_take(post);
}

static void post_ask_some(struct bench *bench, struct post *post, struct io *io, uint64_t count)
{
    uint32_t *answered = &bench->answered;
    for (uint64_t i = 0; i < count; i++) {
        bench->answered = 0;
        for (uint32_t r = 0; r < bench->batch; r++) {
            bench->requests[r].answered = count_answer;
            void *body = post_ask(post, 1, &bench->requests[r]);
            assert(body != NULL);
            memcpy(body, &answered, sizeof answered);
        }
        post_flush(post);
        while (bench->answered < bench->batch)
            (void)take(bench, post, io);
    }
}

static void post_answer_all(struct bench *bench, struct post *post, struct io *io)
{
    uint64_t left = (bench->warm + bench->batches) * bench->batch;
    while (left > 0) {
        left -= take(bench, post, io);
        post_flush(post);
    }
}

/* ---- the threads ---- */

static struct io *open_world(void)
{
    struct io_options options = {
        .sockets_max = 1, .files_max = 1, .receive_buffer_size = 4096, .receive_buffer_count = 1};
    char message[IO_ERROR_SIZE];
    struct io *io;
    if (io_open(&options, &io, message) < 0) {
        (void)fprintf(stderr, "mail: %s\n", message);
        exit(EXIT_FAILURE);
    }
    return io;
}

/* Once around the boxes first: pages that were never touched are not what is measured. */
static void time_asking(struct bench *bench, struct post *post, struct io *io)
{
    bool is_bound = bench->way == COUNTERS || bench->way == LINES;
    if (is_bound)
        bound_ask(bench, 0, bench->warm);
    else
        post_ask_some(bench, post, io, bench->warm);
    uint64_t start_ns = clock_now_ns();
    if (is_bound)
        bound_ask(bench, bench->warm, bench->batches);
    else
        post_ask_some(bench, post, io, bench->batches);
    bench->took_ns = clock_now_ns() - start_ns;
}

static void run_side(struct bench *bench, uint32_t side)
{
    struct post *post = post_office_post(bench->office, side);
    struct io *io = open_world();
    post_join(post, io, answer_at_once, post);
    (void)pthread_barrier_wait(&bench->barrier);
    if (side == 0)
        time_asking(bench, post, io);
    else if (bench->way == COUNTERS || bench->way == LINES)
        bound_answer(bench);
    else
        post_answer_all(bench, post, io);
    (void)pthread_barrier_wait(&bench->barrier); /* nobody wakes a world that is closed */
    io_close(io);
}

static void *answering_thread(void *context)
{
    struct bench *bench = context;
    pin(bench->processors[1]);
    run_side(bench, 1);
    return NULL;
}

/* Returns nanoseconds for one request and its answer. */
static double measure(enum way way, uint32_t batch, uint64_t batches, const int *processors)
{
    struct bench *bench = aligned_alloc(64, round_up(sizeof *bench, 64));
    assert(bench != NULL);
    memset(bench, 0, sizeof *bench);
    bench->way = way;
    bench->batch = batch;
    bench->batches = way == SLEEPING ? batches / SLEEPING_PART + 1 : batches;
    bench->warm = POST_CELLS_MAX / batch + 1;
    memcpy(bench->processors, processors, sizeof bench->processors);
    int error = post_office_open(2, &bench->office);
    assert(error == 0);
    error = pthread_barrier_init(&bench->barrier, NULL, 2);
    assert(error == 0);
    pthread_t thread;
    error = pthread_create(&thread, NULL, answering_thread, bench);
    assert(error == 0);
    pin(processors[0]);
    run_side(bench, 0);
    (void)pthread_join(thread, NULL);
    double ns = (double)bench->took_ns / (double)(bench->batches * batch);
    post_office_close(bench->office);
    (void)pthread_barrier_destroy(&bench->barrier);
    free(bench);
    return ns;
}

/* Nanoseconds of a pass that finds nothing, of `shard_count` shards. */
static double measure_look(uint32_t shard_count)
{
    struct post_office *office;
    int error = post_office_open(shard_count, &office);
    assert(error == 0);
    struct post *post = post_office_post(office, 0);
    post_join(post, NULL, NULL, NULL);
    uint64_t start_ns = clock_thread_cpu_ns();
    for (uint32_t i = 0; i < LOOKS; i++)
        (void)post_take(post);
    double ns = (double)(clock_thread_cpu_ns() - start_ns) / LOOKS;
    post_office_close(office);
    return ns;
}

/* ---- the table ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static double median(double *values, uint32_t count)
{
    qsort(values, count, sizeof *values, compare);
    return values[count / 2];
}

/* Two processors that we may run on. */
static bool choose_processors(int *ret_processors)
{
    cpu_set_t set;
    int found = 0;
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return false;
    for (int i = 0; i < CPU_SETSIZE && found < 2; i++)
        if (CPU_ISSET((size_t)i, &set))
            ret_processors[found++] = i;
    return found == 2;
}

static bool parse(int argc, char **argv, uint64_t *rounds, uint64_t *batches)
{
    for (int i = 1; i < argc; i += 2) {
        uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], NULL, 10) : 0;
        if (strcmp(argv[i], "--rounds") == 0 && value > 0 && value <= ROUNDS_MAX)
            *rounds = value;
        else if (strcmp(argv[i], "--batches") == 0 && value > 0)
            *batches = value;
        else
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static double times[WAY_COUNT][SIZE_COUNT][ROUNDS_MAX];
    uint64_t rounds = 9, batches = 20000;
    int processors[2];
    if (!parse(argc, argv, &rounds, &batches)) {
        (void)fprintf(stderr, "usage: mail [--rounds 1..%u] [--batches N]\n", ROUNDS_MAX);
        return 2;
    }
    if (!choose_processors(processors)) {
        (void)fprintf(stderr, "mail: this needs two processors\n");
        return EXIT_FAILURE;
    }
    for (uint64_t round = 0; round < rounds; round++)
        for (uint32_t size = 0; size < SIZE_COUNT; size++)
            for (uint32_t way = 0; way < WAY_COUNT; way++)
                times[way][size][round] =
                    measure((enum way)way, batch_sizes[size], batches, processors);
    (void)printf("%-18s %6s %16s %16s %18s\n", "", "batch", "ns to and fro", "least",
                 "messages a second");
    for (uint32_t way = 0; way < WAY_COUNT; way++)
        for (uint32_t size = 0; size < SIZE_COUNT; size++) {
            double ns = median(times[way][size], (uint32_t)rounds);
            (void)printf("%-18s %6u %16.1f %16.1f %18.0f\n", way_names[way], batch_sizes[size], ns,
                         times[way][size][0], 2e9 / ns);
        }
    for (uint32_t shards = 2; shards <= POST_SHARDS_MAX; shards *= 2)
        (void)printf("a look into %3u empty boxes: %.0f ns\n", shards - 1, measure_look(shards));
    return EXIT_SUCCESS;
}
