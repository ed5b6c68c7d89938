/* What the two files of an upload share: upload.c (its life), upload_bytes.c (what becomes of its
 * bytes). */
#ifndef MINIVAULT_NET_UPLOAD_INTERNAL_H
#define MINIVAULT_NET_UPLOAD_INTERNAL_H

#include "net/client/server_internal.h"

enum upload_state { UPLOAD_RECEIVING, UPLOAD_FINISHING, UPLOAD_COMMITTING, UPLOAD_DISCARDING };

struct upload {
    struct connection *connection;
    struct output_block *block; /* its answer's place */
    struct store_upload *file;  /* NULL: not begun yet, or given up */
    struct decode_stream decoder;
    enum upload_state state;
    uint8_t status; /* DISCARDING: the answer */
    bool is_frame;
    bool is_decoded;
    bool waits;     /* for a buffer of the file, or a decoder */
    bool is_sliced; /* has decoded enough for one pass */
    bool is_asking; /* the owner of its key; the block's waiter is in use */
    bool is_open;   /* its end was not told yet */
    bool is_counted;
    bool is_prompt; /* a refusal is answered at once */
    int result;     /* COMMITTING: of the file */
    uint64_t left;  /* bytes on the wire that were not taken yet */
    uint64_t size_hint;
    struct shard_place place;
    struct version version; /* of another shard's key: its owner's; otherwise none */
    uint8_t *direct;        /* what upload_buffer said, while bytes are received there */
    uint8_t refusal;        /* once that has ended; 0: none */
    struct slice begin;     /* of the value, to be taken before anything else */
    upload_filter *filter;
    uint64_t waits_since_ns;
    uint64_t progress_ns;
    struct slice key;
    uint8_t key_bytes[];
};

/* ---- upload.c ---- */

/* Gives the file up; the answer will be `status`. */
void upload_fail(struct upload *upload, uint8_t status);

/* It goes on when there is room. */
void upload_wait(struct upload *upload);

/* Returns false when it is refused. */
bool upload_open_file(struct upload *upload, uint64_t size_hint);

/* ---- upload_bytes.c ---- */

/* NULL: it waits for room, or has failed. */
uint8_t *upload_get_buffer(struct upload *upload, uint32_t *ret_room);

/* So many bytes of the buffer are filled. */
void upload_fill_buffer(struct upload *upload, uint32_t size);

/* What came before the upload began. */
void upload_take_begin(struct upload *upload);

/* Returns how many it took. */
uint64_t upload_take_bytes(struct upload *upload, const uint8_t *data, uint64_t size);

#endif
