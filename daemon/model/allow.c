/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where healing cuts, and which tokens may spell what was cut: an index of the tokens by the bytes of their text.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "unicode.h"
#include "vocab-private.h"

/* A first byte that more than one in this many tokens share has its bits ready (measured: the space of a code model
 * starts a third of all). */
#define HEAVY_SHARE 32U

struct entry {
        uint64_t key; /* the first 8 bytes, big end first */
        const char *text;
        uint32_t n, id;
};

static int compare(const void *a, const void *b) {
        const struct entry *x = a, *y = b;
        int order;

        if (x->key != y->key)
                return x->key < y->key ? -1 : 1;
        order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
        if (order)
                return order;
        if (x->n != y->n)
                return x->n < y->n ? -1 : 1;
        return x->id < y->id ? -1 : x->id > y->id;
}

/* By the first two bytes in one pass, then each group; the result is in `entries`. */
static void sort(struct entry *entries, struct entry *other, uint32_t n) {
        static const unsigned shift = 48;
        uint32_t *starts = calloc((1U << 16) + 1, sizeof *starts);

        if (!starts) {
                qsort(entries, n, sizeof *entries, compare);
                return;
        }
        for (uint32_t i = 0; i < n; i++)
                starts[(entries[i].key >> shift) + 1]++;
        for (uint32_t i = 0; i < 1U << 16; i++)
                starts[i + 1] += starts[i];
        for (uint32_t i = 0; i < n; i++)
                other[starts[entries[i].key >> shift]++] = entries[i];
        memcpy(entries, other, n * sizeof *entries);
        for (uint32_t i = 0, last; i < n; i = last) {
                last = starts[entries[i].key >> shift];
                if (last - i > 1)
                        qsort(entries + i, last - i, sizeof *entries, compare);
        }
        free(starts);
}

static struct entry entry_of(const struct warm_vocab *v, uint32_t id) {
        struct warm_string s = warm_vocab_text(v, (int32_t) id);
        struct entry e = { 0, s.data, (uint32_t) s.n, id };

        for (size_t i = 0; i < 8; i++)
                e.key = e.key << 8 | (i < s.n ? (uint8_t) s.data[i] : 0);
        return e;
}

static bool is_allowed(const struct warm_vocab *v, uint32_t id) {
        uint8_t kind = v->kinds[id];

        return (kind == WARM_TOKEN_NORMAL || kind == WARM_TOKEN_USER || kind == WARM_TOKEN_BYTE) &&
               warm_vocab_text(v, (int32_t) id).n > 0;
}

static void mark(const struct warm_vocab *v, uint32_t first, uint32_t last, uint64_t *bitmap) {
        for (uint32_t i = first; i < last; i++)
                bitmap[v->sorted[i] / 64] |= UINT64_C(1) << (v->sorted[i] & 63);
}

static int make_bitmaps(struct warm_vocab *v) {
        size_t n_words = (v->n_tokens + 63) / 64;

        v->all = calloc(n_words, sizeof *v->all);
        if (!v->all)
                return -ENOMEM;
        mark(v, 0, v->n_sorted, v->all);
        for (unsigned b = 0; b < 256; b++) {
                if (v->start[b + 1] - v->start[b] <= v->n_tokens / HEAVY_SHARE)
                        continue;
                v->heavy[b] = calloc(n_words, sizeof *v->heavy[b]);
                if (!v->heavy[b])
                        return -ENOMEM;
                mark(v, v->start[b], v->start[b + 1], v->heavy[b]);
        }
        return 0;
}

int warm_allow_init(struct warm_vocab *v) {
        struct entry *entries = malloc(v->n_tokens * sizeof *entries),
                     *other = malloc(v->n_tokens * sizeof *other);
        uint32_t n = 0, at = 0;

        v->sorted = malloc(v->n_tokens * sizeof *v->sorted);
        if (!entries || !other || !v->sorted) {
                free(entries);
                free(other);
                return -ENOMEM;
        }
        for (uint32_t id = 0; id < v->n_tokens; id++)
                if (is_allowed(v, id))
                        entries[n++] = entry_of(v, id);
        sort(entries, other, n);
        for (unsigned b = 0; b < 256; b++) {
                v->start[b] = at;
                for (; at < n && (uint8_t) entries[at].text[0] == b; at++)
                        v->sorted[at] = entries[at].id;
        }
        assert(at == n);
        v->start[256] = v->n_sorted = n;
        free(entries);
        free(other);
        return make_bitmaps(v);
}

