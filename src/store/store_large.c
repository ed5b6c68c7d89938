#include "store/store_large.h"

#include "base/assert.h"
#include "store/store_internal.h"

#include <errno.h>
#include <stdlib.h>

struct store_upload {
    struct store *store;
    struct value_writer *writer; /* NULL: of another store, the file is finished */
    struct store_file file;      /* the name from the begin, the rest once it is finished */
    uint64_t reserved;           /* of store->reserved_bytes */
    bool is_committed;
};

bool store_has_stream(struct store *store)
{
    if (stream_pool_streams(store->streams) < STORE_STREAMS_MAX)
        return true;
    store->starved = true;
    return false;
}

/* ---- uploads ---- */

/* What a client says of its value's size is believed, and reserved on the disk, only for so much:
 * those who declare and do not send shall not fill it. */
#define RESERVED_SHARE 8u

static uint64_t reserve(struct store *store, uint64_t size)
{
    uint64_t free_size = 0;
    uint64_t total_size;
    (void)io_disk_space(store->io, store->options.path, &free_size, &total_size);
    if (store->reserved_bytes + size > free_size / RESERVED_SHARE / store->options.shard_count)
        return 0;
    store->reserved_bytes += size;
    return size;
}

/* What lies in files could take all that moving records needs, and that the next start needs. */
static bool has_room(const struct store *store, uint64_t size)
{
    uint64_t free_size, total_size;
    return io_disk_space(store->io, store->options.path, &free_size, &total_size) < 0 ||
           free_size >=
               store->options.shard_count * (store->reserve.size + store->reserved_bytes) + size;
}

enum store_status store_upload_begin(struct store *store, struct slice key, uint64_t size_hint,
                                     const struct version *version,
                                     const struct value_writer_events *events,
                                     struct store_upload **ret_upload)
{
    assert(key.size > 0);
    if (store->failed != 0)
        return STORE_FAILED;
    if (!wal_has_space(store->wal) || reserve_is_released(&store->reserve) ||
        !has_room(store, size_hint))
        return STORE_NO_SPACE;
    struct store_upload *upload = calloc(1, sizeof *upload);
    if (upload == NULL)
        return STORE_BUSY;
    struct key_place place = store_place(store, key);
    upload->store = store;
    upload->file.name = (struct value_file_name){
        .partition = (uint8_t)place.partition,
        .key_hash = place.key_hash,
        .version = version != NULL ? *version : store_stamp(store),
    };
    upload->reserved = reserve(store, size_hint);
    int result =
        value_writer_open(store->streams, &upload->file.name, store->options.value_size_max,
                          upload->reserved, events, &upload->writer);
    if (result < 0) {
        store->reserved_bytes -= upload->reserved;
        free(upload);
        return store_upload_status(result);
    }
    *ret_upload = upload;
    return STORE_OK;
}

struct value_writer *store_upload_writer(const struct store_upload *upload)
{
    return upload->writer;
}

enum store_status store_upload_status(int error)
{
    switch (error) {
    case -ENOSPC:
    case -EDQUOT:
        return STORE_NO_SPACE;
    case -EFBIG:
        return STORE_TOO_LARGE;
    case -ENOMEM:
    case -EMFILE:
    case -ENFILE:
        return STORE_BUSY;
    default:
        return STORE_FAILED;
    }
}

enum store_status store_upload_commit(struct store_upload *upload, struct slice key,
                                      uint64_t *ret_gate)
{
    assert(!upload->is_committed);
    struct plan plan;
    enum store_status status = plan_write(upload->store, key, &plan);
    if (status != STORE_OK)
        return status;
    const struct store_file *file = store_upload_file(upload);
    struct record record = {
        .key = key,
        .value = file->descriptor,
        .decoded_size = file->size,
        .flags = RECORD_IN_VALUE_FILE,
    };
    status = plan_commit(upload->store, &plan, &record, file->descriptor, ret_gate);
    upload->is_committed = status == STORE_OK;
    return status;
}

const struct store_file *store_upload_file(struct store_upload *upload)
{
    if (upload->writer != NULL) {
        upload->file.descriptor = value_writer_descriptor(upload->writer);
        upload->file.size = (uint32_t)value_writer_size(upload->writer);
    }
    return &upload->file;
}

struct store_upload *store_adopt(struct store *store, const struct store_file *file)
{
    struct store_upload *upload = calloc(1, sizeof *upload);
    if (upload == NULL)
        return NULL;
    upload->store = store;
    upload->file = *file;
    return upload;
}

bool store_upload_is_committed(const struct store_upload *upload)
{
    return upload->is_committed;
}

void store_upload_hand_over(struct store_upload *upload)
{
    upload->is_committed = true;
}

