#include "net/auth.h"

#include <errno.h>
#include <sodium.h>

static_assert(AUTH_HASH_SIZE == crypto_generichash_BYTES, "BLAKE2b-256");
static_assert(AUTH_HASH_SIZE == crypto_generichash_KEYBYTES, "BLAKE2b-256");

static void hash(const struct auth *auth, struct slice secret, uint8_t *ret_hash)
{
    (void)crypto_generichash(ret_hash, AUTH_HASH_SIZE, secret.data, secret.size, auth->key,
                             AUTH_HASH_SIZE);
}

int auth_init(struct auth *auth, struct io *io, struct slice secret)
{
    if (sodium_init() < 0)
        return -EIO;
    *auth = (struct auth){.has_secret = secret.size > 0};
    io_random(io, auth->key, sizeof auth->key);
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
