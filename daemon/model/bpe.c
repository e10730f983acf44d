/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte-level BPE: cut text into pieces (pretoken.h), then merge the bytes of each by rank, lowest first, from the left.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "unicode.h"
#include "vocab-private.h"

#define SHORT_BYTES 32U /* pieces up to here merge in arrays on the stack (untuned guess) */

/* Where byte b stands in GPT-2's alphabet: encoder.py's bytes_to_unicode(), inverted. -1: no byte. */
static int byte_of(uint32_t code) {
        if ((code >= 0x21 && code <= 0x7E) || (code >= 0xA1 && code <= 0xAC) ||
            (code >= 0xAE && code <= 0xFF))
                return (int) code;
        if (code >= 0x100 && code <= 0x120)
                return (int) code - 0x100;
        if (code >= 0x121 && code <= 0x142)
                return (int) code - 0x121 + 0x7F;
        return code == 0x143 ? 0xAD : -1;
}

int warm_bpe_unspell(const char *name, size_t n, uint8_t *ret_bytes) {
        uint32_t code;
        int byte, n_bytes = 0;

        for (size_t at = 0; at < n;) {
                if ((uint8_t) name[at] > 0x20 && (uint8_t) name[at] < 0x7F) {
                        ret_bytes[n_bytes++] = (uint8_t) name[at++];
                        continue;
                }
                at += warm_utf8_read((const uint8_t *) name + at, n - at, &code);
                byte = byte_of(code);
                if (byte < 0)
                        return -1;
                ret_bytes[n_bytes++] = (uint8_t) byte;
        }
        return n_bytes;
}

static inline uint32_t slot_of(const struct warm_vocab *v, uint32_t left, uint32_t right) {
        uint64_t h = ((uint64_t) left << 32 | right) * 0x9E3779B97F4A7C15; /* Fibonacci hashing */

        return (uint32_t) (h >> 32) & (v->n_slots - 1);
}

static inline const struct warm_vocab_merge *find_merge(const struct warm_vocab *v, uint32_t left,
                                                        uint32_t right) {
        for (uint32_t i = slot_of(v, left, right); v->merges[i].left != WARM_MERGE_NONE;
             i = (i + 1) & (v->n_slots - 1))
                if (v->merges[i].left == left && v->merges[i].right == right)
                        return v->merges + i;
        return NULL;
}

/* Is token `id` called what both halves of a merge spell together? */
static bool is_result(const struct warm_vocab *v, uint32_t id, struct warm_string merge,
                      size_t n_left) {
        struct warm_string name;

        if (id >= v->n_tokens || !warm_kind_merges(v->kinds[id]))
                return false;
        name = warm_vocab_name(v, (int32_t) id);
        return name.n + 1 == merge.n && memcmp(name.data, merge.data, n_left) == 0 &&
               memcmp(name.data + n_left, merge.data + n_left + 1, name.n - n_left) == 0;
}

/* @param last the result of the merge before; ret_result of this one */
static int add_merge(struct warm_vocab *v, uint32_t rank, struct warm_string merge, uint32_t last,
                     uint32_t *ret_result, char **ret_why) {
        uint8_t bytes[2 * WARM_VOCAB_TOKEN_BYTES_MAX];
        const char *space = merge.n > 1 ? memchr(merge.data + 1, ' ', merge.n - 1) : NULL;
        struct warm_vocab_merge m = { .rank = rank };
        size_t n_left;
        uint32_t i;
        int left, right, r;

        if (!space || space + 1 == merge.data + merge.n)
                return warm_vocab_wrong(ret_why, "merge %u is not two strings", rank);
        n_left = (size_t) (space - merge.data);
        if (merge.n > WARM_VOCAB_TOKEN_BYTES_MAX)
                return warm_vocab_wrong(ret_why, "merge %u is longer than %u bytes", rank,
                                        WARM_VOCAB_TOKEN_BYTES_MAX);
        left = warm_bpe_unspell(merge.data, n_left, bytes);
        right = left < 0 ? -1 : warm_bpe_unspell(space + 1, merge.n - n_left - 1, bytes + left);
        if (right < 0)
                return 0; /* not in the byte alphabet: no text ever comes to it */
        r = warm_strings_intern(&v->text, bytes, (size_t) left, &m.left);
        if (r == 0)
                r = warm_strings_intern(&v->text, bytes + left, (size_t) right, &m.right);
        if (is_result(v, last + 1, merge, n_left)) /* most files number results in this order */
                m.result = last + 1;
        else if (r == 0)
                r = warm_strings_intern(&v->text, bytes, (size_t) (left + right), &m.result);
        if (r < 0)
                return r;
        for (i = slot_of(v, m.left, m.right); v->merges[i].left != WARM_MERGE_NONE;
             i = (i + 1) & (v->n_slots - 1))
                if (v->merges[i].left == m.left && v->merges[i].right == m.right)
                        return 0; /* the first rank counts */
        v->merges[i] = m;
        *ret_result = m.result;
        return 0;
}

