/* SPDX-License-Identifier: Apache-2.0 */
/* cancel and trim: give up what was asked for, and what is kept of it. */
#include "method.h"

struct cancel_fields {
        uint64_t id;
        const msgpack_object *stream;
};

static const struct warm_field cancel_table[] = {
        { "id", WARM_FIELD_UINT, 0, UINT32_MAX, offsetof(struct cancel_fields, id), 0 },
        { "stream", WARM_FIELD_ANY, 0, 0, offsetof(struct cancel_fields, stream), 0 },
};

#define HAS_ID (1U << 0)

void warm_method_cancel(struct warm_call *call) {
        struct cancel_fields f = { 0 };
        uint64_t present, stream = 0;
        struct warm_pending *p;
        struct warm_writer w;
        uint32_t n = 0;

        if (!warm_call_read(call, cancel_table, 2, &f, &present))
                return;
        if (present == 0) {
                warm_call_error_what(call, WARM_RPC_E_MISSING, "'id' or 'stream' is required");
                return;
        }
        if (f.stream && warm_call_stream(call, f.stream, &stream) < 0)
                return;
        LIST_FOREACH(p, &call->connection->pendings, connection_link) {
                bool by_id = (present & HAS_ID) && p->call.id == f.id;
                bool by_stream = stream != 0 && p->request->stream == stream;

                if (!by_id && !by_stream)
                        continue;
                warm_engine_cancel(call->server->config.engine, p->request->id);
                n++;
        }
        if (call->is_notification)
                return;
        warm_call_result(call, &w);
        warm_write_map(&w, 1);
        warm_write_key_uint(&w, "cancelled", n);
        warm_call_end(call, &w);
}

struct trim_fields {
        uint64_t uid;
        bool all;
};

static const struct warm_field trim_table[] = {
        { "uid", WARM_FIELD_UINT, 0, UINT32_MAX - 1, offsetof(struct trim_fields, uid), 0 },
        { "all", WARM_FIELD_BOOL, 0, 0, offsetof(struct trim_fields, all), 0 },
};

static void reply_trim(struct warm_pending *p) {
        struct warm_writer w;

        if (warm_pending_failed(p))
                return;
        warm_call_result(&p->call, &w);
        warm_write_map(&w, 1);
        warm_write_key_uint(&w, "blocks", p->request->n_trimmed_blocks);
        warm_call_end(&p->call, &w);
}

void warm_method_trim(struct warm_call *call) {
        struct trim_fields f = { .uid = call->uid->uid };
        struct warm_request *request;

        if (!warm_call_may_submit(call) || !warm_call_read(call, trim_table, 2, &f, NULL))
                return;
        if ((f.all || f.uid != call->uid->uid) && !call->is_admin) {
                warm_call_error(call, WARM_RPC_E_NOT_PERMITTED);
                return;
        }
        request = warm_request_new();
        if (!request) {
                warm_call_error(call, WARM_RPC_E_MEMORY);
                return;
        }
        request->kind = WARM_REQUEST_TRIM;
        request->n = 1;
        request->trim_uid = f.all ? (uid_t) -1 : (uid_t) f.uid;
        warm_call_submit(call, request, reply_trim);
}
