/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The longest known prefix of a prompt, and why it is not longer.
 *
 * Keys of a prompt's blocks depend on the prompt alone, so they are computed ahead in batches, and the index slots
 * and records they lead to are on their way before the walk compares them: at 10^6 blocks a lookup waits for
 * memory, and so it waits for many lines at once.
 */
#include <string.h>

#include "internal.h"

#define BATCH 16U

/* Compute the keys of the next n blocks and ask for the memory that comparing them will read. */
static void look_ahead(const struct warm_cache *c, XXH128_hash_t key, const int32_t *tokens,
                       uint32_t n, XXH128_hash_t *ret_keys) {
        for (uint32_t i = 0; i < n; i++) {
                key = c->key(key, tokens + i * WARM_BLOCK_TOKENS, WARM_BLOCK_TOKENS);
                ret_keys[i] = key;
                warm_index_prefetch(&c->index, key.low64);
        }
        for (uint32_t i = 0; i < n; i++) {
                uint32_t at = NONE, ref = warm_index_next(&c->index, ret_keys[i].low64, &at);
                const char *r;

                if (ref == NONE)
                        continue;
                r = (const char *) &c->records[ref];
                __builtin_prefetch(r);
                __builtin_prefetch(r + 64);
                __builtin_prefetch(r + 128);
        }
}

/* The child with the longest common prefix. Return: its ref or NONE. */
static uint32_t best_child(const struct warm_cache *c, uint32_t slot, uint32_t parent,
                           const int32_t *tokens, uint32_t n, uint32_t *ret_common,
                           bool *ret_differs) {
        uint32_t root = parent == NONE ? c->uids[slot].root : c->blocks[parent].child_root;
        struct warm_neighbour before, after, best;

        warm_order_neighbours(c, root, tokens, n, &before, &after);
        best = after.common > before.common ? after : before;
        *ret_common = best.common;
        *ret_differs = (before.ref != NONE && before.common == best.common &&
                        c->records[before.ref].n_ready > best.common) ||
                       (after.ref != NONE && after.common == best.common &&
                        c->records[after.ref].n_ready > best.common);
        return best.common > 0 ? best.ref : NONE;
}

/* Whether the block after these was here: its first n_common tokens still are. */
static bool was_evicted(const struct warm_cache *c, XXH128_hash_t parent, const int32_t *tokens,
                        uint32_t n_left, uint32_t n_common) {
        uint32_t n = n_left < WARM_BLOCK_TOKENS ? n_left : WARM_BLOCK_TOKENS;

        return warm_tree_ghost_has(c, parent, tokens, n_common + 1, n);
}

static enum warm_miss reason(const struct warm_cache *c, uint32_t slot, uint32_t parent,
                             const int32_t *tokens, uint32_t n_left, uint32_t n_common,
                             bool differs) {
        if (was_evicted(c, warm_tree_parent_key(c, slot, parent), tokens, n_left, n_common))
                return WARM_MISS_EVICTED;
        if (differs)
                return WARM_MISS_DIFFERENT;
        return parent == NONE && c->uids[slot].root == NONE ? WARM_MISS_NEW : WARM_MISS_SHORTER;
}

/* Match whole blocks into path. Return: how many; *ret_at is the last one or NONE. */
static uint32_t walk(const struct warm_cache *c, uint32_t slot, const int32_t *tokens,
                     uint32_t n_whole, uint32_t *ret_at) {
        XXH128_hash_t keys[BATCH], key = c->uids[slot].key;
        uint32_t at = NONE, n = 0;

        while (n < n_whole) {
                const int32_t *t = tokens + (uint64_t) n * WARM_BLOCK_TOKENS;
                uint32_t ref;

                if (n % BATCH == 0)
                        look_ahead(c, key, t, n_whole - n < BATCH ? n_whole - n : BATCH, keys);
                key = keys[n % BATCH];
                ref = warm_tree_find_full(c, slot, at, key, t);
                if (ref == NONE)
                        break;
                c->path[n++] = ref;
                at = ref;
        }
        *ret_at = at;
        return n;
}

void warm_find(const struct warm_cache *c, uid_t uid, const int32_t *tokens, uint32_t n_limit,
               struct warm_find *ret_find) {
        int slot = warm_pool_uid_find(c, uid);
        uint32_t n_whole, n_common = 0, n_left, at, child = NONE;
        bool differs = false;

        *ret_find = (struct warm_find){ .miss = n_limit == 0 ? WARM_MISS_NONE : WARM_MISS_NEW };
        if (n_limit == 0)
                return;
        if (slot < 0) {
                if (was_evicted(c, warm_pool_uid_key(c, uid), tokens, n_limit, 0))
                        ret_find->miss = WARM_MISS_EVICTED;
                return;
        }
        n_whole = walk(c, (uint32_t) slot, tokens, n_limit / WARM_BLOCK_TOKENS, &at);
        tokens += (uint64_t) n_whole * WARM_BLOCK_TOKENS;
        n_left = n_limit - n_whole * WARM_BLOCK_TOKENS;
        if (n_left > 0)
                child = best_child(c, (uint32_t) slot, at, tokens,
                                   n_left < WARM_BLOCK_TOKENS ? n_left : WARM_BLOCK_TOKENS,
                                   &n_common, &differs);
        if (child != NONE)
                c->path[n_whole] = child;
        ret_find->n_matched = n_whole * WARM_BLOCK_TOKENS + n_common;
        ret_find->n_tokens = warm_cache_resume(c, c->path, ret_find->n_matched);
        if (ret_find->n_tokens < ret_find->n_matched)
                ret_find->miss = WARM_MISS_GROUP;
        else if (n_common == n_left)
                ret_find->miss = WARM_MISS_NONE;
        else
                ret_find->miss = reason(c, (uint32_t) slot, at, tokens, n_left, n_common, differs);
}

void warm_cache_lookup(const struct warm_cache *c, uid_t uid, const int32_t *tokens,
                       uint32_t n_tokens, struct warm_cache_hit *ret_hit) {
        struct warm_find find;

        assert(n_tokens >= 1);
        assert(!c->adopting);
        warm_find(c, uid, tokens, n_tokens - 1, &find);
        *ret_hit = (struct warm_cache_hit){
                .n_tokens = find.n_tokens,
                .miss = find.miss,
                .at = find.n_tokens,
        };
}

bool warm_cache_holds(const struct warm_cache *c, uid_t uid) {
        int slot = warm_pool_uid_find(c, uid);

        return slot >= 0 && c->uids[slot].root != NONE;
}

const char *warm_miss_name(enum warm_miss m) {
        static const char *const names[_WARM_MISS_N] = {
                [WARM_MISS_NONE] = "none",           [WARM_MISS_NEW] = "new",
                [WARM_MISS_DIFFERENT] = "different", [WARM_MISS_SHORTER] = "shorter",
                [WARM_MISS_EVICTED] = "evicted",     [WARM_MISS_MODEL] = "model",
                [WARM_MISS_GROUP] = "group",
        };

        assert((unsigned) m < _WARM_MISS_N);
        return names[m];
}
