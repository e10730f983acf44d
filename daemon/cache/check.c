/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every invariant of the cache, held against the records. O(blocks x log): for tests.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* What is counted afresh, to be compared with what the cache believes. */
struct tally {
        uint32_t *n_pins, *n_holds, *n_ordered, *n_aged; /* [all blocks] */
        uint32_t n_used[WARM_CACHE_UIDS_MAX][WARM_PLAN_GROUPS_MAX];
        uint32_t n_pinned[WARM_CACHE_UIDS_MAX][WARM_PLAN_GROUPS_MAX];
        uint32_t n_sequences[WARM_CACHE_UIDS_MAX];
};

static void count_copies(const struct warm_cache *c, const struct warm_sequence *s,
                         struct tally *t) {
        for (uint32_t k = 0; k < s->public.n_copies; k++) {
                uint32_t g = s->public.copies[k].group;

                assert(!warm_cache_is_state(c, g));
                t->n_holds[s->copy_refs[k]]++;
                assert(s->public.copies[k].source == s->copy_refs[k] - c->base[g]);
                assert(s->public.copies[k].target == s->public.blocks[g][s->n_linked]);
                assert(s->public.copies[k].target != s->public.copies[k].source);
        }
}

static void check_states(const struct warm_cache *c, const struct warm_sequence *s,
                         struct tally *t) {
        const struct warm_cache_sequence *p = &s->public;

        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t ref = c->base[g] + p->state_in[g];

                if (!warm_cache_is_state(c, g) || p->n_tokens == 0) {
                        assert(p->state_in[g] == NONE);
                        continue;
                }
                assert(p->state_in[g] != NONE);
                if (p->state_in[g] == p->blocks[g][0])
                        continue;
                assert(c->blocks[ref].place == WARM_PLACE_LINKED);
                assert(p->n_tokens == s->n_linked * WARM_BLOCK_TOKENS);
                assert(c->blocks[ref].owner == warm_table_ref(s, c->primary, s->n_linked - 1));
                t->n_holds[ref]++;
        }
}

static void check_sequence(const struct warm_cache *c, const struct warm_sequence *s,
                           struct tally *t) {
        const struct warm_cache_sequence *p = &s->public;
        bool pending = warm_blocks_for(p->n_tokens) > s->n_linked;

        assert(p->cache == c && c->uids[s->uid_slot].uid == p->uid);
        assert(p->n_tokens <= p->n_tokens_max);
        assert(s->n_linked <= warm_blocks_for(p->n_tokens));
        assert(s->n_linked + 1 >= warm_blocks_for(p->n_tokens));
        assert(!pending || p->n_copies > 0);
        t->n_sequences[s->uid_slot]++;
        count_copies(c, s, t);
        check_states(c, s, t);
        for (uint32_t i = 0; i < warm_blocks_for(p->n_tokens_max); i++) {
                uint32_t entry = warm_table_ref(s, c->primary, i);

                for (uint32_t g = 0; g < c->config.n_groups; g++) {
                        uint32_t ref = warm_table_ref(s, g, i);

                        if (warm_cache_is_state(c, g)) {
                                assert((ref != NONE) == (i == 0));
                        } else if (i < s->n_linked) {
                                assert((ref == NONE) == (i < s->first[g]));
                                if (ref == NONE)
                                        continue;
                                t->n_pins[ref]++;
                                assert(c->blocks[ref].place == WARM_PLACE_LINKED);
                                assert(g == c->primary || c->blocks[ref].owner == entry);
                                continue;
                        }
                        if (ref != NONE)
                                assert(c->blocks[ref].place == WARM_PLACE_HELD);
                        assert(warm_cache_is_state(c, g) || ref != NONE);
                }
                if (i >= s->n_linked)
                        continue;
                assert(memcmp(c->records[entry].tokens, p->tokens + i * WARM_BLOCK_TOKENS,
                              (i + 1 < s->n_linked || p->n_tokens % WARM_BLOCK_TOKENS == 0 ||
                                               pending
                                       ? WARM_BLOCK_TOKENS
                                       : p->n_tokens % WARM_BLOCK_TOKENS) *
                                      sizeof(int32_t)) == 0);
                if (i > 0)
                        assert(warm_tree_parent(c, entry) == warm_table_ref(s, c->primary, i - 1));
        }
}

