/* What the server promised, and whether it keeps it: a history of writes for each key.
 *
 * Time is the simulation's, and all that is known of a write is an interval: it took effect between
 * `begun` and `settled`, if at all. `settled` is when it was acknowledged or seen, or when the
 * process died in which it could have taken effect. A write is superseded as soon as it is certain
 * that a later one took effect after it:
 *
 *   - when a write is acknowledged that began after it had settled;
 *   - when a read shows another write, and began after it had settled.
 *
 * Requests of one connection are in the order in which they were sent.
 *
 * A read must not show a write that was superseded before the read began, nor one that was refused,
 * nor what nobody wrote. With `commit` this holds across crashes. With `interval` and `none` a
 * crash takes back what is younger than it may: then older writes may be seen again, but what is
 * left must be the state at one instant (of one log). */
#ifndef TESTS_SIM_CHECKER_H
#define TESTS_SIM_CHECKER_H

#include <stdbool.h>
#include <stdint.h>

#define CHECKER_MESSAGE_SIZE 512

struct checker;

/* Begins with all keys absent. */
struct checker *checker_create(uint32_t key_count);
void checker_free(struct checker *checker);

/* A write is about to be sent. Returns its number: value_fill's. */
uint64_t checker_begin(struct checker *checker, uint64_t connection, uint32_t key, bool is_delete,
                       uint32_t size, uint64_t now_ns);
void checker_acknowledge(struct checker *checker, uint64_t write, uint64_t now_ns);

/* It was refused and must never be seen. */
void checker_refuse(struct checker *checker, uint64_t write);

/* The write was answered with an error of the device: nobody knows whether it happened. */
void checker_fail(struct checker *checker, uint64_t write);

/* A read is about to be sent. */
struct checker_reading {
    uint64_t connection;
    uint64_t
        after; /* the last write that had begun: the connection's own ones up to here come before */
    uint64_t begun_ns;
    uint32_t key;
};
void checker_begin_read(const struct checker *checker, uint64_t connection, uint32_t key,
                        uint64_t now_ns, struct checker_reading *ret_reading);

/* It shows a value (NULL: the key is absent). False: it must not. */
bool checker_read(struct checker *checker, const struct checker_reading *reading,
                  const uint8_t *value, uint32_t size, uint64_t now_ns);

/* The process has ended. What has no answer may have taken effect until now. What took effect after
 * `kept_until_ns` may be taken back (now_ns: nothing). */
void checker_end_process(struct checker *checker, uint64_t kept_until_ns, uint64_t now_ns);

/* The new process is up: from here on, what it has recovered stays. */
void checker_begin_process(struct checker *checker, uint64_t now_ns);

/* Call when all keys were read since the process began, and nothing was written: they are the state
 * at one instant, for the keys of each of `log_count` logs: `logs` says for each key which one. */
bool checker_check_instant(struct checker *checker, const uint32_t *logs, uint32_t log_count);

/* What was wrong, for a person. */
const char *checker_message(const struct checker *checker);

#endif
