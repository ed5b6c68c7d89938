/* Clients of value files for the tests: uploads that fill a writer as it has room, downloads that
 * check what a reader shows. Byte i of stream s is known: support.h. */
#ifndef TESTS_STORE_VALUE_VALUE_STREAMS_H
#define TESTS_STORE_VALUE_VALUE_STREAMS_H

#include "store/value/stream.h"
#include "tests/support/support.h"

#include <errno.h>
#include <stdio.h>

struct upload {
    struct value_writer *writer;
    uint32_t stream;
    uint64_t size;
    uint64_t sent;
    uint64_t pause_at; /* the client stalls when it has sent this much; 0: it does not */
    uint32_t part_max; /* bytes that arrive at once; 0: as many as there is room for */
    uint32_t finishes; /* events */
    int result;
};

static inline struct value_file_name upload_name(uint32_t stream)
{
    return (struct value_file_name){
        .partition = (uint8_t)(stream % 3),
        .key_hash = 0x0123456789ABCDEFu + stream,
        .version = {.clock = stream, .origin = 0xFEDCBA98u},
    };
}

/* Sends what there is room for; the last byte finishes. */
static inline void upload_pump(struct upload *upload)
{
    while (upload->sent < upload->size) {
        uint64_t end = upload->pause_at != 0 ? upload->pause_at : upload->size;
        if (upload->sent == end)
            return;
        uint32_t room;
        uint8_t *data = value_writer_buffer(upload->writer, &room);
        if (data == NULL)
            break;
        uint32_t part = (uint32_t)min_u64(room, end - upload->sent);
        if (upload->part_max != 0)
            part = (uint32_t)min_u64(part, upload->part_max);
        stream_fill(upload->stream, upload->sent, data, part);
        upload->sent += part;
        if (value_writer_filled(upload->writer, part) < 0)
            break;
    }
    if (upload->sent == upload->size || value_writer_error(upload->writer) != 0)
        value_writer_finish(upload->writer);
}

static inline void upload_on_room(void *context)
{
    upload_pump(context);
}

static inline void upload_on_finished(void *context, int result)
{
    struct upload *upload = context;
    upload->finishes++;
    upload->result = result;
    cr_assert_eq(value_writer_error(upload->writer), result);
}

/* The caller set stream and size, and what else it wants. */
static inline void upload_open(struct upload *upload, struct stream_pool *pool, uint64_t size_hint)
{
    struct value_file_name name = upload_name(upload->stream);
    struct value_writer_events events = {upload, upload_on_room, upload_on_finished};
    cr_assert_eq(
        value_writer_open(pool, &name, VALUE_FILE_SIZE_MAX, size_hint, &events, &upload->writer),
        0);
}

/* Goes on after a pause. */
static inline void upload_resume(struct upload *upload)
{
    upload->pause_at = 0;
    upload_pump(upload);
}

struct download {
    struct value_reader *reader;
    uint32_t stream;
    uint64_t size;
    uint64_t received;
    uint64_t pause_at; /* the client stalls with the piece that reaches this; 0: it does not */
    bool holds_piece;
    bool has_ended;
    int result;
    struct value_told told; /* of a failure; its path is in `path` */
    char path[200];
};

static inline void download_pump(struct download *download)
{
    while (!download->has_ended && !download->holds_piece) {
        uint32_t size = 0;
        const uint8_t *data = value_reader_piece(download->reader, &size);
        if (data == NULL) {
            download->result = value_reader_error(download->reader);
            download->told = value_reader_tell(download->reader);
            (void)snprintf(download->path, sizeof download->path, "%s", download->told.path);
            download->has_ended = download->result != 0 || download->received == download->size;
            return;
        }
        cr_assert(size > 0 && size <= VALUE_FILE_BUFFER_SIZE);
        cr_assert(stream_matches(download->stream, download->received, data, size));
        download->received += size;
        if (download->pause_at != 0 && download->received >= download->pause_at)
            download->holds_piece = true;
        else
            value_reader_release(download->reader);
    }
}

static inline void download_on_ready(void *context)
{
    download_pump(context);
}

static inline void download_open(struct download *download, struct stream_pool *pool,
                                 struct slice descriptor)
{
    struct value_file_name name = upload_name(download->stream);
    struct value_reader_events events = {download, download_on_ready};
    cr_assert_eq(value_reader_open(pool, &name, descriptor, &events, &download->reader), 0);
    cr_assert_eq(value_file_descriptor_check(descriptor, &download->size), 0);
}

static inline void download_resume(struct download *download)
{
    download->pause_at = 0;
    download->holds_piece = false;
    value_reader_release(download->reader);
    download_pump(download);
}

/* A descriptor that outlives its writer. */
struct kept_descriptor {
    uint8_t bytes[VALUE_FILE_DESCRIPTOR_MAX];
    uint32_t size;
};

static inline void keep_descriptor(struct kept_descriptor *kept, const struct value_writer *writer)
{
    struct slice descriptor = value_writer_descriptor(writer);
    cr_assert_leq(descriptor.size, sizeof kept->bytes);
    memcpy(kept->bytes, descriptor.data, descriptor.size);
    kept->size = descriptor.size;
}

static inline struct slice kept_slice(const struct kept_descriptor *kept)
{
    return (struct slice){kept->bytes, kept->size};
}

/* Nobody holds or wants anything. */
static inline void assert_pool_is_whole(const struct stream_pool *pool)
{
    cr_assert(!stream_pool_is_busy(pool));
    cr_assert_eq(pool->free_count, pool->count);
    cr_assert_eq(pool->poor_count, 0);
    cr_assert_eq(pool->waiting_count, 0);
    cr_assert_eq(stream_pool_streams(pool), 0);
    cr_assert(list_is_empty(&pool->rich));
}

#endif
