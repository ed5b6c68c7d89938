/* An input's bytes in memory: one part that is being taken apart, while the next one is on its way.
 * A batch or chunk that begins in the one and ends in the other is made whole by copying its begin
 * to where the other one starts. */
#ifndef MINIVAULT_STORE_MOVER_WINDOW_H
#define MINIVAULT_STORE_MOVER_WINDOW_H

#include "base/units.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

#define MOVER_PART_SIZE ((uint32_t)(1 * MIB))    /* of an input; holds a whole batch or chunk */
#define MOVER_PIECE_SIZE ((uint32_t)(256 * KIB)) /* one read: the log's writes wait behind it */
#define MOVER_PIECES (MOVER_PART_SIZE / MOVER_PIECE_SIZE)
#define MOVER_WINDOW_SIZE (4 * MOVER_PART_SIZE) /* two parts, and room in front of each */

struct mover_part {
    struct io_op pieces[MOVER_PIECES]; /* reads */
    uint8_t *data;                     /* MOVER_PART_SIZE bytes of memory, and as many before it */
    uint64_t offset;                   /* in the file, of data[0] */
    uint32_t before; /* valid bytes before data: a unit's begin, of the part before */
    uint32_t size;   /* valid bytes from data on, once it is joined */
    uint32_t wanted; /* bytes that were asked for; 0: the part is free */
    bool is_joined;  /* it came, and somebody looked at it */
    bool is_last;    /* the file ends in it, too early */
    int error;       /* 0, or of the read behind `size` */
};

struct mover_window {
    struct io *io;
    uint32_t ahead_size;  /* bytes that are read at once where all is well */
    uint64_t *read_bytes; /* a counter of the owner's */
    int handle;           /* of the input */
    uint64_t end;         /* of the input: nothing is read behind it */
    struct mover_part parts[2];
    uint32_t now;      /* the part that is being taken apart */
    uint32_t failures; /* reads of this input that the device refused */
    int failure;       /* the first one's -errno; 0: none */
    uint64_t failure_file_offset;
    bool has_ended; /* the file is shorter than it should be */
};

/* `memory`: MOVER_WINDOW_SIZE bytes of the region, aligned to 4096. `ahead_size`: bytes, at most
 * MOVER_PART_SIZE. What is read is added to `read_bytes`. */
void mover_window_init(struct mover_window *window, struct io *io, uint32_t ahead_size,
                       uint8_t *memory, uint64_t *read_bytes);

/* For another input, of `end` bytes. Nothing is on its way. */
void mover_window_open(struct mover_window *window, int handle, uint64_t end);

/* Whether reads are on their way. */
bool mover_window_is_active(const struct mover_window *window);

/* Whether the input's file is not worth another read. */
bool mover_window_is_over(const struct mover_window *window);

/* The error of the first read that the device refused, and where; 0: none. */
int mover_window_failure(const struct mover_window *window, uint64_t *ret_offset);

/* Sees to it that `size` bytes from `offset` on are there, at most MOVER_PART_SIZE. Returns 1: they
 * are; 0: they are on their way. Once a read has failed, no more than is needed is read at a time,
 * so that one bad block does not take its neighbours along.
 * Errors: -EIO, the bytes cannot be had. */
int mover_window_need(struct mover_window *window, uint64_t offset, uint64_t size);

/* The bytes at this offset of the file, which mover_window_need has seen to. */
const uint8_t *mover_window_at(const struct mover_window *window, uint64_t offset);

#endif
