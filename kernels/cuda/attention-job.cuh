/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the attention kernels get, the parts they leave behind, and how the work of a narrow step is cut.
 *
 * A part is (m, l, O) of one row, one head and a run of chunks inside a span: mark (m, l) and head_dim_v sums.
 * Private to kernels/cuda/attention*.
 */
#pragma once

#include "attention-math.cuh"
#include "launch.cuh"

#define WARM_ATTENTION_THREADS 128U
#define WARM_WIDE_PAIRS                                                                            \
        64U /* (row, head) pairs of a wide step's block, for each tile that a warp has */
#define WARM_SPAN_CHUNKS (WARM_CUDA_SPAN / WARM_CUDA_CHUNK)
#define WARM_SPAN_SHIFT  4U /* log2 of it */

struct warm_job {
        struct warm_cuda_attention a;
        uint32_t ratio; /* query heads a KV head */
        float q_factor;
        float cap;          /* capped scores: tanh times this; 0: no cap */
        uint16_t *d_q;      /* [n_rows][n_heads][head_dim_k] in the KV type */
        float *d_sums;      /* parts: [n_parts][head_dim_v]; or a wide step's totals */
        float2 *d_marks;    /* [n_parts] */
        uint32_t n_parts;   /* room for so many */
        uint32_t n_runs;    /* narrow: blocks that share the work */
        uint32_t n_threads; /* narrow: of a merging block */

        /*
         * Narrow: tiles of 16 (row, head) pairs that a block takes at a time at most. With 1 it makes q, K and V
         * itself; otherwise, and in a wide step, there is a store kernel.
         */
        uint32_t n_tiles;

        bool clusters; /* narrow: they may do it */

        /* Wide: parts a (row, head), by absolute span; 0: each block goes through all its spans. */
        uint32_t n_spans;
        uint32_t n_warp_tiles; /* wide: tiles of 16 pairs that a warp has */
};

/* Rows and units of a narrow step, and how much work each unit is; in shared memory. */
struct warm_schedule {
        struct warm_seen seen[WARM_CUDA_NARROW];
        uint32_t slots[WARM_CUDA_NARROW];
        uint32_t sequences[WARM_CUDA_NARROW];
        struct warm_cuda_unit units[WARM_CUDA_NARROW];
        uint32_t chunk_begin
                [WARM_CUDA_NARROW]; /* chunks that a row of the unit sees or is stored in */
        uint32_t chunk_end[WARM_CUDA_NARROW];
        uint32_t
                work_begin[WARM_CUDA_NARROW]; /* in granules; a unit's: [KV head][group][granule] */
        uint32_t part_begin[WARM_CUDA_NARROW]; /* a unit's: [row][head][granule] */
        uint32_t n_rows, n_units;
        uint32_t n_work;
        uint32_t share, rest; /* work of a block; the first `rest` blocks have one granule more */
        uint32_t
                shift; /* a granule is 2^shift chunks: one chunk, or a whole span where parts would not fit */
};

/* A unit's (row, head) pairs of one KV head are cut into groups of up to job.n_tiles tiles of 16. */
static __device__ __forceinline__ uint32_t warm_schedule_groups(const struct warm_job &job,
                                                                uint32_t n_rows,
                                                                uint32_t *ret_tiles) {
        uint32_t n_tiles = (n_rows * job.ratio + 15) / 16,
                 n_groups = (n_tiles + job.n_tiles - 1) / job.n_tiles;

        *ret_tiles = (n_tiles + n_groups - 1) / n_groups;
        return n_groups;
}

static __device__ __forceinline__ uint32_t warm_schedule_granules(const struct warm_schedule &s,
                                                                  uint32_t unit, uint32_t shift) {
        return ((s.chunk_end[unit] - 1) >> shift) - (s.chunk_begin[unit] >> shift) + 1;
}

/* Work and parts of all units before each one, for a granule of 2^shift chunks. Return: parts in all. One warp. */
static __device__ uint32_t warm_schedule_add_up(const struct warm_job &job, struct warm_schedule &s,
                                                uint32_t shift) {
        uint32_t lane = threadIdx.x % 32, work[2] = {}, parts[2] = {}, works, all;

        for (uint32_t i = 0; i < 2; i++) {
                uint32_t u = 2 * lane + i, n, tiles;

                if (u >= s.n_units)
                        continue;
                n = warm_schedule_granules(s, u, shift);
                work[i] =
                        job.a.n_kv_heads * warm_schedule_groups(job, s.units[u].n_rows, &tiles) * n;
                parts[i] = s.units[u].n_rows * job.a.n_heads * n;
        }
        works = work[0] + work[1];
        all = parts[0] + parts[1];
        for (uint32_t o = 1; o < 32; o *= 2) {
                uint32_t w = __shfl_up_sync(~0U, works, o), p = __shfl_up_sync(~0U, all, o);

                works += lane >= o ? w : 0;
                all += lane >= o ? p : 0;
        }
        s.work_begin[2 * lane] = works - work[1] - work[0];
        s.work_begin[2 * lane + 1] = works - work[1];
        s.part_begin[2 * lane] = all - parts[1] - parts[0];
        s.part_begin[2 * lane + 1] = all - parts[1];
        if (lane == 31) {
                s.n_work = works;
                s.share = works / job.n_runs;
                s.rest = works % job.n_runs;
                s.shift = shift;
        }
        return __shfl_sync(~0U, all, 31);
}

