/* The one place that maps anonymous memory; who has a mapping may advise the kernel on parts of it. */
#include "base/memory.h"

#include "base/assert.h"
#include "base/units.h"

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

void *memory_map(uint64_t size)
{
    assert(size > 0);
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return mapped == MAP_FAILED ? NULL : mapped;
}

/* A mapping begins on any page: map a huge page more, and give back what sticks out. */
void *memory_map_huge(uint64_t size)
{
    size = round_up(size, (uint64_t)sysconf(_SC_PAGESIZE));
    uint8_t *mapped = memory_map(size + MEMORY_HUGE_PAGE_SIZE);
    if (mapped == NULL)
        return NULL;
    uint64_t before = round_up((uintptr_t)mapped, MEMORY_HUGE_PAGE_SIZE) - (uintptr_t)mapped;
    if (before > 0)
        memory_unmap(mapped, before);
    if (before < MEMORY_HUGE_PAGE_SIZE)
        memory_unmap(mapped + before + size, MEMORY_HUGE_PAGE_SIZE - before);
    /* A kernel without huge pages refuses; then it is only slower. */
    (void)madvise(mapped + before, size, MADV_HUGEPAGE);
    return mapped + before;
}

void memory_unmap(void *memory, uint64_t size)
{
    int result = munmap(memory, size);
    assert(result == 0);
}
