/* Anonymous memory from the kernel: address space that is reserved at once and becomes pages, all
 * zero, where it is touched. */
#ifndef MINIVAULT_BASE_MEMORY_H
#define MINIVAULT_BASE_MEMORY_H

#include <stdint.h>

#define MEMORY_HUGE_PAGE_SIZE (2u << 20)

/* `size` bytes, more than 0, aligned to a page; NULL: there is no room in the address space. */
void *memory_map(uint64_t size);

/* The same from a huge page's begin on, in huge pages where the kernel has them. */
void *memory_map_huge(uint64_t size);

/* Gives back what one of these returned, as a whole. */
void memory_unmap(void *memory, uint64_t size);

#endif
