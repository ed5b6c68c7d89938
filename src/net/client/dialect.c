/* The dialects that every protocol shares the parts of: the binary one, and replies that are
 * written already. */
#include "net/client/dialect.h"

#include "base/assert.h"
#include "proto/binary.h"

#include <stdio.h>
#include <string.h>

uint32_t reply_put_value(const struct shard_answer *answer, uint8_t *target,
                         struct reply_value *ret_value)
{
    if (answer->size <= REPLY_INLINE_MAX || answer->is_in_lent) {
        if (answer->size > 0 && answer->data != target)
            memmove(target, answer->data, answer->size);
        return answer->size;
    }
    *ret_value = (struct reply_value){.data = answer->data,
                                      .size = answer->size,
                                      .entry = answer->entry,
                                      .memory = answer->memory};
    return 0;
}

const char *reply_text(const struct shard_answer *answer, char *buffer)
{
    if (answer->error == 0)
        return NULL;
    (void)snprintf(buffer, REPLY_TEXT_MAX, "the stored value cannot be read now: %s",
                   strerror(-answer->error));
    return buffer;
}

/* ---- the binary protocol ---- */

#define TYPED 2u /* the bit of a form */

/* Before HELLO every error is the same five bytes. */
static int32_t write_binary(struct reply_form form, const struct shard_answer *answer,
                            uint8_t *target, struct reply_value *ret_value)
{
    uint8_t *data = target + MINIVAULT_ANSWER_HEADER_SIZE;
    if (answer->status == MINIVAULT_OK) {
        uint32_t put = reply_put_value(answer, data, ret_value);
        binary_answer_header(target, MINIVAULT_OK, answer->size);
        return (int32_t)(MINIVAULT_ANSWER_HEADER_SIZE + put);
    }
    bool is_typed = (form.bits & TYPED) != 0;
    char buffer[REPLY_TEXT_MAX];
    const char *told = reply_text(answer, buffer);
    const char *text = !is_typed ? "" : told != NULL ? told : binary_status_text(answer->status);
    uint32_t size = (uint32_t)strlen(text);
    assert(size <= REPLY_TEXT_MAX);
    binary_answer_header(target, is_typed ? answer->status : MINIVAULT_ERROR, size);
    memcpy(data, text, size);
    return (int32_t)(MINIVAULT_ANSWER_HEADER_SIZE + size);
}

static uint32_t write_binary_stream(struct reply_form form, uint64_t size, uint8_t *target)
{
    (void)form;
    binary_answer_header(target, MINIVAULT_OK, (uint32_t)size);
    return MINIVAULT_ANSWER_HEADER_SIZE;
}

static const struct dialect binary = {.head_max = MINIVAULT_ANSWER_HEADER_SIZE,
                                      .error_max = MINIVAULT_ANSWER_HEADER_SIZE + REPLY_TEXT_MAX,
                                      .growth = 1,
                                      .value_offset = MINIVAULT_ANSWER_HEADER_SIZE,
                                      .write = write_binary,
                                      .write_stream = write_binary_stream};

struct reply_form reply_form_binary(bool typed)
{
    return (struct reply_form){&binary, typed ? TYPED : 0};
}

/* ---- verbatim ---- */

static int32_t write_verbatim(struct reply_form form, const struct shard_answer *answer,
                              uint8_t *target, struct reply_value *ret_value)
{
    (void)form;
    return (int32_t)reply_put_value(answer, target, ret_value);
}

static const struct dialect verbatim = {.growth = 1, .write = write_verbatim};

struct reply_form reply_form_verbatim(void)
{
    return (struct reply_form){&verbatim, 0};
}
