/* A line of the log: its prefix, the message with its bytes escaped, the cut of one that is too long.
 */
#include "base/log.h"

#include "base/assert.h"
#include "base/units.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char CUT_MARK[] = "...";
#define CUT_MARK_SIZE (sizeof CUT_MARK - 1)

/* What a line ends in. */
static const char *const ends[] = {[LOG_TEXT] = "\n", [LOG_JOURNAL] = "\n", [LOG_JSON] = "\"}\n"};
#define END_SIZE_MAX 3

struct line {
    char bytes[LOG_LINE_MAX];
    uint32_t size, size_max; /* before its end */
    bool is_json;
};

/* systemd.exec(5): JOURNAL_STREAM is "device:inode" in decimal; only when stderr is that very file
 * does it go to the journal, as it may have been redirected since. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    if (stream == NULL || fstat(STDERR_FILENO, &status) != 0)
        return false;
    char expected[64];
    (void)snprintf(expected, sizeof expected, "%" PRIu64 ":%" PRIu64, (uint64_t)status.st_dev,
                   (uint64_t)status.st_ino);
    return strcmp(stream, expected) == 0;
}

/* Daemons are started with closed descriptors by hand-written init scripts, by `<&- >&- 2>&-`, and
 * by container runtimes without a console. */
int log_open_standard_files(void)
{
    for (int number = STDIN_FILENO; number <= STDERR_FILENO; number++) {
        if (fcntl(number, F_GETFD) >= 0)
            continue;
        /* The lowest free number is this one: those below are open. */
        if (open("/dev/null", O_RDWR) < 0)
            return -errno;
    }
    return 0;
}

void log_init_stderr(struct log *log, enum log_level level_min)
{
    *log = (struct log){.level_min = level_min,
                        .format = stderr_is_journal() ? LOG_JOURNAL : LOG_TEXT};
}

void log_init_part(struct log *ret_log, const struct log *whole, const char *name)
{
    assert(whole->whole == NULL);
    *ret_log = (struct log){.whole = whole};
    (void)snprintf(ret_log->part, sizeof ret_log->part, "%s", name);
}

void log_set_level(struct log *log, enum log_level level_min)
{
    atomic_store_explicit(&log->level_min, level_min, memory_order_relaxed);
}

uint64_t log_dropped(const struct log *log)
{
    log = log->whole != NULL ? log->whole : log;
    return atomic_load_explicit(&log->dropped, memory_order_relaxed);
}

static void write_stderr(const char *bytes, uint32_t size)
{
    ssize_t result;
    do
        result = write(STDERR_FILENO, bytes, size);
    while (result < 0 && errno == EINTR);
    /* A line that stderr does not take is lost: there is nowhere else to say so. */
}

__attribute__((format(printf, 2, 3))) static void append(struct line *line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    line->size +=
        (uint32_t)vsnprintf(line->bytes + line->size, LOG_LINE_MAX - line->size, format, arguments);
    va_end(arguments);
    assert(line->size < LOG_LINE_MAX - END_SIZE_MAX);
}

/* RFC 3339, between the two texts; nothing without a clock. */
static void append_time(struct line *line, const struct log *log, const char *before,
                        const char *behind)
{
    if (log->wall_ms == NULL)
        return;
    uint64_t now_ms = log->wall_ms(log->context);
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    if (gmtime_r(&seconds, &utc) != NULL)
        append(line, "%s%04d-%02d-%02dT%02d:%02d:%02d.%03dZ%s", before, utc.tm_year + 1900,
               utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
               (int)(now_ms % 1000), behind);
}

static void append_prefix(struct line *line, const struct log *log, enum log_level level)
{
    static const struct {
        int priority; /* of syslog(3): debug 7, info 6, warning 4, error 3 */
        const char *text, *json;
    } levels[] = {
        {7, "DEBUG", "debug"}, {6, "INFO", "info"}, {4, "WARN", "warn"}, {3, "ERROR", "error"}};
    switch (log->format) {
    case LOG_JOURNAL:
        append(line, "<%d>", levels[level].priority);
        return;
    case LOG_TEXT:
        append_time(line, log, "", " ");
        append(line, "%s ", levels[level].text);
        return;
    case LOG_JSON:
        append(line, "{");
        append_time(line, log, "\"time\":\"", "\",");
        append(line, "\"level\":\"%s\",\"message\":\"", levels[level].json);
        return;
    }
}

