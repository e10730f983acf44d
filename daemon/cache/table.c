/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence's block table: for each group the blocks of its slots, in three stretches. Entries [0, n_linked) are in
 * the tree and pinned (of a window group only from first[g] on); the rest is HELD: reserved at admission, so that
 * decoding never waits for a block. A state group has one HELD block at index 0: it takes the state of the next step.
 * Until that step is committed the state before it may lie in a snapshot, which is held as a copy's source is.
 *
 * A pending copy has its target HELD, and its source held, until the step that runs it is committed: nobody
 * shares what no device has written yet.
 */
#include <string.h>

#include "internal.h"

uint32_t warm_table_ref(const struct warm_sequence *s, uint32_t g, uint32_t i) {
        uint32_t block = s->public.blocks[g][i];

        assert(i < s->public.n_blocks);
        return block == NONE ? NONE : s->public.cache->base[g] + block;
}

static void set(struct warm_sequence *s, uint32_t g, uint32_t i, uint32_t ref) {
        assert(i < s->public.n_blocks);
        s->public.blocks[g][i] = ref == NONE ? NONE : ref - s->public.cache->base[g];
}

void warm_table_path(const struct warm_sequence *s, uint32_t n, uint32_t *path) {
        const struct warm_cache *c = s->public.cache;
        uint32_t n_entries = warm_blocks_for(n);

        assert(n <= s->public.n_tokens);
        for (uint32_t i = 0; i < n_entries && i < s->n_linked; i++)
                path[i] = warm_table_ref(s, c->primary, i);
        for (uint32_t k = 0; k < s->public.n_copies && n_entries > s->n_linked; k++)
                if (s->public.copies[k].group == c->primary)
                        path[s->n_linked] = s->copy_refs[k];
}

/* Whether a new sequence may append to this entry itself: it ends exactly here and nobody runs on it. */
static bool takes_over(const struct warm_cache *c, uint32_t ref, uint32_t n_part) {
        return n_part > 0 && c->records[ref].n_ready == n_part && c->blocks[ref].n_pins == 0;
}

static bool group_fits(const struct warm_cache *c, uint32_t slot, const uint32_t *path, uint32_t n,
                       uint32_t n_tokens_max, uint32_t g) {
        uint32_t n_whole = n / WARM_BLOCK_TOKENS, n_part = n % WARM_BLOCK_TOKENS;
        uint64_t available = warm_pool_available(c, slot, g), need;
        uint32_t first = warm_cache_first_needed(c, g, n), last = warm_blocks_for(n);

        if (warm_cache_is_state(c, g)) {
                need = 1;
                first = last > 0 ? last - 1 : 0;
        } else {
                need = warm_blocks_for(n_tokens_max) - n_whole;
                if (n_part > 0 && takes_over(c, path[n_whole], n_part))
                        need--;
        }
        /* What gets pinned or held here is no longer to be evicted. */
        for (uint32_t i = first; i < last; i++)
                need += !warm_pool_busy(c, warm_tree_block(c, g, path[i]));
        return need <= available;
}

bool warm_table_fits(const struct warm_cache *c, uint32_t slot, const uint32_t *path, uint32_t n,
                     uint32_t n_tokens_max) {
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                if (!group_fits(c, slot, path, n, n_tokens_max, g))
                        return false;
        return true;
}

/* Hold a block until its copy has run; the target is filled in when it is there. */
static void add_copy(struct warm_sequence *s, uint32_t g, uint32_t source) {
        struct warm_cache *c = s->public.cache;
        uint32_t k = s->public.n_copies++;

        assert(k < WARM_CACHE_COPIES_MAX);
        warm_pool_hold(c, source);
        s->copy_refs[k] = source;
        s->public.copies[k] = (struct warm_block_copy){ g, source - c->base[g], NONE };
}

static void aim_copies(struct warm_sequence *s, uint32_t i) {
        for (uint32_t k = 0; k < s->public.n_copies; k++) {
                s->public.copies[k].target = s->public.blocks[s->public.copies[k].group][i];
                assert(s->public.copies[k].target != NONE);
        }
}

void warm_table_set_state(struct warm_sequence *s, uint32_t g, uint32_t ref) {
        struct warm_cache *c = s->public.cache;
        uint32_t before = s->public.state_in[g];

        assert(warm_cache_is_state(c, g));
        if (ref != NONE && c->blocks[ref].place == WARM_PLACE_LINKED)
                warm_pool_hold(c, ref);
        if (before != NONE && c->blocks[c->base[g] + before].place == WARM_PLACE_LINKED)
                warm_pool_release(c, c->base[g] + before);
        s->public.state_in[g] = ref == NONE ? NONE : ref - c->base[g];
}

