/* Opening and closing a store: the steps, and what they tell each other.
 *
 *     superblock -> manifest -> checkpoint -> directories of newer chunks   load_segments.c
 *       -> the log                                                          replay_log.c
 *       -> a pass over the index: what is alive where -> orphans go         count_alive.c
 *       -> the parts are connected                                          wiring.c
 *
 * The files of this folder fill struct store; nobody else looks into it meanwhile. */
#ifndef MINIVAULT_STORE_START_H
#define MINIVAULT_STORE_START_H

#include "store/store_internal.h"
#include "store/wal/wal_recover.h"

/* What a start has found so far, beside what is in the store's parts. */
struct recovered {
    uint64_t sequence_last; /* of chunks */
    uint64_t clock_ceiling;
    uint64_t log_last;        /* position that the log had reached at least */
    uint64_t segment_records; /* in directories that the checkpoint did not have */
    uint64_t bytes_read;
    uint64_t damaged_segments;
    uint64_t orphans;
    uint64_t missing_files;
    uint16_t doubtful_files[STORE_PARTITIONS]; /* slots whose value files are to be matched */
};

/* The region's slices, one behind the other. */
struct layout {
    uint64_t fetches, log, manifest, mover, checkpoint, scrub, large;
    uint64_t size;
};
struct layout lay_out(const struct store_options *options);

/* ---- paths.c: where the shard's state lies, and what must be there before anything is read ---- */

/* Fills state_path and log_directory. Errors: -ENAMETOOLONG. */
int store_name_paths(struct store *store);

/* Takes the directory's superblock over, or opens the shard's own. Errors are logged:
 * superblock_open's, -EINVAL, -EXDEV. */
int store_open_superblock(struct store *store);

/* The log's folder and those of its partitions, under names that survive whatever comes. Others may
 * make theirs at the same time. */
int store_make_folders(struct store *store);

/* ---- load_segments.c: what lies in segments ---- */

/* `memory`: MANIFEST_MEMORY_SIZE bytes of the region, `note`: how far the log knows the manifest to
 * have come. Errors: manifest_open's, checkpoint_load's, segment_scan's. */
int store_open_manifest(struct store *store, const struct wal_note *note, uint8_t *memory);
int store_recover_segments(struct store *store);

/* Once the log's last position is known: what segments have lost is in doubt up to there. */
int store_judge_losses(struct store *store, uint64_t last_position);

/* ---- replay_log.c: what lies in the log. Errors: wal_recover's ---- */

int store_replay_log(struct store *store, const struct wal_options *options,
                     struct wal_state **ret_state);

/* ---- count_alive.c ---- */

/* Counts what is alive, finds where value files are not what the records name, and removes all
 * other files that nothing names. Errors: the device's, -ENOMEM. */
int store_survey(struct store *store, struct wal_state *state);

/* Once records can be read: removes the value files that nothing names and reports those that are
 * missing. Errors: the device's, the ring's, -ENOMEM. */
int store_match_files(struct store *store);

/* ---- wiring.c: who is told what by whom ---- */

/* The log's options: of its recovery, and of the log that is opened. */
void wire_log(const struct store *store, struct wal_options *ret_options);

/* Creates what works on the log and the segments, and connects all parts. The log is open. Errors:
 * those of mover_create, reserve_init and scrub_create. */
int wire_parts(struct store *store);

#endif
