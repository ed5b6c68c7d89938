/* The survey of a log, before it is scanned: what each of its files is, which of them count, and
 * after the scan, what is missing. No I/O of its own: recovery and minivault-admin bring each file's
 * first blocks, and hear of everything through scan->note.
 *
 *   header  mark                 the file
 *   sound   none, or older       has records
 *   sound   newer, or as old     is a spare
 *   zeros   sound                is a spare
 *   zeros   none                 was never put to use
 *   bad     whatever             has records, when its batches say so (wal_scan_infer); otherwise it
 *                                is a spare with a mark, and unknown without
 *
 * Where header and mark say that there is nothing, but the first batch is of a later use, the
 * header was lost: it counts as bad.
 *
 * The newest sound header lists the files that must be there, each with records or by its mark. An
 * older file that it does not list holds nothing that is alive: it is dead, and is not read.
 *
 * Invariants:
 *   1. `newest` is the sound header with the greatest number, `listing` its list.
 *   2. Behind wal_survey_order the first scan->file_count files count, ascending in number, and
 *      the others follow.
 *   3. last_known, number_known and lost only grow. */
#ifndef MINIVAULT_STORE_WAL_SURVEY_H
#define MINIVAULT_STORE_WAL_SURVEY_H

#include "store/wal/wal_scan.h"

#define WAL_HEAD_SIZE ((size_t)3 * WAL_BLOCK_SIZE) /* header, mark, and the first batch's begin */

struct wal_survey {
    /* The caller's. */
    struct wal_scan *scan; /* files, context, load, note */
    uint32_t file_count;   /* of scan->files, all that there are */
    uint64_t directory_id;
    uint32_t log_id;
    uint64_t base; /* position above which the log begins */
    /* What was found. */
    struct log_file_header newest; /* number 0: there is none */
    struct wal_listing listing;
    uint64_t lost;         /* greatest position that is lost with whole files, or the end */
    uint64_t last_known;   /* the log had reached this position */
    uint64_t number_known; /* and a file with this number had its header */
    uint64_t damages;      /* whole files, and ends */
    uint64_t inferred;     /* headers */
    bool is_unsure;        /* a whole file is beyond reading */
};

/* What is known from elsewhere of how far the log had come. */
void wal_survey_take_known(struct wal_survey *survey, uint64_t position, uint64_t number);

/* Finds out what scan->files[index] is, from the WAL_HEAD_SIZE bytes at `head`: zeros where the
 * file has ended, no zeros where the device does not give them. Errors: -EPROTONOSUPPORT, -EXDEV
 * (both noted), scan->load's. */
int wal_survey_file(struct wal_survey *survey, uint32_t index, const uint8_t *head);

/* All files are known: puts those that count first, and sets scan->file_count. */
void wal_survey_order(struct wal_survey *survey);

/* After the scan, which ended at last_position and proved that everything up to `proof` was durable
 * in the newest generation: what is gone with whole files, or with the end of the log. */
void wal_survey_judge_losses(struct wal_survey *survey, uint64_t last_position, uint64_t proof);

#endif
