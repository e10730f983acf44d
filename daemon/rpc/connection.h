/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client: its socket, what came in and is not a whole frame yet, what goes out and was not taken yet.
 *
 * Bytes are read into the server's scratch and used from there; only what is left of a frame is kept, so an idle
 * client holds no buffer. Replies are packed into `out` and sent when the callback that made them ends: a whole
 * message is one read and one write.
 *
 * A connection is never freed while somebody works on it: trouble sets its state, and warm_server_settle(), which
 * each callback of the loop calls last, flushes and frees.
 *
 * Thread: loop. Owner: the server.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

#include "client/codec.h"
#include "error.h"
#include "uid.h"

struct warm_server;
struct warm_pending;

#define WARM_CONNECTION_FRAMES_MAX 64U /* handled before others get their turn (untuned guess) */

enum warm_connection_state {
        WARM_CONNECTION_OPEN,
        WARM_CONNECTION_HALF,    /* it will send no more, but reads: what is in flight still ends */
        WARM_CONNECTION_CLOSING, /* nothing more is read; what is in flight still ends */
        WARM_CONNECTION_DEAD,
};

struct warm_connection {
        struct warm_server *server;
        TAILQ_ENTRY(warm_connection) link;       /* of the server's all */
        TAILQ_ENTRY(warm_connection) dirty_link; /* of those to flush or free; valid if is_dirty */
        TAILQ_ENTRY(warm_connection) ready_link; /* of those with frames left; valid if is_ready */
        bool is_dirty;
        bool is_ready;
        enum warm_connection_state state;
        uint64_t serial; /* never used twice */
        struct warm_uid *uid;
        bool is_admin;
        int fd;
        sd_event_source *source;
        uint32_t events; /* what the source waits for */
        struct warm_frame frame;
        struct warm_buffer in, out;
        uint64_t in_charged, out_charged; /* of the buffers' bytes, on the uid's account */
        LIST_HEAD(, warm_pending) pendings;
};

/*
 * Make a connection of an accepted socket.
 * @param fd non-blocking; the connection's on success
 */
int warm_connection_new(struct warm_server *s, int fd, struct warm_uid *uid, bool is_admin,
                        struct warm_connection **ret_connection);
struct warm_connection *warm_connection_free(struct warm_connection *c);

/* Handle frames that were left for the next turn. */
void warm_connection_go_on(struct warm_connection *c);

/* Bytes were put into `out`: charge them, and flush when the callback ends. Drops a client that never reads. */
void warm_connection_wrote(struct warm_connection *c);

/* Send what the kernel takes. */
void warm_connection_flush(struct warm_connection *c);

/* A reply to nothing, and the end: limits and frames that cannot be read on. @param id NULL: not known */
void warm_connection_refuse(struct warm_connection *c, const uint32_t *id, enum warm_rpc_error e);

/* Nothing more to or from it. */
void warm_connection_kill(struct warm_connection *c);
