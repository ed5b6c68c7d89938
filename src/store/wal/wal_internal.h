/* What the log's own files share; nobody else includes this but recovery, which builds the state,
 * and tests.
 *
 *   wal.c         opening, shutting, asking
 *   wal_append.c  records into the open buffer
 *   wal_write.c   full buffers onto the disk, and what is durable
 *   log_file.c the table of segments, from one segment to the next, who is alive
 *   wal_spares.c  housekeeping: spare segments made, recycled, removed
 *   wal_listing.c which segments a header names, and what may go because none does
 *   wal_old.c     what earlier lives left: sealed, cut
 *
 * A buffer's way:
 *
 *   FREE -> OPEN -> QUEUED -> WRITING -> WRITTEN -> [SYNCING ->] STABLE -> FREE
 *
 * OPEN: the one that records are copied into. QUEUED to STABLE: in wal->queue, in log order; a
 * buffer leaves it when it is STABLE and all before it have left. Seals and segment headers go the
 * same way, in blocks of their own, so that their order with the batches needs no rule of its own.
 *
 * A segment's way:
 *
 *   PREPARING -> SPARE -> OPEN -> SEALED -> LEAVING -> SPARE
 *                                                   -> MARKED -> LEAVING -> removed
 *
 * A file whose segment the newest durable header lists must leave a trace when it goes: its mark.
 * MARKED ones wait for a header that does not list them. Nothing goes as long as the newest durable
 * header is its own. */
#ifndef MINIVAULT_STORE_WAL_INTERNAL_H
#define MINIVAULT_STORE_WAL_INTERNAL_H

#include "base/assert.h"
#include "base/list.h"
#include "store/wal/wal.h"
#include "store/unit/wal_format.h"

#define WAL_SPARES_WANTED 2 /* fewer: one is made */
#define WAL_SPARES_KEPT                                                                            \
    4                /* more: recycled ones are removed. With as few as are wanted, each           \
                        segment would be made before the last one is free, then removed */
#define WAL_BLOCKS 8 /* blocks for seals and headers: four changes of segment */
#define WAL_ZEROS_SIZE ((uint32_t)(512 * KIB)) /* one write when a segment is zeroed */
#define WAL_ZEROS_IN_FLIGHT 4
#define WAL_RETRY_NS NS_PER_S /* between attempts to prepare a segment on a full disk */
#define WAL_CLOCK_AHEAD_MS 250
#define WAL_NAME_SIZE sizeof("/wal-12345678")

/* ---- segments ---- */

enum log_file_state {
    LOG_FILE_PREPARING,
    LOG_FILE_SPARE,
    LOG_FILE_OPEN,
    LOG_FILE_SEALED,
    LOG_FILE_LEAVING,
    LOG_FILE_MARKED,
};

struct log_file {
    struct list_node node; /* in wal->spares, wal->drained or wal->marked */
    uint32_t file;         /* index in the table */
    uint32_t serial;       /* in the name */
    int handle;            /* < 0: not open */
    uint32_t pins;
    enum log_file_state state;
    bool has_seal;      /* recovered, with its seal */
    bool has_tail;      /* recovered: behind the seal may lie what does not count */
    bool is_settled;    /* SEALED: nothing of it is in a buffer any more, all is durable */
    bool is_damaged;    /* never recycled */
    bool is_unreadable; /* in part: never cut, the device may give it some day */
    bool is_discarded;  /* an unfinished file: never recycled, only removed */
    bool is_dead;       /* recovered: the newest header does not list it, it was not read */
    uint64_t size;      /* of the file */
    uint64_t end;       /* where the next batch goes; nothing from here on is the log's */
    uint64_t live;      /* records */
    uint64_t records;   /* SEALED: there were so many; 0: not known */
    uint64_t doomed;    /* of these: dead, but they still have slots (doomed.h) */
    uint64_t killer_last;
    uint64_t position_last; /* recovered: of its last record; 0: none */
    uint64_t mark;          /* recovered: the number in the file's spare mark; 0: none */
    uint64_t listed_last;   /* greatest number of a segment whose header may list it */
    struct log_file_header header;
    char path[];
};

