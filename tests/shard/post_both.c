/* Who is woken out of io_run by the post, in both worlds. */
#include "shard/post.h"
#include "tests/support/support.h"

struct ends {
    struct world *world;
    struct post_office *office;
    struct post *near, *far; /* only the near one sleeps */
    struct post_request request;
    uint32_t asked, answered;
};

static void count_asked(void *context, uint32_t from, struct post_request *request,
                        const void *body)
{
    (void)body;
    struct ends *ends = context;
    ends->asked++;
    (void)post_answer(ends->near, from, request);
}

static void count_answered(struct post_request *request, const void *body)
{
    (void)body;
    container_of(request, struct ends, request)->answered++;
}

static void ends_open(struct ends *ends)
{
    *ends = (struct ends){.world = world_open(NULL)};
    cr_assert_eq(post_office_open(2, &ends->office), 0);
    ends->near = post_office_post(ends->office, 0);
    ends->far = post_office_post(ends->office, 1);
    post_join(ends->near, world_io(ends->world), count_asked, ends);
    post_join(ends->far, NULL, NULL, NULL);
    ends->request.answered = count_answered;
}

static void ends_close(struct ends *ends)
{
    world_close(ends->world);
    post_office_close(ends->office);
}

static void ask_near(struct ends *ends)
{
    cr_assert_not_null(post_ask(ends->far, 0, &ends->request));
    post_flush(ends->far);
}

/* Sleeps until it is woken. The simulated world would sleep on to the end of this time. */
static void sleep_until_woken(struct ends *ends)
{
    struct io *io = world_io(ends->world);
    uint64_t before_ns = io_now_ns(io);
    cr_assert_eq(io_run(io, 3600 * NS_PER_S), 0);
    cr_assert_lt(io_now_ns(io) - before_ns, 3600 * NS_PER_S);
    post_woke(ends->near);
}

Test(post, a_message_ends_a_sleep_that_was_announced, .timeout = 60)
{
    struct ends ends;
    ends_open(&ends);
    for (uint32_t i = 1; i <= 100; i++) {
        cr_assert(post_may_sleep(ends.near));
        ask_near(&ends);
        sleep_until_woken(&ends);
        cr_assert_eq(post_take(ends.near), 1);
        cr_assert_eq(ends.asked, i);
        post_flush(ends.near);
        cr_assert_eq(post_take(ends.far), 1);
        cr_assert_eq(ends.answered, i);
        cr_assert_eq(post_counts(ends.far).wakes, i);
    }
    cr_assert_eq(post_counts(ends.near).wakes, 0, "the far one never sleeps");
    ends_close(&ends);
}

Test(post, who_is_awake_is_not_woken)
{
    struct ends ends;
    ends_open(&ends);
    cr_assert(post_may_sleep(ends.near));
    post_woke(ends.near);
    ask_near(&ends);
    cr_assert_eq(post_counts(ends.far).wakes, 0);
    struct io *io = world_io(ends.world);
    uint64_t before_ns = io_now_ns(io);
    cr_assert_eq(io_run(io, 20 * NS_PER_MS), 0);
    cr_assert_geq(io_now_ns(io) - before_ns, 20 * NS_PER_MS, "nothing has ended this sleep");
    ends_close(&ends);
}

Test(post, a_flush_wakes_once)
{
    struct ends ends;
    ends_open(&ends);
    struct post_request more[10];
    memset(more, 0, sizeof more);
    cr_assert(post_may_sleep(ends.near));
    for (uint32_t i = 0; i < 10; i++) {
        more[i].answered = count_answered;
        cr_assert_not_null(post_ask(ends.far, 0, &more[i]));
    }
    post_flush(ends.far);
    cr_assert_eq(post_counts(ends.far).wakes, 1);
    sleep_until_woken(&ends);
    cr_assert_eq(post_take(ends.near), 10);
    post_flush(ends.far);
    cr_assert_eq(post_counts(ends.far).wakes, 1, "nothing new to show");
    ends_close(&ends);
}

Test(post, a_sleep_that_finds_mail_is_called_off)
{
    struct ends ends;
    ends_open(&ends);
    ask_near(&ends);
    cr_assert_not(post_may_sleep(ends.near));
    struct post_request second = {.answered = count_answered};
    cr_assert_not_null(post_ask(ends.far, 0, &second));
    post_flush(ends.far);
    cr_assert_eq(post_counts(ends.far).wakes, 0, "it does not sleep");
    cr_assert_eq(post_take(ends.near), 2);
    ends_close(&ends);
}
