/* What a node is configured with. The limits that no flag sets stand in net/client/limits.h. */
#ifndef MINIVAULT_NODE_CONFIG_H
#define MINIVAULT_NODE_CONFIG_H

#include "base/log.h"
#include "base/units.h"
#include "minivault/protocol.h"
#include "net/client/auth.h"
#include "store/scrub/scrub.h"
#include "store/wal/wal.h"

#include <stdbool.h>
#include <stdint.h>

#define CONFIG_CONNECTIONS_MAX 50000u

#define CONFIG_SECRET_SIZE_MAX 4096u

enum config_log_style { CONFIG_LOG_AUTO, CONFIG_LOG_TEXT, CONFIG_LOG_JSON };

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
    enum auth_mode auth_mode;
    bool auth_mode_given;
    uint64_t rate_limit;
    uint64_t memory_size;    /* bytes; 0: sizing.c chooses */
    uint64_t cache_size;     /* bytes */
    uint64_t index_size;     /* bytes, as sizing.c settles them; 0: no limit */
    uint32_t memory_divisor; /* the same: what is under way has this part of its usual memory */
    uint32_t workers;
    enum wal_durability durability;
    uint64_t scrub_rate; /* bytes a second, SCRUB_AUTO or SCRUB_OFF */
    uint64_t busy_poll_ns;
    enum log_level log_level;
    enum config_log_style log_style;
    uint64_t slowlog_ns; /* requests that take at least this long are logged; 0: none */
    bool accept_loss;
    bool probe;
    uint32_t shard_count;     /* 0: sizing.c chooses */
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

/* flags.c: as it is without flags. */
void config_init_defaults(struct config *config);

#endif
