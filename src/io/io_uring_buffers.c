/* Leased receive buffers: one ring of them, from which the kernel takes one for each receive that
 * has bytes. A completion borrows it, and gives it back before the next one runs. */
#include "io/io_uring.h"

#include "base/memory.h"

#include <errno.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#define BUFFER_GROUP 0
#define BUFFERS_MAX 32768

static uint8_t *buffer_at(const struct buffers *buffers, uint32_t id)
{
    assert(id < buffers->count);
    return buffers->memory + (size_t)id * buffers->size;
}

static void put(struct buffers *buffers, uint32_t id)
{
    uint8_t *buffer = buffer_at(buffers, id);
    ASAN_POISON_MEMORY_REGION(buffer, buffers->size);
    io_uring_buf_ring_add(buffers->ring, buffer, buffers->size, (unsigned short)id,
                          io_uring_buf_ring_mask(buffers->count), buffers->unpublished);
    buffers->unpublished++;
}

int buffers_open(struct buffers *buffers, struct io_uring *ring, const struct io_options *options)
{
    uint32_t size = options->receive_buffer_size;
    uint32_t count = options->receive_buffer_count;
    assert(size > 0 && (size & (size - 1)) == 0);
    assert(count > 0 && count <= BUFFERS_MAX && (count & (count - 1)) == 0);
    void *memory = memory_map((uint64_t)size * count);
    if (memory == NULL)
        return -ENOMEM;
    int error = 0;
    buffers->ring = io_uring_setup_buf_ring(ring, count, BUFFER_GROUP, 0, &error);
    if (buffers->ring == NULL) {
        memory_unmap(memory, (uint64_t)size * count);
        return error;
    }
    buffers->memory = memory;
    buffers->size = size;
    buffers->count = count;
    buffers->is_multishot = !options->receive_single;
    for (uint32_t id = 0; id < count; id++)
        put(buffers, id);
    (void)buffers_publish(buffers);
    return 0;
}

void buffers_close(struct buffers *buffers, struct io_uring *ring)
{
    size_t size = (size_t)buffers->size * buffers->count;
    ASAN_UNPOISON_MEMORY_REGION(buffers->memory, size);
    (void)io_uring_free_buf_ring(ring, buffers->ring, buffers->count, BUFFER_GROUP);
    memory_unmap(buffers->memory, size);
}

void buffers_prepare(const struct buffers *buffers, struct io_uring_sqe *sqe, int socket)
{
    if (buffers->is_multishot)
        io_uring_prep_recv_multishot(sqe, socket, NULL, 0, 0);
    else
        io_uring_prep_recv(sqe, socket, NULL, buffers->size, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT);
    io_uring_sqe_set_buf_group(sqe, BUFFER_GROUP);
}

const uint8_t *buffers_lend(const struct buffers *buffers, uint32_t cqe_flags, uint32_t size)
{
    assert(size <= buffers->size);
    const uint8_t *data = buffer_at(buffers, cqe_flags >> IORING_CQE_BUFFER_SHIFT);
    ASAN_UNPOISON_MEMORY_REGION(data, size);
    return data;
}

void buffers_put(struct buffers *buffers, uint32_t cqe_flags)
{
    put(buffers, cqe_flags >> IORING_CQE_BUFFER_SHIFT);
}

void buffers_hint(const struct buffers *buffers, const struct io_op *op,
                  const struct io_uring_cqe *cqe, bool is_next)
{
    uint32_t size = (uint32_t)cqe->res;
    const uint8_t *data = buffers_lend(buffers, cqe->flags, size);
    op->hint(op, data, size, is_next);
    ASAN_POISON_MEMORY_REGION(data, size);
}

uint32_t buffers_publish(struct buffers *buffers)
{
    if (buffers->unpublished > 0) {
        io_uring_buf_ring_advance(buffers->ring, buffers->unpublished);
        buffers->unpublished = 0;
    }
    return buffers->count;
}
