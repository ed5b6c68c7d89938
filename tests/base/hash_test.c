/* The hashes of keys, by themselves. */
#include "base/hash.h"

#include "base/prng.h"

#include <criterion/criterion.h>

/* The placement of every key that was ever stored hangs on these. */
Test(hash, key_hash_is_xxh64_with_seed_zero)
{
    cr_assert_eq(hash_key((const uint8_t *)"", 0), 0xEF46DB3751D8E999u);
    cr_assert_eq(hash_key((const uint8_t *)"a", 1), 0xD24EC4F1A98C6E5Bu);
    cr_assert_eq(hash_key((const uint8_t *)"abc", 3), 0x44BC2CF5AD770999u);
    const char *long_key = "The quick brown fox jumps over the lazy dog";
    cr_assert_eq(hash_key((const uint8_t *)long_key, strlen(long_key)), 0x0B242D361FDA71BCu);
}

Test(hash, partition_is_the_top_byte)
{
    cr_assert_eq(hash_partition(0), 0);
    cr_assert_eq(hash_partition(0x00FFFFFFFFFFFFFFu), 0);
    cr_assert_eq(hash_partition(0xAB00000000000000u), 0xAB);
    cr_assert_eq(hash_partition(UINT64_MAX), 255);
}

Test(hash, keyed_hash_depends_on_the_secret_at_every_size)
{
    uint8_t secrets[2][HASH_SECRET_SIZE];
    struct prng prng = {1};
    for (size_t i = 0; i < HASH_SECRET_SIZE; i++) {
        secrets[0][i] = (uint8_t)prng_next(&prng);
        secrets[1][i] = (uint8_t)prng_next(&prng);
    }
    uint8_t key[300] = "key";
    /* Sizes on both sides of each of XXH3's inner limits: 3, 8, 16, 128, 240. */
    const size_t sizes[] = {1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 300};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t hash = hash_keyed(secrets[0], key, sizes[i]);
        cr_assert_eq(hash, hash_keyed(secrets[0], key, sizes[i]));
        cr_assert_neq(hash, hash_keyed(secrets[1], key, sizes[i]), "size %zu", sizes[i]);
        key[sizes[i] - 1] ^= 1;
        cr_assert_neq(hash, hash_keyed(secrets[0], key, sizes[i]), "size %zu", sizes[i]);
        key[sizes[i] - 1] ^= 1;
    }
}
