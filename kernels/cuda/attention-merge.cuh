/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs left behind becomes outputs: parts into spans, spans into the whole, in ascending order.
 */
#pragma once

#include "attention-job.cuh"

#define WARM_MERGE_WARPS_MAX 16U

/* VALUES neighbouring dimensions a lane; N parts of a span, the first at `first`, the others from `next` on. */
template <uint32_t VALUES> struct warm_merged { float max, mass, sum[VALUES]; };

template <uint32_t VALUES>
static __device__ __forceinline__ void warm_merge_load(const float *from, float *ret_values) {
        if (VALUES == 4) {
                float4 x = __ldcg((const float4 *) from);

                ret_values[0] = x.x;
                ret_values[1] = x.y;
                ret_values[2] = x.z;
                ret_values[3] = x.w;
        } else {
                ret_values[0] = __ldcg(from);
        }
}

/* How a part joins the ones before it, and what it weighs; read by all lanes at once. */
struct warm_merge_step {
        float keep, take, mass, max;
};

/*
 * The steps of up to 32 parts, lane p having part p's mark, to shared memory.
 *
 * @param max, mass of the lane's part; -infinity, 0 beyond the last
 */
static __device__ __forceinline__ void warm_merge_steps(float max, float mass,
                                                        struct warm_merge_step *steps) {
        uint32_t lane = threadIdx.x % 32;
        float upto = max, before, keep, take;

#pragma unroll
        for (uint32_t o = 1; o < 32; o *= 2) {
                float x = __shfl_up_sync(~0U, upto, o);

                upto = lane >= o ? fmaxf(upto, x) : upto;
        }
        before = __shfl_up_sync(~0U, upto, 1);
        before = lane ? before : WARM_NONE;
        warm_join(max, &before, &keep, &take);
        __syncwarp(); /* everybody has read the ones before */
        steps[lane] = { keep, take, mass, upto };
        __syncwarp();
}

/* The parts of a row's span: the first, those from next on, n in all; 0: the row has no such span. */
struct warm_merge_parts {
        uint32_t first, next, n;
};

/*
 * @param cb, ce chunks of the row's unit
 * @param n, n_runs granules and runs of a group of it
 * @param parts the row's first
 */
static __device__ __forceinline__ struct warm_merge_parts
warm_merge_find(const struct warm_schedule &s, uint32_t span, uint32_t cb, uint32_t ce, uint32_t n,
                uint32_t n_runs, uint32_t parts) {
        uint32_t first = max(span * WARM_SPAN_CHUNKS, cb),
                 last = min((span + 1) * WARM_SPAN_CHUNKS, ce);
        uint32_t from = (first >> s.shift) - (cb >> s.shift), to, next;
        struct warm_merge_parts found = {};

        if (first < last) {
                to = ((last - 1) >> s.shift) - (cb >> s.shift) + 1;
                next = min(warm_schedule_run_end(n, n_runs, from), to);
                found = { parts + from, parts + next, 1 + to - next };
        }
        return found;
}

/* Parts in global memory. */
struct warm_merge_global {
        const struct warm_job &job;
        struct warm_merge_parts parts;

        __device__ __forceinline__ uint32_t part(uint32_t p) const {
                return p ? parts.next + p - 1 : parts.first;
        }
        __device__ __forceinline__ float2 mark(uint32_t p) const {
                return __ldcg(&job.d_marks[part(p)]);
        }
        template <uint32_t VALUES>
        __device__ __forceinline__ void sums(uint32_t p, uint32_t d, float *ret_values) const {
                warm_merge_load<VALUES>(&job.d_sums[(uint64_t) part(p) * job.a.head_dim_v + d],
                                        ret_values);
        }
};

/*
 * A span by one warp, AHEAD parts on their way together.
 *
 * @param n parts that the source has @param d this lane's first dimension; dimensions beyond head_dim_v are 0
 */
template <uint32_t VALUES, uint32_t AHEAD, typename Source>
static __device__ __forceinline__ void
warm_merge_span(const struct warm_job &job, const Source &source, uint32_t n, uint32_t d,
                struct warm_merge_step *steps, struct warm_merged<VALUES> &m) {
        uint32_t lane = threadIdx.x % 32;
        float2 mark = make_float2(WARM_NONE, 0.0f);
        float values[AHEAD][VALUES];

        if (lane < n)
                mark = source.mark(lane);
        m.mass = 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < VALUES; i++)
                m.sum[i] = 0.0f;
