/* From records to bytes on stable media: records are copied into the open buffer, full buffers are
 * written in log order, and become durable in log order.
 *
 *   wal_buffers_add -> open buffer --close--> queue --pump--> writes in flight -> [a sync] -> durable
 *
 * A buffer's way; every step goes through set_state in wal_buffers.c:
 *
 *   FREE -> OPEN -> QUEUED -> WRITING -> WRITTEN -> SYNCING -> STABLE -> FREE
 *     +-------------> +          +------------------------------> +
 *       seals, headers             written with DSYNC, or no sync is wanted
 *
 * OPEN: the one that records are copied into. QUEUED to STABLE: in `queue`, in log order; a buffer
 * leaves it when it is STABLE and all before it have left. Seals and headers of files go the same
 * way, in blocks of their own, so that their order with the batches needs no rule of its own.
 *
 * Invariants:
 *
 *   1. A buffer's state changes along the ways above only.
 *   2. The queue is in log order without a gap: each buffer begins with the position behind the
 *      last one of the buffer before it. A seal and a header have no positions: they name the next.
 *   3. durable <= position_queued <= position_last: what is durable was queued, what was queued was
 *      appended. All three only grow.
 *   4. queued_count buffers are QUEUED, in_flight ones are WRITING, WRITTEN or SYNCING, at most
 *      writes_in_flight.
 *   5. SYNCING ones stand at the head of the queue, side by side, and are of one file.
 *   6. header <= used <= limit <= capacity in the open buffer, and `used` is aligned for a record.
 *   7. A buffer's offset in its file is a multiple of the block, and the bytes behind it are taken
 *      for it alone.
 *   8. The open buffer is of the open file. */
#ifndef MINIVAULT_STORE_WAL_BUFFERS_H
#define MINIVAULT_STORE_WAL_BUFFERS_H

#include "base/list.h"
#include "store/wal/wal.h"
#include "store/wal/wal_files.h"

enum wal_buffer_kind { WAL_BUFFER_ORDINARY, WAL_BUFFER_JUMBO, WAL_BUFFER_SEAL, WAL_BUFFER_HEADER };

enum wal_buffer_state {
    WAL_BUFFER_FREE,
    WAL_BUFFER_OPEN,
    WAL_BUFFER_QUEUED,
    WAL_BUFFER_WRITING,
    WAL_BUFFER_WRITTEN,
    WAL_BUFFER_SYNCING,
    WAL_BUFFER_STABLE,
};

struct wal_buffer {
    struct list_node node; /* in a free list, or in the queue */
    struct io_op op;
    struct wal_buffers *buffers;
    struct log_file *file;
    uint8_t *data;
    struct list *home; /* the free list */
    enum wal_buffer_kind kind;
    enum wal_buffer_state state;
    uint32_t file_index;
    uint32_t capacity;
    uint32_t limit; /* what the file leaves of the capacity */
    uint32_t used;  /* bytes, with the batch header */
    uint32_t record_count;
    uint64_t offset;         /* in the file */
    uint64_t position_first; /* with no records: the next position */
    uint64_t opened_ns;      /* not in commit mode */
};

/* What the parts tell the driver. Run from a completion, with `context`. */
struct wal_driver {
    void *context;
    /* Of the buffers: some have left the queue, writes that could start have started; is_more:
     * `durable` has grown. Of the spares: some came or went, or whether the disk is full changed;
     * is_more: an append is worth another try. */
    void (*changed)(void *context, bool is_more);
    /* An operation failed, of the spares for another reason than a full disk. Nothing further is
     * started. */
    void (*failed)(void *context, int error, const char *what);
};

struct wal_buffers {
    struct io *io;
    const struct wal_options *options; /* the log's */
    struct wal_files *files;
    struct wal_buffer *open;
    uint64_t position_last; /* of the last record appended */
    uint64_t clock_max;     /* greatest clock of a record since start */
    uint64_t position_queued;
    uint64_t durable;
    struct list free_ordinary, free_jumbo, free_blocks;
    struct list queue;
    uint32_t queued_count;
    uint32_t in_flight;
    bool has_failed;
    struct io_op sync;
    struct io_op timer; /* the open buffer goes out at the latest, not in commit mode */
    struct wal_buffer *all;
    uint32_t count; /* of all kinds */
    uint64_t batches;
    uint64_t bytes_written;
    struct wal_driver driver;
};

