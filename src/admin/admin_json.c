/* Writes JSON strings and base64: a key or a value that is not UTF-8 must survive a dump. */
#include "admin/admin_json.h"

#include "base/assert.h"

/* The size of the well-formed character at `data`, of which `size` bytes are there, or 0. */
static size_t character_size(const uint8_t *data, size_t size)
{
    uint8_t first = data[0];
    if (first < 0x80)
        return 1;
    size_t wanted = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (wanted == 0 || wanted > size)
        return 0;
    uint8_t second_min = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    uint8_t second_max = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (data[1] < second_min || data[1] > second_max)
        return 0;
    for (size_t i = 2; i < wanted; i++)
        if ((data[i] & 0xC0) != 0x80)
            return 0;
    return wanted;
}

bool json_is_utf8(const uint8_t *data, size_t size)
{
    while (size > 0) {
        size_t step = character_size(data, size);
        if (step == 0)
            return false;
        data += step;
        size -= step;
    }
    return true;
}

/* What has to be escaped: the quote, the backslash, and C0; DEL is escaped for terminals. */
static bool is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7F;
}

static void write_escape(FILE *target, uint8_t byte)
{
    switch (byte) {
    case '"':
    case '\\':
        (void)fprintf(target, "\\%c", byte);
        break;
    case '\n':
        (void)fputs("\\n", target);
        break;
    case '\r':
        (void)fputs("\\r", target);
        break;
    case '\t':
        (void)fputs("\\t", target);
        break;
    default:
        (void)fprintf(target, "\\u%04x", byte);
    }
}

void json_write_string(FILE *target, const uint8_t *data, size_t size)
{
    (void)fputc('"', target);
    for (size_t from = 0; from < size;) {
        size_t upto = from;
        while (upto < size && is_plain(data[upto]))
            upto++;
        (void)fwrite(data + from, 1, upto - from, target);
        if (upto < size)
            write_escape(target, data[upto++]);
        from = upto;
    }
    (void)fputc('"', target);
}

void json_write_base64(FILE *target, const uint8_t *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (void)fputc('"', target);
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t bits = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                        (left > 2 ? data[i + 2] : 0);
        char text[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
                        left > 1 ? digits[bits >> 6 & 63] : '=',
                        left > 2 ? digits[bits & 63] : '='};
        (void)fwrite(text, 1, sizeof text, target);
    }
    (void)fputc('"', target);
}

void json_write_bytes(FILE *target, const char *name, const uint8_t *data, size_t size)
{
    bool is_text = json_is_utf8(data, size);
    (void)fprintf(target, "\"%s%s\": ", name, is_text ? "" : "_base64");
    if (is_text)
        json_write_string(target, data, size);
    else
        json_write_base64(target, data, size);
}
