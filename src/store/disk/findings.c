/* Findings: once each in a table, counted by what they can do, and their lines in the log. */
#include "store/disk/findings.h"

#include "base/assert.h"
#include "store/disk/wait.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The offset of a finding that is a whole file: no place in one. */
#define WHOLE_FILE (UINT64_MAX - 1)

int findings_init(struct findings *findings, const struct log *log)
{
    *findings = (struct findings){.log = log};
    findings->all = calloc(FINDINGS_MAX, sizeof *findings->all);
    return findings->all == NULL ? -ENOMEM : 0;
}

void findings_deinit(struct findings *findings)
{
    free(findings->all);
}

/* ---- the table ---- */

static struct finding *find(const struct findings *findings, const struct finding *wanted)
{
    for (uint32_t i = 0; i < findings->count; i++) {
        struct finding *known = &findings->all[i];
        if (known->kind == wanted->kind && known->number == wanted->number &&
            known->offset == wanted->offset && known->origin == wanted->origin)
            return known;
    }
    return NULL;
}

/* What a finding of this state is counted in. */
static uint64_t *count_of(struct findings *findings, uint8_t state)
{
    switch (state) {
    case FINDING_DEAD:
        return &findings->damaged_dead;
    case FINDING_ALIVE:
        return &findings->damaged;
    case FINDING_UNREADABLE:
        return &findings->unreadable;
    default:
        return NULL;
    }
}

static void set_state(struct findings *findings, struct finding *finding, enum finding_state state)
{
    uint64_t *before = count_of(findings, finding->state), *now = count_of(findings, state);
    assert(before == NULL || *before > 0); /* invariant 2 */
    if (before != NULL)
        --*before;
    if (now != NULL)
        ++*now;
    finding->state = (uint8_t)state;
    assert(findings->damaged + findings->damaged_dead + findings->unreadable <=
           findings->count); /* invariant 2 */
}

/* A place in the table, of one that is gone when there is no other. NULL: there is none. */
static struct finding *take_place(struct findings *findings)
{
    assert(findings->count <= FINDINGS_MAX);
    if (findings->count < FINDINGS_MAX)
        return &findings->all[findings->count++];
    for (uint32_t i = 0; i < findings->count; i++)
        if (findings->all[i].state == FINDING_GONE)
            return &findings->all[i];
    return NULL;
}

static struct finding *add(struct findings *findings, const struct finding *finding)
{
    bool was_full = findings->count == FINDINGS_MAX;
    struct finding *added = take_place(findings);
    if (added == NULL)
        return NULL;
    *added = *finding;
    added->state = FINDING_GONE;
    if (findings->count == FINDINGS_MAX && !was_full)
        log_error(findings->log,
                  "%u damaged places are known: what is found from now on may be neither counted "
                  "nor logged. Replace the device",
                  FINDINGS_MAX);
    return added;
}

/* Met now. NULL: there is no place for it. */
static struct finding *meet(struct findings *findings, const struct finding *finding,
                            enum finding_state state)
{
    struct finding *known = find(findings, finding);
    if (known == NULL)
        known = add(findings, finding);
    if (known == NULL)
        return NULL;
    assert(known->pass <= findings->passes);
    known->pass = findings->passes;
    known->is_lasting |= finding->is_lasting;
    set_state(findings, known, known->is_lasting ? FINDING_ALIVE : state);
    return known;
}

/* ---- damage ---- */

bool findings_note(struct findings *findings, const struct finding *finding, bool is_alive)
{
    struct finding *known = meet(findings, finding, is_alive ? FINDING_ALIVE : FINDING_DEAD);
    if (known == NULL || !is_alive || known->is_told)
        return false;
    known->is_told = true;
    return true;
}

