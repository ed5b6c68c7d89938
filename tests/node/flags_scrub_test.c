/* The flag -scrub by itself: what it takes and what it refuses. */
#include "node/flags.h"

#include <criterion/criterion.h>
#include <string.h>

static enum flags_result parse(const char *value, struct config *ret_config, char *ret_error)
{
    char copy[64];
    char *argv[] = {"minivault", "-scrub", copy};
    (void)strncpy(copy, value, sizeof copy - 1);
    copy[sizeof copy - 1] = '\0';
    config_init_defaults(ret_config);
    return flags_parse(3, argv, ret_config, ret_error);
}

static uint64_t rate_of(const char *value)
{
    struct config config;
    char error[FLAGS_ERROR_SIZE];
    cr_assert_eq(parse(value, &config, error), FLAGS_RUN, "-scrub %s", value);
    return config.scrub_rate;
}

Test(flags, scrub_is_on_by_default)
{
    struct config config;
    config_init_defaults(&config);
    cr_assert_eq(config.scrub_rate, SCRUB_AUTO);
}

Test(flags, scrub_takes_off_auto_and_rates)
{
    cr_assert_eq(rate_of("off"), SCRUB_OFF);
    cr_assert_eq(rate_of("auto"), SCRUB_AUTO);
    cr_assert_eq(rate_of("1"), MIB);
    cr_assert_eq(rate_of("100000"), 100000 * MIB);
}

Test(flags, scrub_refuses_the_rest_and_says_what_it_takes)
{
    static const char *const values[] = {"0", "100001", "-1", "on", "", "1.5", "10M", "autos"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct config config;
        char error[FLAGS_ERROR_SIZE];
        cr_assert_eq(parse(values[i], &config, error), FLAGS_BAD, "-scrub %s", values[i]);
        cr_assert_not_null(strstr(error, "off, auto"), "%s", error);
        cr_assert_eq(config.scrub_rate, SCRUB_AUTO);
    }
}
