/* The simulated world: it can be repeated, it crashes when it is told to, and it finds breaches of
 * the contract. */
#include "tests/support/sim_machine.h"

#define SIZE 8192u

/* Some traffic of every kind. Returns the trace. */
static uint64_t play(uint64_t seed)
{
    struct machine machine;
    machine_open(&machine, seed);
    int file = machine_open_file(&machine, "/f", FILE_FLAGS);
    uint8_t data[SIZE] = {0};
    struct io_op ops[16] = {0};
    for (uint32_t i = 0; i < 16; i++)
        io_write(machine.io, &ops[i], file, data, SIZE, i * SIZE, IO_WRITE_PLAIN);
    for (uint32_t i = 0; i < 16; i++)
        cr_assert_eq(machine_wait(&machine, &ops[i]), (int32_t)SIZE);
    machine_crash(&machine, SIM_POWER_LOSS);
    uint64_t hash = sim_trace_hash(machine.sim);
    machine_close(&machine);
    return hash;
}

Test(sim_world, same_seed_same_trace)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        cr_assert_eq(play(seed), play(seed));
        cr_assert_neq(play(seed), play(seed + 1));
    }
}

Test(sim_world, crash_ends_what_waits)
{
    struct machine machine;
    machine_open(&machine, 1);
    int file = machine_open_file(&machine, "/f", FILE_FLAGS);
    sim_host_crash_after(machine.io, 10, SIM_KILL);
    uint8_t data[SIZE] = {0};
    int32_t result = (int32_t)SIZE;
    uint32_t writes = 0;
    for (; result == (int32_t)SIZE; writes++)
        result = machine_write(&machine, file, data, SIZE, 0, IO_WRITE_PLAIN);
    cr_assert_eq(result, -ESHUTDOWN);
    cr_assert_leq(writes, 6, "a write takes two steps");
    cr_assert(sim_host_is_crashed(machine.io));
    cr_assert_eq(io_run(machine.io, 0), -ESHUTDOWN);
    cr_assert_eq(machine_open_file(&machine, "/f", IO_OPEN_READ), -ESHUTDOWN);
    cr_assert_eq(io_make_directory(machine.io, "/d"), -ESHUTDOWN);
    cr_assert_eq(io_lock_file(machine.io, file), -ESHUTDOWN);
    machine_close(&machine);
}

Test(sim_world, power_loss_takes_every_process_of_the_machine)
{
    static const struct io_options options = WORLD_OPTIONS;
    struct machine machine;
    machine_open(&machine, 1);
    struct io *second;
    sim_host_open(machine.sim, machine.disk, &options, &second);
    struct io *elsewhere;
    sim_host_open(machine.sim, sim_disk_create(machine.sim), &options, &elsewhere);
    sim_host_crash(machine.io, SIM_POWER_LOSS);
    cr_assert(sim_host_is_crashed(second));
    cr_assert_not(sim_host_is_crashed(elsewhere));
    io_close(second);
    io_close(elsewhere);
    machine_close(&machine);
}

Test(sim_world, lock_keeps_a_second_process_out)
{
    static const struct io_options options = WORLD_OPTIONS;
    struct machine first;
    machine_open(&first, 1);
    struct machine second = first;
    sim_host_open(second.sim, second.disk, &options, &second.io);
    int file = machine_open_file(&first, "/f", FILE_FLAGS);
    cr_assert_eq(io_lock_file(first.io, file), 0);
    cr_assert_eq(io_lock_file(first.io, file), 0, "it is ours already");
    int other = machine_open_file(&second, "/f", FILE_FLAGS);
    cr_assert_eq(io_lock_file(second.io, other), -EWOULDBLOCK);
    sim_host_crash(first.io, SIM_KILL);
    cr_assert_eq(io_lock_file(second.io, other), 0);
    io_close(second.io);
    machine_close(&first);
}

