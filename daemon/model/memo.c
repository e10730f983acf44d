/* SPDX-License-Identifier: Apache-2.0 */
#include "memo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One remembered text. Empty: n_text 0. */
struct entry {
        uint8_t *text;  /* owned, [size] */
        int32_t *ids;   /* owned, [size]: a token has a byte at least */
        uint32_t *ends; /* owned, [size]: where each token's bytes end */
        size_t size, n_text, n_ids;
        unsigned flags;
        uint64_t used; /* the clock of its last use */
};

struct warm_memo {
        const struct warm_vocab *vocab; /* borrowed */
        uint64_t clock;
        struct entry entries[WARM_MEMO_TEXTS];
};

int warm_memo_new(const struct warm_vocab *vocab, struct warm_memo **ret_memo) {
        struct warm_memo *m = calloc(1, sizeof(*m));

        if (!m)
                return -ENOMEM;
        m->vocab = vocab;
        *ret_memo = m;
        return 0;
}

static void entry_deinit(struct entry *e) {
        free(e->text);
        free(e->ids);
        free(e->ends);
        *e = (struct entry){ 0 };
}

struct warm_memo *warm_memo_free(struct warm_memo *m) {
        if (!m)
                return NULL;
        for (size_t i = 0; i < WARM_MEMO_TEXTS; i++)
                entry_deinit(&m->entries[i]);
        free(m);
        return NULL;
}

static size_t common_bytes(const uint8_t *a, const uint8_t *b, size_t n) {
        size_t i = 0;

        while (i + sizeof(uint64_t) <= n) {
                uint64_t x, y;

                memcpy(&x, a + i, sizeof(x));
                memcpy(&y, b + i, sizeof(y));
                if (x != y)
                        break;
                i += sizeof(x);
        }
        while (i < n && a[i] == b[i])
                i++;
        return i;
}

/* The remembered text that shares most with this one. Return: it, or NULL, and how many bytes they share. */
static struct entry *find(struct warm_memo *m, const uint8_t *text, size_t n_text, unsigned flags,
                          size_t *ret_common) {
        struct entry *best = NULL;

        *ret_common = 0;
        for (size_t i = 0; i < WARM_MEMO_TEXTS; i++) {
                struct entry *e = &m->entries[i];
                size_t n = e->n_text < n_text ? e->n_text : n_text, common;

                if (e->n_text == 0 || e->flags != flags)
                        continue;
                common = common_bytes(e->text, text, n);
                if (common > *ret_common) {
                        *ret_common = common;
                        best = e;
                }
        }
        return best;
}

static struct entry *least_used(struct warm_memo *m) {
        struct entry *least = &m->entries[0];

        for (size_t i = 1; i < WARM_MEMO_TEXTS; i++)
                if (m->entries[i].used < least->used)
                        least = &m->entries[i];
        return least;
}

/* Tokens of e that spell its first n bytes, if a token ends there. */
static bool tokens_until(const struct entry *e, size_t n, size_t *ret_n_ids) {
        size_t lo = 0, hi = e->n_ids;

        while (lo < hi) {
                size_t middle = lo + (hi - lo) / 2;

                if (e->ends[middle] < n)
                        lo = middle + 1;
                else
                        hi = middle;
        }
        if (lo == e->n_ids || e->ends[lo] != n)
                return false;
        *ret_n_ids = lo + 1;
        return true;
}

/*
 * The last place inside the shared bytes at which a piece starts in both texts. The byte behind it is shared too, and
 * ASCII: what stands in front may look one character ahead.
 */
static size_t find_cut(const struct warm_memo *m, const struct entry *e, const uint8_t *text,
                       size_t common, size_t *ret_n_ids) {
        for (size_t at = common; at-- > 1;)
                if (warm_vocab_may_cut(m->vocab, text, at) && tokens_until(e, at, ret_n_ids))
                        return at;
        return 0;
}

static bool grow(struct entry *e, size_t n) {
        uint8_t *text;
        int32_t *ids;
        uint32_t *ends;

        if (n <= e->size)
                return true;
        n += n / 4;
        text = realloc(e->text, n);
        e->text = text ? text : e->text;
        ids = realloc(e->ids, n * sizeof(*ids));
        e->ids = ids ? ids : e->ids;
        ends = realloc(e->ends, n * sizeof(*ends));
        e->ends = ends ? ends : e->ends;
        if (!text || !ids || !ends)
                return false;
        e->size = n;
        return true;
}

/* Remember a text in e, whose first n_kept tokens and n_cut bytes are those of the new text already. */
static void remember(struct warm_memo *m, struct entry *e, const uint8_t *text, size_t n_text,
                     size_t n_cut, const int32_t *ids, size_t n_ids, size_t n_kept,
                     unsigned flags) {
        size_t end = n_cut;

        e->n_text = 0; /* nothing, should it not come to an end */
        if (n_ids > n_text || !grow(e, n_text))
                return;
        memcpy(e->text + n_cut, text + n_cut, n_text - n_cut);
        memcpy(e->ids + n_kept, ids + n_kept, (n_ids - n_kept) * sizeof(*ids));
        for (size_t i = n_kept; i < n_ids; i++) {
                end += warm_vocab_text(m->vocab, ids[i]).n;
                e->ends[i] = (uint32_t) end;
        }
        if (end != n_text)
                return; /* a vocabulary that cannot spell every byte */
        e->n_text = n_text;
        e->n_ids = n_ids;
        e->flags = flags;
        e->used = ++m->clock;
}

int warm_memo_tokenize(struct warm_memo *m, const void *text, size_t n_text, unsigned flags,
                       int32_t *ids, size_t n_ids_max, size_t *ret_n_ids) {
        size_t common = 0, cut = 0, n_kept = 0, n = 0;
        struct entry *e;
        int r;

        if (n_text == 0 || n_text > WARM_MEMO_BYTES_MAX || flags & WARM_TOKENIZE_SPECIAL)
                return warm_vocab_tokenize(m->vocab, text, n_text, flags, ids, n_ids_max,
                                           ret_n_ids);
        e = find(m, text, n_text, flags, &common);
        if (e && common == n_text && common == e->n_text) {
                if (e->n_ids > n_ids_max)
                        return -ENOBUFS;
                memcpy(ids, e->ids, e->n_ids * sizeof(*ids));
                e->used = ++m->clock;
                *ret_n_ids = e->n_ids;
                return 0;
        }
        if (e)
                cut = find_cut(m, e, text, common, &n_kept);
        if (n_kept > n_ids_max)
                return -ENOBUFS;
        if (cut > 0)
                memcpy(ids, e->ids, n_kept * sizeof(*ids));
        r = warm_vocab_tokenize(m->vocab, (const uint8_t *) text + cut, n_text - cut,
                                cut > 0 ? flags & ~(unsigned) WARM_TOKENIZE_START : flags,
                                ids + n_kept, n_ids_max - n_kept, &n);
        if (r < 0)
                return r;
        n += n_kept;
        /* A text that goes on from a remembered one takes its place; another is remembered beside it. */
        if (cut > 0 && cut >= n_text / 2 && cut >= e->n_text / 2)
                remember(m, e, text, n_text, cut, ids, n, n_kept, flags);
        else
                remember(m, least_used(m), text, n_text, 0, ids, n, 0, flags);
        *ret_n_ids = n;
        return 0;
}
