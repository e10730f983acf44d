/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree of entries: keys, children, the memory of what was evicted.
 *
 * Keys only propose. What decides is the tokens, the uid, and that the recorded parent is the block and generation
 * just matched.
 */
#include <string.h>

#include "internal.h"

XXH128_hash_t warm_tree_key(XXH128_hash_t parent, const int32_t *tokens, uint32_t n) {
        struct {
                XXH128_hash_t parent;
                int32_t tokens[WARM_BLOCK_TOKENS];
        } input;

        assert(n >= 1 && n <= WARM_BLOCK_TOKENS);
        input.parent = parent;
        memcpy(input.tokens, tokens, n * sizeof(*tokens));
        return XXH3_128bits_withSeed(&input, sizeof(input.parent) + n * sizeof(*tokens),
                                     parent.low64 ^ n);
}

XXH128_hash_t warm_tree_parent_key(const struct warm_cache *c, uint32_t slot, uint32_t parent_ref) {
        return parent_ref == NONE ? c->uids[slot].key : c->blocks[parent_ref].key;
}

uint32_t *warm_tree_children(struct warm_cache *c, uint32_t slot, uint32_t parent_ref) {
        return parent_ref == NONE ? &c->uids[slot].root : &c->blocks[parent_ref].child_root;
}

uint32_t warm_tree_parent(const struct warm_cache *c, uint32_t ref) {
        uint32_t parent = c->records[ref].parent;

        return parent == WARM_RECORD_NONE ? NONE : c->base[c->primary] + parent;
}

/* The block of group g that belongs to an entry, or NONE. */
uint32_t warm_tree_block(const struct warm_cache *c, uint32_t g, uint32_t entry_ref) {
        return g == c->primary ? entry_ref : c->side[g][entry_ref - c->base[c->primary]];
}

static bool is_child(const struct warm_cache *c, uint32_t ref, uint32_t slot, uint32_t parent_ref) {
        const struct warm_record *r = &c->records[ref];

        if (r->uid != c->uids[slot].uid)
                return false;
        if (parent_ref == NONE)
                return r->parent == WARM_RECORD_NONE;
        return r->parent == parent_ref - c->base[c->primary] &&
               r->parent_generation == c->records[parent_ref].generation;
}

uint32_t warm_tree_find_full(const struct warm_cache *c, uint32_t slot, uint32_t parent_ref,
                             XXH128_hash_t key, const int32_t *tokens) {
        uint32_t at = NONE, ref;

        while ((ref = warm_index_next(&c->index, key.low64, &at)) != NONE) {
                const struct warm_record *r = &c->records[ref];

                if (is_child(c, ref, slot, parent_ref) && r->n_ready == WARM_BLOCK_TOKENS &&
                    memcmp(r->tokens, tokens, sizeof(r->tokens)) == 0)
                        return ref;
        }
        return NONE;
}

void warm_tree_before_change(struct warm_cache *c, uint32_t ref) {
        struct warm_block *b = &c->blocks[ref];
        struct warm_record *r = &c->records[ref];
        uint32_t *root = warm_tree_children(c, b->uid_slot, warm_tree_parent(c, ref));
        struct warm_neighbour twin, after;

        assert(b->place == WARM_PLACE_LINKED && b->child_root == NONE);
        warm_order_sibling_remove(c, root, ref);
        if (r->n_ready < WARM_BLOCK_TOKENS || !warm_index_remove(&c->index, b->key.low64, ref))
                return;
        /* Its twin, if any, is found by the key from now on. */
        warm_order_neighbours(c, *root, r->tokens, r->n_ready, &twin, &after);
        if (twin.common == WARM_BLOCK_TOKENS)
                warm_index_insert(&c->index, b->key.low64, twin.ref);
}

void warm_tree_after_change(struct warm_cache *c, uint32_t ref) {
        struct warm_block *b = &c->blocks[ref];
        struct warm_record *r = &c->records[ref];
        uint32_t parent = warm_tree_parent(c, ref);

        assert(b->place == WARM_PLACE_LINKED && b->child_root == NONE);
        assert(r->n_ready >= 1 && r->n_ready <= WARM_BLOCK_TOKENS);
        warm_order_sibling_insert(c, warm_tree_children(c, b->uid_slot, parent), ref);
        if (r->n_ready < WARM_BLOCK_TOKENS)
                return;
        b->key = c->key(warm_tree_parent_key(c, b->uid_slot, parent), r->tokens, r->n_ready);
        /* Of twins only one needs to be found by its key. */
        if (warm_tree_find_full(c, b->uid_slot, parent, b->key, r->tokens) == NONE)
                warm_index_insert(&c->index, b->key.low64, ref);
}

