/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "method.h"

static const struct warm_method methods[] = {
        { "cancel", warm_method_cancel, true },    { "complete", warm_method_complete, false },
        { "explain", warm_method_explain, false }, { "hello", warm_method_hello, false },
        { "models", warm_method_models, false },   { "score", warm_method_score, false },
        { "status", warm_method_status, false },   { "tokenize", warm_method_tokenize, false },
        { "trim", warm_method_trim, false },       { "warm", warm_method_warm, false },
};

const struct warm_method *warm_methods(uint32_t *ret_n) {
        *ret_n = sizeof(methods) / sizeof(methods[0]);
        return methods;
}

static const struct warm_method *find_method(struct warm_wire_text name) {
        for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
                if (strlen(methods[i].name) == name.n &&
                    memcmp(methods[i].name, name.data, name.n) == 0)
                        return &methods[i];
        return NULL;
}

static void run_method(struct warm_call *call, const struct warm_message *m) {
        const struct warm_method *method = find_method(m->method);

        if (call->is_notification && (!method || !method->may_notify)) {
                call->server->stats.n_unknown++;
                return;
        }
        if (!method) {
                warm_call_error(call, WARM_RPC_E_UNKNOWN_METHOD);
                return;
        }
        call->params = m->params;
        method->call(call);
}

void warm_dispatch_frame(struct warm_connection *c, const void *frame, size_t n_frame,
                         uint64_t arrival_ns) {
        struct warm_call call = {
                .server = c->server,
                .connection = c,
                .uid = c->uid,
                .is_admin = c->is_admin,
                .arrival_ns = arrival_ns,
        };
        struct warm_message m;
        int r;

        r = warm_message_decode_packed(frame, n_frame, &m);
        call.id = m.id;
        call.is_notification = m.type == WARM_FRAME_NOTIFICATION;
        if (r == -ENOMEM)
                warm_connection_kill(c);
        else if (m.type == WARM_FRAME_RESPONSE || (r != 0 && call.is_notification))
                c->server->stats.n_unknown++; /* we asked nothing, and nobody waits */
        else if (r != 0)
                warm_call_error(&call, WARM_RPC_E_REQUEST);
        else
                run_method(&call, &m);
        warm_message_deinit(&m);
}

void warm_call_result(struct warm_call *call, struct warm_writer *w) {
        assert(call->connection && !call->is_notification);
        warm_writer_result(w, &call->connection->out, call->id);
}

void warm_call_end(struct warm_call *call, struct warm_writer *w) {
        struct warm_connection *c = call->connection;
        int r = warm_writer_end(w);

        if (c->state == WARM_CONNECTION_DEAD)
                return;
        if (r == WARM_WIRE_E_FULL && c->out.max - warm_buffer_n(&c->out) > WARM_FRAME_BYTES_MAX) {
                warm_call_error(call, WARM_RPC_E_REPLY_LARGE); /* it is the frame's limit */
                return;
        }
        if (r != 0) {
                c->server->stats.n_refused++;
                warm_server_note(c->server, WARM_SERVER_NOTE_LIMIT, c->uid,
                                 r == -ENOMEM ? "memory" : "output-client", c->out.max);
                warm_connection_kill(c);
                return;
        }
        warm_connection_wrote(c);
}

static void send_error(struct warm_call *call, enum warm_rpc_error e, const char *what) {
        struct warm_writer w;

        if (!call->connection || call->is_notification)
                return;
        warm_writer_error(&w, &call->connection->out, &call->id, e, warm_rpc_error_name(e), what);
        warm_call_end(call, &w);
}

void warm_call_error(struct warm_call *call, enum warm_rpc_error e) {
        send_error(call, e, warm_rpc_error_what(e));
}

void warm_call_error_what(struct warm_call *call, enum warm_rpc_error e, const char *format, ...) {
        char what[320];
        va_list ap;

        va_start(ap, format);
        vsnprintf(what, sizeof(what), format, ap);
        va_end(ap);
        send_error(call, e, what);
}

bool warm_call_read_map(struct warm_call *call, const msgpack_object *map,
                        const struct warm_field *table, uint32_t n_fields, void *ret_values,
                        uint64_t *ret_present) {
        static const enum warm_rpc_error errors[] = {
                [WARM_WIRE_E_TYPE] = WARM_RPC_E_TYPE,
                [WARM_WIRE_E_RANGE] = WARM_RPC_E_RANGE,
                [WARM_WIRE_E_UNKNOWN_KEY] = WARM_RPC_E_UNKNOWN_KEY,
                [WARM_WIRE_E_DUPLICATE] = WARM_RPC_E_DUPLICATE_KEY,
                [WARM_WIRE_E_MISSING] = WARM_RPC_E_MISSING,
        };
        struct warm_field_error error;
        int r;

        r = warm_fields_read(table, n_fields, map, ret_values, ret_present, &error);
        if (r != 0)
                warm_call_error_what(call, errors[r], "%s", error.what);
        return r == 0;
}

