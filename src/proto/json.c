/* A scanner of JSON (RFC 8259) that takes a text in pieces, keeps a bounded state, and can take the
 * member "value" out of an envelope and its whitespace away. */
#include "proto/json.h"

#include "base/assert.h"

#include <string.h>

/* What may come next. Where whitespace is skipped, up to STATE_AFTER; then within a string, a
 * number, a literal; then the errors, which are final.
 *
 *   VALUE -> (in a string, number or literal) -> AFTER -> VALUE or NAME behind a comma
 *   VALUE -[-> FIRST_ELEMENT, -{-> FIRST_NAME; a closing bracket -> AFTER
 *   NAME, FIRST_NAME -> (in a string) -> COLON -> VALUE */
enum state {
    STATE_VALUE,
    STATE_FIRST_ELEMENT, /* or the end of the array */
    STATE_FIRST_NAME,    /* or the end of the object */
    STATE_NAME,
    STATE_COLON,
    STATE_AFTER, /* a value: a comma or the end of what it is in, or of the text */
    STATE_STRING,
    STATE_ESCAPE,
    STATE_HEX,
    STATE_LOW_BACKSLASH, /* behind the escape of a high surrogate */
    STATE_LOW_U,
    STATE_LITERAL,
    STATE_MINUS, /* digits have to come */
    STATE_POINT,
    STATE_EXPONENT, /* digits or a sign */
    STATE_EXPONENT_SIGN,
    STATE_ZERO, /* from here on a number may end */
    STATE_INTEGER,
    STATE_FRACTION,
    STATE_EXPONENT_DIGITS,
    STATE_BAD, /* from here on as result_of has them */
    STATE_DEEP,
    STATE_DUPLICATE,
};

#define NAME "value"
#define NAME_SIZE ((uint8_t)(sizeof NAME - 1))
#define NAME_DIFFERS UINT8_MAX

/* One call's input and output: [from, p) is scanned and, when it is to be output, not output yet.
 * The output is never ahead of the input, so both may be the same memory. */
struct cursor {
    const uint8_t *p;
    const uint8_t *end;
    const uint8_t *from;
    uint8_t *target;
    size_t size;
};

void json_scan_init(struct json_scan *scan, bool is_envelope)
{
    *scan = (struct json_scan){
        .state = STATE_VALUE, .is_envelope = is_envelope, .is_emitting = !is_envelope};
}

static void flush(struct cursor *cursor)
{
    assert(cursor->from <= cursor->p);
    size_t size = (size_t)(cursor->p - cursor->from);
    if (cursor->target != NULL && cursor->target + cursor->size != cursor->from && size > 0)
        memmove(cursor->target + cursor->size, cursor->from, size);
    cursor->size += size;
    cursor->from = cursor->p;
}

static bool is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

/* ---- levels ---- */

/* In the object whose member "value" is looked for. */
static bool at_envelope(const struct json_scan *scan)
{
    return scan->is_envelope && scan->depth == 1;
}

static bool in_object(const struct json_scan *scan)
{
    assert(scan->depth > 0);
    uint32_t level = scan->depth - 1u;
    return (scan->is_object[level / 8] >> (level % 8) & 1) != 0;
}

static void open_level(struct json_scan *scan, bool is_object)
{
    /* The envelope is not a level of the value. */
    if (scan->depth == JSON_DEPTH_MAX + scan->is_envelope) {
        scan->state = STATE_DEEP;
        return;
    }
    uint8_t bit = (uint8_t)(1u << (scan->depth % 8));
    uint8_t *levels = &scan->is_object[scan->depth / 8];
    *levels = is_object ? *levels | bit : *levels & (uint8_t)~bit;
    scan->depth++;
    scan->state = is_object ? STATE_FIRST_NAME : STATE_FIRST_ELEMENT;
}

