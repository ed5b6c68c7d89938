/* CRC32C by itself, against the values of RFC 3720 and against its definition. */
#include "base/checksum.h"

#include "base/prng.h"

#include <criterion/criterion.h>

Test(checksum, known_values_of_rfc_3720)
{
    uint8_t bytes[32];
    cr_assert_eq(crc32c("123456789", 9), 0xE3069283u);
    memset(bytes, 0, sizeof bytes);
    cr_assert_eq(crc32c(bytes, sizeof bytes), 0x8A9136AAu);
    memset(bytes, 0xFF, sizeof bytes);
    cr_assert_eq(crc32c(bytes, sizeof bytes), 0x62A8AB43u);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    cr_assert_eq(crc32c(bytes, sizeof bytes), 0x46DD794Eu);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = 31 - i;
    cr_assert_eq(crc32c(bytes, sizeof bytes), 0x113FDB5Cu);
    cr_assert_eq(crc32c("", 0), 0);
    cr_assert_eq(crc32c(NULL, 0), 0);
}

Test(checksum, the_scsi_read_command_of_rfc_3720)
{
    const uint8_t command[48] = {
        0x01, 0xC0, 0, 0,    0, 0, 0, 0,    0,    0, 0, 0, 0, 0, 0, 0, 0x14, 0, 0, 0, 0, 0, 0x04, 0,
        0,    0,    0, 0x14, 0, 0, 0, 0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 2,    0, 0, 0, 0, 0, 0,    0,
    };
    cr_assert_eq(crc32c(command, sizeof command), 0xD9963A56u);
}

/* Bit by bit, from the polynomial alone. */
static uint32_t crc32c_slow(const uint8_t *data, size_t size)
{
    uint32_t state = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        state ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            state = (state >> 1) ^ (0x82F63B78u & -(state & 1));
    }
    return ~state;
}

Test(checksum, every_size_and_alignment_agrees_with_the_definition)
{
    uint8_t bytes[8 + 600];
    struct prng prng = {7};
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)prng_next(&prng);
    for (size_t offset = 0; offset < 8; offset++)
        for (size_t size = 0; size <= 600; size++)
            cr_assert_eq(crc32c(bytes + offset, size), crc32c_slow(bytes + offset, size),
                         "offset %zu, size %zu", offset, size);
}

Test(checksum, a_checksum_goes_on_from_any_split)
{
    uint8_t bytes[500];
    struct prng prng = {9};
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)prng_next(&prng);
    uint32_t whole = crc32c(bytes, sizeof bytes);
    for (size_t split = 0; split <= sizeof bytes; split++)
        cr_assert_eq(crc32c_more(crc32c(bytes, split), bytes + split, sizeof bytes - split), whole);
}