struct wal_table {
    struct log_file **segments; /* by file; NULL: no such file */
    uint32_t capacity;
    uint32_t count;
};

struct wal_state {
    struct wal_table table; /* ascending in segment number */
    uint64_t generation;
    uint64_t number; /* greatest segment number ever */
    uint64_t last_position;
    uint64_t clock_ceiling;
    uint64_t lost;   /* position up to which writes were lost with files that are gone */
    uint32_t serial; /* greatest file serial */
};

/* A segment in a free place of the table. Errors: -ENOMEM, -ENFILE (the locations cannot name more
 * files). */
int wal_table_add(struct wal_table *table, const char *directory, uint32_t serial,
                  struct log_file **ret_segment);

/* Frees the segment, whose file is closed. */
void wal_table_remove(struct wal_table *table, struct log_file *segment);

/* Closes every file that no pin holds. */
void wal_table_close(struct wal_table *table, struct io *io);

/* Frees the segments, without touching files. */
void wal_table_free(struct wal_table *table);

static inline struct log_file *wal_table_find(const struct wal_table *table, uint32_t file)
{
    assert(file < table->capacity);
    struct log_file *segment = table->segments[file];
    assert(segment != NULL);
    return segment;
}

/* ---- buffers ---- */

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
    struct wal *wal;
    struct log_file *segment;
    uint8_t *data;
    struct list *home; /* the free list */
    enum wal_buffer_kind kind;
    enum wal_buffer_state state;
    uint32_t capacity;
    uint32_t limit; /* what the segment leaves of the capacity */
    uint32_t used;  /* bytes, with the batch header */
    uint32_t record_count;
    uint64_t offset;         /* in the segment */
    uint64_t position_first; /* with no records: the next position */
    uint64_t opened_ns;      /* not in commit mode */
};

static inline uint64_t wal_buffer_position_last(const struct wal_buffer *buffer)
{
    return buffer->position_first + buffer->record_count - 1;
}

/* ---- the log ---- */

enum wal_task {
    WAL_TASK_NONE,
    WAL_TASK_CREATE,
    WAL_TASK_ALLOCATE,
    WAL_TASK_ZERO,
    WAL_TASK_SYNC_ZEROS,
    WAL_TASK_SYNC_NAME,
    WAL_TASK_MARK,
    WAL_TASK_UNLINK,
    WAL_TASK_SYNC_UNLINK,
    WAL_TASK_CLOSE,
};

/* One task at a time, on one segment. */
struct wal_zeros {
    struct io_op op;
    struct wal *wal;
    uint32_t size;
};

struct wal_keeper {
    struct io_op op;
    struct wal_zeros zeroing[WAL_ZEROS_IN_FLIGHT]; /* ZERO: instead of op */
    uint64_t zeroed;                               /* bytes, also those on their way */
    int zero_error;
    struct io_op timer; /* the next attempt on a full disk */
    enum wal_task task;
    struct log_file *segment;
    bool is_recycling; /* MARK is of a segment that held records */
    uint8_t *mark;     /* one block */
    uint8_t *zeros;    /* WAL_ZEROS_SIZE */
};

struct wal {
    struct io *io;
    const struct log *log;
    struct wal_options options;
    char *directory;
    int directory_handle;

    struct wal_table table;
    struct log_file *segment; /* the open one */
    struct list spares;
    struct list drained; /* sealed, without live records */
    struct list marked;  /* to be removed */
    uint32_t spare_count;
    uint64_t generation;
    uint64_t generation_base;
    uint64_t number;
    uint64_t number_durable; /* newest segment whose header is on stable media */
    uint64_t lost;
    uint32_t serial;

