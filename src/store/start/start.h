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

#include "store/start/load_segments.h"
#include "store/wal/wal_recover.h"

/* The region's parts, one behind the other. */
enum region_part {
    REGION_LOOKUPS,
    REGION_PROOFS,
    REGION_LOG,
    REGION_MANIFEST,
    REGION_MOVER,
    REGION_CHECKPOINT,
    REGION_SCRUB,
    REGION_LARGE,
    REGION_PARTS,
};

/* ---- paths.c: where the shard's state lies, and what must be there before anything is read ---- */

/* Fills state_path and log_directory. Errors: -ENAMETOOLONG. */
int store_name_paths(struct store *store);

/* Takes the directory's superblock over, or opens the shard's own. Errors are logged:
 * superblock_open's, -EINVAL, -EXDEV. */
int store_open_superblock(struct store *store);

/* Whether the shard's files are an older copy, and the operator has accepted that. */
bool store_is_older(const struct store *store);

/* The log's folder and those of its partitions, under names that survive whatever comes. Others may
 * make theirs at the same time. */
int store_make_folders(struct store *store);

/* ---- replay_log.c: what lies in the log. Errors: wal_recover's ---- */

int store_replay_log(struct store *store, const struct wal_options *options,
                     const struct segments_found *found, struct wal_files **ret_files);

/* ---- count_alive.c ---- */

/* Counts what is alive, finds where value files are not what the records name, and removes all
 * other files that nothing names. Errors: the device's, -ENOMEM. */
int store_survey(struct store *store, struct wal_files *files);

/* Once records can be read: removes the value files that nothing names and reports those that are
 * missing. Errors: the device's, the ring's, -ENOMEM. */
int store_match_files(struct store *store);

/* The survey is over, or the store was not opened. */
void store_end_survey(struct store *store);

/* ---- wiring.c: who is told what by whom ---- */

/* The memory of a part in the world's region. */
uint8_t *store_memory(const struct store *store, enum region_part part);

/* Frames that may be decoded at once while they arrive. */
uint32_t store_decode_streams(const struct store_options *options);

/* The log's options: of its recovery, and of the log that is opened. */
void wire_log(const struct store *store, struct wal_options *ret_options);

/* Creates what works on the log and the segments, and connects all parts. The log is open. Errors:
 * those of mover_create, reserve_init and scrub_create. */
int wire_parts(struct store *store, const struct segments_found *found);

#endif
