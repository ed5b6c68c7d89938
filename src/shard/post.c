/* The post: a mailbox for each pair of shards and direction, credits, waking.
 *
 * Invariants: (1) of each peer, asking and owing are at most the credits, so that a box with room
 * for both is never full; (2) `asking` and `owing` of a post are the sums over its peers; (3) a
 * request that is lent names the shard that was asked; (4) bits are set in `dirty` only between a
 * message and the next flush; (5) when all have said that they ask no more, nobody owes anything. */
#include "shard/post.h"

#include "base/assert.h"
#include "base/memory.h"
#include "base/units.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DIRTY_WORDS (POST_SHARDS_MAX / 64)

/* How far ahead of its turn an answer's request is loaded, and how many cache lines of it. */
#define AHEAD 6u
#define REQUEST_LINES 4u

enum post_state { POST_NEW, POST_RUNS, POST_ASKS_NO_MORE, POST_WAKES_NO_MORE };

/* One shard at the other end, as this one sees it. */
struct peer {
    struct mailbox_writer writer;
    struct mailbox_reader reader;
    uint32_t asking; /* requests of ours whose answer was not taken: at most the credits */
    uint32_t owing;  /* requests of it that we have taken and not answered */
};

struct post {
    /* Read by others: a line of its own, since the rest changes all the time. */
    alignas(MAIL_SIZE) _Atomic bool is_asleep;
    struct io *io;
    alignas(MAIL_SIZE) struct post_office *office;
    uint32_t self;
    uint32_t asking, owing; /* sums over the peers */
    enum post_state state;
    bool is_taking;
    post_asked *asked;
    void *context;
    uint64_t dirty[DIRTY_WORDS]; /* to whom something was posted since the flush */
    struct post_counts counts;
    struct peer peers[]; /* by shard; our own is not used */
};

struct post_office {
    uint32_t shard_count;
    uint32_t credits;
    void *memory;
    size_t memory_size;
    alignas(MAIL_SIZE) _Atomic uint32_t asks_no_more; /* how many; these two at shutdown only */
    _Atomic uint32_t wakes_no_more;
    alignas(MAIL_SIZE) struct post *posts[];
};

/* ---- the node's ---- */

static uint32_t cells_of(uint32_t shard_count)
{
    uint32_t cells = POST_CELLS_MAX;
    while (cells > 2 && cells * shard_count > POST_CELLS)
        cells /= 2;
    return cells;
}

/* One mapping: the shared counts, by reader, since a reader looks at all of its own in each pass;
 * then the cells, by writer. */
static int map_boxes(struct post_office *office, uint32_t cell_count)
{
    size_t boxes = (size_t)office->shard_count * office->shard_count;
    office->memory_size = boxes * (sizeof(struct mailbox) + cell_count * sizeof(struct mail));
    office->memory = memory_map(office->memory_size);
    return office->memory == NULL ? -ENOMEM : 0;
}

static int create_posts(struct post_office *office)
{
    for (uint32_t i = 0; i < office->shard_count; i++) {
        size_t size = sizeof(struct post) + office->shard_count * sizeof(struct peer);
        struct post *post = aligned_alloc(MAIL_SIZE, round_up(size, MAIL_SIZE));
        if (post == NULL)
            return -ENOMEM;
        memset(post, 0, size);
        post->office = office;
        post->self = i;
        office->posts[i] = post;
    }
    return 0;
}

static void connect_posts(struct post_office *office, uint32_t cell_count)
{
    uint32_t count = office->shard_count;
    struct mailbox *boxes = office->memory;
    struct mail *cells = (struct mail *)(boxes + (size_t)count * count);
    for (uint32_t from = 0; from < count; from++)
        for (uint32_t to = 0; to < count; to++)
            mailbox_init(&boxes[(size_t)to * count + from],
                         cells + ((size_t)from * count + to) * cell_count, cell_count,
                         &office->posts[from]->peers[to].writer,
                         &office->posts[to]->peers[from].reader);
}

