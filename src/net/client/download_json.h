/* A large value on its way out as JSON. It is read twice: once to find out what it is, and how many
 * bytes that will be; then it is sent, as it is or as a string. So it is never in memory as a
 * whole. */
#ifndef MINIVAULT_NET_DOWNLOAD_JSON_H
#define MINIVAULT_NET_DOWNLOAD_JSON_H

#include <stdbool.h>
#include <stdint.h>

struct download_json;

/* Of a value of `size` bytes. NULL: no memory. */
struct download_json *download_json_create(uint64_t size);
void download_json_free(struct download_json *json); /* NULL: nothing */

/* A piece of the first reading. Returns whether it was the last. */
bool download_json_judge(struct download_json *json, const uint8_t *piece, uint32_t size);

bool download_json_is_judged(const struct download_json *json);

/* It need not be read at all: download_json_size says so. */
bool download_json_is_too_large(const struct download_json *json);

/* Judged: the bytes that are to be sent, or 0: it cannot be sent, for this reason (an HTTP status,
 * and what it says of it or NULL). */
uint64_t download_json_size(struct download_json *json, uint16_t *ret_status,
                            const char **ret_reason);

/* What is to be sent next: the present piece as it goes, or what stands around the value; NULL: the
 * next piece of the value is wanted first (download_json_put). */
const uint8_t *download_json_next(struct download_json *json, uint32_t *ret_size);
void download_json_put(struct download_json *json, const uint8_t *piece, uint32_t size);

/* What `next` showed was sent. Returns whether that was the end of the value's piece. */
bool download_json_release(struct download_json *json);

#endif
