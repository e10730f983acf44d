/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences begin and end here: open, fork, close.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "shm/range.h"

static void insert(struct warm_cache *c, struct warm_sequence *s) {
        s->next = c->sequences;
        if (s->next)
                s->next->previous = s;
        c->sequences = s;
        c->uids[s->uid_slot].n_sequences++;
        c->stats.n_sequences++;
}

static void unlist(struct warm_cache *c, struct warm_sequence *s) {
        if (s->previous)
                s->previous->next = s->next;
        else
                c->sequences = s->next;
        if (s->next)
                s->next->previous = s->previous;
        c->uids[s->uid_slot].n_sequences--;
        c->stats.n_sequences--;
}

/* One allocation: the struct, a table for each group, the tokens. */
static struct warm_sequence *sequence_new(struct warm_cache *c, uint32_t slot,
                                          uint32_t n_tokens_max) {
        uint32_t n_blocks = warm_blocks_for(n_tokens_max), n_groups = c->config.n_groups;
        uint64_t bytes, tables, tokens;
        struct warm_sequence *s;
        uint32_t *at;

        if (!warm_range_mul((uint64_t) n_blocks * n_groups, sizeof(uint32_t), &tables) ||
            !warm_range_mul(n_tokens_max, sizeof(int32_t), &tokens) ||
            !warm_range_add(tables, tokens, &bytes) || !warm_range_add(bytes, sizeof(*s), &bytes) ||
            bytes > SIZE_MAX)
                return NULL;
        s = malloc((size_t) bytes);
        if (!s)
                return NULL;
        *s = (struct warm_sequence){
                .uid_slot = (uint16_t) slot,
                .public = {
                        .cache = c,
                        .uid = c->uids[slot].uid,
                        .n_tokens_max = n_tokens_max,
                        .n_blocks = n_blocks,
                },
        };
        at = (uint32_t *) (s + 1);
        memset(at, 0xff, (size_t) tables);
        memset(s->public.state_in, 0xff, sizeof(s->public.state_in));
        for (uint32_t g = 0; g < n_groups; g++, at += n_blocks)
                s->public.blocks[g] = at;
        s->public.tokens = (int32_t *) at;
        return s;
}

/* The longest length at which the sequence also finds room: a part that would need a copy may have to go. */
static bool find_room(struct warm_cache *c, uint32_t slot, uint32_t n_tokens_max,
                      uint32_t *n_tokens) {
        while (!warm_table_fits(c, slot, c->path, *n_tokens, n_tokens_max)) {
                if (*n_tokens == 0)
                        return false;
                *n_tokens = (*n_tokens - 1) / WARM_BLOCK_TOKENS * WARM_BLOCK_TOKENS;
                *n_tokens = warm_cache_resume(c, c->path, *n_tokens);
        }
        return true;
}

static void start(struct warm_sequence *s, const int32_t *tokens, uint32_t n_tokens) {
        struct warm_cache *c = s->public.cache;

        c->clock++;
        insert(c, s);
        if (n_tokens > 0)
                memcpy(s->public.tokens, tokens, n_tokens * sizeof(*tokens));
        warm_table_fill(s, c->path, n_tokens);
}

static void count_lookup(struct warm_cache *c, const struct warm_cache_hit *hit,
                         uint32_t n_tokens) {
        c->stats.n_lookups++;
        c->stats.n_prompt_tokens += n_tokens;
        c->stats.n_hit_tokens += hit->n_tokens;
        c->stats.n_by_miss[hit->miss]++;
}

int warm_cache_open(struct warm_cache *c, uid_t uid, const int32_t *tokens, uint32_t n_tokens,
                    uint32_t n_tokens_max, struct warm_cache_sequence **ret_sequence,
                    struct warm_cache_hit *ret_hit) {
        struct warm_cache_hit hit;
        struct warm_sequence *s;
        struct warm_find find;
        int slot, r;

        assert(n_tokens >= 1 && n_tokens <= n_tokens_max);
        assert(uid != (uid_t) -1 && !c->adopting);
        warm_find(c, uid, tokens, n_tokens - 1, &find);
        slot = warm_pool_uid_get(c, uid);
        if (slot < 0)
                return WARM_CACHE_E_FULL;
        hit = (struct warm_cache_hit){ .n_tokens = find.n_tokens, .miss = find.miss };
        r = WARM_CACHE_E_FULL;
        if (!find_room(c, (uint32_t) slot, n_tokens_max, &hit.n_tokens))
                goto fail;
        if (hit.n_tokens < find.n_tokens)
                hit.miss = WARM_MISS_EVICTED;
        hit.at = hit.n_tokens;
        r = -ENOMEM;
        s = sequence_new(c, (uint32_t) slot, n_tokens_max);
        if (!s)
                goto fail;
        start(s, tokens, hit.n_tokens);
        count_lookup(c, &hit, n_tokens);
        *ret_sequence = &s->public;
        *ret_hit = hit;
        return 0;
fail:
        warm_pool_uid_put(c, (uint32_t) slot);
        return r;
}

