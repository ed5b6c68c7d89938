/* Keys that are different and have one XXH64, as many as one wants: whoever writes keys can do
 * this, since XXH64 is not cryptographic.
 *
 * Made so: a key of 64 bytes is two stripes of four 64-bit words, and each of the four accumulators
 * of XXH64 takes one word of each stripe: round(a, w) = rotl(a + w * P2, 31) * P1. The first word
 * of the first accumulator is free; the word that follows it there is chosen so that a + w * P2 is
 * what it is for the key of number 0 (P2 is odd, so it has an inverse modulo 2^64). From there on
 * the states are equal. Source: the XXH64 specification, xxHash's doc/xxhash_spec.md. */
#ifndef TESTS_SUPPORT_COLLIDING_KEYS_H
#define TESTS_SUPPORT_COLLIDING_KEYS_H

#include <stdint.h>
#include <string.h>

#define COLLIDING_KEY_SIZE 64

#define COLLIDING_P1 UINT64_C(0x9E3779B185EBCA87)
#define COLLIDING_P2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define COLLIDING_P2_INVERSE UINT64_C(0x0BA79078168D4BAF)

static inline uint64_t colliding_round(uint64_t accumulator, uint64_t word)
{
    accumulator += word * COLLIDING_P2;
    return (accumulator << 31 | accumulator >> 33) * COLLIDING_P1;
}

/* Writes the key of this number, COLLIDING_KEY_SIZE bytes: another number, another key, the same
 * XXH64 (seed 0). */
static inline void colliding_key(uint64_t number, uint8_t *ret_key)
{
    uint64_t start = COLLIDING_P1 + COLLIDING_P2;
    uint64_t difference = colliding_round(start, 0) - colliding_round(start, number);
    uint64_t words[8] = {number, 1, 2, 3, difference * COLLIDING_P2_INVERSE, 5, 6, 7};
    memcpy(ret_key, words, sizeof words);
}

#endif
