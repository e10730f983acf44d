/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The narrow step's kernel for units of many pairs: some new tokens behind a deep context. Runs, granules and parts are
 * those of attention-narrow.cuh; but a warp has a tile of 16 (row, head) pairs to itself, all slots and all dimensions,
 * with the operations of a wide step. So weights never leave a warp's registers and nobody waits for another's scores.
 *
 * A block goes through two to four chunks. So what it waits for first is its instructions: of 8,000 of them, unrolled
 * and with every case inlined, it took 49.8 us for a 7B layer's 16 rows at 8,192, of 3,200 38.0 (H100, 2026-11).
 *
 * The store kernel has made q, K and V of this step. Chunks that have none of its rows are sent for before it is done.
 */
#pragma once

#include "attention-narrow.cuh"
#include "attention-wide.cuh"

#define WARM_TILES_WARPS (WARM_ATTENTION_THREADS / 32)

/* Byte offsets in shared memory. */
template <uint32_t D> struct warm_tiles {
        static constexpr uint32_t pairs = 16 * WARM_TILES_WARPS;
        static constexpr uint32_t q = 4 * warm_tile<D>::bytes; /* behind two stages of K and V */
        static constexpr uint32_t rows = q + pairs * warm_tile<D>::ld_bytes; /* [pairs] as below */
        static constexpr uint32_t heads = rows + pairs * 4;
        static constexpr uint32_t parts = heads + pairs * 4;
        static constexpr uint32_t bits = parts + pairs * 4; /* [2 stages][18] visible slots */
        static constexpr uint32_t schedule = bits + 2 * 18 * 8;
        static constexpr uint32_t bytes = schedule + sizeof(struct warm_schedule);

        static __device__ __forceinline__ uint32_t k(uint32_t stage) {
                return stage * 2 * warm_tile<D>::bytes;
        }
        static __device__ __forceinline__ uint32_t v(uint32_t stage) {
                return k(stage) + warm_tile<D>::bytes;
        }
};

/* What a pair of the run is: its row in the unit (16: there is no such pair), its (row, head), its first part. */
template <uint32_t D>
static __device__ __forceinline__ void
warm_tiles_pairs(const struct warm_job &job, const struct warm_schedule &s,
                 const struct warm_run &run, uint8_t *shared) {
        using T = warm_tiles<D>;
        uint32_t n = warm_schedule_granules(s, run.unit, s.shift), m = threadIdx.x;
        uint32_t row = (run.m_begin + m) / job.ratio,
                 head = run.kv_head * job.ratio + (run.m_begin + m) % job.ratio;

        if (m >= T::pairs)
                return;
        ((uint32_t *) (shared + T::rows))[m] = m < run.n_m ? row : 16;
        ((uint32_t *) (shared + T::heads))[m] =
                (s.units[run.unit].first_row + row) * job.a.n_heads + head;
        ((uint32_t *) (shared + T::parts))[m] =
                s.part_begin[run.unit] + (row * job.a.n_heads + head) * n;
}

/* Send for a chunk: two groups of copies, K and V, even where the run has no such chunk. */
template <uint32_t D>
static __device__ __forceinline__ void
warm_tiles_send(const struct warm_job &job, const struct warm_schedule &s,
                const struct warm_run &run, uint32_t chunk, uint32_t stage, uint2 blocks,
                uint8_t *shared) {
        const struct warm_cuda_attention &a = job.a;
        uint64_t *bits = (uint64_t *) (shared + warm_tiles<D>::bits) + stage * 18;
        uint64_t seen = chunk < run.end ? warm_run_look(s, run, chunk, bits) : 0;
        uint32_t to = warm_shared(shared) + warm_tiles<D>::k(stage);

#pragma unroll 1
        for (uint32_t v = 0; v < 2; v++) {
                uint32_t dim = v ? a.head_dim_v : a.head_dim_k;
                uint64_t offset = (v ? a.v_offset : a.k_offset) +
                                  (uint64_t) run.kv_head * WARM_BLOCK_TOKENS * 2 * dim;

                if (chunk < run.end)
                        warm_copy_tile<D, WARM_ATTENTION_THREADS>(
                                to + v * warm_tile<D>::bytes,
                                warm_cuda_block(a.kv, blocks.x) + offset,
                                warm_cuda_block(a.kv, blocks.y) + offset, dim, WARM_ALL_SEEN, seen);
                warm_copies_commit();
        }
}

/* The q that the store kernel left, to shared memory; not as copies on their way, which would arrive after K and V. */
template <uint32_t D>
static __device__ __forceinline__ void
warm_tiles_fetch(const struct warm_job &job, const struct warm_run &run, uint8_t *shared) {
        using T = warm_tiles<D>;
        const uint32_t *heads = (const uint32_t *) (shared + T::heads);
        uint32_t dim = job.a.head_dim_k;

#pragma unroll
        for (uint32_t i = threadIdx.x; i < T::pairs * (D / 8); i += WARM_ATTENTION_THREADS) {
                uint32_t m = i / (D / 8), piece = i % (D / 8);

                if (m < run.n_m && piece * 8 < dim)
                        *(uint4 *) (shared + T::q + warm_tile<D>::at(m, piece)) = __ldcg(
                                (const uint4 *) (job.d_q + (uint64_t) heads[m] * dim + piece * 8));
        }
}

