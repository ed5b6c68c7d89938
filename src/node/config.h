/* What a node is configured with. Every limit stands here once; docs/operations.md tells them to
 * operators. */
#ifndef MINIVAULT_NET_CONFIG_H
#define MINIVAULT_NET_CONFIG_H

#include "base/log.h"
#include "base/units.h"
#include "minivault/protocol.h"
#include "net/client/auth.h"
#include "store/scrub/scrub.h"
#include "store/wal/wal.h"

#include <stdbool.h>
#include <stdint.h>

#define CONFIG_VALUE_SIZE_DEFAULT MINIVAULT_VALUE_SIZE_MAX

#define CONFIG_CONNECTIONS_MAX 50000u

/* Leased receive buffers: RECEIVE_COUNT × RECEIVE_SIZE bytes for a shard. 16 KiB holds the usual
 * pipeline of small requests; 512 of them serve the connections that are readable in one pass. */
#define CONFIG_RECEIVE_SIZE 16384u
#define CONFIG_RECEIVE_COUNT 512u

/* Bytes of unfinished requests, over all connections of a node, of which each shard has its part;
 * beyond it a request is consumed and refused. */
#define CONFIG_INPUT_BYTES_MAX (256 * MIB)

/* Bytes of replies that one connection may have waiting before its requests wait too. */
#define CONFIG_OUTPUT_BYTES_MAX (1 * MIB)

/* Reply blocks (4 KiB) of a node, beyond one for each connection; each shard has its part. */
#define CONFIG_OUTPUT_BLOCKS 16384u

/* Bytes of large values that are in no cache, on their way to all clients of a node; each shard has
 * its part, beyond which gets that need the disk wait. What is being read then still comes on top
 * (FETCH_LARGE_MAX). */
#define CONFIG_OUTPUT_MEMORY_MAX (64 * MIB)

/* So long, at most, a reply that could leave waits for replies behind it that other shards were
 * asked for: about as long as a busy shard's pass. */
#define CONFIG_HOLD_NS (200 * NS_PER_US)

/* A client must take a send (at most about 512 KiB) within this time, and within the shorter one
 * while the memory for large values is used up. */
#define CONFIG_SEND_TIMEOUT_NS (5 * 60 * NS_PER_S)
#define CONFIG_SEND_TIMEOUT_SHORT_NS (5 * NS_PER_S)

/* While somebody waits for a large value's turn, a client that sends nothing of its own for this
 * long is not waited for. */
#define CONFIG_UPLOAD_STALL_NS (5 * NS_PER_S)

/* A request must be whole this long after its first byte, plus a second for every
 * CONFIG_REQUEST_RATE bytes of it. */
#define CONFIG_REQUEST_TIMEOUT_NS (60 * NS_PER_S)
#define CONFIG_REQUEST_RATE (64 * KIB)

/* A connection of HTTP on which nothing is under way for so long is closed. */
#define CONFIG_HTTP_IDLE_NS (5 * 60 * NS_PER_S)

/* Long keys, tokens and header fields of HTTP requests that are being taken, over all connections
 * of a node. (512 bytes of each are the connection's own.) */
#define CONFIG_HTTP_TEXT_BYTES_MAX (64 * MIB)

/* A node with less free space than this, and than a hundredth of its disk, is not ready. */
#define CONFIG_READY_DISK_MIN (64 * MIB)

/* How often a shard looks at its connections' deadlines and tells the others of itself: what one
 * tells of another is at most this, and a pass, old. */
#define CONFIG_TICK_NS (NS_PER_S / 2)

/* After our FIN: how long and how many bytes we still listen, so that the client sees our last
 * answer. */
#define CONFIG_LINGER_NS (2 * NS_PER_S)
#define CONFIG_LINGER_BYTES (16 * MIB)

/* SIGTERM: how long connections may take to receive their last answers. */
#define CONFIG_DRAIN_NS (10 * NS_PER_S)

/* SIGTERM: a client that sends nothing of a large value for this long is not waited for. */
#define CONFIG_DRAIN_STALL_NS NS_PER_S

/* SIGTERM: how long connections are still served as before, for what was on its way. */
#define CONFIG_DRAIN_GRACE_NS (50 * NS_PER_MS)

enum config_auth_mode { AUTH_NONE, AUTH_WRITES, AUTH_ALL };

#define CONFIG_SECRET_SIZE_MAX 4096u

struct config {
    const char *host;   /* to listen on; NULL: all addresses */
    uint16_t port;      /* 0: any free one */
    uint16_t http_port; /* 0: none */
    const char *public_url;
    const char *data_path;
    const char *secret;        /* of -auth, in argv, until it was hashed; "": none */
    const char *secret_file;   /* or where it is to be read; NULL: nowhere */
    const char *credential;    /* a file that systemd gave for it, or NULL */
    struct auth auth;          /* what it became */
    const char *settings_file; /* what SIGHUP reads, or NULL */
    enum config_auth_mode auth_mode;
    bool auth_mode_given;
    uint64_t rate_limit;
    uint64_t cache_size; /* bytes */
    uint32_t workers;
    enum wal_durability durability;
    uint64_t scrub_rate; /* bytes a second, SCRUB_AUTO or SCRUB_OFF */
    uint64_t busy_poll_ns;
    enum log_level log_level;
    uint64_t slowlog_ns; /* requests that take at least this long are logged; 0: none */
    bool accept_loss;
    bool probe;
    uint32_t shard_count;     /* 0: as many as there are CPUs to run on */
    const char *pin;          /* "auto", "off", or a list of CPUs as in taskset(1) */
    uint32_t connections_max; /* of the node */
    uint32_t value_size_max;  /* bytes; no flags for these: the simulator uses smaller ones */
    uint32_t value_file_min; /* bytes: a value of at least this lies in a file; 0: VALUE_FILE_MIN */
    uint32_t stream_buffers; /* of large values on their way; 0: STORE_STREAM_BUFFERS */
    uint64_t log_keep_bytes; /* of sealed log that are not moved yet; 0: some segments */
    uint64_t compact_min;    /* dead bytes of segments that are worth a job; 0: a segment's */
    uint32_t mover_window;   /* bytes that the mover reads at once; 0: a MiB */
    uint64_t mover_stage;    /* bytes of records that it holds in memory; 0: 32 MiB */
    uint64_t checkpoint_min; /* moved records that are worth an index checkpoint; 0: many */
    uint64_t log_file_size;  /* bytes, of a directory that is formatted now; 0: by its disk */
    uint64_t sleep_max_ns;   /* of a shard that has others beside it; 0: no limit. No flag */
    uint64_t drain_delay_ns; /* from SIGTERM, not ready but serving, until the drain begins */
    uint64_t lock_wait_ns;   /* how long start-up waits for a predecessor's lock and port */
};

void config_init_defaults(struct config *config);

#endif
