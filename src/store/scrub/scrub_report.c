/* Findings: once each in a table, counted by what they can do, and their lines in the log. */
#include "store/scrub/scrub_report.h"

#include "base/assert.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int scrub_report_init(struct scrub_report *report, const struct log *log)
{
    *report = (struct scrub_report){.log = log};
    report->findings = calloc(SCRUB_FINDINGS_MAX, sizeof *report->findings);
    return report->findings == NULL ? -ENOMEM : 0;
}

void scrub_report_deinit(struct scrub_report *report)
{
    free(report->findings);
}

/* ---- findings ---- */

static struct scrub_finding *find(const struct scrub_report *report,
                                  const struct scrub_finding *finding)
{
    for (uint32_t i = 0; i < report->count; i++) {
        struct scrub_finding *known = &report->findings[i];
        if (known->kind == finding->kind && known->number == finding->number &&
            known->offset == finding->offset && known->origin == finding->origin)
            return known;
    }
    return NULL;
}

static void set_state(struct scrub_report *report, struct scrub_finding *finding,
                      enum scrub_finding_state state)
{
    assert(finding->state != SCRUB_FINDING_ALIVE || report->damaged > 0);     /* invariant 2 */
    assert(finding->state != SCRUB_FINDING_DEAD || report->damaged_dead > 0); /* invariant 2 */
    report->damaged -= finding->state == SCRUB_FINDING_ALIVE;
    report->damaged_dead -= finding->state == SCRUB_FINDING_DEAD;
    finding->state = (uint8_t)state;
    report->damaged += state == SCRUB_FINDING_ALIVE;
    report->damaged_dead += state == SCRUB_FINDING_DEAD;
    assert(report->damaged + report->damaged_dead <= report->count); /* invariant 2 */
}

static struct scrub_finding *add(struct scrub_report *report, const struct scrub_finding *finding)
{
    assert(report->count <= SCRUB_FINDINGS_MAX);
    if (report->count == SCRUB_FINDINGS_MAX)
        return NULL;
    struct scrub_finding *added = &report->findings[report->count++];
    *added = *finding;
    added->state = SCRUB_FINDING_GONE;
    if (report->count == SCRUB_FINDINGS_MAX)
        log_error(report->log,
                  "the scrubber has found %u damaged places: what it finds from now on is neither "
                  "counted nor logged. Replace the device",
                  SCRUB_FINDINGS_MAX);
    return added;
}

void scrub_report_damage(struct scrub_report *report, const struct scrub_finding *finding,
                         bool is_alive, const char *format, ...)
{
    struct scrub_finding *known = find(report, finding);
    if (known == NULL)
        known = add(report, finding);
    if (known == NULL)
        return;
    assert(known->pass <= report->passes);
    known->pass = report->passes;
    set_state(report, known, is_alive ? SCRUB_FINDING_ALIVE : SCRUB_FINDING_DEAD);
    if (!is_alive || known->is_told)
        return;
    known->is_told = true;
    char line[LOG_LINE_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    log_error(report->log, "%s", line);
}

void scrub_report_incomplete(struct scrub_report *report)
{
    report->is_pass_incomplete = true;
}

void scrub_report_end_pass(struct scrub_report *report)
{
    for (uint32_t i = 0; !report->is_pass_incomplete && i < report->count; i++)
        if (report->findings[i].pass != report->passes)
            set_state(report, &report->findings[i], SCRUB_FINDING_GONE);
    report->is_pass_incomplete = false;
    report->passes++;
}

void scrub_report_segment_sound(struct scrub_report *report, uint64_t number)
{
    for (uint32_t i = 0; i < report->count; i++) {
        struct scrub_finding *finding = &report->findings[i];
        if (finding->kind == SCRUB_SEGMENT && finding->number == number &&
            finding->state == SCRUB_FINDING_ALIVE)
            set_state(report, finding, SCRUB_FINDING_DEAD);
    }
}

/* ---- what was written anew ---- */

static void note_mended(struct scrub_report *report, struct scrub_finding *finding)
{
    static const char *const names[] = {"superblock", "manifest", "checkpoint"};
    assert(finding->kind <= SCRUB_CHECKPOINT);
    set_state(report, finding, SCRUB_FINDING_GONE);
    finding->is_told = false; /* damage to what is there now is news */
    report->mended++;
    log_warn(report->log, "the damaged %s was written anew", names[finding->kind]);
}

void scrub_report_mended(struct scrub_report *report, uint64_t offset)
{
    struct scrub_finding *finding =
        find(report, &(struct scrub_finding){.kind = SCRUB_SUPERBLOCK, .offset = offset});
    if (finding != NULL && finding->state == SCRUB_FINDING_ALIVE)
        note_mended(report, finding);
}

void scrub_report_settle(struct scrub_report *report, uint64_t edition, uint64_t checkpoint)
{
    for (uint32_t i = 0; report->damaged > 0 && i < report->count; i++) {
        struct scrub_finding *finding = &report->findings[i];
        bool is_former = (finding->kind == SCRUB_MANIFEST && finding->number != edition) ||
                         (finding->kind == SCRUB_CHECKPOINT && finding->number != checkpoint);
        if (is_former && finding->state == SCRUB_FINDING_ALIVE)
            note_mended(report, finding);
    }
}

void scrub_report_stats(const struct scrub_report *report, struct scrub_stats *stats)
{
    stats->passes = report->passes;
    stats->damaged = report->damaged;
    stats->damaged_dead = report->damaged_dead;
    stats->mended = report->mended;
}
