/* What the parts of a shard count, for its watch (net/watch/watch.h). */
#ifndef MINIVAULT_NODE_REPORT_H
#define MINIVAULT_NODE_REPORT_H

#include "net/steer/steer.h"
#include "net/watch/watch.h"

struct clients;
struct log;
struct shard;

struct report {
    const struct clients *clients;
    const struct shard *shard;
    const struct log *log;
    const bool *is_draining;
    const int *failed;
    bool is_reload_good;             /* of the last SIGHUP, or the start */
    uint64_t reload_ms;              /* when one was taken last: Unix time */
    const struct steer *steer;       /* of the node, or NULL */
    struct steer_counters decisions; /* as they were read last */
    const char *decision_names[STEER_DECISION_COUNT];
};

/* `report`, whose pointers are set, stays where it is. */
struct watch_source report_source(struct report *report);

#endif
