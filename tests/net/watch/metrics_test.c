/* The metrics by themselves: HEALTH, STATS and both Prometheus formats, checked by promtool and the
 * reference parser. */
#include "net/watch/metrics.h"

#include "store/store.h"

#include "base/units.h"
#include "minivault/protocol.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yyjson.h>

#define TEXT_MAX (4u * 1024 * 1024)

static const char *const decision_names[] = {"local", "least_loaded"};
static const uint64_t decisions[] = {7, 3};
static const struct metrics_node node = {.version = "1.2.3+test",
                                         .decisions = decisions,
                                         .decision_names = decision_names,
                                         .decision_count = 2};

/* Every value is another one. */
static struct metrics *new_shard(uint64_t seed)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    cr_assert_not_null(metrics);
    for (uint32_t i = 0; i < METRICS_VALUE_COUNT; i++)
        metrics_set(metrics, (enum metrics_value)i, seed * 1000 + i);
    metrics_set(metrics, METRICS_ADMITS_SET, ADMISSION_NO_SPACE);
    metrics_set(metrics, METRICS_ADMITS_KEY, ADMISSION_NO_MEMORY);
    metrics_set(metrics, METRICS_ADMITS_FILE, ADMISSION_NO_INODES);
    metrics_add(&metrics->requests[METRICS_GET][MINIVAULT_OK], 10 * seed);
    metrics_add(&metrics->requests[METRICS_GET][MINIVAULT_NOT_FOUND], 2 * seed);
    metrics_add(&metrics->errors[METRICS_ERROR_LATE], seed);
    for (uint64_t value = 1; value < 100 * NS_PER_S; value = value * 3 + 1)
        histogram_add(&metrics->latency[METRICS_GET], value, seed);
    return metrics;
}

static struct metrics_shards new_shards(uint32_t count)
{
    const struct metrics **all = calloc(count, sizeof *all);
    cr_assert_not_null(all);
    for (uint32_t i = 0; i < count; i++)
        all[i] = new_shard(i + 1);
    return (struct metrics_shards){all, count};
}

static void free_shards(struct metrics_shards shards)
{
    for (uint32_t i = 0; i < shards.count; i++)
        free((void *)shards.all[i]);
    free((void *)shards.all);
}

#define TEXT_OFFSET 100

/* The whole text. */
static char *render(struct metrics_shards shards, enum metrics_format format)
{
    size_t size = 0;
    uint8_t *memory = metrics_text(format, shards, &node, TEXT_OFFSET, &size);
    cr_assert_not_null(memory);
    char *whole = strndup((char *)memory + TEXT_OFFSET, size);
    cr_assert_eq(strlen(whole), size);
    free(memory);
    return whole;
}

/* Whether `command` is content with the text; what it said goes to the test's output. */
static void check_by(const char *command, const char *text)
{
    FILE *checker = popen(command, "w");
    cr_assert_not_null(checker);
    cr_assert_eq(fwrite(text, 1, strlen(text), checker), strlen(text));
    int status = pclose(checker);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status %x", command, status);
}

static void skip_without(const char *probe, const char *package)
{
    if (system(probe) != 0)
        cr_skip_test("needs Debian's %s", package);
}

Test(metrics, promtool_accepts_the_prometheus_text)
{
    skip_without("promtool --version >/dev/null 2>&1", "prometheus");
    struct metrics_shards shards = new_shards(3);
    char *text = render(shards, METRICS_PROMETHEUS);
    check_by("promtool check metrics", text);
    free(text);
    free_shards(shards);
}

