/* The JSON parser by itself, at every split and against yyjson. */
#include "proto/json.h"

#include "tests/support/guard.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <yyjson.h>

#define TEXT(text) (text), sizeof(text) - 1

/* Whole texts: what comes out of them, and in the end. */
static const struct sample {
    const char *text;
    size_t size;
    const char *output; /* NULL: the same */
    enum json_result result;
} samples[] = {
    {TEXT("9007199254740993"), NULL, JSON_GOOD},
    {TEXT("1e400"), NULL, JSON_GOOD},
    {TEXT("0.1"), NULL, JSON_GOOD},
    {TEXT("-0"), NULL, JSON_GOOD},
    {TEXT("1E5"), NULL, JSON_GOOD},
    {TEXT("-0.0e-00"), NULL, JSON_GOOD},
    {TEXT("1.50e+010"), NULL, JSON_GOOD},
    {TEXT("true"), NULL, JSON_GOOD},
    {TEXT("false"), NULL, JSON_GOOD},
    {TEXT("null"), NULL, JSON_GOOD},
    {TEXT("\"\""), NULL, JSON_GOOD},
    {TEXT("[]"), NULL, JSON_GOOD},
    {TEXT("{}"), NULL, JSON_GOOD},
    {TEXT(" \t\r\n1 \t\r\n"), "1", JSON_GOOD},
    {TEXT(" [ 1 , 2 ,\n{ \"a b\" : \" x\\t \" } ] "), "[1,2,{\"a b\":\" x\\t \"}]", JSON_GOOD},
    {TEXT("{\"a\":1,\"a\":1}"), NULL, JSON_GOOD},
    {TEXT("\"\\u00e4\\u00E4\\/\\\\\\\"\\b\\f\\n\\r\\t\\u0000\""), NULL, JSON_GOOD},
    {TEXT("\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF\x7F\""), NULL, JSON_GOOD},
    {TEXT("\"\\ud83d\\ude00 plain text that is longer than a word\""), NULL, JSON_GOOD},
    {TEXT("[[[{\"a\":[{}]}],[]]]"), NULL, JSON_GOOD},
    /* No text, or more than one. */
    {TEXT(""), NULL, JSON_BAD},
    {TEXT(" "), NULL, JSON_BAD},
    {TEXT("1 2"), NULL, JSON_BAD},
    {TEXT("{}{}"), NULL, JSON_BAD},
    {TEXT("1,"), NULL, JSON_BAD},
    {TEXT("]"), NULL, JSON_BAD},
    {TEXT("\0"), NULL, JSON_BAD},
    {TEXT("1\0"), NULL, JSON_BAD},
    /* Numbers. */
    {TEXT("-"), NULL, JSON_BAD},
    {TEXT("+1"), NULL, JSON_BAD},
    {TEXT("01"), NULL, JSON_BAD},
    {TEXT("-01"), NULL, JSON_BAD},
    {TEXT("1."), NULL, JSON_BAD},
    {TEXT(".5"), NULL, JSON_BAD},
    {TEXT("1e"), NULL, JSON_BAD},
    {TEXT("1e+"), NULL, JSON_BAD},
    {TEXT("1e5.0"), NULL, JSON_BAD},
    {TEXT("1e5e5"), NULL, JSON_BAD},
    {TEXT("1.2.3"), NULL, JSON_BAD},
    {TEXT("0x10"), NULL, JSON_BAD},
    {TEXT("- 1"), NULL, JSON_BAD},
    {TEXT("1 .5"), NULL, JSON_BAD},
    {TEXT("NaN"), NULL, JSON_BAD},
    {TEXT("Infinity"), NULL, JSON_BAD},
    {TEXT("-Infinity"), NULL, JSON_BAD},
    /* Literals. */
    {TEXT("tru"), NULL, JSON_BAD},
    {TEXT("truee"), NULL, JSON_BAD},
    {TEXT("True"), NULL, JSON_BAD},
    {TEXT("nulL"), NULL, JSON_BAD},
    {TEXT("t rue"), NULL, JSON_BAD},
    /* Strings. */
    {TEXT("\""), NULL, JSON_BAD},
    {TEXT("'a'"), NULL, JSON_BAD},
    {TEXT("\"a\nb\""), NULL, JSON_BAD},
    {TEXT("\"a\0b\""), NULL, JSON_BAD},
    {TEXT("\"12345678\x1F\""), NULL, JSON_BAD},
    {TEXT("\"\\x\""), NULL, JSON_BAD},
    {TEXT("\"\\\0\""), NULL, JSON_BAD},
    {TEXT("\"\\u12\""), NULL, JSON_BAD},
    {TEXT("\"\\u12g4\""), NULL, JSON_BAD},
    {TEXT("\"\\U0041\""), NULL, JSON_BAD},
    {TEXT("\"\\"), NULL, JSON_BAD},
    /* Surrogates on their own, or the wrong way round. */
    {TEXT("\"\\ud800\""), NULL, JSON_BAD},
    {TEXT("\"\\udc00\""), NULL, JSON_BAD},
    {TEXT("\"\\ud800\\ud800\""), NULL, JSON_BAD},
    {TEXT("\"\\ud800x\""), NULL, JSON_BAD},
    {TEXT("\"\\ud800\\n\""), NULL, JSON_BAD},
    {TEXT("\"\\ud800\\u0041\""), NULL, JSON_BAD},
    {TEXT("\"\\ude00\\ud83d\""), NULL, JSON_BAD},
    /* UTF-8: a byte order mark, stray and missing continuations, overlong, surrogates, too high. */
    {TEXT("\xEF\xBB\xBF{}"), NULL, JSON_BAD},
    {TEXT("\"\x80\""), NULL, JSON_BAD},
    {TEXT("\"\xC3\""), NULL, JSON_BAD},
    {TEXT("\"\xE2\x82\""), NULL, JSON_BAD},
    {TEXT("\"\xC0\x80\""), NULL, JSON_BAD},
    {TEXT("\"\xC1\xBF\""), NULL, JSON_BAD},
    {TEXT("\"\xE0\x9F\xBF\""), NULL, JSON_BAD},
    {TEXT("\"\xED\xA0\x80\""), NULL, JSON_BAD},
    {TEXT("\"\xF0\x8F\xBF\xBF\""), NULL, JSON_BAD},
    {TEXT("\"\xF4\x90\x80\x80\""), NULL, JSON_BAD},
    {TEXT("\"\xF5\x80\x80\x80\""), NULL, JSON_BAD},
    {TEXT("\"\xFF\""), NULL, JSON_BAD},
    {TEXT("\xC3\xA4"), NULL, JSON_BAD},
    /* Structure. */
    {TEXT("["), NULL, JSON_BAD},
    {TEXT("[1"), NULL, JSON_BAD},
    {TEXT("[1,]"), NULL, JSON_BAD},
    {TEXT("[,1]"), NULL, JSON_BAD},
    {TEXT("[1 1]"), NULL, JSON_BAD},
    {TEXT("[1}"), NULL, JSON_BAD},
    {TEXT("[1:2]"), NULL, JSON_BAD},
    {TEXT("{]"), NULL, JSON_BAD},
    {TEXT("{,}"), NULL, JSON_BAD},
    {TEXT("{\"a\"}"), NULL, JSON_BAD},
    {TEXT("{\"a\":}"), NULL, JSON_BAD},
    {TEXT("{\"a\":1,}"), NULL, JSON_BAD},
    {TEXT("{\"a\":1 \"b\":2}"), NULL, JSON_BAD},
    {TEXT("{1:2}"), NULL, JSON_BAD},
    {TEXT("{a:2}"), NULL, JSON_BAD},
    {TEXT("{\"a\" 1}"), NULL, JSON_BAD},
    {TEXT("/**/1"), NULL, JSON_BAD},
    {TEXT("1//"), NULL, JSON_BAD},
};