int post_office_open(uint32_t shard_count, struct post_office **ret_office)
{
    assert(shard_count > 0 && shard_count <= POST_SHARDS_MAX);
    size_t size = sizeof(struct post_office) + shard_count * sizeof(struct post *);
    struct post_office *office = aligned_alloc(MAIL_SIZE, round_up(size, MAIL_SIZE));
    if (office == NULL)
        return -ENOMEM;
    memset(office, 0, size);
    uint32_t cell_count = cells_of(shard_count);
    office->shard_count = shard_count;
    office->credits = cell_count / 2;
    int result = map_boxes(office, cell_count);
    if (result == 0)
        result = create_posts(office);
    if (result < 0) {
        post_office_close(office);
        return result;
    }
    connect_posts(office, cell_count);
    *ret_office = office;
    return 0;
}

void post_office_close(struct post_office *office)
{
    for (uint32_t i = 0; i < office->shard_count; i++)
        free(office->posts[i]);
    if (office->memory != NULL)
        memory_unmap(office->memory, office->memory_size);
    free(office);
}

uint32_t post_office_credits(const struct post_office *office)
{
    return office->credits;
}

struct post *post_office_post(struct post_office *office, uint32_t shard)
{
    assert(shard < office->shard_count);
    return office->posts[shard];
}

/* ---- posting ---- */

void post_join(struct post *post, struct io *io, post_asked *asked, void *context)
{
    assert(post->state == POST_NEW);
    post->io = io;
    post->asked = asked;
    post->context = context;
    post->state = POST_RUNS;
}

static struct peer *peer_of(struct post *post, uint32_t shard)
{
    assert(post->state != POST_NEW);
    assert(shard < post->office->shard_count);
    assert(shard != post->self);
    return &post->peers[shard];
}

/* The credits see to it that there is a cell. */
static void *write_to(struct post *post, uint32_t to, struct post_request *request, bool is_answer)
{
    struct mail *mail = mailbox_post(&post->peers[to].writer);
    assert(mail != NULL); /* invariant 1 */
    post->dirty[to / 64] |= (uint64_t)1 << (to % 64);
    mail->request = request;
    mail->is_answer = is_answer;
    return mail->body;
}

void *post_ask(struct post *post, uint32_t to, struct post_request *request)
{
    struct peer *peer = peer_of(post, to);
    assert(post->state == POST_RUNS);
    assert(request->asked == 0);
    assert(request->answered != NULL);
    if (peer->asking == post->office->credits) {
        post->counts.refused++;
        return NULL;
    }
    request->asked = to + 1;
    peer->asking++;
    post->asking++; /* invariant 2, here and below */
    post->counts.asked++;
    return write_to(post, to, request, false);
}

uint32_t post_credits(const struct post *post, uint32_t to)
{
    return post->office->credits - post->peers[to].asking;
}

void *post_answer(struct post *post, uint32_t to, struct post_request *request)
{
    struct peer *peer = peer_of(post, to);
    assert(peer->owing > 0);
    peer->owing--;
    post->owing--;
    post->counts.answered++;
    return write_to(post, to, request, true);
}

uint32_t post_posted(const struct post *post, uint32_t to)
{
    return mailbox_posted(&post->peers[to].writer);
}

bool post_has_taken(const struct post *post, uint32_t to, uint32_t count)
{
    return mailbox_has_given_back(&post->peers[to].writer, count);
}

/* ---- taking ---- */

static void take_answer(struct post *post, uint32_t from, const struct mail *mail)
{
    struct post_request *request = mail->request;
    struct peer *peer = &post->peers[from];
    assert(request->asked == from + 1); /* invariant 3: asked there, and not answered before */
    assert(peer->asking > 0);
    request->asked = 0;
    peer->asking--;
    post->asking--;
    request->answered(request, mail->body);
}

static void take_request(struct post *post, uint32_t from, const struct mail *mail)
{
    struct peer *peer = &post->peers[from];
    assert(peer->owing < post->office->credits); /* invariant 1 */
    peer->owing++;
    post->owing++;
    post->asked(post->context, from, mail->request, mail->body);
}

/* Of an answer: begins to load what was asked, and what it is embedded in. */
static void load(const struct mail *mail)
{
    if (mail == NULL || !mail->is_answer)
        return;
    const uint8_t *request = mail->request;
    for (uint32_t line = 0; line < REQUEST_LINES; line++)
        __builtin_prefetch(request + (size_t)line * MAIL_SIZE, 1);
}

