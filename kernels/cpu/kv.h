/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV memory of one model: for each group a reserved address range, backed chunk by chunk.
 *
 * A chunk is a sealed memfd (its size can never change, so a map of it never faults on a truncation) mapped at its
 * place in the range. Chunks follow each other at chunk_bytes, a multiple of the page size; blocks_per_chunk is a
 * power of two, so a block's address is a shift and a mask.
 *
 * Order of a block: for each layer of the group, first the K tiles of all its KV heads, then the V tiles.
 * K tile [head_dim_k][32 tokens], V tile [32 tokens][head_dim_v], elements of the configured type. So a vector of K
 * holds one dimension of many tokens, and a vector of V many dimensions of one token: what scores and sums want.
 *
 * Owner: struct warm_weights. Thread: the engine's for all calls; workers read addresses during a step.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

struct warm_kv_group {
        uint8_t *base; /* [n_chunks_max * chunk_bytes], or NULL: no layer uses the group */
        uint64_t block_bytes;
        uint64_t chunk_bytes;
        uint32_t chunk_shift; /* log2 of the blocks a chunk */
        uint32_t n_blocks_max;
        uint32_t n_chunks_max;
        int *fds; /* [n_chunks_max]; -1: not backed */
};

struct warm_kv {
        bool ready;
        enum warm_type type;
        uint32_t n_groups;
        struct warm_kv_group groups[WARM_PLAN_GROUPS_MAX];
};

void warm_kv_deinit(struct warm_kv *kv);

/*
 * Reserve the ranges.
 *
 * @param block_values [n_groups] values (not bytes) a block of each group holds
 * Return: 0; -ENOMEM; -EINVAL: the type cannot hold KV; -EEXIST: done before.
 */
int warm_kv_setup(struct warm_kv *kv, const struct warm_kv_config *config, uint32_t n_groups,
                  const uint64_t *block_values, struct warm_kv_info *ret_info);

/* As warm_kv_add() and warm_kv_remove() in backend.h. */
int warm_kv_chunk_add(struct warm_kv *kv, uint32_t group, uint32_t chunk_index);
int warm_kv_chunk_remove(struct warm_kv *kv, uint32_t group, uint32_t chunk_index);

/* As warm_kv_export() and warm_kv_import() in backend.h. */
int warm_kv_export_fds(struct warm_kv *kv, int *fds, uint32_t n_fds_max, uint32_t *ret_n_fds);
int warm_kv_import_fds(struct warm_kv *kv, const int *fds, uint32_t n_fds);

/* Hash of a block's bytes. Return: 0; -ENOENT: not backed. */
int warm_kv_block_sum(const struct warm_kv *kv, uint32_t group, uint32_t block, uint64_t *ret_sum);

/* Whether memory stands behind a block. */
static inline bool warm_kv_has(const struct warm_kv *kv, uint32_t group, uint32_t block) {
        const struct warm_kv_group *g = &kv->groups[group];

        return block < g->n_blocks_max && g->fds[block >> g->chunk_shift] >= 0;
}

/* The address of a block that warm_kv_has(). */
static inline uint8_t *warm_kv_block(const struct warm_kv *kv, uint32_t group, uint32_t block) {
        const struct warm_kv_group *g = &kv->groups[group];
        uint64_t within = block & ((1U << g->chunk_shift) - 1);

        return g->base + (block >> g->chunk_shift) * g->chunk_bytes + within * g->block_bytes;
}
