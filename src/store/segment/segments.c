/* The table and its accounts. Files are segments_handle.c's. */
#include "store/segment/segments_internal.h"
#include "store/memory/location.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 64u
#define PATH_TAIL_SIZE sizeof("/ab/seg-0123456789abcdef")

int segments_create(struct io *io, const struct log *log, const struct segments_options *options,
                    struct segments **ret_segments)
{
    if (strlen(options->path) + PATH_TAIL_SIZE > SEGMENT_PATH_MAX)
        return -ENAMETOOLONG;
    struct segments *segments = calloc(1, sizeof *segments);
    if (segments == NULL)
        return -ENOMEM;
    segments->io = io;
    segments->log = log;
    segments->options = *options;
    for (uint32_t i = 0; i < SEGMENTS_PARTITIONS; i++)
        list_init(&segments->partitions[i]);
    list_init(&segments->empty);
    list_init(&segments->idle);
    list_init(&segments->going);
    *ret_segments = segments;
    return 0;
}

void segments_free(struct segments *segments)
{
    if (segments == NULL)
        return;
    for (uint32_t file = 0; file < segments->capacity; file++) {
        if (segments->files[file] == NULL)
            continue;
        free(segments->files[file]->path);
        free(segments->files[file]);
    }
    free(segments->files);
    free(segments->all);
    free(segments->numbers);
    free(segments);
}

/* ---- the table ---- */

static struct segment **bucket_of(const struct segments *segments, uint64_t number)
{
    return &segments->numbers[(number * 0x9E3779B97F4A7C15ull) >> 32 & (segments->capacity - 1)];
}

/* As many buckets as places. */
static int grow(struct segments *segments)
{
    if (segments->capacity == LOCATION_FILES_MAX)
        return -ENFILE;
    uint32_t capacity = segments->capacity == 0 ? CAPACITY_MIN : 2 * segments->capacity;
    struct segment **files = calloc(capacity, sizeof(struct segment *));
    struct segment **all = calloc(capacity, sizeof(struct segment *));
    struct segment **numbers = calloc(capacity, sizeof(struct segment *));
    if (files == NULL || all == NULL || numbers == NULL) {
        free(files);
        free(all);
        free(numbers);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < segments->capacity; i++) {
        files[i] = segments->files[i];
        all[i] = segments->all[i];
    }
    free(segments->files);
    free(segments->all);
    free(segments->numbers);
    segments->files = files;
    segments->all = all;
    segments->numbers = numbers;
    segments->capacity = capacity;
    for (uint32_t i = 0; i < segments->count; i++) {
        struct segment **bucket = bucket_of(segments, all[i]->number);
        all[i]->number_next = *bucket;
        *bucket = all[i];
    }
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
    struct segment *segment = error == 0 ? calloc(1, sizeof *segment) : NULL;
    if (segment == NULL)
        return error < 0 ? error : -ENOMEM;
    list_init(&segment->waiters);
    segment->owner = segments;
    segment->handle = -1;
    segment->partition = partition;
    segment->source = source;
    segment->number = number;
    segment->file = free_place(segments);
    segments->files[segment->file] = segment;
    segments->place_count++;
    segment->rank = segments->count;
    segments->all[segments->count++] = segment;
    struct segment **bucket = bucket_of(segments, number);
    segment->number_next = *bucket;
    *bucket = segment;
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
    struct segment *other = segments->all[rank];
    other->rank = segment->rank;
    segments->all[other->rank] = other;
    segment->rank = rank;
    segments->all[rank] = segment;
}

/* The ones in the manifest have the lowest ranks. */
static void change_end(struct segments *segments, struct segment *segment, uint64_t end)
{
    bool was_named = segment->end > 0;
    if (!was_named && end > 0)
        set_rank(segments, segment, segments->named_count++);
    else if (was_named && end == 0)
        set_rank(segments, segment, --segments->named_count);
    segments->stats.size_bytes += end - segment->end;
    segment->end = end;
    note_empty(segments, segment);
}

void segments_remove(struct segments *segments, struct segment *segment, bool unlink)
{
    assert(segment->live_records == 0 && !segment->is_removed);
    segment->file_left = segment->end;
    change_end(segments, segment, 0);
    set_rank(segments, segment, --segments->count);
    segments->all[segments->count] = NULL;
    unlink_number(segments, segment);
    list_remove(&segment->partition_node);
    segment->is_removed = true;
    segment->is_unlinked = unlink;
    segment->state = SEGMENT_LEAVING;
    segment_leave(segment);
}

void segment_free(struct segment *segment)
{
    struct segments *segments = segment->owner;
    segments->files[segment->file] = NULL;
    segments->place_count--;
    free(segment->path);
    free(segment);
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

const struct list *segments_of(const struct segments *segments, uint8_t partition)
{
    return &segments->partitions[partition];
}

static struct segment *segment_of(struct list_node *node)
{
    return node != NULL ? container_of(node, struct segment, partition_node) : NULL;
}

struct segment *segments_first(const struct segments *segments, uint32_t partition)
{
    return segment_of(list_first(segments_of(segments, (uint8_t)partition)));
}

struct segment *segment_next(const struct segment *segment)
{
    const struct list *list = segments_of(segment->owner, segment->partition);
    return segment_of(list_next(list, &segment->partition_node));
}

/* ---- names ---- */

void segment_path(const struct segments *segments, const struct segment *segment, char *ret_path)
{
    (void)snprintf(ret_path, SEGMENT_PATH_MAX, "%s/%02x/seg-%016" PRIx64, segments->options.path,
                   segment->partition, segment->number);
}

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

void segment_set_end(struct segments *segments, struct segment *segment, uint64_t end)
{
    assert(!segment->is_removed);
    change_end(segments, segment, end);
}

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
    struct segment *segment = segments_find(segments, location_file(location));
    assert(segment != NULL && segment->live_records > 0 && segment->live_bytes >= read_size);
    segment->live_records--;
    segment->live_bytes -= read_size;
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
    struct segment *segment = segments_find(segments, location_file(location));
    assert(segment != NULL && segment->live_bytes - segment->doomed_bytes >= read_size);
    segment->doomed_bytes += read_size;
    segments->stats.doomed_bytes += read_size;
}

void segment_record_spared(struct segments *segments, uint64_t location, uint64_t read_size)
{
    struct segment *segment = segments_find(segments, location_file(location));
    assert(segment != NULL && segment->doomed_bytes >= read_size);
    segment->doomed_bytes -= read_size;
    segments->stats.doomed_bytes -= read_size;
}

bool segments_have_empty(const struct segments *segments)
{
    for (struct list_node *node = list_first(&segments->empty); node != NULL;
         node = list_next(&segments->empty, node)) {
        const struct segment *segment = container_of(node, struct segment, empty_node);
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
