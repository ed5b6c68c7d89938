/* Names of a folder that is listed first and changed then. */
#ifndef MINIVAULT_STORE_DISK_NAMES_H
#define MINIVAULT_STORE_DISK_NAMES_H

#include <stddef.h>

struct names {
    char *bytes; /* one name behind the other with their NULs */
    size_t size;
    size_t capacity;
};

/* Errors: -ENOMEM. */
int names_add(struct names *names, const char *name);

/* The name behind this one, or the first behind NULL. NULL: there is none. */
const char *names_next(const struct names *names, const char *name);

void names_free(struct names *names);

#endif
