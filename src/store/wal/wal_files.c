/* The log's files: their table, their states, who is alive in them and what may go. */
#include "store/wal/wal_files.h"
#include "base/assert.h"
#include "store/disk/wait.h"
#include "store/memory/location.h"
#include "store/wal/wal_internal.h"
#include "store/wal/wal_recover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_CAPACITY_MIN 64u

/* A sealed file of which less than this part is alive is all but dead. */
#define FADING_SHARE 64u

#define MAY_BECOME(state) (1u << (state))

static_assert(LOCATION_FILE_BITS + LOCATION_OFFSET_BITS == LOCATION_BITS - 1,
              "bit 47 of a location is the partition segments'");

/* ---- the table ---- */

static int table_grow(struct wal_files *files)
{
    if (files->capacity == 1u << LOCATION_FILE_BITS)
        return -ENFILE;
    uint32_t capacity = files->capacity == 0 ? TABLE_CAPACITY_MIN : 2 * files->capacity;
    struct log_file **table = realloc(files->table, capacity * sizeof(struct log_file *));
    if (table == NULL)
        return -ENOMEM;
    memset(table + files->capacity, 0, (capacity - files->capacity) * sizeof(struct log_file *));
    files->table = table;
    files->capacity = capacity;
    return 0;
}

int wal_files_add(struct wal_files *files, const char *directory, uint32_t serial,
                  struct log_file **ret_file)
{
    assert(files->count <= files->capacity); /* invariant 1 */
    int error = files->count == files->capacity ? table_grow(files) : 0;
    if (error < 0)
        return error;
    uint32_t index = 0;
    while (files->table[index] != NULL)
        index++;
    size_t path_size = strlen(directory) + WAL_NAME_SIZE;
    struct log_file *file = calloc(1, sizeof *file + path_size);
    if (file == NULL)
        return -ENOMEM;
    (void)snprintf(file->path, path_size, "%s/wal-%08x", directory, serial);
    file->index = index;
    file->serial = serial;
    file->handle = -1;
    files->table[index] = file;
    files->count++;
    files->serial = serial > files->serial ? serial : files->serial;
    *ret_file = file;
    return 0;
}

int wal_files_prepare(struct wal_files *files, uint64_t size, struct log_file **ret_file)
{
    int error = wal_files_add(files, files->options->directory, files->serial + 1, ret_file);
    if (error == 0)
        (*ret_file)->size = size;
    return error;
}

void wal_files_remove(struct wal_files *files, struct log_file *file)
{
    assert(files->table[file->index] == file); /* invariant 1 */
    assert(files->count > 0);                  /* invariant 1 */
    assert(!list_node_is_linked(&file->node)); /* invariant 3 */
    assert(file->pins == 0);                   /* invariant 9 */
    assert(file->state == LOG_FILE_PREPARING || file->state == LOG_FILE_LEAVING);
    files->table[file->index] = NULL;
    files->count--;
    free(file);
}

struct log_file *wal_files_find(const struct wal_files *files, uint32_t index)
{
    assert(index < files->capacity);
    struct log_file *file = files->table[index];
    assert(file != NULL);
    assert(file->index == index); /* invariant 1 */
    return file;
}

struct log_file *wal_files_next(const struct wal_files *files, uint32_t *index)
{
    while (*index < files->capacity) {
        struct log_file *file = files->table[(*index)++];
        if (file != NULL)
            return file;
    }
    return NULL;
}

void wal_files_close(struct wal_files *files, struct io *io)
{
    struct log_file *file;
    for (uint32_t i = 0; (file = wal_files_next(files, &i)) != NULL;) {
        if (file->handle < 0 || file->pins > 0)
            continue;
        (void)disk_wait_close(io, file->handle);
        file->handle = -1;
    }
}

void wal_files_free(struct wal_files *files)
{
    for (uint32_t i = 0; i < files->capacity; i++)
        free(files->table[i]);
    free(files->table);
    free(files);
}

void wal_files_abandon(struct io *io, struct wal_files *files)
{
    if (files == NULL)
        return;
    wal_files_close(files, io);
    wal_files_free(files);
}

/* ---- states ---- */

