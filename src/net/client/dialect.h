/* How a protocol writes a reply: the shard's answer to bytes. The output knows no protocol. */
#ifndef MINIVAULT_NET_DIALECT_H
#define MINIVAULT_NET_DIALECT_H

#include "shard/shard.h"

#include <stdint.h>

struct dialect;

/* What the reply to a request depends on besides the answer; kept with a reserved place. */
struct reply_form {
    const struct dialect *dialect;
    uint32_t bits; /* the dialect's, and */
};
#define REPLY_HEAD 1u /* only the head of the reply is sent */

/* A value that is sent behind a reply's head from where it lies. */
struct reply_value {
    const uint8_t *data;
    uint32_t size;             /* 0: nothing follows */
    struct cache_entry *entry; /* as in struct shard_answer */
    void *memory; /* data lies in it, malloc'ed, and it is the receiver's now; or NULL */
};

/* A larger value is sent from where it lies instead of being copied behind its head. */
#define REPLY_INLINE_MAX 2048u

struct dialect {
    uint32_t head_max;     /* bytes of a reply that says OK, without its value */
    uint32_t error_max;    /* bytes of one that does not */
    uint32_t growth;       /* bytes that a byte of a value becomes, at most */
    uint32_t value_offset; /* where in a reply its value is best put, before it is written */

    bool is_json; /* a value is sent as JSON: see download_json.h */

    /* Writes a reply to `target`: reply_need bytes, or an empty block. The answer's data may lie
     * in the target's block (is_in_lent). Returns the bytes; *ret_value follows them. Errors:
     * -ENOMEM. */
    int32_t (*write)(struct reply_form form, const struct shard_answer *answer, uint8_t *target,
                     struct reply_value *ret_value);

    /* Writes a reply that says no, in the protocol's own words. NULL: where is_json is false. */
    uint32_t (*write_error)(struct reply_form form, uint16_t status, const char *reason,
                            uint8_t *target);

    /* Writes the head of a reply that says OK, behind which a stream of `size` bytes follows. */
    uint32_t (*write_stream)(struct reply_form form, uint64_t size, uint8_t *target);
};

/* The bytes that `write` may need at its target. */
static inline uint32_t reply_need(const struct dialect *dialect, const struct shard_answer *answer)
{
    if (answer->status != MINIVAULT_OK)
        return dialect->error_max;
    uint64_t grown = (uint64_t)answer->size * dialect->growth;
    return dialect->head_max + (uint32_t)(grown < REPLY_INLINE_MAX ? grown : REPLY_INLINE_MAX);
}

/* Puts an answer's value behind a head: into the target when it is small or lies there already.
 * Returns the bytes. */
uint32_t reply_put_value(const struct shard_answer *answer, uint8_t *target,
                         struct reply_value *ret_value);

/* What an answer that is not OK says, in words that are valid as long as `buffer`,
 * REPLY_TEXT_MAX bytes; NULL: what its status says. */
#define REPLY_TEXT_MAX 128u
const char *reply_text(const struct shard_answer *answer, char *buffer);

/* The binary protocol's, before and after HELLO. */
struct reply_form reply_form_binary(bool typed);

/* An answer's data are the whole reply. */
struct reply_form reply_form_verbatim(void);

#endif
