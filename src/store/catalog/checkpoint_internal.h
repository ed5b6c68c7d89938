/* The writer of a checkpoint, inside: checkpoint_write.c has the file and its states,
 * checkpoint_pack.c what is put into it. */
#ifndef MINIVAULT_STORE_CHECKPOINT_INTERNAL_H
#define MINIVAULT_STORE_CHECKPOINT_INTERNAL_H

#include "store/catalog/checkpoint_format.h"

#define CHECKPOINT_BUFFERS 2u

enum checkpoint_state {
    WRITER_REMOVE,
    WRITER_OPEN,
    WRITER_PACK,
    WRITER_SYNC,
    WRITER_CLOSE,
    WRITER_RENAME,
    WRITER_OPEN_DIRECTORY,
    WRITER_SYNC_DIRECTORY,
    WRITER_CLOSE_DIRECTORY,
    WRITER_UNDO_CLOSE,
    WRITER_UNDO_CLOSE_DIRECTORY,
    WRITER_UNDO_UNLINK,
};

struct checkpoint_buffer {
    struct io_op op;
    struct checkpoint_writer *writer;
    uint8_t *data;
    uint32_t used;    /* whole blocks */
    uint32_t written; /* of them, by the write in flight */
    uint64_t offset;  /* in the file */
};

struct checkpoint_writer {
    struct io *io;
    const struct log *log;
    const struct index *index;
    uint64_t directory_id;
    struct checkpoint_info info;
    uint32_t log_id;
    checkpoint_done *done;
    void *context;

    enum checkpoint_state state;
    int error;
    struct io_op op;
    int handle;    /* < 0: not open */
    int directory; /* < 0: not open */
    bool is_there; /* under the temporary name, or when it is renamed, the other one */
    bool is_renamed;

    struct checkpoint_buffer buffers[CHECKPOINT_BUFFERS];
    uint32_t filling; /* the buffer whose turn it is */
    uint32_t writing; /* buffers in flight */
    bool is_packed;   /* the last block is in a buffer */
    uint64_t size;    /* of the units that were handed over */
    uint64_t sequence;
    uint64_t slots;

    enum checkpoint_kind kind; /* of what is packed next */
    uint32_t files_packed;
    uint32_t partition;
    bool is_walking; /* `partition` was begun */
    uint64_t cursor;
    uint64_t slots_hint;
    bool has_block; /* a block of slots is open, behind `used` in the buffer */
    uint32_t entry_count;
    uint32_t room; /* entries that fit in it */
    bool is_over;  /* a group did not fit */

    struct checkpoint_file *files;
    uint32_t file_count;
    /* A bit a file of the table, by checkpoint_file_key. */
    uint64_t known[CHECKPOINT_FILES_MAX / 64];
    char path[CHECKPOINT_PATH_MAX];
    char temporary[CHECKPOINT_PATH_MAX];
    char data_directory[CHECKPOINT_PATH_MAX];
};

static inline struct checkpoint_buffer *checkpoint_filling(struct checkpoint_writer *writer)
{
    return &writer->buffers[writer->filling];
}

static inline bool checkpoint_knows_file(const struct checkpoint_writer *writer, uint32_t key)
{
    return writer->known[key / 64] >> (key % 64) & 1;
}

/* Ends it with this error once nothing is in flight. From anywhere. */
void checkpoint_fail(struct checkpoint_writer *writer, int error);

/* Writes the filled buffer; the other one has its turn. */
void checkpoint_hand_over(struct checkpoint_writer *writer);

#endif
