/* Bytes of a large value: copied, filtered or decoded into its file's buffers. */
#include "net/client/upload_internal.h"

#include "base/assert.h"

#include <string.h>

static struct loop *server_of(const struct upload *upload)
{
    return upload->connection->server;
}

uint8_t *upload_get_buffer(struct upload *upload, uint32_t *ret_room)
{
    struct value_writer *writer = store_upload_writer(upload->file);
    uint8_t *buffer = value_writer_buffer(writer, ret_room);
    if (buffer != NULL)
        return buffer;
    int error = value_writer_error(writer);
    if (error < 0)
        upload_fail(upload, shard_upload_status(error));
    else
        upload_wait(upload);
    return NULL;
}

void upload_fill_buffer(struct upload *upload, uint32_t size)
{
    int result = value_writer_filled(store_upload_writer(upload->file), size);
    if (result < 0)
        upload_fail(upload, shard_upload_status(result));
}

/* ---- bytes ---- */

/* `filter`: what is left of the bytes; NULL: all. */
static uint64_t copy(struct upload *upload, upload_filter *filter, const uint8_t *data,
                     uint64_t size)
{
    uint64_t used = 0;
    while (used < size && upload->state == UPLOAD_RECEIVING) {
        uint32_t room = 0;
        uint8_t *buffer = upload_get_buffer(upload, &room);
        if (buffer == NULL)
            break;
        uint32_t part = (uint32_t)min_u64(room, size - used);
        uint32_t filled = part;
        uint8_t status = MINIVAULT_OK;
        if (filter != NULL)
            status = filter(upload->connection, data + used, part, buffer, &filled);
        else
            memcpy(buffer, data + used, part);
        used += part;
        upload_fill_buffer(upload, filled);
        if (status != MINIVAULT_OK && upload->state == UPLOAD_RECEIVING)
            upload_fail(upload, status);
    }
    return used;
}

void upload_take_begin(struct upload *upload)
{
    uint64_t used = copy(upload, NULL, upload->begin.data, upload->begin.size);
    upload->begin.data += used;
    upload->begin.size -= (uint32_t)used;
}

/* One call of the decoder. Returns false when there is nothing more to do now. */
static bool decode_piece(struct upload *upload, struct decompressor_buffers *buffers)
{
    uint32_t room = 0;
    uint8_t *output = upload_get_buffer(upload, &room);
    buffers->input_used = 0;
    buffers->output_used = 0;
    if (output == NULL)
        return false;
    buffers->output = output;
    buffers->output_size = min_u64(room, buffers->output_size);
    int result = decompressor_move(upload->decoder.context, buffers);
    if (result < 0) {
        upload_fail(upload, shard_decode_status(result));
        return false;
    }
    upload->is_decoded = result == 1;
    if (buffers->output_used > 0)
        upload_fill_buffer(upload, (uint32_t)buffers->output_used);
    return upload->state == UPLOAD_RECEIVING && !upload->is_decoded &&
           buffers->input_used + buffers->output_used > 0;
}

/* A slice of a frame. */
static uint64_t decode(struct upload *upload, const uint8_t *data, uint64_t size)
{
    uint64_t used = 0;
    uint64_t made = 0;
    bool goes_on = true;
    while (goes_on && used < DECODE_SLICE_SIZE && made < DECODE_SLICE_SIZE) {
        struct decompressor_buffers buffers = {
            .input = data + used,
            .input_size = min_u64(size - used, DECODE_SLICE_SIZE - used),
            .output_size = DECODE_SLICE_SIZE - made,
        };
        goes_on = decode_piece(upload, &buffers);
        used += buffers.input_used;
        made += buffers.output_used;
    }
    if (goes_on) {
        upload->is_sliced = true;
        connection_wake(upload->connection);
    }
    return used;
}

/* What the frame says of itself, so that a full disk shows early. What it says too much is the
 * decoder's to refuse; where it says nothing, the file grows until the frame is refused, so that
 * this costs no more than the largest value. */
static bool open_file_of_frame(struct upload *upload, const uint8_t *data, uint64_t size)
{
    uint64_t declared = compress_declared_size(data, size);
    bool is_possible = declared <= server_of(upload)->config->value_size_max;
    return upload_open_file(upload, is_possible ? declared : 0);
}

/* A decoder comes first, so that who waits for one holds nothing else. */
static uint64_t take_frame(struct upload *upload, const uint8_t *data, uint64_t size)
{
    if (upload->decoder.error < 0) {
        upload_fail(upload, MINIVAULT_OVERLOADED);
        return 0;
    }
    if (upload->decoder.context == NULL) {
        upload_wait(upload);
        return 0;
    }
    if (upload->file == NULL && !open_file_of_frame(upload, data, size))
        return 0;
    return decode(upload, data, size);
}

uint64_t upload_take_bytes(struct upload *upload, const uint8_t *data, uint64_t size)
{
    if (upload->is_frame)
        return take_frame(upload, data, size);
    return copy(upload, upload->filter, data, size);
}
