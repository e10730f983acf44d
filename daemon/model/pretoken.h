/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pre-tokenizers: where byte-level BPE cuts text into pieces before it merges anything.
 *
 * Each name stands for a list of regular expressions, applied one after the other to the pieces that the last one
 * left; here each expression is a small state machine that only looks forward. Tests hold them against PCRE2 and
 * against llama.cpp's llama-tokenize. A byte that is not UTF-8 is one character of no class: it goes where other
 * symbols go, and is a piece of its own only if nothing beside it is.
 *
 * Stateless but for the caller's scan. A scan is linear: no character is read more than a fixed number of times.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WARM_PRETOKEN_STAGES_MAX 5U

struct warm_pretokenizer;

/*
 * Find the rules that a GGUF file names in tokenizer.ggml.pre.
 * Return: static storage; NULL: a name that is not built.
 */
const struct warm_pretokenizer *warm_pretokenizer_find(const char *name, size_t n);

/* A piece that is a token as it stands is that token, whatever the merges say. */
bool warm_pretokenizer_takes_whole(const struct warm_pretokenizer *p);

/* All fields private. Embedded by value; nothing to release. */
struct warm_pretoken_scan {
        const struct warm_pretokenizer *rules;
        const uint8_t *text;
        size_t at, end;
        size_t ends[WARM_PRETOKEN_STAGES_MAX]; /* where each stage's current piece ends */
};

/* Begin at text[at]; the text ends at text[end]. Borrows the text. */
void warm_pretoken_start(struct warm_pretoken_scan *s, const struct warm_pretokenizer *rules,
                         const void *text, size_t at, size_t end);

/*
 * The next piece.
 * @param ret_start, ret_end its range
 * Return: false at the end of the text.
 */
bool warm_pretoken_next(struct warm_pretoken_scan *s, size_t *ret_start, size_t *ret_end);
