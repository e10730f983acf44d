/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens whose text is never split, found in text before anything else: the longest ones first, each wherever it
 * stands, then the next length in what is left. (So does the reference, tokenizer_st_partition in llama-vocab.cpp;
 * it is not the leftmost-longest rule.) Immutable once made; embedded in a vocabulary.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vocab.h"

struct warm_special {
        struct warm_string text; /* borrowed from the vocabulary */
        int32_t id;
};

struct warm_special_set {
        struct warm_special *tokens; /* [n] longest first, then by bytes */
        uint32_t n;
        uint8_t (*starts)[32]; /* [256] bit b of row a: one starts with a, b (or is just a) */
        uint8_t (*inside)[32]; /* [256] bit b of row a: one has b after a */
};

/*
 * Takes `tokens`, malloc'd [n] with non-empty texts, in success and in failure.
 * Return: 0; -ENOMEM; -EEXIST: two have the same text.
 */
int warm_special_set_init(struct warm_special_set *set, struct warm_special *tokens, uint32_t n);
void warm_special_set_deinit(struct warm_special_set *set);

/* The id of the token of this text; -1 if there is none. */
int32_t warm_special_find(const struct warm_special_set *set, const char *text, size_t n);

/* A cut before text[at] touches no special token, whatever follows. @param at > 0 */
static inline bool warm_special_set_may_cut(const struct warm_special_set *set, const uint8_t *text,
                                            size_t at) {
        return !set->n || !(set->inside[text[at - 1]][text[at] / 8] >> (text[at] & 7) & 1);
}

/* Gets text[at..end) that is plain (id < 0) or one token. Return: 0; negative: stop with this. */
typedef int (*warm_special_fn)(void *context, const uint8_t *text, size_t at, size_t end,
                               int32_t id);

/* Hand each part of the text, in order, to fn. Return: 0, or what fn returned. */
int warm_special_split(const struct warm_special_set *set, const uint8_t *text, size_t n,
                       warm_special_fn fn, void *context);
