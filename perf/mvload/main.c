/* mvload: a load generator. Threads do the work (worker.h); this one starts them, shows progress
 * and reports. */
#include "config.h"
#include "report.h"
#include "worker.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct run {
    struct config config;
    struct worker *workers;
    pthread_t *threads;
    pthread_barrier_t barrier;
};

static uint64_t replies_so_far(const struct run *run)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < run->config.threads; i++)
        sum += __atomic_load_n(&run->workers[i].progress, __ATOMIC_RELAXED);
    return sum;
}

/* A line a second, over itself, when somebody watches. */
static void *show_progress(void *argument)
{
    const struct run *run = argument;
    uint64_t before = 0;
    for (unsigned second = 1;; second++) {
        (void)sleep(1);
        uint64_t now = replies_so_far(run);
        fprintf(stderr, "\r%4u s  %12llu replies  %10llu/s ", second, (unsigned long long)now,
                (unsigned long long)(now - before));
        before = now;
    }
    return NULL;
}

static int start(struct run *run)
{
    uint32_t count = (uint32_t)run->config.threads;
    run->workers = calloc(count, sizeof *run->workers);
    run->threads = calloc(count, sizeof *run->threads);
    if (run->workers == NULL || run->threads == NULL)
        return -ENOMEM;
    int error = -pthread_barrier_init(&run->barrier, NULL, count);
    if (error < 0)
        return error;
    for (uint32_t i = 0; i < count; i++)
        worker_init(&run->workers[i], &run->config, i, &run->barrier);
    for (uint32_t i = 0; i < count; i++) {
        error = -pthread_create(&run->threads[i], NULL, worker_run, &run->workers[i]);
        if (error < 0)
            return error;
    }
    return 0;
}

static void wait_for_workers(struct run *run)
{
    pthread_t progress;
    bool is_watched =
        isatty(STDERR_FILENO) && pthread_create(&progress, NULL, show_progress, run) == 0;
    for (uint32_t i = 0; i < run->config.threads; i++)
        (void)pthread_join(run->threads[i], NULL);
    if (is_watched) {
        (void)pthread_cancel(progress);
        (void)pthread_join(progress, NULL);
        fprintf(stderr, "\n");
    }
}

/* Prints the result; the exit code. */
static int report(struct run *run)
{
    struct tally *total = calloc(1, sizeof *total);
    if (total == NULL)
        return 1;
    total->latency_min_ns = UINT64_MAX;
    bool is_failed = false;
    const char *first_error = "";
    for (uint32_t i = 0; i < run->config.threads; i++) {
        report_merge(total, &run->workers[i].tally);
        is_failed |= run->workers[i].is_failed;
        if (first_error[0] == '\0')
            first_error = run->workers[i].first_error;
    }
    if (first_error[0] != '\0')
        fprintf(stderr, "mvload: the first error: %s\n", first_error);
    if (run->config.is_json)
        report_json(&run->config, total);
    else
        report_text(&run->config, total);
    is_failed |= total->errors + total->lost > 0;
    is_failed |= total->refused > 0 && !run->config.is_allow_refusals;
    is_failed |= total->misses > 0 && !run->config.is_allow_misses;
    free(total);
    return is_failed ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct run run = {0};
    int error = config_init(&run.config, argc, argv);
    if (error < 0)
        return error == -ECANCELED ? 0 : 2;
    error = start(&run);
    if (error < 0) {
        fprintf(stderr, "mvload: cannot start: error %d\n", -error);
        return 1;
    }
    wait_for_workers(&run);
    int exit_code = report(&run);
    (void)pthread_barrier_destroy(&run.barrier);
    free(run.workers);
    free(run.threads);
    config_deinit(&run.config);
    return exit_code;
}
