/* The partition segments: the table of them, the accounts of what is alive in each, and their files,
 * which are opened when somebody pins them, and closed when too many are open, or when the segment
 * goes. segments.h numbers the invariants.
 *
 * One operation of a segment at a time:
 *
 *   not open -> opening -> open -> closing -> not open [-> segments_remove.c -> freed]
 *
 * A segment that is pinned while its file is being closed is opened again right behind that. */
#include "store/segment/segments.h"
#include "base/assert.h"
#include "store/memory/location.h"
#include "store/segment/segments_remove.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARTITIONS 256u
#define CAPACITY_MIN 64u
#define PATH_TAIL_SIZE sizeof("/ab/seg-0123456789abcdef")

struct segments {
    struct io *io;
    struct segments_options options;
    struct segment **files;   /* by file; NULL: free */
    struct segment **all;     /* by rank, without the removed ones: first those in the manifest */
    struct segment **numbers; /* buckets of the hash table */
    uint32_t capacity;        /* of each of these: a power of two */
    uint32_t count;           /* in `all` */
    uint32_t named_count;     /* of these, in the manifest */
    uint32_t place_count;     /* in `files` */
    uint32_t place_next;      /* where the search for a free one goes on */
    struct list partitions[PARTITIONS];
    struct list empty; /* in the manifest, nothing alive */
    struct list idle;  /* open and unpinned, least recently used first */
    struct segments_removal removal;
    uint64_t pin_count;
    uint32_t open_count; /* also those being opened */
    struct segments_stats stats;
};

/* Gives the place in the table back. */
static void free_segment(struct segment *segment)
{
    struct segments *segments = segment->owner;
    assert(segments->files[segment->file] == segment); /* invariant 1 */
    assert(segments->place_count > segments->count);   /* invariant 1 */
    assert(segment->is_removed);                       /* invariant 2 */
    assert(segment->pins == 0);                        /* invariant 5 */
    assert(segment->handle < 0);                       /* invariant 6 */
    assert(list_is_empty(&segment->waiters));          /* invariant 5 */
    segments->files[segment->file] = NULL;
    segments->place_count--;
    free(segment);
}

int segments_create(struct io *io, const struct log *log, const struct segments_options *options,
                    struct segments **ret_segments)
{
    if (strlen(options->path) + PATH_TAIL_SIZE > SEGMENT_PATH_MAX)
        return -ENAMETOOLONG;
    struct segments *segments = calloc(1, sizeof *segments);
    if (segments == NULL)
        return -ENOMEM;
    segments->io = io;
    segments->options = *options;
    for (uint32_t i = 0; i < PARTITIONS; i++)
        list_init(&segments->partitions[i]);
    list_init(&segments->empty);
    list_init(&segments->idle);
    segments_removal_init(&segments->removal, io, log, free_segment);
    *ret_segments = segments;
    return 0;
}

void segments_free(struct segments *segments)
{
    if (segments == NULL)
        return;
    for (uint32_t file = 0; file < segments->capacity; file++)
        free(segments->files[file]);
    free(segments->files);
    free(segments);
}

/* ---- the table ---- */

static struct segment **bucket_of(const struct segments *segments, uint64_t number)
{
    return &segments->numbers[(number * 0x9E3779B97F4A7C15ull) >> 32 & (segments->capacity - 1)];
}

static void link_number(struct segments *segments, struct segment *segment)
{
    struct segment **bucket = bucket_of(segments, segment->number);
    segment->number_next = *bucket;
    *bucket = segment;
}

/* As many buckets as places; the three tables are one allocation, which begins with `files`. */
static int grow(struct segments *segments)
{
    if (segments->capacity == LOCATION_FILES_MAX)
        return -ENFILE;
    uint32_t capacity = segments->capacity == 0 ? CAPACITY_MIN : 2 * segments->capacity;
    struct segment **files = calloc(3 * (size_t)capacity, sizeof(struct segment *));
    if (files == NULL)
        return -ENOMEM;
    struct segment **all = files + capacity;
    for (uint32_t i = 0; i < segments->capacity; i++) {
        files[i] = segments->files[i];
        all[i] = segments->all[i];
    }
    free(segments->files);
    segments->files = files;
    segments->all = all;
    segments->numbers = all + capacity;
    segments->capacity = capacity;
    for (uint32_t i = 0; i < segments->count; i++)
        link_number(segments, all[i]);
    return 0;
}

static uint32_t free_place(struct segments *segments)
{
    while (segments->files[segments->place_next] != NULL)
        segments->place_next = (segments->place_next + 1) & (segments->capacity - 1);
    return segments->place_next;
}

