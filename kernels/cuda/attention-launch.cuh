/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of one KV type and their launches. Included by one file a type, so that they compile side by side.
 */
#pragma once

#include "attention-cluster.cuh"
#include "attention-tiles.cuh"

/* More shared memory than a kernel gets unasked; once a kernel. */
template <typename Kernel>
static int warm_attention_allow(Kernel kernel, uint32_t bytes, bool *done) {
        cudaError_t r;

        if (*done)
                return 0;
        r = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes);
        *done = r == cudaSuccess;
        return (int) r;
}

template <bool BF16, uint32_t D>
static int warm_attention_store(const struct warm_job &job, cudaStream_t stream) {
        uint32_t n_all = job.a.n_heads + 2 * job.a.n_kv_heads;
        uint64_t n_warps =
                (uint64_t) job.a.n_rows_max * ((n_all + WARM_STORE_HEADS - 1) / WARM_STORE_HEADS);

        return warm_launch(warm_store_kernel<BF16, D>, dim3((uint32_t) ((n_warps + 7) / 8)),
                           dim3(256), 0, stream, job.a.overlap, job);
}

template <bool BF16, uint32_t D, uint32_t TILES>
static int warm_attention_runs(const struct warm_job &job, cudaStream_t stream) {
        using N = warm_narrow<D, TILES>;
        static_assert(N::bytes <= WARM_CUDA_SHARED_LEAST, "a block does not fit");
        static bool allowed;
        int r = warm_attention_allow(warm_narrow_kernel<BF16, D, TILES>, N::bytes, &allowed);

        if (r)
                return r;
        return warm_launch(warm_narrow_kernel<BF16, D, TILES>, dim3(job.n_blocks),
                           dim3(WARM_ATTENTION_THREADS), N::bytes, stream, job.a.overlap, job);
}

/* Units of more pairs than warm_narrow_kernel is for; with 256 dimensions it is for all. */
template <bool BF16, uint32_t D>
static int warm_attention_tiles(const struct warm_job &job, cudaStream_t stream) {
        if constexpr (D == 256) {
                return warm_attention_runs<BF16, D, 2>(job, stream);
        } else {
                using T = warm_tiles<D>;
                static_assert(T::bytes <= WARM_CUDA_SHARED_LEAST, "a block does not fit");
                static bool allowed;
                int r = warm_attention_allow(warm_tiles_kernel<BF16, D>, T::bytes, &allowed);

                if (r)
                        return r;
                return warm_launch(warm_tiles_kernel<BF16, D>, dim3(job.n_blocks),
                                   dim3(WARM_ATTENTION_THREADS), T::bytes, stream, job.a.overlap,
                                   job);
        }
}

/* How many clusters of this kernel the device runs at once: none on a part of a GPU, say. */
template <typename Kernel> static int warm_clusters_most(Kernel kernel, uint32_t bytes) {
        cudaLaunchAttribute attribute = {};
        cudaLaunchConfig_t config = {};
        int n = 0;

        attribute.id = cudaLaunchAttributeClusterDimension;
        attribute.val.clusterDim.x = WARM_CLUSTER_BLOCKS;
        attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
        config.gridDim = dim3(WARM_CLUSTER_BLOCKS);
        config.blockDim = dim3(WARM_ATTENTION_THREADS);
        config.dynamicSmemBytes = bytes;
        config.attrs = &attribute;
        config.numAttrs = 1;
        warm_carve_out(kernel);
        if (cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1) ==
                    cudaSuccess &&
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int) bytes) == cudaSuccess &&
            cudaOccupancyMaxActiveClusters(&n, kernel, &config) == cudaSuccess)
                return n;
        (void) cudaGetLastError(); /* there are other kernels */
        return 0;
}

/* @param ret_done whether this was a step for clusters */
template <bool BF16, uint32_t D>
static int warm_attention_clusters(const struct warm_job &job, cudaStream_t stream,
                                   bool *ret_done) {
        using C = warm_cluster<D>;
        static_assert(C::bytes <= 227 << 10, "a block does not fit");
        uint32_t n = job.a.n_units_max * job.a.n_kv_heads;
        static int n_most = -1; /* asked once */

        *ret_done = false;
        if (!job.clusters)
                return 0;
        if (n_most < 0)
                n_most = warm_clusters_most(warm_cluster_kernel<BF16, D>, C::bytes);
        if (n > (uint32_t) n_most)
                return 0;
        *ret_done = true;
        return warm_launch_clusters(warm_cluster_kernel<BF16, D>, WARM_CLUSTER_BLOCKS,
                                    dim3(n * WARM_CLUSTER_BLOCKS), dim3(WARM_ATTENTION_THREADS),
                                    C::bytes, stream, job.a.overlap, job);
}

