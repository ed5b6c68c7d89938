/* The simulated world's time, chance and events. */
#include "io/io_sim_internal.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"

#define TRACE_LINE_MAX 256

struct sim {
    struct sim_options options;
    struct sim_network_options network_options;
    uint64_t seed;
    uint64_t now_ns;
    struct prng prng;
    struct heap events;
    uint64_t hash;
    sim_trace *trace;
    void *trace_context;
    uint32_t hosts_count; /* ever */
    uint64_t ready_count;
    struct list disks;
};

void *sim_allocate(size_t size)
{
    void *memory = calloc(1, size > 0 ? size : 1);
    assert(memory != NULL);
    return memory;
}

struct sim *sim_create(uint64_t seed)
{
    struct sim *sim = sim_allocate(sizeof *sim);
    sim->seed = seed;
    sim->prng.state = seed;
    sim->now_ns = NS_PER_S;
    sim->options = (struct sim_options){
        .strict = true,
        .pass_ns_max = 10 * NS_PER_US,
        .pause_ns_max = 5 * NS_PER_MS,
    };
    sim->network_options = (struct sim_network_options){
        .latency_ns_max = 200 * NS_PER_US,
        .stall_ns_max = 300 * NS_PER_MS,
        .split_ppm = MILLION / 4,
    };
    list_init(&sim->disks);
    return sim;
}

void sim_destroy(struct sim *sim)
{
    assert(list_is_empty(&sim->disks));
    free(sim);
}

struct sim_options *sim_options(struct sim *sim)
{
    return &sim->options;
}

struct sim_network_options *sim_network_options(struct sim *sim)
{
    return &sim->network_options;
}

uint64_t sim_now_ns(const struct sim *sim)
{
    return sim->now_ns;
}

struct prng *sim_prng(struct sim *sim)
{
    return &sim->prng;
}

struct list *sim_disks(struct sim *sim)
{
    return &sim->disks;
}

uint32_t sim_number_host(struct sim *sim)
{
    return ++sim->hosts_count;
}

uint64_t sim_count_ready(struct sim *sim, int32_t change)
{
    return sim->ready_count += (uint64_t)(int64_t)change;
}

uint64_t sim_below(struct sim *sim, uint64_t bound)
{
    return prng_below(&sim->prng, bound);
}

bool sim_happens(struct sim *sim, uint32_t ppm)
{
    return ppm > 0 && sim_below(sim, MILLION) < ppm;
}

uint64_t sim_delay(struct sim *sim, uint64_t max_ns)
{
    return sim_below(sim, 1 + sim_below(sim, max_ns + 1));
}

uint64_t sim_latency(struct sim *sim, uint64_t usual_ns_max, uint32_t stall_ppm,
                     uint64_t stall_ns_max)
{
    uint64_t latency_ns = 1 + sim_delay(sim, usual_ns_max);
    if (sim_happens(sim, stall_ppm))
        latency_ns += sim_below(sim, stall_ns_max + 1);
    return latency_ns;
}

/* ---- the trace ---- */

uint64_t sim_trace_hash(const struct sim *sim)
{
    return sim->hash;
}

void sim_set_trace(struct sim *sim, sim_trace *trace, void *context)
{
    sim->trace = trace;
    sim->trace_context = context;
}

static void mix(struct sim *sim, uint64_t value)
{
    sim->hash = (sim->hash ^ value) * 0x9E3779B97F4A7C15u;
    sim->hash ^= sim->hash >> 29;
}

void sim_note(struct sim *sim, uint32_t host, const char *what, int64_t a, int64_t b)
{
    mix(sim, sim->now_ns);
    mix(sim, host);
    mix(sim, (uint64_t)what[0] << 8 ^ (uint64_t)what[1]);
    mix(sim, (uint64_t)a);
    mix(sim, (uint64_t)b);
    if (sim->trace == NULL)
        return;
    char line[TRACE_LINE_MAX];
    (void)snprintf(line, sizeof line,
                   "%10" PRIu64 ".%03" PRIu64 " us host %" PRIu32 ": %s %" PRId64 " %" PRId64,
                   sim->now_ns / NS_PER_US, sim->now_ns % NS_PER_US, host, what, a, b);
    sim->trace(sim->trace_context, line);
}

void sim_breach(const struct sim *sim, const char *format, ...)
{
    char message[TRACE_LINE_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    (void)fprintf(stderr,
                  "io_sim: breach of io.h's contract at %" PRIu64 " us of seed %" PRIu64 ": %s\n",
                  sim->now_ns / NS_PER_US, sim->seed, message);
    abort();
}

/* ---- events ---- */

void sim_unschedule(struct sim *sim, struct sim_event *event)
{
    if (event->is_scheduled)
        heap_remove(&sim->events, &event->node);
    event->is_scheduled = false;
}

void sim_schedule(struct sim *sim, struct sim_event *event, uint64_t time_ns)
{
    assert(event->fire != NULL);
    sim_unschedule(sim, event);
    heap_add(&sim->events, &event->node, max_u64(time_ns, sim->now_ns));
    event->is_scheduled = true;
}

bool sim_has_events(const struct sim *sim)
{
    return sim->events.first != NULL;
}

bool sim_step(struct sim *sim, uint64_t until_ns)
{
    struct heap_node *first = sim->events.first;
    if (first == NULL || first->time_ns > max_u64(until_ns, sim->now_ns))
        return false;
    struct sim_event *event = container_of(first, struct sim_event, node);
    sim->now_ns = max_u64(sim->now_ns, first->time_ns);
    sim_unschedule(sim, event);
    event->fire(event);
    return true;
}

void sim_advance(struct sim *sim, uint64_t until_ns)
{
    while (sim_step(sim, until_ns))
        ;
    sim->now_ns = max_u64(sim->now_ns, until_ns);
}
