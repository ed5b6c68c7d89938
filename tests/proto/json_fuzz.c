/* The JSON scanner under libFuzzer, beside yyjson.
 *
 * Input: a byte of options (bit 0: an envelope; bit 1: what follows are numbers of tokens; bits 2
 * to 7 seed the choice of splits), then a text. What must hold:
 *
 * 1. What is found and what comes out do not depend on how the text is cut into pieces.
 * 2. yyjson takes what the scanner takes (but for the levels), and reads the same out of it.
 * 3. What came out, scanned again, is the same bytes.
 * 4. A value that is sent as a string is read back as the bytes that it was.
 * 5. No byte beyond the given ones is read or written: pieces and outputs lie alone on the heap. */
#include "base/prng.h"
#include "tests/support/fuzz.h"
#include "proto/json.h"

#include <stdlib.h>
#include <yyjson.h>

static const char *const tokens[] = {
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"value\"",
    "\"a\"",
    "\"v\\u0061lue\"",
    "\"",
    "\\",
    "\\\"",
    "\\n",
    "\\u",
    "\\ud83d",
    "\\ude00",
    "00e4",
    "\\u0000",
    "0",
    "-",
    "1",
    "9",
    ".",
    "e",
    "E+",
    "true",
    "false",
    "null",
    "\xC3\xA4",
    "\xE2",
    "\x82",
    "\xAC",
    "\xED\xA0",
    "\xF0\x9F",
    "\x80",
    "\xFF",
    " ",
    "\n",
    "\t\r ",
    "\f",
    "text",
    "{\"value\":",
    "[[[[",
    "]]]]",
    "1e400",
    "plain text that is longer than a word",
    "9007199254740993",
};
#define TOKEN_COUNT (sizeof tokens / sizeof tokens[0])

struct outcome {
    enum json_result result;
    uint8_t *output;
    size_t size;
};

static void scan_init(struct json_scan *scan, bool is_envelope)
{
    if (is_envelope)
        json_scan_init(scan, true);
    else
        json_scan_init(scan, false);
}

/* In pieces of up to `piece_max` bytes; each is scanned onto itself when the prng says so. */
static struct outcome scan_pieces(const uint8_t *data, size_t size, bool is_envelope,
                                  size_t piece_max, struct prng *prng)
{
    struct outcome outcome = {.result = JSON_MORE, .output = fuzz_copy(data, size)};
    struct json_scan scan;
    scan_init(&scan, is_envelope);
    for (size_t position = 0; position < size && outcome.result == JSON_MORE;) {
        size_t left = size - position;
        size_t piece_size = piece_max >= left ? left : 1 + prng_below(prng, piece_max);
        piece_size = piece_size < left ? piece_size : left;
        uint8_t *piece = fuzz_copy(data + position, piece_size);
        uint8_t *target = prng_below(prng, 2) == 0 ? piece : fuzz_copy(piece, piece_size);
        size_t written = 0;
        outcome.result = json_scan(&scan, piece, piece_size, target, &written);
        REQUIRE(written <= piece_size);
        memcpy(outcome.output + outcome.size, target, written);
        outcome.size += written;
        position += piece_size;
        if (target != piece)
            free(target);
        free(piece);
    }
    if (outcome.result == JSON_MORE)
        outcome.result = json_scan_end(&scan);
    return outcome;
}

/* Rule 2: the result that yyjson's reading asks for. `*ret_value`: what must have come out. */
static enum json_result expected_of(yyjson_doc *document, bool is_envelope, yyjson_val **ret_value)
{
    if (document == NULL)
        return JSON_BAD;
    *ret_value = yyjson_doc_get_root(document);
    if (!is_envelope)
        return JSON_GOOD;
    yyjson_obj_iter members;
    if (!yyjson_obj_iter_init(*ret_value, &members))
        return JSON_MISSING;
    size_t count = 0;
    for (yyjson_val *name = yyjson_obj_iter_next(&members); name != NULL;
         name = yyjson_obj_iter_next(&members)) {
        if (!yyjson_equals_str(name, "value"))
            continue;
        *ret_value = yyjson_obj_iter_get_val(name);
        count++;
    }
    return count == 0 ? JSON_MISSING : count == 1 ? JSON_GOOD : JSON_DUPLICATE;
}