Test(sim_world, wall_clock_jumps_and_freezes_and_the_other_does_not)
{
    struct machine machine;
    machine_open(&machine, 1);
    uint64_t wall_ms = io_wall_ms(machine.io);
    uint64_t now_ns = io_now_ns(machine.io);
    sim_host_jump(machine.io, -600000);
    cr_assert_eq(io_wall_ms(machine.io), wall_ms - 600000);
    sim_host_freeze(machine.io, true);
    wall_ms = io_wall_ms(machine.io);
    cr_assert_eq(io_run(machine.io, NS_PER_S), 0);
    cr_assert_eq(io_wall_ms(machine.io), wall_ms);
    cr_assert_geq(io_now_ns(machine.io), now_ns + NS_PER_S);
    sim_host_freeze(machine.io, false);
    cr_assert_eq(io_run(machine.io, NS_PER_S), 0);
    cr_assert_gt(io_wall_ms(machine.io), wall_ms + 1000);
    machine_close(&machine);
}

/* ---- connections ---- */

struct pair {
    struct machine machine;
    struct probe accept;
    struct sim_peer *peer;
    int listener;
    int socket;
};

static void pair_open(struct pair *pair, uint64_t seed)
{
    uint16_t port;
    machine_open(&pair->machine, seed);
    struct io *io = pair->machine.io;
    cr_assert_eq(listen_alone(io, NULL, 0, 8, &pair->listener, &port), 0);
    probe_init(&pair->accept);
    io_accept(io, &pair->accept.op, pair->listener);
    pair->peer = sim_connect(io, port, NULL, NULL);
    while (pair->accept.count == 0)
        cr_assert_geq(io_run(io, NS_PER_MS), 0);
    pair->socket = pair->accept.result;
}

/* The shards of a node are worlds of one machine. */
Test(sim_world, worlds_of_a_machine_share_a_port)
{
    static const struct io_options options = WORLD_OPTIONS;
    struct machine machine;
    struct io *other;
    struct io_listener listeners[2] = {0};
    struct probe accepts[2];
    machine_open(&machine, 7);
    sim_host_open(machine.sim, machine.disk, &options, &other);
    struct io *worlds[2] = {machine.io, other};
    for (int i = 0; i < 2; i++) {
        uint16_t port = i == 0 ? 0 : listeners[0].port;
        cr_assert_eq(io_listen(worlds[i], NULL, port, 64, i == 0 ? IO_SHARE_FIRST : IO_SHARE_JOIN,
                               &listeners[i]),
                     0);
        probe_init(&accepts[i]);
        io_accept(worlds[i], &accepts[i].op, listeners[i].handle);
    }
    for (int i = 0; i < 40; i++)
        (void)sim_connect(machine.io, listeners[0].port, NULL, NULL);
    while (accepts[0].count + accepts[1].count < 40)
        for (int i = 0; i < 2; i++)
            cr_assert_geq(io_run(worlds[i], NS_PER_MS), 0);
    cr_assert_gt(accepts[0].count, 8);
    cr_assert_gt(accepts[1].count, 8);
    io_close(other);
    machine_close(&machine);
}

Test(sim_world, killed_process_closes_its_connections)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct pair pair;
        pair_open(&pair, seed);
        enum sim_crash crash = seed % 2 == 0 ? SIM_KILL : SIM_POWER_LOSS;
        machine_crash(&pair.machine, crash);
        sim_advance(pair.machine.sim, sim_now_ns(pair.machine.sim) + NS_PER_S);
        uint8_t byte;
        int64_t got = sim_peer_receive(pair.peer, &byte, 1);
        cr_assert_eq(got, crash == SIM_KILL ? 0 : -ECONNRESET);
        sim_peer_close(pair.peer);
        machine_close(&pair.machine);
    }
}

Test(sim_world, nobody_listens_and_the_connection_is_refused)
{
    struct machine machine;
    machine_open(&machine, 1);
    struct sim_peer *peer = sim_connect(machine.io, 1234, NULL, NULL);
    sim_advance(machine.sim, sim_now_ns(machine.sim) + NS_PER_S);
    uint8_t byte;
    cr_assert_eq(sim_peer_receive(peer, &byte, 1), -ECONNREFUSED);
    cr_assert_eq(sim_peer_send(peer, &byte, 1), -ECONNREFUSED);
    machine_close(&machine);
}

/* ---- breaches ---- */