int warm_bpe_init(struct warm_vocab *v, const struct warm_vocab_config *config, char **ret_why) {
        uint32_t last = UINT32_MAX - 1;
        int r;

        v->n_slots = 64;
        while (v->n_slots < 2 * config->n_merges)
                v->n_slots *= 2;
        v->merges = malloc(v->n_slots * sizeof *v->merges);
        v->whole = calloc(v->n_tokens, sizeof *v->whole);
        if (!v->merges || !v->whole)
                return -ENOMEM;
        memset(v->merges, 0xFF, v->n_slots * sizeof *v->merges);
        for (unsigned b = 0; b < 256; b++) {
                uint8_t byte = (uint8_t) b;

                r = warm_strings_intern(&v->text, &byte, 1, v->byte_symbol + b);
                if (r < 0)
                        return r;
                v->byte_token[b] =
                        v->byte_symbol[b] < v->n_tokens ? (int32_t) v->byte_symbol[b] : -1;
        }
        for (uint32_t i = 0; i < config->n_merges; i++) {
                r = add_merge(v, i, config->merges[i], last, &last, ret_why);
                if (r == -E2BIG)
                        return warm_vocab_wrong(ret_why, "the merges are too long together");
                if (r < 0)
                        return r;
        }
        return 0;
}

static int put_symbol(struct warm_encoder *e, uint32_t symbol) {
        size_t n;
        const char *text;

        if (symbol < e->vocab->n_tokens)
                return warm_token_put(&e->out, symbol);
        text = warm_strings_get(&e->vocab->text, symbol, &n);
        return warm_encoder_bytes(e, (const uint8_t *) text, n);
}

/* The same as the heap does, for few bytes: find the lowest rank, the leftmost of equals, merge, again. */
static int encode_short(struct warm_encoder *e, const uint8_t *text, size_t n) {
        const struct warm_vocab_merge *pairs[SHORT_BYTES + 1];
        const struct warm_vocab *v = e->vocab;
        uint32_t symbols[SHORT_BYTES];
        size_t best;
        int r = 0;

        for (size_t i = 0; i < n; i++)
                symbols[i] = v->byte_symbol[text[i]];
        for (size_t i = 0; i + 1 < n; i++)
                pairs[i] = find_merge(v, symbols[i], symbols[i + 1]);
        for (;;) {
                best = n;
                for (size_t i = 0; i + 1 < n; i++)
                        if (pairs[i] && (best == n || pairs[i]->rank < pairs[best]->rank))
                                best = i;
                if (best == n)
                        break;
                symbols[best] = pairs[best]->result;
                n--;
                memmove(symbols + best + 1, symbols + best + 2, (n - best - 1) * sizeof *symbols);
                memmove(pairs + best, pairs + best + 1, (n - best) * sizeof *pairs);
                if (best > 0)
                        pairs[best - 1] = find_merge(v, symbols[best - 1], symbols[best]);
                if (best + 1 < n)
                        pairs[best] = find_merge(v, symbols[best], symbols[best + 1]);
        }
        for (size_t i = 0; i < n && r == 0; i++)
                r = put_symbol(e, symbols[i]);
        return r;
}

static bool may_merge(const void *context, const struct warm_merge_symbol *left,
                      const struct warm_merge_symbol *right, uint32_t *ret_priority,
                      uint32_t *ret_id) {
        const struct warm_vocab_merge *m = find_merge(context, left->id, right->id);

        if (!m)
                return false;
        *ret_priority = m->rank;
        *ret_id = m->result;
        return true;
}

static int encode_long(struct warm_encoder *e, const uint8_t *text, size_t n) {
        struct warm_merge_space *s = &e->space;
        int r = warm_encoder_reserve(e, n);

        if (r < 0)
                return r;
        for (uint32_t i = 0; i < n; i++)
                s->symbols[i] = (struct warm_merge_symbol){ .at = i,
                                                            .n = 1,
                                                            .id = e->vocab->byte_symbol[text[i]] };
        s->n_symbols = (uint32_t) n;
        warm_merge_run(s, may_merge, e->vocab);
        for (uint32_t i = 0; i != WARM_MERGE_NONE && r == 0; i = s->symbols[i].next)
                r = put_symbol(e, s->symbols[i].id);
        return r;
}

static int encode_piece(struct warm_encoder *e, const uint8_t *text, size_t n) {
        const struct warm_vocab *v = e->vocab;
        uint32_t id = n == 1 ? v->byte_symbol[*text] : warm_strings_find(&v->text, text, n);
        size_t before = e->out.n;
        uint8_t whole = WARM_WHOLE_NO;
        int r;

        if (id < v->n_tokens) {
                whole = atomic_load_explicit(v->whole + id, memory_order_relaxed);
                if (whole == WARM_WHOLE_YES || warm_pretokenizer_takes_whole(v->pre))
                        return warm_token_put(&e->out, id);
        }
        r = n <= SHORT_BYTES ? encode_short(e, text, n) : encode_long(e, text, n);
        if (whole == 0 && r == 0) {
                whole = e->out.n == before + 1 && e->out.ids[before] == (int32_t) id
                                ? WARM_WHOLE_YES
                                : WARM_WHOLE_NO;
                atomic_store_explicit(v->whole + id, whole, memory_order_relaxed);
        }
        return r;
}

/* The last place to cut text[start..end) so that no more than WARM_PIECE_BYTES_MAX come before it. */
static size_t cut_of(const uint8_t *text, size_t start, size_t end) {
        size_t cut = start + WARM_PIECE_BYTES_MAX;

        if (end <= cut)
                return end;
        return warm_utf8_border(text, end, cut) == cut ? cut : warm_utf8_border(text, end, cut - 3);
}

int warm_bpe_encode(struct warm_encoder *e, const uint8_t *text, size_t n) {
        struct warm_pretoken_scan scan;
        size_t start, end, cut;
        int r = 0;

        warm_pretoken_start(&scan, e->vocab->pre, text, 0, n);
        while (r == 0 && warm_pretoken_next(&scan, &start, &end))
                for (; start < end && r == 0; start = cut) {
                        cut = cut_of(text, start, end);
                        r = encode_piece(e, text + start, cut - start);
                }
        return r;
}
