/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "special.h"

static int compare(const void *a, const void *b) {
        const struct warm_special *x = a, *y = b;

        if (x->text.n != y->text.n)
                return x->text.n > y->text.n ? -1 : 1;
        return memcmp(x->text.data, y->text.data, x->text.n);
}

int warm_special_set_init(struct warm_special_set *set, struct warm_special *tokens, uint32_t n) {
        *set = (struct warm_special_set){ .tokens = tokens, .n = n };
        if (n == 0)
                return 0;
        set->starts = calloc(256, sizeof *set->starts);
        set->inside = calloc(256, sizeof *set->inside);
        if (!set->starts || !set->inside) {
                warm_special_set_deinit(set);
                return -ENOMEM;
        }
        qsort(tokens, n, sizeof *tokens, compare);
        for (uint32_t i = 1; i < n; i++)
                if (compare(tokens + i - 1, tokens + i) == 0) {
                        warm_special_set_deinit(set);
                        return -EEXIST;
                }
        for (uint32_t i = 0; i < n; i++) {
                const uint8_t *t = (const uint8_t *) tokens[i].text.data;

                if (tokens[i].text.n == 1)
                        memset(set->starts[t[0]], 0xFF, sizeof *set->starts);
                else
                        set->starts[t[0]][t[1] / 8] |= (uint8_t) (1U << (t[1] & 7));
                for (size_t k = 1; k < tokens[i].text.n; k++)
                        set->inside[t[k - 1]][t[k] / 8] |= (uint8_t) (1U << (t[k] & 7));
        }
        return 0;
}

void warm_special_set_deinit(struct warm_special_set *set) {
        free(set->tokens);
        free(set->starts);
        free(set->inside);
        *set = (struct warm_special_set){ 0 };
}

int32_t warm_special_find(const struct warm_special_set *set, const char *text, size_t n) {
        const struct warm_special key = { { text, n }, -1 },
                                  *hit = set->n ? bsearch(&key, set->tokens, set->n, sizeof key,
                                                          compare)
                                                : NULL;

        return hit ? hit->id : -1;
}

static inline bool may_start(const struct warm_special_set *set, const uint8_t *text, size_t at,
                             size_t end) {
        uint8_t next = at + 1 < end ? text[at + 1] : 0;

        return set->starts[text[at]][next / 8] >> (next & 7) & 1;
}

/* Of tokens [first, last), all of one length, the one at text[at]; or NULL. */
static const struct warm_special *find(const struct warm_special_set *set, uint32_t first,
                                       uint32_t last, const uint8_t *text) {
        while (first < last) {
                uint32_t middle = first + (last - first) / 2;
                const struct warm_special *t = set->tokens + middle;
                int order = memcmp(text, t->text.data, t->text.n);

                if (order == 0)
                        return t;
                if (order < 0)
                        last = middle;
                else
                        first = middle + 1;
        }
        return NULL;
}

/*
 * Split text[at..end) by tokens from `first` on. It calls itself for what lies left of a match, with shorter tokens
 * only: its depth is at most the square root of twice the text.
 */
static int split(const struct warm_special_set *set, uint32_t first, const uint8_t *text, size_t at,
                 size_t end, warm_special_fn fn, void *context) {
        const struct warm_special *hit;
        uint32_t last;
        int r;

        for (; first < set->n; first = last) {
                size_t length = set->tokens[first].text.n, p = at;

                for (last = first; last < set->n && set->tokens[last].text.n == length;)
                        last++;
                while (p + length <= end) {
                        hit = may_start(set, text, p, end) ? find(set, first, last, text + p)
                                                           : NULL;
                        if (!hit) {
                                p++;
                                continue;
                        }
                        r = p > at ? split(set, last, text, at, p, fn, context) : 0;
                        if (r == 0)
                                r = fn(context, text, p, p + length, hit->id);
                        if (r < 0)
                                return r;
                        at = p += length;
                }
        }
        return at < end ? fn(context, text, at, end, -1) : 0;
}

int warm_special_split(const struct warm_special_set *set, const uint8_t *text, size_t n,
                       warm_special_fn fn, void *context) {
        size_t at = 0;

        if (n == 0)
                return 0;
        if (set->n)
                while (at < n && !may_start(set, text, at, n))
                        at++;
        if (set->n == 0 || at == n)
                return fn(context, text, 0, n, -1);
        return split(set, 0, text, 0, n, fn, context);
}
