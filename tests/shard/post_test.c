/* The post between shards by itself, on one thread: requests, answers, credits and sleep. */
#include "shard/post.h"

#include "base/units.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS 3u

struct question {
    struct post_request request;
    uint32_t number;
    uint32_t answer_count;
    uint32_t answer; /* the last one */
};

struct body {
    uint64_t number;
    const void *pointer;
    uint8_t rest[MAIL_BODY_SIZE - 16];
};

/* Shards that keep what they are asked, in order, until they are told to answer. */
struct shard_model {
    struct post *post;
    struct {
        uint32_t from;
        struct question *question;
    } kept[4096];
    uint32_t kept_count;
};

struct node {
    struct post_office *office;
    struct shard_model shards[SHARDS];
};

static void keep(void *context, uint32_t from, struct post_request *request, const void *body_there)
{
    struct shard_model *shard = context;
    const struct body *body = body_there;
    struct question *question = container_of(request, struct question, request);
    cr_assert_eq(body->number, question->number);
    cr_assert_eq(body->pointer, question);
    cr_assert_eq(body->rest[sizeof body->rest - 1], (uint8_t)question->number);
    cr_assert_lt(shard->kept_count, 4096);
    shard->kept[shard->kept_count].from = from;
    shard->kept[shard->kept_count++].question = question;
}

static void answered(struct post_request *request, const void *body)
{
    struct question *question = container_of(request, struct question, request);
    question->answer_count++;
    memcpy(&question->answer, body, sizeof question->answer);
}

static void node_open(struct node *node)
{
    memset(node, 0, sizeof *node);
    cr_assert_eq(post_office_open(SHARDS, &node->office), 0);
    for (uint32_t i = 0; i < SHARDS; i++) {
        node->shards[i].post = post_office_post(node->office, i);
        post_join(node->shards[i].post, NULL, keep, &node->shards[i]);
    }
}

/* Returns whether there was a credit. */
static bool ask(struct node *node, uint32_t from, uint32_t to, struct question *question)
{
    question->request.answered = answered;
    void *target = post_ask(node->shards[from].post, to, &question->request);
    if (target == NULL)
        return false;
    struct body body = {.number = question->number, .pointer = question};
    body.rest[sizeof body.rest - 1] = (uint8_t)question->number;
    memcpy(target, &body, sizeof body);
    return true;
}

static void answer(struct node *node, uint32_t shard, uint32_t index, uint32_t value)
{
    struct shard_model *model = &node->shards[shard];
    void *body =
        post_answer(model->post, model->kept[index].from, &model->kept[index].question->request);
    memcpy(body, &value, sizeof value);
}

static void flush(struct node *node, uint32_t shard)
{
    post_flush(node->shards[shard].post);
}

static uint32_t take(struct node *node, uint32_t shard)
{
    return post_take(node->shards[shard].post);
}

Test(post, a_request_goes_there_and_its_answer_comes_back)
{
    static struct node node;
    node_open(&node);
    struct question question = {.number = 7};
    cr_assert(ask(&node, 0, 2, &question));
    cr_assert_eq(take(&node, 2), 0, "it is not shown yet");
    flush(&node, 0);
    cr_assert_eq(take(&node, 1), 0, "nobody else gets it");
    cr_assert_eq(take(&node, 2), 1);
    cr_assert_eq(node.shards[2].kept_count, 1);
    cr_assert_eq(node.shards[2].kept[0].from, 0);
    cr_assert_eq(node.shards[2].kept[0].question, &question);
    cr_assert_eq(post_asking(node.shards[0].post), 1);
    cr_assert_eq(post_owing(node.shards[2].post), 1);
    answer(&node, 2, 0, 70);
    cr_assert_eq(post_owing(node.shards[2].post), 0);
    flush(&node, 2);
    cr_assert_eq(question.answer_count, 0);
    cr_assert_eq(take(&node, 0), 1);
    cr_assert_eq(question.answer_count, 1);
    cr_assert_eq(question.answer, 70);
    cr_assert_eq(post_asking(node.shards[0].post), 0);
    post_office_close(node.office);
}

