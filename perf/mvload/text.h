/* Text as the text protocols need it: append a string or a number, find the end of a line, read a
 * number. */
#ifndef PERF_MVLOAD_TEXT_H
#define PERF_MVLOAD_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint8_t *text_append(uint8_t *target, const void *data, size_t size)
{
    memcpy(target, data, size);
    return target + size;
}

static inline uint8_t *text_append_string(uint8_t *target, const char *string)
{
    return text_append(target, string, strlen(string));
}

static inline uint8_t *text_append_number(uint8_t *target, uint64_t number)
{
    uint8_t digits[20];
    uint32_t count = 0;
    do {
        digits[sizeof digits - ++count] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return text_append(target, digits + sizeof digits - count, count);
}

/* The size of the line with its CR LF; 0 when its end is not there. */
static inline size_t text_line_size(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, '\n', size);
    return end == NULL ? 0 : (size_t)(end - data) + 1;
}

/* Reads decimal digits; the number of them (at most 12 are read). */
static inline size_t text_read_number(const uint8_t *data, size_t size, uint64_t *ret_number)
{
    uint64_t number = 0;
    size_t count = 0;
    while (count < size && count < 12 && data[count] >= '0' && data[count] <= '9')
        number = number * 10 + (uint64_t)(data[count++] - '0');
    *ret_number = number;
    return count;
}

static inline int text_starts_with(const uint8_t *data, size_t size, const char *prefix)
{
    size_t prefix_size = strlen(prefix);
    return size >= prefix_size && memcmp(data, prefix, prefix_size) == 0;
}

#endif
