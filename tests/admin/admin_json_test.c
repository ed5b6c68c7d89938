/* The JSON that minivault-admin prints, by itself: UTF-8, escapes and base64. */
#include "admin/admin_json.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(text) (const uint8_t *)(text), sizeof(text) - 1

typedef void write_function(FILE *target, const uint8_t *data, size_t size);

static void expect(write_function *write, const uint8_t *data, size_t size, const char *expected)
{
    char *text = NULL;
    size_t text_size = 0;
    FILE *target = open_memstream(&text, &text_size);
    write(target, data, size);
    (void)fclose(target);
    cr_assert_str_eq(text, expected);
    free(text);
}

static void write_bytes(FILE *target, const uint8_t *data, size_t size)
{
    json_write_bytes(target, "key", data, size);
}

Test(admin_json, only_well_formed_utf8_is_utf8)
{
    cr_assert(json_is_utf8(TEXT("")));
    cr_assert(json_is_utf8(TEXT("plain \x7F\0 text")));
    cr_assert(json_is_utf8(TEXT("\xC2\x80 \xDF\xBF \xE0\xA0\x80 \xED\x9F\xBF \xEF\xBF\xBF")));
    cr_assert(json_is_utf8(TEXT("\xF0\x90\x80\x80 \xF4\x8F\xBF\xBF")));
    cr_assert_not(json_is_utf8(TEXT("\x80")));
    cr_assert_not(json_is_utf8(TEXT("\xC1\xBF")));         /* overlong */
    cr_assert_not(json_is_utf8(TEXT("\xE0\x9F\xBF")));     /* overlong */
    cr_assert_not(json_is_utf8(TEXT("\xED\xA0\x80")));     /* a surrogate */
    cr_assert_not(json_is_utf8(TEXT("\xF0\x8F\xBF\xBF"))); /* overlong */
    cr_assert_not(json_is_utf8(TEXT("\xF4\x90\x80\x80"))); /* beyond 10FFFF */
    cr_assert_not(json_is_utf8(TEXT("\xF5\x80\x80\x80")));
    cr_assert_not(json_is_utf8(TEXT("\xE2\x82\x28")));
}

Test(admin_json, a_character_that_is_cut_off_is_not_utf8)
{
    static const uint8_t text[] = "\xF0\x90\x8D\x88";
    for (size_t size = 1; size < 4; size++) {
        uint8_t *cut = malloc(size); /* so that a sanitizer sees a byte too much */
        memcpy(cut, text, size);
        cr_assert_not(json_is_utf8(cut, size), "%zu bytes", size);
        free(cut);
    }
    cr_assert(json_is_utf8(text, 4));
}

Test(admin_json, strings_are_escaped)
{
    expect(json_write_string, TEXT(""), "\"\"");
    expect(json_write_string, TEXT("plain"), "\"plain\"");
    expect(json_write_string, TEXT("\"\\/"), "\"\\\"\\\\/\"");
    expect(json_write_string, TEXT("a\nb\rc\td"), "\"a\\nb\\rc\\td\"");
    expect(json_write_string, TEXT("\0\x01\x1F\x7F "), "\"\\u0000\\u0001\\u001f\\u007f \"");
    expect(json_write_string, TEXT("\xE2\x82\xAC"), "\"\xE2\x82\xAC\"");
}

Test(admin_json, base64_is_that_of_rfc_4648)
{
    expect(json_write_base64, TEXT(""), "\"\"");
    expect(json_write_base64, TEXT("f"), "\"Zg==\"");
    expect(json_write_base64, TEXT("fo"), "\"Zm8=\"");
    expect(json_write_base64, TEXT("foo"), "\"Zm9v\"");
    expect(json_write_base64, TEXT("foob"), "\"Zm9vYg==\"");
    expect(json_write_base64, TEXT("foobar"), "\"Zm9vYmFy\"");
    expect(json_write_base64, TEXT("\xFB\xFF\xFE"), "\"+//+\"");
}

Test(admin_json, bytes_are_text_where_they_can_be)
{
    expect(write_bytes, TEXT("a"), "\"key\": \"a\"");
    expect(write_bytes, TEXT("\xFF"), "\"key_base64\": \"/w==\"");
}