/* Bytes of the region that buffers for these options take, and the largest batch that they allow. */
uint64_t wal_buffers_memory_size(const struct wal_options *options);
uint64_t wal_buffers_batch_max(const struct wal_options *options);

/* The log goes on behind what was recovered. `buffers` is zeroed; `options` and `files` outlive it.
 * The buffers' memory begins at options->memory. Errors: -ENOMEM. */
int wal_buffers_init(struct wal_buffers *buffers, struct io *io, const struct wal_options *options,
                     struct wal_files *files, const struct wal_driver *driver);

/* No operation is active any more. */
void wal_buffers_deinit(struct wal_buffers *buffers);

/* ---- appending ---- */

/* Whether the open buffer has room for a record of this size, padded. */
static inline bool wal_buffers_fits(const struct wal_buffers *buffers, uint64_t padded_size)
{
    const struct wal_buffer *open = buffers->open;
    return open != NULL && open->limit - open->used >= padded_size;
}

/* Bytes of the smallest batch with a record of this size, padded. */
uint64_t wal_buffers_space(uint64_t padded_size);

/* Opens a buffer at the open file's end for a batch of at least `space` bytes, which the file has.
 * Returns false: none is free. */
bool wal_buffers_open(struct wal_buffers *buffers, uint64_t space);

/* Copies a record, which has this size when padded and fits, into the open buffer, and gives it the
 * next position. */
void wal_buffers_add(struct wal_buffers *buffers, struct record *record, uint64_t padded_size,
                     struct wal_receipt *ret_receipt);

/* Puts the open buffer, if there is one, into the queue, and starts what may start. */
void wal_buffers_close(struct wal_buffers *buffers);

/* Seals the open file. No buffer is open; there is a block. Starts nothing. */
void wal_buffers_seal(struct wal_buffers *buffers);

/* Seals the open file and goes on in the first spare. No buffer is open. Returns false: no block is
 * free for the seal and the header. */
bool wal_buffers_next_file(struct wal_buffers *buffers);

/* ---- writing ---- */

/* Starts the writes that may start. */
void wal_buffers_pump(struct wal_buffers *buffers);

/* End of a pass: lets the open buffer go out when it is due. */
void wal_buffers_flush(struct wal_buffers *buffers);

/* Begins the generation in the first spare: writes its header, before it a seal into each old file
 * that needs one, and behind it cuts off what a crash left. Synchronous, before anything is queued.
 * Errors: the device's. */
int wal_buffers_begin(struct wal_buffers *buffers);

/* Nothing that is not durable now ever will be. */
void wal_buffers_fail(struct wal_buffers *buffers);

/* Everything that was appended is on stable media: the caller synced it. */
void wal_buffers_note_synced(struct wal_buffers *buffers);

/* Ends the timer; and: whether an operation is in flight. */
void wal_buffers_stop(struct wal_buffers *buffers);
bool wal_buffers_are_busy(const struct wal_buffers *buffers);

/* Whether everything that was queued is durable. */
bool wal_buffers_are_drained(const struct wal_buffers *buffers);

/* ---- asking ---- */

/* The bytes at this place of a file while a buffer has them, otherwise NULL. */
const uint8_t *wal_buffers_peek(const struct wal_buffers *buffers, uint32_t file_index,
                                uint64_t offset);

/* Where the file's first byte lies that may not have reached the disk; `end`: that of the file. */
uint64_t wal_buffers_readable_end(const struct wal_buffers *buffers, uint32_t file_index,
                                  uint64_t end);

static inline uint64_t wal_buffers_durable(const struct wal_buffers *buffers)
{
    return buffers->durable;
}

/* Adds what was written. */
void wal_buffers_stats(const struct wal_buffers *buffers, struct wal_stats *stats);

#endif
