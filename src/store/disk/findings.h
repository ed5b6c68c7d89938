/* What is known to be wrong with the files of a shard, whoever has found it: a start, a get, the
 * mover, the scrubber. A finding is logged once and counted at once, and as long as it is met,
 * however often that is. It calls nobody.
 *
 * A place is damaged when its bytes are wrong or missing. A file that cannot be read (a permission,
 * a device that is busy failing) is another matter: it may be as good as ever, and is tried again
 * with every request.
 *
 * Invariants:
 *   1. Kind, number, origin and offset name a finding: there is one of them.
 *   2. `damaged` is the number of findings that are ALIVE, `damaged_dead` of those that are DEAD,
 *      `unreadable` of those that are UNREADABLE.
 *   3. What is GONE is not forgotten as long as the table has room, but for is_told of what was
 *      written anew, or can be read again. */
#ifndef MINIVAULT_STORE_DISK_FINDINGS_H
#define MINIVAULT_STORE_DISK_FINDINGS_H

#include "base/log.h"

#include <stdbool.h>
#include <stdint.h>

#define FINDINGS_MAX 4096u

enum finding_kind {
    FINDING_SUPERBLOCK,
    FINDING_MANIFEST,
    FINDING_CHECKPOINT,
    FINDING_LOG,
    FINDING_SEGMENT,
    FINDING_VALUE,
};

enum finding_state {
    FINDING_GONE, /* was not met again, was written anew, or can be read again */
    FINDING_DEAD, /* nobody can be hurt by it */
    FINDING_ALIVE,
    FINDING_UNREADABLE,
};

struct finding {
    uint64_t number; /* of the file or checkpoint; of the manifest its edition; of a value file the
                        clock in its name */
    uint64_t offset;
    uint64_t pass;   /* the last one that met it */
    uint32_t origin; /* of a value file: in its name */
    uint8_t kind;
    uint8_t state;
    bool is_told;
    bool is_lasting; /* a loss that only a start finds: it counts as long as the process lives */
};

struct findings {
    const struct log *log;
    struct finding *all; /* FINDINGS_MAX */
    uint32_t count;
    uint64_t passes; /* of the scrubber, over everything */
    uint64_t damaged;
    uint64_t damaged_dead;
    uint64_t unreadable;
    uint64_t mended;
    bool is_pass_incomplete; /* something could not be read just now */
};

/* Errors: -ENOMEM. */
int findings_init(struct findings *findings, const struct log *log);
void findings_deinit(struct findings *findings);

/* Counts a damaged place; `is_alive`: somebody can be hurt by it. Of the finding: kind, number,
 * origin, offset, is_lasting. Returns whether it is worth a line: it is new. */
bool findings_note(struct findings *findings, const struct finding *finding, bool is_alive);

/* The same, and logs what is said of it when it is new. */
__attribute__((format(printf, 4, 5))) void findings_damage(struct findings *findings,
                                                           const struct finding *finding,
                                                           bool is_alive, const char *format, ...);

/* The file could not be opened or read, with this error: logged and counted once. Of `file`: kind,
 * number, origin. What passes by itself (disk_is_passing) is neither. */
void findings_unreadable(struct findings *findings, const struct finding *file, const char *path,
                         int error);

/* The file was read. As good as free when all can be. */
void findings_readable(struct findings *findings, const struct finding *file);

/* Something could not be read just now: this pass takes nothing back. */
void findings_incomplete(struct findings *findings);

/* Behind a pass over everything: what it did not meet counts no longer. */
void findings_end_pass(struct findings *findings);

/* Nothing of the segment that is alive is damaged: what was found in it can hurt nobody. */
void findings_segment_sound(struct findings *findings, uint64_t number);

/* The superblock's copy at `offset` was written anew. */
void findings_mended(struct findings *findings, uint64_t offset);

/* The manifest has this edition now, and the checkpoint this number: what was found in former ones
 * was mended. */
void findings_settle(struct findings *findings, uint64_t edition, uint64_t checkpoint);

struct findings_stats {
    uint64_t damaged;      /* places where somebody can be hurt */
    uint64_t damaged_dead; /* and where nobody can */
    uint64_t unreadable;   /* files */
    uint64_t mended;       /* places that were written anew since the start */
};
void findings_stats(const struct findings *findings, struct findings_stats *ret_stats);

#endif