static void close_level(struct json_scan *scan, bool is_object)
{
    bool is_right = scan->depth > 0 && in_object(scan) == is_object;
    if (is_right)
        scan->depth--;
    scan->state = is_right ? STATE_AFTER : STATE_BAD;
}

/* ---- between values ---- */

static void begin_literal(struct json_scan *scan, const char *rest)
{
    scan->state = STATE_LITERAL;
    scan->literal = rest;
}

static void begin_string(struct json_scan *scan, bool is_name)
{
    scan->state = STATE_STRING;
    scan->in_name = is_name;
    scan->name_matched = 0;
}

static void begin_value(struct json_scan *scan, uint8_t byte)
{
    switch (byte) {
    case '"':
        begin_string(scan, false);
        break;
    case '{':
    case '[':
        open_level(scan, byte == '{');
        break;
    case 't':
        begin_literal(scan, "rue");
        break;
    case 'f':
        begin_literal(scan, "alse");
        break;
    case 'n':
        begin_literal(scan, "ull");
        break;
    case '-':
        scan->state = STATE_MINUS;
        break;
    case '0':
        scan->state = STATE_ZERO;
        break;
    default:
        scan->state = is_digit(byte) ? STATE_INTEGER : STATE_BAD;
    }
}

/* Behind a member's name. */
static void take_colon(struct json_scan *scan, struct cursor *cursor)
{
    scan->state = STATE_VALUE;
    if (!at_envelope(scan) || scan->name_matched != NAME_SIZE)
        return;
    if (scan->has_value)
        scan->state = STATE_DUPLICATE;
    scan->has_value = true;
    scan->is_emitting = true;
    cursor->from = cursor->p + 1;
}

static void take_after(struct json_scan *scan, struct cursor *cursor, uint8_t byte)
{
    if (at_envelope(scan) && scan->is_emitting) {
        flush(cursor);
        scan->is_emitting = false;
    }
    if (byte == ',' && scan->depth > 0)
        scan->state = in_object(scan) ? STATE_NAME : STATE_VALUE;
    else if (byte == '}' || byte == ']')
        close_level(scan, byte == '}');
    else
        scan->state = STATE_BAD;
}

static void take_structure(struct json_scan *scan, struct cursor *cursor, uint8_t byte)
{
    switch ((enum state)scan->state) {
    case STATE_FIRST_ELEMENT:
        if (byte == ']')
            close_level(scan, false);
        else
            begin_value(scan, byte);
        break;
    case STATE_FIRST_NAME:
        if (byte == '}')
            close_level(scan, true);
        else if (byte == '"')
            begin_string(scan, true);
        else
            scan->state = STATE_BAD;
        break;
    case STATE_NAME:
        if (byte == '"')
            begin_string(scan, true);
        else
            scan->state = STATE_BAD;
        break;
    case STATE_COLON:
        if (byte == ':')
            take_colon(scan, cursor);
        else
            scan->state = STATE_BAD;
        break;
    case STATE_AFTER:
        take_after(scan, cursor, byte);
        break;
    default:
        begin_value(scan, byte);
    }
}

static void scan_structure(struct json_scan *scan, struct cursor *cursor)
{
    uint8_t byte = *cursor->p;
    if (!is_space(byte)) {
        take_structure(scan, cursor, byte);
        cursor->p++;
        return;
    }
    if (scan->is_emitting)
        flush(cursor);
    while (cursor->p < cursor->end && is_space(*cursor->p))
        cursor->p++;
    cursor->from = cursor->p;
}

/* ---- strings ---- */

static void match_name(struct json_scan *scan, uint32_t unit)
{
    uint8_t matched = scan->name_matched;
    bool is_next = matched < NAME_SIZE && unit == (uint8_t)NAME[matched];
    scan->name_matched = is_next ? matched + 1 : NAME_DIFFERS;
}

/* The high bit of each of eight bytes at which a run of plain ASCII ends; the lowest one is exact
 * (a borrow can only mark bytes above it). */