/* Bodies: what "value" is stored as. */
static const struct sample envelopes[] = {
    {TEXT("{\"value\":1}"), "1", JSON_GOOD},
    {TEXT(" { \"value\" : [ 1 , \"a b\" ] } "), "[1,\"a b\"]", JSON_GOOD},
    {TEXT("{\"value\":9007199254740993}"), "9007199254740993", JSON_GOOD},
    {TEXT("{\"value\":1e400 }"), "1e400", JSON_GOOD},
    {TEXT("{\"value\":null}"), "null", JSON_GOOD},
    {TEXT("{\"value\":\"\"}"), "\"\"", JSON_GOOD},
    {TEXT("{\"value\":{}}"), "{}", JSON_GOOD},
    {TEXT("{\"value\":{\"value\":{\"value\":2}}}"), "{\"value\":{\"value\":2}}", JSON_GOOD},
    {TEXT("{\"a\":{\"value\":2},\"value\":1,\"b\":[{\"value\":3}]}"), "1", JSON_GOOD},
    {TEXT("{\"a\":1,\"b\":\"value\",\"value\":\"value\"}"), "\"value\"", JSON_GOOD},
    {TEXT("{\"value\" : true , \"ttl\" : 5 }"), "true", JSON_GOOD},
    {TEXT("{\"v\\u0061l\\u0075e\":7}"), "7", JSON_GOOD},
    {TEXT("{\"\\u0076\\u0061\\u006C\\u0075\\u0065\":7}"), "7", JSON_GOOD},
    {TEXT("{\"value\\u0000\":7,\"value\":8}"), "8", JSON_GOOD},
    {TEXT("{\"valu\":7,\"values\":6,\"Value\":5,\"\":4,\"value\":8}"), "8", JSON_GOOD},
    {TEXT("{\"\\nvalue\":7,\"value\\n\":7,\"\xC3\xA4value\":7,\"value\":8}"), "8", JSON_GOOD},
    {TEXT("{}"), NULL, JSON_MISSING},
    {TEXT("{\"a\":1}"), NULL, JSON_MISSING},
    {TEXT("{\"a\":{\"value\":1}}"), NULL, JSON_MISSING},
    {TEXT("[{\"value\":1}]"), NULL, JSON_MISSING},
    {TEXT("[\"value\",1]"), NULL, JSON_MISSING},
    {TEXT("\"value\""), NULL, JSON_MISSING},
    {TEXT("null"), NULL, JSON_MISSING},
    {TEXT("1"), NULL, JSON_MISSING},
    {TEXT("{\"value\":1,\"value\":1}"), NULL, JSON_DUPLICATE},
    {TEXT("{\"value\":1,\"a\":2,\"valu\\u0065\":3}"), NULL, JSON_DUPLICATE},
    {TEXT("{\"value\":}"), NULL, JSON_BAD},
    {TEXT("{\"value\"}"), NULL, JSON_BAD},
    {TEXT("{\"value\":1"), NULL, JSON_BAD},
    {TEXT("{\"value\":1]"), NULL, JSON_BAD},
    {TEXT("{\"value\":1}x"), NULL, JSON_BAD},
    {TEXT("{\"value\":1}{\"value\":1}"), NULL, JSON_BAD},
    {TEXT("{\"value\":1,\"a\":tru}"), NULL, JSON_BAD},
    {TEXT("{\"a\":\"\xFF\",\"value\":1}"), NULL, JSON_BAD},
    {TEXT("\xEF\xBB\xBF{\"value\":1}"), NULL, JSON_BAD},
    {TEXT(""), NULL, JSON_BAD},
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* Scans the text in two pieces, each against an unreadable page. */
static enum json_result scan_split(struct guard *guard, const struct sample *sample, size_t split,
                                   bool is_envelope, uint8_t *output, size_t *ret_size)
{
    struct json_scan scan;
    if (is_envelope)
        json_scan_init(&scan, true);
    else
        json_scan_init(&scan, false);
    size_t first = 0;
    const uint8_t *piece = guard_copy(guard, sample->text, split);
    enum json_result result = json_scan(&scan, piece, split, output, &first);
    *ret_size = first;
    if (result != JSON_MORE)
        return result;
    size_t second = 0;
    piece = guard_copy(guard, sample->text + split, sample->size - split);
    result = json_scan(&scan, piece, sample->size - split, output + first, &second);
    *ret_size = first + second;
    return result == JSON_MORE ? json_scan_end(&scan) : result;
}

static void assert_samples(const struct sample *table, size_t count, bool is_envelope)
{
    struct guard guard;
    guard_init(&guard, 1);
    for (size_t i = 0; i < count; i++) {
        const struct sample *sample = &table[i];
        for (size_t split = 0; split <= sample->size; split++) {
            uint8_t output[256];
            size_t size = 0;
            cr_assert_lt(sample->size, sizeof output);
            enum json_result result = scan_split(&guard, sample, split, is_envelope, output, &size);
            cr_assert_eq(result, sample->result, "'%s' split at %zu: %d", sample->text, split,
                         result);
            if (result != JSON_GOOD)
                continue;
            const char *expected = sample->output != NULL ? sample->output : sample->text;
            cr_assert_eq(size, strlen(expected), "'%s' split at %zu", sample->text, split);
            cr_assert_arr_eq(output, expected, size, "'%s' split at %zu", sample->text, split);
        }
    }
    guard_deinit(&guard);
}

Test(json, texts_are_compacted_and_otherwise_as_they_were_at_every_split)
{
    assert_samples(samples, COUNT(samples), false);
}

Test(json, the_member_value_is_taken_out_of_a_body_at_every_split)
{
    assert_samples(envelopes, COUNT(envelopes), true);
}

Test(json, yyjson_takes_and_refuses_the_same)
{
    for (size_t i = 0; i < COUNT(samples); i++) {
        yyjson_doc *document =
            yyjson_read(samples[i].text, samples[i].size, YYJSON_READ_NUMBER_AS_RAW);
        cr_assert_eq(document != NULL, samples[i].result == JSON_GOOD, "'%s'", samples[i].text);
        yyjson_doc_free(document);
    }
}

Test(json, output_may_lie_where_the_input_lies)
{
    char text[] = " { \"a\" : [ 1 , 2 , 3 ] , \"b\" : \" long enough to be moved \" } ";
    struct json_scan scan;
    json_scan_init(&scan, false);
    size_t size = 0;
    cr_assert_eq(json_scan(&scan, (uint8_t *)text, strlen(text), (uint8_t *)text, &size),
                 JSON_MORE);
    cr_assert_eq(json_scan_end(&scan), JSON_GOOD);
    text[size] = 0;
    cr_assert_str_eq(text, "{\"a\":[1,2,3],\"b\":\" long enough to be moved \"}");
}

Test(json, without_a_target_the_size_is_told)
{
    struct json_scan scan;
    json_scan_init(&scan, false);
    size_t size = 0;
    cr_assert_eq(json_scan(&scan, (const uint8_t *)" [ 1 ] ", 7, NULL, &size), JSON_MORE);
    cr_assert_eq(size, 3);
}

/* `depth` levels, alternately arrays and objects, and closed again when asked. */
static size_t nest(char *text, uint32_t depth, bool is_closed)
{
    char *p = text;
    for (uint32_t i = 0; i < depth; i++)
        p += sprintf(p, "%s", i % 2 == 0 ? "[" : "{\"a\":");
    *p++ = '1';
    for (uint32_t i = depth; is_closed && i > 0; i--)
        *p++ = (i - 1) % 2 == 0 ? ']' : '}';
    return (size_t)(p - text);
}

static enum json_result scan_whole(struct json_scan *scan, const char *text, size_t size)
{
    size_t output_size = 0;
    enum json_result result = json_scan(scan, (const uint8_t *)text, size, NULL, &output_size);
    return result == JSON_MORE ? json_scan_end(scan) : result;
}

Test(json, values_have_512_levels_and_no_more)
{
    char text[8192];
    struct json_scan scan;
    json_scan_init(&scan, false);
    cr_assert_eq(scan_whole(&scan, text, nest(text, JSON_DEPTH_MAX, true)), JSON_GOOD);
    json_scan_init(&scan, false);
    cr_assert_eq(scan_whole(&scan, text, nest(text, JSON_DEPTH_MAX, false)), JSON_BAD);
    json_scan_init(&scan, false);
    cr_assert_eq(scan_whole(&scan, text, nest(text, JSON_DEPTH_MAX + 1, true)), JSON_DEEP);
}

Test(json, the_envelope_is_not_a_level)
{
    char text[8192] = "{\"value\":";
    size_t begin = strlen(text);
    struct json_scan scan;
    size_t end = begin + nest(text + begin, JSON_DEPTH_MAX, true);
    text[end++] = '}';
    json_scan_init(&scan, true);
    cr_assert_eq(scan_whole(&scan, text, end), JSON_GOOD);
    end = begin + nest(text + begin, JSON_DEPTH_MAX + 1, true);
    text[end++] = '}';
    json_scan_init(&scan, true);
    cr_assert_eq(scan_whole(&scan, text, end), JSON_DEEP);
}

Test(json, a_million_levels_cost_nothing)
{
    static uint8_t brackets[1000000];
    memset(brackets, '[', sizeof brackets);
    struct json_scan scan;
    json_scan_init(&scan, false);
    size_t size = 0;
    cr_assert_eq(json_scan(&scan, brackets, sizeof brackets, NULL, &size), JSON_DEEP);
}

Test(json, refusals_have_their_texts)
{
    cr_assert_str_eq(json_result_text(JSON_BAD), "invalid json");
    cr_assert_str_eq(json_result_text(JSON_MISSING), "missing value field");
    cr_assert_str_eq(json_result_text(JSON_DUPLICATE), "more than one value field");
    cr_assert_str_eq(json_result_text(JSON_DEEP), "more than 512 levels: use /v1/kv/KEY");
}

/* ---- json_text.c ---- */

static const struct text_sample {
    const char *bytes;
    size_t size;
    enum json_kind kind;
    const char *string; /* of TEXT: without the quotes */
} kinds[] = {
    {TEXT("{ \"a\" : 1 }"), JSON_KIND_JSON, NULL},
    {TEXT("1"), JSON_KIND_JSON, NULL},
    {TEXT("\"x\""), JSON_KIND_JSON, NULL},
    {TEXT(""), JSON_KIND_TEXT, ""},
    {TEXT("hello world, longer than eight"), JSON_KIND_TEXT, "hello world, longer than eight"},
    {TEXT("{\"a\":1"), JSON_KIND_TEXT, "{\\\"a\\\":1"},
    {TEXT("a\\b\"c"), JSON_KIND_TEXT, "a\\\\b\\\"c"},
    {TEXT("\b\f\n\r\t"), JSON_KIND_TEXT, "\\b\\f\\n\\r\\t"},
    {TEXT("x\0y\x1Fz\x7F"), JSON_KIND_TEXT, "x\\u0000y\\u001fz\x7F"},
    {TEXT("\xC3\xA4\xF0\x9F\x98\x80"), JSON_KIND_TEXT, "\xC3\xA4\xF0\x9F\x98\x80"},
    {TEXT("\"\\ud800\""), JSON_KIND_TEXT, "\\\"\\\\ud800\\\""},
    {TEXT("\xEF\xBB\xBF{}"), JSON_KIND_TEXT, "\xEF\xBB\xBF{}"},
    {TEXT("\xFF"), JSON_KIND_BYTES, NULL},
    {TEXT("text \xC3"), JSON_KIND_BYTES, NULL},
    {TEXT("\xED\xA0\x80"), JSON_KIND_BYTES, NULL},
    {TEXT("\xC3\x28"), JSON_KIND_BYTES, NULL},
};

static void assert_kind(const struct text_sample *sample, size_t split)
{
    const uint8_t *bytes = (const uint8_t *)sample->bytes;
    struct json_judge judge;
    json_judge_init(&judge);
    json_judge_take(&judge, bytes, split);
    json_judge_take(&judge, bytes + split, sample->size - split);
    uint64_t size = 0;
    cr_assert_eq(json_judge_end(&judge, sample->size, &size), sample->kind, "'%s' at %zu",
                 sample->bytes, split);
    if (sample->kind == JSON_KIND_JSON)
        cr_assert_eq(size, sample->size);
    if (sample->kind == JSON_KIND_TEXT)
        cr_assert_eq(size, strlen(sample->string) + 2, "'%s' at %zu", sample->bytes, split);
}

Test(json, what_a_value_is_does_not_depend_on_its_pieces)
{
    for (size_t i = 0; i < COUNT(kinds); i++)
        for (size_t split = 0; split <= kinds[i].size; split++)
            assert_kind(&kinds[i], split);
}

Test(json, a_value_of_too_many_levels_is_told_apart)
{
    char text[8192];
    size_t size = nest(text, JSON_DEPTH_MAX + 1, true);
    struct json_judge judge;
    json_judge_init(&judge);
    json_judge_take(&judge, (uint8_t *)text, size);
    uint64_t reply_size = 0;
    cr_assert_eq(json_judge_end(&judge, size, &reply_size), JSON_KIND_DEEP);
}

Test(json, text_is_escaped_into_targets_of_any_size)
{
    for (size_t i = 0; i < COUNT(kinds); i++) {
        const struct text_sample *sample = &kinds[i];
        for (size_t room = JSON_ESCAPE_MAX; sample->string != NULL && room <= 64; room++) {
            char string[128];
            size_t written = 0;
            for (size_t position = 0; position < sample->size;) {
                size_t taken = 0;
                size_t size =
                    json_escape((const uint8_t *)sample->bytes + position, sample->size - position,
                                (uint8_t *)string + written, room, &taken);
                cr_assert_gt(taken, 0);
                cr_assert_leq(size, room);
                position += taken;
                written += size;
            }
            cr_assert_eq(written, strlen(sample->string));
            cr_assert_arr_eq(string, sample->string, written);
        }
    }
}

Test(json, every_character_comes_back_from_its_string)
{
    for (unsigned byte = 0; byte < 0x80; byte++) {
        uint8_t text = (uint8_t)byte;
        char string[JSON_ESCAPE_MAX + 2] = "\"";
        size_t taken = 0;
        size_t size = json_escape(&text, 1, (uint8_t *)string + 1, JSON_ESCAPE_MAX, &taken);
        string[1 + size] = '"';
        yyjson_doc *document = yyjson_read(string, size + 2, 0);
        cr_assert_not_null(document, "%02x", byte);
        yyjson_val *value = yyjson_doc_get_root(document);
        cr_assert_eq(yyjson_get_len(value), 1);
        cr_assert_eq((uint8_t)yyjson_get_str(value)[0], byte);
        yyjson_doc_free(document);
    }
}
