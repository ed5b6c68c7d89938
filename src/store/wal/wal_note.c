/* What the readers of the log find, in words: for the server's log and for minivault-admin. */
#include "store/wal/wal_scan.h"

#include "base/assert.h"
#include "store/memory/index.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum wal_note_weight wal_note_weight(const struct wal_scan_note *note)
{
    switch (note->kind) {
    case WAL_NOTE_UNKNOWN:
    case WAL_NOTE_FORMAT:
    case WAL_NOTE_FOREIGN:
        return WAL_NOTE_REFUSES;
    case WAL_NOTE_COPY:
    case WAL_NOTE_BEFORE_BASE:
    case WAL_NOTE_MAY_MISS:
        return WAL_NOTE_WARNS;
    default:
        return WAL_NOTE_DAMAGES;
    }
}

__attribute__((format(printf, 2, 3))) static void write_text(char *target, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(target, WAL_NOTE_SIZE, format, arguments);
    va_end(arguments);
}

/* Of the log as a whole. */
static void describe_loss(const struct wal_scan_note *note, char *ret_text)
{
    if (note->kind == WAL_NOTE_MISSING)
        write_text(ret_text,
                   "the log file with the number %" PRIu64 " is gone, it held writes up to log "
                   "position %" PRIu64 " at most: put it (wal-...) back",
                   note->number, note->position_last);
    else if (note->kind == WAL_NOTE_MAY_MISS)
        write_text(ret_text,
                   "the log file with the number %" PRIu64 " is gone, whether it was needed is not "
                   "known since the newest header is damaged",
                   note->number);
    else
        write_text(ret_text,
                   "the log ends at position %" PRIu64 " but had reached %" PRIu64
                   " at least, its newest file is gone or was cut or overwritten: put it back or "
                   "restore the directory from a backup",
                   note->position_first, note->position_last);
}

static void describe_refusal(const struct wal_scan_note *note, char *ret_text)
{
    if (note->kind == WAL_NOTE_UNKNOWN)
        write_text(ret_text,
                   "the record has format %u and flags %02x, which this program does not know: use "
                   "the release that wrote it, or a newer one",
                   note->format, note->flags);
    else if (note->kind == WAL_NOTE_FORMAT)
        write_text(ret_text,
                   "it has format %" PRIu16 ", this program knows format %d: use the release that "
                   "wrote it",
                   note->header->format, WAL_FORMAT);
    else
        write_text(ret_text,
                   "it belongs to log %" PRIu32 " of the data directory %016" PRIx64
                   ", move it back where it came from",
                   note->header->log_id, note->header->directory_id);
}

void wal_note_describe(const struct wal_scan_note *note, char *ret_text)
{
    switch (note->kind) {
    case WAL_NOTE_DAMAGE:
        write_text(ret_text,
                   "%s up to %" PRIu64 ", acknowledged writes are lost: restore their keys from a "
                   "replica or a backup",
                   note->what, note->upto);
        break;
    case WAL_NOTE_LOST:
        write_text(ret_text,
                   "the writes at the log positions %" PRIu64 " to %" PRIu64
                   " are missing before it, although they were acknowledged: restore their keys "
                   "from a replica or a backup",
                   note->position_first, note->position_last);
        break;
    case WAL_NOTE_UNREADABLE:
        write_text(ret_text, "it cannot be read, %s: the device has lost it",
                   strerror(-note->error));
        break;
    case WAL_NOTE_INFERRED:
        write_text(ret_text,
                   "the header is corrupt, the batches say that it is log file %" PRIu64
                   " and can still be read",
                   note->header->number);
        break;
    case WAL_NOTE_NOTHING:
        write_text(ret_text,
                   "nothing in it can be read as a log file, if it held writes they are lost");
        break;
    case WAL_NOTE_COPY:
        write_text(ret_text, "a copy of %s, it is left alone: move it away", note->what);
        break;
    case WAL_NOTE_BEFORE_BASE:
        write_text(ret_text,
                   "of a log that was here before and was emptied: nothing of it counts, a start "
                   "removes it");
        break;
    case WAL_NOTE_UNKNOWN:
    case WAL_NOTE_FORMAT:
    case WAL_NOTE_FOREIGN:
        describe_refusal(note, ret_text);
        break;
    default:
        assert(note->kind >= WAL_NOTE_MISSING);
        describe_loss(note, ret_text);
    }
}

const char *wal_judge_record(const struct record *record, uint32_t partition, uint32_t shard,
                             uint32_t shard_count)
{
    if (partition % shard_count != shard)
        return "that is another shard's: it is the log of another time. Put back the one that was "
               "here, or restore the data directory from a backup";
    if ((uint64_t)record_size(record) > INDEX_RECORD_SIZE_MAX)
        return "that is larger than this release takes: use the release that wrote it";
    return NULL;
}
