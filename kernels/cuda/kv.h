/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV memory of one model on the device: for each group a reserved address range, backed chunk by chunk.
 *
 * A chunk is an exportable allocation at its place in the range. Chunks follow each other at chunk_bytes, a multiple
 * of the device's granularity; blocks_per_chunk is a power of two, so a block's address is a shift and a mask. The
 * order inside a block is in cuda.h.
 *
 * Zeroing is queued on the main stream: what is queued there afterwards sees zeros, and other streams must be
 * ordered behind it (blocks.h does).
 *
 * Owner: struct warm_weights. Thread: the engine's.
 */
#pragma once

#include "cuda.h"
#include "memory.h"

struct warm_cuda_kv_group {
        struct warm_cuda_range range; /* empty: no layer uses the group */
        uint64_t block_bytes;
        uint32_t chunk_shift; /* log2 of the blocks a chunk */
        uint32_t n_blocks_max;
};

struct warm_cuda_kv_memory {
        bool ready;
        cudaStream_t stream; /* the main one, borrowed */
        enum warm_type type;
        uint32_t n_groups;
        struct warm_cuda_kv_group groups[WARM_PLAN_GROUPS_MAX];
};

/* Give all memory back; nothing on the device may use it any more. Takes an all-zero one. */
void warm_cuda_kv_deinit(struct warm_cuda_kv_memory *kv);

/*
 * Reserve the ranges.
 *
 * @param stream the main one; borrowed until deinit
 * @param block_values [n_groups] values (not bytes) a block of each group holds, a multiple of 32
 * Return: 0; -ENOMEM; -EINVAL: the type cannot hold KV here; -EEXIST: done before; WARM_BACKEND_E_LOST.
 */
int warm_cuda_kv_setup(struct warm_cuda_kv_memory *kv, const struct warm_cuda_memory *memory,
                       cudaStream_t stream, const struct warm_kv_config *config, uint32_t n_groups,
                       const uint64_t *block_values, struct warm_kv_info *ret_info);

/* As warm_kv_add() and warm_kv_remove() in backend.h; also WARM_BACKEND_E_LOST. */
int warm_cuda_kv_chunk_add(struct warm_cuda_kv_memory *kv, uint32_t group, uint32_t chunk_index);
int warm_cuda_kv_chunk_remove(struct warm_cuda_kv_memory *kv, uint32_t group, uint32_t chunk_index);

/* As warm_kv_export() and warm_kv_import() in backend.h; also WARM_BACKEND_E_LOST, -EIO. */
int warm_cuda_kv_export_fds(const struct warm_cuda_kv_memory *kv, int *fds, uint32_t n_fds_max,
                            uint32_t *ret_n_fds);
int warm_cuda_kv_import_fds(struct warm_cuda_kv_memory *kv, const int *fds, uint32_t n_fds);

/* Whether memory stands behind a block. */
static inline bool warm_cuda_kv_has(const struct warm_cuda_kv_memory *kv, uint32_t group,
                                    uint32_t block) {
        const struct warm_cuda_kv_group *g = &kv->groups[group];

        return block < g->n_blocks_max && warm_cuda_range_has(&g->range, block >> g->chunk_shift);
}

/* What kernels need to know of a group, without block tables. */
struct warm_cuda_kv warm_cuda_kv_get(const struct warm_cuda_kv_memory *kv, uint32_t group);
