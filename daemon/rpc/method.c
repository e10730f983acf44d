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

const int32_t *warm_call_packed_ids(const msgpack_object *array, uint32_t n_vocab) {
        const int32_t *ids = warm_read_ids(array);
        uint32_t n = warm_read_n(array), highest = 0; /* none is below zero */

        for (uint32_t i = 0; ids && i < n; i++)
                highest = (uint32_t) ids[i] > highest ? (uint32_t) ids[i] : highest;
        return highest < n_vocab ? ids : NULL;
}

/* Return: whether all are ids of the model; else the error was sent. */
static bool read_ids(struct warm_call *call, const msgpack_object *array, const char *key,
                     uint32_t n_vocab, int32_t *ids) {
        const int32_t *packed = warm_call_packed_ids(array, n_vocab);
        uint32_t n = warm_read_n(array), i = 0;
        uint64_t id = 0;
        int r = warm_read_ids(array) ? WARM_WIRE_E_RANGE : 0;

        if (packed) {
                memcpy(ids, packed, n * sizeof(*ids));
                return true;
        }
        for (; r == 0 && i < n && id < n_vocab; i++) {
                r = warm_read_uint(warm_read_element(array, i), &id);
                ids[i] = (int32_t) id;
        }
        if (r == 0 && id < n_vocab)
                return true;
        if (r == WARM_WIRE_E_TYPE)
                warm_call_error_what(call, WARM_RPC_E_TYPE, "'%s' must hold whole numbers", key);
        else
                warm_call_error_what(call, WARM_RPC_E_UNKNOWN_TOKEN,
                                     "'%s' must hold ids of 0 to %u", key, n_vocab - 1);
        return false;
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
        if (read_ids(call, array, key, n_vocab, ids))
                return ids;
        free(ids);
        return NULL;
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
