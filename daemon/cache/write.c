/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence runs here: begin, commit, rollback. Nothing allocates, and nothing is evicted by begin and commit: every
 * block was taken at admission.
 */
#include <string.h>

#include "internal.h"

static void store_state(struct warm_cache *c, uint32_t ref, enum warm_record_state state) {
        __atomic_store_n(&c->records[ref].state, (uint32_t) state, __ATOMIC_RELEASE);
}

/* The blocks of slots [from, to) of every group, and the live states. */
static void mark(struct warm_sequence *s, uint32_t from, uint32_t to, bool writing) {
        struct warm_cache *c = s->public.cache;

        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                bool state = warm_cache_is_state(c, g);
                uint32_t i = state ? 0 : from / WARM_BLOCK_TOKENS;
                uint32_t end = state ? 1 : warm_blocks_for(to);

                for (; i < end; i++) {
                        uint32_t ref = warm_table_ref(s, g, i);
                        bool linked = c->blocks[ref].place == WARM_PLACE_LINKED;

                        if (writing)
                                c->records[ref].sum = 0;
                        store_state(c, ref,
                                    writing  ? WARM_RECORD_WRITING
                                    : linked ? WARM_RECORD_READY
                                             : WARM_RECORD_FREE);
                }
        }
}

void warm_cache_begin(struct warm_cache_sequence *public, uint32_t n) {
        struct warm_sequence *s = (struct warm_sequence *) public;

        assert(n >= 1 && s->n_begun == 0);
        assert(n <= public->n_tokens_max - public->n_tokens);
        mark(s, public->n_tokens, public->n_tokens + n, true);
        s->n_begun = n;
}

/* Whether copies from this entry still wait to be run, and so its blocks must stay. */
static bool is_held(const struct warm_cache *c, uint32_t entry) {
        bool held = c->blocks[entry].n_holds > 0;

        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t side = warm_tree_block(c, g, entry);

                held |= side != NONE && c->blocks[side].n_holds > 0;
        }
        return held;
}

/* Go on with the twin's block of group g instead of our own. The twin may lack one: then it gets ours. */
static void join_side(struct warm_sequence *s, uint32_t g, uint32_t i, uint32_t mine, uint32_t twin,
                      bool held) {
        struct warm_cache *c = s->public.cache;
        uint32_t theirs = warm_tree_block(c, g, twin);

        if (theirs != NONE) {
                warm_pool_pin(c, theirs);
                s->public.blocks[g][i] = theirs - c->base[g];
        }
        if (held) {
                warm_pool_unpin(c, mine);
                return;
        }
        warm_tree_detach(c, g, mine);
        if (theirs != NONE) {
                warm_pool_give(c, mine);
                return;
        }
        c->records[mine].n_ready = WARM_BLOCK_TOKENS;
        warm_tree_attach(c, g, mine, twin);
        store_state(c, mine, WARM_RECORD_READY);
}

/*
 * A block just became full. If the same text is known already, computed by somebody else meanwhile, go on with
 * that block and give this one back: same tokens after the same prefix, so the same bits. Two blocks with the same
 * text must not both get children: a lookup would see one half of them.
 */
static void join_twin(struct warm_sequence *s, uint32_t i) {
        struct warm_cache *c = s->public.cache;
        uint32_t entry = warm_table_ref(s, c->primary, i);
        uint32_t twin = warm_tree_find_full(c, s->uid_slot, warm_tree_parent(c, entry),
                                            c->blocks[entry].key, c->records[entry].tokens);
        bool held = is_held(c, entry);

        if (twin == entry)
                return;
        assert(twin != NONE);
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                if (held && !warm_cache_is_state(c, g) && warm_tree_block(c, g, twin) == NONE)
                        return; /* a window block that neither can be moved nor is there */
        warm_pool_pin(c, twin);
        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t mine = warm_tree_block(c, g, entry);

                if (g == c->primary || mine == NONE)
                        continue;
                assert(!warm_cache_is_state(c, g)); /* nobody could take a snapshot here yet */
                join_side(s, g, i, mine, twin, held);
        }
        s->public.blocks[c->primary][i] = twin - c->base[c->primary];
        if (held) {
                warm_pool_unpin(c, entry);
                return;
        }
        warm_tree_unlink(c, entry);
        warm_pool_give(c, entry);
}

/* Entry i of the table holds n_ready tokens now. */
static void commit_entry(struct warm_sequence *s, uint32_t i, uint32_t n_ready) {
        struct warm_cache *c = s->public.cache;
        uint32_t entry = warm_table_ref(s, c->primary, i);
        struct warm_record *r = &c->records[entry];
        bool fresh = i >= s->n_linked;

        if (!fresh)
                warm_tree_before_change(c, entry);
        memcpy(r->tokens, s->public.tokens + (uint64_t) i * WARM_BLOCK_TOKENS,
               n_ready * sizeof(r->tokens[0]));
        r->n_ready = n_ready;
        r->sum = 0;
        if (fresh)
                warm_tree_link(c, entry, i > 0 ? warm_table_ref(s, c->primary, i - 1) : NONE);
        else
                warm_tree_after_change(c, entry);
        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t ref;

                if (g == c->primary || warm_cache_is_state(c, g))
                        continue;
                ref = warm_table_ref(s, g, i);
                c->records[ref].n_ready = n_ready;
                c->records[ref].sum = 0;
                if (fresh)
                        warm_tree_attach(c, g, ref, entry);
                store_state(c, ref, WARM_RECORD_READY);
        }
        store_state(c, entry, WARM_RECORD_READY);
        if (fresh)
                s->n_linked = i + 1;
        if (n_ready == WARM_BLOCK_TOKENS) {
                join_twin(s, i);
                warm_sum_want_entry(c, warm_table_ref(s, c->primary, i));
        }
}

