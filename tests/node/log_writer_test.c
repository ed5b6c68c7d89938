/* The log's thread, with a pipe as stderr whose reader comes and goes. */
#include "node/log_writer.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Each test is a process of its own: its stderr is its own, too. */
static int stderr_into_pipe(void)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    (void)close(ends[1]);
    return ends[0];
}

static struct log_writer *open_writer(struct log *log)
{
    struct log_writer *writer = NULL;
    log_init_stderr(log, LOG_INFO);
    cr_assert_eq(log_writer_open(log, &writer), 0);
    return writer;
}

/* Lines of about 1 KiB, until the pipe (64 KiB) and the writer's memory are full and more. Returns how many. */
static uint32_t log_too_much(const struct log *log)
{
    char filling[1000];
    memset(filling, '.', sizeof filling);
    for (uint32_t i = 0; i < 1000; i++)
        log_info(log, "line %u %.*s", i, (int)sizeof filling, filling);
    return 1000;
}

static char *read_all(int pipe, size_t size_max, size_t *ret_size)
{
    char *text = malloc(size_max + 1);
    size_t size = 0;
    ssize_t result;
    while (size < size_max && (result = read(pipe, text + size, size_max - size)) > 0)
        size += (size_t)result;
    text[size] = '\0';
    *ret_size = size;
    return text;
}

Test(log_writer, lines_arrive_in_order_and_are_flushed_at_the_end)
{
    struct log log;
    int pipe = stderr_into_pipe();
    struct log_writer *writer = open_writer(&log);
    for (int i = 0; i < 100; i++)
        log_info(&log, "line %d", i);
    cr_assert(log_writer_close(writer));
    log_info(&log, "straight");
    (void)dup2(STDIN_FILENO, STDERR_FILENO); /* the pipe's end: nobody writes any more */
    size_t size;
    char *text = read_all(pipe, 65536, &size), *at = text;
    for (int i = 0; i < 100; i++) {
        char line[64];
        int expected = snprintf(line, sizeof line, "INFO line %d\n", i);
        cr_assert_eq(strncmp(at, line, (size_t)expected), 0, "%.64s", at);
        at += expected;
    }
    cr_assert_str_eq(at, "INFO straight\n");
    free(text);
}

Test(log_writer, nobody_waits_for_a_reader_that_has_stopped)
{
    static struct log log; /* the thread goes on with it */
    int pipe = stderr_into_pipe();
    struct log_writer *writer = open_writer(&log);
    uint32_t lines = log_too_much(&log);
    uint64_t dropped = log_dropped(&log);
    cr_assert_gt(dropped, 500);
    cr_assert_lt(dropped, lines);
    cr_assert_not(log_writer_close(writer));
    cr_assert_eq(log_dropped(&log), dropped);
    (void)pipe; /* stays open: the thread waits until the process ends */
}

Test(log_writer, what_was_dropped_is_told_once_there_is_room)
{
    struct log log;
    int pipe = stderr_into_pipe();
    struct log_writer *writer = open_writer(&log);
    uint32_t lines = log_too_much(&log);
    uint64_t dropped = log_dropped(&log);
    FILE *file = fdopen(pipe, "r");
    char line[LOG_LINE_MAX + 1];
    uint64_t arrived = 0, told = 0;
    while (arrived + told < lines) {
        unsigned long long count;
        cr_assert_not_null(fgets(line, sizeof line, file));
        if (sscanf(line, "ERROR %llu line", &count) == 1)
            told += count;
        else
            arrived += strncmp(line, "INFO line ", 10) == 0;
    }
    cr_assert_eq(told, dropped);
    cr_assert_eq(arrived + told, lines);
    cr_assert(log_writer_close(writer));
    cr_assert_eq(log_dropped(&log), dropped);
    (void)fclose(file);
}

/* Another process that has the same pipe has made it so. */
Test(log_writer, a_stderr_that_does_not_block_is_waited_for)
{
    struct log log;
    int pipe = stderr_into_pipe();
    cr_assert_eq(fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK), 0);
    struct log_writer *writer = open_writer(&log);
    for (int i = 0; i < 1000; i++) /* 100 KB: more than the pipe, less than the writer has */
        log_info(&log, "%0100d", i);
    FILE *file = fdopen(pipe, "r");
    char line[LOG_LINE_MAX + 1];
    for (int i = 0; i < 1000; i++) {
        cr_assert_not_null(fgets(line, sizeof line, file));
        cr_assert_eq(atoi(line + sizeof "INFO"), i);
    }
    cr_assert(log_writer_close(writer));
    cr_assert_eq(log_dropped(&log), 0);
    (void)fclose(file);
}

Test(log_writer, a_stderr_that_fails_is_counted_and_waited_for_by_nobody)
{
    struct log log;
    (void)signal(SIGPIPE, SIG_IGN);
    int pipe = stderr_into_pipe();
    struct log_writer *writer = open_writer(&log);
    (void)close(pipe);
    for (int i = 0; i < 10; i++)
        log_info(&log, "nobody reads this");
    cr_assert(log_writer_close(writer));
    cr_assert_eq(log_dropped(&log), 10);
}

Test(log_writer, parts_of_a_log_know_what_the_whole_has_lost)
{
    struct log log = {.dropped = 3}, part;
    log_init_part(&part, &log, "shard 1: ");
    cr_assert_eq(log_dropped(&part), 3);
}