/* A change of a buffer in flight. Without strict it shows as corruption. */
static void change_write(void *context)
{
    struct machine *machine = context;
    int file = machine_open_file(machine, "/f", FILE_FLAGS);
    static uint8_t data[SIZE];
    memset(data, 'a', SIZE);
    struct io_op op = {0};
    io_write(machine->io, &op, file, data, SIZE, 0, IO_WRITE_PLAIN);
    memset(data, 'b', SIZE);
    (void)machine_wait(machine, &op);
    uint8_t back[SIZE];
    cr_assert_eq(machine_read(machine, file, back, SIZE, 0), (int32_t)SIZE);
    cr_assert_eq(back[0], 'b');
}

Test(sim_world, buffer_reused_early_is_found)
{
    struct machine machine;
    machine_open(&machine, 1);
    cr_assert(is_refused(change_write, &machine));
    sim_options(machine.sim)->strict = false;
    change_write(&machine);
    machine_close(&machine);
}

static void change_send(void *context)
{
    struct pair *pair = context;
    static uint8_t data[64] = "before";
    struct io_send send = {.slices = {{data, sizeof data}}};
    io_send(pair->machine.io, &send, pair->socket, 1);
    data[0] = 'a';
    (void)machine_wait(&pair->machine, &send.op);
}

static void send_twice(void *context)
{
    struct pair *pair = context;
    static uint8_t data[64];
    static struct io_send sends[2];
    for (uint32_t i = 0; i < 2; i++) {
        sends[i].slices[0] = (struct iovec){data, sizeof data};
        io_send(pair->machine.io, &sends[i], pair->socket, 1);
    }
}

static void close_while_receiving(void *context)
{
    struct pair *pair = context;
    struct io_op receive = {.done = probe_done};
    struct io_op close = {0};
    io_receive(pair->machine.io, &receive, pair->socket);
    io_close_socket(pair->machine.io, &close, pair->socket);
}

static void use_unknown_socket(void *context)
{
    struct pair *pair = context;
    struct io_op op = {0};
    io_shutdown(pair->machine.io, &op, 77);
}

static void use_operation_twice(void *context)
{
    struct pair *pair = context;
    struct io_op op = {0};
    io_timer(pair->machine.io, &op, UINT64_MAX);
    io_timer(pair->machine.io, &op, UINT64_MAX);
}

static void read_unaligned(void *context)
{
    struct pair *pair = context;
    int file = machine_open_file(&pair->machine, "/f", FILE_FLAGS | IO_OPEN_DIRECT);
    static _Alignas(4096) uint8_t data[2 * 4096];
    (void)machine_read(&pair->machine, file, data + 512, 4096, 0);
}

static void wait_for_nothing(void *context)
{
    struct pair *pair = context;
    struct io_op op = {.done = probe_done};
    io_receive(pair->machine.io, &op, pair->socket);
    (void)machine_wait(&pair->machine, &op);
}

Test(sim_world, breaches_of_the_contract_are_found)
{
    struct pair pair;
    pair_open(&pair, 1);
    cr_assert(is_refused(change_send, &pair));
    cr_assert(is_refused(send_twice, &pair));
    cr_assert(is_refused(close_while_receiving, &pair));
    cr_assert(is_refused(use_unknown_socket, &pair));
    cr_assert(is_refused(use_operation_twice, &pair));
    cr_assert(is_refused(read_unaligned, &pair));
    cr_assert(is_refused(wait_for_nothing, &pair));
    machine_close(&pair.machine);
}

/* Lent bytes are copied: they are gone after the completion. */
struct keeper {
    struct io_op op;
    uint8_t copy[16];
    int32_t size;
};

static void keep_bytes(struct io_op *op, int32_t result)
{
    struct keeper *keeper = container_of(op, struct keeper, op);
    keeper->size = result;
    if (result > 0)
        memcpy(keeper->copy, op->data, (size_t)result);
}

Test(sim_world, peer_and_host_see_the_same_bytes)
{
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct pair pair;
        pair_open(&pair, seed);
        sim_network_options(pair.machine.sim)->split_ppm = 0;
        struct keeper keeper = {.op.done = keep_bytes};
        io_receive(pair.machine.io, &keeper.op, pair.socket);
        cr_assert_eq(sim_peer_send(pair.peer, "hello", 5), 5);
        while (keeper.size == 0)
            cr_assert_geq(io_run(pair.machine.io, NS_PER_MS), 0);
        cr_assert_eq(keeper.size, 5);
        cr_assert_arr_eq(keeper.copy, "hello", 5);
        machine_close(&pair.machine);
    }
}
