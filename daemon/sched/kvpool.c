/* SPDX-License-Identifier: Apache-2.0 */
#include "sched/kvpool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define CONTEXTS_DEFAULT 16U /* the default, untuned */

/* A snapshot every 16 blocks, as many again for the seams of shorter prompts (untuned guess). */
#define BLOCKS_PER_STATE 8U
/* The running state, and the three seams of a prompt. */
#define STATES_OF_ONE 4U

uint32_t warm_kvpool_states(uint32_t n_blocks) {
        return n_blocks / BLOCKS_PER_STATE + STATES_OF_ONE;
}

static int kv_bytes(const struct warm_plan_layer *l, enum warm_type type, uint64_t *ret_bytes) {
        uint64_t values = (uint64_t) l->n_kv_heads * ((uint64_t) l->head_dim_k + l->head_dim_v) *
                          WARM_BLOCK_TOKENS;

        if (l->mixer != WARM_MIXER_ATTENTION || warm_type_row_bytes(type, values, ret_bytes) < 0)
                return -EOPNOTSUPP;
        return 0;
}

static int state_bytes(const struct warm_plan_layer *l, uint64_t *ret_bytes) {
        /* The convolution runs over each head's values and each KV head's two vectors (B and C, or q and k). */
        uint64_t channels = (uint64_t) l->n_heads * l->state_cols +
                            (uint64_t) l->n_kv_heads * l->state_rows * 2;
        uint64_t inputs = l->conv_width > 0 ? l->conv_width - 1 : 0;

        if (l->mixer == WARM_MIXER_ATTENTION || l->mixer == WARM_MIXER_LATENT_ATTENTION)
                return -EOPNOTSUPP;
        *ret_bytes = ((uint64_t) l->n_heads * l->state_rows * l->state_cols + inputs * channels) *
                     sizeof(float);
        return 0;
}

int warm_kvpool_block_bytes(const struct warm_plan *plan, uint32_t group, enum warm_type type,
                            uint64_t *ret_bytes) {
        uint64_t sum = 0;

        for (uint32_t i = 0; i < plan->n_layers; i++) {
                const struct warm_plan_layer *l = &plan->layers[i];
                uint64_t bytes;
                int r;

                if (l->group != group || l->kv_source >= 0)
                        continue;
                r = plan->groups[group].state ? state_bytes(l, &bytes) : kv_bytes(l, type, &bytes);
                if (r < 0)
                        return r;
                sum += bytes;
        }
        if (sum == 0)
                return -EOPNOTSUPP;
        *ret_bytes = sum;
        return 0;
}

/* Of n_blocks of each group. Return: 0 if a group cannot be told. */
static uint64_t bytes_of_all(const struct warm_plan *plan, enum warm_type type, uint32_t n_blocks) {
        uint64_t sum = 0;

        for (uint32_t g = 0; g < plan->n_groups; g++) {
                uint64_t bytes;

                if (warm_kvpool_block_bytes(plan, g, type, &bytes) != 0)
                        return 0;
                sum += bytes * (plan->groups[g].state ? warm_kvpool_states(n_blocks) : n_blocks);
        }
        return sum;
}

uint64_t warm_kvpool_context_bytes(const struct warm_plan *plan, uint32_t n_context,
                                   enum warm_type type) {
        /* A sequence takes one block more for the tail it copies. */
        uint32_t n_blocks = (n_context + WARM_BLOCK_TOKENS - 1) / WARM_BLOCK_TOKENS + 1;

        return bytes_of_all(plan, type, n_blocks);
}

uint64_t warm_kvpool_default_bytes(const struct warm_plan *plan, uint32_t n_context,
                                   enum warm_type type, uint64_t memory_free) {
        uint64_t context = warm_kvpool_context_bytes(plan, n_context, type);
        uint64_t bytes = context * CONTEXTS_DEFAULT;

        if (bytes > memory_free / 4)
                bytes = memory_free / 4;
        return bytes > context ? bytes : context;
}

static uint32_t blocks_of(const struct warm_kvpool *p, uint32_t group, uint32_t n_blocks) {
        return p->state[group] ? warm_kvpool_states(n_blocks) : n_blocks;
}

int warm_kvpool_init(struct warm_kvpool *p, struct warm_backend *backend,
                     struct warm_weights *weights, const struct warm_plan *plan,
                     enum warm_type type, uint64_t bytes_max, struct warm_kv_budget *budget) {
        struct warm_kv_config config = { .type = type };
        /* What there is at any size, and what each BLOCKS_PER_STATE blocks more bring. */
        uint64_t fixed = bytes_of_all(plan, type, 0), n_blocks;
        uint64_t each = bytes_of_all(plan, type, BLOCKS_PER_STATE) - fixed;
        int r;

        *p = (struct warm_kvpool){
                .backend = backend, .weights = weights, .budget = budget, .n_groups = plan->n_groups
        };
        if (each == 0)
                return -EOPNOTSUPP;
        if (bytes_max > UINT64_MAX / BLOCKS_PER_STATE)
                bytes_max = UINT64_MAX / BLOCKS_PER_STATE;
        n_blocks = bytes_max > fixed ? (bytes_max - fixed) * BLOCKS_PER_STATE / each : 0;
        if (n_blocks == 0)
                return -EINVAL;
        if (n_blocks > UINT32_MAX / 2)
                n_blocks = UINT32_MAX / 2;
        for (uint32_t g = 0; g < p->n_groups; g++) {
                p->state[g] = plan->groups[g].state;
                p->n_blocks_max[g] = blocks_of(p, g, (uint32_t) n_blocks);
                config.n_blocks_max[g] = p->n_blocks_max[g];
        }
        r = warm_kv_init(backend, weights, &config, &p->info);
        if (r != 0)
                return r;
        for (uint32_t g = 0; g < p->n_groups; g++) {
                uint32_t per_chunk = p->info.blocks_per_chunk[g];

                assert(per_chunk > 0);
                p->n_chunks[g] =
                        (uint32_t) (((uint64_t) p->n_blocks_max[g] + per_chunk - 1) / per_chunk);
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
        bool grown = false, added = true;

        while (added) {
                added = false;
                for (uint32_t g = 0; g < p->n_groups; g++)
                        if (warm_cache_n_free(p->cache, g) < blocks_of(p, g, n_blocks))
                                added |= add_chunk(p, g);
                grown |= added;
        }
        return grown;
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

uint64_t warm_kvpool_bytes(const struct warm_kvpool *p, uint32_t n_blocks) {
        uint64_t bytes = 0;

        for (uint32_t g = 0; g < p->n_groups; g++)
                bytes += (uint64_t) blocks_of(p, g, n_blocks) * p->info.block_bytes[g];
        return bytes;
}

bool warm_kvpool_could_hold(const struct warm_kvpool *p, uint32_t n_blocks) {
        for (uint32_t g = 0; g < p->n_groups; g++)
                if (blocks_of(p, g, n_blocks) > p->n_blocks_max[g])
                        return false;
        return warm_kvpool_bytes(p, n_blocks) <= p->budget->bytes_max;
}
