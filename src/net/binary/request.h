/* What the two files of the binary protocol share: binary_stream.c (frames out of bytes), request.c
 * (one request). */
#ifndef MINIVAULT_NET_REQUEST_H
#define MINIVAULT_NET_REQUEST_H

#include "net/client/server_internal.h"
#include "proto/binary.h"

/* Why a request is refused whatever its value says: judged as soon as its header is there. Returns
 * OK: it is not. *ret_close: the connection ends with the answer. *ret_consume: the frame is
 * consumed first. */
uint8_t request_refusal(const struct connection *connection, const struct binary_request *request,
                        bool *ret_close, bool *ret_consume);

void request_refuse(struct connection *connection, uint8_t status, bool close);

/* Executes or refuses a whole request. */
enum taken request_take(struct connection *connection, const struct binary_request *request,
                        struct shard_place place);

/* Takes the header of a SET whose value is large and still to come: BEGUN or BLOCKED. */
/* The replies that follow are to this request. request_take does it by itself. */
void request_take_up(struct connection *connection, const struct binary_request *request);

enum taken request_begin_upload(struct connection *connection,
                                const struct binary_request *request);

#endif
