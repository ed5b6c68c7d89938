/* The post under random interleavings of its shards' steps, in one thread: every seed is another
 * order. What a message points to lies in pages that fault when it is touched out of turn
 * (tests/support/lent_page.h), each shard sleeps in a world of its own, and when all of them sleep
 * nothing may be under way. */
#include "base/prng.h"
#include "io/io_sim.h"
#include "shard/post.h"
#include "tests/support/support.h"

#include "tests/support/lent_page.h"

#include <signal.h>

#define SHARDS_MAX 5u
#define LETTERS 24u /* of a shard: more than some boxes have credits */
#define SEEDS 100u
#define STEPS 3000u
#define SLEEP_NS NS_PER_S

struct sim_shard;

struct letter {
    struct post_request request;
    struct list_node node; /* idle, at its asker */
    uint8_t *page;
    uint64_t seed; /* of its bytes */
    uint32_t to;
    uint64_t number; /* of this pair of shards */
};

/* What a message carries: the seed of the page's bytes, and of an answer its number. */
struct note {
    struct sim_shard *asker;
    uint64_t seed;
    uint64_t number;
};

/* What a shard was asked and has not answered. */
struct errand {
    struct list_node node;
    uint32_t from;
    struct letter *letter;
    uint64_t seed;
};

enum phase { PHASE_WORKS, PHASE_SHOWN, PHASE_SLEEPS };

struct sim_shard {
    struct post *post;
    struct io *io;
    enum phase phase;
    struct letter letters[LETTERS];
    struct list idle;
    struct list errands;
    uint64_t asked_to[SHARDS_MAX];   /* numbers given */
    uint64_t asked_by[SHARDS_MAX];   /* numbers seen: they come in order */
    uint64_t answers_to[SHARDS_MAX]; /* the same for answers */
    uint64_t answers_of[SHARDS_MAX];
    uint64_t done;
    struct town *town;
};

struct town {
    struct prng prng;
    struct sim *sim;
    struct post_office *office;
    uint32_t shard_count;
    struct sim_shard shards[SHARDS_MAX];
    bool asks; /* new requests are made */
};

static bool chance(struct town *town, uint32_t one_in)
{
    return prng_below(&town->prng, one_in) == 0;
}

static void fill_page(uint8_t *page, uint64_t seed)
{
    struct prng prng = {seed};
    for (uint32_t i = 0; i < 64; i += 8) {
        uint64_t word = prng_next(&prng);
        memcpy(page + i, &word, 8);
    }
}

static void read_page(const uint8_t *page, uint64_t seed)
{
    uint8_t expected[64];
    fill_page(expected, seed);
    cr_assert_eq(memcmp(page, expected, sizeof expected), 0);
}

static void letter_answered(struct post_request *request, const void *body)
{
    struct letter *letter = container_of(request, struct letter, request);
    struct note note;
    memcpy(&note, body, sizeof note);
    struct sim_shard *shard = note.asker;
    cr_assert_eq(note.number, shard->answers_of[letter->to]++, "answers keep their order");
    cr_assert_eq(note.seed, letter->seed);
    read_page(letter->page, letter->seed);
    lent_page_give_back(letter->page);
    list_push_back(&shard->idle, &letter->node);
    shard->done++;
}

/* Returns whether there was a letter and a credit. */
static bool ask_somebody(struct town *town, struct sim_shard *shard)
{
    uint32_t self = (uint32_t)(shard - town->shards);
    uint32_t to = (uint32_t)prng_below(&town->prng, town->shard_count - 1);
    to += to >= self;
    struct list_node *node = list_first(&shard->idle);
    if (node == NULL)
        return false;
    struct letter *letter = container_of(node, struct letter, node);
    letter->request.answered = letter_answered;
    void *body = post_ask(shard->post, to, &letter->request);
    if (body == NULL)
        return false;
    list_remove(node);
    letter->to = to;
    letter->seed = prng_next(&town->prng);
    letter->number = shard->asked_to[to]++;
    lent_page_take_up(letter->page);
    fill_page(letter->page, letter->seed);
    lent_page_lend(letter->page);
    struct note note = {.asker = shard, .seed = letter->seed};
    memcpy(body, &note, sizeof note);
    return true;
}

