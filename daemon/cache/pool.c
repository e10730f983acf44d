/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has which blocks: uids and their shares, the free lists, pins, and eviction.
 *
 * Eviction takes the block of lowest value among the leaves of the uids that may lose one. Value is the clock at the
 * last use plus what computing the block again would cost (pool_value): a least-recently-used order in which
 * a dear block counts as used a little later. Expected cost O(uids + log blocks).
 */
#include <string.h>

#include "internal.h"

/* The clock starts here, so that what fell behind a window can be older than everything. */
#define CLOCK_COLD (1ULL << 32)

/* A full block at the start of a prompt counts as used so many opens later than an empty one (untuned guess). */
#define BONUS_BLOCK 16U
/* Depth, in blocks, at which attention costs as much again as the rest (untuned guess). */
#define BONUS_DEPTH 64U

uint32_t warm_pool_group(const struct warm_cache *c, uint32_t ref) {
        uint32_t g = 0;

        assert(ref < c->base[c->config.n_groups]);
        while (ref >= c->base[g + 1])
                g++;
        return g;
}

int warm_pool_uid_find(const struct warm_cache *c, uid_t uid) {
        for (uint32_t i = 0; i < c->n_uids; i++)
                if (c->uids[i].used && c->uids[i].uid == uid)
                        return (int) i;
        return -1;
}

static bool uid_empty(const struct warm_cache_uid *u, uint32_t n_groups) {
        uint32_t n = u->n_sequences;

        for (uint32_t g = 0; g < n_groups; g++)
                n += u->n_used[g];
        return !u->used || n == 0;
}

static bool uid_idle(const struct warm_cache_uid *u, uint32_t n_groups) {
        uint32_t n = u->n_sequences;

        for (uint32_t g = 0; g < n_groups; g++)
                n += u->n_pinned[g];
        return n == 0;
}

static uint64_t trim_slot(struct warm_cache *c, uint32_t slot) {
        struct warm_cache_uid *u = &c->uids[slot];
        uint64_t n_before = 0, n_after = 0;
        uint32_t ref;

        for (uint32_t g = 0; g < c->config.n_groups; g++)
                n_before += c->n_free[g];
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                while ((ref = warm_order_age_first(c, u->age_root[g])) != NONE)
                        warm_pool_evict(c, ref);
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                n_after += c->n_free[g];
        return n_after - n_before;
}

XXH128_hash_t warm_pool_uid_key(const struct warm_cache *c, uid_t uid) {
        struct {
                uint64_t secret[4];
                uint64_t uid;
                uint8_t fingerprint[16];
        } seed = { .uid = uid };

        memcpy(seed.secret, c->secret, sizeof(seed.secret));
        memcpy(seed.fingerprint, c->config.fingerprint, sizeof(seed.fingerprint));
        return XXH3_128bits(&seed, sizeof(seed));
}

static void uid_init(struct warm_cache *c, uint32_t slot, uid_t uid) {
        struct warm_cache_uid *u = &c->uids[slot];

        *u = (struct warm_cache_uid){ .uid = uid, .used = true, .root = NONE };
        u->key = warm_pool_uid_key(c, uid);
        for (uint32_t g = 0; g < WARM_PLAN_GROUPS_MAX; g++)
                u->age_root[g] = NONE;
}

int warm_pool_uid_get(struct warm_cache *c, uid_t uid) {
        int slot = warm_pool_uid_find(c, uid);
        uint32_t i;

        if (slot >= 0)
                return slot;
        for (i = 0; i < c->n_uids && !uid_empty(&c->uids[i], c->config.n_groups); i++)
                ;
        if (i == WARM_CACHE_UIDS_MAX) {
                /* Full: the first uid on which nothing runs loses its entries. */
                for (i = 0; i < c->n_uids && !uid_idle(&c->uids[i], c->config.n_groups); i++)
                        ;
                if (i == c->n_uids)
                        return -1;
                trim_slot(c, i);
        }
        uid_init(c, i, uid);
        if (i >= c->n_uids)
                c->n_uids = i + 1;
        return (int) i;
}

void warm_pool_uid_put(struct warm_cache *c, uint32_t slot) {
        struct warm_cache_uid *u = &c->uids[slot];

        assert(u->used);
        if (!uid_empty(u, c->config.n_groups))
                return;
        u->used = false;
        while (c->n_uids > 0 && !c->uids[c->n_uids - 1].used)
                c->n_uids--;
}

bool warm_pool_busy(const struct warm_cache *c, uint32_t ref) {
        const struct warm_block *b = &c->blocks[ref];

        return b->place == WARM_PLACE_HELD || b->n_pins > 0 || b->n_holds > 0;
}

