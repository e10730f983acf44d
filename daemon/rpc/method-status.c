/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hello, models and status: what the daemon is, has and does. What moves with one person's requests is shown to that
 * person and to administrators only: others could read a neighbour's typing rhythm from it.
 */
#include <string.h>
#include <unistd.h>

#include "method.h"
#include "model/cost.h"

static bool takes_nothing(struct warm_call *call) {
        char nothing;

        return warm_call_read(call, NULL, 0, &nothing, NULL);
}

static void write_methods(struct warm_writer *w) {
        const struct warm_method *methods;
        uint32_t n;

        methods = warm_methods(&n);
        warm_write_string(w, "methods");
        warm_write_array(w, n);
        for (uint32_t i = 0; i < n; i++)
                warm_write_string(w, methods[i].name);
}

static void write_limits(struct warm_writer *w, const struct warm_server_config *c) {
        const struct {
                const char *name;
                uint64_t value;
        } limits[] = {
                { "frame_bytes", WARM_FRAME_BYTES_MAX },
                { "frame_depth", WARM_FRAME_DEPTH_MAX },
                { "frame_elements", WARM_FRAME_ELEMENTS_MAX },
                { "prefix_bytes", WARM_PREFIX_BYTES_MAX },
                { "suffix_bytes", WARM_SUFFIX_BYTES_MAX },
                { "text_bytes", WARM_RPC_TEXT_BYTES_MAX },
                { "snippets", WARM_PROMPT_SNIPPETS_MAX },
                { "stops", WARM_STOPS_MAX },
                { "alternatives", WARM_ALTERNATIVES_MAX },
                { "n_max", WARM_RPC_N_MAX_MAX },
                { "clients_uid", c->n_clients_uid_max },
                { "requests_uid", c->n_requests_uid_max },
                { "output_client_bytes", c->output_client_bytes_max },
                { "output_uid_bytes", c->output_uid_bytes_max },
                { "input_uid_bytes", c->input_uid_bytes_max },
        };
        const uint32_t n = sizeof(limits) / sizeof(limits[0]);

        warm_write_string(w, "limits");
        warm_write_map(w, n);
        for (uint32_t i = 0; i < n; i++)
                warm_write_key_uint(w, limits[i].name, limits[i].value);
}

static uint64_t window_bytes(struct warm_engine *e, uint32_t index) {
        return warm_prompt_window_bytes(warm_engine_model(e, index),
                                        warm_engine_n_context(e, index));
}

void warm_method_hello(struct warm_call *call) {
        struct warm_server_config *c = &call->server->config;
        uint32_t n_models = warm_engine_n_models(c->engine);
        struct warm_writer w;

        if (!takes_nothing(call))
                return;
        warm_call_result(call, &w);
        warm_write_map(&w, 8);
        warm_write_key_string(&w, "version", c->version ? c->version : "");
        warm_write_key_uint(&w, "protocol", WARM_PROTOCOL_VERSION);
        warm_write_key_uint(&w, "uid", call->uid->uid);
        warm_write_key_bool(&w, "admin", call->is_admin);
        warm_write_key_uint(&w, "window_bytes", window_bytes(c->engine, 0));
        warm_write_string(&w, "models");
        warm_write_array(&w, n_models);
        for (uint32_t i = 0; i < n_models; i++)
                warm_write_string(&w, warm_engine_model(c->engine, i)->name);
        write_methods(&w);
        write_limits(&w, c);
        warm_call_end(call, &w);
}

static void write_orders(struct warm_writer *w, const struct warm_prompt_format *f) {
        bool psm = f->orders & (1U << WARM_ORDER_PSM);
        bool spm_joint = f->orders & (1U << WARM_ORDER_SPM_JOINT);

        warm_write_string(w, "orders");
        warm_write_array(w, (uint32_t) psm + (uint32_t) spm_joint);
        if (psm)
                warm_write_string(w, "psm");
        if (spm_joint)
                warm_write_string(w, "spm-joint");
        warm_write_key_string(w, "order",
                              f->order == WARM_ORDER_PSM         ? "psm"
                              : f->order == WARM_ORDER_SPM_JOINT ? "spm-joint"
                                                                 : "none");
}

/* From which a client can tell what a step must read and compute. */
static void write_step(struct warm_writer *w, struct warm_engine *e, uint32_t index) {
        struct warm_cost cost;

        warm_cost_of_plan(&warm_engine_model(e, index)->plan, &cost);
        warm_write_string(w, "step");
        warm_write_map(w, 5);
        warm_write_key_uint(w, "weights_bytes", cost.weights_bytes);
        warm_write_key_uint(w, "kv_token_bytes", warm_engine_token_bytes(e, index));
        warm_write_key_uint(w, "row_flop", cost.row_flop);
        warm_write_key_uint(w, "visible_flop", cost.visible_flop);
        warm_write_key_uint(w, "output_flop", cost.output_flop);
}