#pragma unroll
        for (uint32_t begin = 0; begin < WARM_SPAN_CHUNKS; begin += AHEAD) {
#pragma unroll
                for (uint32_t p = 0; p < AHEAD; p++) {
#pragma unroll
                        for (uint32_t i = 0; i < VALUES; i++)
                                values[p][i] = 0.0f;
                        if (begin + p < n && d < job.a.head_dim_v)
                                source.template sums<VALUES>(begin + p, d, values[p]);
                }
                if (begin == 0)
                        warm_merge_steps(mark.x, mark.y, steps);
#pragma unroll
                for (uint32_t p = 0; p < AHEAD; p++) { /* beyond n: times 1, plus 0 times 0 */
                        struct warm_merge_step step = steps[begin + p];

                        m.mass = warm_joined(m.mass, step.mass, step.keep, step.take);
#pragma unroll
                        for (uint32_t i = 0; i < VALUES; i++)
                                m.sum[i] =
                                        warm_joined(m.sum[i], values[p][i], step.keep, step.take);
                }
        }
        m.max = steps[31].max;
}

/*
 * Join spans that lie side by side to what came before them; one warp.
 *
 * @param spans [n + 1][32 lanes]: the first what came before
 */
template <uint32_t VALUES>
static __device__ __forceinline__ void warm_merge_join(struct warm_merged<VALUES> (*spans)[32],
                                                       uint32_t n, struct warm_merge_step *steps,
                                                       struct warm_merged<VALUES> &whole) {
        uint32_t lane = threadIdx.x % 32;
        bool there = lane <= n;

        warm_merge_steps(there ? spans[lane][0].max : WARM_NONE, there ? spans[lane][0].mass : 0.0f,
                         steps);
        whole = { steps[31].max, 0.0f, {} };
        for (uint32_t w = 0; w <= n; w++) {
                struct warm_merge_step step = steps[w];

                whole.mass = warm_joined(whole.mass, step.mass, step.keep, step.take);
#pragma unroll
                for (uint32_t i = 0; i < VALUES; i++)
                        whole.sum[i] = warm_joined(whole.sum[i], spans[w][lane].sum[i], step.keep,
                                                   step.take);
        }
}

/*
 * Parts that have been read are of no more use: L2 need not write them to memory when others come into their place.
 * Where it did, a 7B layer's 16 rows at 8,192 (30 MB of parts) cost 8 us more (H100, 2026-11). One warp.
 *
 * @param d the first of 128 dimensions that no other warp reads; a line of L2 has 32
 */
static __device__ __forceinline__ void warm_merge_forget(const struct warm_merge_global &source,
                                                         uint32_t d) {
        uint32_t dim = source.job.a.head_dim_v;

        if (dim % 32)
                return;
        __syncwarp(); /* everybody has read them */
        for (uint32_t i = threadIdx.x % 32; i < source.parts.n * 4; i += 32) {
                uint64_t at = (uint64_t) source.part(i / 4) * dim + d + i % 4 * 32;

                if (d + i % 4 * 32 < dim)
                        asm volatile("discard.global.L2 [%0], 128;" ::"l"(&source.job.d_sums[at])
                                     : "memory");
        }
}

/*
 * A narrow step: block (row, head, 32 * VALUES dimensions), a warp a span; the first warp joins what all have, with
 * what it had from spans before as one more part in front.
 */
