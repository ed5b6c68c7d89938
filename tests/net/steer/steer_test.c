/* The steering program in the real kernel: where connections go. */
#include "steer_fixture.h"

#define THOUSAND 1000u

/* How many shards a thousand connections are spread over: each to be within 5 % of even. */
static const uint32_t shard_counts[] = {2, 3, 4, 8};
#define SHARD_COUNTS (sizeof shard_counts / sizeof shard_counts[0])

static void expect_even(const struct group *group)
{
    for (uint32_t i = 0; i < group->shard_count; i++) {
        uint32_t percent = group->accepted[i] * group->shard_count * 100 / (THOUSAND / 100);
        cr_assert(percent >= 9500 && percent <= 10500, "shard %u of %u has %u", i,
                  group->shard_count, group->accepted[i]);
    }
}

/* Shards that accept and publish all the time, as the server's do. `cpus`: the clients' turns. */
static void serve_thousand(struct group *group, int cpus)
{
    struct steer_load loads[GROUP_SHARDS_MAX];
    for (uint32_t i = 0; i < group->shard_count; i++)
        steer_load_init(&loads[i], steer_shard(group->steer, i), 0);
    for (uint32_t round = 0; round < THOUSAND / 5; round++) {
        if (cpus > 0)
            pin_to((int)round % cpus);
        connect_many(group, 5);
        uint32_t shard = round % group->shard_count; /* one at a time: the others lag */
        for (uint32_t i = accept_queued(group, shard); i > 0; i--)
            steer_load_accepted(&loads[shard]);
        steer_load_publish(&loads[shard], group->accepted[shard], round);
    }
    (void)accept_all(group);
}

static void give_homes(struct group *group, uint32_t cpus)
{
    for (uint32_t cpu = 0; cpu < cpus; cpu++)
        steer_set_home(group->steer, cpu, cpu % group->shard_count);
}

Test(steer, a_thousand_connections_are_within_5_percent_of_even)
{
    for (size_t i = 0; i < SHARD_COUNTS; i++) {
        struct group group;
        open_group(&group, shard_counts[i], false);
        serve_thousand(&group, 0);
        expect_even(&group);
        cr_assert_eq(decided(&group, STEER_LEAST), THOUSAND);
        expect_all_alive(&group);
        close_group(&group);
    }
}

Test(steer, they_are_as_even_when_the_cpus_that_take_them_have_shards)
{
    int cpus = (int)min_u64((uint64_t)sysconf(_SC_NPROCESSORS_ONLN), 8);
    for (size_t i = 0; i < SHARD_COUNTS; i++) {
        struct group group;
        open_group(&group, shard_counts[i], false);
        give_homes(&group, (uint32_t)cpus);
        serve_thousand(&group, cpus);
        expect_even(&group);
        cr_assert_gt(decided(&group, STEER_LOCAL), 0);
        cr_assert_eq(decided(&group, STEER_LEAST) + decided(&group, STEER_LOCAL), THOUSAND);
        close_group(&group);
    }
}

Test(steer, they_are_as_even_when_one_cpu_takes_them_all)
{
    for (size_t i = 0; i < SHARD_COUNTS; i++) {
        struct group group;
        open_group(&group, shard_counts[i], false);
        uint32_t home = shard_counts[i] - 1;
        steer_set_home(group.steer, 0, home);
        serve_thousand(&group, 1);
        expect_even(&group);
        cr_assert_gt(group.accepted[home], THOUSAND / shard_counts[i]);
        cr_assert_eq(decided(&group, STEER_LEAST) + decided(&group, STEER_LOCAL), THOUSAND);
        cr_assert_geq(decided(&group, STEER_LOCAL), group.accepted[home] - 1);
        close_group(&group);
    }
}

Test(steer, a_burst_is_as_even_though_nobody_accepts_or_publishes)
{
    for (size_t i = 0; i < SHARD_COUNTS; i++) {
        struct group group;
        open_group(&group, shard_counts[i], false);
        pin_to(0);
        steer_set_home(group.steer, 0, 0);
        connect_many(&group, THOUSAND);
        cr_assert_eq(accept_all(&group), THOUSAND);
        expect_even(&group);
        close_group(&group);
    }
}

Test(steer, a_burst_spreads_though_nobody_accepts_or_publishes)
{
    struct group group;
    open_group(&group, 4, false);
    connect_many(&group, 1000);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(steer_shard(group.steer, i)->chosen, 250);
    cr_assert_eq(accept_all(&group), 1000);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(group.accepted[i], 250);
    close_group(&group);
}

Test(steer, ipv4_clients_of_listeners_for_both_families_are_steered_too)
{
    struct group group;
    open_group(&group, 4, true);
    connect_many(&group, 100);
    (void)accept_all(&group);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(group.accepted[i], 25);
    close_group(&group);
}