/* Prometheus' own reference parser of OpenMetrics, which is strict. */
Test(metrics, the_reference_parser_accepts_the_openmetrics_text)
{
    skip_without("/usr/bin/python3 -c 'import prometheus_client' 2>/dev/null",
                 "python3-prometheus-client");
    struct metrics_shards shards = new_shards(3);
    char *text = render(shards, METRICS_OPENMETRICS);
    check_by("/usr/bin/python3 -c '\n"
             "import sys\n"
             "from prometheus_client.openmetrics.parser import text_string_to_metric_families\n"
             "families = {f.name: f for f in text_string_to_metric_families(sys.stdin.read())}\n"
             "gets = [s for s in families[\"minivault_requests\"].samples\n"
             "        if s.labels == {\"shard\": \"2\", \"operation\": \"get\", \"outcome\": "
             "\"not_found\"}]\n"
             "assert [s.value for s in gets] == [6], gets\n"
             "assert families[\"minivault_request_duration_seconds\"].unit == \"seconds\"\n"
             "assert families[\"minivault_request_duration_seconds\"].type == \"histogram\"\n"
             "assert families[\"minivault_build\"].samples[0].labels[\"version\"] == "
             "\"1.2.3+test\"\n'",
             text);
    free(text);
    free_shards(shards);
}

Test(metrics, the_two_formats_end_and_name_counters_in_their_own_way)
{
    struct metrics_shards shards = new_shards(1);
    char *open = render(shards, METRICS_OPENMETRICS);
    char *older = render(shards, METRICS_PROMETHEUS);
    cr_assert_str_eq(open + strlen(open) - 6, "# EOF\n");
    cr_assert_null(strstr(older, "# EOF"));
    cr_assert_null(strstr(older, "# UNIT"));
    cr_assert_not_null(strstr(open, "# TYPE minivault_log_commits counter\n"));
    cr_assert_not_null(strstr(older, "# TYPE minivault_log_commits_total counter\n"));
    cr_assert_not_null(strstr(open, "\nminivault_log_commits_total{shard=\"0\"} 1006\n"));
    cr_assert_not_null(strstr(older, "\nminivault_log_commits_total{shard=\"0\"} 1006\n"));
    cr_assert_not_null(
        strstr(open, "\nminivault_steering_decisions_total{decision=\"least_loaded\"} 3\n"));
    free(open);
    free(older);
    free_shards(shards);
}

static uint64_t number_behind(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    cr_assert_not_null(at, "%s", name);
    return strtoull(at + strlen(name), NULL, 10);
}

Test(metrics, buckets_count_what_is_at_most_their_bound)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    struct metrics_shards shards = {(const struct metrics *[]){metrics}, 1};
    struct histogram *sets = &metrics->latency[METRICS_SET];
    histogram_add(sets, 0, 1);
    histogram_add(sets, 4096, 1); /* the first bound itself */
    histogram_add(sets, 4097, 1);
    histogram_add(sets, 1ull << 34, 1); /* the last one */
    histogram_add(sets, (1ull << 34) + 1, 1);
    histogram_add(sets, UINT64_MAX / 2, 1);
    char *text = render(shards, METRICS_OPENMETRICS);
    char bucket[] = "minivault_request_duration_seconds_bucket{shard=\"0\",operation=\"set\",le=";
    static const struct {
        const char *bound;
        uint64_t count;
    } expected[] = {{"\"4.096e-06\"} ", 2},
                    {"\"8.192e-06\"} ", 3},
                    {"\"8.589934592\"} ", 3},
                    {"\"17.179869184\"} ", 4},
                    {"\"+Inf\"} ", 6}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        char name[200];
        (void)snprintf(name, sizeof name, "%s%s", bucket, expected[i].bound);
        cr_assert_eq(number_behind(text, name), expected[i].count, "%s", name);
    }
    cr_assert_eq(number_behind(text, "duration_seconds_count{shard=\"0\",operation=\"set\"} "), 6);
    cr_assert_eq(number_behind(text, "duration_seconds_count{shard=\"0\",operation=\"get\"} "), 0);
    free(text);
    free(metrics);
}

Test(metrics, what_never_happened_has_no_line_but_success_has)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);
    struct metrics_shards shards = {(const struct metrics *[]){metrics}, 1};
    char *text = render(shards, METRICS_OPENMETRICS);
    cr_assert_not_null(strstr(text, "operation=\"delete\",outcome=\"ok\"} 0\n"));
    cr_assert_null(strstr(text, "outcome=\"corrupt\""));
    free(text);
    free(metrics);
}

