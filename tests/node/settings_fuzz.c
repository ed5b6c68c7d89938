/* The settings file under libFuzzer. What must hold:
 *
 * 1. Nothing beyond the text is read: it lies alone on the heap, without a byte behind it.
 * 2. What is refused says why in a text that ends; what is taken is within the flags' ranges.
 * 3. Nothing but settings changes: neither the secret nor what only a start may set. */
#include "node/settings.h"
#include "tests/support/fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config given;
    char error[FLAGS_ERROR_SIZE];
    uint8_t *text = fuzz_copy(data, size);
    memset(error, 'x', sizeof error);
    config_init_defaults(&given);
    struct config config = given;
    int result = settings_parse((const char *)text, size, &config, error);
    free(text);
    if (result < 0) {
        REQUIRE(memchr(error, '\0', sizeof error) != NULL && strncmp(error, "line ", 5) == 0);
        return 0;
    }
    REQUIRE(config.log_level <= LOG_ERROR);
    REQUIRE(config.slowlog_ns <= 3600 * NS_PER_S);
    REQUIRE(config.secret == given.secret && config.secret_file == given.secret_file);
    REQUIRE(config.settings_file == given.settings_file && config.port == given.port);
    REQUIRE(config.auth_mode == given.auth_mode && config.data_path == given.data_path);
    return 0;
}
