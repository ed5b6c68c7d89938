/* Runs many seeds in processes of their own, and reports each that fails, dies or is stuck. */
#include "farm.h"

#include "base/assert.h"
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define POLL_NS (50 * NS_PER_MS)
#define PROGRESS_NS (10 * NS_PER_S)
#define SEED_NS_MAX (30 * NS_PER_S) /* of CPU; beyond it the seed hangs */
#define TWICE_EVERY 32u             /* seeds; such a one runs twice and must do the same */

/* What a job shows to the one who waits for it. */
struct job {
    volatile uint64_t seed;
    volatile uint64_t began_ns; /* the seed, by the process's CPU clock */
    volatile uint64_t passed;
    volatile uint64_t requests;
    volatile uint64_t crashes;
    pid_t process;
};

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

/* A seed computes, it never waits: so it is its CPU time that tells, also on a busy machine. */
static bool is_stuck(const struct job *job)
{
    clockid_t clock;
    uint64_t began_ns = job->began_ns; /* before the clock: the job goes on meanwhile */
    if (clock_getcpuclockid(job->process, &clock) != 0)
        return false;
    return read_clock(clock) > began_ns + SEED_NS_MAX;
}

static void report(uint64_t seed, const char *what)
{
    (void)fprintf(stderr,
                  "\nseed %" PRIu64 " FAILED: %s\n    replay it: make sim SEED=%" PRIu64 "\n", seed,
                  what, seed);
}

/* Runs a seed within this process. */
static bool try_here(struct job *job, uint64_t seed)
{
    struct run_result result;
    job->seed = seed;
    job->began_ns = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    run_seed(seed, false, false, &result);
    job->requests += result.requests;
    job->crashes += result.crashes;
    if (!result.has_failed && seed % TWICE_EVERY == 0) {
        uint64_t hash = result.hash;
        run_seed(seed, false, false, &result);
        if (hash != result.hash) {
            report(seed, "the same seed does something else the second time");
            return false;
        }
    }
    if (result.has_failed)
        report(seed, result.message);
    else
        job->passed++;
    return !result.has_failed;
}

static void start_job(struct job *job, uint64_t first, uint32_t step, uint64_t until_ns)
{
    pid_t process = fork();
    assert(process >= 0);
    if (process > 0) {
        job->process = process;
        return;
    }
    bool is_well = true;
    for (uint64_t seed = first; is_well && clock_ns() < until_ns; seed += step)
        is_well = try_here(job, seed);
    (void)fflush(stderr);
    _exit(is_well ? 0 : 1);
}

/* Whether the job's process has ended, and well. What a job cannot say itself is said here. */
static bool has_ended(struct job *job, bool *ret_is_well)
{
    int status;
    pid_t ended = waitpid(job->process, &status, WNOHANG);
    if (ended == 0 && !is_stuck(job))
        return false;
    *ret_is_well = false;
    if (ended == 0) {
        report(job->seed, "it hangs");
        (void)kill(job->process, SIGKILL);
        (void)waitpid(job->process, &status, 0);
    } else if (WIFSIGNALED(status)) {
        report(job->seed, strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) > 1) {
        report(job->seed, "a sanitizer ended it");
    } else {
        *ret_is_well = WEXITSTATUS(status) == 0;
    }
    job->process = 0;
    return true;
}

static uint64_t sum_passed(const struct job *jobs, uint32_t count)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += jobs[i].passed;
    return sum;
}

static void say_progress(const struct job *jobs, uint32_t count, uint64_t seconds)
{
    uint64_t requests = 0;
    uint64_t crashes = 0;
    for (uint32_t i = 0; i < count; i++) {
        requests += jobs[i].requests;
        crashes += jobs[i].crashes;
    }
    (void)printf("%4" PRIu64 " s: %" PRIu64 " seeds, %" PRIu64 " requests, %" PRIu64 " crashes\n",
                 seconds, sum_passed(jobs, count), requests, crashes);
    (void)fflush(stdout);
}

static void stop(struct job *jobs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (jobs[i].process == 0)
            continue;
        (void)kill(jobs[i].process, SIGKILL);
        (void)waitpid(jobs[i].process, NULL, 0);
        jobs[i].process = 0;
    }
}

/* Returns false as soon as a job does not end well. */
static bool wait_for(struct job *jobs, uint32_t count, uint64_t began_ns)
{
    uint64_t said_ns = began_ns;
    for (uint32_t left = count; left > 0;) {
        struct timespec pause = {.tv_nsec = (long)POLL_NS};
        (void)nanosleep(&pause, NULL);
        for (uint32_t i = 0; i < count; i++) {
            bool is_well = true;
            if (jobs[i].process == 0 || !has_ended(&jobs[i], &is_well))
                continue;
            left--;
            if (!is_well)
                return false;
        }
        if (clock_ns() - said_ns >= PROGRESS_NS) {
            said_ns = clock_ns();
            say_progress(jobs, count, (said_ns - began_ns) / NS_PER_S);
        }
    }
    return true;
}

static struct job *share_jobs(uint32_t count)
{
    struct job *jobs =
        mmap(NULL, count * sizeof *jobs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert(jobs != MAP_FAILED);
    return jobs;
}

static uint64_t choose_first(void)
{
    struct prng prng = {(uint64_t)time(NULL) << 20 ^ (uint64_t)getpid()};
    return prng_next(&prng) >> 24;
}

int farm_run(uint64_t seconds, uint32_t jobs_count, uint64_t first)
{
    struct job *jobs = share_jobs(jobs_count);
    uint64_t began_ns = clock_ns();
    if (first == 0)
        first = choose_first();
    (void)printf("seeds from %" PRIu64 "\n", first);
    (void)fflush(stdout);
    for (uint32_t i = 0; i < jobs_count; i++)
        start_job(&jobs[i], first + i, jobs_count, began_ns + seconds * NS_PER_S);
    bool is_well = wait_for(jobs, jobs_count, began_ns);
    stop(jobs, jobs_count);
    say_progress(jobs, jobs_count, (clock_ns() - began_ns) / NS_PER_S);
    (void)printf("sim: %" PRIu64 " passed, %d failed\n", sum_passed(jobs, jobs_count), !is_well);
    (void)munmap(jobs, jobs_count * sizeof *jobs);
    return is_well ? 0 : 1;
}

bool farm_try(uint64_t seed)
{
    struct job *job = share_jobs(1);
    job->seed = seed;
    pid_t process = fork();
    assert(process >= 0);
    if (process == 0) {
        bool is_well = try_here(job, seed);
        (void)fflush(stderr);
        _exit(is_well ? 0 : 1);
    }
    job->process = process;
    bool is_well = false;
    while (!has_ended(job, &is_well)) {
        struct timespec pause = {.tv_nsec = (long)NS_PER_MS};
        (void)nanosleep(&pause, NULL);
    }
    (void)munmap(job, sizeof *job);
    return is_well;
}