/* Begin the run: q, and its first two chunks on their way. Those that have no row of this step come first. */
template <uint32_t D>
static __device__ __forceinline__ void
warm_tiles_begin(const struct warm_job &job, const struct warm_schedule &s,
                 const struct warm_run &run, uint8_t *shared) {
        uint32_t n_old = s.slots[run.fresh_begin] / WARM_CUDA_CHUNK;
        uint2 blocks[2];

        n_old = min(max(n_old, run.begin) - run.begin, 2U);
        warm_tiles_pairs<D>(job, s, run, shared);
#pragma unroll
        for (uint32_t i = 0; i < 2; i++)
                blocks[i] = warm_run_blocks(job, s, run, run.begin + i);
#pragma unroll 1
        for (uint32_t i = 0; i < 3; i++) {
                if (i == n_old) {
                        warm_wait_for_before();
                        __syncthreads(); /* the pairs */
                        warm_tiles_fetch<D>(job, run, shared);
                }
                if (i < 2)
                        warm_tiles_send<D>(job, s, run, run.begin + i, i, i ? blocks[1] : blocks[0],
                                           shared);
        }
}

/*
 * A chunk of a run, whose K and V are under way, joined to what the warp has; sends for the next but one.
 *
 * @param blocks of the chunk that is to be sent for; then of the next
 */
template <bool BF16, uint32_t D>
static __device__ __forceinline__ void
warm_tiles_chunk(const struct warm_job &job, const struct warm_schedule &s,
                 const struct warm_run &run, uint32_t c, uint2 &blocks, uint8_t *shared,
                 struct warm_wide_state<D> &state) {
        using T = warm_tiles<D>;
        uint32_t stage = (c - run.begin) % 2, at = warm_shared(shared), g = threadIdx.x % 32 / 4;
        bool works = threadIdx.x / 32 * 16 < run.n_m;
        float max[1][2];
        uint32_t p[1][4][4];

        if (c == run.begin)
                warm_copies_wait<3>();
        else
                warm_copies_wait<1>();
        __syncthreads();
        if (c > run.begin) {
                warm_tiles_send<D>(job, s, run, c + 1, 1 - stage, blocks, shared);
                blocks = warm_run_blocks(job, s, run, c + 2);
        }
        if (works) {
                const uint64_t *bits = (const uint64_t *) (shared + T::bits) + stage * 18;
                const uint32_t *rows =
                        (const uint32_t *) (shared + T::rows) + threadIdx.x / 32 * 16 + g;
                float scores[1][8][4];

                warm_wide_scores<BF16, D, 1>(at + T::q, at + T::k(stage), scores);
                warm_wide_cap(job, scores[0]);
                if (!bits[17]) {
                        uint64_t mine[2] = { bits[rows[0]], bits[rows[8]] };

                        warm_wide_mask(mine, scores[0]);
                }
                warm_wide_weigh<BF16>(scores[0], max[0], p[0]);
        }
        warm_copies_wait<2>();
        __syncthreads();
        if (works)
                warm_wide_join<BF16, D, 1>(at + T::v(stage), max, p, &state);
}

/* Leave a part of the warp's pairs at a granule of the unit. */
template <uint32_t D>
static __device__ __forceinline__ void
warm_tiles_leave(const struct warm_job &job, const struct warm_run &run, uint32_t granule,
                 const uint8_t *shared, const struct warm_wide_state<D> &state) {
        const uint32_t *parts = (const uint32_t *) (shared + warm_tiles<D>::parts);
        uint32_t t = threadIdx.x % 4, dim = job.a.head_dim_v;

#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
                uint32_t m = warm_wide_mine<1>(0, half), part = parts[m] + granule;
                float *to = job.d_sums + (uint64_t) part * dim + t * 2;

                if (m >= run.n_m)
                        continue;
                if (t == 0)
                        job.d_marks[part] = make_float2(state.max[half], state.mass[half]);
#pragma unroll
                for (uint32_t n = 0; n < D / 8; n++)
                        if (n * 8 < dim)
                                *(float2 *) (to + n * 8) = make_float2(state.sum[n][half * 2],
                                                                       state.sum[n][half * 2 + 1]);
        }
}

template <bool BF16, uint32_t D>
static __global__ void __launch_bounds__(WARM_ATTENTION_THREADS, 2)
        warm_tiles_kernel(const __grid_constant__ struct warm_job job) {
        using T = warm_tiles<D>;
        extern __shared__ __align__(1024) uint8_t shared[];
        struct warm_schedule &s = *(struct warm_schedule *) (shared + T::schedule);
        struct warm_wide_state<D> state;
        struct warm_run run;
        uint32_t from, cb; /* from: of what the state has */
        bool merges;
        uint2 blocks;

        warm_let_next_start();
        if (job.a.head_dim_k < D)
                warm_tiles_clear(shared, T::rows);
        if (!warm_run_find(job, s, &run))
                return;
        blocks = warm_run_blocks(job, s, run, run.begin + 2);
        warm_tiles_begin<D>(job, s, run, shared);
        cb = s.chunk_begin[run.unit];
        from = run.begin;
        merges = from == cb || from % WARM_SPAN_CHUNKS == 0;
        warm_wide_clear(state);
#pragma unroll 1
        for (uint32_t c = run.begin; c < run.end; c++) {
                bool last = c + 1 == run.end || (c + 1) % WARM_SPAN_CHUNKS == 0;

                warm_tiles_chunk<BF16, D>(job, s, run, c, blocks, shared, state);
                if (merges && !last)
                        continue;
                warm_tiles_leave<D>(job, run, (from >> s.shift) - (cb >> s.shift), shared, state);
                warm_wide_clear(state);
                merges = merges || last;
                from = c + 1;
        }
}