static void answer_all(struct node *node, uint32_t shard)
{
    struct shard_model *model = &node->shards[shard];
    for (uint32_t i = 0; i < model->kept_count; i++)
        answer(node, shard, i, 0);
    model->kept_count = 0;
}

static struct question *ask_all_credits(struct node *node, uint32_t from, uint32_t to)
{
    uint32_t credits = post_office_credits(node->office);
    struct question *questions = calloc(credits, sizeof *questions);
    cr_assert_not_null(questions);
    for (uint32_t i = 0; i < credits; i++) {
        cr_assert_eq(post_credits(node->shards[from].post, to), credits - i);
        cr_assert(ask(node, from, to, &questions[i]));
    }
    return questions;
}

Test(post, without_a_credit_nothing_is_asked)
{
    static struct node node;
    node_open(&node);
    uint32_t credits = post_office_credits(node.office);
    struct question *questions = ask_all_credits(&node, 0, 1);
    struct question extra = {.number = 1}, elsewhere = {.number = 2}, more = {.number = 3};
    cr_assert_eq(post_credits(node.shards[0].post, 1), 0);
    cr_assert_not(ask(&node, 0, 1, &extra));
    cr_assert(ask(&node, 0, 2, &elsewhere), "credits are for one shard each");
    flush(&node, 0);
    cr_assert_eq(take(&node, 1), credits);
    cr_assert_not(ask(&node, 0, 1, &extra), "taken is not answered");
    answer(&node, 1, 0, 5);
    cr_assert_not(ask(&node, 0, 1, &extra), "answered is not taken");
    flush(&node, 1);
    cr_assert_eq(take(&node, 0), 1);
    cr_assert_eq(post_credits(node.shards[0].post, 1), 1);
    cr_assert(ask(&node, 0, 1, &extra));
    cr_assert_not(ask(&node, 0, 1, &more));
    cr_assert_eq(post_counts(node.shards[0].post).refused, 4);
    free(questions);
    post_office_close(node.office);
}

/* The worst that the credits allow: all of both directions, before anybody takes; then each has all
 * requests of the other unanswered and all answers untaken. */
Test(post, full_boxes_still_have_a_cell_for_every_answer)
{
    static struct node node;
    node_open(&node);
    uint32_t credits = post_office_credits(node.office);
    struct question *there = ask_all_credits(&node, 0, 1);
    struct question *back = ask_all_credits(&node, 1, 0);
    flush(&node, 0);
    flush(&node, 1);
    cr_assert_eq(take(&node, 0), credits);
    answer_all(&node, 0);
    flush(&node, 0);
    cr_assert_eq(take(&node, 1), 2 * credits, "its requests, and all of the answers");
    for (uint32_t i = 0; i < credits; i++)
        cr_assert(ask(&node, 1, 0, &back[i]), "the credits are back");
    answer_all(&node, 1);
    flush(&node, 1);
    cr_assert_eq(take(&node, 0), 2 * credits);
    answer_all(&node, 0);
    flush(&node, 0);
    cr_assert_eq(take(&node, 1), credits);
    for (uint32_t i = 0; i < credits; i++) {
        cr_assert_eq(there[i].answer_count, 1);
        cr_assert_eq(back[i].answer_count, 2);
    }
    free(there);
    free(back);
    post_office_close(node.office);
}

static struct question *delivery[64];
static uint32_t delivery_count;

static void note_delivery(struct post_request *request, const void *body)
{
    (void)body;
    delivery[delivery_count++] = container_of(request, struct question, request);
}