/* What the window has left behind may go, before all else: nobody resumes there unless by chance. */
static void drop_window(struct warm_sequence *s) {
        struct warm_cache *c = s->public.cache;
        uint32_t n =
                s->public.n_tokens > WARM_CACHE_SLACK ? s->public.n_tokens - WARM_CACHE_SLACK : 0;

        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                if (warm_cache_is_state(c, g))
                        continue;
                while (s->first[g] < warm_cache_first_needed(c, g, n)) {
                        warm_pool_unpin_cold(c, warm_table_ref(s, g, s->first[g]));
                        s->public.blocks[g][s->first[g]++] = NONE;
                }
        }
}

/* The step left the states in the sequence's own blocks. */
static void keep_states(struct warm_sequence *s) {
        struct warm_cache *c = s->public.cache;

        for (uint32_t g = 0; g < c->config.n_groups; g++)
                if (warm_cache_is_state(c, g))
                        warm_table_set_state(s, g, warm_table_ref(s, g, 0));
}

void warm_cache_commit(struct warm_cache_sequence *public, const int32_t *tokens, uint32_t n) {
        struct warm_sequence *s = (struct warm_sequence *) public;
        uint32_t before = public->n_tokens, after = before + n;
        bool beyond = n < s->n_begun && warm_cache_has_state(public->cache);

        assert(n <= s->n_begun);
        warm_table_drop_copies(s);
        if (n > 0)
                memcpy(public->tokens + before, tokens, n * sizeof(*tokens));
        public->n_tokens = after;
        for (uint32_t i = before / WARM_BLOCK_TOKENS; i < warm_blocks_for(after); i++) {
                uint32_t left = after - i * WARM_BLOCK_TOKENS;

                commit_entry(s, i, left < WARM_BLOCK_TOKENS ? left : WARM_BLOCK_TOKENS);
        }
        mark(s, after, before + s->n_begun, false);
        s->n_begun = 0;
        if (n > 0)
                keep_states(s);
        drop_window(s);
        if (beyond)
                warm_table_cut(s, after);
}

/* Whether the state at the end of this entry is kept already: by this sequence, or by whoever shares the entry. */
static bool has_snapshot(const struct warm_sequence *s, uint32_t g, uint32_t entry) {
        return s->public.state_in[g] != s->public.blocks[g][0] ||
               warm_tree_block(s->public.cache, g, entry) != NONE;
}

static void take_snapshot(struct warm_sequence *s, uint32_t g, uint32_t entry) {
        struct warm_cache *c = s->public.cache;
        uint32_t fresh = warm_pool_take(c, s->uid_slot, g), live = warm_table_ref(s, g, 0);

        assert(fresh != NONE);
        c->records[live].n_ready = WARM_BLOCK_TOKENS;
        warm_tree_attach(c, g, live, entry);
        warm_pool_hold(c, live); /* state_in says so already; until the next step is committed */
        warm_pool_unpin(c, live);
        store_state(c, live, WARM_RECORD_READY);
        warm_sum_want(c, live);
        s->public.blocks[g][0] = fresh - c->base[g];
        c->stats.n_snapshots_taken++;
}

int warm_cache_snapshot(struct warm_cache_sequence *public) {
        struct warm_sequence *s = (struct warm_sequence *) public;
        struct warm_cache *c = public->cache;
        uint32_t n_blocks = public->n_tokens / WARM_BLOCK_TOKENS, entry;

        assert(s->n_begun == 0);
        assert(n_blocks > 0 && public->n_tokens % WARM_BLOCK_TOKENS == 0);
        if (!warm_cache_has_state(c))
                return 0;
        assert(s->n_linked == n_blocks);
        entry = warm_table_ref(s, c->primary, n_blocks - 1);
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                if (warm_cache_is_state(c, g) && !has_snapshot(s, g, entry) &&
                    warm_pool_available(c, s->uid_slot, g) == 0)
                        return WARM_CACHE_E_FULL;
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                if (warm_cache_is_state(c, g) && !has_snapshot(s, g, entry))
                        take_snapshot(s, g, entry);
        return 0;
}

void warm_cache_rollback(struct warm_cache_sequence *public, uint32_t n_tokens) {
        struct warm_sequence *s = (struct warm_sequence *) public;
        struct warm_cache *c = public->cache;
        bool cut = n_tokens < public->n_tokens;

        assert(n_tokens <= public->n_tokens);
        if (s->n_begun > 0)
                mark(s, public->n_tokens, public->n_tokens + s->n_begun, false);
        /* A live state may have moved on: only a snapshot says where it is. */
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                cut |= s->n_begun > 0 && warm_cache_is_state(c, g);
        s->n_begun = 0;
        if (cut)
                warm_table_cut(s, n_tokens);
}