/* Each change of a file's state: wal_files.h shows the ways. */
static void set_state(struct log_file *file, enum log_file_state state)
{
    static const uint32_t ways[] = {
        [LOG_FILE_PREPARING] = MAY_BECOME(LOG_FILE_SPARE) | MAY_BECOME(LOG_FILE_LEAVING),
        [LOG_FILE_SPARE] =
            MAY_BECOME(LOG_FILE_OPEN) | MAY_BECOME(LOG_FILE_LEAVING) | MAY_BECOME(LOG_FILE_MARKED),
        [LOG_FILE_OPEN] = MAY_BECOME(LOG_FILE_SEALED),
        [LOG_FILE_SEALED] = MAY_BECOME(LOG_FILE_LEAVING),
        [LOG_FILE_LEAVING] = MAY_BECOME(LOG_FILE_SPARE) | MAY_BECOME(LOG_FILE_MARKED),
        [LOG_FILE_MARKED] = MAY_BECOME(LOG_FILE_LEAVING),
    };
    assert((ways[file->state] & MAY_BECOME(state)) != 0); /* invariant 2 */
    assert(!list_node_is_linked(&file->node));            /* invariant 3 */
    file->state = state;
}

void wal_files_add_spare(struct wal_files *files, struct log_file *file)
{
    if (file->state != LOG_FILE_SPARE) /* recovery says so already */
        set_state(file, LOG_FILE_SPARE);
    assert(file->live == 0); /* invariant 10 */
    list_push_back(&files->spares, &file->node);
    files->spare_count++;
    assert(files->spare_count <= files->count); /* invariant 4 */
}

void wal_files_add_marked(struct wal_files *files, struct log_file *file)
{
    set_state(file, LOG_FILE_MARKED);
    list_push_back(&files->marked, &file->node);
}

/* Puts a file among the drained ones if it belongs there now. */
static void check_drained(struct wal_files *files, struct log_file *file)
{
    if (file->state != LOG_FILE_SEALED || file->live > 0 || file->is_damaged || file->is_unreadable)
        return;
    if (!list_node_is_linked(&file->node))
        list_push_back(&files->drained, &file->node);
}

void wal_files_adopt(struct wal_files *files, const struct wal_options *options)
{
    files->options = options;
    files->generation++;
    files->number_durable = files->number;
    list_init(&files->spares);
    list_init(&files->drained);
    list_init(&files->marked);
    struct log_file *file;
    for (uint32_t i = 0; (file = wal_files_next(files, &i)) != NULL;) {
        assert(file->state == LOG_FILE_SPARE || file->state == LOG_FILE_SEALED);
        assert(file->pins == 0); /* invariant 9 */
        file->listed_last = files->number;
        if (file->state == LOG_FILE_SEALED)
            check_drained(files, file);
        else if (file->size == options->file_size)
            wal_files_add_spare(files, file);
        else
            wal_files_add_marked(files, file);
    }
}

/* ---- from one file to the next ---- */

void wal_files_open_spare(struct wal_files *files, uint64_t position_last, uint64_t salt)
{
    assert(files->open == NULL);    /* invariant 5 */
    assert(files->spare_count > 0); /* invariant 4 */
    struct log_file *file = container_of(list_pop_front(&files->spares), struct log_file, node);
    assert(file->live == 0);   /* invariant 10 */
    assert(file->doomed == 0); /* invariant 8 */
    assert(file->handle >= 0);
    set_state(file, LOG_FILE_OPEN);
    files->spare_count--;
    file->is_settled = false;
    file->end = WAL_DATA_OFFSET;
    file->records = 0;
    file->killer_last = 0;
    file->listed_last = 0;
    file->is_dead = false;
    file->header = (struct log_file_header){
        .state = WAL_HEADER_ACTIVE,
        .directory_id = files->options->directory_id,
        .log_id = files->options->log_id,
        .generation = files->generation,
        .salt = salt,
        .number = files->number + 1,
        .file_size = file->size,
        .previous = files->number,
        .last_before = position_last,
        .generation_base = files->position_recovered,
        .lost = files->lost,
    };
    files->number++;
    files->open = file;
}

uint64_t wal_files_room(const struct wal_files *files)
{
    const struct log_file *file = files->open;
    assert(file->end + WAL_BLOCK_SIZE <= file->size); /* invariant 7 */
    return file->size - file->end - WAL_BLOCK_SIZE;
}

