/* Judges answers by the history of each key's writes. */
#include "checker.h"

#include "base/assert.h"
#include "base/units.h"
#include "keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NEVER UINT64_MAX

/* FAILED: answered with an error of the device: it may have happened or not. */
enum write_state {
    WRITE_PENDING,
    WRITE_ACKNOWLEDGED,
    WRITE_REFUSED,
    WRITE_FAILED,
    WRITE_LOST_SIGHT,
};

struct write {
    uint64_t connection;
    uint32_t key;
    uint32_t size;
    bool is_absent; /* a delete, or how a key began */
    enum write_state state;
    uint64_t begun_ns;
    uint64_t settled_ns;
    uint64_t superseded_ns;
    uint64_t superseded_before_ns; /* as it was when the process ended */
    uint64_t older;                /* the key's previous write; 0: none */
};

struct key {
    uint64_t newest;
    uint64_t shown_begun_ns; /* of what was last seen: for the state at one instant */
    uint64_t shown_overdue_ns;
};

struct checker {
    uint32_t key_count;
    struct key *keys;
    struct write *writes; /* from 1 */
    uint64_t count;
    uint64_t capacity;
    uint64_t process_began_ns;
    char message[CHECKER_MESSAGE_SIZE];
};

static uint64_t add(struct checker *checker, uint32_t key)
{
    if (checker->count + 1 >= checker->capacity) {
        checker->capacity = 2 * checker->capacity + 1024;
        checker->writes = realloc(checker->writes, checker->capacity * sizeof *checker->writes);
        assert(checker->writes != NULL);
    }
    uint64_t number = ++checker->count;
    checker->writes[number] = (struct write){
        .key = key,
        .settled_ns = NEVER,
        .superseded_ns = NEVER,
        .superseded_before_ns = NEVER,
        .older = checker->keys[key].newest,
    };
    checker->keys[key].newest = number;
    return number;
}

struct checker *checker_create(uint32_t key_count)
{
    struct checker *checker = calloc(1, sizeof *checker);
    assert(checker != NULL);
    checker->key_count = key_count;
    checker->keys = calloc(key_count, sizeof *checker->keys);
    assert(checker->keys != NULL);
    for (uint32_t key = 0; key < key_count; key++) {
        uint64_t number = add(checker, key);
        struct write *write = &checker->writes[number];
        write->is_absent = true;
        write->state = WRITE_ACKNOWLEDGED;
        write->settled_ns = 0;
    }
    return checker;
}

void checker_free(struct checker *checker)
{
    free(checker->writes);
    free(checker->keys);
    free(checker);
}

const char *checker_message(const struct checker *checker)
{
    return checker->message;
}

/* ---- writes ---- */

uint64_t checker_begin(struct checker *checker, uint64_t connection, uint32_t key, bool is_delete,
                       uint32_t size, uint64_t now_ns)
{
    uint64_t number = add(checker, key);
    struct write *write = &checker->writes[number];
    write->connection = connection;
    write->is_absent = is_delete;
    write->size = size;
    write->begun_ns = now_ns;
    return number;
}

static void supersede(struct write *write, uint64_t now_ns)
{
    write->superseded_ns = min_u64(write->superseded_ns, now_ns);
}

/* Whether `older`, which began earlier, is certain to have taken effect first, if at all. */
static bool is_before(const struct write *older, const struct write *newer)
{
    return older->settled_ns < newer->begun_ns || older->connection == newer->connection;
}

void checker_acknowledge(struct checker *checker, uint64_t number, uint64_t now_ns)
{
    struct write *write = &checker->writes[number];
    assert(write->state == WRITE_PENDING);
    write->state = WRITE_ACKNOWLEDGED;
    write->settled_ns = min_u64(write->settled_ns, now_ns);
    for (uint64_t at = write->older; at != 0; at = checker->writes[at].older) {
        if (is_before(&checker->writes[at], write))
            supersede(&checker->writes[at], now_ns);
    }
}

void checker_refuse(struct checker *checker, uint64_t number)
{
    assert(checker->writes[number].state == WRITE_PENDING);
    checker->writes[number].state = WRITE_REFUSED;
}

void checker_fail(struct checker *checker, uint64_t number)
{
    if (checker->writes[number].state == WRITE_PENDING)
        checker->writes[number].state = WRITE_FAILED;
}

/* ---- reads ---- */

static bool is_shown(uint64_t number, const struct write *write, const uint8_t *value,
                     uint32_t size)
{
    if (value == NULL || write->is_absent)
        return (value == NULL) == write->is_absent;
    return write->size == size && value_matches(number, value, size);
}

/* What the writes that look like what was read are. */
struct match {
    uint64_t legal; /* one that may be shown; 0: none */
    uint64_t legal_count;
    uint64_t illegal;    /* the newest that must not */
    uint64_t begun_ns;   /* the least of the legal ones */
    uint64_t overdue_ns; /* and the greatest time at which one was superseded before */
};

/* The last write of the same connection, which the read comes after; 0: none. */
static uint64_t find_own(const struct checker *checker, const struct checker_reading *reading)
{
    for (uint64_t at = checker->keys[reading->key].newest; at != 0;
         at = checker->writes[at].older) {
        const struct write *write = &checker->writes[at];
        if (at <= reading->after && write->connection == reading->connection &&
            write->state != WRITE_REFUSED && write->state != WRITE_FAILED)
            return at;
    }
    return 0;
}

