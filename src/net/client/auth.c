/* The secret, by libsodium. */
#include "net/client/auth.h"

#include <errno.h>
#include <sodium.h>

static_assert(AUTH_HASH_SIZE == crypto_generichash_BYTES, "BLAKE2b-256");
static_assert(AUTH_HASH_SIZE == crypto_generichash_KEYBYTES, "BLAKE2b-256");

static void hash(const struct auth *auth, struct slice secret, uint8_t *ret_hash)
{
    (void)crypto_generichash(ret_hash, AUTH_HASH_SIZE, secret.data, secret.size, auth->key,
                             AUTH_HASH_SIZE);
}

int auth_init(struct auth *auth, const uint8_t *key, struct slice secret)
{
    if (sodium_init() < 0)
        return -EIO;
    *auth = (struct auth){.has_secret = secret.size > 0};
    memcpy(auth->key, key, sizeof auth->key);
    hash(auth, secret, auth->hash);
    return 0;
}

bool auth_check(const struct auth *auth, struct slice attempt)
{
    uint8_t attempt_hash[AUTH_HASH_SIZE];
    if (!auth->has_secret)
        return true;
    hash(auth, attempt, attempt_hash);
    return sodium_memcmp(attempt_hash, auth->hash, AUTH_HASH_SIZE) == 0;
}

uint8_t *auth_memory_get(size_t size)
{
    return sodium_init() < 0 ? NULL : sodium_malloc(size);
}

void auth_memory_put(uint8_t *memory)
{
    sodium_free(memory);
}

void auth_wipe(void *memory, size_t size)
{
    sodium_memzero(memory, size);
}
