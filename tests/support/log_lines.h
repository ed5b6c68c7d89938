/* A log that keeps the count of its lines, and the last one. */
#ifndef TESTS_SUPPORT_LOG_LINES_H
#define TESTS_SUPPORT_LOG_LINES_H

#include "base/log.h"

#include <string.h>

struct log_lines {
    struct log log;
    uint32_t count;
    char last[LOG_LINE_MAX];
};

static inline void log_lines_take(void *context, const char *line, uint32_t size)
{
    struct log_lines *lines = context;
    lines->count++;
    memcpy(lines->last, line, size);
    lines->last[size < LOG_LINE_MAX ? size : LOG_LINE_MAX - 1] = '\0';
}

static inline void log_lines_begin(struct log_lines *lines, enum log_level level_min)
{
    *lines = (struct log_lines){
        .log = {.level_min = level_min, .write = log_lines_take, .context = lines}};
}

#endif
