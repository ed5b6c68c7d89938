/* The log's files: the table of them, the state of each, how much of it is alive, what may go.
 * No operation of its own but those that are waited for, at start and shutdown.
 *
 * A file's way; every step goes through set_state in wal_files.c:
 *
 *   PREPARING -> SPARE -> OPEN -> SEALED -> LEAVING -> SPARE
 *       |          |                           |
 *       |          +-> MARKED, LEAVING         +-> MARKED -> LEAVING -> removed
 *       +-> LEAVING -> removed
 *
 * A file that the newest durable header lists must leave a trace when it goes: its mark. MARKED
 * ones wait for a header that does not list them. Nothing goes as long as the newest durable header
 * is its own.
 *
 * Invariants:
 *
 *   1. table[file->index] == file, and `count` of the places are taken.
 *   2. A file's state changes along the ways above only.
 *   3. A file is in the list that its state says, and in no other: SPARE in `spares`, MARKED in
 *      `marked`, SEALED without live records in `drained`.
 *   4. spare_count is the length of `spares`.
 *   5. At most one file is OPEN: `open`.
 *   6. Numbers grow: a file that is opened gets one above all before. number_durable <= number.
 *   7. Of a file opened in this life, `end` is a multiple of the block, and the seal has room
 *      behind it until it is written.
 *   8. doomed <= live: what is doomed still counts as alive.
 *   9. Who pins a file reads it: it is OPEN or SEALED, and open in the file system.
 *  10. A file that held records leaves only when nothing of it is alive, nobody pins it, and all of
 *      it, what killed its records and a newer header are durable. */
#ifndef MINIVAULT_STORE_WAL_FILES_H
#define MINIVAULT_STORE_WAL_FILES_H

#include "base/assert.h"
#include "base/list.h"
#include "store/wal/wal.h"
#include "store/unit/wal_format.h"

#define WAL_NAME_SIZE sizeof("/wal-12345678")

enum log_file_state {
    LOG_FILE_PREPARING,
    LOG_FILE_SPARE,
    LOG_FILE_OPEN,
    LOG_FILE_SEALED,
    LOG_FILE_LEAVING,
    LOG_FILE_MARKED,
};

struct log_file {
    struct list_node node; /* in spares, drained or marked */
    uint32_t index;        /* in the table, and in locations */
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
    uint64_t doomed;    /* of the live ones: dead, but they still have slots (doomed.h) */
    uint64_t killer_last;
    uint64_t position_last; /* recovered: of its last record; 0: none */
    uint64_t mark;          /* recovered: the number in the file's spare mark; 0: none */
    uint64_t listed_last;   /* greatest number of a file whose header may list it */
    struct log_file_header header;
    char path[];
};

struct wal_files {
    struct log_file **table; /* by index; NULL: no such file. Recovered: ascending in number */
    uint32_t capacity;
    uint32_t count;
    uint32_t spare_count;
    uint32_t serial; /* greatest one given */
    struct log_file *open;
    struct list spares;
    struct list drained;     /* sealed, without live records */
    struct list marked;      /* to be removed */
    uint64_t number;         /* greatest one given */
    uint64_t number_durable; /* newest file whose header is on stable media */
    bool moves_damaged;
    const struct wal_options *options; /* the log's; NULL during recovery */
    uint64_t generation;               /* of the files that are opened; recovered: the greatest */
    uint64_t position_recovered;       /* the last one before the generation */
    uint64_t clock_recovered;          /* ceiling of everything before it */
    uint64_t lost; /* position up to which writes were lost with files that are gone */
};

/* ---- the table ---- */

/* A file in a free place of the table, PREPARING, not open yet. Errors: -ENOMEM, -ENFILE (locations
 * cannot name more files). */
int wal_files_add(struct wal_files *files, const char *directory, uint32_t serial,
                  struct log_file **ret_file);

/* Frees the file, which is closed and in no list. */
void wal_files_remove(struct wal_files *files, struct log_file *file);

/* A new file with the next serial, of this size, to be made. Errors: as above. */
int wal_files_prepare(struct wal_files *files, uint64_t size, struct log_file **ret_file);

struct log_file *wal_files_find(const struct wal_files *files, uint32_t index);

/* The next file at or behind *index, which moves behind it. NULL: no more. */
struct log_file *wal_files_next(const struct wal_files *files, uint32_t *index);

static inline uint32_t wal_files_spare_count(const struct wal_files *files)
{
    return files->spare_count;
}

/* There is one. */
static inline struct log_file *wal_files_last_spare(const struct wal_files *files)
{
    assert(files->spare_count > 0); /* invariant 4 */
    return container_of(list_last(&files->spares), struct log_file, node);
}

/* Takes the files that recovery left in the table over into their lists: spares of the wrong size
 * are to be removed. `options` must outlive it. */
void wal_files_adopt(struct wal_files *files, const struct wal_options *options);

/* Closes every file that no pin holds. */
void wal_files_close(struct wal_files *files, struct io *io);

