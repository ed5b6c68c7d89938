/* What the scrubber has found: logged once and counted as long as it is met, however often it is
 * read again. It calls nobody.
 *
 * Invariants:
 *   1. Kind, number, origin and offset name a finding: there is one of them.
 *   2. `damaged` is the number of findings that are ALIVE, `damaged_dead` of those that are DEAD.
 *   3. What is GONE is not forgotten, but for is_told of what was written anew. */
#ifndef MINIVAULT_STORE_SCRUB_REPORT_H
#define MINIVAULT_STORE_SCRUB_REPORT_H

#include "store/scrub/scrub.h"

#define SCRUB_FINDINGS_MAX 4096u

enum scrub_kind {
    SCRUB_SUPERBLOCK,
    SCRUB_MANIFEST,
    SCRUB_CHECKPOINT,
    SCRUB_LOG,
    SCRUB_SEGMENT,
    SCRUB_VALUE,
};

enum scrub_finding_state {
    SCRUB_FINDING_GONE, /* was not met again, or was written anew */
    SCRUB_FINDING_DEAD, /* nobody can be hurt by it */
    SCRUB_FINDING_ALIVE,
};

struct scrub_finding {
    uint64_t number; /* of the file or checkpoint; of the manifest its edition; of a value file its
                        version */
    uint64_t offset;
    uint64_t pass; /* the last one that met it */
    uint32_t origin;
    uint8_t kind;
    uint8_t state;
    bool is_told;
};

struct scrub_report {
    const struct log *log;
    struct scrub_finding *findings; /* SCRUB_FINDINGS_MAX */
    uint32_t count;
    uint64_t passes;
    uint64_t damaged;
    uint64_t damaged_dead;
    uint64_t mended;
    bool is_pass_incomplete; /* something could not be read just now */
};

/* Errors: -ENOMEM. */
int scrub_report_init(struct scrub_report *report, const struct log *log);
void scrub_report_deinit(struct scrub_report *report);

/* Something could not be read just now: this pass takes nothing back. */
void scrub_report_incomplete(struct scrub_report *report);

void scrub_report_begin_pass(struct scrub_report *report);

/* Behind a pass: what it did not meet counts no longer. */
void scrub_report_end_pass(struct scrub_report *report);

/* [offset, end) of a log file or segment cannot be used, and nobody knows what was in there. */
void scrub_report_part(struct scrub_report *report, enum scrub_kind kind, uint64_t number,
                       const char *path, uint64_t offset, uint64_t end, bool is_alive,
                       const char *what);

/* `is_alive`: the index leads to the record, and to nothing newer. */
void scrub_report_record(struct scrub_report *report, enum scrub_kind kind, uint64_t number,
                         const char *path, uint64_t offset, bool is_alive, const char *what);

/* The index has `records` more in the segment than were found there. */
void scrub_report_lost(struct scrub_report *report, uint64_t number, const char *path,
                       uint64_t records);

/* Nothing of the segment that is alive is damaged: what was found in it can hurt nobody. */
void scrub_report_segment_sound(struct scrub_report *report, uint64_t number);

void scrub_report_value(struct scrub_report *report, struct version version, const char *path,
                        uint64_t offset, bool is_alive, const char *what);

/* What is in memory, and is going to be written anew. */
void scrub_report_meta(struct scrub_report *report, enum scrub_kind kind, uint64_t number,
                       const char *path, uint64_t offset, const char *what);
void scrub_report_mended(struct scrub_report *report, enum scrub_kind kind, uint64_t number,
                         uint64_t offset);

/* The manifest has this edition now, and the checkpoint this number: what was found in former ones
 * was mended. */
void scrub_report_settle(struct scrub_report *report, uint64_t edition, uint64_t checkpoint);

static inline bool scrub_report_has_damage(const struct scrub_report *report)
{
    return report->damaged > 0;
}

void scrub_report_stats(const struct scrub_report *report, struct scrub_stats *stats);

#endif