void wal_files_take(struct wal_files *files, struct log_file *file, uint64_t size)
{
    assert(file == files->open);           /* invariant 5 */
    assert(size % WAL_BLOCK_SIZE == 0);    /* invariant 7 */
    assert(size <= wal_files_room(files)); /* invariant 7 */
    file->end += size;
}

void wal_files_seal(struct wal_files *files, uint64_t position_last)
{
    struct log_file *file = files->open;
    assert(file->end + WAL_BLOCK_SIZE <= file->size); /* invariant 7 */
    assert(position_last >= file->header.last_before);
    file->end += WAL_BLOCK_SIZE;
    file->records = position_last - file->header.last_before;
    set_state(file, LOG_FILE_SEALED);
    files->open = NULL;
}

void wal_files_settle(struct wal_files *files, struct log_file *file)
{
    assert(file->state == LOG_FILE_SEALED);
    assert(!file->is_settled);
    assert(file->header.number <= files->number_durable); /* invariant 10 */
    file->is_settled = true;
    check_drained(files, file);
}

void log_file_identify(const struct log_file *file, struct wal_batch_header *header)
{
    header->directory_id = file->header.directory_id;
    header->log_id = file->header.log_id;
    header->generation = file->header.generation;
    header->salt = file->header.salt;
    header->number = file->header.number;
    header->generation_base = file->header.generation_base;
}

/* ---- headers and marks ---- */

static bool is_in_use(const struct log_file *file)
{
    return file->state == LOG_FILE_OPEN || file->state == LOG_FILE_SEALED;
}

/* Whether no recovery needs anything of it any more: it need not be listed. */
static bool is_dead(const struct log_file *file, uint64_t durable)
{
    return file->state == LOG_FILE_SEALED && file->is_settled && !file->is_damaged &&
           !file->is_unreadable && file->live == 0 && file->killer_last <= durable;
}

/* The files before it, so that the next start knows what must be there. */
static void list_files(struct wal_files *files, uint64_t number, uint64_t durable,
                       struct wal_listing *ret_listing)
{
    *ret_listing = (struct wal_listing){.flags = WAL_LISTING};
    struct log_file *file;
    for (uint32_t i = 0; (file = wal_files_next(files, &i)) != NULL;) {
        if (file->header.number >= number || !is_in_use(file) || is_dead(file, durable))
            continue;
        file->listed_last = max_u64(file->listed_last, number);
        if (ret_listing->count < WAL_LISTED_MAX)
            ret_listing->numbers[ret_listing->count++] = file->header.number;
        else
            ret_listing->flags |= WAL_LISTING_INCOMPLETE;
    }
}

static struct wal_note note_now(const struct wal_files *files)
{
    const struct wal_events *events = &files->options->events;
    return events->note != NULL ? events->note(events->context) : (struct wal_note){0};
}

void wal_files_encode_header(struct wal_files *files, struct log_file *file, uint64_t durable,
                             uint64_t clock_ceiling, uint8_t *block)
{
    assert(file->header.number > files->number_durable); /* invariant 6: once each */
    struct wal_listing listing;
    list_files(files, file->header.number, durable, &listing);
    file->header.durable = durable;
    file->header.clock_ceiling = clock_ceiling;
    file->header.number_durable = files->number_durable;
    file->header.note = note_now(files);
    log_file_header_encode(&file->header, &listing, block);
}

void wal_files_encode_mark(const struct wal_files *files, const struct log_file *file,
                           uint64_t durable, uint8_t *block)
{
    assert(file->state == LOG_FILE_PREPARING || file->state == LOG_FILE_LEAVING);
    bool is_recycling = file->state == LOG_FILE_LEAVING;
    struct log_file_header mark = {
        .state = WAL_HEADER_SPARE,
        .directory_id = files->options->directory_id,
        .log_id = files->options->log_id,
        .generation = file->header.generation,
        .number = file->header.number,
        .file_size = file->size,
        .durable = is_recycling ? durable : 0,
        .number_durable = is_recycling ? files->number_durable : 0,
        .note = note_now(files),
    };
    log_file_header_encode(&mark, NULL, block);
}

/* ---- what is alive ---- */

static struct log_file *file_at(const struct wal_files *files, uint64_t location)
{
    assert(!location_is_segment(location));
    return wal_files_find(files, location_file(location));
}

