/* Value files: a value of at least VALUE_FILE_MIN decoded bytes lies in a file of its own, written
 * while it arrives and read while it leaves, through the aligned buffers of a pool, so that memory
 * is bounded by the pool and not by values.
 *
 * DATA/<2 hex: partition>/<16 hex: XXH64 of the key>-<24 hex: version (clock, origin)>: the value's
 * bytes, decoded, padded with zeros to a multiple of 4096. The version is a stamp that is given
 * when the file begins, so the name is never used again. The record in the log is the commit, and
 * is stamped then: its flag RECORD_IN_VALUE_FILE is set, decoded_size is the value's, and its value
 * is the descriptor, which tells the file's name:
 *
 *   offset  size  field
 *        0     4  format (2)
 *        4     4  bytes of a block (65536)
 *        8     8  bytes of the value
 *       16     8  clock    } the version in the file's name, older than the
 *       24     4  origin   } record's
 *       28     4  0
 *       32     4  crc32c of each block in order, the last one without padding
 *
 * A file that no live record names is an orphan: cleared away at the next start. Every block is
 * verified before a byte of it is shown. */
#ifndef MINIVAULT_STORE_VALUE_FILE_H
#define MINIVAULT_STORE_VALUE_FILE_H

#include "base/bytes.h"
#include "base/units.h"
#include "base/version.h"
#include "store/value/stream_pool.h"

#include <stdbool.h>
#include <stdint.h>

/* Measured (perf/storage/compare --only threshold; file / log, MiB/s of durable sets): 0.57 at 64
 * KiB, 1.2 at 128, 1.2 at 256, 1.4 at 512, 1.9 at 1024, and what goes to the log is written again
 * when it moves. So it is not writing that asks for more than 128 KiB but reading: a value in a
 * record is cached whole, of one in a file the descriptor alone. */
#define VALUE_FILE_MIN ((uint64_t)(256 * KIB))
#define VALUE_FILE_SIZE_MAX ((uint64_t)(100 * MIB))
#define VALUE_FILE_FORMAT 2u
#define VALUE_FILE_BLOCK_SIZE ((uint32_t)(64 * KIB))
#define VALUE_FILE_DESCRIPTOR_HEADER_SIZE 32u
#define VALUE_FILE_DESCRIPTOR_MAX                                                                  \
    (VALUE_FILE_DESCRIPTOR_HEADER_SIZE + 4 * (VALUE_FILE_SIZE_MAX / VALUE_FILE_BLOCK_SIZE))
#define VALUE_FILE_NAME_SIZE sizeof("/xx/0123456789abcdef-0123456789abcdef01234567")

/* ---- names and descriptors ---- */

struct value_file_name {
    uint8_t partition;
    uint64_t key_hash;      /* XXH64 */
    struct version version; /* the file's own, not its record's */
};

/* "/<2 hex>/<16 hex>-<24 hex>" with its NUL: VALUE_FILE_NAME_SIZE bytes. */
void value_file_name_write(const struct value_file_name *name, char *ret_text);

/* From a directory entry of partition `partition`. Errors: -EINVAL (not a value file's name). */
int value_file_name_parse(uint8_t partition, const char *entry, struct value_file_name *ret_name);

static inline uint64_t value_file_descriptor_size(uint64_t size)
{
    return VALUE_FILE_DESCRIPTOR_HEADER_SIZE +
           4 * ((size + VALUE_FILE_BLOCK_SIZE - 1) / VALUE_FILE_BLOCK_SIZE);
}

/* The name of the file that a record's descriptor names, of a key with this XXH64. A descriptor
 * that is too short for it names a file that there never is, version 0. */
struct value_file_name value_file_named(uint64_t key_hash, struct slice descriptor);

/* Checks format, sizes and that the block count fits. Errors: -EBADMSG, -EPROTONOSUPPORT (another
 * format). */
int value_file_descriptor_check(struct slice descriptor, uint64_t *ret_size);

/* ---- writing ---- */

struct value_writer;

/* All from the loop. Each may end with any call, also value_writer_close. */
struct value_writer_events {
    void *context;
    /* value_writer_buffer said NULL: call it again, it has memory now, or value_writer_error says
     * why not. */
    void (*room)(void *context);
    /* value_writer_finish: 0: the file and its name are durable; otherwise the error, and the file
     * is being removed. */
    void (*finished)(void *context, int result);
};