template <bool BF16, uint32_t D>
static int warm_attention_narrow(const struct warm_job &job, cudaStream_t stream) {
        uint32_t n_pairs = job.a.n_rows_max * job.a.n_heads, dim = job.a.head_dim_v,
                 n_threads = job.n_threads;
        bool done;
        int r = warm_attention_clusters<BF16, D>(job, stream, &done);

        if (r || done)
                return r;
        r = job.n_tiles == 1   ? warm_attention_runs<BF16, D, 1>(job, stream)
            : job.n_tiles == 2 ? warm_attention_runs<BF16, D, 2>(job, stream)
                               : warm_attention_tiles<BF16, D>(job, stream);

        if (r)
                return r;
        if (n_pairs * ((dim + 31) / 32) <= job.n_runs * 2)
                return warm_launch(warm_merge_kernel<1>, dim3(n_pairs, (dim + 31) / 32),
                                   dim3(n_threads), 0, stream, job.a.overlap, job);
        /* Of eight warps a multiprocessor has four blocks at once, of nine three. */
        if (n_pairs * ((dim + 127) / 128) * 2 > job.n_runs * 3)
                n_threads = min(n_threads, 256U);
        return warm_launch(warm_merge_kernel<4>, dim3(n_pairs, (dim + 127) / 128), dim3(n_threads),
                           0, stream, job.a.overlap, job);
}

template <bool BF16, uint32_t D, uint32_t TILES>
static int warm_attention_wide_tiles(const struct warm_job &job, cudaStream_t stream) {
        using W = warm_wide<D, TILES>;
        static_assert(W::bytes <= WARM_CUDA_SHARED_LEAST, "a block does not fit");
        static bool allowed;
        uint32_t n_tiles = (WARM_CUDA_UNIT_ROWS_WIDE * job.ratio + W::pairs - 1) / W::pairs;
        dim3 grid(job.a.n_units_max * job.a.n_kv_heads * n_tiles, job.n_spans ? job.n_spans : 1);
        int r = warm_attention_allow(warm_wide_kernel<BF16, D, TILES>, W::bytes, &allowed);

        if (r)
                return r;
        return warm_launch(warm_wide_kernel<BF16, D, TILES>, grid, dim3(WARM_ATTENTION_THREADS),
                           W::bytes, stream, job.a.overlap, job);
}

template <bool BF16, uint32_t D>
static int warm_attention_wide(const struct warm_job &job, cudaStream_t stream) {
        int r = job.n_warp_tiles == 1
                        ? warm_attention_wide_tiles<BF16, D, 1>(job, stream)
                        : warm_attention_wide_tiles<BF16, D, warm_attention_warp_tiles(D)>(job,
                                                                                           stream);

        if (r || !job.n_spans)
                return r;
        return warm_launch(warm_merge_wide_kernel, dim3((job.a.n_rows_max * job.a.n_heads + 7) / 8),
                           dim3(256), 0, stream, job.a.overlap, job);
}

#define WARM_ATTENTION_BY_DIMS(BF16, what)                                                         \
        [](const struct warm_job &job, cudaStream_t stream) -> int {                               \
                switch (warm_attention_dims(job.a)) {                                              \
                case 32:                                                                           \
                        return warm_attention_##what<BF16, 32>(job, stream);                       \
                case 64:                                                                           \
                        return warm_attention_##what<BF16, 64>(job, stream);                       \
                case 96:                                                                           \
                        return warm_attention_##what<BF16, 96>(job, stream);                       \
                case 128:                                                                          \
                        return warm_attention_##what<BF16, 128>(job, stream);                      \
                default:                                                                           \
                        return warm_attention_##what<BF16, 256>(job, stream);                      \
                }                                                                                  \
        }

#define WARM_ATTENTION_LAUNCHER(BF16)                                                              \
        {                                                                                          \
                WARM_ATTENTION_BY_DIMS(BF16, store), WARM_ATTENTION_BY_DIMS(BF16, narrow),         \
                        WARM_ATTENTION_BY_DIMS(BF16, wide)                                         \
        }
