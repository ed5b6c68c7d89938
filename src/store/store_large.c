/* Large values: uploads and downloads between the store and its value files. */
#include "store/store_large.h"

#include "base/assert.h"
#include "store/admission.h"
#include "store/store_internal.h"
#include "store/store_keys.h"

#include <errno.h>
#include <inttypes.h>
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
    uint64_t free_size, total_size;
    if (io_disk_space(store->io, store->options.path, &free_size, &total_size) < 0)
        return 0;
    if (store->reserved_bytes + size > free_size / RESERVED_SHARE / store->options.shard_count)
        return 0;
    store->reserved_bytes += size;
    return size;
}

enum store_status store_upload_begin(struct store *store, struct slice key, uint64_t size_hint,
                                     const struct version *version,
                                     const struct value_writer_events *events,
                                     struct store_upload **ret_upload)
{
    assert(key.size > 0);
    enum admission admission = admission_of_file(store, size_hint);
    if (admission != ADMISSION_OPEN)
        return admission_refuse(store, "a large value", admission);
    if (version == NULL && !store_takes_key(store, key))
        return STORE_NO_MEMORY;
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
        return store_upload_failed(store, result);
    }
    *ret_upload = upload;
    return STORE_OK;
}

struct value_writer *store_upload_writer(const struct store_upload *upload)
{
    return upload->writer;
}

enum store_status store_upload_failed(struct store *store, int error)
{
    return admission_failed(store, "a large value", error);
}

enum store_status store_upload_commit(struct store_upload *upload, struct slice key,
                                      uint64_t *ret_gate)
{
    assert(!upload->is_committed);
    struct plan plan;
    if (!store_takes_key(upload->store, key))
        return STORE_NO_MEMORY;
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
    assert(upload->store != NULL);
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
    assert(store->reserved_bytes >= upload->reserved);
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

static struct finding finding_in(const struct value_file_name *name, uint64_t offset)
{
    return (struct finding){.kind = FINDING_VALUE,
                            .number = name->version.clock,
                            .origin = name->version.origin,
                            .offset = offset};
}

int store_download_error(struct store *store, const struct value_reader *reader)
{
    int error = value_reader_error(reader);
    if (error == 0 || error == -ENOENT)
        return error;
    struct value_told told = value_reader_tell(reader);
    struct finding finding = finding_in(&told.name, told.offset);
    if (error == -EBADMSG)
        findings_damage(&store->findings, &finding, true,
                        "%s is damaged at offset %" PRIu64
                        ": %s. What is damaged is never shown: write its key again, or restore it "
                        "from a replica or a backup, and check the device",
                        told.path, told.offset, told.what);
    else
        findings_unreadable(&store->findings, &finding, told.path, error);
    return error;
}

void store_download_missing(struct store *store, const struct value_file_name *name)
{
    char text[VALUE_FILE_NAME_SIZE];
    struct finding finding = finding_in(name, 0);
    value_file_name_write(name, text);
    findings_damage(
        &store->findings, &finding, true,
        "%s%s is missing: its key answers CORRUPT until it is written again or restored "
        "from a replica or a backup",
        store->options.path, text);
}

void store_download_close(struct store *store, struct value_reader *reader)
{
    struct value_told told = value_reader_tell(reader);
    struct finding finding = finding_in(&told.name, 0);
    if (told.is_read)
        findings_readable(&store->findings, &finding);
    value_reader_close(reader);
    store_made_room(store);
}

/* ---- sizes ---- */

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
