/* The checksum of everything on disk: CRC32C by ISA-L, which uses the processor's instructions. */
#include "base/checksum.h"

#include <isa-l.h>

/* The library counts bytes in an int. */
#define PIECE_SIZE_MAX ((size_t)1 << 30)

uint32_t crc32c(const void *data, size_t size)
{
    return crc32c_more(0, data, size);
}

uint32_t crc32c_more(uint32_t crc, const void *data, size_t size)
{
    /* crc32_iscsi takes and returns the bare register; RFC 3720's checksum is its complement. The
     * library declares the bytes as mutable but only reads them. */
    uint32_t state = ~crc;
    unsigned char *from = (unsigned char *)data;
    while (size > 0) {
        size_t piece = size < PIECE_SIZE_MAX ? size : PIECE_SIZE_MAX;
        state = crc32_iscsi(from, (int)piece, state);
        from += piece;
        size -= piece;
    }
    return ~state;
}
