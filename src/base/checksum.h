/* CRC32C (Castagnoli), by the isa-l library: it uses the CPU's instruction where there is one. */
#ifndef MINIVAULT_BASE_CHECKSUM_H
#define MINIVAULT_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* The CRC32C of `size` bytes (RFC 3720's: crc32c("123456789") = E3069283). */
uint32_t crc32c(const void *data, size_t size);

/* Goes on from the CRC32C of the bytes before: crc32c_more(crc32c(a), b) = crc32c(a‖b). */
uint32_t crc32c_more(uint32_t crc, const void *data, size_t size);

#endif
