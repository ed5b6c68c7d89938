/* Writing JSON (RFC 8259): strings and base64, no more. */
#ifndef MINIVAULT_ADMIN_ADMIN_JSON_H
#define MINIVAULT_ADMIN_ADMIN_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Whether the bytes are well-formed UTF-8 (Unicode, table 3-7). */
bool json_is_utf8(const uint8_t *data, size_t size);

/* Writes well-formed UTF-8 as a string with its quotes. */
void json_write_string(FILE *target, const uint8_t *data, size_t size);

/* Writes bytes as a string of base64 (RFC 4648, with padding) with its quotes. */
void json_write_base64(FILE *target, const uint8_t *data, size_t size);

/* Writes `"NAME": "..."`, or `"NAME_base64": "..."` when the bytes are not UTF-8. */
void json_write_bytes(FILE *target, const char *name, const uint8_t *data, size_t size);

#endif
