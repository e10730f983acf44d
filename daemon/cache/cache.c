/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache as a whole: made and freed, blocks that come and go, statistics.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "internal.h"
#include "shm/memfd.h"
#include "shm/range.h"

static int draw_secret(struct warm_cache *c) {
        size_t n = 0;

        while (n < sizeof(c->secret)) {
                ssize_t k = getrandom((char *) c->secret + n, sizeof(c->secret) - n, 0);

                if (k < 0 && errno != EINTR)
                        return -errno;
                if (k > 0)
                        n += (size_t) k;
        }
        return 0;
}

/* Which group's blocks are the tree's entries. Return: index; -EINVAL: none can be. */
static int choose_primary(const struct warm_cache_config *config) {
        for (uint32_t g = 0; g < config->n_groups; g++)
                if (!config->groups[g].state && config->groups[g].window == 0)
                        return (int) g;
        for (uint32_t g = 0; g < config->n_groups; g++)
                if (!config->groups[g].state)
                        return (int) g;
        return -EINVAL;
}

static int layout(struct warm_cache *c, const struct warm_cache_config *config) {
        uint64_t n = 0;
        int r;

        if (config->n_groups < 1 || config->n_groups > WARM_PLAN_GROUPS_MAX)
                return -EINVAL;
        r = choose_primary(config);
        if (r < 0)
                return r;
        c->config = *config;
        c->primary = (uint32_t) r;
        for (uint32_t g = 0; g < config->n_groups; g++) {
                c->base[g] = (uint32_t) n;
                c->free_head[g] = NONE;
                n += config->n_blocks_max[g];
                if (config->n_blocks_max[g] == 0 || n > WARM_CACHE_BLOCKS_MAX)
                        return -EINVAL;
        }
        c->base[config->n_groups] = (uint32_t) n;
        return warm_record_bytes(n, &c->map_bytes) ? 0 : -EINVAL;
}

static int allocate(struct warm_cache *c) {
        uint32_t n_entries = c->config.n_blocks_max[c->primary];
        uint32_t n_blocks = c->base[c->config.n_groups];

        /* calloc: pages of blocks that were never added are never touched. */
        c->blocks = calloc(n_blocks, sizeof(*c->blocks));
        c->path = malloc(((size_t) n_entries + 1) * sizeof(*c->path));
        c->unsummed = calloc(n_blocks, sizeof(*c->unsummed));
        c->ghosts = calloc(WARM_CACHE_GHOSTS_MAX, sizeof(*c->ghosts));
        c->uids = calloc(WARM_CACHE_UIDS_MAX, sizeof(*c->uids));
        if (!c->blocks || !c->path || !c->unsummed || !c->ghosts || !c->uids)
                return -ENOMEM;
        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                if (g == c->primary)
                        continue;
                c->side[g] = malloc((size_t) n_entries * sizeof(*c->side[g]));
                if (!c->side[g])
                        return -ENOMEM;
                memset(c->side[g], 0xff, (size_t) n_entries * sizeof(*c->side[g]));
        }
        return warm_index_init(&c->index, n_entries);
}

static uint64_t memory(const struct warm_cache *c) {
        uint32_t n_entries = c->config.n_blocks_max[c->primary];

        return sizeof(*c) + c->map_bytes +
               c->base[c->config.n_groups] * (sizeof(*c->blocks) + sizeof(*c->unsummed)) +
               (uint64_t) n_entries * sizeof(uint32_t) * c->config.n_groups +
               WARM_CACHE_GHOSTS_MAX * sizeof(*c->ghosts) + WARM_CACHE_UIDS_MAX * sizeof(*c->uids) +
               ((uint64_t) c->index.mask + 1) * sizeof(*c->index.slots);
}

/* Everything but the records. */
int warm_cache_half_new(const struct warm_cache_config *config, struct warm_cache **ret_cache) {
        struct warm_cache *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return -ENOMEM;
        c->records_fd = -1;
        c->key = warm_tree_key;
        r = layout(c, config);
        if (r == 0)
                r = draw_secret(c);
        if (r == 0)
                r = allocate(c);
        if (r < 0) {
                warm_cache_free(c);
                return r;
        }
        c->stats.memory_bytes = memory(c);
        *ret_cache = c;
        return 0;
}

