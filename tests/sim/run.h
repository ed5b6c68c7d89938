/* One seed: a server on a simulated machine under load, its crashes and restarts, and the
 * judgement. */
#ifndef TESTS_SIM_RUN_H
#define TESTS_SIM_RUN_H

#include "client.h"
#include "target.h"

#define RUN_CLIENTS_MAX 8u

/* What else goes wrong in a run: at most one of them. */
enum trouble {
    TROUBLE_NONE,
    TROUBLE_DEVICE_DIES,  /* from some instant on every write and sync fails */
    TROUBLE_WRITE_ERRORS, /* some writes and syncs fail */
    TROUBLE_READ_ERRORS,  /* some reads fail */
    TROUBLE_NO_SPACE,     /* the disk is full for a while */
    TROUBLE_ROT,          /* bits flip while the server is down */
    TROUBLE_RESETS,       /* connections break, packets stall */
    TROUBLE_COUNT,
};

/* How a round of load ends. */
enum round_end {
    ROUND_CRASH, /* at some instant */
    ROUND_QUIET, /* when everything was answered; then it crashes */
    ROUND_DRAIN, /* SIGTERM under load; it may crash meanwhile */
};

struct plan {
    struct target_options target;
    uint32_t shards_usual; /* of a process */
    uint32_t shards_max;   /* now and then; 1: always the usual number */
    enum trouble trouble;
    uint32_t rounds;
    uint32_t client_count;
    uint64_t requests_max;      /* of a round */
    uint64_t clock_jump_ns_max; /* between two jumps of the wall clock; 0: it does not jump */
    uint32_t start_crash_percent;
    uint64_t loss_ns; /* what `interval` may lose */
};

struct run {
    uint64_t seed;
    struct prng prng;
    struct plan plan;
    struct sim *sim;
    struct target target;
    struct workload workload;
    struct client clients[RUN_CLIENTS_MAX];
    struct client scanner;
    struct sim_event clock_jump;
    int64_t clock_ms; /* the machine's error */
    uint64_t process_began_ns;
    bool is_verbose;
    uint32_t starts, crashes, drains;
};

struct run_result {
    bool has_failed;
    char message[2 * CHECKER_MESSAGE_SIZE];
    uint64_t hash;
    uint64_t requests; /* answered */
    uint32_t crashes;
};

/* `is_verbose`: tells on stderr what happens; with `is_traced` every event. */
void run_seed(uint64_t seed, bool is_verbose, bool is_traced, struct run_result *ret_result);

/* ---- plan.c ---- */

/* Chooses everything that is chosen once, from run->prng. */
void plan_make(struct run *run);

/* Sets the machine and the network up for it. */
void plan_apply(struct run *run);

/* ---- process.c: one process of the server, from its start to its end ---- */

enum outcome {
    OUTCOME_GOES_ON,
    OUTCOME_DRAINED,
    OUTCOME_CRASHED,
    OUTCOME_GAVE_UP, /* the server ended itself: its device failed */
    OUTCOME_FAILED,  /* something is wrong */
};

/* Says what happens, when verbose. */
__attribute__((format(printf, 2, 3))) void run_say(const struct run *run, const char *format, ...);

/* Starts the server, again when it crashes meanwhile. Returns false when something is wrong. */
bool process_start(struct run *run);

/* One pass, with what has to hold after each. */
enum outcome process_pass(struct run *run);

/* Reads all keys. */
enum outcome process_scan(struct run *run);

/* Runs until `requests` more were sent; the clients keep on. */
enum outcome process_load(struct run *run, uint64_t requests);

/* Runs until everything is answered. */
enum outcome process_quiesce(struct run *run);
enum outcome process_drain(struct run *run);

/* The host has crashed, or ended itself. `is_kept`: nothing of what was acknowledged may be lost.
 */
void process_end(struct run *run, bool is_kept);

/* Crashes now. */
void process_crash(struct run *run);

/* Crashes after some number of steps below `steps_max`. */
void process_plan_crash(struct run *run, uint64_t steps_max);

#endif