Test(steer, the_shard_of_the_cpu_is_chosen_until_it_has_clearly_more)
{
    struct group group;
    open_group(&group, 4, false);
    pin_to(0);
    steer_set_home(group.steer, 0, 2);
    connect_many(&group, STEER_MARGIN + 1);
    (void)accept_all(&group);
    cr_assert_eq(group.accepted[2], STEER_MARGIN + 1);
    cr_assert_eq(decided(&group, STEER_LOCAL), STEER_MARGIN + 1);
    connect_many(&group, 1);
    cr_assert_eq(accept_queued(&group, 2), 0);
    cr_assert_eq(decided(&group, STEER_LEAST), 1);
    cr_assert_eq(accept_all(&group), 1);
    close_group(&group);
}

Test(steer, a_cpu_beyond_the_table_is_ignored)
{
    struct group group;
    open_group(&group, 2, false);
    steer_set_home(group.steer, STEER_CPUS_MAX, 1);
    steer_set_home(group.steer, UINT32_MAX, 1);
    connect_many(&group, 10);
    cr_assert_eq(decided(&group, STEER_LEAST), 10);
    close_group(&group);
}

Test(steer, published_loads_are_honoured)
{
    static const uint32_t open_counts[4] = {100, 100, 3, 60};
    struct group group;
    struct steer_load load;
    open_group(&group, 4, false);
    for (uint32_t i = 0; i < 4; i++) {
        steer_load_init(&load, steer_shard(group.steer, i), 0);
        steer_load_publish(&load, open_counts[i], 1);
    }
    connect_many(&group, 57);
    cr_assert_eq(accept_queued(&group, 2), 57); /* up to the 60 of the next one */
    connect_many(&group, 80);
    (void)accept_all(&group);
    cr_assert_eq(group.accepted[0], 0);
    cr_assert_eq(group.accepted[1], 0);
    cr_assert_eq(group.accepted[2], 97);
    cr_assert_eq(group.accepted[3], 40);
    close_group(&group);
}

/* The loop over shards reaches them all, at the largest count too. */
Test(steer, the_last_of_256_shards_is_found)
{
    struct group group;
    open_listeners(&group, 2, false);
    open_steer(STEER_SHARDS_MAX, &group.steer);
    cr_assert_eq(steer_add_listener(group.steer, STEER_CLIENTS, 0, group.listeners[0]), 0);
    cr_assert_eq(steer_add_listener(group.steer, STEER_CLIENTS, 255, group.listeners[1]), 0);
    cr_assert_eq(steer_attach(group.steer, STEER_CLIENTS, group.listeners[1]), 0);
    connect_many(&group, 20);
    cr_assert_eq(accept_queued(&group, 0), 10);
    cr_assert_eq(accept_queued(&group, 1), 10);
    cr_assert_eq(steer_shard(group.steer, 255)->chosen, 10);
    close_group(&group);
}

/* Both protocols' ports have the same shards and one load. */
Test(steer, two_ports_share_the_load)
{
    struct group group;
    open_group(&group, 2, false);
    struct group http = {.shard_count = 2};
    for (uint32_t i = 0; i < 2; i++) {
        http.listeners[i] = listen_on(http.port, false, true);
        http.port = port_of(http.listeners[i]);
    }
    steer_group(&http, group.steer, STEER_HTTP);
    struct steer_load load;
    steer_load_init(&load, steer_shard(group.steer, 0), 0);
    steer_load_publish(&load, 6, 1);
    connect_many(&group, 3);
    connect_many(&http, 3);
    cr_assert_eq(accept_queued(&group, 0) + accept_queued(&http, 0), 0);
    cr_assert_eq(accept_queued(&group, 1), 3);
    cr_assert_eq(accept_queued(&http, 1), 3);
    close_group(&http);
    close_group(&group);
}

/* ---- what is no connection ---- */

#define STRAY_PORT 9
#define TCP_ACK 0x10
#define TCP_RST 0x04

static uint16_t tcp_checksum(const uint8_t *segment, size_t size)
{
    uint32_t sum = 2 * 0x7F00 + 2 * 0x0001 + IPPROTO_TCP + (uint32_t)size; /* 127.0.0.1, twice */
    for (size_t i = 0; i < size; i += 2)
        sum += (uint32_t)(segment[i] << 8 | segment[i + 1]);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    return (uint16_t)~sum;
}

static void send_stray(int raw, uint16_t port, uint8_t flags)
{
    uint8_t segment[20] = {0, STRAY_PORT, (uint8_t)(port >> 8), (uint8_t)port, [12] = 0x50};
    segment[13] = flags;
    uint16_t checksum = tcp_checksum(segment, sizeof segment);
    segment[16] = (uint8_t)(checksum >> 8);
    segment[17] = (uint8_t)checksum;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    cr_assert_eq(
        sendto(raw, segment, sizeof segment, 0, (struct sockaddr *)&address, sizeof address),
        (ssize_t)sizeof segment, "%s", strerror(errno));
}

