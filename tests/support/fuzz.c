/* Copies of the fuzzer's bytes, of exactly their size so that an overread is found, and texts made
 * of tokens. */
#include "fuzz.h"

#include <string.h>

#define TOKENS_MAX 4096u /* more of the input is left out */

uint8_t *fuzz_copy(const void *data, size_t size)
{
    uint8_t *copy = malloc(size + (size == 0));
    REQUIRE(copy != NULL);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

size_t fuzz_expand(const char *const *tokens, size_t token_count, const uint8_t *data, size_t size,
                   uint8_t **ret_text)
{
    size_t count = size < TOKENS_MAX ? size : TOKENS_MAX;
    size_t text_size = 0;
    for (size_t i = 0; i < count; i++)
        text_size += strlen(tokens[data[i] % token_count]);
    uint8_t *text = malloc(text_size + (text_size == 0));
    REQUIRE(text != NULL);
    size_t end = 0;
    for (size_t i = 0; i < count; i++) {
        const char *token = tokens[data[i] % token_count];
        memcpy(text + end, token, strlen(token));
        end += strlen(token);
    }
    *ret_text = text;
    return text_size;
}
