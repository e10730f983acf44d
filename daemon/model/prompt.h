/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the bytes around a cursor to the tokens of a prompt: window, healing, order, snippets.
 *
 * A function of the text alone, never of history: the same document, cursor, model and parameters give the same
 * tokens, and typing moves as few of them as can be (docs/ARCHITECTURE.md).
 *
 * Thread: loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "model.h"

#define WARM_PROMPT_SNIPPETS_MAX 64U
#define WARM_PROMPT_SEAMS_MAX    4U
#define WARM_PREFIX_BYTES_MAX    (256U << 10) /* what a client should send at most before the cursor */
#define WARM_SUFFIX_BYTES_MAX    (64U << 10)

struct warm_snippet {
        struct warm_string path;
        struct warm_string text;
};

struct warm_prompt_source {
        struct warm_string prefix; /* before the cursor, or the text to continue */
        struct warm_string suffix;
        bool continuation;  /* `prompt` was given: no fill-in-the-middle marks */
        bool heal;          /* leave the last piece out and constrain it */
        bool special;       /* names of control tokens in the text are control tokens */
        const int32_t *ids; /* instead of prefix: [n_ids], taken as they are, never healed */
        uint32_t n_ids;
        bool offset_known;
        uint64_t offset; /* bytes of the file before `prefix`; 0: prefix starts the file */
        struct warm_string path;
        const struct warm_snippet *snippets; /* oldest first */
        uint32_t n_snippets;
        uint32_t n_max;        /* room to leave for the answer */
        uint32_t n_context;    /* tokens a sequence may hold: min(model, configuration) */
        enum warm_order order; /* WARM_ORDER_NONE: the model's */
};

struct warm_prompt {
        int32_t *ids;                      /* owned */
        uint32_t n_ids;                    /* >= 1 */
        bool fim;                          /* false: the suffix was not used */
        uint8_t heal[WARM_HEAL_BYTES_MAX]; /* bytes that the first sampled tokens must spell */
        uint32_t n_heal;
        int32_t heal_ids
                [WARM_HEAL_BYTES_MAX]; /* their own tokens: forced where the constraint leaves none */
        uint32_t n_heal_ids;
        uint32_t seams
                [WARM_PROMPT_SEAMS_MAX]; /* token counts where state snapshots pay: end of context, ... */
        uint32_t n_seams;
        uint64_t truncated_prefix; /* bytes left out, of what was sent */
        uint64_t truncated_suffix;
        uint64_t truncated_snippets; /* snippets left out */
        struct warm_string
                rest; /* the rest of the cursor's line that stayed out of the prompt (only
                                                   closers, quotes, ';', ',', blanks); borrowed from the source */
};

/*
 * Build a prompt.
 * Return: 0; -ENOMEM; -ERANGE: ids given and longer than n_context - n_max; -EINVAL: an id outside the vocabulary,
 * n_max + a few > n_context, or nothing at all to go on from.
 */
int warm_prompt_build(const struct warm_model *model, const struct warm_prompt_source *source,
                      struct warm_prompt *ret_prompt);
void warm_prompt_deinit(struct warm_prompt *p);

/* Bytes before the cursor that can matter to this model at all: `window_bytes` of hello. */
uint64_t warm_prompt_window_bytes(const struct warm_model *model, uint32_t n_context);