bool warm_call_read(struct warm_call *call, const struct warm_field *table, uint32_t n_fields,
                    void *ret_values, uint64_t *ret_present) {
        return warm_call_read_map(call, call->params, table, n_fields, ret_values, ret_present);
}

bool warm_call_may_submit(struct warm_call *call) {
        uint32_t max = call->server->config.n_requests_uid_max;

        if (call->uid->n_requests < max)
                return true;
        warm_server_note(call->server, WARM_SERVER_NOTE_LIMIT, call->uid, "requests-uid", max);
        warm_call_error(call, WARM_RPC_E_REQUESTS);
        return false;
}

struct warm_pending *warm_call_submit(struct warm_call *call, struct warm_request *request,
                                      void (*reply)(struct warm_pending *p)) {
        struct warm_server *s = call->server;
        struct warm_pending *p = calloc(1, sizeof(*p));
        int r;

        if (!p) {
                warm_request_free(request);
                warm_call_error(call, WARM_RPC_E_MEMORY);
                return NULL;
        }
        p->call = *call;
        p->call.params = NULL;
        p->request = request;
        p->reply = reply;
        request->id = ++s->request_id_last;
        request->uid = call->uid->uid;
        request->arrival_ns = call->arrival_ns;
        request->owner = p;
        r = warm_engine_submit(s->config.engine, request);
        if (r != 0) {
                warm_request_free(request);
                free(p);
                warm_call_error(call, r == WARM_ENGINE_E_BUSY ? WARM_RPC_E_BUSY
                                      : r == -ENOMEM          ? WARM_RPC_E_MEMORY
                                                              : WARM_RPC_E_SHUTDOWN);
                return NULL;
        }
        LIST_INSERT_HEAD(&s->pendings, p, server_link);
        LIST_INSERT_HEAD(&call->connection->pendings, p, connection_link);
        call->uid->n_requests++;
        s->stats.n_requests++;
        return p;
}

void warm_pending_orphan(struct warm_pending *p) {
        LIST_REMOVE(p, connection_link);
        p->call.connection = NULL;
        warm_engine_cancel(p->call.server->config.engine, p->request->id);
}

/* Send what became fit to show since the last time. */
static void send_progress(struct warm_pending *p, const char *text, uint64_t n_bytes) {
        struct warm_connection *c = p->call.connection;
        struct warm_writer w;

        if (!c || c->state == WARM_CONNECTION_DEAD || n_bytes <= p->n_text_sent)
                return;
        warm_writer_notification(&w, &c->out, "text");
        warm_write_map(&w, 2);
        warm_write_key_uint(&w, "id", p->call.id);
        warm_write_key_text(&w, "text", text + p->n_text_sent, n_bytes - p->n_text_sent);
        p->n_text_sent = n_bytes;
        warm_call_end(&p->call, &w);
}

/* What the deltas left out goes before the reply: joined they are its text. */
static void send_rest(struct warm_pending *p) {
        const struct warm_request *r = p->request;
        struct warm_string text;

        if (!r->progress || r->failure != WARM_FAILURE_NONE || r->n_answers == 0)
                return;
        text = warm_answer_text(r->answers[0].answer);
        send_progress(p, text.data, text.n);
}

static void finish(struct warm_pending *p) {
        struct warm_server *s = p->call.server;
        struct warm_connection *c = p->call.connection;

        LIST_REMOVE(p, server_link);
        LIST_INSERT_HEAD(&s->answered, p, server_link);
        if (c)
                LIST_REMOVE(p, connection_link);
        p->call.uid->n_requests--;
        s->stats.n_requests--;
        s->stats.n_requests_served++;
        if (c && c->state != WARM_CONNECTION_DEAD) {
                send_rest(p);
                p->reply(p);
                warm_connection_wrote(c);
        }
}

void warm_dispatch_tidy(struct warm_server *s) {
        struct warm_pending *p;

        while ((p = LIST_FIRST(&s->answered))) {
                LIST_REMOVE(p, server_link);
                warm_request_free(p->request);
                free(p);
        }
}

void warm_dispatch_event(struct warm_server *s, const struct warm_event *event) {
        switch (event->kind) {
        case WARM_EVENT_TEXT:
                send_progress(event->request->owner, event->text, event->n_bytes);
                break;
        case WARM_EVENT_DONE:
                finish(event->request->owner);
                break;
        case WARM_EVENT_FAULT:
                s->is_faulty = true;
                warm_server_note(s, WARM_SERVER_NOTE_FAULT, NULL, event->fault_text,
                                 (uint64_t) event->fault);
                break;
        }
}

void warm_dispatch_abandon(struct warm_server *s) {
        struct warm_pending *p;

        warm_dispatch_tidy(s);
        while ((p = LIST_FIRST(&s->pendings))) {
                LIST_REMOVE(p, server_link);
                p->request->owner = NULL;
                free(p);
        }
}
