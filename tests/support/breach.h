/* Planted breaches: a test corrupts a state that must never be, and sees which assert stops it. */
#ifndef TESTS_SUPPORT_BREACH_H
#define TESTS_SUPPORT_BREACH_H

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef void breach_call(void *context);

/* The child's part: the assert's message goes into the pipe. */
static inline void breach_run(int target, breach_call *call, void *context)
{
    (void)signal(SIGABRT, SIG_DFL);
    (void)dup2(target, STDERR_FILENO);
    call(context);
    _exit(0);
}

/* Whether `call` stops at the assert whose condition is this text. It runs in a forked child, so
 * that the state of the test stays as it is. */
static inline bool breach_stops_at(const char *condition, breach_call *call, void *context)
{
    int ends[2];
    char message[2048];
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0)
        breach_run(ends[1], call, context);
    (void)close(ends[1]);
    size_t size = 0;
    for (ssize_t got; size + 1 < sizeof message &&
                      (got = read(ends[0], message + size, sizeof message - 1 - size)) > 0;)
        size += (size_t)got;
    message[size] = '\0';
    (void)close(ends[0]);
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    bool stopped = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    if (!stopped || strstr(message, condition) == NULL)
        cr_log_error("status %x, said: %s", (unsigned)status, message);
    return stopped && strstr(message, condition) != NULL;
}

#endif