static struct match find_match(const struct checker *checker, const struct checker_reading *reading,
                               const uint8_t *value, uint32_t size)
{
    struct match match = {.begun_ns = NEVER};
    uint64_t own = find_own(checker, reading);
    for (uint64_t at = checker->keys[reading->key].newest; at != 0;
         at = checker->writes[at].older) {
        const struct write *write = &checker->writes[at];
        if (!is_shown(at, write, value, size))
            continue;
        bool is_hidden = at < own && is_before(write, &checker->writes[own]);
        if (is_hidden || write->state == WRITE_REFUSED ||
            write->superseded_ns < reading->begun_ns) {
            match.illegal = match.illegal != 0 ? match.illegal : at;
            continue;
        }
        match.legal = at;
        match.legal_count++;
        match.begun_ns = min_u64(match.begun_ns, write->begun_ns);
        match.overdue_ns = max_u64(match.overdue_ns, write->superseded_before_ns);
    }
    return match;
}

static void describe(struct checker *checker, uint32_t key, const uint8_t *value, uint32_t size,
                     uint64_t illegal)
{
    const struct write *newest = &checker->writes[checker->keys[key].newest];
    const struct write *write = &checker->writes[illegal];
    const char *what = value == NULL ? "absent" : "a value";
    if (illegal == 0)
        (void)snprintf(checker->message, sizeof checker->message,
                       "key %" PRIu32 ": a value of %" PRIu32 " bytes that nobody wrote to it", key,
                       size);
    else if (write->state == WRITE_REFUSED)
        (void)snprintf(checker->message, sizeof checker->message,
                       "key %" PRIu32 ": shows write %" PRIu64 ", which was refused", key, illegal);
    else
        (void)snprintf(checker->message, sizeof checker->message,
                       "key %" PRIu32 ": shows %s (%" PRIu32 " bytes) of write %" PRIu64
                       ", which began at %" PRIu64 " us and was superseded at %" PRIu64
                       " us; the newest is write %" PRIu64 " (begun %" PRIu64 " us, state %d)",
                       key, what, size, illegal, write->begun_ns / NS_PER_US,
                       write->superseded_ns / NS_PER_US, checker->keys[key].newest,
                       newest->begun_ns / NS_PER_US, (int)newest->state);
}

/* All others that had settled are over. What the process has recovered was so when it began. */
static void supersede_others(struct checker *checker, const struct checker_reading *reading,
                             const struct match *match, const uint8_t *value, uint32_t size,
                             uint64_t now_ns)
{
    bool is_recovered = match->begun_ns < checker->process_began_ns;
    for (uint64_t at = checker->keys[reading->key].newest; at != 0;
         at = checker->writes[at].older) {
        struct write *write = &checker->writes[at];
        if (write->settled_ns >= reading->begun_ns || is_shown(at, write, value, size))
            continue;
        if (is_recovered && write->settled_ns < checker->process_began_ns)
            supersede(write, checker->process_began_ns);
        else
            supersede(write, now_ns);
    }
}

void checker_begin_read(const struct checker *checker, uint64_t connection, uint32_t key,
                        uint64_t now_ns, struct checker_reading *ret_reading)
{
    *ret_reading = (struct checker_reading){
        .connection = connection, .after = checker->count, .begun_ns = now_ns, .key = key};
}

bool checker_read(struct checker *checker, const struct checker_reading *reading,
                  const uint8_t *value, uint32_t size, uint64_t now_ns)
{
    uint32_t key = reading->key;
    struct match match = find_match(checker, reading, value, size);
    if (match.legal == 0) {
        describe(checker, key, value, size, match.illegal);
        return false;
    }
    if (match.legal_count == 1) {
        struct write *write = &checker->writes[match.legal];
        write->settled_ns = min_u64(write->settled_ns, now_ns);
    }
    supersede_others(checker, reading, &match, value, size, now_ns);
    checker->keys[key].shown_begun_ns = match.begun_ns;
    checker->keys[key].shown_overdue_ns = match.overdue_ns;
    return true;
}

/* ---- processes ---- */

void checker_end_process(struct checker *checker, uint64_t kept_until_ns, uint64_t now_ns)
{
    for (uint64_t at = 1; at <= checker->count; at++) {
        struct write *write = &checker->writes[at];
        if (write->state == WRITE_PENDING || write->state == WRITE_FAILED)
            write->state = WRITE_LOST_SIGHT;
        if (write->state != WRITE_REFUSED)
            write->settled_ns = min_u64(write->settled_ns, now_ns);
        write->superseded_before_ns = write->superseded_ns;
        if (write->superseded_ns > kept_until_ns)
            write->superseded_ns = NEVER;
    }
}

void checker_begin_process(struct checker *checker, uint64_t now_ns)
{
    checker->process_began_ns = now_ns;
}

static bool check_log(struct checker *checker, const uint32_t *logs, uint32_t log)
{
    const struct key *youngest = NULL;
    const struct key *oldest = NULL;
    for (uint32_t i = 0; i < checker->key_count; i++) {
        const struct key *key = &checker->keys[i];
        if (logs[i] != log)
            continue;
        if (youngest == NULL || key->shown_begun_ns > youngest->shown_begun_ns)
            youngest = key;
        if (oldest == NULL || key->shown_overdue_ns < oldest->shown_overdue_ns)
            oldest = key;
    }
    if (youngest == NULL || youngest->shown_begun_ns <= oldest->shown_overdue_ns)
        return true;
    (void)snprintf(checker->message, sizeof checker->message,
                   "not the state at any instant: key %td shows a write that began at %" PRIu64
                   " us, key %td one that was superseded at %" PRIu64 " us",
                   youngest - checker->keys, youngest->shown_begun_ns / NS_PER_US,
                   oldest - checker->keys, oldest->shown_overdue_ns / NS_PER_US);
    return false;
}

bool checker_check_instant(struct checker *checker, const uint32_t *logs, uint32_t log_count)
{
    for (uint32_t log = 0; log < log_count; log++)
        if (!check_log(checker, logs, log))
            return false;
    return true;
}