static uint32_t take_from(struct post *post, uint32_t from)
{
    struct mailbox_reader *reader = &post->peers[from].reader;
    uint32_t count = mailbox_look(reader);
    if (count == 0)
        return 0;
    const struct mail *mail;
    for (uint32_t i = 0; i < AHEAD; i++)
        load(mailbox_peek(reader, i));
    while ((mail = mailbox_next(reader)) != NULL) {
        load(mailbox_peek(reader, AHEAD - 1));
        if (mail->is_answer)
            take_answer(post, from, mail);
        else
            take_request(post, from, mail);
    }
    mailbox_release(reader);
    return count;
}

uint32_t post_take(struct post *post)
{
    assert(post->state != POST_NEW);
    assert(!post->is_taking);
    post->is_taking = true;
    uint32_t count = 0;
    for (uint32_t from = 0; from < post->office->shard_count; from++)
        if (from != post->self)
            count += take_from(post, from);
    post->is_taking = false;
    post->counts.taken += count;
    return count;
}

/* ---- showing, waking, sleeping ---- */

/* The lowest one, which is taken out of the set; POST_SHARDS_MAX when it is empty. */
static uint32_t pop_dirty(uint64_t *dirty)
{
    for (uint32_t word = 0; word < DIRTY_WORDS; word++)
        if (dirty[word] != 0) {
            uint32_t bit = (uint32_t)__builtin_ctzll(dirty[word]);
            dirty[word] &= dirty[word] - 1;
            return word * 64 + bit;
        }
    return POST_SHARDS_MAX;
}

static bool is_dirty(const struct post *post)
{
    uint64_t any = 0;
    for (uint32_t word = 0; word < DIRTY_WORDS; word++)
        any |= post->dirty[word];
    return any != 0;
}

static void wake(struct post *post, uint32_t to)
{
    struct post *other = post->office->posts[to];
    /* Acquire: it wrote `io` before it slept for the first time. */
    if (!atomic_load_explicit(&other->is_asleep, memory_order_acquire))
        return;
    post->counts.wakes++;
    io_wake(other->io);
}

void post_flush(struct post *post)
{
    assert(!post->is_taking);
    assert(post->state != POST_WAKES_NO_MORE || !is_dirty(post));
    if (!is_dirty(post))
        return;
    post->counts.flushes++;
    uint64_t shown[DIRTY_WORDS];
    memcpy(shown, post->dirty, sizeof shown);
    uint32_t to;
    while ((to = pop_dirty(post->dirty)) < POST_SHARDS_MAX)
        mailbox_flush(&post->peers[to].writer);
    atomic_thread_fence(memory_order_seq_cst); /* with post_may_sleep's: see the header */
    while ((to = pop_dirty(shown)) < POST_SHARDS_MAX)
        wake(post, to);
}

bool post_may_sleep(struct post *post)
{
    assert(!is_dirty(post)); /* invariant 4 */
    atomic_store_explicit(&post->is_asleep, true, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* with post_flush's */
    for (uint32_t from = 0; from < post->office->shard_count; from++)
        if (from != post->self && mailbox_look(&post->peers[from].reader) > 0) {
            post_woke(post);
            return false;
        }
    return true;
}

void post_woke(struct post *post)
{
    atomic_store_explicit(&post->is_asleep, false, memory_order_relaxed);
}

/* ---- the way down ---- */

uint32_t post_asking(const struct post *post)
{
    return post->asking;
}

uint32_t post_owing(const struct post *post)
{
    return post->owing;
}

/* Two rounds. When all ask no more, no message is under way; but whoever posted the last one may
 * still be about to wake its reader, so each says once more that it is beyond that. */
bool post_end(struct post *post)
{
    struct post_office *office = post->office;
    assert(!post->is_taking);
    assert(post->asking == 0);
    assert(!is_dirty(post));
    if (post->state == POST_RUNS) {
        post->state = POST_ASKS_NO_MORE;
        (void)atomic_fetch_add(&office->asks_no_more, 1);
    }
    if (post->state == POST_ASKS_NO_MORE &&
        atomic_load(&office->asks_no_more) == office->shard_count) {
        assert(post->owing == 0); /* invariant 5 */
        post->state = POST_WAKES_NO_MORE;
        (void)atomic_fetch_add(&office->wakes_no_more, 1);
    }
    return post->state == POST_WAKES_NO_MORE &&
           atomic_load(&office->wakes_no_more) == office->shard_count;
}

struct post_counts post_counts(const struct post *post)
{
    return post->counts;
}
