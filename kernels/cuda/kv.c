/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <unistd.h>

#include "kv.h"

static int group_setup(struct warm_cuda_kv_group *g, const struct warm_cuda_memory *memory,
                       uint64_t block_bytes, uint32_t n_blocks_max) {
        uint64_t n_chunks, chunk_bytes, bytes;

        g->block_bytes = block_bytes;
        if (block_bytes == 0 || n_blocks_max == 0)
                return 0;
        assert(block_bytes % 64 == 0); /* whole tiles: kernels move 16 bytes at a time */
        g->chunk_shift = warm_kv_chunk_shift(block_bytes, n_blocks_max);
        n_chunks = ((n_blocks_max - 1) >> g->chunk_shift) + 1;
        if (__builtin_mul_overflow(block_bytes, 1ULL << g->chunk_shift, &chunk_bytes) ||
            __builtin_add_overflow(chunk_bytes, memory->granularity - 1, &chunk_bytes))
                return -ENOMEM;
        chunk_bytes &= ~(memory->granularity - 1);
        if (__builtin_mul_overflow(chunk_bytes, n_chunks, &bytes))
                return -ENOMEM;
        g->n_blocks_max = n_blocks_max;
        return warm_cuda_range_init(&g->range, memory, chunk_bytes, bytes);
}

void warm_cuda_kv_deinit(struct warm_cuda_kv_memory *kv) {
        if (kv->ready) /* the zeroing of a chunk may still be queued */
                (void) cudaStreamSynchronize(kv->stream);
        for (uint32_t i = 0; i < kv->n_groups; i++)
                warm_cuda_range_deinit(&kv->groups[i].range);
        *kv = (struct warm_cuda_kv_memory){ 0 };
}

int warm_cuda_kv_setup(struct warm_cuda_kv_memory *kv, const struct warm_cuda_memory *memory,
                       cudaStream_t stream, const struct warm_kv_config *config, uint32_t n_groups,
                       const uint64_t *block_values, struct warm_kv_info *ret_info) {
        struct warm_cuda_kv_memory made = {
                .stream = stream,
                .type = config->type,
                .n_groups = n_groups,
        };
        struct warm_kv_info info = { 0 };

        assert(n_groups <= WARM_PLAN_GROUPS_MAX);
        if (kv->ready)
                return -EEXIST;
        if (config->type != WARM_TYPE_F16 && config->type != WARM_TYPE_BF16)
                return -EINVAL;
        for (uint32_t i = 0; i < n_groups; i++) {
                uint64_t bytes;
                int r = -ENOMEM;

                if (!__builtin_mul_overflow(block_values[i], 2, &bytes))
                        r = group_setup(&made.groups[i], memory, bytes, config->n_blocks_max[i]);
                if (r) {
                        warm_cuda_kv_deinit(&made);
                        return r;
                }
                info.block_bytes[i] = bytes;
                info.blocks_per_chunk[i] = 1U << made.groups[i].chunk_shift;
        }
        *kv = made;
        kv->ready = true;
        *ret_info = info;
        return 0;
}

int warm_cuda_kv_chunk_add(struct warm_cuda_kv_memory *kv, uint32_t group, uint32_t chunk_index) {
        struct warm_cuda_range *range;
        int r;

        if (group >= kv->n_groups)
                return -ERANGE;
        range = &kv->groups[group].range;
        r = warm_cuda_range_add(range, chunk_index);
        if (r)
                return r;
        r = warm_cuda_error(
                (int) cudaMemsetAsync(range->d_base + chunk_index * range->chunk_bytes, 0,
                                      warm_cuda_range_chunk_bytes(range, chunk_index), kv->stream));
        if (r)
                (void) warm_cuda_range_remove(range, chunk_index);
        return r;
}

int warm_cuda_kv_chunk_remove(struct warm_cuda_kv_memory *kv, uint32_t group,
                              uint32_t chunk_index) {
        int r;

        if (group >= kv->n_groups || !warm_cuda_range_has(&kv->groups[group].range, chunk_index))
                return -ENOENT;
        /* its zeroing, or a step that used it before, may still be queued */
        r = warm_cuda_error((int) cudaStreamSynchronize(kv->stream));
        if (r)
                return r;
        return warm_cuda_range_remove(&kv->groups[group].range, chunk_index);
}

int warm_cuda_kv_export_fds(const struct warm_cuda_kv_memory *kv, int *fds, uint32_t n_fds_max,
                            uint32_t *ret_n_fds) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < kv->n_groups; i++)
                n += kv->groups[i].range.n_chunks;
        if (n > n_fds_max)
                return -ENOSPC;
        n = 0;
        for (uint32_t i = 0; i < kv->n_groups; i++) {
                const struct warm_cuda_range *range = &kv->groups[i].range;

                for (uint32_t c = 0; c < range->n_chunks; c++, n++) {
                        int r = 0;

                        fds[n] = -1;
                        if (warm_cuda_range_has(range, c))
                                r = warm_cuda_range_export(range, c, &fds[n]);
                        if (r) {
                                while (n-- > 0)
                                        if (fds[n] >= 0)
                                                close(fds[n]);
                                return r;
                        }
                }
        }
        *ret_n_fds = n;
        return 0;
}

/* Let go of the chunks that the first n of fds became. */
static void import_undo(struct warm_cuda_kv_memory *kv, const int *fds, uint32_t n) {
        uint32_t at = 0;

        for (uint32_t i = 0; i < kv->n_groups; i++)
                for (uint32_t c = 0; c < kv->groups[i].range.n_chunks && at < n; c++, at++)
                        if (fds[at] >= 0)
                                (void) warm_cuda_range_remove(&kv->groups[i].range, c);
}

/* Whether as many fds came as there are chunks, and each has a free place. */
static int import_check(const struct warm_cuda_kv_memory *kv, const int *fds, uint32_t n_fds) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < kv->n_groups; i++) {
                const struct warm_cuda_range *range = &kv->groups[i].range;

                for (uint32_t c = 0; c < range->n_chunks; c++, n++) {
                        if (n >= n_fds)
                                return -EINVAL;
                        if (fds[n] >= 0 && warm_cuda_range_has(range, c))
                                return -EEXIST;
                }
        }
        return n == n_fds ? 0 : -EINVAL;
}

int warm_cuda_kv_import_fds(struct warm_cuda_kv_memory *kv, const int *fds, uint32_t n_fds) {
        uint32_t n = 0;
        int r = import_check(kv, fds, n_fds);

        if (r)
                return r;
        for (uint32_t i = 0; i < kv->n_groups; i++) {
                struct warm_cuda_range *range = &kv->groups[i].range;

                for (uint32_t c = 0; c < range->n_chunks; c++, n++) {
                        if (fds[n] < 0)
                                continue;
                        r = warm_cuda_range_import(range, c, fds[n]);
                        if (r) {
                                import_undo(kv, fds, n);
                                return r;
                        }
                }
        }
        return 0;
}

struct warm_cuda_kv warm_cuda_kv_get(const struct warm_cuda_kv_memory *kv, uint32_t group) {
        const struct warm_cuda_kv_group *g = &kv->groups[group];

        return (struct warm_cuda_kv){
                .d_base = g->range.d_base,
                .chunk_bytes = g->range.chunk_bytes,
                .block_bytes = g->block_bytes,
                .chunk_shift = g->chunk_shift,
                .type = kv->type,
        };
}