template <uint32_t VALUES>
static __global__ void __launch_bounds__(WARM_MERGE_WARPS_MAX * 32)
        warm_merge_kernel(const __grid_constant__ struct warm_job job) {
        /* All parts of four dimensions at once would leave a multiprocessor two blocks of nine warps. */
        constexpr uint32_t ahead = VALUES == 4 ? WARM_SPAN_CHUNKS / 2 : WARM_SPAN_CHUNKS;
        __shared__ struct warm_schedule s;
        __shared__ struct warm_merge_step steps[WARM_MERGE_WARPS_MAX][32];
        __shared__ struct warm_merged<VALUES> spans[WARM_MERGE_WARPS_MAX + 1][32];
        uint32_t row = blockIdx.x / job.a.n_heads, head = blockIdx.x % job.a.n_heads, unit, n,
                 n_runs;
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
        uint32_t d = (blockIdx.y * 32 + lane) * VALUES, parts, cb, ce;
        struct warm_merged<VALUES> whole = {
                WARM_NONE, 0.0f, {}
        };
        struct warm_merge_parts found;
        bool alone;

        warm_let_next_start();
        warm_schedule_make(job, true, s);
        if (row >= s.n_rows) {
                warm_wait_for_before();
                return;
        }
        for (unit = 0; row - s.units[unit].first_row >= s.units[unit].n_rows; unit++)
                ;
        n = warm_schedule_granules(s, unit, s.shift);
        n_runs = warm_schedule_runs(s, n);
        cb = s.chunk_begin[unit];
        ce = s.chunk_end[unit];
        parts = s.part_begin[unit] + ((row - s.units[unit].first_row) * job.a.n_heads + head) * n;
        alone = job.n_tiles <= 2 && n_runs == 1 &&
                cb / WARM_SPAN_CHUNKS == (ce - 1) / WARM_SPAN_CHUNKS;
        found = warm_merge_find(s, cb / WARM_SPAN_CHUNKS + warp, cb, ce, n, n_runs, parts);
        warm_wait_for_before();
        if (alone)
                return; /* one run had it all, and put it */

        for (uint32_t span = cb / WARM_SPAN_CHUNKS; span * WARM_SPAN_CHUNKS < ce; span += n_warps) {
                struct warm_merged<VALUES> part = {
                        WARM_NONE, 0.0f, {}
                };

                if (found.n) {
                        const struct warm_merge_global source = { job, found };

                        warm_merge_span<VALUES, ahead>(job, source, found.n, d, steps[warp], part);
                        if (VALUES == 4) /* where they are many */
                                warm_merge_forget(source, blockIdx.y * 128);
                }
                found = warm_merge_find(s, span + n_warps + warp, cb, ce, n, n_runs, parts);
                spans[warp + 1][lane] = part;
                if (warp == 0)
                        spans[0][lane] = whole;
                __syncthreads();
                if (warp == 0)
                        warm_merge_join<VALUES>(spans, n_warps, steps[0], whole);
                __syncthreads();
        }
        if (warp == 0 && d < job.a.head_dim_v) {
                float share = warm_share(whole.mass);
                uint16_t *to = &job.a.out.d_values[warm_cuda_act_index(
                        job.a.out, row, head * job.a.head_dim_v + d)];

                if (VALUES == 1) {
                        *to = warm_cuda_act_value(warm_output(whole.sum[0], share));
                } else {
                        warm_put(job, row, head * job.a.head_dim_v + d, whole.sum[0],
                                 whole.sum[1 % VALUES], share);
                        warm_put(job, row, head * job.a.head_dim_v + d + 2, whole.sum[2 % VALUES],
                                 whole.sum[3 % VALUES], share);
                }
        }
}

#define WARM_MERGE_AHEAD 4U /* parts on their way together */

/* A wide step whose blocks had a span each: a warp (row, head), for the rows that see more than one span. */
static __global__ void __launch_bounds__(256)
        warm_merge_wide_kernel(const __grid_constant__ struct warm_job job) {
        uint32_t lane = threadIdx.x % 32, pair = blockIdx.x * 8 + threadIdx.x / 32;
        uint32_t row = pair / job.a.n_heads, head = pair % job.a.n_heads, first, last;
        struct warm_seen seen = {};

        warm_let_next_start();
        if (row < job.a.d_counts[0])
                seen = warm_seen_of(job.a.d_rows[row], job.a.window);
        warm_wait_for_before();
        if (seen.lo >= seen.hi)
                return;
        first = seen.lo / WARM_CUDA_SPAN;
        last = (seen.hi - 1) / WARM_CUDA_SPAN;
        for (uint32_t d = lane * 4; first < last && d < job.a.head_dim_v; d += 128) {
                struct warm_merged<4> whole = {
                        WARM_NONE, 0.0f, {}
                };
                float share;

                for (uint32_t span = first; span <= last; span += WARM_MERGE_AHEAD) {
                        struct warm_merged<4> parts[WARM_MERGE_AHEAD];

#pragma unroll
                        for (uint32_t i = 0; i < WARM_MERGE_AHEAD; i++) {
                                uint64_t at = (uint64_t) pair * job.n_spans + span + i;
                                float2 mark;

                                if (span + i > last)
                                        continue;
                                mark = __ldcg(&job.d_marks[at]);
                                parts[i].max = mark.x;
                                parts[i].mass = mark.y;
                                warm_merge_load<4>(&job.d_sums[at * job.a.head_dim_v + d],
                                                   parts[i].sum);
                        }
#pragma unroll
                        for (uint32_t i = 0; i < WARM_MERGE_AHEAD; i++) {
                                float keep, take;

                                if (span + i > last)
                                        continue;
                                warm_join(parts[i].max, &whole.max, &keep, &take);
                                whole.mass = warm_joined(whole.mass, parts[i].mass, keep, take);
#pragma unroll
                                for (uint32_t v = 0; v < 4; v++)
                                        whole.sum[v] = warm_joined(whole.sum[v], parts[i].sum[v],
                                                                   keep, take);
                        }
                }
                share = warm_share(whole.mass);
                warm_put(job, row, head * job.a.head_dim_v + d, whole.sum[0], whole.sum[1], share);
                warm_put(job, row, head * job.a.head_dim_v + d + 2, whole.sum[2], whole.sum[3],
                         share);
        }
}
