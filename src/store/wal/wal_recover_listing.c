/* Which files must be there: what the newest header lists, and what a clean shutdown told. */
#include "store/wal/wal_recover_internal.h"

#include <inttypes.h>

void wal_recover_note_header(struct wal_recovery *recovery, const struct log_file_header *header,
                             const uint8_t *block)
{
    if (header->state == WAL_HEADER_ACTIVE && header->last_before < recovery->options->base)
        return; /* of another log: note_before_base */
    recovery->lost = max_u64(recovery->lost, header->lost);
    recovery->last_known = max_u64(recovery->last_known, header->durable);
    recovery->number_known = max_u64(recovery->number_known, header->number_durable);
    recovery->number_known = max_u64(recovery->number_known, header->number);
    if (header->state != WAL_HEADER_ACTIVE || header->number <= recovery->newest.number)
        return;
    recovery->newest = *header;
    wal_listing_decode(block, &recovery->listing);
}

static bool is_segment(const struct log_file *segment)
{
    return segment->state == LOG_FILE_SEALED && !segment->is_discarded;
}

/* Of a log that was emptied and removed before this one began: put back by somebody. */
static void note_before_base(struct wal_recovery *recovery)
{
    const struct wal_files *files = &recovery->state->files;
    for (uint32_t file = 0; file < files->count; file++) {
        struct log_file *segment = files->table[file];
        if (!is_segment(segment) || segment->header.last_before >= recovery->options->base)
            continue;
        segment->is_dead = true;
        log_warn(recovery->log,
                 "%s is of a log that was here before and was emptied: nothing of it counts",
                 segment->path);
    }
}

void wal_recover_note_dead(struct wal_recovery *recovery)
{
    const struct wal_files *files = &recovery->state->files;
    note_before_base(recovery);
    if (recovery->listing.flags != WAL_LISTING)
        return;
    for (uint32_t file = 0; file < files->count; file++) {
        struct log_file *segment = files->table[file];
        segment->is_dead |= is_segment(segment) &&
                            segment->header.number < recovery->newest.number &&
                            !wal_listing_has(&recovery->listing, segment->header.number);
    }
}

/* As a segment, or by its mark. */
static bool is_there(const struct wal_recovery *recovery, uint64_t number)
{
    const struct wal_files *files = &recovery->state->files;
    for (uint32_t file = 0; file < files->count; file++) {
        const struct log_file *segment = files->table[file];
        if (segment->mark == number || (is_segment(segment) && segment->header.number == number))
            return true;
    }
    return false;
}

/* The newest header itself is gone: files that its list need not name may have gone before it. */
static bool is_stale(const struct wal_recovery *recovery)
{
    const struct wal_files *files = &recovery->state->files;
    uint64_t newest = recovery->number_known;
    for (uint32_t file = 0; file < files->count; file++)
        newest = max_u64(newest, files->table[file]->header.number);
    return newest > recovery->newest.number;
}

static void note_missing(struct wal_recovery *recovery, uint64_t number)
{
    uint64_t last = recovery->newest.last_before;
    if (is_stale(recovery)) {
        log_warn(recovery->log,
                 "%s: the log segment with the number %" PRIu64
                 " is gone; whether it was needed is not known, since the newest header is damaged",
                 recovery->options->directory, number);
        return;
    }
    log_error(recovery->log,
              "%s: the log segment with the number %" PRIu64
              " is gone; it held writes up to log position %" PRIu64
              " at most. Put its file (wal-...) back while the server is stopped, if it is "
              "somewhere",
              recovery->options->directory, number, last);
    recovery->found.damaged_batches++;
    recovery->lost = max_u64(recovery->lost, max_u64(last, 1));
}

static void judge_listing(struct wal_recovery *recovery, uint64_t proof)
{
    const struct log_file_header *newest = &recovery->newest;
    proof = max_u64(proof, recovery->last_known);
    bool is_proved = newest->last_before > 0 && proof >= newest->last_before;
    for (uint32_t i = 0; i < recovery->listing.count; i++) {
        uint64_t number = recovery->listing.numbers[i];
        bool must_be = number <= newest->number_durable || is_proved;
        if (must_be && !is_there(recovery, number))
            note_missing(recovery, number);
    }
}

void wal_recover_judge_losses(struct wal_recovery *recovery, uint64_t proof)
{
    struct wal_recovered *found = &recovery->found;
    uint64_t known = recovery->last_known;
    found->damaged_batches += recovery->lost > 0;
    judge_listing(recovery, proof);
    if (found->last_position >= known)
        return;
    log_error(recovery->log,
              "%s: the log ends at position %" PRIu64 ", but had reached %" PRIu64
              " at least: its newest file is gone, or was cut or overwritten",
              recovery->options->directory, found->last_position, known);
    found->damaged_batches++;
    recovery->lost = max_u64(recovery->lost, known);
}