static uint64_t special_bytes(uint64_t bytes)
{
    const uint64_t ones = 0x0101010101010101u;
    const uint64_t tops = 0x80 * ones;
    uint64_t quotes = bytes ^ ('"' * ones);
    uint64_t backslashes = bytes ^ ('\\' * ones);
    uint64_t controls = (bytes - 0x20 * ones) & ~bytes;
    return (bytes | controls | ((quotes - ones) & ~quotes) |
            ((backslashes - ones) & ~backslashes)) &
           tops;
}

static const uint8_t *skip_plain(const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 8) {
        uint64_t special = special_bytes(load_u64(p));
        if (special != 0)
            return p + __builtin_ctzll(special) / 8;
        p += 8;
    }
    return p;
}

static void take_string_byte(struct json_scan *scan, uint8_t byte)
{
    if (byte == '"') {
        scan->state = scan->in_name ? STATE_COLON : STATE_AFTER;
        return;
    }
    if (byte == '\\')
        scan->state = STATE_ESCAPE;
    else if (byte < 0x20 || !utf8_lead(&scan->utf8, byte))
        scan->state = STATE_BAD;
    else
        match_name(scan, byte);
}

static void scan_string(struct json_scan *scan, struct cursor *cursor)
{
    bool is_read = scan->in_name && at_envelope(scan);
    const uint8_t *p = cursor->p;
    while (p < cursor->end && scan->state == STATE_STRING) {
        if (scan->utf8.left > 0) {
            if (!utf8_continuation(&scan->utf8, *p++))
                scan->state = STATE_BAD;
            continue;
        }
        if (!is_read)
            p = skip_plain(p, cursor->end);
        if (p < cursor->end)
            take_string_byte(scan, *p++);
    }
    cursor->p = p;
}

static void begin_hex(struct json_scan *scan)
{
    scan->state = STATE_HEX;
    scan->hex_left = 4;
    scan->unit = 0;
}

static void take_escape(struct json_scan *scan, uint8_t byte)
{
    if (byte == 'u') {
        begin_hex(scan);
        return;
    }
    bool is_known = byte != 0 && strchr("\"\\/bfnrt", byte) != NULL;
    scan->state = is_known ? STATE_STRING : STATE_BAD;
    scan->name_matched = NAME_DIFFERS;
}

/* A whole \u escape: surrogates come in pairs, high then low. */
static void end_hex(struct json_scan *scan)
{
    bool is_high = (scan->unit & 0xFC00) == 0xD800;
    bool is_low = (scan->unit & 0xFC00) == 0xDC00;
    bool is_right = scan->wants_low == is_low;
    scan->wants_low = is_high;
    match_name(scan, scan->unit);
    scan->state = !is_right ? STATE_BAD : is_high ? STATE_LOW_BACKSLASH : STATE_STRING;
}

static void take_hex(struct json_scan *scan, uint8_t byte)
{
    uint8_t lower = byte | 0x20;
    bool is_letter = lower >= 'a' && lower <= 'f';
    if (!is_digit(byte) && !is_letter) {
        scan->state = STATE_BAD;
        return;
    }
    uint32_t digit = is_letter ? lower - 'a' + 10u : byte - (uint32_t)'0';
    assert(scan->hex_left > 0);
    scan->unit = (uint16_t)(scan->unit << 4 | digit);
    if (--scan->hex_left == 0)
        end_hex(scan);
}

/* ---- numbers and literals ---- */

static void take_literal(struct json_scan *scan, uint8_t byte)
{
    if (byte != (uint8_t)*scan->literal)
        scan->state = STATE_BAD;
    else if (*++scan->literal == 0)
        scan->state = STATE_AFTER;
}

static void take_exponent(struct json_scan *scan, uint8_t byte)
{
    if (is_digit(byte))
        scan->state = STATE_EXPONENT_DIGITS;
    else if (scan->state == STATE_EXPONENT && (byte == '+' || byte == '-'))
        scan->state = STATE_EXPONENT_SIGN;
    else
        scan->state = STATE_BAD;
}

