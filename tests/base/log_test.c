/* The program's log by itself: how lines look on a terminal and in the journal, and that nothing
 * forges one. */
#include "base/log.h"

#include "base/units.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct capture {
    char bytes[4 * LOG_LINE_MAX];
    uint32_t size;
    uint32_t line_count;
    uint64_t now_ms;
};

static void capture_write(void *context, const char *line, uint32_t size)
{
    struct capture *capture = context;
    cr_assert_leq(size, LOG_LINE_MAX);
    cr_assert_lt(capture->size + size, sizeof capture->bytes);
    memcpy(capture->bytes + capture->size, line, size);
    capture->size += size;
    capture->bytes[capture->size] = 0;
    capture->line_count++;
}

static uint64_t capture_wall_ms(void *context)
{
    return ((struct capture *)context)->now_ms;
}

/* A journal-style log: its prefix is the shortest. */
static struct log capture_log(struct capture *capture)
{
    memset(capture, 0, sizeof *capture);
    return (struct log){.format = LOG_JOURNAL, .write = capture_write, .context = capture};
}

Test(log, a_line_has_time_level_and_message)
{
    struct capture capture;
    struct log log = capture_log(&capture);
    log.format = LOG_TEXT;
    log.wall_ms = capture_wall_ms;
    capture.now_ms = 1704067199007; /* the last second of 2023 */
    log_info(&log, "listening on port %d", 3000);
    log_warn(&log, "slow");
    capture.now_ms = 951782400000; /* a leap day */
    log_error(&log, "gone");
    cr_assert_str_eq(capture.bytes, "2023-12-31T23:59:59.007Z INFO listening on port 3000\n"
                                    "2023-12-31T23:59:59.007Z WARN slow\n"
                                    "2000-02-29T00:00:00.000Z ERROR gone\n");
    cr_assert_eq(capture.line_count, 3);
}

Test(log, without_a_clock_there_is_no_time)
{
    struct capture capture;
    struct log log = capture_log(&capture);
    log.format = LOG_TEXT;
    log_debug(&log, "one");
    cr_assert_str_eq(capture.bytes, "DEBUG one\n");
}

Test(log, the_journal_gets_syslog_priorities)
{
    struct capture capture;
    struct log log = capture_log(&capture);
    log_debug(&log, "a");
    log_info(&log, "b");
    log_warn(&log, "c");
    log_error(&log, "d");
    cr_assert_str_eq(capture.bytes, "<7>a\n<6>b\n<4>c\n<3>d\n");
}

Test(log, as_json_a_line_is_an_object)
{
    struct capture capture;
    struct log log = capture_log(&capture);
    log.format = LOG_JSON;
    log_warn(&log, "without \"time\"");
    log.wall_ms = capture_wall_ms;
    capture.now_ms = 1704067199007;
    log_info(&log, "C:\\x \xc3\xa4 \x01\xff\n");
    cr_assert_str_eq(capture.bytes, "{\"level\":\"warn\",\"message\":\"without \\\"time\\\"\"}\n"
                                    "{\"time\":\"2023-12-31T23:59:59.007Z\",\"level\":\"info\","
                                    "\"message\":\"C:\\\\x \xc3\xa4 \\\\x01\\\\xff\\\\x0a\"}\n");
}

/* Cut wherever it is, it stays an object. */
Test(log, a_long_line_of_json_stays_an_object)
{
    char message[LOG_LINE_MAX];
    for (size_t size = LOG_LINE_MAX - 80; size < LOG_LINE_MAX; size++) {
        struct capture capture;
        struct log log = capture_log(&capture);
        log.format = LOG_JSON;
        memset(message, '"', sizeof message);
        message[size] = '\0';
        log_info(&log, "%s", message);
        cr_assert_leq(capture.size, LOG_LINE_MAX);
        cr_assert_str_eq(capture.bytes + capture.size - 6, "...\"}\n");
        size_t backslashes = 0;
        while (capture.bytes[capture.size - 7 - backslashes] == '\\')
            backslashes++;
        cr_assert_eq(backslashes % 2, 0, "the mark stands behind a whole character");
    }
}

Test(log, lower_levels_are_silent)
{
    struct capture capture;
    struct log log = capture_log(&capture);
    log.level_min = LOG_WARN;
    log_debug(&log, "a");
    log_info(&log, "b");
    cr_assert_eq(capture.line_count, 0);
    log_warn(&log, "c");
    log_error(&log, "d");
    cr_assert_eq(capture.line_count, 2);
}