/* Go on from the snapshots at n tokens, or from nothing at 0. */
static void set_states(struct warm_sequence *s, const uint32_t *path, uint32_t n) {
        struct warm_cache *c = s->public.cache;

        for (uint32_t g = 0; g < c->config.n_groups; g++)
                if (warm_cache_is_state(c, g))
                        warm_table_set_state(
                                s, g,
                                n > 0 ? warm_tree_block(c, g, path[warm_blocks_for(n) - 1]) : NONE);
}

void warm_table_drop_copies(struct warm_sequence *s) {
        for (uint32_t k = 0; k < s->public.n_copies; k++)
                warm_pool_release(s->public.cache, s->copy_refs[k]);
        s->public.n_copies = 0;
}

/* Pin what the sequence goes on from, and hold what it copies. */
static void pin_path(struct warm_sequence *s, uint32_t g, const uint32_t *path, uint32_t n,
                     bool take) {
        struct warm_cache *c = s->public.cache;
        uint32_t n_whole = n / WARM_BLOCK_TOKENS, n_part = n % WARM_BLOCK_TOKENS;

        s->first[g] = warm_cache_first_needed(c, g, n);
        for (uint32_t i = s->first[g]; i < n_whole + take; i++) {
                warm_pool_pin(c, warm_tree_block(c, g, path[i]));
                set(s, g, i, warm_tree_block(c, g, path[i]));
        }
        if (n_part > 0 && !take)
                add_copy(s, g, warm_tree_block(c, g, path[n_whole]));
}

void warm_table_fill(struct warm_sequence *s, const uint32_t *path, uint32_t n) {
        struct warm_cache *c = s->public.cache;
        uint32_t n_whole = n / WARM_BLOCK_TOKENS, n_part = n % WARM_BLOCK_TOKENS;
        bool take = n_part > 0 && takes_over(c, path[n_whole], n_part);

        assert(s->public.n_copies == 0 && s->n_linked == 0);
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                if (!warm_cache_is_state(c, g))
                        pin_path(s, g, path, n, take);
        set_states(s, path, n);
        s->n_linked = n_whole + take;
        s->public.n_tokens = n;
        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                bool state = warm_cache_is_state(c, g);
                uint32_t end = state ? 1 : s->public.n_blocks;

                for (uint32_t i = state ? 0 : s->n_linked; i < end; i++) {
                        uint32_t ref = warm_pool_take(c, s->uid_slot, g);

                        assert(ref != NONE); /* warm_table_fits said so */
                        set(s, g, i, ref);
                }
        }
        aim_copies(s, s->n_linked);
}

/* Give up entry i, the last one in the tree. Alone on it: its blocks are ours again. Else others keep them. */
static void cut_entry(struct warm_sequence *s, uint32_t i) {
        struct warm_cache *c = s->public.cache;
        uint32_t entry = warm_table_ref(s, c->primary, i);
        const struct warm_block *b = &c->blocks[entry];
        bool alone = b->n_pins == 1 && b->n_holds == 0 && b->child_root == NONE;
        uint32_t parent = warm_tree_parent(c, entry);

        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t ref = warm_tree_block(c, g, entry);

                if (g == c->primary || ref == NONE)
                        continue;
                if (alone && warm_cache_is_state(c, g)) {
                        warm_pool_drop(c, ref);
                } else if (alone) {
                        warm_tree_detach(c, g, ref);
                        set(s, g, i, ref);
                } else if (!warm_cache_is_state(c, g)) {
                        if (i >= s->first[g])
                                warm_pool_unpin(c, ref);
                        set(s, g, i, NONE);
                }
        }
        if (alone) {
                warm_tree_unlink(c, entry);
                if (parent != NONE)
                        warm_pool_age(c, parent);
        } else {
                warm_pool_unpin(c, entry);
                set(s, c->primary, i, NONE);
        }
        s->n_linked = i;
}