static void answer_one(struct town *town, struct sim_shard *shard)
{
    struct list_node *node =
        chance(town, 2) ? list_first(&shard->errands) : list_last(&shard->errands);
    if (node == NULL)
        return;
    list_remove(node);
    struct errand *errand = container_of(node, struct errand, node);
    read_page(errand->letter->page, errand->seed);
    void *body = post_answer(shard->post, errand->from, &errand->letter->request);
    struct note note = {&town->shards[errand->from], errand->seed,
                        shard->answers_to[errand->from]++};
    memcpy(body, &note, sizeof note);
    free(errand);
}

static void letter_asked(void *context, uint32_t from, struct post_request *request,
                         const void *body)
{
    struct sim_shard *shard = context;
    struct errand *errand = calloc(1, sizeof *errand);
    cr_assert_not_null(errand);
    errand->from = from;
    errand->letter = container_of(request, struct letter, request);
    struct note note;
    memcpy(&note, body, sizeof note);
    errand->seed = note.seed;
    cr_assert_eq(note.asker, &shard->town->shards[from]);
    cr_assert_eq(errand->letter->number, shard->asked_by[from]++, "requests keep their order");
    read_page(errand->letter->page, errand->seed);
    list_push_back(&shard->errands, &errand->node);
    if (chance(shard->town, 3))
        answer_one(shard->town, shard);
    if (shard->town->asks && chance(shard->town, 4))
        (void)ask_somebody(shard->town, shard);
}

/* ---- the steps ---- */

static void sleep_on(struct sim_shard *shard)
{
    uint64_t before_ns = sim_now_ns(shard->town->sim);
    cr_assert_eq(io_run(shard->io, SLEEP_NS), 0);
    if (sim_now_ns(shard->town->sim) - before_ns >= SLEEP_NS)
        return; /* nobody has woken it */
    post_woke(shard->post);
    shard->phase = PHASE_WORKS;
}

/* A shard may also be woken by something else. */
static void oversleep(struct town *town, struct sim_shard *shard)
{
    if (town->asks && chance(town, 20))
        io_wake(shard->io);
    sleep_on(shard);
}

static void work(struct town *town, struct sim_shard *shard)
{
    switch (prng_below(&town->prng, 4)) {
    case 0:
        (void)post_take(shard->post);
        break;
    case 1:
        for (uint64_t i = prng_below(&town->prng, 2 * LETTERS); town->asks && i > 0; i--)
            (void)ask_somebody(town, shard);
        break;
    case 2:
        for (uint64_t i = prng_below(&town->prng, LETTERS); i > 0; i--)
            answer_one(town, shard);
        break;
    default:
        post_flush(shard->post);
        shard->phase = PHASE_SHOWN;
        break;
    }
}

static void step(struct town *town)
{
    struct sim_shard *shard = &town->shards[prng_below(&town->prng, town->shard_count)];
    switch (shard->phase) {
    case PHASE_WORKS:
        work(town, shard);
        break;
    case PHASE_SHOWN: /* with errands it has work, and does not think of sleep */
        if (list_is_empty(&shard->errands) && post_may_sleep(shard->post))
            shard->phase = PHASE_SLEEPS;
        else
            shard->phase = PHASE_WORKS;
        break;
    case PHASE_SLEEPS:
        oversleep(town, shard);
        break;
    }
}

/* ---- the town ---- */