    uint64_t segment_size_next; /* of the next one that is made */
    uint64_t kept_free;         /* bytes of the disk that no new segment may take */
    uint64_t position_last;
    uint64_t durable;
    uint64_t clock_max;       /* greatest clock of a record since start */
    uint64_t clock_recovered; /* ceiling of everything before */

    struct wal_buffer *buffers;
    uint32_t buffer_count; /* of all kinds */
    struct wal_buffer *open;
    struct list free_ordinary, free_jumbo, free_blocks;
    struct list queue;
    uint32_t queued_count; /* QUEUED ones in the queue */
    uint32_t in_flight;    /* written or synced right now */
    struct io_op sync;
    struct io_op timer;

    bool is_opening; /* wal_open has not returned: no events */
    bool has_begun;  /* the generation's first header is durable: old segments may be touched */
    bool is_shutting;
    bool room_wanted;
    bool disk_full;
    bool moves_damaged;
    uint64_t spares_below; /* wal_set_spares_below */
    bool is_held;          /* no segments are made beyond the one for deletes */
    bool is_hindered; /* one of: failed, shutting, disk full, no spare segment. wal_append looks
                         closer */
    int failed;
    struct wal_keeper keeper;
    struct wal_stats stats;
};

/* wal_append.c */

/* Puts the open buffer into the queue. */
void wal_close_buffer(struct wal *wal);

/* wal_write.c */

/* Starts the writes that may start. */
void wal_pump(struct wal *wal);

/* Writes the segment's header as of now to `block`. */
void wal_finish_header(struct wal *wal, struct log_file *segment, uint8_t *block);

/* The log failed: nothing that is not durable now ever will be. */
void wal_fail(struct wal *wal, int error, const char *what);

/* Tells whoever waits for it that wal_append is worth another try. */
void wal_tell_room(struct wal *wal);

/* log_file.c */

/* Whatever wal->is_hindered depends on has changed. */
void wal_judge_hindrance(struct wal *wal);

/* Seals the open segment, when there is one, and opens the first spare one; both through the queue.
 * The caller made sure that there are a spare one and two free blocks. */
void wal_change_segment(struct wal *wal);

/* Makes a spare segment the open one and fills its header in. */
void wal_take_spare(struct wal *wal);

/* Queues the seal of the open segment. */
void wal_seal_segment(struct wal *wal);

/* Whether the segment may go: sealed, durable, nothing alive in it, nobody reads it, and a newer
 * header is durable. */
bool log_file_is_free(const struct wal *wal, const struct log_file *segment);

/* Puts a segment among the drained ones if it belongs there now. Then wal_keep is due. */
void log_file_check(struct wal *wal, struct log_file *segment);

/* wal_listing.c */

/* Whether no recovery needs anything of it any more: it need not be listed. */
bool log_file_is_dead(const struct wal *wal, const struct log_file *segment);

/* Whether the newest durable header does not list it. */
bool log_file_is_unlisted(const struct wal *wal, const struct log_file *segment);

/* The owner's, as of now. */
struct wal_note wal_note(const struct wal *wal);

/* Lists for the header of segment `number`, as of now. */
void wal_list_segments(struct wal *wal, uint64_t number, struct wal_listing *ret_listing);

/* wal_old.c: both synchronous, while the log is opened. Errors: the device's. */

/* Before the new generation's first header: segments whose seal a crash prevented get it, so that
 * from now on an end that is missing shows. */
int wal_seal_old_segments(struct wal *wal);

/* Behind it. */
int wal_cut_old_segments(struct wal *wal);

/* wal_spares.c */

/* The spare segment to go first, when there are more than are kept. NULL: there are not. */
struct log_file *wal_surplus(const struct wal *wal);

/* Starts the next piece of housekeeping, if there is any to do and nothing under way. */
void wal_keep(struct wal *wal);

/* Whether one of its operations is in flight. */
bool wal_keeper_is_active(const struct wal_keeper *keeper);

/* Whether segments are waiting to be recycled or removed, or are on the way. */
bool wal_is_clearing(const struct wal *wal);

#endif
