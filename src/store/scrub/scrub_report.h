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

/* Behind a pass: what it did not meet counts no longer. */
void scrub_report_end_pass(struct scrub_report *report);

/* Counts a finding, and logs what is said of it when it is new. `is_alive`: somebody can be hurt by
 * it. Of the finding: kind, number, origin and offset. */
__attribute__((format(printf, 4, 5))) void scrub_report_damage(struct scrub_report *report,
                                                               const struct scrub_finding *finding,
                                                               bool is_alive, const char *format,
                                                               ...);

/* Nothing of the segment that is alive is damaged: what was found in it can hurt nobody. */
void scrub_report_segment_sound(struct scrub_report *report, uint64_t number);

/* The superblock's copy at `offset` was written anew. */
void scrub_report_mended(struct scrub_report *report, uint64_t offset);

/* The manifest has this edition now, and the checkpoint this number: what was found in former ones
 * was mended. */
void scrub_report_settle(struct scrub_report *report, uint64_t edition, uint64_t checkpoint);

void scrub_report_stats(const struct scrub_report *report, struct scrub_stats *stats);

#endif
