/* What a request does with a key, whatever protocol it came by: get, set, delete. The answer goes
 * into the client's output, at once or later into a place that is reserved for it. */
#ifndef MINIVAULT_NET_OPERATION_H
#define MINIVAULT_NET_OPERATION_H

#include "net/client/client.h"

enum taken {
    TAKEN,    /* answered, or its answer is on its way */
    BEGUN,    /* its header was taken; its value is taken by an upload */
    BLOCKED,  /* nothing was done: try again later */
    IS_LARGE, /* operation_set: nothing was done; it is to be uploaded */
};

struct operation_set {
    struct slice key;
    struct slice value;
    bool zstd; /* the value is one frame */
};

/* Queues a reply that is known. TAKEN. */
enum taken operation_answer(struct client *client, struct reply_form form,
                            const struct shard_answer *answer);

/* TAKEN or BLOCKED, of a set also IS_LARGE. There is room in the output. Key and value are not
 * needed after the call. */
enum taken operation_get(struct client *client, struct reply_form form, struct slice key,
                         struct key_place place);
enum taken operation_set(struct client *client, struct reply_form form,
                         const struct operation_set *set, struct key_place place);
enum taken operation_delete(struct client *client, struct reply_form form, struct slice key,
                            struct key_place place);

#endif
