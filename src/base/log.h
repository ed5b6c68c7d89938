/* Messages for the operator: one line an event, to stderr.
 *
 * Under systemd (JOURNAL_STREAM names stderr) a line begins with the journal's priority "<6>" and
 * carries no time of its own; elsewhere it begins with an RFC 3339 UTC time and the level, or is a
 * JSON object {"time", "level", "message"}. Control characters and invalid UTF-8 in the message are
 * escaped as \xNN, so that nothing a client sent can forge a line. Not the write-ahead log: that is store/wal.h. */
#ifndef MINIVAULT_BASE_LOG_H
#define MINIVAULT_BASE_LOG_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JOURNAL, LOG_JSON };

/* Takes one finished line, with its newline, `size` bytes. */
typedef void log_write(void *context, const char *line, uint32_t size);

#define LOG_PART_SIZE 24u

struct log {
    const struct log *whole;          /* a part's: what counts, but for `part`; otherwise NULL */
    char part[LOG_PART_SIZE];         /* in front of its messages */
    _Atomic enum log_level level_min; /* may change while others log: log_set_level */
    enum log_format format;
    uint64_t (*wall_ms)(void *context); /* Unix time; NULL: no time is printed */
    log_write *write;                   /* NULL: to stderr, one write(2) a line */
    void *context;                      /* for both */
    _Atomic uint64_t dropped;           /* a whole's: lines that stderr did not take */
};

/* Opens those of the descriptors 0, 1 and 2 that the caller has closed on /dev/null, so that no file
 * or socket of ours ever gets their number and a message lands in it. Before anything else is
 * opened. Returns 0; -errno: /dev/null cannot be opened, and the program must not go on. */
int log_open_standard_files(void);

/* Logs to stderr from `level_min` on; the format is the journal's where stderr leads there, otherwise text. Without a time: the
 * caller, who has a clock, sets wall_ms and context afterwards. */
void log_init_stderr(struct log *log, enum log_level level_min);

/* The log of a part of the process, such as a shard: its messages go to `whole`, which outlives it,
 * with `name` (at most LOG_PART_SIZE - 1 bytes) in front of them. */
void log_init_part(struct log *ret_log, const struct log *whole, const char *name);

/* Of a whole log, from any thread. */
void log_set_level(struct log *log, enum log_level level_min);

/* How many lines of this log, or of the whole that it is a part of, were lost. From any thread. */
uint64_t log_dropped(const struct log *log);

/* Lines of one kind that clients cause: one a second at most, which stands for all since the last. All
 * zero at first. */
struct log_limit {
    uint64_t told_ns, untold;
};

/* One more, at `now_ns`. Returns how many the line that is due now stands for; 0: none is due. */
uint64_t log_limit_count(struct log_limit *limit, uint64_t now_ns);

/* One event. The message is a sentence without newline that says what happened and, where there is
 * something, what to do about it. A line, prefix and newline included, that would be longer than
 * LOG_LINE_MAX bytes is cut between two characters and ends in "...". */
#define LOG_LINE_MAX 2048
__attribute__((format(printf, 3, 4))) void log_event(const struct log *log, enum log_level level,
                                                     const char *format, ...);

#define log_debug(log, ...) log_event((log), LOG_DEBUG, __VA_ARGS__)
#define log_info(log, ...) log_event((log), LOG_INFO, __VA_ARGS__)
#define log_warn(log, ...) log_event((log), LOG_WARN, __VA_ARGS__)
#define log_error(log, ...) log_event((log), LOG_ERROR, __VA_ARGS__)

#endif