Test(post, answers_come_in_the_order_in_which_they_were_given)
{
    static struct node node;
    node_open(&node);
    static const uint32_t order[] = {3, 0, 4, 1, 2};
    struct question questions[5];
    memset(questions, 0, sizeof questions);
    for (uint32_t i = 0; i < 5; i++) {
        questions[i].number = i;
        cr_assert(ask(&node, 2, 0, &questions[i]));
        questions[i].request.answered = note_delivery;
    }
    flush(&node, 2);
    cr_assert_eq(take(&node, 0), 5);
    for (uint32_t i = 0; i < 5; i++)
        cr_assert_eq(node.shards[0].kept[i].question, &questions[i],
                     "requests as they were posted");
    delivery_count = 0;
    for (uint32_t i = 0; i < 5; i++) {
        answer(&node, 0, order[i], 0);
        flush(&node, 0);
        if (i % 2 == 0)
            (void)take(&node, 2);
    }
    (void)take(&node, 2);
    cr_assert_eq(delivery_count, 5);
    for (uint32_t i = 0; i < 5; i++)
        cr_assert_eq(delivery[i], &questions[order[i]]);
    post_office_close(node.office);
}

struct chain {
    struct question question;
    struct node *node;
    uint32_t left;
};

static void ask_again(struct post_request *request, const void *body)
{
    (void)body;
    struct chain *chain = container_of(request, struct chain, question.request);
    chain->question.answer_count++;
    if (chain->left-- == 0)
        return;
    cr_assert(ask(chain->node, 0, 1, &chain->question));
    chain->question.request.answered = ask_again;
}

Test(post, an_answered_request_may_be_asked_again_at_once)
{
    static struct node node;
    node_open(&node);
    struct chain chain = {.node = &node, .left = 10000};
    cr_assert(ask(&node, 0, 1, &chain.question));
    chain.question.request.answered = ask_again;
    while (post_asking(node.shards[0].post) > 0) {
        flush(&node, 0);
        cr_assert_eq(take(&node, 1), 1);
        answer_all(&node, 1);
        flush(&node, 1);
        cr_assert_eq(take(&node, 0), 1);
    }
    cr_assert_eq(chain.question.answer_count, 10001);
    struct post_counts counts = post_counts(node.shards[0].post);
    cr_assert_eq(counts.asked, 10001);
    cr_assert_eq(counts.taken, 10001);
    cr_assert_eq(counts.flushes, 10001);
    cr_assert_eq(counts.wakes, 0);
    cr_assert_eq(post_counts(node.shards[1].post).answered, 10001);
    post_office_close(node.office);
}

Test(post, sleep_is_refused_while_something_waits)
{
    static struct node node;
    node_open(&node);
    struct question question = {.number = 1};
    cr_assert(post_may_sleep(node.shards[1].post));
    post_woke(node.shards[1].post);
    cr_assert(ask(&node, 0, 1, &question));
    cr_assert(post_may_sleep(node.shards[1].post), "what is not shown wakes nobody");
    post_woke(node.shards[1].post);
    flush(&node, 0);
    cr_assert_not(post_may_sleep(node.shards[1].post));
    cr_assert_eq(take(&node, 1), 1);
    cr_assert(post_may_sleep(node.shards[1].post));
    post_woke(node.shards[1].post);
    answer_all(&node, 1);
    flush(&node, 1);
    cr_assert_not(post_may_sleep(node.shards[0].post));
    cr_assert_eq(post_counts(node.shards[0].post).wakes, 0);
    post_office_close(node.office);
}

Test(post, the_end_comes_for_all_at_once)
{
    static struct node node;
    node_open(&node);
    struct question question = {.number = 1};
    cr_assert(ask(&node, 0, 1, &question));
    flush(&node, 0);
    cr_assert_not(post_end(node.shards[1].post), "before it takes what comes");
    cr_assert_not(post_end(node.shards[2].post));
    cr_assert_eq(take(&node, 1), 1);
    answer_all(&node, 1);
    flush(&node, 1);
    cr_assert_not(post_end(node.shards[1].post));
    cr_assert_eq(take(&node, 0), 1);
    cr_assert_not(post_end(node.shards[0].post), "the others do not know yet");
    cr_assert_not(post_end(node.shards[2].post));
    cr_assert(post_end(node.shards[1].post));
    cr_assert(post_end(node.shards[0].post));
    cr_assert(post_end(node.shards[2].post));
    post_office_close(node.office);
}

