/* The node's rate limit: a token bucket whose shards do not share a hot line.
 *
 * The bucket holds a tenth of a second's tokens (at least one) and fills at the rate. It is one
 * 64-bit word, the time at which it would be full again if nobody took anything (the generic cell
 * rate algorithm, ITU-T I.371, appendix; a token costs 1/rate of a second): no refill to be done,
 * and taking is one compare-and-swap. A shard takes from it in chunks, together about 200 times a
 * second for all shards that want some, and spends them from memory of its own; a shard that was
 * refused does not look again for a few milliseconds, while tokens gather in the bucket.
 *
 * Fair: each shard says how much it was given and when it was refused. Whoever is more than a 20th
 * of a second's part ahead of the least served of those that were refused within the last 15 ms
 * (and got nothing since) waits for it. So one loaded shard gets the whole rate, several get equal
 * parts, and what a little loaded one leaves is for the others. A larger lead is cut to that size:
 * nobody is made to wait for what it took when nobody else wanted it.
 *
 * Unspent tokens go back when the shard rests (rate_rest), and when they are older than a tenth of
 * a second. A shard takes more than its part of a 200th of a second only as long as it spends that
 * at once, so few lie idle.
 *
 * Time is the caller's, io_now_ns of its world; the worlds' times may differ by their passes. */
#ifndef MINIVAULT_SHARD_RATE_H
#define MINIVAULT_SHARD_RATE_H

#include <stdbool.h>
#include <stdint.h>

#define RATE_MAX UINT64_C(1000000000)

struct rate;

/* `per_second` tokens a second, 1 to RATE_MAX, for 1 to 65,535 shards; the bucket is full at
 * `now_ns`. Errors: -ENOMEM. */
int rate_open(uint64_t per_second, uint32_t shard_count, uint64_t now_ns, struct rate **ret_rate);
void rate_close(struct rate *rate);

/* Takes one token, on the shard's own thread. False: the limit is reached. */
bool rate_take(struct rate *rate, uint32_t shard, uint64_t now_ns);

/* Gives back what the shard has not spent: before it sleeps. On its own thread. */
void rate_rest(struct rate *rate, uint32_t shard);

#endif
