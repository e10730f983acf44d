/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods, and what several of them share. docs/PROTOCOL.md says what each takes and returns.
 * Thread: loop.
 */
#pragma once

#include "dispatch.h"

void warm_method_cancel(struct warm_call *call);
void warm_method_complete(struct warm_call *call);
void warm_method_explain(struct warm_call *call);
void warm_method_hello(struct warm_call *call);
void warm_method_models(struct warm_call *call);
void warm_method_score(struct warm_call *call);
void warm_method_status(struct warm_call *call);
void warm_method_tokenize(struct warm_call *call);
void warm_method_trim(struct warm_call *call);
void warm_method_warm(struct warm_call *call);

#define WARM_RPC_TEXT_BYTES_MAX   WARM_PREFIX_BYTES_MAX /* of tokenize, score and prompt */
#define WARM_RPC_NAME_BYTES_MAX   256U
#define WARM_RPC_PATH_BYTES_MAX   4096U
#define WARM_RPC_STREAM_BYTES_MAX 256U
#define WARM_RPC_N_MAX_DEFAULT    64U
#define WARM_RPC_N_MAX_MAX        4096U
#define WARM_RPC_LINES_MAX        10000U
#define WARM_RPC_INDENT_MAX       1000U
#define WARM_RPC_TIME_MS_MAX      600000U
#define WARM_RPC_TEMPERATURE_MAX  10.0
#define WARM_RPC_TOP_K_MAX        WARM_VOCAB_TOKENS_MAX

static inline struct warm_string warm_rpc_string(struct warm_wire_text t) {
        return (struct warm_string){ t.data, t.n };
}

/* The model of that name; the first if there is no name. Return: its index; -1: the error was sent. */
int warm_call_model(struct warm_call *call, const struct warm_wire_text *name);

/* The ids of an array. Return: malloc'd [warm_read_n(array)], never empty; NULL: the error was sent. */
int32_t *warm_call_ids(struct warm_call *call, const msgpack_object *array, const char *key,
                       uint32_t n_vocab);

/* Those that came packed and are all the model's, borrowed from the params: no copy of thousands. Else NULL. */
const int32_t *warm_call_packed_ids(const msgpack_object *array, uint32_t n_vocab);

/* A stream's number: of this connection only, never 0. @param o text or an integer; checked by the caller */
int warm_call_stream(struct warm_call *call, const msgpack_object *o, uint64_t *ret_stream);

/* The reply `failure` of a finished request, if it has one. Return: true: it was sent. */
bool warm_pending_failed(struct warm_pending *p);

/* `finish` of a request that makes no text: "end", or why it was cut short. */
const char *warm_pending_finish(const struct warm_pending *p);

/* Map entries that replies share: `cache` and `truncated`. */
void warm_write_cache(struct warm_writer *w, const struct warm_request *r);
void warm_write_truncated(struct warm_writer *w, const struct warm_prompt *p);
