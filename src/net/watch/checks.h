/* Whether the node is alive, and whether it is ready for requests: a table of checks by name. */
#ifndef MINIVAULT_NET_CHECKS_H
#define MINIVAULT_NET_CHECKS_H

#include "base/units.h"

#include <stdbool.h>
#include <stdint.h>

struct watch;

/* Whether every shard's ring has made a pass of late. */
bool watch_is_live(const struct watch *watch);

/* A node with less free space than this, and than a hundredth of its disk, is not ready. */
#define CHECKS_DISK_MIN (64 * MIB)

#define CHECKS_TEXT_MAX 256u

/* Returns the name of the first check that fails; NULL: ready. *ret_text, CHECKS_TEXT_MAX bytes:
 * "name ok, name failed, ...". */
const char *checks_run(struct watch *watch, char *ret_text);

#endif
