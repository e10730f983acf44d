/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which blocks still need their sum: a ring of refs, each in it once, so that it has room for all. Blocks enter when
 * their bytes have come to rest: when they are full, and whenever the last sequence leaves them. What happened to them
 * since is looked at when they leave the ring.
 */
#include "internal.h"

void warm_sum_want(struct warm_cache *c, uint32_t ref) {
        uint32_t n_refs = c->base[c->config.n_groups];

        if (c->blocks[ref].queued)
                return;
        assert(c->n_unsummed < n_refs);
        c->blocks[ref].queued = true;
        c->unsummed[(c->first_unsummed + c->n_unsummed++) % n_refs] = ref;
}

void warm_sum_want_entry(struct warm_cache *c, uint32_t entry_ref) {
        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                uint32_t ref = warm_tree_block(c, g, entry_ref);

                if (ref != NONE)
                        warm_sum_want(c, ref);
        }
}

/* Whether nobody writes to the block any more: it is full, or a tail on which nobody runs. */
static bool rests(const struct warm_cache *c, uint32_t ref) {
        return c->blocks[ref].place == WARM_PLACE_LINKED &&
               c->records[ref].state == WARM_RECORD_READY &&
               (c->records[ref].n_ready == WARM_BLOCK_TOKENS || c->blocks[ref].n_pins == 0);
}

bool warm_cache_unsummed(struct warm_cache *c, uint32_t *ret_group, uint32_t *ret_block) {
        while (c->n_unsummed > 0) {
                uint32_t ref = c->unsummed[c->first_unsummed];

                c->first_unsummed = (c->first_unsummed + 1) % c->base[c->config.n_groups];
                c->n_unsummed--;
                c->blocks[ref].queued = false;
                if (!rests(c, ref) || c->records[ref].sum != 0)
                        continue;
                *ret_group = warm_pool_group(c, ref);
                *ret_block = ref - c->base[*ret_group];
                return true;
        }
        return false;
}

void warm_cache_set_sum(struct warm_cache *c, uint32_t group, uint32_t block, uint64_t sum) {
        uint32_t ref = c->base[group] + block;

        assert(group < c->config.n_groups && ref < c->base[group + 1]);
        assert(rests(c, ref));
        __atomic_store_n(&c->records[ref].sum, sum, __ATOMIC_RELEASE);
}