/* What each uid keeps whatever others want: never more than half of the pool for all together. */
static uint32_t share(const struct warm_cache *c, uint32_t g) {
        uint32_t n = 0, most;

        for (uint32_t i = 0; i < c->n_uids; i++)
                n += c->uids[i].used;
        most = n > 0 ? c->n_added[g] / 2 / n : 0;
        return c->config.min_share_blocks < most ? c->config.min_share_blocks : most;
}

/* How many blocks of group g the uid can lose to another. */
static uint32_t spare(const struct warm_cache_uid *u, uint32_t g, uint32_t min_share) {
        uint32_t keeps = u->n_pinned[g] > min_share ? u->n_pinned[g] : min_share;

        return u->n_used[g] > keeps ? u->n_used[g] - keeps : 0;
}

uint64_t warm_pool_available(const struct warm_cache *c, uint32_t slot, uint32_t g) {
        uint32_t min_share = share(c, g);
        uint64_t n = c->n_free[g];

        for (uint32_t i = 0; i < c->n_uids; i++)
                if (c->uids[i].used)
                        n += spare(&c->uids[i], g, i == slot ? 0 : min_share);
        return n;
}

static uint32_t victim(const struct warm_cache *c, uint32_t slot, uint32_t g) {
        uint32_t min_share = share(c, g), best = NONE;

        for (uint32_t i = 0; i < c->n_uids; i++) {
                const struct warm_cache_uid *u = &c->uids[i];
                uint32_t ref;

                if (!u->used || spare(u, g, i == slot ? 0 : min_share) == 0)
                        continue;
                ref = warm_order_age_first(c, u->age_root[g]);
                assert(ref != NONE);
                if (best == NONE || c->blocks[ref].value < c->blocks[best].value)
                        best = ref;
        }
        return best;
}

uint32_t warm_pool_take(struct warm_cache *c, uint32_t slot, uint32_t g) {
        struct warm_record *r;
        struct warm_block *b;
        uint32_t ref;

        if (c->n_free[g] == 0) {
                ref = victim(c, slot, g);
                if (ref == NONE)
                        return NONE;
                warm_pool_evict(c, ref);
        }
        ref = c->free_head[g];
        assert(ref != NONE);
        warm_pool_free_remove(c, g, ref);
        b = &c->blocks[ref];
        b->place = WARM_PLACE_HELD;
        b->uid_slot = (uint16_t) slot;
        b->sibling = b->age = (struct warm_links){ NONE, NONE };
        b->child_root = b->owner = NONE;
        r = &c->records[ref];
        r->generation++;
        r->group = g;
        r->uid = c->uids[slot].uid;
        c->uids[slot].n_used[g]++;
        c->uids[slot].n_pinned[g]++;
        return ref;
}

void warm_pool_give(struct warm_cache *c, uint32_t ref) {
        uint32_t g = warm_pool_group(c, ref);
        struct warm_block *b = &c->blocks[ref];

        assert(b->place == WARM_PLACE_HELD);
        assert(b->n_pins == 0 && b->n_holds == 0 && !b->aged);
        c->uids[b->uid_slot].n_used[g]--;
        c->uids[b->uid_slot].n_pinned[g]--;
        warm_record_reset(&c->records[ref]);
        warm_pool_free_push(c, g, ref);
}

void warm_pool_free_push(struct warm_cache *c, uint32_t g, uint32_t ref) {
        struct warm_block *b = &c->blocks[ref];

        b->place = WARM_PLACE_FREE;
        b->sibling = (struct warm_links){ NONE, c->free_head[g] };
        if (c->free_head[g] != NONE)
                c->blocks[c->free_head[g]].sibling.left = ref;
        c->free_head[g] = ref;
        c->n_free[g]++;
}

void warm_pool_free_remove(struct warm_cache *c, uint32_t g, uint32_t ref) {
        struct warm_links l = c->blocks[ref].sibling;

        assert(c->blocks[ref].place == WARM_PLACE_FREE);
        if (l.left != NONE)
                c->blocks[l.left].sibling.right = l.right;
        else
                c->free_head[g] = l.right;
        if (l.right != NONE)
                c->blocks[l.right].sibling.left = l.left;
        c->n_free[g]--;
}

/* See the top of the file. */
static uint64_t pool_value(const struct warm_cache *c, uint32_t ref) {
        const struct warm_block *b = &c->blocks[ref];
        uint64_t n_ready = c->records[ref].n_ready;

        return CLOCK_COLD + c->clock +
               n_ready * BONUS_BLOCK * (BONUS_DEPTH + b->depth) / (WARM_BLOCK_TOKENS * BONUS_DEPTH);
}