int warm_cache_new(const struct warm_cache_config *config, struct warm_cache **ret_cache) {
        struct warm_cache *c;
        void *map;
        int r = warm_cache_half_new(config, &c);

        if (r < 0)
                return r;
        r = warm_memfd_new("warm-cache-records", c->map_bytes, WARM_MEMFD_SEALS_STATE,
                           &c->records_fd, &map);
        if (r < 0) {
                warm_cache_free(c);
                return r;
        }
        c->header = map;
        c->records = (struct warm_record *) (c->header + 1);
        warm_record_header_init(c->header, config->fingerprint, config->n_groups, c->primary,
                                c->base[config->n_groups]);
        *ret_cache = c;
        return 0;
}

struct warm_cache *warm_cache_free(struct warm_cache *c) {
        if (!c)
                return NULL;
        assert(!c->sequences);
        if (c->header)
                munmap(c->header, c->map_bytes);
        if (c->records_fd >= 0)
                close(c->records_fd);
        for (uint32_t g = 0; g < WARM_PLAN_GROUPS_MAX; g++)
                free(c->side[g]);
        warm_index_deinit(&c->index);
        free(c->blocks);
        free(c->path);
        free(c->unsummed);
        free(c->ghosts);
        free(c->uids);
        free(c);
        return NULL;
}

int warm_cache_add_blocks(struct warm_cache *c, uint32_t group, uint32_t first, uint32_t n) {
        assert(group < c->config.n_groups);
        if (!warm_range_within(first, n, c->config.n_blocks_max[group]))
                return -ERANGE;
        for (uint32_t i = 0; i < n; i++)
                if (c->blocks[c->base[group] + first + i].place != WARM_PLACE_ABSENT)
                        return -EEXIST;
        /* Backwards: the lowest number is taken first. */
        for (uint32_t i = n; i-- > 0;) {
                uint32_t ref = c->base[group] + first + i;

                /* What an earlier process said of a block counts only for warm_cache_rebuild. */
                if (c->adopted && !c->adopting)
                        warm_cache_forget_record(c, ref);
                c->blocks[ref].child_root = c->blocks[ref].owner = NONE;
                warm_pool_free_push(c, group, ref);
        }
        c->n_added[group] += n;
        return 0;
}

/* An unpinned entry goes with everything below it, leaves first. */
static void evict_subtree(struct warm_cache *c, uint32_t ref) {
        while (c->blocks[ref].place == WARM_PLACE_LINKED) {
                uint32_t leaf = ref;

                while (c->blocks[leaf].child_root != NONE)
                        leaf = c->blocks[leaf].child_root;
                warm_pool_evict(c, leaf);
        }
}

int warm_cache_remove_blocks(struct warm_cache *c, uint32_t group, uint32_t first, uint32_t n) {
        assert(group < c->config.n_groups && !c->adopting);
        if (!warm_range_within(first, n, c->config.n_blocks_max[group]))
                return -ERANGE;
        for (uint32_t i = 0; i < n; i++) {
                uint32_t ref = c->base[group] + first + i;

                if (c->blocks[ref].place == WARM_PLACE_ABSENT)
                        return -ENOENT;
                if (warm_pool_busy(c, ref))
                        return WARM_CACHE_E_BUSY;
        }
        for (uint32_t i = 0; i < n; i++) {
                uint32_t ref = c->base[group] + first + i;

                evict_subtree(c, ref);
                warm_pool_free_remove(c, group, ref);
                c->blocks[ref].place = WARM_PLACE_ABSENT;
        }
        c->n_added[group] -= n;
        return 0;
}

int warm_cache_records_fd(const struct warm_cache *c) {
        return c->records_fd;
}

uint32_t warm_cache_n_free(const struct warm_cache *c, uint32_t group) {
        assert(group < c->config.n_groups);
        return c->n_free[group];
}

void warm_cache_stats(const struct warm_cache *c, struct warm_cache_stats *ret_stats) {
        struct warm_cache_stats s = c->stats;
        uint64_t n_used = 0;

        for (uint32_t g = 0; g < c->config.n_groups; g++) {
                s.n_blocks += c->n_added[g];
                s.n_free += c->n_free[g];
                for (uint32_t i = 0; i < c->n_uids; i++) {
                        n_used += c->uids[i].n_used[g];
                        s.n_pinned += c->uids[i].n_pinned[g];
                }
        }
        s.n_cached = n_used - s.n_pinned;
        *ret_stats = s;
}
