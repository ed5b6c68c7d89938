/* Whether the server is alive, and whether it is ready for requests: a table of checks by name. */
#ifndef MINIVAULT_NET_CHECKS_H
#define MINIVAULT_NET_CHECKS_H

#include <stdbool.h>
#include <stdint.h>

struct loop;

/* Whether every shard's ring has turned of late. */
bool server_is_live(const struct loop *server);

#define CHECKS_TEXT_MAX 256u

/* Returns the name of the first check that fails; NULL: ready. *ret_text, CHECKS_TEXT_MAX bytes:
 * "name ok, name failed, ...". */
const char *checks_run(struct loop *server, char *ret_text);

#endif
