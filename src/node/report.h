/* What the parts of a shard count, for its watch (net/watch/watch.h). */
#ifndef MINIVAULT_NODE_REPORT_H
#define MINIVAULT_NODE_REPORT_H

#include "net/watch/watch.h"

struct loop;

/* The source of the loop's watch. */
struct watch_source report_source(struct loop *loop);

#endif
