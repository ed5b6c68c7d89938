/* Names of a folder, one behind the other. */
#include "store/disk/names.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 4096u

int names_add(struct names *names, const char *name)
{
    size_t size = strlen(name) + 1;
    assert(names->size <= names->capacity);
    if (size > names->capacity - names->size) {
        size_t capacity = 2 * names->capacity + CAPACITY_MIN;
        char *bytes = realloc(names->bytes, capacity);
        if (bytes == NULL)
            return -ENOMEM;
        names->bytes = bytes;
        names->capacity = capacity;
    }
    assert(size <= names->capacity - names->size);
    memcpy(names->bytes + names->size, name, size);
    names->size += size;
    return 0;
}

const char *names_next(const struct names *names, const char *name)
{
    size_t at = name == NULL ? 0 : (size_t)(name - names->bytes) + strlen(name) + 1;
    assert(at <= names->size);
    return at < names->size ? names->bytes + at : NULL;
}

void names_free(struct names *names)
{
    free(names->bytes);
    *names = (struct names){0};
}
