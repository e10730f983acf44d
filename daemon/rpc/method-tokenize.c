/* SPDX-License-Identifier: Apache-2.0 */
/* tokenize and score: text to ids, ids to text, and how likely a model finds them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "method.h"

struct text_fields {
        struct warm_wire_text text, model;
        const msgpack_object *ids;
        bool special, pieces, bos;
};

#define FIELD(name, type, min, max)                                                                \
        { #name, type, min, max, offsetof(struct text_fields, name), 0 }

static const struct warm_field tokenize_table[] = {
        FIELD(text, WARM_FIELD_TEXT, 0, WARM_RPC_TEXT_BYTES_MAX),
        FIELD(ids, WARM_FIELD_ARRAY, 0, WARM_RPC_TEXT_BYTES_MAX),
        FIELD(model, WARM_FIELD_TEXT, 1, WARM_RPC_NAME_BYTES_MAX),
        FIELD(special, WARM_FIELD_BOOL, 0, 0),
        FIELD(pieces, WARM_FIELD_BOOL, 0, 0),
};

static const struct warm_field score_table[] = {
        FIELD(text, WARM_FIELD_TEXT, 1, WARM_RPC_TEXT_BYTES_MAX),
        FIELD(ids, WARM_FIELD_ARRAY, 1, WARM_RPC_TEXT_BYTES_MAX),
        FIELD(model, WARM_FIELD_TEXT, 1, WARM_RPC_NAME_BYTES_MAX),
        FIELD(special, WARM_FIELD_BOOL, 0, 0),
        FIELD(bos, WARM_FIELD_BOOL, 0, 0),
};

#define HAS_TEXT (1ULL << 0)
#define HAS_IDS  (1ULL << 1)

/* Read params: one of `text` and `ids`. Return: the model's index; -1: the error was sent. */
static int read_params(struct warm_call *call, const struct warm_field *table, uint32_t n_fields,
                       struct text_fields *f) {
        uint64_t present;

        if (!warm_call_read(call, table, n_fields, f, &present))
                return -1;
        if ((present & (HAS_TEXT | HAS_IDS)) == 0) {
                warm_call_error_what(call, WARM_RPC_E_MISSING, "'text' or 'ids' is required");
                return -1;
        }
        if ((present & HAS_TEXT) && (present & HAS_IDS)) {
                warm_call_error_what(call, WARM_RPC_E_CONFLICT,
                                     "'text' and 'ids' exclude each other: send one of them");
                return -1;
        }
        return warm_call_model(call, &f->model);
}

/*
 * Tokenize, with n_front ids left free in front.
 * Return: malloc'd [n_front + *ret_n_ids]; NULL: the error was sent.
 */
static int32_t *tokenize(struct warm_call *call, const struct warm_model *m,
                         const struct text_fields *f, uint32_t n_front, uint32_t *ret_n_ids) {
        unsigned flags = WARM_TOKENIZE_START | (f->special ? WARM_TOKENIZE_SPECIAL : 0);
        size_t n_max = f->text.n + 1, n = 0;
        int32_t *ids = malloc((n_front + n_max) * sizeof(*ids));

        if (!ids || warm_vocab_tokenize(m->vocab, f->text.data, f->text.n, flags, ids + n_front,
                                        n_max, &n) != 0) {
                free(ids);
                warm_call_error(call, WARM_RPC_E_MEMORY);
                return NULL;
        }
        *ret_n_ids = (uint32_t) n;
        return ids;
}

static void write_pieces(struct warm_writer *w, const struct warm_model *m, const int32_t *ids,
                         uint32_t n_ids) {
        warm_write_string(w, "pieces");
        warm_write_array(w, n_ids);
        for (uint32_t i = 0; i < n_ids; i++) {
                bool control = warm_vocab_kind_of(m->vocab, ids[i]) == WARM_TOKEN_CONTROL;
                struct warm_string s = control ? warm_vocab_name(m->vocab, ids[i])
                                               : warm_vocab_text(m->vocab, ids[i]);

                warm_write_text(w, s.data, s.n);
        }
}

/* The text of ids, in one piece. Return: malloc'd; NULL: the error was sent. */
static char *detokenize(struct warm_call *call, const struct warm_model *m, const int32_t *ids,
                        uint32_t n_ids, size_t *ret_n_text) {
        size_t n_text = 0, at = 0;
        char *text;

        for (uint32_t i = 0; i < n_ids; i++)
                n_text += warm_vocab_text(m->vocab, ids[i]).n;
        if (n_text > WARM_FRAME_BYTES_MAX) {
                warm_call_error(call, WARM_RPC_E_REPLY_LARGE);
                return NULL;
        }
        text = malloc(n_text + 1);
        if (!text) {
                warm_call_error(call, WARM_RPC_E_MEMORY);
                return NULL;
        }
        for (uint32_t i = 0; i < n_ids; i++) {
                struct warm_string s = warm_vocab_text(m->vocab, ids[i]);

                memcpy(text + at, s.data, s.n);
                at += s.n;
        }
        *ret_n_text = n_text;
        return text;
}

