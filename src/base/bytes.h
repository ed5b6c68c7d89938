/* Little-endian bytes, decoded and encoded: the only place, with the parsers, where bytes become
 * numbers. */
#ifndef MINIVAULT_BASE_BYTES_H
#define MINIVAULT_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Bytes that somebody else owns. */
struct slice {
    const uint8_t *data;
    uint32_t size;
};

static inline bool slice_equal(struct slice a, struct slice b)
{
    return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

static inline bool bytes_are_zero(const uint8_t *bytes, size_t size)
{
    uint8_t bits = 0;
    for (size_t i = 0; i < size; i++)
        bits |= bytes[i];
    return bits == 0;
}

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "minivault runs on little-endian hosts: x86-64 and arm64"
#endif

static inline uint16_t load_u16(const uint8_t *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline uint32_t load_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline uint64_t load_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline void store_u16(uint8_t *to, uint16_t value)
{
    memcpy(to, &value, sizeof value);
}

static inline void store_u32(uint8_t *to, uint32_t value)
{
    memcpy(to, &value, sizeof value);
}

static inline void store_u64(uint8_t *to, uint64_t value)
{
    memcpy(to, &value, sizeof value);
}

#endif
