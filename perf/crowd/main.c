/* crowd: opens many connections, asks one GET on each, and holds them; or is many slow readers. */
#include "crowd.h"

#include "../common/clock.h"
#include "../common/options.h"
#include "base/bytes.h"
#include "minivault/protocol.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define THREADS_MAX 64

struct command_line {
    uint64_t port;
    uint64_t connections;
    uint64_t threads;
    uint64_t window;
    const char *key;
    uint64_t value_size;
    uint64_t timeout_seconds;
    uint64_t extra;
    uint64_t hold_seconds;
    bool is_slow;
    uint64_t asks;
    uint64_t read_size;
    uint64_t read_every_ms;
};

struct run {
    struct command_line line;
    uint8_t *request; /* of one client: all of its GETs */
    uint32_t request_size;
    pthread_barrier_t barrier;
    bool is_ending; /* atomic */
    struct crowd crowds[THREADS_MAX];
};

static int parse(struct command_line *line, int argc, char **argv)
{
    const struct option_spec specs[] = {
        {"port", OPTION_U64, &line->port, "N", 1, 65535, "of a server on all addresses"},
        {"connections", OPTION_U64, &line->connections, "N", 1, 1e6, "over all threads"},
        {"threads", OPTION_U64, &line->threads, "N", 1, THREADS_MAX,
         "each with a ring of its own, and RLIMIT_NOFILE connections at most"},
        {"window", OPTION_U64, &line->window, "N", 1, 65536,
         "connections that are being opened at a time, over all threads"},
        {"key", OPTION_STRING, &line->key, "KEY", 0, 0, "that the GETs ask for"},
        {"value-size", OPTION_U64, &line->value_size, "BYTES", 0, 100 << 20,
         "of its value; checked"},
        {"timeout", OPTION_U64, &line->timeout_seconds, "SECONDS", 1, 3600,
         "for all to be answered"},
        {"extra", OPTION_U64, &line->extra, "N", 0, 100,
         "connections beyond, one by one: says how each of them ends"},
        {"hold", OPTION_U64, &line->hold_seconds, "SECONDS", 0, 86400,
         "to stay after that; less when standard input ends"},
        {"slow", OPTION_FLAG, &line->is_slow, NULL, 0, 0,
         "slow readers: do not wait for answers, take a few bytes of them now and then"},
        {"asks", OPTION_U64, &line->asks, "N", 1, ASKS_MAX, "GETs that each of them sends at once"},
        {"read-size", OPTION_U64, &line->read_size, "BYTES", 1, 1 << 20, "that it takes"},
        {"read-every", OPTION_U64, &line->read_every_ms, "MILLISECONDS", 1, 3600000, "how often"},
    };
    const struct option_table table = {
        .usage = "crowd: opens many connections to a server of the binary protocol and holds them. "
                 "Prints a\nline of JSON when all are open, and one at the end. Exit code: 0; 1 "
                 "when one was not\nanswered; 2 for a bad command line.",
        .specs = specs,
        .spec_count = sizeof specs / sizeof specs[0],
    };
    int error = options_parse(&table, argc, argv);
    if (error == 0 && strlen(line->key) > KEY_LENGTH_MAX) {
        fprintf(stderr, "--key: at most %u bytes\n", KEY_LENGTH_MAX);
        return -EINVAL;
    }
    return error;
}

static int make_request(struct run *run)
{
    uint32_t key_size = (uint32_t)strlen(run->line.key);
    uint32_t count = run->line.is_slow ? (uint32_t)run->line.asks : 1;
    run->request = malloc((size_t)count * (3 + key_size));
    if (run->request == NULL)
        return -ENOMEM;
    uint8_t *at = run->request;
    for (uint32_t i = 0; i < count; i++) {
        at[0] = MINIVAULT_GET;
        store_u16(at + 1, (uint16_t)key_size);
        memcpy(at + 3, run->line.key, key_size);
        at += 3 + key_size;
    }
    run->request_size = (uint32_t)(at - run->request);
    return 0;
}

/* 127.0.0.0/8 is all ours. An address of its own for each thread of each process: the ports of its
 * clients suffice, also while those of the process before are in TIME_WAIT. */
static struct sockaddr_in address_of(const struct run *run, uint32_t thread)
{
    uint32_t process = (uint32_t)getpid() % 250 + 1;
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)run->line.port),
        .sin_addr.s_addr = htonl(127u << 24 | process << 8 | (thread + 1)),
    };
}

static uint32_t share(uint64_t total, uint64_t n, uint64_t count)
{
    return (uint32_t)(total * (n + 1) / count - total * n / count);
}

static int start(struct run *run)
{
    const struct command_line *line = &run->line;
    uint32_t count = (uint32_t)line->threads;
    int error = -pthread_barrier_init(&run->barrier, NULL, count + 1);
    for (uint32_t i = 0; i < count && error == 0; i++) {
        struct crowd *crowd = &run->crowds[i];
        uint32_t window = share(line->window, i, count);
        crowd->index = i;
        crowd->barrier = &run->barrier;
        crowd->is_ending = &run->is_ending;
        crowd->settings = (struct crowd_settings){
            .address = address_of(run, i),
            .client_count = share(line->connections, i, count),
            .window = window == 0 ? 1 : window,
            .answer_size = MINIVAULT_ANSWER_HEADER_SIZE + (uint32_t)line->value_size,
            .timeout_ns = line->timeout_seconds * NANOSECONDS_PER_SECOND,
            .request = run->request,
            .request_size = run->request_size,
            .is_slow = line->is_slow,
            .read_size = (uint32_t)line->read_size,
            .read_interval_ns = line->read_every_ms * 1000000,
        };
        error = -pthread_create(&crowd->thread, NULL, crowd_run, crowd);
    }
    return error;
}

