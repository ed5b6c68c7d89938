/* Sending: gathered, whole, in order, also to somebody who does not read for a while. */
#include "base/prng.h"
#include "tests/support/support.h"

static void fill_slices(struct io_send *send, uint8_t *data, const uint32_t *sizes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        send->slices[i] = (struct iovec){data, sizes[i]};
        data += sizes[i];
    }
}

Test(io_send, one_slice_arrives)
{
    struct world *world = world_open(NULL);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    uint8_t data[1000];
    stream_fill(1, 0, data, sizeof data);
    struct io_send send = {.slices[0] = {data, sizeof data}};
    io_send(world_io(world), &send, socket, 1);
    cr_assert_eq(io_wait(world_io(world), &send.op), 1000);
    uint64_t received = 0;
    RUN_UNTIL(world, peer_receive_stream(world, peer, 1, &received, 5000) && received == 1000);
    world_close(world);
}

Test(io_send, slices_of_several_megabytes_arrive_whole_and_in_order)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    static const uint32_t sizes[IO_SLICES_MAX] = {3 << 20, 1, 2 << 20, 4096,
                                                  5 << 20, 7, 1,       3 << 20};
    uint64_t total = 0;
    for (int i = 0; i < IO_SLICES_MAX; i++)
        total += sizes[i];
    uint8_t *data = malloc(total);
    stream_fill(2, 0, data, total);
    struct io_send send = {.op.done = NULL};
    fill_slices(&send, data, sizes, IO_SLICES_MAX);
    io_send(io, &send, socket, IO_SLICES_MAX);
    uint64_t received = 0;
    RUN_UNTIL(world, peer_receive_stream(world, peer, 2, &received, 100000) && received == total);
    cr_assert_eq(io_wait(io, &send.op), (int32_t)total);
    free(data);
    world_close(world);
}

Test(io_send, waits_for_a_peer_that_does_not_read)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    size_t size = 24 * MIB;
    uint8_t *data = malloc(size);
    stream_fill(3, 0, data, size);
    struct io_send send = {.slices[0] = {data, size}};
    io_send(io, &send, socket, 1);
    for (int i = 0; i < 30; i++)
        run_passes(world, 1);
    cr_assert(io_op_is_active(&send.op));
    uint64_t received = 0;
    RUN_UNTIL(world, peer_receive_stream(world, peer, 3, &received, MIB) && received == size);
    cr_assert_eq(io_wait(io, &send.op), (int32_t)size);
    free(data);
    world_close(world);
}

Test(io_send, cancelled_one_ends)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    size_t size = 24 * MIB;
    uint8_t *data = calloc(1, size);
    for (uint32_t count = 1; count <= 2; count++) {
        struct io_send send = {.slices = {{data, size / 2}, {data + size / 2, size / 2}}};
        io_send(io, &send, socket, count);
        run_passes(world, 3);
        cr_assert(io_op_is_active(&send.op));
        io_cancel(io, &send.op);
        int32_t result = io_wait(io, &send.op);
        cr_assert(result == -ECANCELED, "%d", result);
    }
    free(data);
    world_close(world);
}

Test(io_send, to_a_closed_peer_is_an_error_not_a_signal)
{
    struct world *world = world_open(NULL);
    struct io *io = world_io(world);
    struct contract_server server;
    int peer;
    int socket = contract_server_connected(&server, world, &peer);
    world_peer_reset(world, peer);
    run_passes(world, 20);
    uint8_t data[100] = {0};
    int32_t result = 100;
    for (int i = 0; i < 100 && result == 100; i++) {
        struct io_send send = {.slices[0] = {data, sizeof data}};
        io_send(io, &send, socket, 1);
        result = io_wait(io, &send.op);
        run_passes(world, 5);
    }
    cr_assert(result == -EPIPE || result == -ECONNRESET, "%d", result);
    world_close(world);
}

/* ---- an echo server under a crowd ---- */

#define CROWD 64
#define ECHO_BYTES 20000

struct echo {
    struct io_op receive;
    struct io_send send;
    struct world *world;
    struct prng *prng;
    int socket;
    uint8_t pending[ECHO_BYTES];
    uint32_t pending_size; /* received */
    uint32_t sent_size;    /* of them, sent */
};

static void echo_pump(struct echo *echo)
{
    uint32_t left = echo->pending_size - echo->sent_size;
    if (left == 0 || io_op_is_active(&echo->send.op))
        return;
    uint32_t sizes[IO_SLICES_MAX], count = 0;
    uint32_t wanted = 1 + (uint32_t)prng_below(echo->prng, IO_SLICES_MAX);
    uint8_t *from = echo->pending + echo->sent_size;
    while (count < wanted && left > 0) {
        uint32_t size = count + 1 == wanted ? left : 1 + (uint32_t)prng_below(echo->prng, left);
        sizes[count++] = size;
        left -= size;
    }
    fill_slices(&echo->send, from, sizes, count);
    io_send(world_io(echo->world), &echo->send, echo->socket, count);
}

static void echo_sent(struct io_op *op, int32_t result)
{
    struct echo *echo = container_of(op, struct echo, send.op);
    cr_assert_gt(result, 0);
    echo->sent_size += (uint32_t)result;
    echo_pump(echo);
}

static void echo_received(struct io_op *op, int32_t result)
{
    struct echo *echo = container_of(op, struct echo, receive);
    if (result <= 0)
        return;
    cr_assert_leq(echo->pending_size + (uint32_t)result, ECHO_BYTES);
    memcpy(echo->pending + echo->pending_size, op->data, (size_t)result);
    echo->pending_size += (uint32_t)result;
    echo_pump(echo);
}

static void echo_crowd(bool single)
{
    struct io_options options = WORLD_OPTIONS;
    options.receive_single = single;
    options.receive_buffer_count = 8;
    options.busy_poll_ns = 20 * NS_PER_US;
    struct world *world = world_open(&options);
    struct contract_server server;
    contract_server_open(&server, world);
    struct prng prng = {.state = 7};
    struct echo *echoes = calloc(CROWD, sizeof *echoes);
    int peers[CROWD];
    uint64_t sent[CROWD] = {0}, received[CROWD] = {0};
    for (uint32_t i = 0; i < CROWD; i++) {
        echoes[i].socket = server_connect(&server, &peers[i]);
        echoes[i].world = world;
        echoes[i].prng = &prng;
        echoes[i].receive.done = echo_received;
        echoes[i].send.op.done = echo_sent;
        io_receive(world_io(world), &echoes[i].receive, echoes[i].socket);
    }
    uint32_t finished = 0;
    while (finished < CROWD) {
        finished = 0;
        for (uint32_t i = 0; i < CROWD; i++) {
            uint64_t upto = min_u64(ECHO_BYTES, sent[i] + 1 + prng_below(&prng, 2000));
            peer_send_stream(world, peers[i], i, &sent[i], upto);
            cr_assert(peer_receive_stream(world, peers[i], i, &received[i], ECHO_BYTES));
            finished += received[i] == ECHO_BYTES;
        }
        run_passes(world, 1);
    }
    world_close(world);
    free(echoes);
}

Test(io_send, crowd_gets_its_own_bytes_back)
{
    echo_crowd(false);
}

Test(io_send, crowd_gets_its_own_bytes_back_by_single_receives)
{
    echo_crowd(true);
}
