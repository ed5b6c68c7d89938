/* The binary protocol's frames: bytes to requests, answers to bytes. No I/O, no state, no
 * allocation.
 *
 * binary_parse looks at the bytes that are there and takes one request off their front. It never
 * reads past data + size. A frame whose value has not arrived yet is reported as partial together
 * with how many bytes it will have, so that a caller can collect it, or skip it without keeping it
 * when it is to be refused. */
#ifndef MINIVAULT_PROTO_BINARY_H
#define MINIVAULT_PROTO_BINARY_H

#include "base/bytes.h"
#include "minivault/protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct binary_request {
    uint8_t op;         /* enum minivault_op, 0x10 and above when typed; BINARY_UNKNOWN_OP: any */
    uint8_t compressed; /* SET: as sent, not judged; typed: the flags byte; others: 0 */
    struct slice key;   /* also the secret of AUTH and the name of HELLO; may be empty */
    struct slice value; /* SET: the value; typed: the body; others: NULL, 0. data is NULL while it
                           is partial and not NULL when it is whole, also when it is empty */
};

enum binary_result {
    BINARY_DONE,       /* a whole request; *ret_frame_size bytes are used up */
    BINARY_PARTIAL,    /* not whole yet. *ret_frame_size is the whole frame's size when the key is
                          whole and the lengths are known (then all of the request is valid),
                          otherwise 0 (then nothing of it is) */
    BINARY_UNKNOWN_OP, /* the stream cannot be followed: answer, then close. Only op is valid; it is
                          MINIVAULT_SYNC when a client tried that. *ret_frame_size is 0 */
};

/* `typed`: HELLO was said, so operations from 0x10 on exist. Slices point into `data`, which may be
 * NULL when `size` is 0. On BINARY_DONE all of the request is valid. *ret_frame_size is at most
 * 8 + 65535 + 2^32 - 1. */
enum binary_result binary_parse(const uint8_t *data, size_t size, bool typed,
                                struct binary_request *ret_request, uint64_t *ret_frame_size);

/* Writes an answer's header (MINIVAULT_ANSWER_HEADER_SIZE bytes) to `target`: `data_size` bytes of
 * data follow it. */
void binary_answer_header(uint8_t *target, uint8_t status, uint32_t data_size);

/* The text that an error carries after HELLO when there is nothing better to say. Never NULL. */
const char *binary_status_text(uint8_t status);

#endif
