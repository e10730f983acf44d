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
        uint32_t n_runs;    /* narrow: blocks that are to share the work */
        uint32_t n_blocks;  /* narrow: blocks; more where there are more groups than n_runs */
        uint32_t n_threads; /* narrow: of a merging block */

        /*
         * Narrow: tiles of 16 (row, head) pairs that a block takes at most. With 1 it makes q, K and V itself;
         * otherwise, and in a wide step, there is a store kernel. 4 (not with 256 dimensions): a tile a warp.
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
        uint32_t run_begin[WARM_CUDA_NARROW];  /* a unit's: [KV head][group][run] */
        uint32_t part_begin[WARM_CUDA_NARROW]; /* a unit's: [row][head][granule] */
        uint32_t n_rows, n_units, n_runs;
        uint32_t longest; /* granules a run has at most */
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

/* Runs that a group of n granules is cut into. */
static __device__ __forceinline__ uint32_t warm_schedule_runs(const struct warm_schedule &s,
                                                              uint32_t n) {
        return (n + s.longest - 1) / s.longest;
}

/* Where run i of a group begins: the first n % n_runs have a granule more. */
static __device__ __forceinline__ uint32_t warm_schedule_cut(uint32_t n, uint32_t n_runs,
                                                             uint32_t i) {
        return i * (n / n_runs) + min(i, n % n_runs);
}

/* Where the run of a group ends that has this granule. */
static __device__ __forceinline__ uint32_t warm_schedule_run_end(uint32_t n, uint32_t n_runs,
                                                                 uint32_t granule) {
        uint32_t share = n / n_runs, first = n % n_runs * (share + 1);

        if (granule < first)
                return granule + share + 1 - granule % (share + 1);
        return granule + share - (granule - first) % share;
}

/* Two numbers a lane to what all before each one add up to. Return: all. One warp. */
static __device__ __forceinline__ uint32_t warm_schedule_sums(uint32_t *numbers) {
        uint32_t lane = threadIdx.x % 32, sum = numbers[0] + numbers[1];

        for (uint32_t o = 1; o < 32; o *= 2) {
                uint32_t before = __shfl_up_sync(~0U, sum, o);

                sum += lane >= o ? before : 0;
        }
        numbers[1] = sum - numbers[1];
        numbers[0] = numbers[1] - numbers[0];
        return __shfl_sync(~0U, sum, 31);
}

/* Number all units' parts for a granule of 2^shift chunks. Return: parts in all. One warp. */
static __device__ uint32_t warm_schedule_number(const struct warm_job &job, struct warm_schedule &s,
                                                uint32_t shift) {
        uint32_t lane = threadIdx.x % 32, parts[2] = {}, all;

        for (uint32_t i = 0; i < 2; i++)
                if (2 * lane + i < s.n_units)
                        parts[i] = s.units[2 * lane + i].n_rows * job.a.n_heads *
                                   warm_schedule_granules(s, 2 * lane + i, shift);
        all = warm_schedule_sums(parts);
        s.part_begin[2 * lane] = parts[0];
        s.part_begin[2 * lane + 1] = parts[1];
        if (lane == 0)
                s.shift = shift;
        __syncwarp();
        return all;
}

/*
 * Cut all units' groups into runs, about job.n_runs and each of one group: the block that had the end of one and the
 * beginning of another was the last one that all others waited for. One warp.
 */
static __device__ void warm_schedule_share(const struct warm_job &job, struct warm_schedule &s) {
        uint32_t lane = threadIdx.x % 32, n[2] = {}, groups[2] = {}, runs[2], longest, most, all;

        for (uint32_t i = 0; i < 2; i++) {
                uint32_t tiles;

                if (2 * lane + i >= s.n_units)
                        continue;
                n[i] = warm_schedule_granules(s, 2 * lane + i, s.shift);
                groups[i] = job.a.n_kv_heads *
                            warm_schedule_groups(job, s.units[2 * lane + i].n_rows, &tiles);
        }
        most = __reduce_max_sync(~0U, max(max(n[0], n[1]), 1U)); /* of no units: not 0 */
        longest = (__reduce_add_sync(~0U, groups[0] * n[0] + groups[1] * n[1]) + job.n_runs - 1) /
                  job.n_runs;
        if (longest == 0 || __reduce_add_sync(~0U, groups[0] + groups[1]) >= job.n_runs)
                longest = most;
        for (;; longest += (longest + 7) / 8) {
                for (uint32_t i = 0; i < 2; i++)
                        runs[i] = groups[i] * ((n[i] + longest - 1) / longest);
                if (longest >= most || __reduce_add_sync(~0U, runs[0] + runs[1]) <= job.n_runs)
                        break;
        }
        all = warm_schedule_sums(runs);
        s.run_begin[2 * lane] = runs[0];
        s.run_begin[2 * lane + 1] = runs[1];
        if (lane == 0) {
                s.longest = longest;
                s.n_runs = all;
        }
}

/*
 * Fill the schedule; the whole block calls it, before warm_wait_for_before().
 *
 * @param shares runs and parts, too
 */
static __device__ __forceinline__ void warm_schedule_make(const struct warm_job &job, bool shares,
                                                          struct warm_schedule &s) {
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
                if (shares) {
                        if (warm_schedule_number(job, s, 0) > job.n_parts)
                                warm_schedule_number(job, s, WARM_SPAN_SHIFT);
                        warm_schedule_share(job, s);
                }
        }
        __syncthreads();
}

/* Zeros at the beginning of shared memory: what lies behind a head's dimensions in its tile is multiplied, too. */
static __device__ __forceinline__ void warm_tiles_clear(uint8_t *shared, uint32_t bytes) {
        for (uint32_t i = threadIdx.x; i < bytes / 16; i += WARM_ATTENTION_THREADS)
                ((uint4 *) shared)[i] = make_uint4(0, 0, 0, 0);
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

/* Tiles of 16 pairs that a wide step's warp takes at most: what their sums may take of the registers. */
static constexpr uint32_t warm_attention_warp_tiles(uint32_t dims) {
        return dims == 256 ? 1 : 2;
}
