/* The reserve: space on the disk that is kept for making space. Deletes free nothing until what is
 * still alive beside the deleted has been copied elsewhere, and on a full disk there is no
 * elsewhere.
 *
 * DATA/reserve, allocated and never written. When the mover finds the disk full the file goes and
 * the mover goes on in its place; sets are refused until there is room for it again, deletes and
 * reads are not concerned. */
#ifndef MINIVAULT_STORE_RESERVE_H
#define MINIVAULT_STORE_RESERVE_H

#include "base/log.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

/* The largest record and its chunk fit. */
#define RESERVE_SIZE_MIN (2 * MIB)

struct reserve {
    struct io *io;
    const struct log *log;
    const char *directory; /* the data directory: the owner's */
    char *path;
    uint64_t size;
    bool is_taken;
    struct io_op op; /* of taking it, or of giving it up */
    int handle;
    int error;                       /* of the attempt under way */
    void (*released)(void *context); /* its space is free now */
    void *context;
    uint64_t look_ns; /* no look before */
    bool is_needed;   /* it was released: the disk is full */
};

/* `size`: bytes. Begins to take it. Errors: -ENOMEM. */
int reserve_init(struct reserve *reserve, struct io *io, const struct log *log,
                 const char *directory, uint64_t size);

/* Frees the memory: not busy, or the world was closed. */
void reserve_deinit(struct reserve *reserve);

/* The disk is full: gives it up. Does nothing when it is not taken. */
void reserve_release(struct reserve *reserve);

/* Now and then: takes it again when there is room for twice as much. Returns whether it was just
 * taken again after a release. */
bool reserve_step(struct reserve *reserve);

/* Whether the disk is so full that it had to be given up. */
static inline bool reserve_is_released(const struct reserve *reserve)
{
    return reserve->is_needed;
}

bool reserve_is_busy(const struct reserve *reserve);

#endif
