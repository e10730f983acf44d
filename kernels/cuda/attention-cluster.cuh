/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A narrow step of few units that are not deep: what decoding for one user is. A cluster has a unit and KV head, each of
 * its blocks a chunk. A block leaves its part of a (row, head) pair in the shared memory of the block that merges the
 * pair. So there is no second kernel to wait for, and who does not merge may end at once.
 *
 * Every chunk leaves a part, and they are merged as attention.h says: the same bits as by the other kernels. Several
 * chunks a block were slower than runs where it read the parts of others (1.5B at 2,048 and 8,192 on an H200: 1,288 and
 * 1,312 instead of 1,214 and 1,309 us a token, 2026-11); now two are as fast at 2,048 as runs are, and cost a shallow
 * step 30 us.
 */
#pragma once

#include "attention-merge.cuh"
#include "attention-narrow.cuh"
#include "cluster.cuh"

#define WARM_CLUSTER_BLOCKS 16U /* as many as pairs that a tile has, and as a span has chunks */

/* Byte offsets in shared memory; first what the other narrow kernel has. */
template <uint32_t D> struct warm_cluster {
        using N = warm_narrow<D, 1>;
        static constexpr uint32_t marks = (N::bytes + 15) / 16 * 16; /* [16 chunks] */
        static constexpr uint32_t sums =
                marks + 16 * (uint32_t) sizeof(float2); /* [chunks][head_dim_v] */
        static constexpr uint32_t bytes = sums + 16 * D * (uint32_t) sizeof(float);

        static constexpr uint32_t steps = 0; /* [32], in K's place, when it has been used */
        static_assert(steps + 32 * sizeof(struct warm_merge_step) <= N::q, "no room to merge");
};

/* The parts, in this block's shared memory. */
struct warm_merge_shared {
        const float2 *marks;
        const float *all; /* [parts][dim] */
        uint32_t dim;

        __device__ __forceinline__ float2 mark(uint32_t p) const { return marks[p]; }
        template <uint32_t VALUES>
        __device__ __forceinline__ void sums(uint32_t p, uint32_t d, float *ret_values) const {
                float4 x = *(const float4 *) (all + p * dim + d);

                static_assert(VALUES == 4, "four at a time");
                ret_values[0] = x.x;
                ret_values[1] = x.y;
                ret_values[2] = x.z;
                ret_values[3] = x.w;
        }
};

/* The chunk's part of each pair, to the block that merges the pair. */
template <uint32_t D>
static __device__ __forceinline__ void
warm_cluster_leave(const struct warm_job &job, uint32_t rank, uint32_t n_m, const float *max,
                   const float *mass, const float (*sum)[4], uint8_t *shared) {
        using C = warm_cluster<D>;
        uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, dim = job.a.head_dim_v;

#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
                uint32_t m = half * 8 + g, there;

                if (m >= n_m)
                        continue;
                there = warm_cluster_at(warm_shared(shared), m);
                if (threadIdx.x < 32 && t == 0)
                        warm_cluster_store(there + C::marks + rank * (uint32_t) sizeof(float2),
                                           max[half], mass[half * 2]);
                there += C::sums + (rank * dim + t * 2) * (uint32_t) sizeof(float);
#pragma unroll
                for (uint32_t n = 0; n < C::N::columns; n++) {
                        uint32_t d = (threadIdx.x / 32 * C::N::columns + n) * 8;

                        if (d < dim)
                                warm_cluster_store(there + d * (uint32_t) sizeof(float),
                                                   sum[n][half * 2], sum[n][half * 2 + 1]);
                }
        }
}

/*
 * Merge a pair's parts, and put its outputs; one warp. Slots up to WARM_CLUSTER_BLOCKS chunks are one span, which is the
 * whole: joined to nothing it would stay what it is.
 */
template <uint32_t D>
static __device__ __forceinline__ void warm_cluster_merge(const struct warm_job &job, uint32_t row,
                                                          uint32_t head, uint32_t n_parts,
                                                          uint8_t *shared) {
        using C = warm_cluster<D>;
        static_assert(WARM_CLUSTER_BLOCKS == WARM_SPAN_CHUNKS, "more than a span");
        uint32_t dim = job.a.head_dim_v;
        const struct warm_merge_shared parts = { (const float2 *) (shared + C::marks),
                                                 (const float *) (shared + C::sums), dim };

        for (uint32_t d = threadIdx.x * 4; d / 128 * 128 < dim; d += 128) {
                struct warm_merged<4> whole;
                float share;

                warm_merge_span<4, WARM_SPAN_CHUNKS>(job, parts, n_parts, d,
                                                     (struct warm_merge_step *) (shared + C::steps),
                                                     whole);
                share = warm_share(whole.mass);
                if (d >= dim)
                        continue;
                warm_put(job, row, head * dim + d, whole.sum[0], whole.sum[1], share);
                warm_put(job, row, head * dim + d + 2, whole.sum[2], whole.sum[3], share);
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
        if (job.a.head_dim_k < D)
                warm_tiles_clear(shared, N::p);
        warm_schedule_make(job, false, s);
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
        warm_cluster_announce();
        if (run.begin < ce) {
                float max[1][2], sum[1][D / 32][4], mass[1][4];
                uint2 blocks = {};

                warm_narrow_begin<BF16, D, 1>(job, s, run, shared);
                warm_narrow_chunk<BF16, D, 1>(job, s, run, run.begin, blocks, shared, max, sum,
                                              mass);
                warm_cluster_await();
                warm_cluster_leave<D>(job, rank, run.n_m, max[0], mass[0], sum[0], shared);
        } else {
                warm_wait_for_before();
                warm_cluster_await();
        }
        warm_cluster_meet();
        if (rank < run.n_m && threadIdx.x < 32)
                warm_cluster_merge<D>(job, s.units[run.unit].first_row + rank / job.ratio,
                                      run.kv_head * job.ratio + rank % job.ratio, ce - cb, shared);
}
