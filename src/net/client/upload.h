/* A large value on its way into a value file, of one client: from its header to its answer.
 *
 *     upload_begin -> upload_take, or upload_buffer + upload_filled, until all is there -> done
 *
 * upload_take, upload_filled, upload_end, upload_refuse and upload_go_on may end it. */
#ifndef MINIVAULT_NET_UPLOAD_H
#define MINIVAULT_NET_UPLOAD_H

#include "net/client/client.h"

struct upload;

/* What is stored of `size` bytes on the wire: at most as many, to `target`. Returns OK, or the
 * status to refuse the value with. */
typedef uint8_t upload_filter(void *context, const uint8_t *data, uint32_t size, uint8_t *target,
                              uint32_t *ret_size);

/* The upload has ended and is gone: what its reserved place is to be filled with. */
typedef void upload_done(void *context, struct output_block *block,
                         const struct shard_answer *answer);

struct upload_request {
    struct slice key;
    uint64_t size;         /* bytes on the wire that are known to come */
    bool is_open;          /* until upload_end; more may follow (upload_expect), unless */
    bool is_counted;       /* `size` is all of them */
    bool is_frame;         /* they are one zstd frame */
    bool is_prompt;        /* a refusal is answered at once instead of after the value */
    struct slice begin;    /* of the value: what came already; stays where it is until the end */
    upload_filter *filter; /* of what still comes, or NULL */
    void *context;         /* the filter's, and done's */
    struct reply_form form;
    upload_done *done;
};

/* Takes the header of a SET; the bytes of its value, all of them, follow. Errors, nothing was done:
 * -EAGAIN (no room now), -ENOMEM. */
int upload_begin(struct client *client, const struct upload_request *request,
                 struct upload **ret_upload);

/* Whether it has use for bytes now. */
bool upload_takes(const struct upload *upload);

/* Takes bytes; returns how many: none when it has to wait. */
uint64_t upload_take(struct upload *upload, const uint8_t *data, uint64_t size);

/* Whether its bytes are to be received straight into the file's memory, and where: NULL: not now.
 * `is_receiving`: a receive that is under way would have to be ended for that. upload_filled
 * follows; or, when the receive ends without a byte, upload_emptied. */
bool upload_is_direct(const struct upload *upload, bool is_receiving);
uint8_t *upload_buffer(struct upload *upload, uint32_t *ret_size);
void upload_filled(struct upload *upload, uint32_t size);
void upload_emptied(struct upload *upload);

/* An open one: so many more bytes are known to come; all have come. */
void upload_expect(struct upload *upload, uint64_t size);
void upload_end(struct upload *upload);

/* An open one is not wanted after all (`is_prompt`: the end of the upload comes from the loop;
 * unless all bytes come first). Returns whether a receive into its memory is to be cancelled for
 * that. */
bool upload_refuse(struct upload *upload, uint8_t status);

/* The stream has ended, but for `saved` bytes: whether its bytes will never be whole. */
bool upload_is_cut_off(const struct upload *upload, uint64_t saved);

/* Goes on with what it has. */
void upload_go_on(struct upload *upload);

/* Bytes that are still to come. */
uint64_t upload_left(const struct upload *upload);

/* Gives it up: nothing of it stays, nothing is answered. No receive into its memory is active.
 * Returns false: not now, what is lent to another shard comes back first. */
bool upload_stop(struct upload *upload);

/* Its memory, when the world and the store are gone. */
void upload_free(struct upload *upload);

/* Whether it waits long for its turn; whether its client has sent nothing for this long. */
bool upload_is_starved(const struct upload *upload, uint64_t at_ns);
bool upload_is_stalled(const struct upload *upload, uint64_t at_ns, uint64_t allowed_ns);

#endif
