/* What the fuzz targets share. */
#ifndef TESTS_SUPPORT_FUZZ_H
#define TESTS_SUPPORT_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Unlike assert, there is nothing that could switch it off. */
#define REQUIRE(condition) ((condition) ? (void)0 : abort())

/* What libFuzzer calls. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes alone on the heap, so that ASan sees a read past them; to be freed. */
uint8_t *fuzz_copy(const void *data, size_t size);

/* Each byte is the number of a token, modulo their count: their texts one behind the other, as
 * fuzz_copy's. Returns the size of `*ret_text`. */
size_t fuzz_expand(const char *const *tokens, size_t token_count, const uint8_t *data, size_t size,
                   uint8_t **ret_text);

#endif
