/* The parts of the test of threads: each says what it did and counts what passed. */
#ifndef TESTS_THREADS_THREADS_H
#define TESTS_THREADS_THREADS_H

#include "base/prng.h"
#include "io/io.h"

#include <stdint.h>

struct tally {
    uint32_t passed, failed;
};

/* A small mailbox between two threads, which is full or empty most of the time. */
void run_box(uint64_t messages, struct tally *tally);

/* One announces its sleep while the other posts, over and over. */
void run_races(uint64_t rounds, struct tally *tally);

/* Threads that ask each other and sleep. */
void run_towns(uint64_t requests, struct tally *tally);

/* One counts into a histogram while another reads it. */
void run_counts(uint64_t rounds, struct tally *tally);

/* This thread's world, to be closed by it. Ends the program when there is none. */
struct io *open_thread_world(uint64_t busy_poll_ns);

static inline void delay(uint64_t turns)
{
    for (uint64_t i = 0; i < turns; i++)
        __asm__ volatile("" ::: "memory");
}

/* Up to `turns_max` turns, so that two threads meet at ever other points. */
static inline void delay_randomly(struct prng *prng, uint32_t turns_max)
{
    delay(prng_below(prng, (uint64_t)turns_max + 1));
}

#endif
