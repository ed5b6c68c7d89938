/* Where the secret comes from: a flag, a file or the environment; and its way to a hash. */
#include "node/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* What stands in argv instead: nothing of its length shows. */
static const char MASK[] = "***";

const char *secret_credential(char *buffer)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    if (directory == NULL || *directory == '\0')
        return NULL;
    int size = snprintf(buffer, SECRET_PATH_MAX, "%s/%s", directory, SECRET_CREDENTIAL);
    if (size < 0 || size >= SECRET_PATH_MAX || access(buffer, F_OK) != 0)
        return NULL;
    return buffer;
}

static int hash_secret(const uint8_t *secret, size_t size, struct auth *ret_auth)
{
    uint8_t key[AUTH_HASH_SIZE];
    struct auth auth;
    if (getrandom(key, sizeof key, 0) != (ssize_t)sizeof key)
        return -EIO;
    int error = auth_init(&auth, key, (struct slice){secret, (uint32_t)size});
    if (error == 0)
        *ret_auth = auth;
    return error;
}

/* ---- a file ---- */

ssize_t secret_read_whole(const char *path, void *memory, size_t room)
{
    size_t size = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    for (;;) {
        ssize_t got = read(file, (char *)memory + size, room - size);
        if (got < 0 && errno == EINTR)
            continue;
        int error = got < 0 ? -errno : 0;
        size += got > 0 ? (size_t)got : 0;
        if (got > 0 && size < room)
            continue;
        (void)close(file);
        return error < 0 ? error : (ssize_t)size;
    }
}

static int read_into(const char *path, uint8_t *memory, struct auth *ret_auth)
{
    /* One byte more than a secret may have, and its newline. */
    ssize_t size = secret_read_whole(path, memory, CONFIG_SECRET_SIZE_MAX + 2);
    if (size < 0)
        return (int)size;
    if (size > 0 && memory[size - 1] == '\n')
        size--;
    if (size > (ssize_t)CONFIG_SECRET_SIZE_MAX)
        return -EFBIG;
    if (size == 0 || memchr(memory, '\0', (size_t)size) != NULL)
        return -EINVAL;
    return hash_secret(memory, (size_t)size, ret_auth);
}

int secret_read(const char *path, struct auth *ret_auth, const struct log *log)
{
    uint8_t *memory = auth_memory_get(CONFIG_SECRET_SIZE_MAX + 2);
    int error = memory != NULL ? read_into(path, memory, ret_auth) : -ENOMEM;
    auth_memory_put(memory);
    if (error < 0)
        log_error(log,
                  "cannot take the secret from %s: %s; it has to be a file of 1 to 4096 bytes that "
                  "this process's user may read",
                  path,
                  error == -EINVAL  ? "it is empty or has a NUL byte"
                  : error == -EFBIG ? "it has more than 4096 bytes"
                                    : strerror(-error));
    return error;
}

/* ---- the command line ---- */

/* Behind its mask an argument ends; what else was there, also of the same secret given twice, is
 * wiped. */
static void hide_argument(char *secret, size_t size)
{
    size_t shown = size < sizeof MASK - 1 ? size : sizeof MASK - 1;
    auth_wipe(secret, size);
    memcpy(secret, MASK, shown);
}

/* Every -auth, not only the last one, which counts. */
static void hide_all(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        char *name = argv[i] + strspn(argv[i], "-");
        if (name == argv[i] || strncmp(name, "auth", 4) != 0)
            continue;
        if (name[4] == '=')
            hide_argument(name + 5, strlen(name + 5));
        else if (name[4] == '\0' && i + 1 < argc)
            hide_argument(argv[i + 1], strlen(argv[i + 1]));
    }
}

int secret_take(int argc, char **argv, struct config *config, const struct log *log)
{
    int error = 0;
    config->auth = (struct auth){0};
    if (*config->secret != '\0')
        error = hash_secret((const uint8_t *)config->secret, strlen(config->secret), &config->auth);
    config->secret = "";
    hide_all(argc, argv);
    if (error < 0) {
        log_error(log, "cannot hash the secret: %s; give this process more memory",
                  strerror(-error));
        return error;
    }
    return config->secret_file == NULL ? 0 : secret_read(config->secret_file, &config->auth, log);
}
