/* The simulated network: connections of two ends, and the packets between them. Whoever owns an end
 * sends and receives there; what it does reaches the other end only as packets. */
#ifndef MINIVAULT_IO_IO_SIM_WIRE_H
#define MINIVAULT_IO_IO_SIM_WIRE_H

#include "io/io_sim_internal.h"

struct wire_end;

enum wire_news {
    WIRE_READABLE = 1, /* bytes, an end or an error */
    WIRE_WRITABLE = 2, /* room or an error */
};

/* Tells the owner of an end what has changed. */
typedef void wire_changed(void *owner, uint32_t news);

/* A connection has arrived at `machine`: whether a listener takes this end of it (wire_open). */
typedef bool wire_arrives(struct sim_disk *machine, uint16_t port, struct wire_end *end);

/* A client connects to `port` of a machine, as one of its `peers`: sim_connect. */
struct sim_peer *wire_connect(struct sim *sim, struct list *peers, struct sim_disk *machine,
                              uint16_t port, wire_arrives *arrives, sim_peer_changed *changed,
                              void *context);

/* The end gets an owner. */
void wire_open(struct wire_end *end, wire_changed *changed, void *owner);

/* How many bytes can be received; 0 at the end of the stream. Errors: -EAGAIN: nothing is there;
 * -ECONNRESET. */
int64_t wire_look(const struct wire_end *end);

/* Takes bytes that have arrived: all that fit, or by chance fewer. There are some (wire_look). */
uint32_t wire_receive(struct wire_end *end, void *buffer, uint64_t size);

/* Sends bytes on their way. Returns how many were taken. Errors: -ECONNRESET; -EPIPE: after its
 * own wire_shutdown. */
int64_t wire_send(struct wire_end *end, const void *data, size_t size);

/* Sends FIN. */
void wire_shutdown(struct wire_end *end);

enum wire_close {
    WIRE_ORDERLY, /* with FIN; what was not received makes it a reset, as TCP does */
    WIRE_RESET,
    WIRE_CUT, /* a reset, and what is still on the wire may be lost */
};

/* The host's end loses its owner. */
void wire_close(struct wire_end *end, enum wire_close close);

/* Closes all clients of a machine. */
void wire_close_peers(struct list *peers);

#endif
