/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KV memory of one model: how many blocks it may have, which chunks have memory now.
 *
 * Chunks are added one by one when a prompt needs room, up to a budget that all models share, and told to the cache;
 * giving back goes from the highest chunk down and takes what no sequence runs on. Group g's chunk c holds blocks
 * c * blocks_per_chunk[g] .. + blocks_per_chunk[g] - 1. State groups have fewer blocks than the others: n_blocks below
 * are those of 32 tokens, and as many states go with them as warm_kvpool_states() says.
 *
 * Owner: the engine, one a model. Thread: engine (init: main).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "kernels/backend.h"

/* What all models may have together. */
struct warm_kv_budget {
        uint64_t bytes_max;
        uint64_t bytes;   /* in chunks that have memory */
        uint64_t n_short; /* times that the device had no memory for a chunk within the ceiling */
};

struct warm_kvpool {
        struct warm_backend *backend; /* borrowed */
        struct warm_weights *weights; /* borrowed */
        struct warm_cache *cache;     /* borrowed */
        struct warm_kv_budget *budget;
        struct warm_kv_info info;
        uint32_t n_groups;
        bool state[WARM_PLAN_GROUPS_MAX];            /* a block is a state */
        uint32_t n_chunks[WARM_PLAN_GROUPS_MAX];     /* of the address range */
        uint32_t n_blocks_max[WARM_PLAN_GROUPS_MAX]; /* of the address range */
        bool *present[WARM_PLAN_GROUPS_MAX];         /* [n_chunks[g]] has memory */
        uint64_t bytes;
};

/*
 * Bytes of one block of a group by the plan alone: every layer of it that keeps its own K and V; in a state group
 * the matrix of every head and the convolution's last inputs, in float.
 * Return: 0 and *ret_bytes; -EOPNOTSUPP: the group's layers keep something else, or nothing.
 */
int warm_kvpool_block_bytes(const struct warm_plan *plan, uint32_t group, enum warm_type type,
                            uint64_t *ret_bytes);

/* Bytes that one sequence of n_context tokens takes at most. Return: 0 if a group cannot be told. */
uint64_t warm_kvpool_context_bytes(const struct warm_plan *plan, uint32_t n_context,
                                   enum warm_type type);

/*
 * The ceiling by default: 16 contexts, at most a quarter of what is free (both untuned guesses of the issue), at least
 * one context.
 */
uint64_t warm_kvpool_default_bytes(const struct warm_plan *plan, uint32_t n_context,
                                   enum warm_type type, uint64_t memory_free);

/*
 * Reserve the address range for bytes_max. The cache is attached afterwards by setting `cache`.
 * Return: 0; -ENOMEM; -EOPNOTSUPP; -EINVAL: bytes_max holds not one block; errors of warm_kv_init().
 */
int warm_kvpool_init(struct warm_kvpool *p, struct warm_backend *backend,
                     struct warm_weights *weights, const struct warm_plan *plan,
                     enum warm_type type, uint64_t bytes_max, struct warm_kv_budget *budget);
/* Memory itself goes with the weights. Takes a zeroed pool too. */
void warm_kvpool_deinit(struct warm_kvpool *p);

/* States that go with n_blocks of 32 tokens: the running one, snapshots at seams, and those at every so many tokens. */
uint32_t warm_kvpool_states(uint32_t n_blocks);

/* Bytes of n_blocks of each group. */
uint64_t warm_kvpool_bytes(const struct warm_kvpool *p, uint32_t n_blocks);

/*
 * Add chunks until each group has n_blocks free, or no more can be had.
 * Return: true if memory was added.
 */
bool warm_kvpool_grow(struct warm_kvpool *p, uint32_t n_blocks);

/*
 * Give back every chunk that no sequence runs on, whatever it caches, highest first, until bytes_wanted were freed.
 * Return: bytes given back.
 */
uint64_t warm_kvpool_shrink(struct warm_kvpool *p, uint64_t bytes_wanted);

/* Whether n_blocks of each group could ever be had, if nothing else held memory. */
bool warm_kvpool_could_hold(const struct warm_kvpool *p, uint32_t n_blocks);
