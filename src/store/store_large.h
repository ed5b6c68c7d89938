/* Large values: the glue between the store and its value files.
 *
 *   set: store_upload_begin (a version, a file) -> the writer's buffers -> finished -> commit (the
 *        record with the descriptor) -> close
 *   get: store_get shows a descriptor and the file's name -> store_download_open -> the reader's
 *        pieces
 *
 * The version is stamped when the upload begins, since it is in the file's name. So an upload that
 * ends after a newer write of its key is superseded: it is acknowledged as if it had been
 * overwritten at once, and its file goes. */
#ifndef MINIVAULT_STORE_STORE_LARGE_H
#define MINIVAULT_STORE_STORE_LARGE_H

#include "store/store.h"
#include "store/value/value_file.h"

#include <stdint.h>

/* Buffers (VALUE_FILE_BUFFER_SIZE each) that all large values of a shard share on their way. */
#define STORE_STREAM_BUFFERS 160u

/* How many of them there may be at once; each has a file open (store_files_max). */
#define STORE_STREAMS_MAX 768u

/* A value of at least this many bytes, decoded, lies in a file. */
uint32_t store_value_file_min(const struct store *store);

/* A frame of more bytes than this is decoded into a file as it arrives; a smaller one may turn out
 * to be no less than store_value_file_min. */
uint32_t store_frame_size_max(const struct store *store);

/* Whether another upload or download may begin now; when it may not, again after the room event. */
bool store_has_stream(struct store *store);

struct store_upload;

/* Begins a value of about `size_hint` bytes (0: not known), at most value_size_max. `version`: of
 * the file's name, a stamp that the key's own store gave (store_stamp), or NULL: it is this one.
 * `events`: the writer's. Returns OK, BUSY (no memory), NO_SPACE, NO_MEMORY or FAILED. */
enum store_status store_upload_begin(struct store *store, struct slice key, uint64_t size_hint,
                                     const struct version *version,
                                     const struct value_writer_events *events,
                                     struct store_upload **ret_upload);

/* To be filled and finished; closed by store_upload_close alone. */
struct value_writer *store_upload_writer(const struct store_upload *upload);

/* After `finished` with 0: makes the value visible, as the newest one of its key: its record is
 * stamped now. Returns OK, with the gate to be waited for, BUSY (again after the store's room
 * event), NO_SPACE, NO_MEMORY or FAILED. */
enum store_status store_upload_commit(struct store_upload *upload, struct slice key,
                                      uint64_t *ret_gate);

/* ---- a file that one store has written for a key of another, of the same directory ----
 *
 *     owner    store_stamp
 *     writer   store_upload_begin ... finished, store_upload_file
 *     owner    store_adopt, store_upload_commit, store_upload_close
 *     writer   store_upload_hand_over when it was committed, store_upload_close */

struct store_file {
    struct value_file_name name;
    struct slice descriptor;
    uint32_t size; /* of the value */
};

/* What the writer has finished: valid until the close. */
const struct store_file *store_upload_file(struct store_upload *upload);

/* An upload of the owner's, to be committed: `file` stays as it is until the close. NULL: no
 * memory. */
struct store_upload *store_adopt(struct store *store, const struct store_file *file);

/* Whether the key's record names the file now; otherwise it is to go. */
bool store_upload_is_committed(const struct store_upload *upload);

/* The file is its owner's now: it stays. */
void store_upload_hand_over(struct store_upload *upload);

/* ---- a file that one store's key names and another store reads ---- */

/* It is not removed until it was taken back as often as it was lent, though nothing may name it any
 * more. Returns false when there is no memory. */
bool store_lend_file(struct store *store, const struct value_file_name *name);
void store_take_back_file(struct store *store, const struct value_file_name *name);

/* In any state, as value_writer_close. What was not committed is removed. */
void store_upload_close(struct store_upload *upload);

/* Its memory, when the store is gone. NULL: nothing. */
void store_upload_forget(struct store_upload *upload);

/* What a client is told when its value could not be written: NO_SPACE, TOO_LARGE, BUSY (no memory,
 * too many open files) or FAILED (the device refused it). */
enum store_status store_upload_failed(struct store *store, int error);

/* `value` is what store_get showed, of a value file. Errors: value_reader_open's. */
int store_download_open(struct store *store, const struct store_value *value,
                        const struct value_reader_events *events, struct value_reader **ret_reader);
void store_download_close(struct store *store, struct value_reader *reader);

/* value_reader_error, which the store's findings have from then on, unless it is -ENOENT: the file
 * may have been replaced. That it is missing for good, store_download_missing says. */
int store_download_error(struct store *store, const struct value_reader *reader);
void store_download_missing(struct store *store, const struct value_file_name *name);

#endif
