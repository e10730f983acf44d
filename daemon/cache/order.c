/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two orders of blocks, each a treap over links inside the blocks: no allocation, O(log n) expected.
 *
 * Siblings: the children of one parent by their tokens, lexicographic, a prefix before what continues it. So the
 * child with the longest common prefix with any text stands directly before or after that text: thousands of
 * children of a root cost two dozen comparisons, not a scan.
 * Age: what may be evicted, by value; the lowest first.
 *
 * The heap's priority is a mix of the ref and the cache's secret: no client can choose texts that degenerate it.
 */
#include <string.h>

#include "internal.h"

enum order { SIBLING, AGE };

static inline struct warm_links *links(const struct warm_cache *c, enum order o, uint32_t ref) {
        return o == SIBLING ? &c->blocks[ref].sibling : &c->blocks[ref].age;
}

static inline uint32_t priority(const struct warm_cache *c, uint32_t ref) {
        uint64_t x = (ref ^ c->secret[3]) * 0x9e3779b97f4a7c15ULL;

        return (uint32_t) ((x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ULL >> 32);
}

/* Heap order, total. */
static inline bool above(const struct warm_cache *c, uint32_t a, uint32_t b) {
        uint32_t pa = priority(c, a), pb = priority(c, b);

        return pa != pb ? pa > pb : a > b;
}

static uint32_t common(const int32_t *a, uint32_t n_a, const int32_t *b, uint32_t n_b) {
        uint32_t n = n_a < n_b ? n_a : n_b, i = 0;

        while (i < n && a[i] == b[i])
                i++;
        return i;
}

static int compare_tokens(const int32_t *a, uint32_t n_a, const int32_t *b, uint32_t n_b,
                          uint32_t *ret_common) {
        uint32_t i = common(a, n_a, b, n_b);

        *ret_common = i;
        if (i < n_a && i < n_b)
                return a[i] < b[i] ? -1 : 1;
        return n_a == n_b ? 0 : n_a < n_b ? -1 : 1;
}

static inline bool less(const struct warm_cache *c, enum order o, uint32_t a, uint32_t b) {
        const struct warm_record *ra, *rb;
        uint32_t n_common;
        int k;

        if (o == AGE)
                return c->blocks[a].value != c->blocks[b].value
                               ? c->blocks[a].value < c->blocks[b].value
                               : a < b;
        ra = &c->records[a];
        rb = &c->records[b];
        k = compare_tokens(ra->tokens, ra->n_ready, rb->tokens, rb->n_ready, &n_common);
        return k != 0 ? k < 0 : a < b;
}

static inline void insert(struct warm_cache *c, enum order o, uint32_t *slot, uint32_t ref) {
        struct warm_links *l = links(c, o, ref);
        uint32_t *left = &l->left, *right = &l->right, at;

        while (*slot != NONE && above(c, *slot, ref))
                slot = less(c, o, *slot, ref) ? &links(c, o, *slot)->right
                                              : &links(c, o, *slot)->left;
        at = *slot;
        *slot = ref;
        /* Split what hung here into what comes before and after. */
        while (at != NONE) {
                if (less(c, o, at, ref)) {
                        *left = at;
                        left = &links(c, o, at)->right;
                        at = *left;
                } else {
                        *right = at;
                        right = &links(c, o, at)->left;
                        at = *right;
                }
        }
        *left = NONE;
        *right = NONE;
}

static inline void unhook(struct warm_cache *c, enum order o, uint32_t *slot, uint32_t ref) {
        uint32_t a, b;

        while (*slot != ref) {
                assert(*slot != NONE);
                slot = less(c, o, *slot, ref) ? &links(c, o, *slot)->right
                                              : &links(c, o, *slot)->left;
        }
        a = links(c, o, ref)->left;
        b = links(c, o, ref)->right;
        while (a != NONE && b != NONE) {
                if (above(c, a, b)) {
                        *slot = a;
                        slot = &links(c, o, a)->right;
                        a = *slot;
                } else {
                        *slot = b;
                        slot = &links(c, o, b)->left;
                        b = *slot;
                }
        }
        *slot = a != NONE ? a : b;
        *links(c, o, ref) = (struct warm_links){ NONE, NONE };
}

void warm_order_sibling_insert(struct warm_cache *c, uint32_t *root, uint32_t ref) {
        insert(c, SIBLING, root, ref);
}

void warm_order_sibling_remove(struct warm_cache *c, uint32_t *root, uint32_t ref) {
        unhook(c, SIBLING, root, ref);
}

void warm_order_age_insert(struct warm_cache *c, uint32_t *root, uint32_t ref) {
        insert(c, AGE, root, ref);
}

void warm_order_age_remove(struct warm_cache *c, uint32_t *root, uint32_t ref) {
        unhook(c, AGE, root, ref);
}

uint32_t warm_order_age_first(const struct warm_cache *c, uint32_t root) {
        if (root == NONE)
                return NONE;
        while (c->blocks[root].age.left != NONE)
                root = c->blocks[root].age.left;
        return root;
}

void warm_order_neighbours(const struct warm_cache *c, uint32_t root, const int32_t *tokens,
                           uint32_t n, struct warm_neighbour *ret_before,
                           struct warm_neighbour *ret_after) {
        struct warm_neighbour before = { NONE, 0 }, after = { NONE, 0 };

        assert(n >= 1 && n <= WARM_BLOCK_TOKENS);
        while (root != NONE) {
                const struct warm_record *r = &c->records[root];
                uint32_t n_common;

                if (compare_tokens(tokens, n, r->tokens, r->n_ready, &n_common) < 0) {
                        after = (struct warm_neighbour){ root, n_common };
                        root = c->blocks[root].sibling.left;
                } else {
                        before = (struct warm_neighbour){ root, n_common };
                        root = c->blocks[root].sibling.right;
                }
        }
        *ret_before = before;
        *ret_after = after;
}