Test(log, nothing_a_client_sent_can_forge_a_line)
{
    const struct {
        const char *message;
        const char *line;
    } cases[] = {
        {"key a\n<3>forged", "<6>key a\\x0a<3>forged\n"},
        {"\r\t\x1B[2J\x7F", "<6>\\x0d\\x09\\x1b[2J\\x7f\n"},
        {"", "<6>\n"},
        {"caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80",
         "<6>caf\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\n"},
        {"\xC2\x85", "<6>\\xc2\\x85\n"},                   /* C1: next line */
        {"\xC2\x9F", "<6>\\xc2\\x9f\n"},                   /* the last of C1 */
        {"\xC2\xA0", "<6>\xC2\xA0\n"},                     /* the first after C1 */
        {"\xC3", "<6>\\xc3\n"},                            /* cut short */
        {"\xE2\x82", "<6>\\xe2\\x82\n"},                   /* cut short */
        {"\xF0\x9F\x98", "<6>\\xf0\\x9f\\x98\n"},          /* cut short */
        {"\xC0\x8A", "<6>\\xc0\\x8a\n"},                   /* an overlong newline */
        {"\xE0\x80\x8A", "<6>\\xe0\\x80\\x8a\n"},          /* an overlong newline */
        {"\xF0\x80\x80\x8A", "<6>\\xf0\\x80\\x80\\x8a\n"}, /* an overlong newline */
        {"\xED\xA0\x80", "<6>\\xed\\xa0\\x80\n"},          /* a surrogate */
        {"\xF4\x90\x80\x80", "<6>\\xf4\\x90\\x80\\x80\n"}, /* above U+10FFFF */
        {"\xF4\x8F\xBF\xBF", "<6>\xF4\x8F\xBF\xBF\n"},     /* U+10FFFF */
        {"\x80 \xFF", "<6>\\x80 \\xff\n"},                 /* never begin anything */
        {"\xE2\x82\nx", "<6>\\xe2\\x82\\x0ax\n"},          /* broken off by a newline */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct capture capture;
        struct log log = capture_log(&capture);
        log_info(&log, "%s", cases[i].message);
        cr_assert_str_eq(capture.bytes, cases[i].line, "case %zu", i);
        cr_assert_eq(capture.line_count, 1);
    }
}

/* `count` times `unit`, logged; returns the line. */
static void log_repeated(struct capture *capture, const char *unit, int count)
{
    struct log log = capture_log(capture);
    static const int message_size_max = 3 * LOG_LINE_MAX;
    char *message = calloc(1, message_size_max + 1);
    cr_assert_leq(strlen(unit) * count, message_size_max);
    for (int i = 0; i < count; i++)
        strcat(message, unit);
    log_info(&log, "%s", message);
    free(message);
    cr_assert_eq(capture->line_count, 1);
}

Test(log, the_longest_line_is_whole_and_a_longer_one_is_cut)
{
    struct capture capture;
    const int whole = LOG_LINE_MAX - 3 - 1; /* prefix, newline */
    log_repeated(&capture, "a", whole);
    cr_assert_eq(capture.size, LOG_LINE_MAX);
    cr_assert_str_eq(capture.bytes + LOG_LINE_MAX - 5, "aaaa\n");
    for (int more = 1; more < 6; more++) {
        log_repeated(&capture, "a", whole + more);
        cr_assert_eq(capture.size, LOG_LINE_MAX);
        cr_assert_str_eq(capture.bytes + LOG_LINE_MAX - 5, "a...\n");
    }
    log_repeated(&capture, "a", 3 * LOG_LINE_MAX);
    cr_assert_eq(capture.size, LOG_LINE_MAX);
    cr_assert_str_eq(capture.bytes + LOG_LINE_MAX - 5, "a...\n");
}

Test(log, a_line_is_cut_between_characters)
{
    /* Shifted by 0 to 7 bytes, so that the cut meets each position within a character. */
    for (int shift = 0; shift < 8; shift++) {
        struct capture capture;
        struct log log = capture_log(&capture);
        char message[2 * LOG_LINE_MAX] = "";
        for (int i = 0; i < shift; i++)
            strcat(message, "a");
        for (int i = 0; i < LOG_LINE_MAX / 4; i++)
            strcat(message, "\xF0\x9F\x98\x80");
        log_info(&log, "%s", message);
        cr_assert_gt(capture.size, LOG_LINE_MAX - 4);
        cr_assert_str_eq(capture.bytes + capture.size - 4, "...\n");
        cr_assert_eq((capture.size - 3 - shift - 4) % 4, 0, "shift %d", shift);
        cr_assert_null(strchr(capture.bytes, '\\'), "no character was torn");
    }
}