bool wal_files_record_dead(struct wal_files *files, uint64_t location, uint64_t killer_position)
{
    struct log_file *file = file_at(files, location);
    assert(file->live > 0);
    file->live--;
    assert(file->doomed <= file->live); /* invariant 8 */
    file->killer_last = max_u64(file->killer_last, killer_position);
    if (file->live > 0)
        return false;
    check_drained(files, file);
    return true;
}

void wal_record_doomed(struct wal *wal, uint64_t location)
{
    struct log_file *file = file_at(wal_files_of(wal), location);
    assert(file->doomed < file->live); /* invariant 8 */
    file->doomed++;
}

void wal_record_spared(struct wal *wal, uint64_t location)
{
    struct log_file *file = file_at(wal_files_of(wal), location);
    assert(file->doomed > 0); /* invariant 8 */
    file->doomed--;
}

void wal_files_forget_alive(struct wal_files *files)
{
    struct log_file *file;
    for (uint32_t i = 0; (file = wal_files_next(files, &i)) != NULL;)
        file->live = 0;
}

void wal_files_record_alive(struct wal_files *files, uint64_t location)
{
    file_at(files, location)->live++;
}

int wal_pin_file(struct wal *wal, uint32_t index)
{
    struct log_file *file = wal_files_find(wal_files_of(wal), index);
    assert(is_in_use(file));   /* invariant 9 */
    assert(file->handle >= 0); /* invariant 9 */
    file->pins++;
    return file->handle;
}

bool wal_files_unpin(struct wal_files *files, uint32_t index)
{
    struct log_file *file = wal_files_find(files, index);
    assert(file->pins > 0);  /* invariant 9 */
    assert(is_in_use(file)); /* invariant 9 */
    file->pins--;
    return file->pins == 0 && file->live == 0;
}

/* ---- what may go ---- */

/* A newer header has to be durable that says up to where positions were given. */
static bool is_free(const struct wal_files *files, const struct log_file *file, uint64_t durable)
{
    return file->header.number < files->number_durable && is_dead(file, durable) && file->pins == 0;
}

struct log_file *wal_files_find_free(const struct wal_files *files, uint64_t durable)
{
    for (struct list_node *node = list_first(&files->drained); node != NULL;
         node = list_next(&files->drained, node)) {
        struct log_file *file = container_of(node, struct log_file, node);
        assert(file->state == LOG_FILE_SEALED); /* invariant 3 */
        assert(file->live == 0);                /* invariant 3 */
        if (is_free(files, file, durable))
            return file;
    }
    return NULL;
}

struct log_file *wal_files_find_marked(const struct wal_files *files)
{
    for (struct list_node *node = list_first(&files->marked); node != NULL;
         node = list_next(&files->marked, node)) {
        struct log_file *file = container_of(node, struct log_file, node);
        assert(file->state == LOG_FILE_MARKED); /* invariant 3 */
        if (wal_files_is_unlisted(files, file))
            return file;
    }
    return NULL;
}

bool wal_files_wants_header(const struct wal_files *files, const struct log_file *file)
{
    const struct list_node *first = list_first(&files->marked);
    if (first != NULL)
        file = container_of(first, const struct log_file, node);
    return file != NULL && files->number_durable == files->number &&
           !wal_files_is_unlisted(files, file);
}

void wal_files_leave(struct wal_files *files, struct log_file *file, uint64_t durable)
{
    assert(file->state != LOG_FILE_SEALED || is_free(files, file, durable)); /* invariant 10 */
    assert(file->pins == 0);                                                 /* invariant 9 */
    if (list_node_is_linked(&file->node))
        list_remove(&file->node);
    if (file->state == LOG_FILE_SPARE) {
        assert(files->spare_count > 0); /* invariant 4 */
        files->spare_count--;
    }
    set_state(file, LOG_FILE_LEAVING);
}

/* ---- asking ---- */

static bool is_movable(const struct wal_files *files, const struct log_file *file)
{
    bool is_sound = !file->is_damaged && !file->is_unreadable;
    return file->state == LOG_FILE_SEALED && file->is_settled && file->live > 0 &&
           (is_sound || files->moves_damaged);
}