void warm_pool_age(struct warm_cache *c, uint32_t ref) {
        struct warm_block *b = &c->blocks[ref];
        bool wanted = b->place == WARM_PLACE_LINKED && b->n_pins == 0 && b->n_holds == 0 &&
                      b->child_root == NONE;
        uint32_t *root = &c->uids[b->uid_slot].age_root[warm_pool_group(c, ref)];

        if (wanted == b->aged)
                return;
        b->aged = wanted;
        if (wanted)
                warm_order_age_insert(c, root, ref);
        else
                warm_order_age_remove(c, root, ref);
}

static void count_busy(struct warm_cache *c, uint32_t ref, bool was) {
        uint32_t *n = &c->uids[c->blocks[ref].uid_slot].n_pinned[warm_pool_group(c, ref)];
        bool is = warm_pool_busy(c, ref);

        if (is && !was)
                ++*n;
        if (was && !is)
                --*n;
        if (was && !is)
                c->blocks[ref].value = pool_value(c, ref);
        warm_pool_age(c, ref);
}

void warm_pool_pin(struct warm_cache *c, uint32_t ref) {
        bool was = warm_pool_busy(c, ref);

        assert(c->blocks[ref].place == WARM_PLACE_LINKED);
        c->blocks[ref].n_pins++;
        count_busy(c, ref, was);
}

void warm_pool_unpin(struct warm_cache *c, uint32_t ref) {
        assert(c->blocks[ref].place == WARM_PLACE_LINKED);
        assert(c->blocks[ref].n_pins > 0);
        c->blocks[ref].n_pins--;
        count_busy(c, ref, true);
        if (c->blocks[ref].n_pins == 0 && c->records[ref].sum == 0)
                warm_sum_want(c, ref); /* left to others, or to nobody: it rests now */
}

void warm_pool_unpin_cold(struct warm_cache *c, uint32_t ref) {
        struct warm_block *b = &c->blocks[ref];

        warm_pool_unpin(c, ref);
        if (!b->aged)
                return;
        warm_order_age_remove(c, &c->uids[b->uid_slot].age_root[warm_pool_group(c, ref)], ref);
        b->value = c->clock;
        warm_order_age_insert(c, &c->uids[b->uid_slot].age_root[warm_pool_group(c, ref)], ref);
}

void warm_pool_hold(struct warm_cache *c, uint32_t ref) {
        bool was = warm_pool_busy(c, ref);

        assert(c->blocks[ref].place == WARM_PLACE_LINKED);
        c->blocks[ref].n_holds++;
        count_busy(c, ref, was);
}

void warm_pool_release(struct warm_cache *c, uint32_t ref) {
        assert(c->blocks[ref].place == WARM_PLACE_LINKED);
        assert(c->blocks[ref].n_holds > 0);
        c->blocks[ref].n_holds--;
        count_busy(c, ref, true);
}

void warm_pool_drop(struct warm_cache *c, uint32_t ref) {
        uint32_t g = warm_pool_group(c, ref), parent = NONE;
        struct warm_block *b = &c->blocks[ref];

        assert(b->place == WARM_PLACE_LINKED);
        assert(b->n_pins == 0 && b->n_holds == 0 && b->child_root == NONE);
        if (g == c->primary) {
                for (uint32_t s = 0; s < c->config.n_groups; s++) {
                        uint32_t side = s != g ? c->side[s][ref - c->base[g]] : NONE;

                        if (side != NONE)
                                warm_pool_drop(c, side);
                }
                parent = warm_tree_parent(c, ref);
                warm_tree_unlink(c, ref);
        } else {
                warm_tree_detach(c, g, ref);
        }
        warm_pool_give(c, ref);
        if (parent != NONE)
                warm_pool_age(c, parent);
}

void warm_pool_evict(struct warm_cache *c, uint32_t ref) {
        uint64_t n_snapshots = c->stats.n_snapshots;

        if (warm_pool_group(c, ref) == c->primary)
                warm_tree_ghost_add(c, ref);
        warm_pool_drop(c, ref);
        c->stats.n_snapshots_evicted += n_snapshots - c->stats.n_snapshots;
        c->stats.n_evicted++;
}

uint64_t warm_cache_trim(struct warm_cache *c, uid_t uid) {
        uint64_t n = 0;

        for (uint32_t i = 0; i < c->n_uids; i++) {
                if (!c->uids[i].used || (uid != (uid_t) -1 && c->uids[i].uid != uid))
                        continue;
                n += trim_slot(c, i);
                warm_pool_uid_put(c, i);
        }
        return n;
}
