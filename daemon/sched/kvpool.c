/* SPDX-License-Identifier: Apache-2.0 */
#include "sched/kvpool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define CONTEXTS_DEFAULT 16U /* the default, untuned */

int warm_kvpool_block_bytes(const struct warm_plan *plan, uint32_t group, enum warm_type type,
                            uint64_t *ret_bytes) {
        uint64_t sum = 0;

        if (plan->groups[group].state)
                return -EOPNOTSUPP;
        for (uint32_t i = 0; i < plan->n_layers; i++) {
                const struct warm_plan_layer *l = &plan->layers[i];
                uint64_t bytes, values;

                if (l->group != group || l->kv_source >= 0)
                        continue;
                if (l->mixer != WARM_MIXER_ATTENTION)
                        return -EOPNOTSUPP;
                values = (uint64_t) l->n_kv_heads * ((uint64_t) l->head_dim_k + l->head_dim_v) *
                         WARM_BLOCK_TOKENS;
                if (warm_type_row_bytes(type, values, &bytes) < 0)
                        return -EOPNOTSUPP;
                sum += bytes;
        }
        if (sum == 0)
                return -EOPNOTSUPP;
        *ret_bytes = sum;
        return 0;
}

/* Of all groups together. Return: 0 if a group cannot be told. */
static uint64_t bytes_of_all(const struct warm_plan *plan, enum warm_type type) {
        uint64_t sum = 0;

        for (uint32_t g = 0; g < plan->n_groups; g++) {
                uint64_t bytes;

                if (warm_kvpool_block_bytes(plan, g, type, &bytes) != 0)
                        return 0;
                sum += bytes;
        }
        return sum;
}

uint64_t warm_kvpool_context_bytes(const struct warm_plan *plan, uint32_t n_context,
                                   enum warm_type type) {
        /* A sequence takes one block more for the tail it copies. */
        uint64_t n_blocks = (n_context + WARM_BLOCK_TOKENS - 1) / WARM_BLOCK_TOKENS + 1;

        return n_blocks * bytes_of_all(plan, type);
}

uint64_t warm_kvpool_default_bytes(const struct warm_plan *plan, uint32_t n_context,
                                   enum warm_type type, uint64_t memory_free) {
        uint64_t context = warm_kvpool_context_bytes(plan, n_context, type);
        uint64_t bytes = context * CONTEXTS_DEFAULT;

        if (bytes > memory_free / 4)
                bytes = memory_free / 4;
        return bytes > context ? bytes : context;
}

int warm_kvpool_init(struct warm_kvpool *p, struct warm_backend *backend,
                     struct warm_weights *weights, const struct warm_plan *plan,
                     enum warm_type type, uint64_t bytes_max, struct warm_kv_budget *budget) {
        struct warm_kv_config config = { .type = type };
        uint64_t all = bytes_of_all(plan, type);
        uint64_t n_blocks;
        int r;

        *p = (struct warm_kvpool){
                .backend = backend, .weights = weights, .budget = budget, .n_groups = plan->n_groups
        };
        if (all == 0)
                return -EOPNOTSUPP;
        n_blocks = bytes_max / all;
        if (n_blocks == 0)
                return -EINVAL;
        if (n_blocks > UINT32_MAX / 2)
                n_blocks = UINT32_MAX / 2;
        for (uint32_t g = 0; g < p->n_groups; g++)
                config.n_blocks_max[g] = p->n_blocks_max[g] = (uint32_t) n_blocks;
        r = warm_kv_init(backend, weights, &config, &p->info);
        if (r != 0)
                return r;
        for (uint32_t g = 0; g < p->n_groups; g++) {
                uint32_t per_chunk = p->info.blocks_per_chunk[g];

                assert(per_chunk > 0);
                p->n_chunks[g] = (uint32_t) ((n_blocks + per_chunk - 1) / per_chunk);
                p->present[g] = calloc(p->n_chunks[g], sizeof(bool));
                if (!p->present[g]) {
                        warm_kvpool_deinit(p);
                        return -ENOMEM;
                }
        }
        return 0;
}

