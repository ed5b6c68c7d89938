/* Which file of a log is what, and which files must be there. The rules stand in wal_survey.h. */
#include "store/wal/wal_survey.h"

#include "base/assert.h"

#include <errno.h>
#include <stdlib.h>

static void tell(const struct wal_survey *survey, const struct wal_scan_note *note)
{
    survey->scan->note(survey->scan->context, note);
}

/* ---- headers and marks ---- */

void wal_survey_take_known(struct wal_survey *survey, uint64_t position, uint64_t number)
{
    survey->last_known = max_u64(survey->last_known, position);
    survey->number_known = max_u64(survey->number_known, number);
}

/* Takes a sound header, of whatever use of its file, or a mark. */
static void take_header(struct wal_survey *survey, const struct log_file_header *header,
                        const uint8_t *block)
{
    bool is_active = header->state == WAL_HEADER_ACTIVE;
    if (is_active && header->last_before < survey->base)
        return; /* of another log */
    survey->lost = max_u64(survey->lost, header->lost);
    wal_survey_take_known(survey, header->durable, max_u64(header->number, header->number_durable));
    if (!is_active || header->number <= survey->newest.number)
        return;
    survey->newest = *header; /* invariant 1 */
    wal_listing_decode(block, &survey->listing);
}

static bool is_ours(const struct wal_survey *survey, uint64_t directory_id, uint32_t log_id)
{
    return directory_id == survey->directory_id && log_id == survey->log_id;
}

static int refuse(const struct wal_survey *survey, uint32_t index,
                  const struct log_file_header *header, enum wal_note_kind kind)
{
    tell(survey, &(struct wal_scan_note){.kind = kind, .file = index, .header = header});
    return kind == WAL_NOTE_FORMAT ? -EPROTONOSUPPORT : -EXDEV;
}

/* Decodes header or mark. Returns 1, or 0 when it is neither. */
static int read_header(const struct wal_survey *survey, uint32_t index, const uint8_t *block,
                       uint16_t state, struct log_file_header *ret_header)
{
    struct log_file_header header;
    int result = log_file_header_decode(block, &header);
    if (result == -EPROTONOSUPPORT)
        return refuse(survey, index, &header, WAL_NOTE_FORMAT);
    if (result < 0 || header.state != state)
        return 0;
    if (!is_ours(survey, header.directory_id, header.log_id))
        return refuse(survey, index, &header, WAL_NOTE_FOREIGN);
    *ret_header = header;
    return 1;
}

/* ---- what a file is ---- */

/* Whether the first batch is of a later use of the file than header and mark know of: the header
 * was lost. */
static bool is_in_later_use(const struct wal_survey *survey, const uint8_t *data, uint64_t number)
{
    struct wal_batch_header batch;
    return wal_batch_header_decode(data, &batch) == 0 && batch.number > number &&
           batch.offset == WAL_DATA_OFFSET && is_ours(survey, batch.directory_id, batch.log_id);
}

/* Looks for batches of a file numbered above its mark. Returns whether there are some: then the
 * header is inferred. */
static int infer(struct wal_survey *survey, uint32_t index)
{
    struct wal_scan_file *file = &survey->scan->files[index];
    struct log_file_header mark = file->header;
    file->header =
        (struct log_file_header){.directory_id = survey->directory_id, .log_id = survey->log_id};
    int found = wal_scan_infer(survey->scan, index, file->mark);
    if (found == 1) {
        file->kind = WAL_FILE_RECORDS;
        survey->inferred++;
        tell(survey, &(struct wal_scan_note){
                         .kind = WAL_NOTE_INFERRED, .file = index, .header = &file->header});
        return 1;
    }
    file->header = mark;
    return found;
}

/* Neither header nor mark say that the file has records. */
static int judge_without_header(struct wal_survey *survey, uint32_t index)
{
    struct wal_scan_file *file = &survey->scan->files[index];
    int found = infer(survey, index);
    if (found != 0 || file->kind != WAL_FILE_UNKNOWN)
        return found < 0 ? found : 0;
    file->is_damaged = true;
    survey->is_unsure = true;
    survey->damages++;
    tell(survey, &(struct wal_scan_note){.kind = WAL_NOTE_NOTHING, .file = index});
    return 0;
}

int wal_survey_file(struct wal_survey *survey, uint32_t index, const uint8_t *head)
{
    assert(index < survey->file_count);
    struct wal_scan_file *file = &survey->scan->files[index];
    struct log_file_header header;
    struct log_file_header mark = {0};
    int is_active = read_header(survey, index, head, WAL_HEADER_ACTIVE, &header);
    int is_marked =
        is_active < 0 ? is_active
                      : read_header(survey, index, head + WAL_MARK_OFFSET, WAL_HEADER_SPARE, &mark);
    if (is_marked < 0)
        return is_marked;
    if (is_active)
        take_header(survey, &header, head);
    if (is_marked)
        take_header(survey, &mark, head + WAL_MARK_OFFSET);
    file->mark = mark.number;
    file->header = mark;
    file->kind = WAL_FILE_RECORDS;
    if (is_active && (!is_marked || header.number > mark.number)) {
        file->header = header;
        return 0;
    }
    /* A header that is as old as the mark is as good as none: its block tells nothing new. */
    bool is_blank = is_active || bytes_are_zero(head, WAL_BLOCK_SIZE);
    file->kind = is_marked ? WAL_FILE_SPARE : (is_blank ? WAL_FILE_UNFINISHED : WAL_FILE_UNKNOWN);
    if (is_blank && !is_in_later_use(survey, head + WAL_DATA_OFFSET, mark.number))
        return 0;
    return judge_without_header(survey, index);
}

