/* An input's bytes in memory: one part that is being taken apart, while the next one is on its way.
 * A batch or chunk that begins in the one and ends in the other is made whole by copying its begin
 * to where the other one starts. */
#include "store/mover/mover_internal.h"

#include <inttypes.h>
#include <string.h>

/* A device that refuses this many reads of an input is not asked any further. */
#define READ_FAILURES_MAX 64u

static bool is_on_its_way(const struct mover_part *part)
{
    bool is_active = false;
    for (uint32_t i = 0; i < MOVER_PIECES; i++)
        is_active |= io_op_is_active(&part->pieces[i].op);
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

void mover_window_init(struct mover_window *window, uint8_t *memory)
{
    for (uint32_t i = 0; i < 2; i++)
        window->parts[i].data = memory + (2 * i + 1) * MOVER_PART_SIZE;
}

void mover_window_reset(struct mover_window *window)
{
    assert(!mover_window_is_active(window));
    for (uint32_t i = 0; i < 2; i++)
        window->parts[i] = (struct mover_part){.data = window->parts[i].data};
    window->failures = 0;
    window->has_ended = false;
}

/* ---- reading ---- */

static void piece_done(struct io_op *op, int32_t result)
{
    struct mover_piece *piece = container_of(op, struct mover_piece, op);
    piece->result = result;
    mover_read_came(piece->mover);
}

static void load(struct mover *mover, struct mover_part *part, uint64_t offset, uint64_t size)
{
    uint8_t *data = part->data;
    *part = (struct mover_part){.data = data, .offset = offset, .wanted = (uint32_t)size};
    for (uint64_t at = 0; at < size; at += MOVER_PIECE_SIZE) {
        struct mover_piece *piece = &part->pieces[part->piece_count++];
        piece->mover = mover;
        piece->size = (uint32_t)min_u64(MOVER_PIECE_SIZE, size - at);
        piece->op.done = piece_done;
        io_read(mover->io, &piece->op, mover->reader.input.handle, data + at, piece->size,
                offset + at);
    }
}

/* What is there without a gap counts. */
static void join(struct mover *mover, struct mover_part *part)
{
    part->is_joined = true;
    for (uint32_t i = 0; i < part->piece_count; i++) {
        const struct mover_piece *piece = &part->pieces[i];
        part->error = piece->result < 0 ? piece->result : 0;
        if (part->error < 0)
            return;
        part->size += (uint32_t)piece->result;
        mover->stats.read_bytes += (uint32_t)piece->result;
        part->is_last = (uint32_t)piece->result < piece->size;
        if (part->is_last)
            return;
    }
}

static void note_failure(struct mover *mover, uint64_t offset, int error)
{
    struct mover_reader *reader = &mover->reader;
    if (reader->window.failures++ == 0)
        log_error(mover->log, "%s segment %" PRIu64 " cannot be read at offset %" PRIu64 ": %s",
                  reader->input.is_segment ? "partition" : "log", reader->input.number, offset,
                  strerror(-error));
    reader->input.is_damaged = true;
}

/* The present part is there. As long as all is well the next one is fetched. */
static void arrive(struct mover *mover)
{
    struct mover_window *window = &mover->reader.window;
    struct mover_part *part = present(window);
    if (part->wanted == 0 || part->is_joined)
        return;
    join(mover, part);
    if (part->error < 0)
        note_failure(mover, part->offset + part->size, part->error);
    window->has_ended |= part->is_last;
}

static void read_ahead(struct mover *mover)
{
    struct mover_window *window = &mover->reader.window;
    const struct mover_part *part = present(window);
    uint64_t next = part->offset + part->size;
    if (part->size == 0 || other(window)->wanted > 0 || window->failures > 0 || window->has_ended ||
        next >= mover->reader.input.end)
        return;
    load(mover, other(window), next,
         min_u64(mover->options.window_size, mover->reader.input.end - next));
}

/* ---- what is there ---- */

const uint8_t *mover_window_at(const struct mover_window *window, uint64_t offset)
{
    const struct mover_part *part = &window->parts[window->now];
    assert(offset + part->before >= part->offset);
    return part->data + ((int64_t)offset - (int64_t)part->offset);
}

static bool holds(const struct mover_part *part, uint64_t from, uint64_t upto)
{
    return part->size > 0 && from + part->before >= part->offset &&
           upto <= part->offset + part->size;
}

/* The next part becomes the present one, with what is left of this one in front of it. */
static bool go_over(struct mover *mover, uint64_t at)
{
    struct mover_window *window = &mover->reader.window;
    struct mover_part *part = present(window), *next = other(window);
    bool joins =
        next->wanted > 0 && holds(part, at, at) && part->offset + part->size == next->offset;
    if (!joins || next->offset - at > MOVER_PART_SIZE)
        return false;
    if (!next->is_joined)
        join(mover, next);
    if (next->error < 0 || next->size == 0)
        return false;
    next->before = (uint32_t)(next->offset - at);
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

enum mover_read mover_window_need(struct mover *mover, uint64_t size)
{
    struct mover_window *window = &mover->reader.window;
    uint64_t at = mover->reader.input.at, end = mover->reader.input.end;
    if (is_on_its_way(present(window)))
        return MOVER_READ_WAIT;
    arrive(mover);
    read_ahead(mover);
    while (!holds(present(window), at, at + size)) {
        if (is_on_its_way(other(window)))
            return MOVER_READ_WAIT;
        if (!go_over(mover, at)) {
            bool was_tried = present(window)->offset == at && present(window)->wanted == size;
            if (was_tried || mover_window_is_over(window))
                return MOVER_READ_SKIPPED;
            other(window)->wanted = 0;
            uint64_t ahead =
                window->failures > 0 ? size : max_u64(size, mover->options.window_size);
            load(mover, present(window), at, min_u64(ahead, end - at));
            return MOVER_READ_WAIT;
        }
        read_ahead(mover);
    }
    return MOVER_READ_RECORD;
}
