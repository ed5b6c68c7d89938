/* The client's secret: kept as a keyed hash, compared in constant time. The only file that includes
 * libsodium is auth.c.
 */
#ifndef MINIVAULT_NET_AUTH_H
#define MINIVAULT_NET_AUTH_H

#include "base/bytes.h"
#include "base/assert.h"
#include "io/io.h"

#include <stdbool.h>
#include <stdint.h>

#define AUTH_HASH_SIZE 32

struct auth {
    bool has_secret;
    uint8_t key[AUTH_HASH_SIZE];
    uint8_t hash[AUTH_HASH_SIZE];
};

/* An empty secret: none, every attempt is right. Errors: -EIO (libsodium does not start). */
int auth_init(struct auth *auth, struct io *io, struct slice secret);

bool auth_check(const struct auth *auth, struct slice attempt);

#endif