static void require_yyjson(const uint8_t *data, size_t size, bool is_envelope,
                           const struct outcome *outcome)
{
    yyjson_val *value = NULL;
    yyjson_doc *document = yyjson_read((const char *)data, size, YYJSON_READ_NUMBER_AS_RAW);
    enum json_result expected = expected_of(document, is_envelope, &value);
    if (expected == JSON_GOOD) {
        REQUIRE(outcome->result == JSON_GOOD);
        yyjson_doc *output =
            yyjson_read((const char *)outcome->output, outcome->size, YYJSON_READ_NUMBER_AS_RAW);
        REQUIRE(output != NULL && yyjson_equals(yyjson_doc_get_root(output), value));
        yyjson_doc_free(output);
    } else if (outcome->result == JSON_DUPLICATE) {
        REQUIRE(expected == JSON_DUPLICATE || expected == JSON_BAD); /* bad later on */
    } else {
        REQUIRE(outcome->result == expected);
    }
    yyjson_doc_free(document);
}

/* Rule 4. */
static void require_string(const uint8_t *data, size_t size, uint64_t string_size,
                           struct prng *prng)
{
    uint8_t *string = malloc(string_size);
    REQUIRE(string != NULL);
    size_t end = 0;
    string[end++] = '"';
    for (size_t position = 0; position < size;) {
        size_t room = JSON_ESCAPE_MAX + prng_below(prng, 64);
        room = room < string_size - end ? room : string_size - end;
        size_t taken = 0;
        end += json_escape(data + position, size - position, string + end, room, &taken);
        REQUIRE(taken > 0);
        position += taken;
    }
    string[end++] = '"';
    REQUIRE(end == string_size);
    yyjson_doc *document = yyjson_read((const char *)string, string_size, 0);
    REQUIRE(document != NULL);
    yyjson_val *value = yyjson_doc_get_root(document);
    REQUIRE(yyjson_get_len(value) == size);
    REQUIRE(size == 0 || memcmp(yyjson_get_str(value), data, size) == 0);
    yyjson_doc_free(document);
    free(string);
}

static void require_kind(const uint8_t *data, size_t size, struct prng *prng,
                         const struct outcome *whole)
{
    struct json_judge judge;
    json_judge_init(&judge);
    for (size_t position = 0; position < size;) {
        size_t piece_size = 1 + prng_below(prng, size - position);
        json_judge_take(&judge, data + position, piece_size);
        position += piece_size;
    }
    uint64_t reply_size = 0;
    enum json_kind kind = json_judge_end(&judge, size, &reply_size);
    REQUIRE((kind == JSON_KIND_JSON) == (whole->result == JSON_GOOD));
    REQUIRE((kind == JSON_KIND_DEEP) == (whole->result == JSON_DEEP));
    if (kind == JSON_KIND_JSON)
        REQUIRE(reply_size == size);
    if (kind == JSON_KIND_TEXT)
        require_string(data, size, reply_size, prng);
}

static void require_all(const uint8_t *data, size_t size, bool is_envelope, struct prng *prng)
{
    struct outcome whole = scan_pieces(data, size, is_envelope, size, prng);
    struct outcome pieces = scan_pieces(data, size, is_envelope, 12, prng);
    REQUIRE(pieces.result == whole.result);
    if (whole.result == JSON_GOOD) {
        REQUIRE(pieces.size == whole.size);
        REQUIRE(memcmp(pieces.output, whole.output, whole.size) == 0);
        struct outcome again = scan_pieces(whole.output, whole.size, false, 64, prng);
        REQUIRE(again.result == JSON_GOOD && again.size == whole.size);
        REQUIRE(memcmp(again.output, whole.output, whole.size) == 0);
        free(again.output);
    }
    if (whole.result != JSON_DEEP)
        require_yyjson(data, size, is_envelope, &whole);
    if (!is_envelope)
        require_kind(data, size, prng, &whole);
    free(whole.output);
    free(pieces.output);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    bool is_envelope = (data[0] & 1) != 0;
    struct prng prng = {data[0]};
    if ((data[0] & 2) == 0) {
        require_all(data + 1, size - 1, is_envelope, &prng);
        return 0;
    }
    uint8_t *text = NULL;
    size_t text_size = fuzz_expand(tokens, TOKEN_COUNT, data + 1, size - 1, &text);
    require_all(text, text_size, is_envelope, &prng);
    free(text);
    return 0;
}
