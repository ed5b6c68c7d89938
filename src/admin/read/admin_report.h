/* What a tool says besides its result: findings, one a line, and progress.
 *
 *   FILE: OFFSET: what, what it means            damage
 *   FILE: OFFSET: note: what, what it means      nothing is lost
 *   FILE: OFFSET: stop: what, what it means      damage with which a server refuses to start
 *
 * FILE is relative to the data directory; control characters in it are escaped as \xNN. */
#ifndef MINIVAULT_ADMIN_ADMIN_REPORT_H
#define MINIVAULT_ADMIN_ADMIN_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum admin_exit {
    ADMIN_EXIT_SOUND = 0,
    ADMIN_EXIT_DAMAGED = 1,
    ADMIN_EXIT_USAGE = 2,
    ADMIN_EXIT_CANNOT = 3, /* not opened, in use, foreign, of another format; out of memory */
};

enum report_kind {
    REPORT_DAMAGE,
    REPORT_STOP,    /* damage with which a server refuses to start */
    REPORT_NOTE,    /* nothing is lost */
    REPORT_REFUSAL, /* what only another release, or another directory, can explain */
};

struct admin_report {
    FILE *findings;
    bool shows_notes;
    bool is_silent; /* findings are neither shown nor counted: they were, on an earlier walk */
    uint64_t damages;
    uint64_t notes;
    bool is_refused; /* something is not ours or of another format: nothing can be said of it */
    bool is_stopped; /* a server refuses to start */
    const char *command;
    const char *data; /* the directory, once it is known */
    bool is_quiet;    /* no progress */
    uint64_t planned_bytes;
    uint64_t done_bytes;
    uint64_t told_ns;
};

/* The time of the first line of progress is counted from here. */
void report_init(struct admin_report *report, const char *command, bool is_quiet, FILE *findings,
                 bool shows_notes);

/* A finding at `offset` of the file `name`. */
__attribute__((format(printf, 5, 6))) void report_say(struct admin_report *report,
                                                      enum report_kind kind, const char *name,
                                                      uint64_t offset, const char *format, ...);

/* The tool itself cannot go on: a line on stderr. */
__attribute__((format(printf, 2, 3))) void report_failure(struct admin_report *report,
                                                          const char *format, ...);

/* The file ("." is the directory itself; ADMIN_HERE: the data directory) cannot be "opened", "listed",
 * ...; of one that this user may not read, whose it is. Returns `error`. */
int report_cannot(struct admin_report *report, int directory, const char *name, const char *what,
                  int error);

/* So much more is going to be read. */
void report_plan(struct admin_report *report, uint64_t bytes);

/* So much more of `name` was read: once a second a line on stderr. */
void report_progress(struct admin_report *report, uint64_t bytes, const char *name);

enum admin_exit report_exit(const struct admin_report *report);

#endif