Test(metrics, of_256_shards_come_whole)
{
    struct metrics_shards shards = new_shards(256);
    char *text = render(shards, METRICS_OPENMETRICS);
    size_t size = strlen(text);
    cr_assert_gt(size, 1024 * 1024);
    cr_assert_str_eq(text + size - 6, "# EOF\n");
    cr_assert_not_null(strstr(text, "\nminivault_keys{shard=\"255\"} "));
    free(text);
    free_shards(shards);
}

static yyjson_val *member(yyjson_val *object, const char *path)
{
    yyjson_val *value = yyjson_ptr_get(object, path);
    cr_assert_not_null(value, "%s", path);
    return value;
}

Test(metrics, stats_sums_over_shards)
{
    struct metrics_shards shards = new_shards(3);
    char buffer[METRICS_JSON_MAX];
    uint32_t size = metrics_json(shards, &node, buffer);
    cr_assert_lt(size, METRICS_JSON_MAX);
    yyjson_doc *document = yyjson_read(buffer, size, 0);
    cr_assert_not_null(document, "%.*s", (int)size, buffer);
    yyjson_val *root = yyjson_doc_get_root(document);
    cr_assert_eq(yyjson_get_uint(member(root, "/shards")), 3);
    cr_assert_eq(yyjson_get_uint(member(root, "/requests/get/ok")), 60);
    cr_assert_eq(yyjson_get_uint(member(root, "/requests/get/not_found")), 12);
    cr_assert_eq(yyjson_get_uint(member(root, "/requests/set/ok")), 0);
    cr_assert_eq(yyjson_get_uint(member(root, "/connection_errors/late")), 6);
    cr_assert_eq(yyjson_get_uint(member(root, "/steering_decisions/local")), 7);
    cr_assert_eq(yyjson_get_uint(member(root, "/log_commits")),
                 6000 + 3 * (uint64_t)METRICS_LOG_COMMITS);
    cr_assert_eq(yyjson_get_uint(member(root, "/disk_free_bytes")),
                 3000 + (uint64_t)METRICS_DISK_FREE, "one disk, however many look at it");
    cr_assert_eq(yyjson_get_uint(member(root, "/latency_ns/get/count")),
                 6 * histogram_total(&shards.all[0]->latency[METRICS_GET]));
    cr_assert_leq(yyjson_get_uint(member(root, "/latency_ns/get/p50")),
                  yyjson_get_uint(member(root, "/latency_ns/get/p999")));
    cr_assert_eq(yyjson_get_uint(member(root, "/latency_ns/get/max")),
                 shards.all[0]->latency[METRICS_GET].maximum);
    cr_assert_eq(yyjson_get_uint(member(root, "/latency_ns/set/p99")), 0);
    yyjson_doc_free(document);
    free_shards(shards);
}

/* Every counter at its widest: it still fits. */
Test(metrics, stats_fits_whatever_was_counted)
{
    struct metrics *metrics = malloc(sizeof *metrics);
    memset(metrics, 0xFF, sizeof *metrics);
    const struct metrics *all[] = {metrics};
    char buffer[METRICS_JSON_MAX];
    uint32_t size = metrics_json((struct metrics_shards){all, 1}, &node, buffer);
    yyjson_doc *document = yyjson_read(buffer, size, 0);
    cr_assert_not_null(document);
    yyjson_doc_free(document);
    free(metrics);
}

