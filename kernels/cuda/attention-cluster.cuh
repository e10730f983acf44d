/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A narrow step of few units that are not deep: what decoding for one user is. A cluster has a unit and KV head, each of
 * its blocks a chunk; parts stay in shared memory, from where the cluster's own blocks merge them, a (row, head) pair a
 * block. So there is no second kernel to wait for.
 *
 * Every chunk leaves a part, and they are merged as attention.h says: the same bits as by the other kernels. Several
 * chunks a block were slower than runs (1.5B at 2,048 and 8,192 on an H200: 1,288 and 1,312 instead of 1,214 and
 * 1,309 us a token, 2026-11).
 */
#pragma once

#include "attention-merge.cuh"
#include "attention-narrow.cuh"
#include "cluster.cuh"

#define WARM_CLUSTER_BLOCKS 16U /* as many as pairs that a tile has */

/* Byte offsets in shared memory; first what the other narrow kernel has. */
template <uint32_t D> struct warm_cluster {
        using N = warm_narrow<D, 1>;
        static constexpr uint32_t marks = (N::bytes + 15) / 16 * 16; /* [16 pairs] */
        static constexpr uint32_t sums =
                marks + 16 * (uint32_t) sizeof(float2); /* [pairs][head_dim_v] */
        static constexpr uint32_t bytes = sums + 16 * D * (uint32_t) sizeof(float);

        /* In K's and V's place, when all have been used. */
        static constexpr uint32_t addresses = 0; /* [2 spans][32] */
        static constexpr uint32_t steps = addresses + 2 * 32 * 4;
        static constexpr uint32_t spans =
                steps + 2 * 32 * (uint32_t) sizeof(struct warm_merge_step);
        static_assert(spans + 3 * 32 * sizeof(struct warm_merged<4>) <= N::q, "no room to merge");
};

/* A span's parts in the cluster's shared memory, lane p of a warp knowing where part p is. */
struct warm_merge_cluster {
        uint32_t mark_at;
        const uint32_t *sums_at; /* [32], in shared memory */

        __device__ __forceinline__ float2 mark(uint32_t) const {
                return warm_cluster_load2(mark_at);
        }
        template <uint32_t VALUES>
        __device__ __forceinline__ void sums(uint32_t p, uint32_t d, float *ret_values) const {
                float4 x = warm_cluster_load4(sums_at[p] + d * (uint32_t) sizeof(float));

                static_assert(VALUES == 4, "four at a time");
                ret_values[0] = x.x;
                ret_values[1] = x.y;
                ret_values[2] = x.z;
                ret_values[3] = x.w;
        }
};

/* Where a pair's parts are, that blocks from `first` on have; n of them. */
template <uint32_t D>
static __device__ __forceinline__ struct warm_merge_cluster
warm_cluster_find(uint32_t first, uint32_t n, uint32_t m, uint32_t dim, uint8_t *shared) {
        using C = warm_cluster<D>;
        uint32_t lane = threadIdx.x % 32, rank = first + min(lane, n - 1),
                 *sums_at = (uint32_t *) (shared + C::addresses) + threadIdx.x / 32 * 32;

        sums_at[lane] = warm_cluster_at(warm_shared(shared) + C::sums + m * dim * 4, rank);
        __syncwarp();
        return { warm_cluster_at(warm_shared(shared) + C::marks + m * 8, rank), sums_at };
}

/* The chunk's part of each pair, to this block's shared memory. */
template <uint32_t D>
static __device__ __forceinline__ void warm_cluster_leave(const struct warm_job &job, uint32_t n_m,
                                                          const float *max, const float *mass,
                                                          const float (*sum)[4], uint8_t *shared) {
        using C = warm_cluster<D>;
        uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, dim = job.a.head_dim_v;

#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
                uint32_t m = half * 8 + g;
                float *to = (float *) (shared + C::sums) + m * dim;

                if (m >= n_m)
                        continue;
                if (threadIdx.x < 32 && t == 0)
                        ((float2 *) (shared + C::marks))[m] =
                                make_float2(max[half], mass[half * 2]);
#pragma unroll
                for (uint32_t n = 0; n < C::N::columns; n++) {
                        uint32_t d = (threadIdx.x / 32 * C::N::columns + n) * 8;

                        if (d < dim)
                                *(float2 *) (to + d + t * 2) =
                                        make_float2(sum[n][half * 2], sum[n][half * 2 + 1]);
                }
        }
}

