/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "merge.h"

static void push(struct warm_merge_space *s, struct warm_merge_candidate c) {
        uint32_t i = s->n_candidates++;

        assert(i < 2 * s->n_max);
        for (; i > 0; i = (i - 1) / 2) {
                struct warm_merge_candidate *parent = s->candidates + (i - 1) / 2;

                if (parent->key <= c.key)
                        break;
                s->candidates[i] = *parent;
        }
        s->candidates[i] = c;
}

static struct warm_merge_candidate pop(struct warm_merge_space *s) {
        struct warm_merge_candidate *h = s->candidates, top = h[0], last = h[--s->n_candidates];
        uint32_t i = 0, child;

        while (child = 2 * i + 1, child < s->n_candidates) {
                child += child + 1 < s->n_candidates && h[child + 1].key < h[child].key;
                if (h[child].key >= last.key)
                        break;
                h[i] = h[child];
                i = child;
        }
        h[i] = last;
        return top;
}

static void consider(struct warm_merge_space *s, uint32_t left, warm_merge_fn may_merge,
                     const void *context) {
        const struct warm_merge_symbol *a, *b;
        uint32_t priority, id;

        if (left == WARM_MERGE_NONE || s->symbols[left].next == WARM_MERGE_NONE)
                return;
        a = s->symbols + left;
        b = s->symbols + a->next;
        if (may_merge(context, a, b, &priority, &id))
                push(s, (struct warm_merge_candidate){ (uint64_t) priority << 32 | left,
                                                       a->n + b->n, id });
}

void warm_merge_run(struct warm_merge_space *s, warm_merge_fn may_merge, const void *context) {
        struct warm_merge_symbol *left, *right;

        s->n_candidates = 0;
        for (uint32_t i = 0; i < s->n_symbols; i++) {
                s->symbols[i].prev = i ? i - 1 : WARM_MERGE_NONE;
                s->symbols[i].next = i + 1 < s->n_symbols ? i + 1 : WARM_MERGE_NONE;
        }
        for (uint32_t i = 0; i + 1 < s->n_symbols; i++)
                consider(s, i, may_merge, context);
        while (s->n_candidates) {
                struct warm_merge_candidate c = pop(s);
                uint32_t at = (uint32_t) c.key;

                /* A symbol grows only by taking its right neighbour: same sum of sizes, same two symbols. */
                left = s->symbols + at;
                if (left->n == 0 || left->next == WARM_MERGE_NONE)
                        continue;
                right = s->symbols + left->next;
                if (left->n + right->n != c.n)
                        continue;
                left->n = c.n;
                left->id = c.id;
                left->next = right->next;
                right->n = 0;
                if (right->next != WARM_MERGE_NONE)
                        s->symbols[right->next].prev = at;
                consider(s, left->prev, may_merge, context);
                consider(s, at, may_merge, context);
        }
}

int warm_merge_space_init(struct warm_merge_space *s, size_t n_max) {
        assert(n_max > 0 && n_max <= UINT32_MAX / 2);
        *s = (struct warm_merge_space){ .n_max = (uint32_t) n_max };
        s->symbols = malloc(n_max * sizeof *s->symbols);
        s->candidates = malloc(2 * n_max * sizeof *s->candidates);
        if (s->symbols && s->candidates)
                return 0;
        warm_merge_space_deinit(s);
        return -ENOMEM;
}

void warm_merge_space_deinit(struct warm_merge_space *s) {
        free(s->symbols);
        free(s->candidates);
        *s = (struct warm_merge_space){ 0 };
}