void store_upload_close(struct store_upload *upload)
{
    struct store *store = upload->store;
    if (upload->writer != NULL)
        value_writer_close(upload->writer, upload->is_committed);
    store->reserved_bytes -= upload->reserved;
    free(upload);
    store_made_room(store);
}

void store_upload_forget(struct store_upload *upload)
{
    free(upload);
}

/* ---- downloads ---- */

int store_download_open(struct store *store, const struct store_value *value,
                        const struct value_reader_events *events, struct value_reader **ret_reader)
{
    assert(value->in_value_file);
    return value_reader_open(store->streams, &value->file, (struct slice){value->data, value->size},
                             events, ret_reader);
}

void store_download_close(struct store *store, struct value_reader *reader)
{
    value_reader_close(reader);
    store_made_room(store);
}

/* ---- files that others read ---- */

struct loan {
    struct list_node node;
    struct value_file_name name;
    uint32_t count;
    bool is_dead; /* its removal came meanwhile */
};

static struct loan *find_loan(const struct store *store, const struct value_file_name *name)
{
    struct list_node *node = list_first(&store->loans);
    for (; node != NULL; node = list_next(&store->loans, node)) {
        struct loan *loan = container_of(node, struct loan, node);
        if (loan->name.key_hash == name->key_hash && loan->name.partition == name->partition &&
            version_compare(loan->name.version, name->version) == 0)
            return loan;
    }
    return NULL;
}

bool store_lend_file(struct store *store, const struct value_file_name *file)
{
    struct loan *loan = find_loan(store, file);
    if (loan == NULL) {
        loan = calloc(1, sizeof *loan);
        if (loan == NULL)
            return false;
        loan->name = *file;
        list_push_back(&store->loans, &loan->node);
    }
    loan->count++;
    return true;
}

void store_take_back_file(struct store *store, const struct value_file_name *file)
{
    struct loan *loan = find_loan(store, file);
    assert(loan != NULL && loan->count > 0);
    if (--loan->count > 0)
        return;
    if (loan->is_dead)
        value_file_remove(store->streams, &loan->name);
    list_remove(&loan->node);
    free(loan);
}

/* ---- files that died ---- */

struct removal {
    struct list_node node;
    uint64_t killer_position;
    struct value_file_name name;
};

static void remove_file(struct store *store, const struct value_file_name *name)
{
    struct loan *loan = find_loan(store, name);
    if (loan != NULL)
        loan->is_dead = true;
    else
        value_file_remove(store->streams, name);
}

void large_file_dead(struct store *store, const struct value_file_name *name,
                     uint64_t killer_position)
{
    struct removal *removal = calloc(1, sizeof *removal);
    if (removal == NULL)
        return; /* an orphan: the next start removes it */
    removal->killer_position = killer_position;
    removal->name = *name;
    list_push_back(&store->removals, &removal->node);
}

void large_flush(struct store *store)
{
    /* Killers stand in the log in about this order: what is behind one that must wait, waits. */
    uint64_t durable = wal_durable(store->wal);
    for (struct list_node *node; (node = list_first(&store->removals)) != NULL;) {
        struct removal *removal = container_of(node, struct removal, node);
        if (removal->killer_position > durable)
            return;
        list_remove(node);
        remove_file(store, &removal->name);
        free(removal);
    }
}

/* ---- opening and closing ---- */

uint32_t large_value_min(const struct store_options *options)
{
    return options->value_file_min != 0 ? options->value_file_min : (uint32_t)VALUE_FILE_MIN;
}

uint32_t large_stored_max(const struct store_options *options)
{
    return (uint32_t)compress_bound(large_value_min(options));
}

uint32_t store_value_file_min(const struct store *store)
{
    return large_value_min(&store->options);
}

uint32_t store_frame_size_max(const struct store *store)
{
    return large_stored_max(&store->options);
}

uint64_t large_memory_size(const struct store_options *options)
{
    uint64_t count = options->stream_buffers;
    return (count != 0 ? count : STORE_STREAM_BUFFERS) * VALUE_FILE_BUFFER_SIZE;
}

int large_open(struct store *store, uint8_t *memory)
{
    list_init(&store->removals);
    list_init(&store->loans);
    uint32_t count = (uint32_t)(large_memory_size(&store->options) / VALUE_FILE_BUFFER_SIZE);
    return stream_pool_create(store->io, store->log, store->options.path, memory, count,
                              &store->streams);
}

bool large_is_busy(const struct store *store)
{
    return stream_pool_is_busy(store->streams);
}

void large_free(struct store *store)
{
    if (store->streams == NULL)
        return;
    for (struct list_node *node; (node = list_pop_front(&store->removals)) != NULL;)
        free(container_of(node, struct removal, node));
    for (struct list_node *node; (node = list_pop_front(&store->loans)) != NULL;)
        free(container_of(node, struct loan, node));
    stream_pool_free(store->streams);
}