/* Ascending in number: usually the newest. */
static void link_in_partition(struct segments *segments, struct segment *segment)
{
    struct list *list = &segments->partitions[segment->partition];
    struct list_node *before = list->head.prev;
    while (before != &list->head &&
           container_of(before, struct segment, partition_node)->number > segment->number)
        before = before->prev;
    struct list_node *node = &segment->partition_node;
    node->prev = before;
    node->next = before->next;
    node->next->prev = node;
    before->next = node;
}

int segments_add(struct segments *segments, uint8_t partition, enum segment_source source,
                 uint64_t number, struct segment **ret_segment)
{
    assert(segment_source_is_known(source));
    assert(segments->count == 0 || segments_find_number(segments, number) == NULL);
    /* Places of removed segments are in use a little longer than their ranks. */
    int error = segments->place_count == segments->capacity ? grow(segments) : 0;
    size_t path_size = strlen(segments->options.path) + PATH_TAIL_SIZE;
    struct segment *segment = error == 0 ? calloc(1, sizeof *segment + path_size) : NULL;
    if (segment == NULL)
        return error < 0 ? error : -ENOMEM;
    list_init(&segment->waiters);
    segment->owner = segments;
    segment->handle = -1;
    segment->partition = partition;
    segment->source = source;
    segment->number = number;
    (void)snprintf(segment->path, path_size, "%s/%02x/seg-%016" PRIx64, segments->options.path,
                   partition, number);
    segment->file = free_place(segments);
    segments->files[segment->file] = segment;
    segments->place_count++;
    segment->rank = segments->count;
    segments->all[segments->count++] = segment;
    link_number(segments, segment);
    link_in_partition(segments, segment);
    *ret_segment = segment;
    return 0;
}

static void unlink_number(struct segments *segments, struct segment *segment)
{
    struct segment **link = bucket_of(segments, segment->number);
    while (*link != segment)
        link = &(*link)->number_next;
    *link = segment->number_next;
}

/* After every change of its end, or of what is alive. */
static void note_empty(struct segments *segments, struct segment *segment)
{
    bool is_empty = segment->end > 0 && segment->live_records == 0;
    if (is_empty == list_node_is_linked(&segment->empty_node))
        return;
    if (is_empty)
        list_push_back(&segments->empty, &segment->empty_node);
    else
        list_remove(&segment->empty_node);
}

static void set_rank(struct segments *segments, struct segment *segment, uint32_t rank)
{
    assert(segments->all[segment->rank] == segment); /* invariant 2 */
    assert(segments->all[rank] != NULL);             /* invariant 2 */
    struct segment *other = segments->all[rank];
    other->rank = segment->rank;
    segments->all[other->rank] = other;
    segment->rank = rank;
    segments->all[rank] = segment;
}

/* The ones in the manifest have the lowest ranks. */
void segment_set_end(struct segments *segments, struct segment *segment, uint64_t end)
{
    assert(!segment->is_removed);
    bool was_named = segment->end > 0;
    if (!was_named && end > 0)
        set_rank(segments, segment, segments->named_count++);
    else if (was_named && end == 0)
        set_rank(segments, segment, --segments->named_count);
    segments->stats.size_bytes += end - segment->end;
    segment->end = end;
    assert(segments->named_count <= segments->count);             /* invariant 2 */
    assert((end > 0) == (segment->rank < segments->named_count)); /* invariant 2 */
    note_empty(segments, segment);
}

struct segment *segments_find(const struct segments *segments, uint32_t file)
{
    return file < segments->capacity ? segments->files[file] : NULL;
}

struct segment *segments_find_number(const struct segments *segments, uint64_t number)
{
    if (segments->capacity == 0)
        return NULL;
    struct segment *segment = *bucket_of(segments, number);
    while (segment != NULL && segment->number != number)
        segment = segment->number_next;
    return segment;
}

struct segment *segments_nth(const struct segments *segments, uint64_t index)
{
    return index < segments->named_count ? segments->all[index] : NULL;
}

struct unit_file segment_unit_file(const struct segment *segment)
{
    return (struct unit_file){
        .is_segment = true,
        .directory_id = segment->owner->options.directory_id,
        .salt = segment->salt,
        .number = segment->number,
        .end = segment->end,
    };
}

static struct segment *segment_of(struct list_node *node)
{
    return node != NULL ? container_of(node, struct segment, partition_node) : NULL;
}

struct segment *segments_first(const struct segments *segments, uint32_t partition)
{
    return segment_of(list_first(&segments->partitions[partition]));
}

struct segment *segment_next(const struct segment *segment)
{
    const struct list *list = &segment->owner->partitions[segment->partition];
    return segment_of(list_next(list, &segment->partition_node));
}

