/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "document.h"

#define SUFFIX_HEAD_BYTES 4096U /* of the suffix that an answer is held against */

struct snippet_fields {
        struct warm_wire_text path, text;
};

static const struct warm_field snippet_table[] = {
        { "path", WARM_FIELD_TEXT, 0, WARM_RPC_PATH_BYTES_MAX,
          offsetof(struct snippet_fields, path), 0 },
        { "text", WARM_FIELD_TEXT, 0, WARM_PREFIX_BYTES_MAX, offsetof(struct snippet_fields, text),
          WARM_FIELD_REQUIRED },
};

static bool conflict(struct warm_call *call, const char *one, const char *other) {
        warm_call_error_what(call, WARM_RPC_E_CONFLICT,
                             "'%s' and '%s' exclude each other: send one of them", one, other);
        return false;
}

/* Which keys came, by their rows in WARM_DOCUMENT_TABLE. */
enum {
        HAS_PREFIX = 1 << 0,
        HAS_SUFFIX = 1 << 1,
        HAS_PROMPT = 1 << 2,
        HAS_HEAL = 1 << 3,
        HAS_OFFSET = 1 << 5,
        HAS_SNIPPETS = 1 << 9,
        HAS_LINES = 1 << 11,
};

static bool check_prompt(struct warm_call *call, const struct warm_document *d, uint64_t present) {
        struct warm_wire_text text;

        if (present & HAS_PREFIX)
                return conflict(call, "prefix", "prompt");
        if (present & HAS_SUFFIX)
                return conflict(call, "suffix", "prompt");
        if (present & HAS_SNIPPETS)
                return conflict(call, "snippets", "prompt");
        if (warm_read_text(d->prompt, &text) == 0) {
                if (text.n <= WARM_RPC_TEXT_BYTES_MAX)
                        return true;
                warm_call_error_what(call, WARM_RPC_E_RANGE, "'prompt' must be 0 to %u bytes",
                                     WARM_RPC_TEXT_BYTES_MAX);
                return false;
        }
        if (!warm_read_is_array(d->prompt)) {
                warm_call_error_what(call, WARM_RPC_E_TYPE,
                                     "'prompt' must be text (str or bin) or an array of ids");
                return false;
        }
        if ((present & HAS_HEAL) && d->heal) {
                warm_call_error_what(call, WARM_RPC_E_CONFLICT,
                                     "ids are never healed: leave 'heal' out or send text");
                return false;
        }
        return true;
}

bool warm_document_read(struct warm_call *call, const struct warm_field *table, uint32_t n_fields,
                        void *ret_values, struct warm_document *document, uint64_t *ret_present) {
        struct warm_document *d = document;
        uint64_t present;

        if (!warm_call_read(call, table, n_fields, ret_values, &present))
                return false;
        d->has_offset = present & HAS_OFFSET;
        d->has_lines = present & HAS_LINES;
        if (ret_present)
                *ret_present = present;
        if (present & HAS_PROMPT)
                return check_prompt(call, d, present);
        if (!(present & HAS_HEAL))
                d->heal = true;
        if (present & HAS_PREFIX)
                return true;
        warm_call_error_what(call, WARM_RPC_E_MISSING, "'prefix' or 'prompt' is required");
        return false;
}

static bool is_closer(char c) {
        return c != 0 && strchr(" \t\r\f\v)]}>\"'`;,", c);
}

uint32_t warm_document_lines(const struct warm_document *d) {
        if (d->has_lines)
                return (uint32_t) d->lines;
        for (size_t i = 0; i < d->suffix.n && d->suffix.data[i] != '\n'; i++)
                if (!is_closer(d->suffix.data[i]))
                        return 1;
        return 0;
}

static bool read_snippets(struct warm_call *call, const struct warm_document *d,
                          struct warm_snippet *snippets) {
        for (uint32_t i = 0; i < warm_read_n(d->snippets); i++) {
                struct snippet_fields values = { 0 };

                if (!warm_call_read_map(call, warm_read_element(d->snippets, i), snippet_table, 2,
                                        &values, NULL))
                        return false;
                snippets[i] = (struct warm_snippet){ warm_rpc_string(values.path),
                                                     warm_rpc_string(values.text) };
        }
        return true;
}

static char *put(char *at, struct warm_string from, size_t n, struct warm_string *ret_copy) {
        if (n > 0)
                memcpy(at, from.data, n);
        *ret_copy = (struct warm_string){ at, n };
        return at + n;
}