/* What becomes of one more client that says nothing: how it ends within a second. */
static const char *extra_fate(const struct run *run)
{
    struct sockaddr_in address = address_of(run, (uint32_t)run->line.threads);
    struct timeval second = {.tv_sec = 1};
    uint8_t byte;
    int file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0)
        return "no socket";
    (void)setsockopt(file, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second);
    (void)setsockopt(file, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
    const char *fate = "nothing";
    if (connect(file, (const struct sockaddr *)&address, sizeof address) < 0) {
        fate = errno == ECONNREFUSED || errno == ECONNRESET ? "reset" : "nothing";
    } else {
        ssize_t count = recv(file, &byte, sizeof byte, 0);
        if (count >= 0)
            fate = count == 0 ? "end" : "bytes";
        else if (errno == ECONNRESET)
            fate = "reset";
    }
    (void)close(file);
    return fate;
}

static void print_extra(const struct run *run)
{
    printf("\"extra\":[");
    for (uint64_t i = 0; i < run->line.extra; i++) {
        uint64_t start_ns = clock_now_ns();
        const char *fate = extra_fate(run);
        printf("%s{\"fate\":\"%s\",\"ms\":%.3f}", i == 0 ? "" : ",", fate,
               (double)(clock_now_ns() - start_ns) / 1e6);
    }
    printf("]");
}

static const char *first_error(const struct run *run)
{
    for (uint32_t i = 0; i < run->line.threads; i++)
        if (run->crowds[i].first_error[0] != '\0')
            return run->crowds[i].first_error;
    return "";
}

/* How many were answered. */
static uint32_t report_open(const struct run *run, struct histogram *latency)
{
    uint32_t answered = 0;
    uint32_t failed = 0;
    uint64_t start_ns = UINT64_MAX;
    uint64_t end_ns = 0;
    for (uint32_t i = 0; i < run->line.threads; i++) {
        const struct crowd *crowd = &run->crowds[i];
        answered += crowd->tally.answered;
        failed += crowd->tally.failed;
        histogram_merge(latency, &crowd->tally.latency);
        start_ns = crowd->start_ns < start_ns ? crowd->start_ns : start_ns;
        end_ns = crowd->tally.last_answer_ns > end_ns ? crowd->tally.last_answer_ns : end_ns;
    }
    printf("{\"event\":\"open\",\"answered\":%u,\"failed\":%u,\"seconds\":%.3f,", answered, failed,
           end_ns > start_ns ? (double)(end_ns - start_ns) / 1e9 : 0);
    printf("\"latency_us\":{\"p50\":%.1f,\"p99\":%.1f,\"max\":%.1f},\"error\":\"%s\",",
           (double)histogram_quantile(latency, 0.5) / 1e3,
           (double)histogram_quantile(latency, 0.99) / 1e3, (double)latency->maximum / 1e3,
           first_error(run));
    print_extra(run);
    printf("}\n");
    (void)fflush(stdout);
    return answered;
}

static void report_end(const struct run *run)
{
    uint32_t closed = 0;
    uint64_t bytes_read = 0;
    for (uint32_t i = 0; i < run->line.threads; i++) {
        closed += run->crowds[i].tally.closed;
        bytes_read += run->crowds[i].tally.bytes_read;
    }
    printf("{\"event\":\"end\",\"closed\":%u,\"bytes_read\":%llu,\"error\":\"%s\"}\n", closed,
           (unsigned long long)bytes_read, first_error(run));
}

static void wait_for_end(const struct command_line *line)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    if (line->hold_seconds > 0)
        (void)poll(&input, 1, (int)line->hold_seconds * 1000);
}

static int serve(struct run *run)
{
    struct histogram *latency = calloc(1, sizeof *latency);
    if (latency == NULL)
        return 1;
    (void)pthread_barrier_wait(&run->barrier);
    (void)pthread_barrier_wait(&run->barrier);
    uint32_t answered = report_open(run, latency);
    wait_for_end(&run->line);
    __atomic_store_n(&run->is_ending, true, __ATOMIC_RELEASE);
    bool is_broken = false;
    for (uint32_t i = 0; i < run->line.threads; i++) {
        (void)pthread_join(run->crowds[i].thread, NULL);
        is_broken |= run->crowds[i].error < 0;
    }
    report_end(run);
    free(latency);
    return is_broken || answered < run->line.connections ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct command_line line = {
        .port = 3000,
        .connections = 50000,
        .threads = 4,
        .window = 1000,
        .key = "key:000000000000",
        .value_size = 100,
        .timeout_seconds = 30,
        .asks = 1,
        .read_size = 1,
        .read_every_ms = 1000,
    };
    int error = parse(&line, argc, argv);
    if (error < 0)
        return error == -ECANCELED ? 0 : 2;
    struct run *run = calloc(1, sizeof *run);
    if (run == NULL)
        return 1;
    run->line = line;
    error = make_request(run);
    if (error == 0)
        error = start(run);
    if (error < 0) {
        fprintf(stderr, "crowd: %s\n", strerror(-error));
        return 1;
    }
    int exit_code = serve(run);
    free(run->request);
    free(run);
    return exit_code;
}
