/* Writes JSON strings and base64: a key or a value that is not UTF-8 must survive a dump. */
#include "admin/admin_json.h"

#include "base/utf8.h"

#include <string.h>

bool json_is_utf8(const uint8_t *data, size_t size)
{
    struct utf8 utf8 = {0};
    for (size_t i = 0; i < size; i++)
        if (utf8.left > 0 ? !utf8_continuation(&utf8, data[i]) : !utf8_lead(&utf8, data[i]))
            return false;
    return utf8.left == 0;
}

/* What has to be escaped: the quote, the backslash, and C0; DEL is escaped for terminals. */
static bool is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7F;
}

static void write_escape(FILE *target, uint8_t byte)
{
    static const char escaped[] = "\"\\\n\r\t";
    static const char letters[] = "\"\\nrt";
    const char *found = byte != '\0' ? strchr(escaped, byte) : NULL;
    if (found != NULL)
        (void)fprintf(target, "\\%c", letters[found - escaped]);
    else
        (void)fprintf(target, "\\u%04x", byte);
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