Test(metrics, every_name_is_there_once)
{
    for (uint32_t i = 0; i < METRICS_VALUE_COUNT; i++) {
        const struct metrics_kind *kind = metrics_kind_of((enum metrics_value)i);
        cr_assert_not_null(kind->name, "%u", i);
        for (uint32_t j = 0; j < i; j++)
            cr_assert_str_neq(kind->name, metrics_kind_of((enum metrics_value)j)->name);
    }
    cr_assert_str_eq(metrics_unit_of("mover_moved_bytes"), "bytes");
    cr_assert_str_eq(metrics_unit_of("uptime_seconds"), "seconds");
    cr_assert_str_eq(metrics_unit_of("damaged_places"), "");
    cr_assert_str_eq(metrics_unit_of("keys"), "");
    cr_assert_str_eq(metrics_outcome_name(MINIVAULT_NOT_READY), "not_ready");
    cr_assert_str_eq(metrics_outcome_name(metrics_outcome(MINIVAULT_ERROR)), "error");
    cr_assert_eq(metrics_operation_of(MINIVAULT_STATS), METRICS_STATS);
    cr_assert_eq(metrics_operation_of(0x99), METRICS_OTHER);
}

/* ---- HEALTH ---- */

static yyjson_doc *health_of(struct metrics_shards shards, uint32_t asked)
{
    char buffer[METRICS_HEALTH_MAX];
    uint32_t size = metrics_health(shards, asked, &node, buffer);
    yyjson_doc *document = yyjson_read(buffer, size, 0);
    cr_assert_not_null(document, "%.*s", (int)size, buffer);
    return document;
}

/* Clients read the first members of the reference by their order, too. */
Test(metrics, health_has_its_members_in_their_order)
{
    static const char *const first[] = {"status",        "uptime_seconds",  "cache_items",
                                        "cache_size_mb", "storage_size_mb", "goroutines",
                                        "memory_mb",     "version",         "keys"};
    struct metrics_shards shards = new_shards(2);
    yyjson_doc *document = health_of(shards, 0);
    yyjson_obj_iter members = yyjson_obj_iter_with(yyjson_doc_get_root(document));
    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++)
        cr_assert_str_eq(yyjson_get_str(yyjson_obj_iter_next(&members)), first[i]);
    uint32_t shown = 4; /* the texts */
    for (uint32_t i = 0; i < METRICS_VALUE_COUNT; i++)
        shown += metrics_kind_of((enum metrics_value)i)->health.key != NULL;
    cr_assert_eq(yyjson_obj_size(yyjson_doc_get_root(document)), shown, "every position is one's");
    yyjson_doc_free(document);
    free_shards(shards);
}

Test(metrics, health_merges_the_numbers_of_shards)
{
    struct metrics_shards shards = new_shards(3);
    yyjson_doc *document = health_of(shards, 1);
    yyjson_val *root = yyjson_doc_get_root(document);
    cr_assert_eq(yyjson_get_uint(member(root, "/keys")), 6000 + 3 * (uint64_t)METRICS_KEYS);
    cr_assert_eq(yyjson_get_uint(member(root, "/scrub_passes")),
                 1000 + (uint64_t)METRICS_SCRUB_PASSES, "of the one that is last");
    cr_assert_eq(yyjson_get_uint(member(root, "/scrub_seconds_since_pass")),
                 3000 + (uint64_t)METRICS_SCRUB_AGE);
    cr_assert_str_eq(yyjson_get_str(member(root, "/version")), "1.2.3+test");
    yyjson_doc_free(document);
    free_shards(shards);
}

/* The status names the worst: all of them hold for every shard of new_shards. */
Test(metrics, health_says_the_worst_of_all_shards)
{
    static const struct {
        enum metrics_value cleared;
        const char *status;
    } steps[] = {
        {METRICS_VALUE_COUNT, "failing: a write to the disk failed"},
        {METRICS_FAILED, "failing: sets are refused: the disk is full"},
        {METRICS_ADMITS_SET, "degraded: draining"},
        {METRICS_DRAINING, "degraded: stored data is damaged"},
        {METRICS_LOSS, "degraded: a file cannot be read"},
        {METRICS_UNREADABLE, "degraded: new keys are refused: -memory is used up"},
        {METRICS_ADMITS_KEY,
         "degraded: large values are refused: the file system has no inodes left"},
        {METRICS_ADMITS_FILE, "healthy"},
    };
    struct metrics_shards shards = new_shards(2);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        for (uint32_t shard = 0; i > 0 && shard < 2; shard++)
            metrics_set((struct metrics *)shards.all[shard], steps[i].cleared, 0);
        yyjson_doc *document = health_of(shards, 0);
        cr_assert_str_eq(yyjson_get_str(member(yyjson_doc_get_root(document), "/status")),
                         steps[i].status);
        yyjson_doc_free(document);
    }
    free_shards(shards);
}

