/* Where a record lies, as an index slot says it: 48 bits.
 *
 *   47  1: in a partition segment, 0: in the log    46..28  file    27..0  offset / 8
 *
 * File numbers are small, reused indices of the process's table of log files, or of its table of
 * segments; they never reach the disk. */
#ifndef MINIVAULT_STORE_MEMORY_LOCATION_H
#define MINIVAULT_STORE_MEMORY_LOCATION_H

#include <stdbool.h>
#include <stdint.h>

#define LOCATION_BITS 48
#define LOCATION_OFFSET_BITS 28 /* of offsets counted in units of 8 bytes */
#define LOCATION_FILE_BITS 19   /* at most 524,288 files of each kind */
#define LOCATION_FILES_MAX (1u << LOCATION_FILE_BITS)
#define LOCATION_SEGMENT_BIT (1ull << 47)

static inline uint64_t location_in_log(uint32_t file, uint64_t offset)
{
    return ((uint64_t)file << LOCATION_OFFSET_BITS) | (offset >> 3);
}
static inline uint64_t location_in_segment(uint32_t file, uint64_t offset)
{
    return LOCATION_SEGMENT_BIT | location_in_log(file, offset);
}
static inline bool location_is_segment(uint64_t location)
{
    return (location & LOCATION_SEGMENT_BIT) != 0;
}
static inline uint32_t location_file(uint64_t location)
{
    return (uint32_t)(location >> LOCATION_OFFSET_BITS) & (LOCATION_FILES_MAX - 1);
}
static inline uint64_t location_offset(uint64_t location)
{
    return (location & ((1u << LOCATION_OFFSET_BITS) - 1)) << 3;
}

#endif
