/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SentencePiece as llama.cpp does it (llama-spm): merge neighbouring characters into the token of the best score, from
 * the left among equals; what is no token in the end is spelled in byte tokens.
 *
 * The reference merges a whole text at once. Here it is first cut where no token could reach across, which changes
 * nothing but the time. Tokens' texts hold real spaces for U+2581, so U+2581 itself in text is spelled in bytes.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "unicode.h"
#include "vocab-private.h"

/* Floats in descending order as ascending integers (IEEE 754: sign and magnitude). */
static uint32_t priority_of(float score) {
        uint32_t bits;

        score += 0.0f; /* -0 and 0 are equal */
        memcpy(&bits, &score, sizeof bits);
        return bits >> 31 ? bits : ~bits & 0x7FFFFFFF;
}

int warm_spm_init(struct warm_vocab *v, const struct warm_vocab_config *config, char **ret_why) {
        if (!config->scores)
                return warm_vocab_wrong(ret_why, "a SentencePiece vocabulary needs scores");
        v->priority = malloc(v->n_tokens * sizeof *v->priority);
        v->joins = calloc(256, sizeof *v->joins);
        if (!v->priority || !v->joins)
                return -ENOMEM;
        for (unsigned b = 0; b < 256; b++)
                v->byte_token[b] = -1;
        for (uint32_t id = 0; id < v->n_tokens; id++) {
                size_t n;
                const uint8_t *text = (const uint8_t *) warm_strings_get(&v->text, id, &n);

                if (isnan(config->scores[id]))
                        return warm_vocab_wrong(ret_why, "token %u has no number for a score", id);
                v->priority[id] = priority_of(config->scores[id]);
                if (v->kinds[id] == WARM_TOKEN_BYTE)
                        v->byte_token[text[0]] = (int32_t) id;
                if (n == 0 || warm_strings_find(&v->text, text, n) != id)
                        continue;
                if (n > v->n_longest)
                        v->n_longest = n;
                for (size_t i = 1; i < n; i++)
                        v->joins[text[i - 1]][text[i] / 8] |= (uint8_t) (1U << (text[i] & 7));
        }
        return 0;
}

struct stretch {
        const struct warm_vocab *vocab;
        const uint8_t *text;
};

static bool may_merge(const void *context, const struct warm_merge_symbol *left,
                      const struct warm_merge_symbol *right, uint32_t *ret_priority,
                      uint32_t *ret_id) {
        const struct stretch *s = context;
        const struct warm_vocab *v = s->vocab;
        uint32_t id;

        if ((size_t) left->n + right->n > v->n_longest)
                return false;
        id = warm_strings_find(&v->text, s->text + left->at, left->n + right->n);
        if (id == WARM_STRINGS_NONE)
                return false;
        *ret_priority = v->priority[id];
        *ret_id = id;
        return true;
}

/* Where the stretch that starts at `at` may end: before a byte that never follows the one before it in any token. */
static size_t stretch_end(const struct warm_vocab *v, const uint8_t *text, size_t at, size_t n) {
        size_t most = n - at > WARM_PIECE_BYTES_MAX ? at + WARM_PIECE_BYTES_MAX - 3 : n;
        uint32_t code;

        for (size_t p = at; p < most;) {
                p += warm_utf8_read(text + p, n - p, &code);
                if (p < n && !(v->joins[text[p - 1]][text[p] / 8] >> (text[p] & 7) & 1))
                        return p;
                if (p >= most)
                        return p;
        }
        return n;
}

static int encode_stretch(struct warm_encoder *e, const uint8_t *text, size_t n) {
        struct stretch stretch = { e->vocab, text };
        struct warm_merge_space *s = &e->space;
        uint32_t code, i;
        int r = warm_encoder_reserve(e, n);

        if (r < 0)
                return r;
        s->n_symbols = 0;
        for (size_t at = 0; at < n; at += s->symbols[s->n_symbols++].n) {
                struct warm_merge_symbol *symbol = s->symbols + s->n_symbols;

                symbol->at = (uint32_t) at;
                symbol->n = (uint32_t) warm_utf8_read(text + at, n - at, &code);
                symbol->id = warm_strings_find(&e->vocab->text, text + at, symbol->n);
        }
        warm_merge_run(s, may_merge, &stretch);
        for (i = 0; i != WARM_MERGE_NONE && r == 0; i = s->symbols[i].next)
                r = s->symbols[i].id == WARM_STRINGS_NONE
                            ? warm_encoder_bytes(e, text + s->symbols[i].at, s->symbols[i].n)
                            : warm_token_put(&e->out, s->symbols[i].id);
        return r;
}

int warm_spm_encode(struct warm_encoder *e, const uint8_t *text, size_t n) {
        size_t end;
        int r = 0;

        for (size_t at = 0; at < n && r == 0; at = end) {
                end = stretch_end(e->vocab, text, at, n);
                r = encode_stretch(e, text + at, end - at);
        }
        return r;
}