Test(post, one_shard_has_nobody_to_ask)
{
    struct post_office *office;
    cr_assert_eq(post_office_open(1, &office), 0);
    struct post *post = post_office_post(office, 0);
    post_join(post, NULL, keep, NULL);
    cr_assert_eq(post_take(post), 0);
    post_flush(post);
    cr_assert(post_may_sleep(post));
    post_woke(post);
    cr_assert(post_end(post));
    post_office_close(office);
}

Test(post, every_shard_reaches_every_other)
{
    struct post_office *office;
    cr_assert_eq(post_office_open(POST_SHARDS_MAX, &office), 0);
    cr_assert_eq(post_office_credits(office), 16);
    static struct shard_model shards[POST_SHARDS_MAX];
    static struct question questions[POST_SHARDS_MAX];
    for (uint32_t i = 0; i < POST_SHARDS_MAX; i++) {
        shards[i].post = post_office_post(office, i);
        post_join(shards[i].post, NULL, keep, &shards[i]);
    }
    for (uint32_t i = 0; i < POST_SHARDS_MAX; i++) {
        for (uint32_t to = 0; to < POST_SHARDS_MAX; to++) {
            if (to == i)
                continue;
            questions[to] = (struct question){.request.answered = answered, .number = to};
            void *target = post_ask(shards[i].post, to, &questions[to].request);
            cr_assert_not_null(target);
            struct body body = {.number = to, .pointer = &questions[to]};
            body.rest[sizeof body.rest - 1] = (uint8_t)to;
            memcpy(target, &body, sizeof body);
        }
        post_flush(shards[i].post);
        for (uint32_t to = 0; to < POST_SHARDS_MAX; to++) {
            if (to == i)
                continue;
            cr_assert_eq(post_take(shards[to].post), 1);
            cr_assert_eq(shards[to].kept[0].from, i);
            (void)post_answer(shards[to].post, i, &shards[to].kept[0].question->request);
            post_flush(shards[to].post);
            shards[to].kept_count = 0;
        }
        cr_assert_eq(post_take(shards[i].post), POST_SHARDS_MAX - 1);
        cr_assert_eq(post_asking(shards[i].post), 0);
    }
    post_office_close(office);
}

/* ---- our own errors are caught ---- */

static struct node misused;

Test(post, a_lent_request_cannot_be_asked_again, .signal = SIGABRT)
{
    node_open(&misused);
    struct question question = {.number = 1};
    cr_assert(ask(&misused, 0, 1, &question));
    (void)ask(&misused, 0, 2, &question);
}

Test(post, nobody_asks_itself, .signal = SIGABRT)
{
    node_open(&misused);
    struct question question = {.number = 1};
    (void)ask(&misused, 1, 1, &question);
}

Test(post, nothing_is_answered_that_was_not_asked, .signal = SIGABRT)
{
    node_open(&misused);
    struct question question = {.number = 1};
    (void)post_answer(misused.shards[1].post, 0, &question.request);
}

Test(post, nothing_is_answered_twice, .signal = SIGABRT)
{
    node_open(&misused);
    struct question first = {.number = 1}, second = {.number = 2};
    if (!ask(&misused, 0, 1, &first) || !ask(&misused, 0, 1, &second))
        return;
    flush(&misused, 0);
    (void)take(&misused, 1);
    answer(&misused, 1, 0, 0);
    answer(&misused, 1, 0, 0);
    flush(&misused, 1);
    (void)take(&misused, 0);
}

Test(post, nobody_sleeps_on_what_it_did_not_show, .signal = SIGABRT)
{
    node_open(&misused);
    struct question question = {.number = 1};
    (void)ask(&misused, 0, 1, &question);
    (void)post_may_sleep(misused.shards[0].post);
}

Test(post, nobody_ends_with_a_request_under_way, .signal = SIGABRT)
{
    node_open(&misused);
    struct question question = {.number = 1};
    (void)ask(&misused, 0, 1, &question);
    flush(&misused, 0);
    (void)post_end(misused.shards[0].post);
}
