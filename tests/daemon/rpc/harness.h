/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server over a made-up engine, and clients of it, in one thread: pump() turns the loop until nothing is left to
 * do, so tests need no waits.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>

#include <cmocka.h>

#include "client/codec.h"
#include "fake-engine.h"
#include "rpc/error.h"
#include "rpc/server.h"

struct harness {
        sd_event *event;
        struct warm_engine *engine;
        struct warm_server *server;
        int listen_fd;
        char path[108];
        unsigned n_notes[_WARM_SERVER_NOTE_N];
        const char *limit; /* of the last note */
};

/* @param config limits; NULL: defaults */
struct harness *harness_new(const struct warm_server_config *config);
void harness_free(struct harness *h);
void pump(struct harness *h);

/* A client: non-blocking, with a buffer of what it read. */
struct peer {
        int fd;
        struct warm_buffer in;
        struct warm_message m; /* the last that was taken */
        bool has_message;
        bool at_end; /* the server closed */
};

void peer_open(struct harness *h, struct peer *p);
void peer_close(struct peer *p);
/* Send all, pumping while the socket is full. Return: false if the server closed. */
bool peer_send(struct harness *h, struct peer *p, const void *data, size_t n);
/* Pump, and take the next message. Return: false: there is none. */
bool peer_take(struct harness *h, struct peer *p);

/* A request with params packed by the caller: begin, pack one map, send. */
void call_begin(struct warm_writer *w, struct warm_buffer *b, uint32_t id, const char *method);
void call_send(struct harness *h, struct peer *p, struct warm_writer *w);

/* Send `[0, id, method, []]`. */
void peer_call(struct harness *h, struct peer *p, uint32_t id, const char *method);

/* Take a reply, which must be to id. */
const msgpack_object *peer_result(struct harness *h, struct peer *p, uint32_t id);
/* Take an error; its text is returned, terminated, static. */
const char *peer_error(struct harness *h, struct peer *p, uint32_t id, enum warm_rpc_error e);

/* The server still answers a new client, and this one. */
void assert_served(struct harness *h);
