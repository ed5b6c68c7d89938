/* Well-formed UTF-8 (Unicode 15, table 3-7), byte by byte: nothing overlong, no surrogates, nothing
 * above U+10FFFF. Text may come in any pieces. */
#ifndef MINIVAULT_BASE_UTF8_H
#define MINIVAULT_BASE_UTF8_H

#include <stdbool.h>
#include <stdint.h>

/* Zeroed: between two characters. */
struct utf8 {
    uint8_t left; /* bytes that the character still needs */
    uint8_t min;  /* the next one's range */
    uint8_t max;
};

/* Takes the first byte of a character. Returns whether it can be one. */
static inline bool utf8_lead(struct utf8 *utf8, uint8_t byte)
{
    if (byte < 0x80)
        return true;
    utf8->left = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
    utf8->min = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
    utf8->max = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
    return byte >= 0xC2 && byte <= 0xF4;
}

/* Takes a further byte of a character. Returns whether it can be one. */
static inline bool utf8_continuation(struct utf8 *utf8, uint8_t byte)
{
    bool is_good = byte >= utf8->min && byte <= utf8->max;
    utf8->left--;
    utf8->min = 0x80;
    utf8->max = 0xBF;
    return is_good;
}

#endif
