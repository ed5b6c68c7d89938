/* The clients' secret: a keyed hash of it, compared in constant time. Only auth.c includes
 * libsodium. */
#ifndef MINIVAULT_NET_AUTH_H
#define MINIVAULT_NET_AUTH_H

#include "base/bytes.h"
#include "base/assert.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUTH_HASH_SIZE 32

/* What clients need the secret for. */
enum auth_mode { AUTH_NONE, AUTH_WRITES, AUTH_ALL };

/* Nothing in it is secret: from the hash nobody gets to the secret, if that was not easily guessed.
 * All zero: there is no secret. */
struct auth {
    bool has_secret;
    uint8_t key[AUTH_HASH_SIZE];
    uint8_t hash[AUTH_HASH_SIZE];
};

/* `key` is AUTH_HASH_SIZE random bytes, so that hashes of two processes do not compare. An empty
 * secret: none, every attempt is right. Errors: -EIO (libsodium does not start). */
int auth_init(struct auth *auth, const uint8_t *key, struct slice secret);

bool auth_check(const struct auth *auth, struct slice attempt);

/* Memory for a secret in the clear: in no core dump and, where RLIMIT_MEMLOCK allows it, not
 * swapped; between pages that must not be touched. auth_memory_put wipes it; NULL does nothing.
 * Returns NULL: no memory. */
uint8_t *auth_memory_get(size_t size);
void auth_memory_put(uint8_t *memory);

/* Overwrites a secret that lies elsewhere; the compiler does not leave it out. */
void auth_wipe(void *memory, size_t size);

#endif