/* Fill the schedule; the whole block calls it, before warm_wait_for_before(). */
static __device__ void warm_schedule_make(const struct warm_job &job, struct warm_schedule &s) {
        for (uint32_t r = threadIdx.x; r < job.a.n_rows_max; r += blockDim.x) {
                struct warm_cuda_row row = job.a.d_rows[r];

                s.seen[r] = warm_seen_of(row, job.a.window);
                s.slots[r] = row.slot;
                s.sequences[r] = row.sequence;
        }
        for (uint32_t u = blockDim.x - 1 - threadIdx.x; u < job.a.n_units_max; u += blockDim.x)
                s.units[u] = job.a.d_units[u];
        if (threadIdx.x == 0) {
                s.n_rows = job.a.d_counts[0];
                s.n_units = job.a.d_counts[1];
        }
        __syncthreads();
        if (threadIdx.x < 32) {
                for (uint32_t u = threadIdx.x; u < s.n_units; u += 32) {
                        uint32_t begin = UINT32_MAX, end = 0;

                        for (uint32_t i = 0; i < s.units[u].n_rows; i++) {
                                uint32_t r = s.units[u].first_row + i;
                                bool any = s.seen[r].lo < s.seen[r].hi;

                                begin = min(begin,
                                            any ? min(s.seen[r].lo, s.slots[r]) : s.slots[r]);
                                end = max(end,
                                          any ? max(s.seen[r].hi, s.slots[r] + 1) : s.slots[r] + 1);
                        }
                        s.chunk_begin[u] = begin / WARM_CUDA_CHUNK;
                        s.chunk_end[u] = (end - 1) / WARM_CUDA_CHUNK + 1;
                }
                __syncwarp();
                if (warm_schedule_add_up(job, s, 0) > job.n_parts) {
                        __syncwarp();
                        warm_schedule_add_up(job, s, WARM_SPAN_SHIFT);
                }
        }
        __syncthreads();
}

/* Where block b's work begins. */
static __device__ __forceinline__ uint32_t warm_schedule_cut(const struct warm_schedule &s,
                                                             uint32_t b) {
        return b * s.share + min(b, s.rest);
}

/* Where the run ends that has this granule. */
static __device__ __forceinline__ uint32_t warm_schedule_run_end(const struct warm_schedule &s,
                                                                 uint32_t granule) {
        uint32_t first = s.rest * (s.share + 1), at;

        if (granule < first)
                return granule + s.share + 1 - granule % (s.share + 1);
        at = granule - first;
        return first + at + s.share - at % s.share;
}

/* Two neighbouring outputs as activations hold them. */
static __device__ __forceinline__ uint32_t warm_act_pair(float sum0, float sum1, float share) {
        return warm_cuda_act_value(warm_output(sum0, share)) |
               (uint32_t) warm_cuda_act_value(warm_output(sum1, share)) << 16;
}

static __device__ __forceinline__ void warm_put(const struct warm_job &job, uint32_t row,
                                                uint32_t column, float sum0, float sum1,
                                                float share) {
        *(uint32_t *) &job.a.out.d_values[warm_cuda_act_index(job.a.out, row, column)] =
                warm_act_pair(sum0, sum1, share);
}

/* A block table's entry for the 32 slots from slot on. */
static __device__ __forceinline__ uint32_t warm_block_of(const struct warm_cuda_kv &kv,
                                                         uint32_t sequence, uint32_t slot) {
        return __ldg(&kv.d_tables[(uint64_t) sequence * kv.table_ld + slot / WARM_BLOCK_TOKENS]);
}

/* What launches one type's kernels. */
struct warm_attention_launcher {
        int (*store)(const struct warm_job &job, cudaStream_t stream);
        int (*narrow)(const struct warm_job &job, cudaStream_t stream);
        int (*wide)(const struct warm_job &job, cudaStream_t stream);
};

extern const struct warm_attention_launcher warm_attention_f16, warm_attention_bf16;

/* Room for D dimensions in registers and shared memory: what head dimensions are rounded up to. */
static inline uint32_t warm_attention_dims(const struct warm_cuda_attention &a) {
        uint32_t d = a.head_dim_k > a.head_dim_v ? a.head_dim_k : a.head_dim_v;

        return d <= 32 ? 32 : d <= 64 ? 64 : d <= 96 ? 96 : d <= 128 ? 128 : 256;
}

/* Tiles of 16 pairs that a narrow step's block takes at most: what their sums may take of the registers. */
static constexpr uint32_t warm_attention_tiles(uint32_t dims) {
        return dims == 256 ? 2 : 4;
}

/* The same of a wide step's warp. */
static constexpr uint32_t warm_attention_warp_tiles(uint32_t dims) {
        return dims == 256 ? 1 : 2;
}