/* ---- names ---- */

int segment_name_parse(const char *name, uint64_t *ret_number)
{
    static const char prefix[] = "seg-";
    const char *digits = name + sizeof prefix - 1;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || strspn(digits, "0123456789abcdef") != 16 ||
        digits[16] != '\0')
        return -EINVAL;
    *ret_number = strtoull(digits, NULL, 16);
    return 0;
}

/* ---- accounts ---- */

void segment_add_live(struct segments *segments, struct segment *segment, uint64_t read_size)
{
    segment->live_records++;
    segment->live_bytes += read_size;
    segments->stats.live_records++;
    segments->stats.live_bytes += read_size;
    note_empty(segments, segment);
}

void segment_record_dead(struct segments *segments, uint64_t location, uint64_t read_size,
                         uint64_t killer_position)
{
    assert(location_is_segment(location));
    struct segment *segment = segments_find(segments, location_file(location));
    assert(segment != NULL);
    assert(segment->live_records > 0);
    assert(segment->live_bytes >= read_size);
    segment->live_records--;
    segment->live_bytes -= read_size;
    assert(segment->live_records > 0 || segment->live_bytes == 0); /* invariant 4 */
    segments->stats.live_records--;
    segments->stats.live_bytes -= read_size;
    note_empty(segments, segment);
    if (killer_position != UINT64_MAX)
        segment->killer_last = max_u64(segment->killer_last, killer_position);
    if (killer_position <= segment->created) {
        segment->created = killer_position > 0 ? killer_position - 1 : 0;
        segment->created_changed = true;
    }
}

void segment_record_doomed(struct segments *segments, uint64_t location, uint64_t read_size)
{
    assert(location_is_segment(location));
    struct segment *segment = segments_find(segments, location_file(location));
    assert(segment != NULL);
    assert(segment->doomed_bytes <= segment->live_bytes);             /* invariant 4 */
    assert(read_size <= segment->live_bytes - segment->doomed_bytes); /* invariant 4 */
    segment->doomed_bytes += read_size;
    segments->stats.doomed_bytes += read_size;
}

void segment_record_spared(struct segments *segments, uint64_t location, uint64_t read_size)
{
    assert(location_is_segment(location));
    struct segment *segment = segments_find(segments, location_file(location));
    assert(segment != NULL);
    assert(read_size <= segment->doomed_bytes); /* invariant 4 */
    segment->doomed_bytes -= read_size;
    segments->stats.doomed_bytes -= read_size;
}

bool segments_have_empty(const struct segments *segments)
{
    for (struct list_node *node = list_first(&segments->empty); node != NULL;
         node = list_next(&segments->empty, node)) {
        const struct segment *segment = container_of(node, struct segment, empty_node);
        assert(segment->live_records == 0); /* invariant 3 */
        assert(segment->end > 0);           /* invariant 3 */
        if (!segment->is_damaged && segment->pins == 0)
            return true;
    }
    return false;
}

void segments_stats(const struct segments *segments, struct segments_stats *ret_stats)
{
    *ret_stats = segments->stats;
    ret_stats->segments = segments->named_count;
    ret_stats->open_files = segments->open_count;
}

/* ---- files ---- */

static void close_file(struct segment *segment);

/* A file that is being closed does not count: otherwise one too many would close all. */
static void evict(struct segments *segments)
{
    while (segments->open_count > segments->options.open_max) {
        struct list_node *node = list_first(&segments->idle);
        if (node == NULL)
            return;
        close_file(container_of(node, struct segment, handle_node));
    }
}

/* As soon as nobody pins it and nothing is under way it can be closed when there are too many; a
 * removed one is closed, its file goes, and it is freed. Called again when that changes. */
static void settle(struct segment *segment)
{
    if (segment->pins > 0 || io_op_is_active(&segment->op))
        return;
    if (segment->is_removed && segment->handle >= 0) {
        close_file(segment);
    } else if (segment->is_removed && segment->is_unlinked) {
        assert(segment->state == SEGMENT_LEAVING);
        segments_removal_add(&segment->owner->removal, segment);
    } else if (segment->is_removed) {
        free_segment(segment);
    } else if (segment->handle >= 0) {
        assert(!list_node_is_linked(&segment->handle_node)); /* invariant 6 */
        list_push_back(&segment->owner->idle, &segment->handle_node);
        evict(segment->owner);
    }
}

/* ---- opening ---- */

