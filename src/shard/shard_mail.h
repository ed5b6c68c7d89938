/* What two shards write to each other: the bodies of mail (post.h), for shard_ask.c and
 * shard_serve.c alone. */
#ifndef MINIVAULT_SHARD_SHARD_MAIL_H
#define MINIVAULT_SHARD_SHARD_MAIL_H

#include "base/units.h"
#include "shard/mailbox.h"
#include "shard/shard.h"
#include "store/value/value_file.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Copies of keys and values that did not fit into their waiters' lent memory: of all shards, and of
 * one at least. A request that would bring more waits. */
#define SHARD_COPY_BYTES_MAX (64 * MIB)
#define SHARD_COPY_BYTES_MIN (1 * MIB)

enum shard_mail_kind {
    SHARD_MAIL_GET,
    SHARD_MAIL_SET,
    SHARD_MAIL_SET_FRAME, /* the value is a zstd frame */
    SHARD_MAIL_DELETE,
    SHARD_MAIL_VERSION,
    SHARD_MAIL_COMMIT,  /* `value` points to a struct store_file */
    SHARD_MAIL_RELEASE, /* `value` points to a struct value_file_name */
};

/* A key of up to this many bytes travels in the message, so that its owner need not fetch it. */
#define SHARD_MAIL_KEY_MAX 20u

/* The asker's memory is lent until the answer: key and value are read, `lent` is written. */
struct shard_mail_ask {
    const uint8_t *value;
    uint8_t *lent;
    uint32_t lent_size;
    uint32_t value_size;
    uint16_t key_size;
    uint8_t kind;                    /* enum shard_mail_kind */
    uint8_t key[SHARD_MAIL_KEY_MAX]; /* or the pointer to it */
};

static_assert(sizeof(struct shard_mail_ask) == MAIL_BODY_SIZE, "fits into a mail");

/* A value of up to this many bytes travels in the answer. */
#define SHARD_MAIL_VALUE_MAX 40u

enum shard_mail_where {
    SHARD_MAIL_NOWHERE,
    SHARD_MAIL_HERE,      /* bytes */
    SHARD_MAIL_IN_LENT,   /* the asker's `lent`, from its begin on */
    SHARD_MAIL_IN_MEMORY, /* malloc'ed, the asker's from now on */
};

struct shard_mail_reply {
    uint8_t status; /* enum minivault_status */
    uint8_t where;  /* enum shard_mail_where */
    bool in_value_file;
    bool is_committed; /* COMMIT: the file stays */
    uint32_t size;     /* of the value; of ERROR: errno */
    union {
        uint8_t bytes[SHARD_MAIL_VALUE_MAX];
        struct {
            uint8_t *memory;
            struct value_file_name file; /* in_value_file; VERSION */
        };
    };
};

static_assert(sizeof(struct shard_mail_reply) <= MAIL_BODY_SIZE, "fits into a mail");

/* shard_ask.c: files that were lent, of which the owner is still to hear. */
void shard_post_releases(struct shard *shard);
void shard_forget_releases(struct shard *shard);

static inline void shard_mail_set_key(struct shard_mail_ask *ask, const uint8_t *key, uint16_t size)
{
    ask->key_size = size;
    if (size <= SHARD_MAIL_KEY_MAX)
        memcpy(ask->key, key, size);
    else
        memcpy(ask->key, &key, sizeof key);
}

/* Valid as long as the message, or the lent memory. */
static inline struct slice shard_mail_key(const struct shard_mail_ask *ask)
{
    const uint8_t *key = ask->key;
    if (ask->key_size > SHARD_MAIL_KEY_MAX)
        memcpy(&key, ask->key, sizeof key);
    return (struct slice){key, ask->key_size};
}

/* What the asker reads; of a value file without its key. `lent` is its memory. Returns whether a file
 * was committed. */
static inline bool shard_mail_read(const struct shard_mail_reply *reply, const uint8_t *lent,
                                   struct shard_answer *ret_answer)
{
    bool is_here = reply->where == SHARD_MAIL_HERE;
    bool is_in_lent = reply->where == SHARD_MAIL_IN_LENT;
    bool is_error = reply->status == MINIVAULT_ERROR;
    *ret_answer = (struct shard_answer){
        .status = reply->status,
        .data = is_here      ? reply->bytes
                : is_in_lent ? lent
                             : reply->memory,
        .size = is_error ? 0 : reply->size,
        .error = is_error ? -(int)reply->size : 0,
        .is_in_lent = is_in_lent,
        .in_value_file = reply->in_value_file,
        .is_lent = reply->in_value_file,
        .memory = reply->where == SHARD_MAIL_IN_MEMORY ? reply->memory : NULL,
    };
    if (!is_here)
        ret_answer->file = reply->file;
    return reply->is_committed;
}

#endif