int warm_cache_fork(struct warm_cache_sequence *source, uint32_t n_tokens, uint32_t n_tokens_max,
                    struct warm_cache_sequence **ret_sequence) {
        struct warm_sequence *from = (struct warm_sequence *) source, *s;
        struct warm_cache *c = source->cache;

        assert(n_tokens <= source->n_tokens);
        assert(n_tokens <= n_tokens_max && n_tokens_max >= 1);
        warm_table_path(from, n_tokens, c->path);
        n_tokens = warm_cache_resume(c, c->path, n_tokens);
        if (!find_room(c, from->uid_slot, n_tokens_max, &n_tokens))
                return WARM_CACHE_E_FULL;
        s = sequence_new(c, from->uid_slot, n_tokens_max);
        if (!s)
                return -ENOMEM;
        start(s, source->tokens, n_tokens);
        *ret_sequence = &s->public;
        return 0;
}

/* Whether every group that has tokens of `entry` has at least as many of `other`; snapshots are not comparable. */
static bool covers(const struct warm_cache *c, uint32_t other, uint32_t entry) {
        uint32_t base = c->base[c->primary];

        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t mine, theirs;

                if (g == c->primary)
                        continue;
                mine = c->side[g][entry - base];
                theirs = c->side[g][other - base];
                if (mine == NONE)
                        continue;
                if (warm_cache_is_state(c, g) || theirs == NONE ||
                    c->records[theirs].n_ready < c->records[mine].n_ready)
                        return false;
        }
        return true;
}

static bool droppable(const struct warm_cache *c, uint32_t ref) {
        return !warm_pool_busy(c, ref) && c->blocks[ref].child_root == NONE;
}

/* A tail that another child of the same parent continues is of no use; nor is one that this one continues. */
static void prune(struct warm_cache *c, uint32_t ref) {
        uint32_t parent = warm_tree_parent(c, ref), slot = c->blocks[ref].uid_slot;
        uint32_t root = *warm_tree_children(c, slot, parent);
        uint32_t n = c->records[ref].n_ready;
        struct warm_neighbour before, after;

        if (n > 1) {
                warm_order_neighbours(c, root, c->records[ref].tokens, n - 1, &before, &after);
                if (before.ref != NONE && before.common == c->records[before.ref].n_ready &&
                    droppable(c, before.ref) && covers(c, ref, before.ref))
                        warm_pool_drop(c, before.ref);
                root = *warm_tree_children(c, slot, parent);
        }
        if (!droppable(c, ref))
                return;
        warm_order_neighbours(c, root, c->records[ref].tokens, n, &before, &after);
        if ((after.ref != NONE && after.common == n && covers(c, after.ref, ref)) ||
            (before.ref != ref && before.common == n && covers(c, before.ref, ref)))
                warm_pool_drop(c, ref);
}

struct warm_cache_sequence *warm_cache_close(struct warm_cache_sequence *public) {
        struct warm_sequence *s = (struct warm_sequence *) public;
        struct warm_cache *c;
        uint32_t tail;

        if (!s)
                return NULL;
        c = public->cache;
        if (s->n_begun > 0)
                warm_cache_rollback(public, public->n_tokens);
        c->clock++;
        tail = s->n_linked > 0 ? warm_table_ref(s, c->primary, s->n_linked - 1) : NONE;
        warm_table_close(s);
        if (tail != NONE && c->records[tail].n_ready < WARM_BLOCK_TOKENS)
                prune(c, tail);
        unlist(c, s);
        warm_pool_uid_put(c, s->uid_slot);
        free(s);
        return NULL;
}
