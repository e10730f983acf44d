/* SPDX-License-Identifier: Apache-2.0 */
/* warm and explain: the prompt of a document, computed into the cache or only looked up. */
#include "document.h"

static const struct warm_field table[] = { WARM_DOCUMENT_TABLE(0) };

_Static_assert(sizeof(table) / sizeof(table[0]) == WARM_DOCUMENT_FIELDS, "rows of the table");

static struct warm_pending *submit(struct warm_call *call, enum warm_request_kind kind,
                                   void (*reply)(struct warm_pending *p)) {
        struct warm_document d = WARM_DOCUMENT_DEFAULT;
        struct warm_request *request;
        struct warm_pending *p;

        if (!warm_call_may_submit(call) ||
            !warm_document_read(call, table, WARM_DOCUMENT_FIELDS, &d, &d, NULL))
                return NULL;
        request = warm_document_request(call, &d, kind, NULL, 0);
        if (!request)
                return NULL;
        p = warm_call_submit(call, request, reply);
        if (p)
                p->lines = warm_document_lines(&d);
        return p;
}

static const struct warm_model *model_of(const struct warm_pending *p) {
        return warm_engine_model(p->call.server->config.engine, p->request->model_index);
}

static void reply_warm(struct warm_pending *p) {
        const struct warm_request *r = p->request;
        struct warm_writer w;

        if (warm_pending_failed(p))
                return;
        warm_call_result(&p->call, &w);
        warm_write_map(&w, 5);
        warm_write_key_string(&w, "model", model_of(p)->name);
        warm_write_key_string(&w, "finish", warm_pending_finish(p));
        warm_write_truncated(&w, &r->prompt);
        warm_write_cache(&w, r);
        warm_write_string(&w, "time_us");
        warm_write_map(&w, 2);
        warm_write_key_uint(&w, "queue", r->queue_ns / 1000);
        warm_write_key_uint(&w, "prefill", r->prefill_ns / 1000);
        warm_call_end(&p->call, &w);
}

static const char *order_name(const struct warm_model *m, bool fim) {
        static const char *const names[] = {
                [WARM_ORDER_NONE] = "none",
                [WARM_ORDER_PSM] = "psm",
                [WARM_ORDER_SPM_JOINT] = "spm-joint",
        };

        return names[fim ? m->format.order : WARM_ORDER_NONE];
}

static void reply_explain(struct warm_pending *p) {
        const struct warm_request *r = p->request;
        const struct warm_model *model = model_of(p);
        struct warm_string name = { "", 0 };
        struct warm_writer w;

        if (warm_pending_failed(p))
                return;
        if (r->hit.at < r->prompt.n_ids)
                name = warm_vocab_name(model->vocab, r->prompt.ids[r->hit.at]);
        warm_call_result(&p->call, &w);
        warm_write_map(&w, 9);
        warm_write_key_string(&w, "model", model->name);
        warm_write_key_string(&w, "order", order_name(model, r->prompt.fim));
        warm_write_key_ids(&w, "ids", r->prompt.ids, r->prompt.n_ids);
        warm_write_key_text(&w, "at_token", name.data, name.n);
        warm_write_key_text(&w, "heal", r->prompt.heal, r->prompt.n_heal);
        warm_write_key_text(&w, "rest", r->prompt.rest.data, r->prompt.rest.n);
        warm_write_key_uint(&w, "lines", p->lines);
        warm_write_truncated(&w, &r->prompt);
        warm_write_cache(&w, r);
        warm_call_end(&p->call, &w);
}

void warm_method_warm(struct warm_call *call) {
        submit(call, WARM_REQUEST_WARM, reply_warm);
}

void warm_method_explain(struct warm_call *call) {
        submit(call, WARM_REQUEST_EXPLAIN, reply_explain);
}
