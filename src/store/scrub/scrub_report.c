/* Findings: once each in a table, counted by what they can do, and their lines in the log. */
#include "store/scrub/scrub_report.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
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

/* Counts it. Returns whether it is to be logged. */
static bool note(struct scrub_report *report, struct scrub_finding finding, bool is_alive)
{
    struct scrub_finding *known = find(report, &finding);
    if (known == NULL)
        known = add(report, &finding);
    if (known == NULL)
        return false;
    known->pass = report->passes;
    set_state(report, known, is_alive ? SCRUB_FINDING_ALIVE : SCRUB_FINDING_DEAD);
    bool is_news = is_alive && !known->is_told;
    known->is_told |= is_news;
    return is_news;
}

void scrub_report_incomplete(struct scrub_report *report)
{
    report->is_pass_incomplete = true;
}

void scrub_report_begin_pass(struct scrub_report *report)
{
    report->is_pass_incomplete = false;
}

void scrub_report_end_pass(struct scrub_report *report)
{
    for (uint32_t i = 0; !report->is_pass_incomplete && i < report->count; i++)
        if (report->findings[i].pass != report->passes)
            set_state(report, &report->findings[i], SCRUB_FINDING_GONE);
    report->passes++;
}

/* ---- log files and segments ---- */

void scrub_report_part(struct scrub_report *report, enum scrub_kind kind, uint64_t number,
                       const char *path, uint64_t offset, uint64_t end, bool is_alive,
                       const char *what)
{
    struct scrub_finding finding = {.kind = (uint8_t)kind, .number = number, .offset = offset};
    if (note(report, finding, is_alive))
        log_error(report->log,
                  "%s is damaged from offset %" PRIu64 " to %" PRIu64
                  ": %s. Keys that lie there answer CORRUPT, or may be missing after the next "
                  "start: restore them from a replica or a backup, and check the device",
                  path, offset, end, what);
}

void scrub_report_record(struct scrub_report *report, enum scrub_kind kind, uint64_t number,
                         const char *path, uint64_t offset, bool is_alive, const char *what)
{
    struct scrub_finding finding = {.kind = (uint8_t)kind, .number = number, .offset = offset};
    if (note(report, finding, is_alive))
        log_error(report->log,
                  "%s: the record at offset %" PRIu64
                  " is damaged: %s. Its key answers CORRUPT: write it again, or restore it from a "
                  "replica or a backup, and check the device",
                  path, offset, what);
}

void scrub_report_lost(struct scrub_report *report, uint64_t number, const char *path,
                       uint64_t records)
{
    struct scrub_finding finding = {.kind = SCRUB_SEGMENT, .number = number, .offset = UINT64_MAX};
    if (note(report, finding, true))
        log_error(report->log,
                  "%s: %" PRIu64 " records that should be in it are not: the device has not "
                  "written all that it said. Their keys answer CORRUPT: restore them from a "
                  "replica or a backup, and replace the device",
                  path, records);
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

/* ---- value files ---- */

void scrub_report_value(struct scrub_report *report, struct version version, const char *path,
                        uint64_t offset, bool is_alive, const char *what)
{
    struct scrub_finding finding = {
        .kind = SCRUB_VALUE, .number = version.clock, .origin = version.origin, .offset = offset};
    if (note(report, finding, is_alive))
        log_error(report->log,
                  "%s is damaged at offset %" PRIu64
                  ": %s. What is damaged is never shown: write its key again, or restore it from a "
                  "replica or a backup, and check the device",
                  path, offset, what);
}

/* ---- superblock, manifest, checkpoint ---- */

void scrub_report_meta(struct scrub_report *report, enum scrub_kind kind, uint64_t number,
                       const char *path, uint64_t offset, const char *what)
{
    assert(kind <= SCRUB_CHECKPOINT);
    struct scrub_finding finding = {.kind = (uint8_t)kind, .number = number, .offset = offset};
    if (note(report, finding, true))
        log_error(report->log,
                  "%s is damaged at offset %" PRIu64
                  ": %s. Nothing is lost: it is written anew from memory. Check the device",
                  path, offset, what);
}

static void note_mended(struct scrub_report *report, struct scrub_finding *finding)
{
    static const char *const names[] = {"superblock", "manifest", "checkpoint"};
    assert(finding->kind <= SCRUB_CHECKPOINT);
    set_state(report, finding, SCRUB_FINDING_GONE);
    finding->is_told = false; /* damage to what is there now is news */
    report->mended++;
    log_warn(report->log, "the damaged %s was written anew", names[finding->kind]);
}

void scrub_report_mended(struct scrub_report *report, enum scrub_kind kind, uint64_t number,
                         uint64_t offset)
{
    struct scrub_finding wanted = {.kind = (uint8_t)kind, .number = number, .offset = offset};
    struct scrub_finding *finding = find(report, &wanted);
    if (finding != NULL && finding->state == SCRUB_FINDING_ALIVE)
        note_mended(report, finding);
}

void scrub_report_settle(struct scrub_report *report, uint64_t edition, uint64_t checkpoint)
{
    for (uint32_t i = 0; i < report->count; i++) {
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
