/* The window onto an input: two parts of memory, of which one is taken apart while the other one
 * is filled.
 *
 * Invariants:
 * 1. A part's valid bytes lie within what was asked for, and that within MOVER_PART_SIZE.
 * 2. The bytes before a part's own are at most MOVER_PART_SIZE, and lie in the file right before it.
 * 3. A part is loaded only while none of its reads is on its way.
 * 4. The part that is read ahead begins in the file where the present one ends.
 * 5. Nothing is read behind the input's end. */
#include "store/mover/mover_window.h"

#include "base/assert.h"

#include <errno.h>
#include <string.h>

/* A device that refuses this many reads of an input is not asked any further. */
#define READ_FAILURES_MAX 64u

static bool is_on_its_way(const struct mover_part *part)
{
    bool is_active = false;
    for (uint32_t i = 0; i < MOVER_PIECES; i++)
        is_active |= io_op_is_active(&part->pieces[i]);
    return is_active;
}

bool mover_window_is_active(const struct mover_window *window)
{
    return is_on_its_way(&window->parts[0]) || is_on_its_way(&window->parts[1]);
}

static struct mover_part *present(struct mover_window *window)
{
    return &window->parts[window->now];
}

static struct mover_part *other(struct mover_window *window)
{
    return &window->parts[1 - window->now];
}

void mover_window_init(struct mover_window *window, struct io *io, uint32_t ahead_size,
                       uint8_t *memory, uint64_t *read_bytes)
{
    assert(ahead_size > 0);
    assert(ahead_size <= MOVER_PART_SIZE); /* invariant 1 */
    *window = (struct mover_window){
        .io = io, .ahead_size = ahead_size, .read_bytes = read_bytes, .handle = -1};
    for (uint32_t i = 0; i < 2; i++)
        window->parts[i].data = memory + (2 * i + 1) * MOVER_PART_SIZE;
}

void mover_window_open(struct mover_window *window, int handle, uint64_t end)
{
    assert(!mover_window_is_active(window)); /* invariant 3 */
    for (uint32_t i = 0; i < 2; i++)
        window->parts[i] = (struct mover_part){.data = window->parts[i].data};
    window->handle = handle;
    window->end = end;
    window->failures = 0;
    window->failure = 0;
    window->has_ended = false;
}

/* ---- reading ---- */

static void load(struct mover_window *window, struct mover_part *part, uint64_t offset,
                 uint64_t size)
{
    assert(!is_on_its_way(part));         /* invariant 3 */
    assert(size <= MOVER_PART_SIZE);      /* invariant 1 */
    assert(offset + size <= window->end); /* invariant 5 */
    uint8_t *data = part->data;
    *part = (struct mover_part){.data = data, .offset = offset, .wanted = (uint32_t)size};
    for (uint64_t at = 0; at < size; at += MOVER_PIECE_SIZE)
        io_read(window->io, &part->pieces[at / MOVER_PIECE_SIZE], window->handle, data + at,
                (uint32_t)min_u64(MOVER_PIECE_SIZE, size - at), offset + at);
}

/* What is there without a gap counts. */
static void join(struct mover_window *window, struct mover_part *part)
{
    assert(!is_on_its_way(part)); /* invariant 3 */
    part->is_joined = true;
    while (part->size < part->wanted && !part->is_last) {
        int32_t result = part->pieces[part->size / MOVER_PIECE_SIZE].result;
        if (result < 0) {
            part->error = result;
            return;
        }
        uint64_t piece_size = min_u64(MOVER_PIECE_SIZE, part->wanted - part->size);
        part->size += (uint32_t)result;
        assert(part->size <= part->wanted); /* invariant 1 */
        *window->read_bytes += (uint32_t)result;
        part->is_last = (uint32_t)result < piece_size;
    }
}

/* The present part is there. As long as all is well the next one is fetched. */
static void arrive(struct mover_window *window)
{
    struct mover_part *part = present(window);
    if (part->wanted == 0 || part->is_joined)
        return;
    join(window, part);
    if (part->error < 0 && window->failures++ == 0) {
        window->failure = part->error;
        window->failure_file_offset = part->offset + part->size;
    }
    window->has_ended |= part->is_last;
}

static void read_ahead(struct mover_window *window)
{
    const struct mover_part *part = present(window);
    uint64_t next = part->offset + part->size;
    if (part->size == 0 || other(window)->wanted > 0 || window->failures > 0 || window->has_ended ||
        next >= window->end)
        return;
    load(window, other(window), next, min_u64(window->ahead_size, window->end - next));
}

/* ---- what is there ---- */

const uint8_t *mover_window_at(const struct mover_window *window, uint64_t offset)
{
    const struct mover_part *part = &window->parts[window->now];
    assert(offset + part->before >= part->offset); /* invariant 2 */
    assert(offset <= part->offset + part->size);   /* invariant 1 */
    return part->data + ((int64_t)offset - (int64_t)part->offset);
}

static bool holds(const struct mover_part *part, uint64_t from, uint64_t upto)
{
    return part->size > 0 && from + part->before >= part->offset &&
           upto <= part->offset + part->size;
}

/* The next part becomes the present one, with what is left of this one in front of it. */
static bool go_over(struct mover_window *window, uint64_t at)
{
    struct mover_part *part = present(window), *next = other(window);
    bool joins =
        next->wanted > 0 && holds(part, at, at) && part->offset + part->size == next->offset;
    if (!joins || next->offset - at > MOVER_PART_SIZE)
        return false;
    if (!next->is_joined)
        join(window, next);
    if (next->error < 0 || next->size == 0)
        return false;
    next->before = (uint32_t)(next->offset - at);
    assert(next->before <= MOVER_PART_SIZE); /* invariant 2 */
    memcpy(next->data - next->before, mover_window_at(window, at), next->before);
    part->wanted = 0;
    window->now = 1 - window->now;
    window->has_ended |= next->is_last;
    return true;
}

bool mover_window_is_over(const struct mover_window *window)
{
    return window->has_ended || window->failures >= READ_FAILURES_MAX;
}

int mover_window_failure(const struct mover_window *window, uint64_t *ret_offset)
{
    assert((window->failure < 0) == (window->failures > 0));
    *ret_offset = window->failure_file_offset;
    return window->failure;
}

int mover_window_need(struct mover_window *window, uint64_t offset, uint64_t size)
{
    assert(size <= MOVER_PART_SIZE);
    assert(offset < window->end); /* invariant 5 */
    if (is_on_its_way(present(window)))
        return 0;
    arrive(window);
    read_ahead(window);
    while (!holds(present(window), offset, offset + size)) {
        if (is_on_its_way(other(window)))
            return 0;
        if (!go_over(window, offset)) {
            bool was_tried = present(window)->offset == offset && present(window)->wanted == size;
            if (was_tried || mover_window_is_over(window))
                return -EIO;
            other(window)->wanted = 0;
            uint64_t ahead = window->failures > 0 ? size : max_u64(size, window->ahead_size);
            load(window, present(window), offset, min_u64(ahead, window->end - offset));
            return 0;
        }
        read_ahead(window);
    }
    return 1;
}
