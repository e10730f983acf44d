/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a frame to a method, and from what a method found to its one reply.
 *
 * A method gets a call. It answers at once (warm_call_error, warm_call_result .. warm_call_end), or hands a request to
 * the engine (warm_call_submit) and answers when that is done. Notifications go the same way; what they answer is
 * dropped here, so that no method can forget.
 *
 * Thread: loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/codec.h"
#include "error.h"
#include "internal.h"

struct warm_call {
        struct warm_server *server;
        struct warm_connection *connection; /* NULL: the client is gone */
        struct warm_uid *uid;
        bool is_admin;
        bool is_notification;
        uint32_t id;                  /* of the request, as its client numbered it */
        const msgpack_object *params; /* the map or NULL; only until the method returns */
        uint64_t arrival_ns;          /* the frame was complete */
};

/* A request that the engine has. Owner: the server's list; request->owner points back. */
struct warm_pending {
        LIST_ENTRY(warm_pending) server_link;
        LIST_ENTRY(warm_pending) connection_link; /* valid while call.connection */
        struct warm_call call;
        struct warm_request *request;
        void (*reply)(struct warm_pending *p);
        uint64_t n_text_sent; /* progress: bytes of the first answer */
        uint32_t lines;       /* COMPLETE, EXPLAIN: the limit in force */
};

typedef void (*warm_method_call)(struct warm_call *call);

struct warm_method {
        const char *name;
        warm_method_call call;
        bool may_notify;
};

/* [*ret_n], sorted as hello lists them. */
const struct warm_method *warm_methods(uint32_t *ret_n);

/* Handle one frame that warm_frame_check() has passed. */
void warm_dispatch_frame(struct warm_connection *c, const void *frame, size_t n_frame,
                         uint64_t arrival_ns);

/* Take what the engine has to say. */
void warm_dispatch_event(struct warm_server *s, const struct warm_event *event);

/* Free what was answered. */
void warm_dispatch_tidy(struct warm_server *s);

/* Its client is gone: end the request, keep it until the engine lets go. */
void warm_pending_orphan(struct warm_pending *p);

/* Start, and end, the reply. What cannot be sent becomes an error, or costs the connection. */
void warm_call_result(struct warm_call *call, struct warm_writer *w);
void warm_call_end(struct warm_call *call, struct warm_writer *w);

void warm_call_error(struct warm_call *call, enum warm_rpc_error e);
void warm_call_error_what(struct warm_call *call, enum warm_rpc_error e, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* Read params into a struct. Return: true; false: the error was sent. */
bool warm_call_read(struct warm_call *call, const struct warm_field *table, uint32_t n_fields,
                    void *ret_values, uint64_t *ret_present);
/* The same for a map inside params. */
bool warm_call_read_map(struct warm_call *call, const msgpack_object *map,
                        const struct warm_field *table, uint32_t n_fields, void *ret_values,
                        uint64_t *ret_present);

/*
 * May this uid have one more request? Asked before the work of making one is done.
 * Return: true; false: the error was sent.
 */
bool warm_call_may_submit(struct warm_call *call);

/*
 * Hand a request to the engine; uid, id, arrival and owner are filled in here.
 * @param request taken, whatever comes of it
 * @param reply answers when it is done; not called if the client is gone by then
 * Return: what the engine has now; NULL: refused, the error was sent.
 */
struct warm_pending *warm_call_submit(struct warm_call *call, struct warm_request *request,
                                      void (*reply)(struct warm_pending *p));

/* The server ends and the engine did not give these back in time: forget them (they stay the engine's). */
void warm_dispatch_abandon(struct warm_server *s);