static void write_model(struct warm_call *call, struct warm_writer *w, uint32_t index) {
        struct warm_engine *e = call->server->config.engine;
        const struct warm_model *m = warm_engine_model(e, index);

        warm_write_map(w, call->is_admin ? 15 : 14);
        warm_write_key_text(w, "name", m->name, strlen(m->name));
        warm_write_key_bool(w, "default", index == 0);
        warm_write_key_text(w, "architecture", m->architecture, strlen(m->architecture));
        warm_write_key_string(w, "quantization", m->quantization);
        warm_write_key_uint(w, "parameters", m->n_parameters);
        warm_write_key_uint(w, "file_bytes", m->file_bytes);
        warm_write_key_uint(w, "weights_bytes", warm_engine_weights_bytes(e, index));
        warm_write_key_uint(w, "vocab", m->plan.n_vocab);
        warm_write_key_uint(w, "context", warm_engine_n_context(e, index));
        warm_write_key_uint(w, "window_bytes", window_bytes(e, index));
        write_orders(w, &m->format);
        write_step(w, e, index);
        warm_write_string(w, "hash");
        warm_write_bytes(w, m->content_hash, sizeof(m->content_hash));
        if (call->is_admin)
                warm_write_key_text(w, "path", m->path, strlen(m->path));
}

void warm_method_models(struct warm_call *call) {
        uint32_t n_models = warm_engine_n_models(call->server->config.engine);
        struct warm_writer w;

        if (!takes_nothing(call))
                return;
        warm_call_result(call, &w);
        warm_write_map(&w, 1);
        warm_write_string(&w, "models");
        warm_write_array(&w, n_models);
        for (uint32_t i = 0; i < n_models; i++)
                write_model(call, &w, i);
        warm_call_end(call, &w);
}

#define COMMON_PAIRS 5U

static void write_device(struct warm_writer *w, struct warm_engine *e) {
        struct warm_engine_speed speed = warm_engine_speed(e);

        warm_write_string(w, "device");
        warm_write_map(w, 2);
        warm_write_key_uint(w, "copy_bytes_per_s", (uint64_t) speed.copy_bytes_per_s);
        warm_write_key_uint(w, "matmul_flop_per_s", (uint64_t) speed.flop_per_s);
}

static void write_common(struct warm_call *call, struct warm_writer *w) {
        const struct warm_server *s = call->server;

        warm_write_key_string(w, "version", s->config.version ? s->config.version : "");
        warm_write_key_uint(w, "pid", (uint64_t) getpid());
        warm_write_key_uint(w, "uptime_us", (warm_server_now_ns() - s->started_ns) / 1000);
        warm_write_string(w, "own");
        warm_write_map(w, 5);
        warm_write_key_uint(w, "uid", call->uid->uid);
        warm_write_key_bool(w, "admin", call->is_admin);
        warm_write_key_uint(w, "clients", call->uid->n_clients);
        warm_write_key_uint(w, "requests", call->uid->n_requests);
        warm_write_key_uint(w, "output_bytes", call->uid->output_bytes);
        write_device(w, s->config.engine);
}

static void write_server(struct warm_writer *w, const struct warm_server *s) {
        struct warm_server_stats stats;

        warm_server_stats(s, &stats);
        warm_write_string(w, "server");
        warm_write_map(w, 7);
        warm_write_key_uint(w, "clients", stats.n_clients);
        warm_write_key_uint(w, "clients_served", stats.n_clients_served);
        warm_write_key_uint(w, "requests", stats.n_requests);
        warm_write_key_uint(w, "requests_served", stats.n_requests_served);
        warm_write_key_uint(w, "refused", stats.n_refused);
        warm_write_key_uint(w, "unknown", stats.n_unknown);
        warm_write_key_uint(w, "buffer_bytes", stats.buffer_bytes);
}

static void write_engine(struct warm_writer *w, const struct warm_engine_status *s) {
        uint64_t weights_bytes = 0, kv_bytes = 0;

        for (uint32_t i = 0; i < s->n_models; i++) {
                weights_bytes += s->models[i].weights_bytes;
                kv_bytes += s->models[i].kv_bytes;
        }
        warm_write_string(w, "engine");
        warm_write_map(w, 15);
        warm_write_key_string(w, "backend", s->backend.name);
        warm_write_key_string(w, "description", s->backend.description);
        warm_write_key_uint(w, "memory_total", s->backend.memory_total);
        warm_write_key_uint(w, "memory_free", s->backend.memory_free);
        warm_write_key_uint(w, "memory_others", s->backend.memory_others);
        warm_write_key_uint(w, "weights_bytes", weights_bytes);
        warm_write_key_uint(w, "kv_bytes", kv_bytes);
        warm_write_key_uint(w, "scratch_bytes", s->backend.scratch_bytes);
        warm_write_key_uint(w, "waiting", s->n_waiting);
        warm_write_key_uint(w, "running", s->n_running);
        warm_write_key_uint(w, "steps", s->n_steps);
        warm_write_key_uint(w, "tokens_prefilled", s->n_tokens_prefilled);
        warm_write_key_uint(w, "tokens_decoded", s->n_tokens_decoded);
        warm_write_key_uint(w, "busy_us", s->busy_ns / 1000);
        warm_write_key_uint(w, "kv_short", s->n_memory_short);
}

