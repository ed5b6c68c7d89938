/* The threads' counts are added up here, and printed as a text or as JSON. */
#include "report.h"

#include <stdio.h>

struct quantile {
    const char *name;
    double share;
};

static const struct quantile quantiles[] = {
    {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999},
};

#define QUANTILE_COUNT (sizeof quantiles / sizeof quantiles[0])

void report_merge(struct tally *total, const struct tally *tally)
{
    histogram_merge(&total->latency, &tally->latency);
    if (tally->latency_min_ns < total->latency_min_ns)
        total->latency_min_ns = tally->latency_min_ns;
    total->replies += tally->replies;
    total->gets += tally->gets;
    total->misses += tally->misses;
    total->refused += tally->refused;
    total->errors += tally->errors;
    total->lost += tally->lost;
    total->unsent += tally->unsent;
    total->cpu_ns += tally->cpu_ns;
    if (tally->duration_ns > total->duration_ns)
        total->duration_ns = tally->duration_ns;
}

static double rate_of(const struct tally *total)
{
    return total->duration_ns == 0 ? 0 : (double)total->replies * 1e9 / (double)total->duration_ns;
}

static double mean_us(const struct tally *total)
{
    return total->replies == 0 ? 0 : (double)total->latency.sum / (double)total->replies / 1e3;
}

static double minimum_us(const struct tally *total)
{
    return total->replies == 0 ? 0 : (double)total->latency_min_ns / 1e3;
}

/* Of the threads' CPUs: near 1, the client may be what is measured (always so when it busy-polls).
 */
static double client_cpu_share(const struct config *config, const struct tally *total)
{
    double available = (double)total->duration_ns * (double)config->threads;
    return available > 0 ? (double)total->cpu_ns / available : 0;
}

void report_text(const struct config *config, const struct tally *total)
{
    printf("%s %s:%llu, %llu connections x %llu, %.0f %% GET, %s keys, %llu-byte values%s\n",
           config->protocol->name, config->host, (unsigned long long)config->port,
           (unsigned long long)config->connections, (unsigned long long)config->depth,
           config->reads * 100, config->key_space.is_zipf ? "Zipf" : "uniform",
           (unsigned long long)config->value_size, config->is_busy_poll ? ", busy-polling" : "");
    printf("%.0f requests/s (%llu in %.2f s)", rate_of(total), (unsigned long long)total->replies,
           (double)total->duration_ns / 1e9);
    if (config->rate > 0)
        printf(", intended %.0f/s, latency from the intended time", config->rate);
    printf("\nlatency us: min %.1f, mean %.1f", minimum_us(total), mean_us(total));
    for (size_t i = 0; i < QUANTILE_COUNT; i++)
        printf(", %s %.1f", quantiles[i].name,
               (double)histogram_quantile(&total->latency, quantiles[i].share) / 1e3);
    printf(", max %.1f\n", (double)total->latency.maximum / 1e3);
    printf("misses %llu, refused %llu, errors %llu, lost %llu, unsent %llu, client CPU %.0f %%\n",
           (unsigned long long)total->misses, (unsigned long long)total->refused,
           (unsigned long long)total->errors, (unsigned long long)total->lost,
           (unsigned long long)total->unsent, client_cpu_share(config, total) * 100);
}

void report_json(const struct config *config, const struct tally *total)
{
    printf(
        "{\"protocol\":\"%s\",\"connections\":%llu,\"depth\":%llu,\"threads\":%llu,\"reads\":%g,"
        "\"keys\":%llu,\"distribution\":\"%s\",\"value_size\":%llu,\"busy_poll\":%s,\"rate\":%g,",
        config->protocol->name, (unsigned long long)config->connections,
        (unsigned long long)config->depth, (unsigned long long)config->threads, config->reads,
        (unsigned long long)config->keys, config->key_space.is_zipf ? "zipf" : "uniform",
        (unsigned long long)config->value_size, config->is_busy_poll ? "true" : "false",
        config->rate);
    printf(
        "\"seconds\":%.3f,\"replies\":%llu,\"gets\":%llu,\"ops_per_second\":%.1f,\"misses\":%llu,"
        "\"refused\":%llu,\"errors\":%llu,\"lost\":%llu,\"unsent\":%llu,\"client_cpu\":%.3f,",
        (double)total->duration_ns / 1e9, (unsigned long long)total->replies,
        (unsigned long long)total->gets, rate_of(total), (unsigned long long)total->misses,
        (unsigned long long)total->refused, (unsigned long long)total->errors,
        (unsigned long long)total->lost, (unsigned long long)total->unsent,
        client_cpu_share(config, total));
    printf("\"latency_us\":{\"min\":%.3f,\"mean\":%.3f,", minimum_us(total), mean_us(total));
    for (size_t i = 0; i < QUANTILE_COUNT; i++)
        printf("\"%s\":%.3f,", quantiles[i].name,
               (double)histogram_quantile(&total->latency, quantiles[i].share) / 1e3);
    printf("\"max\":%.3f}}\n", (double)total->latency.maximum / 1e3);
}
