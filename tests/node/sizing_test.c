/* How many shards, and what each part may take: the arithmetic, for machines of many sizes. */
#include "node/sizing.h"

#include "node/flags.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct outcome {
    struct config given, config;
    struct sizing sizing;
    int result;
    char said[8 * LOG_LINE_MAX];
};

static void keep_line(void *context, const char *line, uint32_t size)
{
    struct outcome *outcome = context;
    size_t length = strlen(outcome->said);
    cr_assert_lt(length + size, sizeof outcome->said);
    memcpy(outcome->said + length, line, size);
    outcome->said[length + size] = '\0';
}

/* With the flags that `change` sets. */
static void fit(struct outcome *outcome, struct machine machine, void change(struct config *config))
{
    memset(outcome, 0, sizeof *outcome);
    struct log log = {.level_min = LOG_INFO, .write = keep_line, .context = outcome};
    config_init_defaults(&outcome->given);
    if (change != NULL)
        change(&outcome->given);
    outcome->config = outcome->given;
    outcome->result = sizing_fit(&machine, &outcome->config, &outcome->sizing);
    sizing_tell(&outcome->sizing, &machine, &outcome->given, &outcome->config, outcome->result,
                &log);
}

static uint64_t sum_of(const struct sizing *sizing)
{
    return sizing->process + sizing->shards + sizing->requests + sizing->connections +
           sizing->cache + sizing->index;
}

static bool says(const struct outcome *outcome, const char *what)
{
    return strstr(outcome->said, what) != NULL;
}

Test(sizing, a_large_machine_gives_what_was_asked_for)
{
    struct outcome o;
    fit(&o, (struct machine){.cpus = 8, .memory = 64 * GIB, .disk_size = 1000 * GIB}, NULL);
    cr_assert_eq(o.result, 0);
    cr_assert_eq(o.config.shard_count, 8);
    cr_assert_eq(o.sizing.bound, SIZING_CPUS);
    cr_assert_eq(o.config.cache_size, 512 * MIB);
    cr_assert_eq(o.config.connections_max, CONFIG_CONNECTIONS_MAX);
    cr_assert_eq(o.config.memory_divisor, 1);
    cr_assert_eq(o.sizing.limit, 64 * GIB / 100 * 80);
    cr_assert_eq(sum_of(&o.sizing), o.sizing.limit, "the index has the rest");
    cr_assert(says(&o, "80 % of the machine's"), "%s", o.said);
    cr_assert(!says(&o, "does not fit"), "%s", o.said);
}

Test(sizing, defaults_fit_into_small_control_groups)
{
    static const uint64_t sizes[] = {256 * MIB, 512 * MIB, 1 * GIB, 2 * GIB, 4 * GIB};
    uint64_t index_before = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct outcome o;
        struct machine machine = {.cpus = 8, .memory = 64 * GIB, .memory_max = sizes[i]};
        fit(&o, machine, NULL);
        cr_assert_eq(o.result, 0, "%s", o.said);
        cr_assert_eq(sum_of(&o.sizing), sizes[i] / 100 * 80);
        cr_assert_leq(o.sizing.shards, o.sizing.limit / 2);
        cr_assert_leq(o.sizing.cache, o.config.index_size + 1);
        cr_assert_geq(o.config.index_size, index_before, "more memory holds more keys");
        cr_assert(says(&o, "80 % of what the control group allows"), "%s", o.said);
        cr_assert_eq(says(&o, "-cache 512 does not fit"), o.config.cache_size < 512 * MIB, "%s",
                     o.said);
        index_before = o.config.index_size;
    }
}

static void ask_for_little(struct config *config)
{
    config->memory_size = 1 * GIB;
    config->cache_size = 5 * MIB;
    config->shard_count = 1;
}

