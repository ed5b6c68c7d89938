/* Bytes right before an unreadable page: whoever reads one too many is killed by SIGSEGV, also in a
 * library that no sanitizer has instrumented. */
#ifndef TESTS_SUPPORT_GUARD_H
#define TESTS_SUPPORT_GUARD_H

#include "base/assert.h"
#include "base/units.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard {
    uint8_t *base;
    size_t size; /* what is readable */
};

static inline void guard_init(struct guard *guard, size_t size_min)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    guard->size = round_up(size_min, page_size);
    guard->base = mmap(NULL, guard->size + page_size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(guard->base != MAP_FAILED);
    int result = mprotect(guard->base + guard->size, page_size, PROT_NONE);
    assert(result == 0);
}

static inline void guard_deinit(struct guard *guard)
{
    (void)munmap(guard->base, guard->size + (size_t)sysconf(_SC_PAGESIZE));
}

/* A copy of the bytes that ends where the unreadable page begins; valid until the next call. */
static inline uint8_t *guard_copy(struct guard *guard, const void *bytes, size_t size)
{
    assert(size <= guard->size);
    uint8_t *copy = guard->base + guard->size - size;
    if (size > 0)
        memcpy(copy, bytes, size);
    return copy;
}

#endif