/* ---- which files count ---- */

static bool counts(const struct wal_scan_file *file)
{
    return file->kind == WAL_FILE_RECORDS && !file->is_dead;
}

static int compare(const void *left, const void *right)
{
    const struct wal_scan_file *a = left;
    const struct wal_scan_file *b = right;
    if (counts(a) != counts(b))
        return counts(a) ? -1 : 1;
    if (a->header.number != b->header.number)
        return a->header.number < b->header.number ? -1 : 1;
    return (a->index > b->index) - (a->index < b->index);
}

static void note_dead(struct wal_survey *survey)
{
    for (uint32_t i = 0; i < survey->file_count; i++) {
        struct wal_scan_file *file = &survey->scan->files[i];
        if (file->kind != WAL_FILE_RECORDS)
            continue;
        bool is_before = file->header.last_before < survey->base;
        if (is_before) /* of a log that was emptied and removed: put back by somebody */
            tell(survey, &(struct wal_scan_note){.kind = WAL_NOTE_BEFORE_BASE, .file = i});
        file->is_dead = is_before || (survey->listing.flags == WAL_LISTING &&
                                      file->header.number < survey->newest.number &&
                                      !wal_listing_has(&survey->listing, file->header.number));
    }
}

static void note_copies(struct wal_survey *survey)
{
    struct wal_scan_file *before = NULL;
    for (uint32_t i = 0; i < survey->file_count; i++) {
        struct wal_scan_file *file = &survey->scan->files[i];
        if (!counts(file))
            return;
        if (before != NULL && before->header.number == file->header.number) {
            file->kind = WAL_FILE_COPY;
            tell(survey,
                 &(struct wal_scan_note){.kind = WAL_NOTE_COPY, .file = i, .what = before->path});
        } else {
            before = file;
        }
    }
}

void wal_survey_order(struct wal_survey *survey)
{
    struct wal_scan *scan = survey->scan;
    uint32_t count = survey->file_count;
    scan->file_count = 0;
    if (count == 0)
        return;
    note_dead(survey);
    qsort(scan->files, count, sizeof *scan->files, compare);
    note_copies(survey);
    qsort(scan->files, count, sizeof *scan->files, compare);
    while (scan->file_count < count && counts(&scan->files[scan->file_count]))
        scan->file_count++;
}

/* ---- what is missing ---- */

/* With records, or by its mark. */
static bool is_there(const struct wal_survey *survey, uint64_t number)
{
    for (uint32_t i = 0; i < survey->file_count; i++) {
        const struct wal_scan_file *file = &survey->scan->files[i];
        if (file->mark == number ||
            (file->kind == WAL_FILE_RECORDS && file->header.number == number))
            return true;
    }
    return false;
}

/* The newest header itself is gone: files that its list need not name may have gone before it. */
static bool is_stale(const struct wal_survey *survey)
{
    uint64_t newest = survey->number_known;
    for (uint32_t i = 0; i < survey->file_count; i++)
        newest = max_u64(newest, survey->scan->files[i].header.number);
    return newest > survey->newest.number;
}

static void note_missing(struct wal_survey *survey, uint64_t number)
{
    uint64_t last = survey->newest.last_before;
    bool is_sure = !is_stale(survey);
    tell(survey, &(struct wal_scan_note){.kind = is_sure ? WAL_NOTE_MISSING : WAL_NOTE_MAY_MISS,
                                         .number = number,
                                         .position_last = last});
    if (!is_sure)
        return;
    survey->damages++;
    survey->lost = max_u64(survey->lost, max_u64(last, 1));
}

void wal_survey_judge_losses(struct wal_survey *survey, uint64_t last_position, uint64_t proof)
{
    const struct log_file_header *newest = &survey->newest;
    uint64_t known = survey->last_known;
    bool is_told = survey->lost >= known;
    survey->damages += survey->lost > 0;
    proof = max_u64(proof, known);
    bool is_proved = newest->last_before > 0 && proof >= newest->last_before;
    for (uint32_t i = 0; i < survey->listing.count; i++) {
        uint64_t number = survey->listing.numbers[i];
        bool must_be = number <= newest->number_durable || is_proved;
        if (must_be && !is_there(survey, number))
            note_missing(survey, number);
    }
    if (last_position >= known || is_told)
        return;
    tell(survey, &(struct wal_scan_note){.kind = WAL_NOTE_END_GONE,
                                         .position_first = last_position,
                                         .position_last = known});
    survey->damages++;
    survey->lost = max_u64(survey->lost, known);
}