static uint32_t count_order(const struct warm_cache *c, uint32_t root, bool age, uint32_t *n_seen) {
        const struct warm_links *l;

        if (root == NONE)
                return 0;
        l = age ? &c->blocks[root].age : &c->blocks[root].sibling;
        n_seen[root]++;
        return 1 + count_order(c, l->left, age, n_seen) + count_order(c, l->right, age, n_seen);
}

static void check_entry(const struct warm_cache *c, uint32_t ref) {
        const struct warm_block *b = &c->blocks[ref];
        const struct warm_record *r = &c->records[ref];
        uint32_t parent = warm_tree_parent(c, ref);

        assert(r->n_ready >= 1 && r->n_ready <= WARM_BLOCK_TOKENS);
        assert(r->n_ready == WARM_BLOCK_TOKENS || (b->child_root == NONE && b->n_pins <= 1));
        for (uint32_t i = r->n_ready; i < WARM_BLOCK_TOKENS; i++)
                assert(r->tokens[i] == 0);
        if (parent != NONE) {
                assert(c->blocks[parent].place == WARM_PLACE_LINKED);
                assert(c->records[parent].generation == r->parent_generation);
                assert(c->records[parent].n_ready == WARM_BLOCK_TOKENS);
                assert(c->records[parent].uid == r->uid);
                assert(c->blocks[parent].depth + 1 == b->depth);
                assert(!warm_pool_busy(c, ref) || warm_pool_busy(c, parent));
        }
        if (r->n_ready == WARM_BLOCK_TOKENS) {
                XXH128_hash_t key =
                        c->key(warm_tree_parent_key(c, b->uid_slot, parent), r->tokens, r->n_ready);

                assert(XXH128_isEqual(key, b->key));
                assert(warm_tree_find_full(c, b->uid_slot, parent, key, r->tokens) != NONE);
        }
}

static void check_side(const struct warm_cache *c, uint32_t g, uint32_t ref) {
        const struct warm_block *b = &c->blocks[ref];
        const struct warm_record *r = &c->records[ref], *entry = &c->records[b->owner];

        assert(c->side[g][b->owner - c->base[c->primary]] == ref);
        assert(c->blocks[b->owner].place == WARM_PLACE_LINKED);
        assert(r->parent == b->owner - c->base[c->primary]);
        assert(r->parent_generation == entry->generation && r->uid == entry->uid);
        assert(r->n_ready >= 1 && r->n_ready <= entry->n_ready);
        assert(r->n_ready == WARM_BLOCK_TOKENS || !warm_cache_is_state(c, g));
        assert(!warm_pool_busy(c, ref) || warm_pool_busy(c, b->owner));
}

static void check_block(const struct warm_cache *c, uint32_t g, uint32_t ref, struct tally *t) {
        const struct warm_block *b = &c->blocks[ref];
        const struct warm_record *r = &c->records[ref];
        bool linked = b->place == WARM_PLACE_LINKED;

        assert(b->n_pins == t->n_pins[ref] && b->n_holds == t->n_holds[ref]);
        assert(t->n_aged[ref] == b->aged);
        assert(b->aged == (linked && !warm_pool_busy(c, ref) && b->child_root == NONE));
        assert(t->n_ordered[ref] == (linked && g == c->primary));
        if (b->place == WARM_PLACE_ABSENT || b->place == WARM_PLACE_FREE) {
                /* The record of an adopted block without memory is read by nobody. */
                assert((c->adopted && b->place == WARM_PLACE_ABSENT) ||
                       (r->state == WARM_RECORD_FREE && r->n_ready == 0));
                return;
        }
        assert(r->group == g && r->uid == c->uids[b->uid_slot].uid && r->generation > 0);
        t->n_used[b->uid_slot][g]++;
        t->n_pinned[b->uid_slot][g] += warm_pool_busy(c, ref);
        if (!linked)
                return;
        assert(r->state == WARM_RECORD_READY || (r->state == WARM_RECORD_WRITING && b->n_pins));
        if (g == c->primary)
                check_entry(c, ref);
        else
                check_side(c, g, ref);
}

