/* Answers with large values: their way out of value files, piece by piece. A client has a list of
 * them, in client->downloads, from their looking up to their end. */
#ifndef MINIVAULT_NET_DOWNLOAD_H
#define MINIVAULT_NET_DOWNLOAD_H

#include "net/client/client.h"

/* Fills a reserved place: at once, or with a download when the value lies in a value file. */
void download_fill(struct client *client, struct output_block *block,
                   const struct shard_answer *answer);

/* Goes on with all of them. */
void download_go_on(struct client *client);

/* Gives them up. No send is active. */
void download_stop_all(struct client *client);

/* Their memory, when the world and the store are gone. */
void download_free_all(struct client *client);

/* Whether one of them waits long for its turn. */
bool download_is_starved(const struct client *client, uint64_t at_ns);

#endif
