/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: from which lengths a sequence can go on.
 *
 * After n tokens a plain group needs every block before n; a window group those of the last `window` tokens; a state
 * group the snapshot taken at exactly n. A hit is the longest n for which every group has what it needs.
 *
 * Snapshots are taken at whole blocks only. So each hangs under a full entry and serves whatever begins with its text.
 * Inside a block it would hang under one of many entries that go on differently, and the next keystroke's longest
 * match, the entry of the last keystroke, would not have it.
 */
#include "internal.h"

bool warm_cache_is_state(const struct warm_cache *c, uint32_t g) {
        return g != c->primary && c->config.groups[g].state;
}

bool warm_cache_has_state(const struct warm_cache *c) {
        bool has = false;

        for (uint32_t g = 0; g < c->config.n_groups; g++)
                has |= warm_cache_is_state(c, g);
        return has;
}

uint32_t warm_cache_window(const struct warm_cache *c, uint32_t g) {
        return g != c->primary ? c->config.groups[g].window : 0;
}

uint32_t warm_cache_first_needed(const struct warm_cache *c, uint32_t g, uint32_t n) {
        uint32_t window = warm_cache_window(c, g);

        return window == 0 || n <= window ? 0 : (n - window) / WARM_BLOCK_TOKENS;
}

/* Tokens of entry path[i] that group g holds. */
static uint32_t ready(const struct warm_cache *c, const uint32_t *path, uint32_t g, uint32_t i) {
        uint32_t side = c->side[g][path[i] - c->base[c->primary]];

        return side == NONE ? 0 : c->records[side].n_ready;
}

/* The last snapshot at or before n. */
static uint32_t resume_state(const struct warm_cache *c, const uint32_t *path, uint32_t g,
                             uint32_t n) {
        for (uint32_t i = warm_blocks_for(n); i-- > 0;) {
                uint32_t at = ready(c, path, g, i);

                if (at > 0 && i * WARM_BLOCK_TOKENS + at <= n)
                        return i * WARM_BLOCK_TOKENS + at;
        }
        return 0;
}

static uint32_t resume_window(const struct warm_cache *c, const uint32_t *path, uint32_t g,
                              uint32_t n) {
        for (uint32_t i = warm_blocks_for(n); i-- > warm_cache_first_needed(c, g, n);) {
                uint32_t start = i * WARM_BLOCK_TOKENS, have = ready(c, path, g, i);

                /* What is missing here is missing for every longer length down to it. */
                if (have < WARM_BLOCK_TOKENS && start + have < n)
                        n = start + have;
        }
        return n;
}

uint32_t warm_cache_resume(const struct warm_cache *c, const uint32_t *path, uint32_t n) {
        uint32_t g = 0, n_agreed = 0;

        while (n > 0 && n_agreed < c->config.n_groups) {
                uint32_t m = n;

                if (g != c->primary)
                        m = warm_cache_is_state(c, g) ? resume_state(c, path, g, n)
                                                      : resume_window(c, path, g, n);
                assert(m <= n);
                n_agreed = m == n ? n_agreed + 1 : 1;
                n = m;
                g = (g + 1) % c->config.n_groups;
        }
        return n;
}