void warm_kvpool_deinit(struct warm_kvpool *p) {
        for (uint32_t g = 0; g < WARM_PLAN_GROUPS_MAX; g++)
                free(p->present[g]);
        if (p->budget)
                p->budget->bytes -= p->bytes;
        *p = (struct warm_kvpool){ 0 };
}

/* The last chunk of the range may hold fewer blocks than the others. */
static uint32_t chunk_blocks(const struct warm_kvpool *p, uint32_t group, uint32_t chunk) {
        uint32_t per_chunk = p->info.blocks_per_chunk[group];
        uint32_t left = p->n_blocks_max[group] - chunk * per_chunk;

        return left < per_chunk ? left : per_chunk;
}

static uint64_t chunk_bytes(const struct warm_kvpool *p, uint32_t group, uint32_t chunk) {
        return (uint64_t) chunk_blocks(p, group, chunk) * p->info.block_bytes[group];
}

/* The lowest chunk without memory. Return: false: the range is full, the budget spent or memory out. */
static bool add_chunk(struct warm_kvpool *p, uint32_t group) {
        uint32_t chunk = 0;
        uint64_t bytes;
        int r;

        while (chunk < p->n_chunks[group] && p->present[group][chunk])
                chunk++;
        if (chunk == p->n_chunks[group])
                return false;
        bytes = chunk_bytes(p, group, chunk);
        if (bytes > p->budget->bytes_max - p->budget->bytes)
                return false;
        r = warm_kv_add(p->backend, p->weights, group, chunk);
        p->budget->n_short += r == WARM_BACKEND_E_MEMORY;
        if (r != 0)
                return false;
        r = warm_cache_add_blocks(p->cache, group, chunk * p->info.blocks_per_chunk[group],
                                  chunk_blocks(p, group, chunk));
        if (r != 0) {
                warm_kv_remove(p->backend, p->weights, group, chunk);
                return false;
        }
        p->present[group][chunk] = true;
        p->bytes += bytes;
        p->budget->bytes += bytes;
        return true;
}

bool warm_kvpool_grow(struct warm_kvpool *p, uint32_t n_blocks) {
        bool grown = false;

        for (;;) {
                struct warm_cache_stats stats;
                bool added = false;

                /* n_free counts all groups together: n_blocks of each are n_groups times as many. */
                warm_cache_stats(p->cache, &stats);
                if (stats.n_free >= (uint64_t) n_blocks * p->n_groups)
                        return grown;
                for (uint32_t g = 0; g < p->n_groups; g++)
                        added |= add_chunk(p, g);
                if (!added)
                        return grown;
                grown = true;
        }
}

uint64_t warm_kvpool_shrink(struct warm_kvpool *p, uint64_t bytes_wanted) {
        uint64_t freed = 0;

        for (uint32_t g = 0; g < p->n_groups; g++)
                for (uint32_t i = p->n_chunks[g]; i > 0 && freed < bytes_wanted; i--) {
                        uint32_t chunk = i - 1;
                        uint64_t bytes = chunk_bytes(p, g, chunk);
                        int r;

                        if (!p->present[g][chunk] ||
                            warm_cache_remove_blocks(p->cache, g,
                                                     chunk * p->info.blocks_per_chunk[g],
                                                     chunk_blocks(p, g, chunk)) != 0)
                                continue;
                        r = warm_kv_remove(p->backend, p->weights, g, chunk);
                        assert(r == 0);
                        p->present[g][chunk] = false;
                        p->bytes -= bytes;
                        p->budget->bytes -= bytes;
                        freed += bytes;
                }
        return freed;
}

bool warm_kvpool_could_hold(const struct warm_kvpool *p, uint32_t n_blocks) {
        uint64_t bytes = 0;

        for (uint32_t g = 0; g < p->n_groups; g++) {
                if (n_blocks > p->n_blocks_max[g])
                        return false;
                bytes += (uint64_t) n_blocks * p->info.block_bytes[g];
        }
        return bytes <= p->budget->bytes_max;
}