/* Begins a file for a value of at most `size_max` (at most VALUE_FILE_SIZE_MAX) bytes, known to be
 * `size_hint` or 0: then its blocks are reserved first, and a full disk shows early. Never blocks;
 * the file is opened in the background. Errors: -ENOMEM. */
int value_writer_open(struct stream_pool *pool, const struct value_file_name *name,
                      uint64_t size_max, uint64_t size_hint,
                      const struct value_writer_events *events, struct value_writer **ret_writer);

/* Memory for the next bytes of the value, at least one, at most *ret_room (not cut at size_max);
 * the same until value_writer_filled. Take it when bytes are about to come: a writer that has it
 * keeps it from others. NULL: none now (the `room` event follows), or failed (value_writer_error).
 */
uint8_t *value_writer_buffer(struct value_writer *writer, uint32_t *ret_room);

/* `size` bytes of it were filled (0: none, it is given back): checksummed here, written when a
 * buffer is full. Errors: -EFBIG (over size_max), or the error the file has met (-ENOSPC, -EDQUOT,
 * -EIO, -ENFILE, -EEXIST, ...); it stays, and the file is being removed. */
int value_writer_filled(struct value_writer *writer, uint32_t size);
int value_writer_error(const struct value_writer *writer);

/* All bytes are there: writes the rest, syncs file and directory, then `finished`, from the loop,
 * also when the writer had failed before. */
void value_writer_finish(struct value_writer *writer);

/* After `finished` with 0: the descriptor, valid until value_writer_close. */
struct slice value_writer_descriptor(const struct value_writer *writer);
uint64_t value_writer_size(const struct value_writer *writer); /* bytes filled so far */

/* Ends it in any state and frees it once nothing is in flight (the caller forgets it now; no event
 * follows). `keep` false: the file is removed, also a finished one; what did not finish is removed
 * anyway. While a buffer of it is with the kernel for somebody else's receive it must not be
 * closed. */
void value_writer_close(struct value_writer *writer, bool keep);

/* ---- reading ---- */

struct value_reader;

struct value_reader_events {
    void *context;
    /* value_reader_piece said NULL: look again, or value_reader_error says why not. From the loop;
     * may end with any call, also value_reader_close. */
    void (*ready)(void *context);
};

/* Opens the file and begins to read ahead. `descriptor` is copied. Errors: -ENOMEM, -EBADMSG and
 * -EPROTONOSUPPORT (value_file_descriptor_check). */
int value_reader_open(struct stream_pool *pool, const struct value_file_name *name,
                      struct slice descriptor, const struct value_reader_events *events,
                      struct value_reader **ret_reader);

/* The next verified bytes in order, at most VALUE_FILE_BUFFER_SIZE, or NULL: not there yet (`ready`
 * follows), at the end, or failed (value_reader_error). Each call gives the piece behind the one
 * before it, which stays valid until it is released, in order. When the pool is short the next
 * piece may come only after the one before it was released: do not wait for two. */
const uint8_t *value_reader_piece(struct value_reader *reader, uint32_t *ret_size);
void value_reader_release(struct value_reader *reader); /* the oldest piece not yet released */

/* 0, or why there is no more: -ENOENT (no such file: it was replaced meanwhile: look the key up
 * again when nothing was shown yet), -EBADMSG (damaged), -EACCES, -EIO, ... */
int value_reader_error(const struct value_reader *reader);

/* For whoever reports it, which nobody here does. The path is valid as long as the reader. */
struct value_told {
    struct value_file_name name;
    const char *path;
    bool is_read;    /* some of it was, and was sound */
    uint64_t offset; /* of the error: where it is, and what */
    const char *what;
};
struct value_told value_reader_tell(const struct value_reader *reader);

/* Frees it once nothing is in flight; the caller forgets it now. Pieces not yet released go too:
 * none may still be with the kernel for somebody else's send. */
void value_reader_close(struct value_reader *reader);

/* ---- removing ---- */

/* Removes a value file in the background. Best effort: what stays is an orphan. */
void value_file_remove(struct stream_pool *pool, const struct value_file_name *name);

#endif