/* Entry i keeps its first n_part tokens only. The sequence is alone on it. */
static void shorten_entry(struct warm_sequence *s, uint32_t i, uint32_t n_part) {
        struct warm_cache *c = s->public.cache;
        uint32_t entry = warm_table_ref(s, c->primary, i);
        struct warm_record *r = &c->records[entry];

        warm_tree_before_change(c, entry);
        memset(r->tokens + n_part, 0, (WARM_BLOCK_TOKENS - n_part) * sizeof(r->tokens[0]));
        r->n_ready = n_part;
        r->sum = 0;
        warm_tree_after_change(c, entry);
        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t ref = g != c->primary ? warm_tree_block(c, g, entry) : NONE;

                if (ref == NONE || c->records[ref].n_ready <= n_part)
                        continue;
                assert(!warm_cache_is_state(c, g)); /* it resumes at whole blocks only */
                c->records[ref].n_ready = n_part;
                c->records[ref].sum = 0;
        }
        s->n_linked = i + 1;
}

/* Blocks for the slots that a cut left without. Return: tokens the table now has room for. */
static uint32_t refill(struct warm_sequence *s) {
        struct warm_cache *c = s->public.cache;
        uint32_t n_end = s->public.n_blocks;

        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                if (warm_cache_is_state(c, g))
                        continue;
                for (uint32_t i = s->n_linked; i < n_end; i++) {
                        if (s->public.blocks[g][i] != NONE)
                                continue;
                        set(s, g, i, warm_pool_take(c, s->uid_slot, g));
                        if (s->public.blocks[g][i] == NONE)
                                n_end = i;
                }
        }
        return n_end * WARM_BLOCK_TOKENS;
}

/* Window blocks that were dropped behind a longer text and are needed again: resume said they are there. */
static void repin_window(struct warm_sequence *s, uint32_t n) {
        struct warm_cache *c = s->public.cache;

        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t first = warm_cache_first_needed(c, g, n);

                if (warm_cache_is_state(c, g) || first >= s->first[g])
                        continue;
                for (uint32_t i = first; i < s->first[g] && i < s->n_linked; i++) {
                        uint32_t ref = warm_tree_block(c, g, warm_table_ref(s, c->primary, i));

                        warm_pool_pin(c, ref);
                        set(s, g, i, ref);
                }
                s->first[g] = first;
        }
}

void warm_table_cut(struct warm_sequence *s, uint32_t n) {
        struct warm_cache *c = s->public.cache;
        uint32_t n_whole, n_part, room, *path = c->path;
        bool pending = warm_blocks_for(s->public.n_tokens) > s->n_linked, alone;

        assert(n <= s->public.n_tokens);
        warm_table_path(s, s->public.n_tokens, path);
        n = warm_cache_resume(c, path, n);
        n_whole = n / WARM_BLOCK_TOKENS;
        n_part = n % WARM_BLOCK_TOKENS;
        if (pending && n_whole == s->n_linked && n_part > 0) {
                s->public.n_tokens = n; /* the copy stands; fewer of its tokens count */
                repin_window(s, n);
                return;
        }
        warm_table_drop_copies(s);
        set_states(s, path, n);
        while (s->n_linked > n_whole + (n_part > 0))
                cut_entry(s, s->n_linked - 1);
        alone = n_part > 0 && c->blocks[path[n_whole]].n_pins == 1 &&
                c->blocks[path[n_whole]].n_holds == 0 &&
                c->blocks[path[n_whole]].child_root == NONE;
        for (uint32_t g = 0; g < c->config.n_groups && n_part > 0 && !alone; g++)
                if (!warm_cache_is_state(c, g))
                        add_copy(s, g, warm_tree_block(c, g, path[n_whole]));
        if (alone)
                shorten_entry(s, n_whole, n_part);
        else if (n_part > 0)
                cut_entry(s, n_whole);
        repin_window(s, n);
        room = refill(s);
        if (room < s->public.n_tokens_max)
                s->public.n_tokens_max = room;
        if (room < n) {
                /* No block to copy the last part into: go without it. */
                warm_table_drop_copies(s);
                s->public.n_tokens = room;
                warm_table_cut(s, room);
                return;
        }
        aim_copies(s, n_whole);
        s->public.n_tokens = n;
}

void warm_table_close(struct warm_sequence *s) {
        struct warm_cache *c = s->public.cache;

        warm_table_drop_copies(s);
        set_states(s, NULL, 0);
        for (uint32_t i = s->public.n_blocks; i-- > 0;) {
                for (uint32_t g = c->config.n_groups; g-- > 0;) {
                        uint32_t ref = warm_table_ref(s, g, i);

                        if (ref == NONE)
                                continue;
                        if (i < s->n_linked && !warm_cache_is_state(c, g))
                                warm_pool_unpin(c, ref);
                        else
                                warm_pool_give(c, ref);
                        set(s, g, i, NONE);
                }
        }
        s->n_linked = 0;
}