Test(sizing, what_the_cache_does_not_want_is_the_indexs)
{
    struct outcome o;
    fit(&o, (struct machine){.cpus = 2, .memory = 8 * GIB, .memory_max = 512 * MIB},
        ask_for_little);
    cr_assert_eq(o.result, 0);
    cr_assert_eq(o.sizing.limit, 1 * GIB, "the flag counts");
    cr_assert_eq(o.config.cache_size, 5 * MIB);
    cr_assert_eq(sum_of(&o.sizing), 1 * GIB);
    cr_assert(says(&o, "WARN"), "%s", o.said);
    cr_assert(says(&o, "is more than the 512 MiB of the control group"), "%s", o.said);
}

static void ask_for_shards(struct config *config)
{
    config->memory_size = 300 * MIB;
    config->shard_count = 16;
}

static void ask_for_nothing(struct config *config)
{
    config->memory_size = 1 * MIB;
}

Test(sizing, what_must_be_there_and_does_not_fit_is_refused_by_name)
{
    struct outcome o;
    fit(&o, (struct machine){.cpus = 2, .memory = 8 * GIB}, ask_for_shards);
    cr_assert_eq(o.result, -ENOMEM);
    cr_assert(says(&o, "300 MiB of memory (-memory) are too few"), "%s", o.said);
    cr_assert(says(&o, "16 of -shards") && says(&o, "fewer take less"), "%s", o.said);
    fit(&o, (struct machine){.cpus = 2, .memory = 8 * GIB}, ask_for_nothing);
    cr_assert_eq(o.result, -ENOMEM);
    cr_assert_eq(o.config.shard_count, 1);
    cr_assert_geq(o.config.connections_max, 1);
}

static void fit_what_it_said(struct config *config)
{
    config->memory_size = 200 * MIB;
    config->shard_count = 1;
}

Test(sizing, a_shard_of_defaults_needs_less_than_200_mib)
{
    struct outcome o;
    fit(&o, (struct machine){.cpus = 2, .memory = 8 * GIB}, fit_what_it_said);
    cr_assert_eq(o.result, 0, "%s", o.said);
}

Test(sizing, the_default_number_of_shards_has_four_bounds)
{
    struct outcome o;
    struct machine large = {.cpus = 8, .memory = 64 * GIB, .disk_size = 1000 * GIB}, machine;
    machine = large;
    machine.quota = 3;
    fit(&o, machine, NULL);
    cr_assert_eq(o.config.shard_count, 3);
    cr_assert_eq(o.sizing.bound, SIZING_QUOTA);
    machine.quota = 20;
    fit(&o, machine, NULL);
    cr_assert_eq(o.config.shard_count, 8);
    cr_assert_eq(o.sizing.bound, SIZING_CPUS);
    machine.disk_size = 300 * MIB;
    fit(&o, machine, NULL);
    cr_assert_eq(o.config.shard_count, 4);
    cr_assert_eq(o.sizing.bound, SIZING_DISK);
    machine.disk_size = 10 * MIB;
    fit(&o, machine, NULL);
    cr_assert_eq(o.config.shard_count, 1, "one there is always");
    machine = large;
    machine.memory_max = 256 * MIB;
    fit(&o, machine, NULL);
    cr_assert_eq(o.config.shard_count, 1);
    cr_assert_eq(o.sizing.bound, SIZING_MEMORY);
    machine.cpus = 1000;
    machine.memory_max = 0;
    machine.memory = 4096 * GIB;
    fit(&o, machine, NULL);
    cr_assert_eq(o.config.shard_count, 256);
}

static void ask_for_16(struct config *config)
{
    config->shard_count = 16;
}

Test(sizing, the_flag_is_no_default)
{
    struct outcome o;
    struct machine machine = {.cpus = 1, .quota = 1, .memory = 64 * GIB, .disk_size = 10 * MIB};
    fit(&o, machine, ask_for_16);
    cr_assert_eq(o.config.shard_count, 16);
    cr_assert_eq(o.sizing.bound, SIZING_FLAG);
    cr_assert_str_eq(sizing_bound_text(o.sizing.bound), "");
}