static void reply_tokens(struct warm_call *call, const struct warm_model *m,
                         const struct text_fields *f, const int32_t *ids, uint32_t n_ids) {
        struct warm_writer w;
        size_t n_text = 0;
        char *text = NULL;

        if (!f->text.data) {
                text = detokenize(call, m, ids, n_ids, &n_text);
                if (!text)
                        return;
        }
        warm_call_result(call, &w);
        warm_write_map(&w, f->pieces ? 3 : 2);
        warm_write_key_string(&w, "model", m->name);
        if (text)
                warm_write_key_text(&w, "text", text, n_text);
        else
                warm_write_key_ids(&w, "ids", ids, n_ids);
        if (f->pieces)
                write_pieces(&w, m, ids, n_ids);
        warm_call_end(call, &w);
        free(text);
}

void warm_method_tokenize(struct warm_call *call) {
        struct text_fields f = { 0 };
        const struct warm_model *m;
        uint32_t n_ids = 0;
        int32_t *ids = NULL;
        int index = read_params(call, tokenize_table, 5, &f);

        if (index < 0)
                return;
        m = warm_engine_model(call->server->config.engine, (uint32_t) index);
        if (f.text.data) {
                ids = tokenize(call, m, &f, 0, &n_ids);
        } else if (warm_read_n(f.ids) > 0) {
                ids = warm_call_ids(call, f.ids, "ids", m->plan.n_vocab);
                n_ids = warm_read_n(f.ids);
        } else {
                reply_tokens(call, m, &f, NULL, 0);
                return;
        }
        if (ids)
                reply_tokens(call, m, &f, ids, n_ids);
        free(ids);
}

static void reply_score(struct warm_pending *p) {
        const struct warm_request *r = p->request;
        bool whole = r->answers[0].finish == WARM_FINISH_NONE;
        uint32_t n_scores = whole ? r->prompt.n_ids : 0;
        struct warm_writer w;
        double sum = 0;

        if (warm_pending_failed(p))
                return;
        warm_call_result(&p->call, &w);
        warm_write_map(&w, 6);
        warm_write_key_string(
                &w, "model",
                warm_engine_model(p->call.server->config.engine, r->model_index)->name);
        warm_write_key_ids(&w, "ids", r->prompt.ids, r->prompt.n_ids);
        warm_write_string(&w, "logprobs");
        warm_write_array(&w, n_scores);
        for (uint32_t i = 0; i < n_scores; i++) {
                warm_write_float(&w, r->scores[i]);
                sum += (double) r->scores[i];
        }
        warm_write_string(&w, "sum");
        warm_write_double(&w, sum);
        warm_write_key_string(&w, "finish", warm_pending_finish(p));
        warm_write_cache(&w, r);
        warm_call_end(&p->call, &w);
}

/* The ids to score: as given, or BOS (if the model wants one) and the text's. NULL: the error was sent. */
static int32_t *ids_to_score(struct warm_call *call, const struct warm_model *m,
                             const struct text_fields *f, uint32_t *ret_n_ids) {
        uint32_t n_front = f->bos && m->format.bos >= 0 ? 1 : 0, n_ids;
        int32_t *ids;

        if (!f->text.data) {
                *ret_n_ids = warm_read_n(f->ids);
                return warm_call_ids(call, f->ids, "ids", m->plan.n_vocab);
        }
        ids = tokenize(call, m, f, n_front, &n_ids);
        if (!ids)
                return NULL;
        if (n_front > 0)
                ids[0] = m->format.bos;
        *ret_n_ids = n_front + n_ids;
        return ids;
}

void warm_method_score(struct warm_call *call) {
        struct text_fields f = { .bos = true };
        struct warm_engine *e = call->server->config.engine;
        struct warm_request *request;
        uint32_t n_ids, n_context;
        int32_t *ids;
        int index;

        if (!warm_call_may_submit(call))
                return;
        index = read_params(call, score_table, 5, &f);
        if (index < 0)
                return;
        ids = ids_to_score(call, warm_engine_model(e, (uint32_t) index), &f, &n_ids);
        if (!ids)
                return;
        n_context = warm_engine_n_context(e, (uint32_t) index);
        if (n_ids > n_context) {
                free(ids);
                warm_call_error_what(call, WARM_RPC_E_PROMPT_LONG,
                                     "%u tokens do not fit the model's context of %u", n_ids,
                                     n_context);
                return;
        }
        request = warm_request_new();
        if (!request) {
                free(ids);
                warm_call_error(call, WARM_RPC_E_MEMORY);
                return;
        }
        request->kind = WARM_REQUEST_SCORE;
        request->model_index = (uint32_t) index;
        request->n = 1;
        request->prompt.ids = ids;
        request->prompt.n_ids = n_ids;
        request->sampling.top_p = 1;
        warm_call_submit(call, request, reply_score);
}