Test(log, escapes_are_not_cut_either)
{
    struct capture capture;
    log_repeated(&capture, "\xC2\x85", LOG_LINE_MAX);
    cr_assert_str_eq(capture.bytes + capture.size - 12, "\\xc2\\x85...\n");
    cr_assert_gt(capture.size, LOG_LINE_MAX - 8);
}

/* Stderr becomes one end of a socket pair, as under systemd; returns the other end. */
static int redirect_stderr(char *ret_stream, size_t stream_size)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    cr_assert_eq(dup2(pair[0], STDERR_FILENO), STDERR_FILENO);
    struct stat status;
    cr_assert_eq(fstat(STDERR_FILENO, &status), 0);
    snprintf(ret_stream, stream_size, "%llu:%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino);
    return pair[1];
}

Test(log, stderr_is_the_journal_when_it_is_the_stream_that_systemd_named)
{
    char stream[64];
    int other_end = redirect_stderr(stream, sizeof stream);
    cr_assert_eq(setenv("JOURNAL_STREAM", stream, 1), 0);
    struct log log;
    log_init_stderr(&log, LOG_INFO);
    cr_assert_eq(log.format, LOG_JOURNAL);
    log_debug(&log, "silent");
    log_info(&log, "one");
    log_error(&log, "two");
    char line[LOG_LINE_MAX];
    /* Packets: what one read returns, one write wrote. */
    cr_assert_eq(read(other_end, line, sizeof line), 7);
    cr_assert_arr_eq(line, "<6>one\n", 7);
    cr_assert_eq(read(other_end, line, sizeof line), 7);
    cr_assert_arr_eq(line, "<3>two\n", 7);
}

Test(log, stderr_is_not_the_journal_when_it_was_redirected)
{
    char stream[64];
    int other_end = redirect_stderr(stream, sizeof stream);
    struct log log;
    const char *others[] = {"0:0", "1:", "", "nonsense", ":"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        cr_assert_eq(setenv("JOURNAL_STREAM", others[i], 1), 0);
        log_init_stderr(&log, LOG_INFO);
        cr_assert_eq(log.format, LOG_TEXT, "'%s'", others[i]);
    }
    strcat(stream, "1");
    cr_assert_eq(setenv("JOURNAL_STREAM", stream, 1), 0);
    log_init_stderr(&log, LOG_INFO);
    cr_assert_eq(log.format, LOG_TEXT);
    cr_assert_eq(unsetenv("JOURNAL_STREAM"), 0);
    log_init_stderr(&log, LOG_INFO);
    cr_assert_eq(log.format, LOG_TEXT);
    log_info(&log, "plain");
    char line[LOG_LINE_MAX];
    cr_assert_eq(read(other_end, line, sizeof line), 11);
    cr_assert_arr_eq(line, "INFO plain\n", 11);
}

Test(log, what_a_part_says_goes_to_the_whole_with_its_name)
{
    struct capture capture = {.size = 0};
    struct log log = {.level_min = LOG_INFO, .write = capture_write, .context = &capture};
    struct log part;
    log_init_part(&part, &log, "shard 255: ");
    log_info(&part, "up after %d ms", 3);
    log_debug(&part, "hidden");
    log_set_level(&log, LOG_WARN);
    log_info(&part, "hidden, too");
    log_error(&part, "down");
    log_set_level(&log, LOG_DEBUG);
    log_debug(&log, "all of it");
    capture.bytes[capture.size] = 0;
    cr_assert_str_eq(capture.bytes, "INFO shard 255: up after 3 ms\nERROR shard 255: down\n"
                                    "DEBUG all of it\n");
}

Test(log, a_line_a_second_stands_for_all_of_its_kind)
{
    struct log_limit limit = {0};
    uint64_t now_ns = NS_PER_S;
    cr_assert_eq(log_limit_count(&limit, now_ns), 1, "the first is told at once");
    for (int i = 0; i < 999; i++)
        cr_assert_eq(log_limit_count(&limit, now_ns + (uint64_t)i * NS_PER_MS), 0);
    cr_assert_eq(log_limit_count(&limit, now_ns + NS_PER_S), 1000);
    cr_assert_eq(log_limit_count(&limit, now_ns + 2 * NS_PER_S), 1);
}