/*
 * Merge a pair's parts, a warp a span (16 chunks are in two at most), and put its outputs.
 *
 * @param cb, ce chunks of the unit
 */
template <uint32_t D>
static __device__ __forceinline__ void warm_cluster_merge(const struct warm_job &job, uint32_t row,
                                                          uint32_t head, uint32_t m, uint32_t cb,
                                                          uint32_t ce, uint8_t *shared) {
        using C = warm_cluster<D>;
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, dim = job.a.head_dim_v;
        uint32_t span = cb / WARM_SPAN_CHUNKS + warp, first = max(span * WARM_SPAN_CHUNKS, cb),
                 end = min((span + 1) * WARM_SPAN_CHUNKS, ce);
        auto *steps = (struct warm_merge_step(*)[32])(shared + C::steps);
        auto *spans = (struct warm_merged<4>(*)[32])(shared + C::spans);

        for (uint32_t d = lane * 4; d / 128 * 128 < dim; d += 128) {
                const struct warm_merged<4> none = {
                        WARM_NONE, 0.0f, {}
                };
                struct warm_merged<4> part = none;

                if (warp < 2 && first < end)
                        warm_merge_span<4>(
                                job, warm_cluster_find<D>(first - cb, end - first, m, dim, shared),
                                end - first, d, steps[warp], part);
                if (warp < 2)
                        spans[warp + 1][lane] = part;
                if (warp == 0)
                        spans[0][lane] = none;
                __syncthreads();
                if (warp == 0) {
                        float share;

                        warm_merge_join<4>(spans, 2, steps[0], part);
                        share = warm_share(part.mass);
                        if (d < dim) {
                                warm_put(job, row, head * dim + d, part.sum[0], part.sum[1], share);
                                warm_put(job, row, head * dim + d + 2, part.sum[2], part.sum[3],
                                         share);
                        }
                }
                __syncthreads();
        }
}

template <bool BF16, uint32_t D>
static __global__ void __launch_bounds__(WARM_ATTENTION_THREADS, 2)
        warm_cluster_kernel(const __grid_constant__ struct warm_job job) {
        using N = warm_narrow<D, 1>;
        extern __shared__ __align__(1024) uint8_t shared[];
        struct warm_schedule &s = *(struct warm_schedule *) (shared + N::schedule);
        uint32_t rank = warm_cluster_rank(), index = blockIdx.x / WARM_CLUSTER_BLOCKS, cb, ce;
        struct warm_run run = {};

        warm_let_next_start();
        if (job.a.head_dim_k < D) /* dimensions beyond it are multiplied too */
                for (uint32_t i = threadIdx.x; i < N::p / 16; i += WARM_ATTENTION_THREADS)
                        ((uint4 *) shared)[i] = make_uint4(0, 0, 0, 0);
        warm_schedule_make(job, s);
        run.unit = index / job.a.n_kv_heads;
        run.kv_head = index % job.a.n_kv_heads;
        if (run.unit >= s.n_units) {
                warm_wait_for_before();
                return;
        }
        cb = s.chunk_begin[run.unit];
        ce = s.chunk_end[run.unit];
        run.n_m = s.units[run.unit].n_rows * job.ratio;
        run.begin = cb + rank;
        run.end = min(run.begin + 1, ce);
        run.stores = true;
        warm_run_find_fresh(s, run);
        if (run.begin < ce) {
                float max[1][2], sum[1][D / 32][4], mass[1][4];
                uint2 blocks = {};

                warm_narrow_begin<BF16, D, 1>(job, s, run, true, shared);
                warm_narrow_chunk<BF16, D, 1>(job, s, run, run.begin, blocks, shared, max, sum,
                                              mass);
                warm_cluster_leave<D>(job, run.n_m, max[0], mass[0], sum[0], shared);
        } else {
                warm_wait_for_before();
        }
        warm_cluster_meet();
        if (rank < run.n_m)
                warm_cluster_merge<D>(job, s.units[run.unit].first_row + rank / job.ratio,
                                      run.kv_head * job.ratio + rank % job.ratio, rank, cb, ce,
                                      shared);
        warm_cluster_meet(); /* nobody leaves while others may still read its parts */
}
