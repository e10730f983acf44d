/* SPDX-License-Identifier: Apache-2.0 */
/* complete: the document in, one answer or up to four out. */
#include <assert.h>

#include "document.h"

struct complete_fields {
        struct warm_document document;
        const msgpack_object *stream, *stop;
        bool supersede, raw, progress;
        uint64_t n, indent_min, deadline_ms, t_predict_ms, top_k, seed, logprobs;
        double temperature, top_p, min_p;
};

#define FIELD(name, type, min, max, flags)                                                         \
        { #name, type, min, max, offsetof(struct complete_fields, name), flags }

static const struct warm_field table[] = {
        WARM_DOCUMENT_TABLE(offsetof(struct complete_fields, document)),
        FIELD(stream, WARM_FIELD_ANY, 0, 0, 0),
        FIELD(stop, WARM_FIELD_ARRAY, 0, WARM_STOPS_MAX, 0),
        FIELD(logprobs, WARM_FIELD_UINT, 0, WARM_TOP_N_MAX, 0),
        FIELD(supersede, WARM_FIELD_BOOL, 0, 0, 0),
        FIELD(raw, WARM_FIELD_BOOL, 0, 0, 0),
        FIELD(progress, WARM_FIELD_BOOL, 0, 0, 0),
        FIELD(n, WARM_FIELD_UINT, 1, WARM_ALTERNATIVES_MAX, 0),
        FIELD(indent_min, WARM_FIELD_UINT, 0, WARM_RPC_INDENT_MAX, 0),
        FIELD(deadline_ms, WARM_FIELD_UINT, 1, WARM_RPC_TIME_MS_MAX, 0),
        FIELD(t_predict_ms, WARM_FIELD_UINT, 1, WARM_RPC_TIME_MS_MAX, 0),
        FIELD(top_k, WARM_FIELD_UINT, 0, WARM_RPC_TOP_K_MAX, 0),
        FIELD(seed, WARM_FIELD_UINT, 0, WARM_WIRE_INT_MAX, 0),
        FIELD(temperature, WARM_FIELD_NUMBER, 0, WARM_RPC_TEMPERATURE_MAX, 0),
        FIELD(top_p, WARM_FIELD_NUMBER, 0, 1, WARM_FIELD_ABOVE_MIN),
        FIELD(min_p, WARM_FIELD_NUMBER, 0, 1, WARM_FIELD_BELOW_MAX),
};

#define N_FIELDS     (sizeof(table) / sizeof(table[0]))
#define HAS_LOGPROBS (1ULL << (WARM_DOCUMENT_FIELDS + 2))

static bool read_stops(struct warm_call *call, const msgpack_object *array,
                       struct warm_wire_text *stops) {
        for (uint32_t i = 0; i < warm_read_n(array); i++) {
                if (warm_read_text(warm_read_element(array, i), &stops[i]) != 0) {
                        warm_call_error_what(call, WARM_RPC_E_TYPE,
                                             "'stop' must hold text (str or bin)");
                        return false;
                }
                if (stops[i].n == 0 || stops[i].n > WARM_STOP_BYTES_MAX) {
                        warm_call_error_what(call, WARM_RPC_E_RANGE,
                                             "each text in 'stop' must be 1 to %u bytes",
                                             WARM_STOP_BYTES_MAX);
                        return false;
                }
        }
        return true;
}

static void fill_request(struct warm_request *r, const struct complete_fields *f,
                         uint64_t arrival_ns) {
        r->supersede = f->supersede;
        r->progress = f->progress;
        r->n = (uint32_t) f->n;
        r->n_top = (uint32_t) f->logprobs;
        r->sampling = (struct warm_sampling){
                .temperature = (float) f->temperature,
                .top_p = (float) f->top_p,
                .min_p = (float) f->min_p,
                .top_k = (uint32_t) f->top_k,
                .seed = f->seed,
        };
        /* what was in range as a double must stay so as a float */
        if (!(r->sampling.top_p > 0))
                r->sampling.top_p = 0x1p-126F;
        if (r->sampling.min_p >= 1)
                r->sampling.min_p = 0x1.fffffep-1F;
        r->answer.raw = f->raw;
        r->answer.lines = warm_document_lines(&f->document);
        r->answer.indent_min = (uint32_t) f->indent_min;
        if (f->deadline_ms > 0)
                r->deadline_ns = arrival_ns + f->deadline_ms * 1000000;
        r->t_predict_ns = f->t_predict_ms * 1000000;
}

static void write_logprobs(struct warm_writer *w, const struct warm_request_answer *a) {
        warm_write_string(w, "logprobs");
        warm_write_array(w, a->n_ids);
        for (uint32_t i = 0; i < a->n_ids; i++) {
                const struct warm_token_logprob *l = &a->logprobs[i];

                warm_write_map(w, 3);
                warm_write_key_uint(w, "id", (uint64_t) l->token);
                warm_write_string(w, "logprob");
                warm_write_float(w, l->logprob);
                warm_write_string(w, "top");
                warm_write_array(w, l->n_top);
                for (uint32_t k = 0; k < l->n_top; k++) {
                        warm_write_array(w, 2);
                        warm_write_uint(w, (uint64_t) l->top[k].token);
                        warm_write_float(w, l->top[k].logprob);
                }
        }
}

#define ANSWER_PAIRS 5U /* and `logprobs`, if asked for */

static void write_answer(struct warm_writer *w, const struct warm_request_answer *a,
                         bool logprobs) {
        struct warm_string text = warm_answer_text(a->answer);

        warm_write_key_text(w, "text", text.data, text.n);
        warm_write_key_ids(w, "ids", a->ids, a->n_ids);
        warm_write_key_string(w, "finish", warm_finish_name(a->finish));
        warm_write_key_uint(w, "trimmed", warm_answer_trimmed(a->answer));
        warm_write_string(w, "confidence");
        warm_write_map(w, 3);
        warm_write_string(w, "mean");
        warm_write_float(w, a->confidence_mean);
        warm_write_string(w, "min");
        warm_write_float(w, a->confidence_min);
        warm_write_string(w, "first");
        warm_write_float(w, a->confidence_first);
        if (logprobs)
                write_logprobs(w, a);
}

static uint64_t micros_since(uint64_t from_ns, uint64_t to_ns) {
        return to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

static void write_times(struct warm_writer *w, const struct warm_request *r) {
        warm_write_string(w, "time_us");
        warm_write_map(w, 5);
        warm_write_key_uint(w, "queue", r->queue_ns / 1000);
        warm_write_key_uint(w, "prefill", r->prefill_ns / 1000);
        warm_write_key_uint(w, "first", micros_since(r->arrival_ns, r->first_ns));
        warm_write_key_uint(w, "total", micros_since(r->arrival_ns, r->done_ns));
        warm_write_key_uint(w, "engine", r->engine_ns / 1000);
}

static void reply(struct warm_pending *p) {
        const struct warm_request *r = p->request;
        uint32_t n_pairs = ANSWER_PAIRS + (r->logprobs ? 1 : 0);
        struct warm_writer w;

        if (warm_pending_failed(p))
                return;
        assert(r->n_answers >= 1);
        warm_call_result(&p->call, &w);
        warm_write_map(&w, n_pairs + 9);
        warm_write_key_uint(&w, "id", p->call.id);
        warm_write_key_string(
                &w, "model",
                warm_engine_model(p->call.server->config.engine, r->model_index)->name);
        write_answer(&w, &r->answers[0], r->logprobs);
        warm_write_string(&w, "alternatives");
        warm_write_array(&w, r->n_answers - 1);
        for (uint32_t i = 1; i < r->n_answers; i++) {
                warm_write_map(&w, n_pairs);
                write_answer(&w, &r->answers[i], r->logprobs);
        }
        warm_write_key_bool(&w, "fim", r->prompt.fim);
        warm_write_key_uint(&w, "lines", p->lines);
        warm_write_key_uint(&w, "heal_steps", r->n_heal_steps);
        warm_write_truncated(&w, &r->prompt);
        warm_write_cache(&w, r);
        write_times(&w, r);
        warm_call_end(&p->call, &w);
}

void warm_method_complete(struct warm_call *call) {
        struct complete_fields f = {
                .document = WARM_DOCUMENT_DEFAULT,
                .supersede = true,
                .n = 1,
                .top_p = 1,
        };
        struct warm_wire_text stops[WARM_STOPS_MAX];
        struct warm_request *request;
        struct warm_pending *p;
        uint64_t present, stream = 0;
        uint32_t lines;

        if (!warm_call_may_submit(call) ||
            !warm_document_read(call, table, N_FIELDS, &f, &f.document, &present) ||
            !read_stops(call, f.stop, stops) ||
            (f.stream && warm_call_stream(call, f.stream, &stream) < 0))
                return;
        request = warm_document_request(call, &f.document, WARM_REQUEST_COMPLETE, stops,
                                        warm_read_n(f.stop));
        if (!request)
                return;
        fill_request(request, &f, call->arrival_ns);
        request->stream = stream;
        request->logprobs = present & HAS_LOGPROBS;
        lines = request->answer.lines;
        p = warm_call_submit(call, request, reply);
        if (p)
                p->lines = lines;
}