void warm_allow_deinit(struct warm_vocab *v) {
        free(v->sorted);
        free(v->all);
        for (unsigned b = 0; b < 256; b++)
                free(v->heavy[b]);
}

uint64_t warm_allow_memory_bytes(const struct warm_vocab *v) {
        uint64_t bitmap = (v->n_tokens + 63) / 64 * sizeof *v->all, n = bitmap;

        for (unsigned b = 0; b < 256; b++)
                n += v->heavy[b] ? bitmap : 0;
        return n + v->n_tokens * sizeof *v->sorted;
}

/* The first of [first, last) whose byte number k is >= byte; all are longer than k and equal before it. */
static uint32_t lower_bound(const struct warm_vocab *v, uint32_t first, uint32_t last, size_t k,
                            unsigned byte) {
        while (first < last) {
                uint32_t middle = first + (last - first) / 2;

                if ((uint8_t) warm_vocab_text(v, (int32_t) v->sorted[middle]).data[k] < byte)
                        first = middle + 1;
                else
                        last = middle;
        }
        return first;
}

uint32_t warm_vocab_allow(const struct warm_vocab *v, const void *bytes, size_t n_bytes,
                          uint64_t *bitmap) {
        const uint8_t *p = bytes;
        size_t size = (v->n_tokens + 63) / 64 * sizeof *bitmap;
        uint32_t first, last, n = 0;

        if (n_bytes == 0) {
                memcpy(bitmap, v->all, size);
                return v->n_sorted;
        }
        first = v->start[p[0]];
        last = v->start[p[0] + 1];
        if (n_bytes == 1 && v->heavy[p[0]]) {
                memcpy(bitmap, v->heavy[p[0]], size);
                return last - first;
        }
        memset(bitmap, 0, size);
        for (size_t k = 1; k < n_bytes && first < last; k++) {
                uint32_t exact = first; /* those that are the first k bytes come first */

                while (exact < last && warm_vocab_text(v, (int32_t) v->sorted[exact]).n == k)
                        exact++;
                mark(v, first, exact, bitmap);
                n += exact - first;
                first = lower_bound(v, exact, last, k, p[k]);
                last = lower_bound(v, first, last, k, p[k] + 1U);
        }
        mark(v, first, last, bitmap);
        return n + (last - first);
}

/* After a line's end and before a letter or sign; after a letter and before a space: no expression of pretoken.c
 * matches across either. */
bool warm_vocab_may_cut(const struct warm_vocab *v, const void *text, size_t at) {
        const uint8_t *p = text;
        uint8_t before = p[at - 1], after = p[at], lower = before | 0x20;

        if (!(before == '\n' && after > ' ' && after < 0x7F) &&
            !(after == ' ' && lower >= 'a' && lower <= 'z'))
                return false;
        return warm_special_set_may_cut(&v->user, p, at);
}

struct last {
        size_t start;
        bool plain; /* not a special token */
};

static int note_part(void *context, const uint8_t *text, size_t at, size_t end, int32_t id) {
        struct last *last = context;

        (void) text;
        (void) end;
        last->plain = id < 0;
        last->start = at;
        return 0;
}

size_t warm_vocab_last_piece(const struct warm_vocab *v, const void *text, size_t n_text) {
        const uint8_t *p = text;
        size_t from = n_text, start, end, least;
        struct warm_pretoken_scan scan;
        struct last last = { 0 };

        if (n_text == 0)
                return 0;
        for (from--; from > 0 && !warm_vocab_may_cut(v, p, from); from--)
                ;
        (void) warm_special_split(&v->user, p + from, n_text - from, note_part, &last);
        start = last.start + from;
        if (last.plain) {
                warm_pretoken_start(&scan, v->pre, p, start, n_text);
                while (warm_pretoken_next(&scan, &start, &end))
                        ;
        }
        least = n_text > WARM_HEAL_BYTES_MAX ? n_text - WARM_HEAL_BYTES_MAX : 0;
        return start >= least ? start : warm_utf8_border(p, n_text, least);
}