void findings_damage(struct findings *findings, const struct finding *finding, bool is_alive,
                     const char *format, ...)
{
    if (!findings_note(findings, finding, is_alive))
        return;
    char line[LOG_LINE_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    log_error(findings->log, "%s", line);
}

void findings_segment_sound(struct findings *findings, uint64_t number)
{
    for (uint32_t i = 0; i < findings->count; i++) {
        struct finding *finding = &findings->all[i];
        if (finding->kind == FINDING_SEGMENT && finding->number == number &&
            finding->state == FINDING_ALIVE && !finding->is_lasting)
            set_state(findings, finding, FINDING_DEAD);
    }
}

/* ---- what cannot be read ---- */

static struct finding whole_file(const struct finding *file)
{
    return (struct finding){
        .kind = file->kind, .number = file->number, .origin = file->origin, .offset = WHOLE_FILE};
}

void findings_unreadable(struct findings *findings, const struct finding *file, const char *path,
                         int error)
{
    assert(error < 0);
    if (disk_is_passing(error))
        return;
    struct finding whole = whole_file(file);
    struct finding *known = meet(findings, &whole, FINDING_UNREADABLE);
    if (known == NULL || known->is_told)
        return;
    known->is_told = true;
    log_error(findings->log,
              "%s cannot be read: %s. It need not be damaged: what lies in it answers with this "
              "error, and is served as soon as it can be read. Look at the file's owner and mode, "
              "and at the kernel's messages",
              path, strerror(-error));
}

void findings_readable(struct findings *findings, const struct finding *file)
{
    if (findings->unreadable == 0)
        return;
    struct finding whole = whole_file(file);
    struct finding *known = find(findings, &whole);
    if (known == NULL || known->state != FINDING_UNREADABLE)
        return;
    set_state(findings, known, FINDING_GONE);
    known->is_told = false; /* should that be over, it is news */
}

/* ---- passes ---- */

void findings_incomplete(struct findings *findings)
{
    findings->is_pass_incomplete = true;
}

void findings_end_pass(struct findings *findings)
{
    for (uint32_t i = 0; i < findings->count; i++) {
        struct finding *finding = &findings->all[i];
        bool is_kept = findings->is_pass_incomplete && finding->state != FINDING_UNREADABLE;
        if (finding->pass != findings->passes && !finding->is_lasting && !is_kept)
            set_state(findings, finding, FINDING_GONE);
    }
    findings->is_pass_incomplete = false;
    findings->passes++;
}

/* ---- what was written anew ---- */

static void note_mended(struct findings *findings, struct finding *finding)
{
    static const char *const names[] = {"superblock", "manifest", "checkpoint"};
    assert(finding->kind <= FINDING_CHECKPOINT);
    set_state(findings, finding, FINDING_GONE);
    finding->is_told = false; /* damage to what is there now is news */
    findings->mended++;
    log_warn(findings->log, "the damaged %s was written anew", names[finding->kind]);
}

void findings_mended(struct findings *findings, uint64_t offset)
{
    struct finding *finding =
        find(findings, &(struct finding){.kind = FINDING_SUPERBLOCK, .offset = offset});
    if (finding != NULL && finding->state == FINDING_ALIVE)
        note_mended(findings, finding);
}

void findings_settle(struct findings *findings, uint64_t edition, uint64_t checkpoint)
{
    for (uint32_t i = 0; findings->damaged > 0 && i < findings->count; i++) {
        struct finding *finding = &findings->all[i];
        bool is_former = (finding->kind == FINDING_MANIFEST && finding->number != edition) ||
                         (finding->kind == FINDING_CHECKPOINT && finding->number != checkpoint);
        if (is_former && finding->state == FINDING_ALIVE)
            note_mended(findings, finding);
    }
}

void findings_stats(const struct findings *findings, struct findings_stats *ret_stats)
{
    *ret_stats = (struct findings_stats){
        .damaged = findings->damaged,
        .damaged_dead = findings->damaged_dead,
        .unreadable = findings->unreadable,
        .mended = findings->mended,
    };
}
