/* Clients of the binary protocol (docs/protocol.md). */
#ifndef MINIVAULT_NET_BINARY_CLIENT_H
#define MINIVAULT_NET_BINARY_CLIENT_H

#include "net/client/connection.h"

extern const struct protocol protocol_binary;

#endif