static void write_cache_stats(struct warm_writer *w, const struct warm_cache_stats *c) {
        warm_write_string(w, "cache");
        warm_write_map(w, 11);
        warm_write_key_uint(w, "blocks", c->n_blocks);
        warm_write_key_uint(w, "free", c->n_free);
        warm_write_key_uint(w, "cached", c->n_cached);
        warm_write_key_uint(w, "pinned", c->n_pinned);
        warm_write_key_uint(w, "sequences", c->n_sequences);
        warm_write_key_uint(w, "lookups", c->n_lookups);
        warm_write_key_uint(w, "hit_tokens", c->n_hit_tokens);
        warm_write_key_uint(w, "prompt_tokens", c->n_prompt_tokens);
        warm_write_key_uint(w, "evicted", c->n_evicted);
        warm_write_key_uint(w, "index_bytes", c->memory_bytes);
        warm_write_string(w, "misses");
        warm_write_map(w, _WARM_MISS_N);
        for (unsigned i = 0; i < _WARM_MISS_N; i++)
                warm_write_key_uint(w, warm_miss_name((enum warm_miss) i), c->n_by_miss[i]);
}

static void write_model_status(struct warm_writer *w, const struct warm_model_status *m) {
        warm_write_map(w, 8);
        warm_write_key_text(w, "name", m->model->name, strlen(m->model->name));
        warm_write_key_uint(w, "context", m->n_context);
        warm_write_key_uint(w, "weights_bytes", m->weights_bytes);
        warm_write_key_uint(w, "vocab_bytes", warm_vocab_memory_bytes(m->model->vocab));
        warm_write_key_uint(w, "kv_bytes", m->kv_bytes);
        warm_write_key_uint(w, "kv_bytes_max", m->kv_bytes_max);
        warm_write_key_uint(w, "block_bytes", m->block_bytes);
        write_cache_stats(w, &m->cache);
}

static void reply_status(struct warm_pending *p) {
        const struct warm_engine_status *s = p->request->status;
        struct warm_writer w;

        if (warm_pending_failed(p))
                return;
        warm_call_result(&p->call, &w);
        warm_write_map(&w, COMMON_PAIRS + 3);
        write_common(&p->call, &w);
        write_server(&w, p->call.server);
        write_engine(&w, s);
        warm_write_string(&w, "models");
        warm_write_array(&w, s->n_models);
        for (uint32_t i = 0; i < s->n_models; i++)
                write_model_status(&w, &s->models[i]);
        warm_call_end(&p->call, &w);
}

/* What everybody may know stays the same whoever works: it is answered here, without asking the engine. */
static void reply_plain(struct warm_call *call) {
        struct warm_engine *e = call->server->config.engine;
        uint32_t n_models = warm_engine_n_models(e);
        struct warm_writer w;

        warm_call_result(call, &w);
        warm_write_map(&w, COMMON_PAIRS + 1);
        write_common(call, &w);
        warm_write_string(&w, "models");
        warm_write_array(&w, n_models);
        for (uint32_t i = 0; i < n_models; i++) {
                const struct warm_model *m = warm_engine_model(e, i);

                warm_write_map(&w, 2);
                warm_write_key_text(&w, "name", m->name, strlen(m->name));
                warm_write_key_uint(&w, "context", warm_engine_n_context(e, i));
        }
        warm_call_end(call, &w);
}

struct status_fields {
        bool measure;
};

static const struct warm_field status_table[] = {
        { "measure", WARM_FIELD_BOOL, 0, 0, offsetof(struct status_fields, measure), 0 },
};

void warm_method_status(struct warm_call *call) {
        struct status_fields f = { 0 };
        struct warm_request *request;

        if (!warm_call_read(call, status_table, 1, &f, NULL))
                return;
        /* It takes the device from everybody, and that it was busy says that somebody types. */
        if (f.measure && !call->is_admin) {
                warm_call_error(call, WARM_RPC_E_NOT_PERMITTED);
                return;
        }
        if (!call->is_admin) {
                reply_plain(call);
                return;
        }
        if (!warm_call_may_submit(call))
                return;
        request = warm_request_new();
        if (!request) {
                warm_call_error(call, WARM_RPC_E_MEMORY);
                return;
        }
        request->kind = WARM_REQUEST_STATUS;
        request->measure = f.measure;
        request->n = 1;
        warm_call_submit(call, request, reply_status);
}
