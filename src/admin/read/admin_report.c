/* Prints findings, failures and progress, and counts the damage that decides the exit code. */
#include "admin/read/admin_report.h"

#include "admin/read/admin_files.h"
#include "base/units.h"

#include <inttypes.h>
#include <stdarg.h>

void report_init(struct admin_report *report, const char *command, bool is_quiet, FILE *findings,
                 bool shows_notes)
{
    *report = (struct admin_report){
        .findings = findings,
        .shows_notes = shows_notes,
        .command = command,
        .is_quiet = is_quiet,
        .told_ns = admin_now_ns(),
    };
}

/* Names of files that are not ours may be anything: none of them makes a line of its own. */
static void show_name(FILE *target, const char *name)
{
    for (; *name != '\0'; name++) {
        unsigned char byte = (unsigned char)*name;
        if (byte < 0x20 || byte == 0x7F)
            (void)fprintf(target, "\\x%02x", byte);
        else
            (void)fputc(byte, target);
    }
}

static void show(struct admin_report *report, const char *name, uint64_t offset, const char *kind,
                 const char *format, va_list arguments)
{
    show_name(report->findings, name);
    (void)fprintf(report->findings, ": %" PRIu64 ": %s", offset, kind);
    (void)vfprintf(report->findings, format, arguments);
    (void)fputc('\n', report->findings);
}

void report_damage(struct admin_report *report, const char *name, uint64_t offset,
                   const char *format, ...)
{
    if (report->is_silent)
        return;
    va_list arguments;
    va_start(arguments, format);
    show(report, name, offset, "", format, arguments);
    va_end(arguments);
    report->damages++;
}

void report_note(struct admin_report *report, const char *name, uint64_t offset, const char *format,
                 ...)
{
    if (report->is_silent)
        return;
    va_list arguments;
    va_start(arguments, format);
    if (report->shows_notes)
        show(report, name, offset, "note: ", format, arguments);
    va_end(arguments);
    report->notes++;
}

void report_refuse(struct admin_report *report, const char *name, uint64_t offset,
                   const char *format, ...)
{
    report->is_refused = true;
    if (report->is_silent)
        return;
    va_list arguments;
    va_start(arguments, format);
    show(report, name, offset, "", format, arguments);
    va_end(arguments);
}

void report_failure(struct admin_report *report, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fputs("minivault-admin: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    report->is_refused = true;
}

void report_plan(struct admin_report *report, uint64_t bytes)
{
    report->planned_bytes += bytes;
}

void report_progress(struct admin_report *report, uint64_t bytes, const char *name)
{
    report->done_bytes += bytes;
    uint64_t now_ns = admin_now_ns();
    if (report->is_quiet || now_ns - report->told_ns < NS_PER_S)
        return;
    report->told_ns = now_ns;
    (void)fprintf(stderr, "minivault-admin: %s: %" PRIu64 " of %" PRIu64 " MiB, at %s\n",
                  report->command, report->done_bytes / MIB,
                  max_u64(report->planned_bytes, report->done_bytes) / MIB, name);
}

enum admin_exit report_exit(const struct admin_report *report)
{
    if (report->is_refused)
        return ADMIN_EXIT_CANNOT;
    return report->damages > 0 ? ADMIN_EXIT_DAMAGED : ADMIN_EXIT_SOUND;
}
