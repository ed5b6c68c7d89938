/* JSON (RFC 8259) as the HTTP routes need it: what is in a body, what a stored value is, a text as
 * a string. No I/O, no allocation, no recursion; state of a hundred bytes, and any text may come in
 * any pieces, so that 16 MiB never hold a shard's loop.
 *
 * json_scan checks a text and drops the whitespace outside of its strings. Nothing else changes:
 * numbers and strings stay digit for digit and escape for escape as they were sent.
 *
 * Stricter than the grammar, as sections 8.1 and 8.2 advise: the text is well-formed UTF-8 without
 * a byte order mark, and each \u escape of a surrogate is one half of a pair, so that whoever reads
 * it back can decode it.
 *
 * Why not yyjson here: it has to see the whole text at once, and takes 5 to 113 ms and up to
 * 160 MiB for one of 16 MiB (this scanner: 4 to 78 ms, in slices of any size, and no memory); it
 * decodes strings and does not tell where a value ends, so a scanner would have to follow it
 * anyway. Tests and the fuzzer hold this one against it. */
#ifndef MINIVAULT_PROTO_JSON_H
#define MINIVAULT_PROTO_JSON_H

#include "base/bytes.h"
#include "base/utf8.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Arrays and objects within each other. */
#define JSON_DEPTH_MAX 512u

enum json_result {
    JSON_MORE,      /* all of the input is taken; more has to come, or json_scan_end */
    JSON_GOOD,      /* json_scan_end: it is one whole text */
    JSON_BAD,       /* it is not JSON */
    JSON_DEEP,      /* more than JSON_DEPTH_MAX levels */
    JSON_MISSING,   /* json_scan_end of an envelope: it has no member "value" */
    JSON_DUPLICATE, /* an envelope has more than one */
};

struct json_scan {
    uint8_t state;
    bool is_envelope;
    bool is_emitting; /* what is scanned is output */
    bool has_value;   /* an envelope's member "value" was seen */
    bool in_name;     /* the string is a member's name */
    uint8_t name_matched;
    uint8_t hex_left;                          /* digits of a \u escape */
    bool wants_low;                            /* the escape before was a high surrogate */
    uint16_t unit;                             /* what the digits say so far */
    uint16_t depth;                            /* arrays and objects that are open */
    struct utf8 utf8;                          /* of a string */
    const char *literal;                       /* what is left of true, false or null */
    uint8_t is_object[JSON_DEPTH_MAX / 8 + 1]; /* a bit for each level */
};

/* A whole text is to be scanned, and all of it output; or an envelope: an object of which only the
 * member "value" is output (its name may be spelled with escapes); other members are checked and
 * dropped. */
void json_scan_init(struct json_scan *scan, bool is_envelope);

/* Scans `size` bytes. `target`: where the output goes, for at most `size` bytes; it may be `data`
 * itself, or NULL: none is wanted. *ret_size: how many bytes it is, also with NULL; what came out
 * before an error is worth nothing.
 *
 * Returns JSON_MORE, JSON_BAD, JSON_DEEP, JSON_DUPLICATE; after an error only init may follow. */
enum json_result json_scan(struct json_scan *scan, const uint8_t *data, size_t size,
                           uint8_t *target, size_t *ret_size);

/* The text ends here: JSON_GOOD, JSON_BAD, JSON_MISSING. */
enum json_result json_scan_end(struct json_scan *scan);

/* What a body that is refused is told, of BAD, DEEP, MISSING and DUPLICATE. */
const char *json_result_text(enum json_result result);

/* ---- json_text.c: what a stored value is, and a text as a string ---- */

enum json_kind {
    JSON_KIND_JSON,  /* a JSON text: it is sent as it is */
    JSON_KIND_DEEP,  /* a JSON text, or the beginning of one, of too many levels */
    JSON_KIND_TEXT,  /* well-formed UTF-8: it is sent as a JSON string */
    JSON_KIND_BYTES, /* anything else */
};

/* Finds out what a value is while it comes in pieces. */
struct json_judge {
    struct json_scan scan;
    struct utf8 utf8;
    enum json_result json; /* JSON_MORE as long as it can be JSON */
    bool is_text;          /* as long as it can be UTF-8 */
    uint64_t string_size;  /* of the value as a JSON string, without the quotes */
};

void json_judge_init(struct json_judge *judge);
void json_judge_take(struct json_judge *judge, const uint8_t *data, size_t size);

/* *ret_size, unless it is JSON_KIND_BYTES or JSON_KIND_DEEP: the bytes of what is to be sent: the
 * value's (`value_size`), or those of the string with its quotes. */
enum json_kind json_judge_end(struct json_judge *judge, uint64_t value_size, uint64_t *ret_size);

/* A byte of text becomes at most this many of a string. */
#define JSON_ESCAPE_MAX 6u

/* Writes text as the inside of a JSON string; the quotes are the caller's. Text may be cut
 * anywhere. Takes *ret_taken bytes of it: all, or as many as fit into `target_size` bytes, of which
 * JSON_ESCAPE_MAX are enough to get on. Returns the bytes written. */
size_t json_escape(const uint8_t *data, size_t size, uint8_t *target, size_t target_size,
                   size_t *ret_taken);

#endif