/* The size of the well-formed UTF-8 character that begins at `text` (Unicode, table 3-7), or 0.
 * The zero byte at the end of the text belongs to none, so that nothing behind it is read. */
static uint32_t character_size(const uint8_t *text)
{
    uint8_t first = text[0];
    if (first < 0x80)
        return 1;
    uint8_t second_min = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    uint8_t second_max = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    uint32_t size = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (size == 0 || text[1] < second_min || text[1] > second_max)
        return 0;
    for (uint32_t i = 2; i < size; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    return size;
}

/* C0, DEL, and C1, which in UTF-8 is C2 80 to C2 9F. */
static bool is_control(const uint8_t *text)
{
    return text[0] < 0x20 || text[0] == 0x7F || (text[0] == 0xC2 && text[1] < 0xA0);
}

/* The most that a character becomes: two bytes as \xNN, their backslashes escaped once more. */
#define PIECE_SIZE_MAX 10

/* Writes one character of the message, or the escapes that stand for it, to `target`
 * (PIECE_SIZE_MAX). Returns how many bytes of the message that was. */
static uint32_t escape_character(char *target, const uint8_t *text, bool is_json,
                                 uint32_t *ret_size)
{
    uint32_t size = character_size(text), written = 0;
    if (size > 0 && !is_control(text)) {
        if (is_json && (*text == '"' || *text == '\\'))
            target[written++] = '\\';
        memcpy(target + written, text, size);
        *ret_size = written + size;
        return size;
    }
    static const char digits[] = "0123456789abcdef";
    uint32_t count = size == 0 ? 1 : size;
    assert(count <= 2); /* no control character has more */
    for (uint32_t i = 0; i < count; i++) {
        if (is_json)
            target[written++] = '\\';
        target[written++] = '\\';
        target[written++] = 'x';
        target[written++] = digits[text[i] >> 4];
        target[written++] = digits[text[i] & 15];
    }
    *ret_size = written;
    return count;
}

static void append_message(struct line *line, const uint8_t *text)
{
    uint32_t cut = line->size; /* where the mark still fits behind whole characters */
    while (*text != 0) {
        char piece[PIECE_SIZE_MAX];
        uint32_t piece_size = 0;
        text += escape_character(piece, text, line->is_json, &piece_size);
        if (line->size + piece_size > line->size_max) {
            memcpy(line->bytes + cut, CUT_MARK, CUT_MARK_SIZE);
            line->size = cut + CUT_MARK_SIZE;
            return;
        }
        memcpy(line->bytes + line->size, piece, piece_size);
        line->size += piece_size;
        if (line->size + CUT_MARK_SIZE <= line->size_max)
            cut = line->size;
    }
}

uint64_t log_limit_count(struct log_limit *limit, uint64_t now_ns)
{
    uint64_t count = ++limit->untold;
    if (limit->told_ns != 0 && now_ns - limit->told_ns < NS_PER_S)
        return 0;
    *limit = (struct log_limit){.told_ns = now_ns};
    return count;
}

void log_event(const struct log *log, enum log_level level, const char *format, ...)
{
    const char *part = log->part;
    log = log->whole != NULL ? log->whole : log;
    if (level < atomic_load_explicit(&log->level_min, memory_order_relaxed))
        return;
    /* A message that does not fit here does not fit into the line either: the line's end comes
     * first, so a character that is torn at the end of this buffer is never looked at. */
    char message[LOG_LINE_MAX + 1];
    va_list arguments;
    va_start(arguments, format);
    int result = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    const char *end = ends[log->format];
    struct line line;
    line.size = 0;
    line.size_max = LOG_LINE_MAX - (uint32_t)strlen(end);
    line.is_json = log->format == LOG_JSON;
    append_prefix(&line, log, level);
    append_message(&line, (const uint8_t *)part);
    append_message(&line, (const uint8_t *)(result < 0 ? format : message));
    memcpy(line.bytes + line.size, end, strlen(end));
    line.size += (uint32_t)strlen(end);
    if (log->write != NULL)
        log->write(log->context, line.bytes, line.size);
    else
        write_stderr(line.bytes, line.size);
}
