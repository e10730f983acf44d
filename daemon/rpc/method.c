/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "method.h"

int warm_call_model(struct warm_call *call, const struct warm_wire_text *name) {
        struct warm_engine *e = call->server->config.engine;
        uint32_t n = warm_engine_n_models(e);

        if (!name->data)
                return 0;
        for (uint32_t i = 0; i < n; i++) {
                const char *own = warm_engine_model(e, i)->name;

                if (strlen(own) == name->n && memcmp(own, name->data, name->n) == 0)
                        return (int) i;
        }
        warm_call_error(call, WARM_RPC_E_UNKNOWN_MODEL);
        return -1;
}

int32_t *warm_call_ids(struct warm_call *call, const msgpack_object *array, const char *key,
                       uint32_t n_vocab) {
        uint32_t n = warm_read_n(array);
        int32_t *ids;

        if (n == 0) {
                warm_call_error(call, WARM_RPC_E_PROMPT_EMPTY);
                return NULL;
        }
        ids = malloc(n * sizeof(*ids));
        if (!ids) {
                warm_call_error(call, WARM_RPC_E_MEMORY);
                return NULL;
        }
        for (uint32_t i = 0; i < n; i++) {
                const msgpack_object *o = &array->via.array.ptr[i];
                uint64_t id = o->via.u64;
                int r = o->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? 0 : warm_read_uint(o, &id);

                if (r == 0 && id < n_vocab) {
                        ids[i] = (int32_t) id;
                        continue;
                }
                free(ids);
                if (r == WARM_WIRE_E_TYPE)
                        warm_call_error_what(call, WARM_RPC_E_TYPE, "'%s' must hold whole numbers",
                                             key);
                else
                        warm_call_error_what(call, WARM_RPC_E_UNKNOWN_TOKEN,
                                             "'%s' must hold ids of 0 to %u", key, n_vocab - 1);
                return NULL;
        }
        return ids;
}

int warm_call_stream(struct warm_call *call, const msgpack_object *o, uint64_t *ret_stream) {
        struct {
                uint64_t serial;
                uint64_t kind;
                char bytes[WARM_RPC_STREAM_BYTES_MAX];
        } key = { .serial = call->connection->serial };
        struct warm_wire_text text;
        uint64_t number, hash;
        size_t n;

        if (warm_read_text(o, &text) == 0 && text.n > 0 && text.n <= WARM_RPC_STREAM_BYTES_MAX) {
                memcpy(key.bytes, text.data, text.n);
                n = text.n;
        } else if (warm_read_uint(o, &number) == 0) {
                key.kind = 1;
                memcpy(key.bytes, &number, sizeof(number));
                n = sizeof(number);
        } else {
                warm_call_error_what(call, WARM_RPC_E_TYPE,
                                     "'stream' must be text of 1 to %u bytes or a whole number",
                                     WARM_RPC_STREAM_BYTES_MAX);
                return -1;
        }
        hash = XXH3_64bits_withSeed(&key, offsetof(__typeof__(key), bytes) + n,
                                    call->server->stream_seed);
        *ret_stream = hash ? hash : 1;
        return 0;
}

bool warm_pending_failed(struct warm_pending *p) {
        switch (p->request->failure) {
        case WARM_FAILURE_NONE:
                return false;
        case WARM_FAILURE_NO_ROOM:
                warm_call_error(&p->call, WARM_RPC_E_NO_ROOM);
                break;
        case WARM_FAILURE_MEMORY:
                warm_call_error(&p->call, WARM_RPC_E_MEMORY);
                break;
        case WARM_FAILURE_BACKEND:
                warm_call_error(&p->call, WARM_RPC_E_BACKEND);
                break;
        case WARM_FAILURE_SHUTDOWN:
                warm_call_error(&p->call, WARM_RPC_E_SHUTDOWN);
                break;
        case WARM_FAILURE_BUSY:
                warm_call_error(&p->call, WARM_RPC_E_BUSY);
                break;
        }
        return true;
}

const char *warm_pending_finish(const struct warm_pending *p) {
        enum warm_finish finish = p->request->answers[0].finish;

        return warm_finish_name(finish == WARM_FINISH_NONE ? WARM_FINISH_END : finish);
}

void warm_write_cache(struct warm_writer *w, const struct warm_request *r) {
        warm_write_string(w, "cache");
        warm_write_map(w, 3);
        warm_write_key_uint(w, "prompt", r->prompt.n_ids);
        warm_write_key_uint(w, "hit", r->hit.n_tokens);
        warm_write_string(w, "miss");
        warm_write_map(w, 2);
        warm_write_key_string(w, "reason", warm_miss_name(r->hit.miss));
        warm_write_key_uint(w, "at", r->hit.at);
}

void warm_write_truncated(struct warm_writer *w, const struct warm_prompt *p) {
        warm_write_string(w, "truncated");
        warm_write_map(w, 3);
        warm_write_key_uint(w, "prefix", p->truncated_prefix);
        warm_write_key_uint(w, "suffix", p->truncated_suffix);
        warm_write_key_uint(w, "snippets", p->truncated_snippets);
}