static void open_shard(struct town *town, uint32_t index)
{
    static const struct io_options options = WORLD_OPTIONS;
    struct sim_shard *shard = &town->shards[index];
    sim_host_open(town->sim, sim_disk_create(town->sim), &options, &shard->io);
    shard->town = town;
    shard->post = post_office_post(town->office, index);
    list_init(&shard->idle);
    list_init(&shard->errands);
    for (uint32_t i = 0; i < LETTERS; i++) {
        shard->letters[i].page = lent_page_open();
        list_push_back(&shard->idle, &shard->letters[i].node);
    }
    post_join(shard->post, shard->io, letter_asked, shard);
}

static struct town *town_open(uint64_t seed)
{
    struct town *town = calloc(1, sizeof *town);
    cr_assert_not_null(town);
    town->prng.state = seed;
    town->sim = sim_create(seed);
    sim_options(town->sim)->pause_ppm = 0; /* the time tells who was woken */
    town->shard_count = 2 + (uint32_t)prng_below(&town->prng, SHARDS_MAX - 1);
    cr_assert_eq(post_office_open(town->shard_count, &town->office), 0);
    town->asks = true;
    for (uint32_t i = 0; i < town->shard_count; i++)
        open_shard(town, i);
    return town;
}

static void town_close(struct town *town)
{
    for (uint32_t i = 0; i < town->shard_count; i++) {
        io_close(town->shards[i].io);
        for (uint32_t l = 0; l < LETTERS; l++)
            lent_page_close(town->shards[i].letters[l].page);
    }
    post_office_close(town->office);
    sim_free(town->sim);
    free(town);
}

static bool all_sleep(const struct town *town)
{
    for (uint32_t i = 0; i < town->shard_count; i++)
        if (town->shards[i].phase != PHASE_SLEEPS)
            return false;
    return true;
}

/* Nobody asks any more: the rest comes to its end by itself, or somebody sleeps over it. */
static void settle(struct town *town)
{
    town->asks = false;
    for (uint32_t quiet = 0, steps = 0; quiet < 20 * SHARDS_MAX; steps++) {
        cr_assert_lt(steps, 100000, "it does not come to rest");
        step(town);
        quiet = all_sleep(town) ? quiet + 1 : 0;
    }
    for (uint32_t i = 0; i < town->shard_count; i++) {
        struct sim_shard *shard = &town->shards[i];
        cr_assert_eq(post_asking(shard->post), 0, "slept over");
        cr_assert_eq(post_owing(shard->post), 0);
        cr_assert_eq(post_counts(shard->post).asked, shard->done);
        for (uint32_t p = 0; p < town->shard_count; p++)
            cr_assert_eq(shard->asked_to[p], town->shards[p].asked_by[i]);
    }
}

Test(post, any_interleaving_keeps_order_and_ownership_and_wakes)
{
    uint64_t done = 0, wakes = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct town *town = town_open(seed);
        for (uint32_t i = 0; i < STEPS; i++)
            step(town);
        settle(town);
        for (uint32_t i = 0; i < town->shard_count; i++) {
            done += town->shards[i].done;
            wakes += post_counts(town->shards[i].post).wakes;
        }
        town_close(town);
    }
    cr_assert_gt(done, 100 * SEEDS, "%llu", (unsigned long long)done);
    cr_assert_gt(wakes, 10 * SEEDS, "%llu", (unsigned long long)wakes);
}

/* The pages find what they are there for. */

static uint8_t *misused_page(void)
{
    (void)signal(SIGSEGV, SIG_DFL); /* the sanitizers would call it something else */
    uint8_t *page = lent_page_open();
    lent_page_take_up(page);
    fill_page(page, 1);
    lent_page_lend(page);
    read_page(page, 1);
    return page;
}

Test(post, a_read_after_the_answer_is_found, .signal = SIGSEGV)
{
    uint8_t *page = misused_page();
    lent_page_give_back(page);
    read_page(page, 1);
}

Test(post, a_write_while_it_is_lent_is_found, .signal = SIGSEGV)
{
    fill_page(misused_page(), 2);
}
