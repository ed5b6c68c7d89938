/* Prints findings, failures and progress, and counts the damage that decides the exit code. */
#include "admin/read/admin_report.h"

#include "admin/read/admin_files.h"
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

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

void report_say(struct admin_report *report, enum report_kind kind, const char *name,
                uint64_t offset, const char *format, ...)
{
    static const char *const marks[] = {[REPORT_DAMAGE] = "",
                                        [REPORT_STOP] = "stop: ",
                                        [REPORT_NOTE] = "note: ",
                                        [REPORT_REFUSAL] = "stop: "};
    bool is_note = kind == REPORT_NOTE;
    report->is_refused |= kind == REPORT_REFUSAL;
    report->is_stopped |= kind == REPORT_REFUSAL || kind == REPORT_STOP;
    if (report->is_silent)
        return;
    report->damages += kind == REPORT_DAMAGE || kind == REPORT_STOP;
    report->notes += is_note;
    if (is_note && !report->shows_notes)
        return;
    va_list arguments;
    show_name(report->findings, name);
    (void)fprintf(report->findings, ": %" PRIu64 ": %s", offset, marks[kind]);
    va_start(arguments, format);
    (void)vfprintf(report->findings, format, arguments);
    va_end(arguments);
    (void)fputc('\n', report->findings);
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

int report_cannot(struct admin_report *report, int directory, const char *name, const char *what,
                  int error)
{
    bool is_inside = directory != ADMIN_HERE && strcmp(name, ".") != 0;
    char owner[ADMIN_USER_SIZE], user[ADMIN_USER_SIZE], users[4 * ADMIN_USER_SIZE] = "";
    if (error == -EACCES || error == -EPERM) {
        admin_owner(directory, name, owner);
        admin_user(user);
        (void)snprintf(users, sizeof users, "; it belongs to %s, this is run as %s: run it as %s",
                       owner, user, owner);
    }
    report_failure(report, "%s%s%s cannot be %s: %s%s", report->data, is_inside ? "/" : "",
                   is_inside ? name : "", what, strerror(-error), users);
    return error;
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
