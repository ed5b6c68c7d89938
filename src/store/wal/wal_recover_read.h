/* Reading a log file ahead, front to back, for recovery's window. */
#ifndef MINIVAULT_STORE_WAL_RECOVER_READ_H
#define MINIVAULT_STORE_WAL_RECOVER_READ_H

#include "io/io.h"
#include "store/wal/wal_window.h"

#define READER_PARTS 2u

/* Invariant: [next, asked) of the file is under way in part_count parts, the oldest one first. */
struct reader {
    struct io *io;
    int handle;
    uint64_t size;  /* of the file, what of it is read */
    uint64_t next;  /* part that reader_read gives */
    uint64_t asked; /* reads are under way up to here */
    uint64_t bytes_read;
    uint32_t part_first; /* the oldest one under way */
    uint32_t part_count;
    struct reader_part {
        struct io_op op;
        uint32_t size;
    } parts[READER_PARTS];
};

/* Waits for what is under way. Errors: io_wait's. */
int reader_stop(struct reader *reader);

/* From now on this file is read, from `offset` on. Errors: as above. */
int reader_rewind(struct reader *reader, int handle, uint64_t size, uint64_t offset);

/* As wal_window.read. */
int64_t reader_read(struct reader *reader, uint8_t *target, uint64_t offset, uint32_t size,
                    bool is_block);

#endif
