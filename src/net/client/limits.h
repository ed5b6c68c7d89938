/* The limits of clients that no flag sets: each stands here once; docs/operations.md tells them to
 * operators. */
#ifndef MINIVAULT_NET_LIMITS_H
#define MINIVAULT_NET_LIMITS_H

#include "base/units.h"

/* Leased receive buffers: RECEIVE_COUNT × RECEIVE_SIZE bytes for a shard. 16 KiB holds the usual
 * pipeline of small requests; 512 of them serve the connections that are readable in one pass. In little
 * memory there are fewer, at least RECEIVE_COUNT_MIN: so a pass brings less that has to be saved. */
#define LIMITS_RECEIVE_SIZE 16384u
#define LIMITS_RECEIVE_COUNT 512u
#define LIMITS_RECEIVE_COUNT_MIN 64u

/* Memory of an idle connection at most: its struct, a block for replies, a little of a request. */
#define LIMITS_CONNECTION_MEMORY (8 * KIB)

/* Bytes of unfinished requests, over all connections of a node, of which each shard has its part;
 * beyond it a request is consumed and refused. */
#define LIMITS_INPUT_BYTES_MAX (256 * MIB)

/* Bytes of replies that one connection may have waiting before its requests wait too. */
#define LIMITS_OUTPUT_BYTES_MAX (1 * MIB)

/* Reply blocks (4 KiB) of a node, beyond one for each connection; each shard has its part. */
#define LIMITS_OUTPUT_BLOCKS 16384u

/* Bytes of large values that are in no cache, on their way to all clients of a node; each shard has
 * its part, beyond which gets that need the disk wait. What is being read then still comes on top
 * (FETCH_LARGE_MAX). */
#define LIMITS_OUTPUT_MEMORY_MAX (64 * MIB)

/* So long, at most, a reply that could leave waits for replies behind it that other shards were
 * asked for: about as long as a busy shard's pass. */
#define LIMITS_HOLD_NS (200 * NS_PER_US)

/* A client must take a send (at most about 512 KiB) within this time, and within the shorter one
 * while the memory for large values is used up. */
#define LIMITS_SEND_TIMEOUT_NS (5 * 60 * NS_PER_S)
#define LIMITS_SEND_TIMEOUT_SHORT_NS (5 * NS_PER_S)

/* While somebody waits for a large value's turn, a client that sends nothing of its own for this
 * long is not waited for. */
#define LIMITS_UPLOAD_STALL_NS (5 * NS_PER_S)

/* A request must be whole this long after its first byte, plus a second for every
 * LIMITS_REQUEST_RATE bytes of it. */
#define LIMITS_REQUEST_TIMEOUT_NS (60 * NS_PER_S)
#define LIMITS_REQUEST_RATE (64 * KIB)

/* A connection of HTTP on which nothing is under way for so long is closed. */
#define LIMITS_HTTP_IDLE_NS (5 * 60 * NS_PER_S)

/* Long keys, tokens and header fields of HTTP requests that are being taken, over all connections
 * of a node. (512 bytes of each are the connection's own.) */
#define LIMITS_HTTP_TEXT_BYTES_MAX (64 * MIB)

/* After our FIN: how long and how many bytes we still listen, so that the client sees our last
 * answer. */
#define LIMITS_LINGER_NS (2 * NS_PER_S)
#define LIMITS_LINGER_BYTES (16 * MIB)

/* SIGTERM: how long connections may take to receive their last answers. */
#define LIMITS_DRAIN_NS (10 * NS_PER_S)

/* SIGTERM: a client that sends nothing of a large value for this long is not waited for. */
#define LIMITS_DRAIN_STALL_NS NS_PER_S

/* SIGTERM: how long connections are still served as before, for what was on its way. */
#define LIMITS_DRAIN_GRACE_NS (50 * NS_PER_MS)

#endif