void warm_tree_link(struct warm_cache *c, uint32_t ref, uint32_t parent_ref) {
        struct warm_record *r = &c->records[ref];
        struct warm_block *b = &c->blocks[ref];

        assert(b->place == WARM_PLACE_HELD);
        assert(parent_ref == NONE || (c->blocks[parent_ref].place == WARM_PLACE_LINKED &&
                                      c->records[parent_ref].n_ready == WARM_BLOCK_TOKENS));
        r->parent = parent_ref == NONE ? WARM_RECORD_NONE : parent_ref - c->base[c->primary];
        r->parent_generation = parent_ref == NONE ? 0 : c->records[parent_ref].generation;
        b->place = WARM_PLACE_LINKED;
        b->n_pins = 1;
        b->depth = parent_ref == NONE ? 0 : c->blocks[parent_ref].depth + 1;
        warm_tree_after_change(c, ref);
}

void warm_tree_attach(struct warm_cache *c, uint32_t g, uint32_t ref, uint32_t entry_ref) {
        struct warm_record *r = &c->records[ref];
        struct warm_block *b = &c->blocks[ref];
        uint32_t entry = entry_ref - c->base[c->primary];

        assert(g != c->primary && b->place == WARM_PLACE_HELD);
        assert(c->side[g][entry] == NONE);
        r->parent = entry;
        r->parent_generation = c->records[entry_ref].generation;
        b->place = WARM_PLACE_LINKED;
        b->n_pins = 1;
        b->owner = entry_ref;
        b->depth = c->blocks[entry_ref].depth;
        c->side[g][entry] = ref;
        c->stats.n_snapshots += warm_cache_is_state(c, g);
}

/* LINKED -> HELD: which counts as pinned. */
static void to_held(struct warm_cache *c, uint32_t g, uint32_t ref) {
        struct warm_block *b = &c->blocks[ref];
        bool was = warm_pool_busy(c, ref);

        assert(b->n_holds == 0 && b->n_pins <= 1);
        b->place = WARM_PLACE_HELD;
        b->n_pins = 0;
        warm_pool_age(c, ref);
        b->owner = NONE;
        if (!was)
                c->uids[b->uid_slot].n_pinned[g]++;
        warm_record_reset(&c->records[ref]);
        c->records[ref].group = g;
        c->records[ref].uid = c->uids[b->uid_slot].uid;
        c->records[ref].generation++;
}

void warm_tree_unlink(struct warm_cache *c, uint32_t ref) {
        warm_tree_before_change(c, ref);
        to_held(c, c->primary, ref);
}

void warm_tree_detach(struct warm_cache *c, uint32_t g, uint32_t ref) {
        uint32_t entry = c->blocks[ref].owner - c->base[c->primary];

        assert(c->side[g][entry] == ref);
        c->side[g][entry] = NONE;
        c->stats.n_snapshots -= warm_cache_is_state(c, g);
        to_held(c, g, ref);
}

static void remember(struct warm_cache *c, XXH128_hash_t key) {
        c->ghosts[key.low64 % WARM_CACHE_GHOSTS_MAX] = key.high64;
}

/* All its tokens, and its first one: a prompt that ends or differs inside the block had use for less of it. */
void warm_tree_ghost_add(struct warm_cache *c, uint32_t ref) {
        const struct warm_record *r = &c->records[ref];
        XXH128_hash_t parent =
                warm_tree_parent_key(c, c->blocks[ref].uid_slot, warm_tree_parent(c, ref));

        remember(c, c->key(parent, r->tokens, r->n_ready));
        remember(c, c->key(parent, r->tokens, 1));
}

/* An evicted tail may have had any length: all that would have helped are tried, the likeliest first. */
bool warm_tree_ghost_has(const struct warm_cache *c, XXH128_hash_t parent, const int32_t *tokens,
                         uint32_t n_min, uint32_t n) {
        for (uint32_t k = n; k >= n_min && k > 0; k--) {
                XXH128_hash_t key = c->key(parent, tokens, k);

                if (key.high64 != 0 && c->ghosts[key.low64 % WARM_CACHE_GHOSTS_MAX] == key.high64)
                        return true;
        }
        return false;
}