/* Frees it, without touching the files. */
void wal_files_free(struct wal_files *files);

/* ---- from one file to the next ---- */

/* Makes the first spare the open file, with the next number, behind the record at `position_last`. */
void wal_files_open_spare(struct wal_files *files, uint64_t position_last, uint64_t salt);

/* Bytes that batches may still take in the open file: the seal always fits behind them. */
uint64_t wal_files_room(const struct wal_files *files);

/* Up to where positions were given, and clocks read, before the generation. */
static inline uint64_t wal_files_position_recovered(const struct wal_files *files)
{
    return files->position_recovered;
}

static inline uint64_t wal_files_clock_recovered(const struct wal_files *files)
{
    return files->clock_recovered;
}

static inline struct log_file *wal_files_get_open(const struct wal_files *files)
{
    assert(files->open != NULL); /* invariant 5 */
    return files->open;
}

static inline uint32_t log_file_index(const struct log_file *file)
{
    return file->index;
}

/* Where the next batch goes. */
static inline uint64_t log_file_end(const struct log_file *file)
{
    return file->end;
}

/* Takes `size` bytes at the end of `file`, the open one, for a batch. */
void wal_files_take(struct wal_files *files, struct log_file *file, uint64_t size);

/* Seals the open file, whose last record is the one at `position_last`; the seal is its last
 * block. */
void wal_files_seal(struct wal_files *files, uint64_t position_last);

/* All of the sealed file is on stable media. */
void wal_files_settle(struct wal_files *files, struct log_file *file);

/* A header or batch of the file is on stable media, and its header with it. */
static inline void wal_files_note_durable(struct wal_files *files, const struct log_file *file)
{
    assert(file->header.number <= files->number); /* invariant 6 */
    files->number_durable = max_u64(files->number_durable, file->header.number);
}

/* Whether the open file has records; `position_last`: the last one appended. */
static inline bool wal_files_open_has_records(const struct wal_files *files, uint64_t position_last)
{
    assert(position_last >= files->open->header.last_before);
    return position_last > files->open->header.last_before;
}

/* The handle to write the file with. */
static inline int log_file_handle(const struct log_file *file)
{
    assert(file->handle >= 0);
    return file->handle;
}

/* Says in a batch's header which place it belongs to. */
void log_file_identify(const struct log_file *file, struct wal_batch_header *header);

/* Encodes the header of a file, as of now, with the list of those before it. */
void wal_files_encode_header(struct wal_files *files, struct log_file *file, uint64_t durable,
                             uint64_t clock_ceiling, uint8_t *block);

/* Encodes the mark that the file holds nothing any more. `durable`: what killed its records lies at
 * or before this position; 0: it never held any. */
void wal_files_encode_mark(const struct wal_files *files, const struct log_file *file,
                           uint64_t durable, uint8_t *block);

/* ---- what is alive ---- */

static inline void wal_files_record_added(struct log_file *file)
{
    file->live++;
}

/* Returns whether that was the file's last one. */
bool wal_files_record_dead(struct wal_files *files, uint64_t location, uint64_t killer_position);

/* Returns whether the file may leave for that. */
bool wal_files_unpin(struct wal_files *files, uint32_t index);

/* ---- what may go; `durable`: the log's durable position ---- */

/* A sealed file with nothing alive in it. NULL: there is none. */
struct log_file *wal_files_find_free(const struct wal_files *files, uint64_t durable);

/* A marked one whose mark nobody needs any more. NULL: there is none. */
struct log_file *wal_files_find_marked(const struct wal_files *files);

/* Whether the newest durable header does not list it. */
static inline bool wal_files_is_unlisted(const struct wal_files *files, const struct log_file *file)
{
    return file->listed_last < files->number_durable;
}

/* Whether `file`, or the first marked one, has to stay only because the newest header lists it. */
bool wal_files_wants_header(const struct wal_files *files, const struct log_file *file);

/* Takes the file out of its list: it is LEAVING. */
void wal_files_leave(struct wal_files *files, struct log_file *file, uint64_t durable);

/* A file that was prepared or has left: it is a spare now, or waits to be removed. */
void wal_files_add_spare(struct wal_files *files, struct log_file *file);
void wal_files_add_marked(struct wal_files *files, struct log_file *file);

/* ---- asking ---- */

uint64_t wal_files_sealed_bytes(const struct wal_files *files);

/* Sealed or open, with live records: the one with the lowest number above `after`, up to `last`.
 * Of the open one, `end` is where the next batch goes. Returns false: there is none. */
bool wal_files_next_live(const struct wal_files *files, uint64_t after, uint64_t last,
                         struct wal_sealed *ret_live);

/* The least position that a record in a file can have; `next`: that of the next one. */
uint64_t wal_files_first_position(const struct wal_files *files, uint64_t next);

/* Adds the files up. */
void wal_files_stats(const struct wal_files *files, struct wal_stats *stats);

#endif