/* Behind the digits of a number that may end here. */
static void take_number_rest(struct json_scan *scan, struct cursor *cursor)
{
    uint8_t byte = *cursor->p;
    bool is_whole = scan->state == STATE_ZERO || scan->state == STATE_INTEGER;
    if (byte == '.' && is_whole)
        scan->state = STATE_POINT;
    else if ((byte | 0x20) == 'e' && scan->state != STATE_EXPONENT_DIGITS)
        scan->state = STATE_EXPONENT;
    else {
        scan->state = STATE_AFTER;
        return;
    }
    cursor->p++;
}

static void scan_digits(struct json_scan *scan, struct cursor *cursor)
{
    if (scan->state != STATE_ZERO)
        while (cursor->p < cursor->end && is_digit(*cursor->p))
            cursor->p++;
    if (cursor->p < cursor->end)
        take_number_rest(scan, cursor);
}

/* Within a string's escape, a number before its digits, or a literal. */
static void take_inner(struct json_scan *scan, uint8_t byte)
{
    switch ((enum state)scan->state) {
    case STATE_ESCAPE:
        take_escape(scan, byte);
        break;
    case STATE_HEX:
        take_hex(scan, byte);
        break;
    case STATE_LOW_BACKSLASH:
        scan->state = byte == '\\' ? STATE_LOW_U : STATE_BAD;
        break;
    case STATE_LOW_U:
        if (byte == 'u')
            begin_hex(scan);
        else
            scan->state = STATE_BAD;
        break;
    case STATE_LITERAL:
        take_literal(scan, byte);
        break;
    case STATE_MINUS:
        scan->state = byte == '0' ? STATE_ZERO : is_digit(byte) ? STATE_INTEGER : STATE_BAD;
        break;
    case STATE_POINT:
        scan->state = is_digit(byte) ? STATE_FRACTION : STATE_BAD;
        break;
    default:
        take_exponent(scan, byte);
    }
}

/* ---- the whole ---- */

static enum json_result result_of(const struct json_scan *scan)
{
    static const uint8_t results[] = {JSON_BAD, JSON_DEEP, JSON_DUPLICATE};
    return scan->state < STATE_BAD ? JSON_MORE : (enum json_result)results[scan->state - STATE_BAD];
}

enum json_result json_scan(struct json_scan *scan, const uint8_t *data, size_t size,
                           uint8_t *target, size_t *ret_size)
{
    assert(result_of(scan) == JSON_MORE);
    struct cursor cursor = {.p = data, .end = data + size, .from = data, .target = target};
    while (cursor.p < cursor.end && scan->state < STATE_BAD) {
        if (scan->state <= STATE_AFTER)
            scan_structure(scan, &cursor);
        else if (scan->state == STATE_STRING)
            scan_string(scan, &cursor);
        else if (scan->state >= STATE_ZERO)
            scan_digits(scan, &cursor);
        else
            take_inner(scan, *cursor.p++);
    }
    if (scan->is_emitting)
        flush(&cursor);
    *ret_size = cursor.size;
    return result_of(scan);
}

enum json_result json_scan_end(struct json_scan *scan)
{
    assert(result_of(scan) == JSON_MORE);
    if (scan->state >= STATE_ZERO)
        scan->state = STATE_AFTER;
    if (scan->state != STATE_AFTER || scan->depth > 0)
        return JSON_BAD;
    return scan->is_envelope && !scan->has_value ? JSON_MISSING : JSON_GOOD;
}

const char *json_result_text(enum json_result result)
{
    static const char *const texts[] = {
        [JSON_BAD] = "invalid json",
        [JSON_DEEP] = "more than 512 levels: use /v1/kv/KEY",
        [JSON_MISSING] = "missing value field",
        [JSON_DUPLICATE] = "more than one value field",
    };
    return texts[result];
}