/* Copy what the engine will read after the frame is gone. Return: 0; -ENOMEM. */
static int keep_text(struct warm_request *r, const struct warm_document *d,
                     const struct warm_wire_text *stops, uint32_t n_stops) {
        size_t n_suffix = d->suffix.n < SUFFIX_HEAD_BYTES ? d->suffix.n : SUFFIX_HEAD_BYTES;
        size_t n_bytes = 1 + r->prompt.rest.n + n_suffix;
        char *at;

        for (uint32_t i = 0; i < n_stops; i++)
                n_bytes += stops[i].n;
        r->memory = at = malloc(n_bytes);
        if (!at)
                return -ENOMEM;
        at = put(at, r->prompt.rest, r->prompt.rest.n, &r->prompt.rest);
        r->answer.rest = r->prompt.rest;
        at = put(at, warm_rpc_string(d->suffix), n_suffix, &r->answer.suffix);
        for (uint32_t i = 0; i < n_stops; i++)
                at = put(at, warm_rpc_string(stops[i]), stops[i].n, &r->answer.stops[i]);
        r->answer.n_stops = n_stops;
        r->answer.n_heal = r->prompt.n_heal;
        return 0;
}

static bool build_failed(struct warm_call *call, int r, const struct warm_document *d,
                         uint32_t n_context) {
        if (r == 0)
                return false;
        if (r == -ENOMEM)
                warm_call_error(call, WARM_RPC_E_MEMORY);
        else if (r == -ERANGE)
                warm_call_error_what(call, WARM_RPC_E_PROMPT_LONG,
                                     "the ids and n_max must fit the model's context of %u tokens",
                                     n_context);
        else if (d->n_max >= n_context / 2)
                warm_call_error_what(call, WARM_RPC_E_RANGE,
                                     "'n_max' leaves no room for a prompt: this model's context "
                                     "has %u tokens",
                                     n_context);
        else
                warm_call_error(call, WARM_RPC_E_PROMPT_EMPTY);
        return true;
}

struct warm_request *warm_document_request(struct warm_call *call, const struct warm_document *d,
                                           enum warm_request_kind kind,
                                           const struct warm_wire_text *stops, uint32_t n_stops) {
        struct warm_engine *e = call->server->config.engine;
        struct warm_snippet snippets[WARM_PROMPT_SNIPPETS_MAX];
        struct warm_wire_text text = d->prefix;
        struct warm_prompt_source source = { 0 };
        struct warm_request *request;
        const int32_t *ids = NULL;
        int32_t *own_ids = NULL;
        uint32_t n_vocab;
        int index, r;

        warm_engine_expect(e);
        index = warm_call_model(call, &d->model);
        if (index < 0 || !read_snippets(call, d, snippets))
                return NULL;
        if (d->prompt && warm_read_text(d->prompt, &text) != 0) {
                n_vocab = warm_engine_model(e, (uint32_t) index)->plan.n_vocab;
                ids = warm_call_packed_ids(d->prompt, n_vocab);
                if (!ids)
                        ids = own_ids = warm_call_ids(call, d->prompt, "prompt", n_vocab);
                if (!ids)
                        return NULL;
        }
        source = (struct warm_prompt_source){
                .prefix = warm_rpc_string(text),
                .suffix = warm_rpc_string(d->suffix),
                .continuation = d->prompt,
                .heal = d->heal,
                .special = d->special,
                .ids = ids,
                .n_ids = ids ? warm_read_n(d->prompt) : 0,
                .offset_known = d->has_offset,
                .offset = d->offset,
                .path = warm_rpc_string(d->path),
                .snippets = snippets,
                .n_snippets = warm_read_n(d->snippets),
                .n_max = (uint32_t) d->n_max,
                .n_context = warm_engine_n_context(e, (uint32_t) index),
        };
        request = warm_request_new();
        if (!request) {
                free(own_ids);
                warm_call_error(call, WARM_RPC_E_MEMORY);
                return NULL;
        }
        request->kind = kind;
        request->model_index = (uint32_t) index;
        request->n = 1;
        request->n_max = (uint32_t) d->n_max;
        request->sampling.top_p = 1;
        r = warm_prompt_build(warm_engine_model(e, (uint32_t) index), &source, &request->prompt);
        free(own_ids);
        if (r == 0)
                r = keep_text(request, d, stops, n_stops);
        if (build_failed(call, r, d, source.n_context))
                return warm_request_free(request);
        return request;
}
