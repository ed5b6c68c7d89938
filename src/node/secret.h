/* The clients' secret, from where the operator has it to its hash.
 *
 * Where it is in the clear: in argv with -auth, until secret_take has overwritten it there; on the
 * way from a file, in memory of its own that is wiped at once (auth_memory_get). A process that has
 * started has it nowhere, until a client sends it. */
#ifndef MINIVAULT_NODE_SECRET_H
#define MINIVAULT_NODE_SECRET_H

#include "node/config.h"

#include <sys/types.h>

/* The name under which systemd's LoadCredential= or SetCredentialEncrypted= gives it. */
#define SECRET_CREDENTIAL "minivault-auth"
#define SECRET_PATH_MAX 4096

/* The path of that credential, in `buffer` (SECRET_PATH_MAX bytes), or NULL when there is none:
 * CREDENTIALS_DIRECTORY (systemd.exec(5)) is not set or has no such file. */
const char *secret_credential(char *buffer);

/* Hashes the secret that config's flags name into config->auth, which is all zero without one; out
 * of argv it is taken. What is wrong has been logged. Errors: those of secret_read. */
int secret_take(int argc, char **argv, struct config *config, const struct log *log);

/* Fills `memory` from a file or a pipe, up to `room` bytes. Returns how many. Errors: open(2)'s and
 * read(2)'s. */
ssize_t secret_read_whole(const char *path, void *memory, size_t room);

/* Reads a file: one newline at its end is not part of the secret. *ret_auth stays as it is on
 * failure, which was logged. Errors: open(2)'s and read(2)'s; -EFBIG (over
 * CONFIG_SECRET_SIZE_MAX), -EINVAL (empty, or a NUL in it), -ENOMEM, -EIO. */
int secret_read(const char *path, struct auth *ret_auth, const struct log *log);

#endif