Test(metrics, health_tells_of_the_first_mover_at_work)
{
    struct metrics_shards shards = new_shards(3);
    struct metrics *last = (struct metrics *)shards.all[2];
    atomic_store(&((struct metrics *)shards.all[0])->mover_phase, "idle");
    atomic_store(&last->mover_phase, "reading");
    atomic_store(&last->mover_job, "log");
    yyjson_doc *document = health_of(shards, 0);
    cr_assert_str_eq(yyjson_get_str(member(yyjson_doc_get_root(document), "/mover_phase")),
                     "reading");
    cr_assert_str_eq(yyjson_get_str(member(yyjson_doc_get_root(document), "/mover_job")), "log");
    yyjson_doc_free(document);
    free_shards(shards);
}

/* Every number at its widest: it still fits. */
Test(metrics, health_fits_whatever_was_counted)
{
    struct metrics *metrics = malloc(sizeof *metrics);
    memset(metrics, 0xFF, sizeof *metrics);
    atomic_init(&metrics->mover_phase, "committing");
    atomic_init(&metrics->mover_job, "compaction");
    struct metrics_shards shards = {(const struct metrics *[]){metrics}, 1};
    yyjson_doc_free(health_of(shards, 0));
    free(metrics);
}

/* ---- docs/operations.md ---- */

#define DOCS "docs/operations.md"
#define TABLE_BEGIN "src/net/watch/metrics_table.h. -->\n\n"
#define TABLE_END "\n<!-- The end of the table of metrics. -->"

static char *read_docs(void)
{
    FILE *file = fopen(DOCS, "r");
    cr_assert_not_null(file, "%s, from the root of the tree", DOCS);
    char *text = calloc(1, TEXT_MAX);
    cr_assert_gt(fread(text, 1, TEXT_MAX - 1, file), 0);
    (void)fclose(file);
    return text;
}

static char *write_table(void)
{
    char *table = calloc(1, TEXT_MAX);
    size_t size = (size_t)sprintf(table, "| family | what |\n|---|---|\n");
    for (uint32_t i = 0; i < METRICS_VALUE_COUNT; i++) {
        const struct metrics_kind *kind = metrics_kind_of((enum metrics_value)i);
        if (kind->type != METRICS_HIDDEN)
            size += (size_t)sprintf(table + size, "| `minivault_%s%s` | %s |\n", kind->name,
                                    kind->type == METRICS_COUNTER ? "_total" : "", kind->help);
    }
    return table;
}

/* The table of the source is the only one that anybody edits: when this fails, put what it says
 * between the two marks. */
Test(metrics, docs_have_the_table)
{
    char *docs = read_docs(), *table = write_table();
    char *begin = strstr(docs, TABLE_BEGIN);
    cr_assert_not_null(begin);
    begin += strlen(TABLE_BEGIN);
    char *end = strstr(begin, TABLE_END);
    cr_assert_not_null(end);
    *end = '\0';
    cr_assert_str_eq(begin, table, "%s: its table of metrics should be\n%s", DOCS, table);
    free(table);
    free(docs);
}

Test(metrics, docs_name_every_member_of_health)
{
    char *docs = read_docs();
    for (uint32_t i = 0; i < METRICS_VALUE_COUNT; i++) {
        const char *key = metrics_kind_of((enum metrics_value)i)->health.key;
        char quoted[100];
        (void)snprintf(quoted, sizeof quoted, "`%s`", key != NULL ? key : "keys");
        cr_assert_not_null(strstr(docs, quoted), "%s in %s", quoted, DOCS);
    }
    free(docs);
}
