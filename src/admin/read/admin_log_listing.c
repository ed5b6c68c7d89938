#include "admin/read/admin_log_listing.h"

#include "base/assert.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define FOLDER_SIZE 32u

int listing_init(struct log_listing *listing, uint32_t files)
{
    *listing = (struct log_listing){.capacity = 2 * files};
    listing->numbers = calloc((size_t)listing->capacity + 1, sizeof *listing->numbers);
    return listing->numbers == NULL ? -ENOMEM : 0;
}

void listing_deinit(struct log_listing *listing)
{
    free(listing->numbers);
    listing->numbers = NULL;
}

static bool is_older(const struct wal_note *note, const struct wal_note *other)
{
    return note->major < other->major ||
           (note->major == other->major && note->minor < other->minor);
}

void listing_take_header(struct log_listing *listing, const struct log_file_header *header,
                         const uint8_t *block)
{
    if (header->state == WAL_HEADER_ACTIVE && header->last_before < listing->base)
        return; /* of a log that was here before */
    listing->lost = max_u64(listing->lost, header->lost);
    listing_take_known(listing, header->durable, max_u64(header->number, header->number_durable));
    if (is_older(&listing->note, &header->note))
        listing->note = header->note;
    if (header->state != WAL_HEADER_ACTIVE || header->number <= listing->newest.number)
        return;
    listing->newest = *header;
    wal_listing_decode(block, &listing->listing);
}

void listing_take_known(struct log_listing *listing, uint64_t position, uint64_t number)
{
    listing->last_known = max_u64(listing->last_known, position);
    listing->number_known = max_u64(listing->number_known, number);
}

void listing_take_number(struct log_listing *listing, uint64_t number)
{
    assert(listing->count < listing->capacity);
    listing->numbers[listing->count++] = number;
    listing_take_known(listing, 0, number);
}

bool listing_is_dead(const struct log_listing *listing, uint64_t number)
{
    return listing->listing.flags == WAL_LISTING && number < listing->newest.number &&
           !wal_listing_has(&listing->listing, number);
}

static bool is_there(const struct log_listing *listing, uint64_t number)
{
    for (uint32_t i = 0; i < listing->count; i++)
        if (listing->numbers[i] == number)
            return true;
    return false;
}

static void note_missing(const struct log_listing *listing, struct admin *admin, const char *folder,
                         uint64_t number)
{
    if (listing->number_known > listing->newest.number)
        report_note(&admin->report, folder, 0,
                    "the segment with the number %" PRIu64 " is gone, whether it was needed is not "
                    "known since the newest header is damaged",
                    number);
    else
        report_damage(&admin->report, folder, 0,
                      "the segment with the number %" PRIu64 " is gone, it held writes up to log "
                      "position %" PRIu64 " at most: put its file (wal-...) back",
                      number, listing->newest.last_before);
}

static void judge_listed(const struct log_listing *listing, struct admin *admin, const char *folder,
                         uint64_t proof)
{
    const struct log_file_header *newest = &listing->newest;
    bool is_proved = newest->last_before > 0 && proof >= newest->last_before;
    for (uint32_t i = 0; i < listing->listing.count; i++) {
        uint64_t number = listing->listing.numbers[i];
        bool must_be = number <= newest->number_durable || is_proved;
        if (must_be && !is_there(listing, number))
            note_missing(listing, admin, folder, number);
    }
}

/* The log notes how far the manifest had come. */
static void judge_manifest(const struct log_listing *listing, struct admin *admin,
                           const struct admin_shard *shard)
{
    char name[64];
    if (shard->manifest.major == 0 || !is_older(&shard->manifest, &listing->note))
        return;
    (void)snprintf(name, sizeof name, "%smanifest-%" PRIu32, shard->folder, shard->number);
    report_damage(&admin->report, name, 0,
                  "it is older than the log says (edition %" PRIu64 " with %" PRIu64
                  " blocks, which had come to edition %" PRIu64 " with %" PRIu64
                  "): put back the one that was there, restore the directory from a backup, or "
                  "start once with -accept-loss",
                  shard->manifest.major, shard->manifest.minor, listing->note.major,
                  listing->note.minor);
}

void listing_judge(const struct log_listing *listing, struct admin *admin,
                   const struct admin_shard *shard, uint64_t proof)
{
    const struct superblock *superblock = &shard->superblock;
    uint64_t last = shard->log.scan.last_position;
    char folder[FOLDER_SIZE];
    (void)snprintf(folder, sizeof folder, "%slog", shard->folder);
    judge_manifest(listing, admin, shard);
    if (listing->lost > superblock->damage_accepted)
        report_damage(&admin->report, folder, 0,
                      "an earlier start found writes up to log position %" PRIu64
                      " lost with files "
                      "that are gone, keys last written before it answer CORRUPT until they are "
                      "written again, or start once with -accept-loss",
                      listing->lost);
    judge_listed(listing, admin, folder, max_u64(proof, listing->last_known));
    if (last < listing->last_known && listing->lost < listing->last_known)
        report_damage(&admin->report, folder, 0,
                      "the log ends at position %" PRIu64 " but had reached %" PRIu64
                      " at least, its newest file is gone or was cut or overwritten: put it back "
                      "or restore the directory from a backup",
                      last, listing->last_known);
}