static uint64_t really_live(const struct log_file *file)
{
    assert(file->doomed <= file->live); /* invariant 8 */
    return file->live - file->doomed;
}

static bool show(const struct log_file *file, struct wal_sealed *ret_sealed)
{
    if (file == NULL)
        return false;
    *ret_sealed = (struct wal_sealed){
        .is_fading = really_live(file) <= file->records / FADING_SHARE,
        .file = file->index,
        .number = file->header.number,
        .salt = file->header.salt,
        .end = file->end,
    };
    return true;
}

uint64_t wal_files_sealed_bytes(const struct wal_files *files)
{
    uint64_t bytes = 0;
    const struct log_file *file;
    for (uint32_t i = 0; (file = wal_files_next(files, &i)) != NULL;)
        bytes += is_movable(files, file) ? file->end : 0;
    return bytes;
}

uint64_t wal_sealed_bytes(const struct wal *wal)
{
    return wal_files_sealed_bytes(wal_files_of(wal));
}

bool wal_emptiest_sealed(const struct wal *wal, struct wal_sealed *ret_sealed)
{
    const struct wal_files *files = wal_files_of(wal);
    const struct log_file *best = NULL;
    const struct log_file *file;
    for (uint32_t i = 0; (file = wal_files_next(files, &i)) != NULL;)
        if (is_movable(files, file) && (best == NULL || really_live(file) < really_live(best)))
            best = file;
    return show(best, ret_sealed);
}

/* The file with live records with the lowest number in (after, last]; is_movable_only: sealed, for the
 * mover. */
static bool show_first(const struct wal_files *files, uint64_t after, uint64_t last,
                       bool is_movable_only, struct wal_sealed *ret_first)
{
    const struct log_file *first = NULL;
    const struct log_file *file;
    for (uint32_t i = 0; (file = wal_files_next(files, &i)) != NULL;) {
        uint64_t number = file->header.number;
        bool is_live = is_in_use(file) && !file->is_discarded && file->live > 0;
        if ((is_movable_only ? is_movable(files, file) : is_live) && number > after &&
            number <= last && (first == NULL || number < first->header.number))
            first = file;
    }
    return show(first, ret_first);
}

bool wal_next_sealed(const struct wal *wal, uint64_t after, struct wal_sealed *ret_sealed)
{
    return show_first(wal_files_of(wal), after, UINT64_MAX, true, ret_sealed);
}

bool wal_files_next_live(const struct wal_files *files, uint64_t after, uint64_t last,
                         struct wal_sealed *ret_live)
{
    return show_first(files, after, last, false, ret_live);
}

void wal_move_damaged(struct wal *wal)
{
    wal_files_of(wal)->moves_damaged = true;
}

void wal_keep_damaged(struct wal *wal, uint32_t index)
{
    wal_files_find(wal_files_of(wal), index)->is_damaged = true;
}

bool wal_file_is_alive(const struct wal *wal, uint32_t index)
{
    return wal_files_find(wal_files_of(wal), index)->live > 0;
}

uint64_t wal_number(const struct wal *wal)
{
    return wal_files_of(wal)->number;
}

const char *wal_file_path(const struct wal *wal, uint32_t index, uint64_t number)
{
    const struct wal_files *files = wal_files_of(wal);
    assert(index < files->capacity);
    const struct log_file *file = files->table[index];
    bool is_same = file != NULL && file->header.number == number && is_in_use(file);
    return is_same ? file->path : NULL;
}

uint64_t wal_files_first_position(const struct wal_files *files, uint64_t next)
{
    uint64_t position = next;
    const struct log_file *file;
    for (uint32_t i = 0; (file = wal_files_next(files, &i)) != NULL;) {
        bool has_records = file->state != LOG_FILE_PREPARING && file->state != LOG_FILE_SPARE &&
                           file->state != LOG_FILE_MARKED && !file->is_dead;
        if (has_records && file->header.last_before < position)
            position = file->header.last_before + 1;
    }
    return position;
}

void wal_files_stats(const struct wal_files *files, struct wal_stats *stats)
{
    const struct log_file *file;
    for (uint32_t i = 0; (file = wal_files_next(files, &i)) != NULL;) {
        stats->files++;
        stats->size_bytes += file->size;
        stats->live_records += file->live;
    }
}