/* A waiter's completion may pin, unpin or wait again. */
static void serve_waiters(struct segment *segment, int handle_or_error)
{
    struct list waiters;
    list_init(&waiters);
    struct list_node *node;
    while ((node = list_pop_front(&segment->waiters)) != NULL)
        list_push_back(&waiters, node);
    while ((node = list_pop_front(&waiters)) != NULL) {
        struct segment_pin *pin = container_of(node, struct segment_pin, node);
        if (handle_or_error < 0) {
            segment->pins--;
            segment->owner->pin_count--;
        }
        pin->done(pin, handle_or_error);
    }
}

static void opened(struct io_op *op, int32_t result)
{
    struct segment *segment = container_of(op, struct segment, op);
    if (result < 0)
        segment->owner->open_count--;
    else
        segment->handle = result;
    /* Pinned, so that no waiter's completion can make it go before the last one was served. */
    segment->pins++;
    serve_waiters(segment, result);
    segment->pins--;
    settle(segment);
}

static void open_file(struct segment *segment)
{
    struct segments *segments = segment->owner;
    assert(segment->handle < 0);            /* invariant 6 */
    assert(!io_op_is_active(&segment->op)); /* invariant 7 */
    segments->open_count++;
    evict(segments);
    segment->op.done = opened;
    io_open_file(segments->io, &segment->op, segment->path, IO_OPEN_READ | IO_OPEN_DIRECT);
}

/* ---- closing ---- */

static void closed(struct io_op *op, int32_t result)
{
    struct segment *segment = container_of(op, struct segment, op);
    (void)result;
    if (!list_is_empty(&segment->waiters))
        open_file(segment);
    else
        settle(segment);
}

static void close_file(struct segment *segment)
{
    assert(segment->pins == 0);             /* invariant 5 */
    assert(segment->handle >= 0);           /* invariant 6 */
    assert(!io_op_is_active(&segment->op)); /* invariant 7 */
    assert(segment->owner->open_count > 0); /* invariant 6 */
    if (list_node_is_linked(&segment->handle_node))
        list_remove(&segment->handle_node);
    segment->op.done = closed;
    io_close_file(segment->owner->io, &segment->op, segment->handle);
    segment->handle = -1;
    segment->owner->open_count--;
}

/* ---- removing ---- */

void segments_remove(struct segments *segments, struct segment *segment, bool unlink)
{
    assert(segment->live_records == 0);
    assert(segment->live_bytes == 0);
    assert(!segment->is_removed); /* invariant 2 */
    assert(segments->named_count > 0 || segment->end == 0);
    segment->file_left = segment->end;
    segment_set_end(segments, segment, 0);
    set_rank(segments, segment, --segments->count);
    segments->all[segments->count] = NULL;
    unlink_number(segments, segment);
    list_remove(&segment->partition_node);
    segment->is_removed = true;
    segment->is_unlinked = unlink;
    segment->state = SEGMENT_LEAVING;
    settle(segment);
}

/* ---- pins ---- */

int segment_pin(struct segments *segments, struct segment *segment, struct segment_pin *pin)
{
    assert(!segment->is_removed); /* invariant 5 */
    segment->pins++;
    segments->pin_count++;
    pin->segment = segment;
    if (segment->handle >= 0) {
        if (list_node_is_linked(&segment->handle_node))
            list_remove(&segment->handle_node);
        return segment->handle;
    }
    list_push_back(&segment->waiters, &pin->node);
    if (!io_op_is_active(&segment->op))
        open_file(segment);
    return -EINPROGRESS;
}

void segment_unpin(struct segments *segments, struct segment *segment)
{
    assert(segment->pins > 0);       /* invariant 5 */
    assert(segment->handle >= 0);    /* invariant 5 */
    assert(segments->pin_count > 0); /* invariant 5 */
    segment->pins--;
    segments->pin_count--;
    settle(segment);
}

bool segments_are_busy(const struct segments *segments)
{
    if (segments->pin_count > 0 || segments->place_count > segments->count ||
        segments_removal_is_active(&segments->removal))
        return true;
    for (uint32_t i = 0; i < segments->count; i++)
        if (io_op_is_active(&segments->all[i]->op))
            return true;
    return false;
}

int segments_shut(struct segments *segments)
{
    segments_set_hurry(segments, true);
    for (;;) {
        for (struct list_node *node; (node = list_first(&segments->idle)) != NULL;)
            close_file(container_of(node, struct segment, handle_node));
        if (!segments_are_busy(segments))
            return 0;
        int result = io_run(segments->io, UINT64_MAX);
        if (result < 0)
            return result;
    }
}

void segments_set_hurry(struct segments *segments, bool is_hurried)
{
    segments_removal_set_hurry(&segments->removal, is_hurried);
}

bool segments_are_going(const struct segments *segments)
{
    return segments_removal_is_active(&segments->removal);
}