static void check_orders(const struct warm_cache *c, struct tally *t) {
        for (uint32_t i = 0; i < c->n_uids; i++) {
                if (!c->uids[i].used)
                        continue;
                count_order(c, c->uids[i].root, false, t->n_ordered);
                for (uint32_t g = 0; g < c->config.n_groups; g++)
                        count_order(c, c->uids[i].age_root[g], true, t->n_aged);
        }
        for (uint32_t ref = c->base[c->primary]; ref < c->base[c->primary + 1]; ref++)
                if (c->blocks[ref].place == WARM_PLACE_LINKED)
                        count_order(c, c->blocks[ref].child_root, false, t->n_ordered);
}

static void check_index(const struct warm_cache *c) {
        uint32_t n = 0;

        for (uint64_t i = 0; i <= c->index.mask; i++) {
                uint32_t ref = c->index.slots[i].ref;

                if (ref == NONE)
                        continue;
                n++;
                assert(c->blocks[ref].place == WARM_PLACE_LINKED);
                assert(c->records[ref].n_ready == WARM_BLOCK_TOKENS);
                assert(c->index.slots[i].tag == (uint32_t) c->blocks[ref].key.low64);
                assert(warm_tree_find_full(c, c->blocks[ref].uid_slot, warm_tree_parent(c, ref),
                                           c->blocks[ref].key, c->records[ref].tokens) == ref);
        }
        assert(n == c->index.n);
}

static void check_unsummed(const struct warm_cache *c) {
        uint32_t n_refs = c->base[c->config.n_groups], n = 0;

        for (uint32_t i = 0; i < c->n_unsummed; i++)
                assert(c->blocks[c->unsummed[(c->first_unsummed + i) % n_refs]].queued);
        for (uint32_t ref = 0; ref < n_refs; ref++)
                n += c->blocks[ref].queued;
        assert(n == c->n_unsummed);
}

static void check_snapshots(const struct warm_cache *c) {
        uint64_t n = 0;

        for (uint32_t g = 0; g < c->config.n_groups; g++)
                for (uint32_t ref = c->base[g]; ref < c->base[g + 1]; ref++)
                        n += warm_cache_is_state(c, g) && c->blocks[ref].place == WARM_PLACE_LINKED;
        assert(n == c->stats.n_snapshots);
}

static void check_counts(const struct warm_cache *c, const struct tally *t) {
        for (uint32_t i = 0; i < c->n_uids; i++) {
                const struct warm_cache_uid *u = &c->uids[i];

                if (!u->used)
                        continue;
                assert(u->n_sequences == t->n_sequences[i]);
                for (uint32_t g = 0; g < c->config.n_groups; g++) {
                        assert(u->n_used[g] == t->n_used[i][g]);
                        assert(u->n_pinned[g] == t->n_pinned[i][g]);
                }
        }
        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t n_free = 0, n_added = 0;

                for (uint32_t ref = c->free_head[g]; ref != NONE;
                     ref = c->blocks[ref].sibling.right)
                        n_free++;
                for (uint32_t ref = c->base[g]; ref < c->base[g + 1]; ref++)
                        n_added += c->blocks[ref].place != WARM_PLACE_ABSENT;
                assert(n_free == c->n_free[g] && n_added == c->n_added[g]);
                for (uint32_t i = 0; i < c->n_uids; i++)
                        n_added -= c->uids[i].used ? t->n_used[i][g] : 0;
                assert(n_added == n_free);
        }
}

void warm_cache_check(const struct warm_cache *c) {
        uint32_t n = c->base[c->config.n_groups];
        struct tally *t = calloc(1, sizeof(*t));
        uint32_t *counts = calloc((size_t) n * 4, sizeof(*counts));

        assert(t && counts);
        t->n_pins = counts;
        t->n_holds = counts + n;
        t->n_ordered = counts + 2 * (size_t) n;
        t->n_aged = counts + 3 * (size_t) n;
        for (const struct warm_sequence *s = c->sequences; s; s = s->next)
                check_sequence(c, s, t);
        check_orders(c, t);
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                for (uint32_t ref = c->base[g]; ref < c->base[g + 1]; ref++)
                        check_block(c, g, ref, t);
        check_index(c);
        check_snapshots(c);
        check_unsummed(c);
        check_counts(c, t);
        free(counts);
        free(t);
}
