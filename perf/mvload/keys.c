/* Draws keys, uniformly or by Zipf's law, and writes their text. */
#include "keys.h"

#include "base/hash.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* Beyond this rank the sum of the Zipf weights is taken from its integral (Euler and Maclaurin):
 * exact to 1e-9. */
#define ZETA_EXACT_MAX 1000000u

static double zeta(uint64_t count)
{
    uint64_t exact = count < ZETA_EXACT_MAX ? count : ZETA_EXACT_MAX;
    double sum = 0;
    for (uint64_t i = 1; i <= exact; i++)
        sum += pow((double)i, -ZIPF_EXPONENT);
    if (exact == count)
        return sum;
    double first = (double)exact;
    double last = (double)count;
    double integral =
        (pow(last, 1 - ZIPF_EXPONENT) - pow(first, 1 - ZIPF_EXPONENT)) / (1 - ZIPF_EXPONENT);
    return sum + integral + (pow(last, -ZIPF_EXPONENT) - pow(first, -ZIPF_EXPONENT)) / 2;
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

int key_space_init(struct key_space *space, uint64_t key_count, uint32_t key_size, bool is_zipf)
{
    uint32_t digit_count = 1;
    for (uint64_t rest = key_count - 1; rest >= 10; rest /= 10)
        digit_count++;
    if (key_size < 4 + digit_count)
        return -ERANGE;
    *space = (struct key_space){.key_count = key_count,
                                .key_size = key_size,
                                .digit_count = digit_count,
                                .is_zipf = is_zipf,
                                .spread = 2654435761u};
    if (!is_zipf)
        return 0;
    while (greatest_common_divisor(space->spread, key_count) != 1)
        space->spread += 2;
    double two = 1 + pow(0.5, ZIPF_EXPONENT);
    space->zipf_zeta = zeta(key_count);
    space->zipf_second = two;
    space->zipf_eta =
        (1 - pow(2.0 / (double)key_count, 1 - ZIPF_EXPONENT)) / (1 - two / space->zipf_zeta);
    return 0;
}

void key_space_widen(struct key_space *space)
{
    space->digit_count = space->key_size - 4;
}

static uint64_t zipf_rank(const struct key_space *space, struct prng *prng)
{
    double uniform = (double)(prng_next(prng) >> 11) * 0x1p-53;
    double scaled = uniform * space->zipf_zeta;
    if (scaled < 1 || space->key_count == 1)
        return 0;
    if (scaled < space->zipf_second || space->key_count == 2)
        return 1;
    double base = space->zipf_eta * uniform - space->zipf_eta + 1;
    uint64_t rank = (uint64_t)((double)space->key_count * pow(base, 1 / (1 - ZIPF_EXPONENT)));
    return rank < space->key_count ? rank : space->key_count - 1;
}

uint64_t key_draw(const struct key_space *space, struct prng *prng)
{
    if (!space->is_zipf)
        return prng_below(prng, space->key_count);
    unsigned __int128 product = (unsigned __int128)zipf_rank(space, prng) * space->spread;
    return (uint64_t)(product % space->key_count);
}

void key_prepare(const struct key_space *space, uint8_t *key)
{
    memset(key, '0', space->key_size);
    memcpy(key, "key:", 4);
}

uint32_t key_shard(const struct key_space *space, const uint8_t *key, uint32_t shard_count)
{
    return hash_partition(hash_key(key, space->key_size)) % shard_count;
}

void key_write(const struct key_space *space, uint8_t *key, uint64_t number)
{
    uint8_t *digit = key + space->key_size;
    for (uint32_t i = 0; i < space->digit_count; i++) {
        *--digit = (uint8_t)('0' + number % 10);
        number /= 10;
    }
}
