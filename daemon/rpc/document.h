/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parameters that say what to complete: complete, warm and explain share them, so that the three build the same
 * prompt from the same document.
 */
#pragma once

#include "method.h"

/* As they came; borrows from the frame. */
struct warm_document {
        struct warm_wire_text prefix, suffix, model, path;
        const msgpack_object *prompt;   /* text or an array of ids; NULL: prefix */
        const msgpack_object *snippets; /* array of {path, text} or NULL */
        bool heal, special;
        bool has_heal, has_offset, has_lines;
        uint64_t offset, line, n_max, lines;
};

#define WARM_DOCUMENT_DEFAULT                                                                      \
        (struct warm_document) {                                                                   \
                .n_max = WARM_RPC_N_MAX_DEFAULT                                                    \
        }

/* Their rows in a table whose struct holds a warm_document at `base`; WARM_DOCUMENT_FIELDS of them, in this order. */
#define WARM_DOCUMENT_FIELD(name, type, min, max, base, member)                                    \
        { name, type, min, max, (base) + offsetof(struct warm_document, member), 0 }
#define WARM_DOCUMENT_TABLE(base)                                                                  \
        WARM_DOCUMENT_FIELD("prefix", WARM_FIELD_TEXT, 0, WARM_PREFIX_BYTES_MAX, base, prefix),    \
                WARM_DOCUMENT_FIELD("suffix", WARM_FIELD_TEXT, 0, WARM_SUFFIX_BYTES_MAX, base,     \
                                    suffix),                                                       \
                WARM_DOCUMENT_FIELD("prompt", WARM_FIELD_ANY, 0, 0, base, prompt),                 \
                WARM_DOCUMENT_FIELD("heal", WARM_FIELD_BOOL, 0, 0, base, heal),                    \
                WARM_DOCUMENT_FIELD("special", WARM_FIELD_BOOL, 0, 0, base, special),              \
                WARM_DOCUMENT_FIELD("offset", WARM_FIELD_UINT, 0, WARM_WIRE_INT_MAX, base,         \
                                    offset),                                                       \
                WARM_DOCUMENT_FIELD("line", WARM_FIELD_UINT, 0, WARM_WIRE_INT_MAX, base, line),    \
                WARM_DOCUMENT_FIELD("model", WARM_FIELD_TEXT, 1, WARM_RPC_NAME_BYTES_MAX, base,    \
                                    model),                                                        \
                WARM_DOCUMENT_FIELD("path", WARM_FIELD_TEXT, 0, WARM_RPC_PATH_BYTES_MAX, base,     \
                                    path),                                                         \
                WARM_DOCUMENT_FIELD("snippets", WARM_FIELD_ARRAY, 0, WARM_PROMPT_SNIPPETS_MAX,     \
                                    base, snippets),                                               \
                WARM_DOCUMENT_FIELD("n_max", WARM_FIELD_UINT, 1, WARM_RPC_N_MAX_MAX, base, n_max), \
                WARM_DOCUMENT_FIELD("lines", WARM_FIELD_UINT, 0, WARM_RPC_LINES_MAX, base, lines)
#define WARM_DOCUMENT_FIELDS 12U

/*
 * Read params by a table that begins with the document's rows, and hold the document's fields against each other.
 * @param ret_values the struct of the table, filled with defaults
 * @param document the warm_document in it
 * Return: true; false: the error was sent.
 */
bool warm_document_read(struct warm_call *call, const struct warm_field *table, uint32_t n_fields,
                        void *ret_values, struct warm_document *document, uint64_t *ret_present);

/*
 * Build the prompt of a document: a request of that kind with model, prompt and memory filled in. `memory` holds
 * copies of the rest of the line, of the suffix's start and of the stop strings, so that nothing borrows from the
 * frame.
 * @param stops [n_stops] or NULL
 * Return: the request; NULL: the error was sent.
 */
struct warm_request *warm_document_request(struct warm_call *call, const struct warm_document *d,
                                           enum warm_request_kind kind,
                                           const struct warm_wire_text *stops, uint32_t n_stops);

/* `lines` in force: as given; else 1 if code follows the cursor on its line; else 0, no limit. */
uint32_t warm_document_lines(const struct warm_document *d);
