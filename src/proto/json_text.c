/* Values as JSON: whether stored bytes are JSON, text or neither, and the text's escapes. */
#include "proto/json.h"

#include "base/assert.h"

#include <string.h>

/* By byte: how many bytes it is in a string, less one. C0 but for those with a short escape takes
 * six, the quote, the backslash and the short ones two. */
static uint32_t escape_extra(uint8_t byte)
{
    if (byte == '"' || byte == '\\')
        return 1;
    if (byte >= 0x20)
        return 0;
    return memchr("\b\f\n\r\t", byte, 5) != NULL ? 1 : 5;
}

void json_judge_init(struct json_judge *judge)
{
    json_scan_init(&judge->scan, false);
    judge->utf8 = (struct utf8){0};
    judge->json = JSON_MORE;
    judge->is_text = true;
    judge->string_size = 0;
}

static void judge_text(struct json_judge *judge, const uint8_t *data, size_t size)
{
    uint64_t extra = 0;
    bool is_good = true;
    for (size_t i = 0; i < size && is_good; i++) {
        if (judge->utf8.left > 0)
            is_good = utf8_continuation(&judge->utf8, data[i]);
        else
            is_good = utf8_lead(&judge->utf8, data[i]);
        extra += escape_extra(data[i]);
    }
    judge->is_text = is_good;
    judge->string_size += size + extra;
}

void json_judge_take(struct json_judge *judge, const uint8_t *data, size_t size)
{
    size_t scanned = 0;
    if (judge->json == JSON_MORE)
        judge->json = json_scan(&judge->scan, data, size, NULL, &scanned);
    if (judge->is_text)
        judge_text(judge, data, size);
}

enum json_kind json_judge_end(struct json_judge *judge, uint64_t value_size, uint64_t *ret_size)
{
    if (judge->json == JSON_MORE)
        judge->json = json_scan_end(&judge->scan);
    if (judge->json == JSON_DEEP)
        return JSON_KIND_DEEP;
    if (judge->json == JSON_GOOD) {
        *ret_size = value_size;
        return JSON_KIND_JSON;
    }
    if (!judge->is_text || judge->utf8.left > 0)
        return JSON_KIND_BYTES;
    *ret_size = judge->string_size + 2;
    return JSON_KIND_TEXT;
}

/* Writes one byte's escape, escape_extra + 1 bytes. */
static void write_escape(uint8_t byte, uint8_t *target)
{
    static const char digits[] = "0123456789abcdef";
    static const char shorts[] = "\bb\ff\nn\rr\tt\"\"\\\\";
    target[0] = '\\';
    for (size_t i = 0; i + 1 < sizeof shorts; i += 2) {
        if ((uint8_t)shorts[i] == byte) {
            target[1] = (uint8_t)shorts[i + 1];
            return;
        }
    }
    memcpy(target + 1, "u00", 3);
    target[4] = (uint8_t)digits[byte >> 4];
    target[5] = (uint8_t)digits[byte & 15];
}

size_t json_escape(const uint8_t *data, size_t size, uint8_t *target, size_t target_size,
                   size_t *ret_taken)
{
    size_t taken = 0;
    size_t written = 0;
    while (taken < size) {
        uint32_t extra = escape_extra(data[taken]);
        if (target_size - written < extra + 1)
            break;
        if (extra == 0)
            target[written] = data[taken];
        else
            write_escape(data[taken], target + written);
        written += extra + 1;
        taken++;
    }
    assert(written <= target_size);
    *ret_taken = taken;
    return written;
}