/* Waits for the kernel's answer to a stray segment: behind an IP header, from the port. */
static void expect_reset(int raw, uint16_t port)
{
    for (;;) {
        uint8_t packet[128];
        ssize_t size = recv(raw, packet, sizeof packet, 0);
        cr_assert_geq(size, 40, "no answer came: %s", strerror(errno));
        const uint8_t *segment = packet + (packet[0] & 15) * 4;
        if ((segment[0] << 8 | segment[1]) == port && (segment[13] & TCP_RST) != 0)
            return;
    }
}

/* A segment that belongs to no connection asks the program too. It is none that will be accepted,
 * and counted as one it would hang in the load until it is given up. */
Test(steer, only_a_syn_counts_as_a_connection)
{
    struct group group;
    open_group(&group, 2, false);
    int raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
    if (raw < 0)
        cr_skip_test("no raw sockets here: %s", strerror(errno));
    struct timeval patience = {.tv_sec = 60};
    cr_assert_eq(setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    send_stray(raw, group.port, TCP_ACK);
    expect_reset(raw, group.port);
    drain_all(&group);
    send_stray(raw, group.port, TCP_ACK);
    expect_reset(raw, group.port);
    for (int i = 0; i < STEER_DECISION_COUNT; i++)
        cr_assert_eq(decided(&group, (enum steer_decision)i), 0, "%d", i);
    cr_assert_eq(steer_shard(group.steer, 0)->chosen + steer_shard(group.steer, 1)->chosen, 0);
    (void)close(raw);
    close_group(&group);
}

/* ---- fall-back ---- */

Test(steer, without_the_program_the_kernels_hash_serves_everybody)
{
    struct group group;
    open_listeners(&group, 4, false);
    connect_many(&group, 400);
    cr_assert_eq(accept_all(&group), 400);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_gt(group.accepted[i], 0);
    expect_all_alive(&group);
    close_group(&group);
}

Test(steer, a_chosen_shard_without_a_listener_falls_back_to_the_hash)
{
    struct group group;
    open_group(&group, 4, false);
    close_listener(&group, 1); /* and it is not draining: our error, but nobody pays for it */
    connect_many(&group, 40);
    cr_assert_eq(accept_all(&group), 40);
    cr_assert_gt(decided(&group, STEER_FALLBACK), 0);
    cr_assert_eq(decided(&group, STEER_FALLBACK) + decided(&group, STEER_LEAST), 40);
    cr_assert_eq(steer_shard(group.steer, 1)->chosen, 0);
    expect_all_alive(&group);
    close_group(&group);
}

Test(steer, attached_before_any_shard_is_open_falls_back_to_the_hash)
{
    struct group group;
    open_listeners(&group, 2, false);
    open_steer(2, &group.steer);
    cr_assert_eq(steer_attach(group.steer, STEER_CLIENTS, group.listeners[0]), 0);
    connect_many(&group, 10);
    cr_assert_eq(accept_all(&group), 10);
    cr_assert_eq(decided(&group, STEER_FALLBACK), 10);
    close_group(&group);
}

Test(steer, the_program_stays_when_its_maker_closes)
{
    struct group group;
    open_group(&group, 4, false);
    steer_close(group.steer);
    group.steer = NULL;
    connect_many(&group, 400);
    cr_assert_eq(accept_all(&group), 400);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(group.accepted[i], 100);
    close_group(&group);
}

/* ---- errors ---- */

Test(steer, sockets_that_cannot_be_steered_are_refused)
{
    struct group group;
    open_listeners(&group, 2, false);
    open_steer(2, &group.steer);
    int alone = listen_on(0, false, false);
    int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(steer_add_listener(group.steer, STEER_CLIENTS, 0, alone), -EINVAL);
    cr_assert_eq(steer_add_listener(group.steer, STEER_CLIENTS, 0, silent), -EINVAL);
    cr_assert_lt(steer_add_listener(group.steer, STEER_CLIENTS, 0, -1), 0);
    cr_assert_eq(steer_shard(group.steer, 0)->state, STEER_ABSENT);
    cr_assert_eq(steer_attach(group.steer, STEER_CLIENTS, alone), -EINVAL);
    cr_assert_eq(steer_add_listener(group.steer, STEER_CLIENTS, 0, group.listeners[0]), 0);
    cr_assert_eq(steer_add_listener(group.steer, STEER_CLIENTS, 1, group.listeners[0]), -EBUSY);
    cr_assert_eq(steer_shard(group.steer, 1)->state, STEER_ABSENT);
    (void)close(alone);
    (void)close(silent);
    close_group(&group);
}

Test(steer, decisions_have_names)
{
    cr_assert_str_eq(steer_decision_names()[STEER_LOCAL], "local");
    cr_assert_str_eq(steer_decision_names()[STEER_NONE], "none");
    for (int i = 0; i < STEER_DECISION_COUNT; i++)
        cr_assert_not_null(steer_decision_names()[i]);
}
