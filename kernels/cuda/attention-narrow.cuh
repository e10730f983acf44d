/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The narrow step's kernel for units of few pairs. A block has a run of granules; in it, chunk by chunk: K and V on
 * their way to shared memory, two chunks ahead of time. Where no unit has more pairs than an mma has rows (decode) there
 * is no store kernel: q, K and V of this very step are made from d_qkv where they are needed, by every block that needs
 * them, so that no block waits for another (the block that has the row itself stores them too).
 *
 * Of a chunk, warp w computes the scores of the slots 16 w.. for all its (row, head) pairs, then, weights having gone
 * through shared memory, the sums of a quarter of the dimensions. So a single token's few pairs keep four warps busy.
 *
 * A run that began where a span begins merges its chunks in registers, and leaves a part at the span's first granule;
 * one that began inside a span leaves a part of each chunk, since merging in another order would give other bits.
 */
#pragma once

#include "attention-job.cuh"

/* TILES of 16 (row, head) pairs at most: 1 or 2; more are for attention-tiles.cuh. */
template <uint32_t D, uint32_t TILES> struct warm_narrow {
        static constexpr uint32_t stages = D == 256 ? 1 : 2;
        static constexpr uint32_t tiles = TILES;
        static constexpr bool makes =
                TILES == 1; /* q, K and V of this step; else the store kernel did */
        static constexpr uint32_t columns = D / 32; /* tiles of 8 dimensions a warp */
        static constexpr uint32_t ld_p = 144;       /* bytes of 64 weights and a piece of padding */

        /* Byte offsets in shared memory. */
        static constexpr uint32_t q = stages * 2 * warm_tile<D>::bytes;
        static constexpr uint32_t p = q + tiles * 16 * warm_tile<D>::ld_bytes;
        static constexpr uint32_t maxima = p + tiles * 16 * ld_p; /* [4 warps][tiles * 16] */
        static constexpr uint32_t rows =
                maxima + 4 * tiles * 16 * 4; /* [tiles * 16] row in the unit */
        static constexpr uint32_t parts =
                rows + tiles * 16 * 4; /* [tiles * 16] first granule's part */
        static constexpr uint32_t bits = parts + tiles * 16 * 4; /* [stages][18] visible slots */
        static constexpr uint32_t schedule = bits + (stages * 18 * 8 + 15) / 16 * 16;
        static constexpr uint32_t bytes = schedule + sizeof(struct warm_schedule);

        static __device__ __forceinline__ uint32_t k(uint32_t stage) {
                return stage * 2 * warm_tile<D>::bytes;
        }
        static __device__ __forceinline__ uint32_t v(uint32_t stage) {
                return k(stage) + warm_tile<D>::bytes;
        }
};

/* Chunks [begin, end) of one group of one unit and KV head. */
struct warm_run {
        uint32_t unit, kv_head;
        uint32_t m_begin,
                n_m; /* (row, head) pairs: row in the unit * ratio + head of the KV head */
        uint32_t begin, end;
        uint32_t sequence;
        uint32_t fresh_begin, fresh_end; /* rows of the step of the same sequence */
        bool whole;  /* nobody else has a chunk of it, and it is within one span */
        bool stores; /* the unit's own rows' K and V */
};

/* Which rows of the step are of the run's sequence. Whole warps. */
static __device__ __forceinline__ void warm_run_find_fresh(const struct warm_schedule &s,
                                                           struct warm_run &run) {
        uint32_t lane = threadIdx.x % 32, rows[2];

        run.sequence = s.sequences[s.units[run.unit].first_row];
        for (uint32_t i = 0; i < 2; i++)
                rows[i] = __ballot_sync(
                        ~0U, lane + 32 * i < s.n_rows &&
                                     s.sequences[min(lane + 32 * i, s.n_rows - 1)] == run.sequence);
        run.fresh_begin = rows[0] ? __ffs(rows[0]) - 1 : 31 + __ffs(rows[1]);
        run.fresh_end = run.fresh_begin + __popc(rows[0]) + __popc(rows[1]);
}

/* This block's run. Whole warps. */
static __device__ struct warm_run warm_run_mine(const struct warm_job &job,
                                                const struct warm_schedule &s) {
        uint32_t lane = threadIdx.x % 32, n, n_runs, tiles, group, n_groups, first, next, at, cb,
                 ce;
        uint32_t below = __ballot_sync(~0U, lane < s.n_units && s.run_begin[lane] <= blockIdx.x);
        uint32_t above =
                __ballot_sync(~0U, lane + 32 < s.n_units && s.run_begin[lane + 32] <= blockIdx.x);
        uint32_t u = __popc(below) + __popc(above) - 1;
        struct warm_run run;

        n = warm_schedule_granules(s, u, s.shift);
        n_runs = warm_schedule_runs(s, n);
        n_groups = warm_schedule_groups(job, s.units[u].n_rows, &tiles);
        at = blockIdx.x - s.run_begin[u];
        first = warm_schedule_cut(n, n_runs, at % n_runs);
        next = warm_schedule_cut(n, n_runs, at % n_runs + 1);
        group = at / n_runs % n_groups;
        cb = s.chunk_begin[u];
        ce = s.chunk_end[u];

        run.unit = u;
        run.kv_head = at / (n_groups * n_runs);
        run.m_begin = group * tiles * 16;
        run.n_m = min(s.units[u].n_rows * job.ratio - run.m_begin, tiles * 16);
        run.begin = max(((cb >> s.shift) + first) << s.shift, cb);
        run.end = min(((cb >> s.shift) + next) << s.shift, ce);
        run.whole = run.begin == cb && run.end == ce &&
                    cb / WARM_SPAN_CHUNKS == (ce - 1) / WARM_SPAN_CHUNKS;
        run.stores = group == 0;
        warm_run_find_fresh(s, run);
        return run;
}

/* Fill the schedule and find this block's run. The whole block. Return: false: it has none, and earlier kernels ended. */
static __device__ __forceinline__ bool
warm_run_find(const struct warm_job &job, struct warm_schedule &s, struct warm_run *ret_run) {
        warm_schedule_make(job, true, s);
        if (blockIdx.x >= s.n_runs) {
                warm_wait_for_before();
                return false;
        }
        *ret_run = warm_run_mine(job, s);
        return true;
}

static __device__ __forceinline__ uint2 warm_run_blocks(const struct warm_job &job,
                                                        const struct warm_schedule &s,
                                                        const struct warm_run &run,
                                                        uint32_t chunk) {
        uint32_t slot = chunk * WARM_CUDA_CHUNK, n = s.chunk_end[run.unit] * WARM_CUDA_CHUNK;
        uint32_t last = job.a.kv.table_ld * WARM_BLOCK_TOKENS;

        n = min(n, last);
        return make_uint2(slot < n ? warm_block_of(job.a.kv, run.sequence, slot) : 0,
                          slot + WARM_BLOCK_TOKENS < n
                                  ? warm_block_of(job.a.kv, run.sequence, slot + 32)
                                  : 0);
}

static __device__ __forceinline__ uint64_t warm_or(uint64_t bits) {
        return __reduce_or_sync(~0U, (uint32_t) bits) |
               (uint64_t) __reduce_or_sync(~0U, (uint32_t) (bits >> 32)) << 32;
}

/* Two heads a warp, on their way together. */
template <uint32_t D> struct warm_narrow_heads {
        struct warm_head_values<D> values[2];
        struct warm_head heads[2];
        uint8_t *to[2], *d_to[2]; /* shared memory; and the block, or NULL */
        uint32_t at[2];           /* row of the tile */
};

/*
 * What is to be made by a warp each: rotated q of the run's first n_m pairs, then K and V of the rows of this step
 * that lie in chunks [begin, end). Return: how many heads; *ret_row: the first such row.
 */
static __device__ __forceinline__ uint32_t warm_narrow_count(const struct warm_schedule &s,
                                                             const struct warm_run &run,
                                                             uint32_t n_m, uint32_t begin,
                                                             uint32_t end, uint32_t *ret_row) {
        uint32_t first = run.fresh_begin, last;

        while (first < run.fresh_end && s.slots[first] < begin * WARM_CUDA_CHUNK)
                first++;
        for (last = first; last < run.fresh_end && s.slots[last] < end * WARM_CUDA_CHUNK; last++)
                ;
        *ret_row = first;
        return n_m + 2 * (last - first);
}

/*
 * Heads j and j + 4 of the n that warm_narrow_count() counted: where they come from and go to.
 *
 * @param blocks of chunk begin and the next
 */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_plan(const struct warm_job &job, const struct warm_schedule &s,
                 const struct warm_run &run, uint32_t n_m, uint32_t first_row, uint32_t n,
                 uint32_t j, uint32_t begin, const uint2 *blocks, uint8_t *shared,
                 struct warm_narrow_heads<D> &h) {
        using N = warm_narrow<D, TILES>;
        const struct warm_cuda_attention &a = job.a;
        const struct warm_cuda_unit &unit = s.units[run.unit];

#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
                uint32_t m = j + i * WARM_ATTENTION_THREADS / 32, pair = run.m_begin + m, row, slot,
                         stage, dim;
                bool v = m >= n_m && (m - n_m) % 2;
                uint2 two;

                if (m >= n)
                        continue;
                row = m < n_m ? unit.first_row + pair / job.ratio : first_row + (m - n_m) / 2;
                dim = v ? a.head_dim_v : a.head_dim_k;
                h.heads[i].x = a.d_qkv + (uint64_t) row * a.ld_qkv;
                h.heads[i].turns = a.d_turns + (uint64_t) row * a.n_pairs * 2;
                h.heads[i].dim = dim;
                h.heads[i].n_pairs = v ? 0 : a.n_pairs;
                h.d_to[i] = NULL;
                if (m < n_m) {
                        h.heads[i].x += (run.kv_head * job.ratio + pair % job.ratio) * dim;
                        h.heads[i].weight = a.d_q_norm;
                        h.heads[i].factor = job.q_factor;
                        h.to[i] = shared + N::q;
                        h.at[i] = m;
                        continue;
                }
                slot = s.slots[row];
                stage = (slot / WARM_CUDA_CHUNK - run.begin) % N::stages;
                two = slot / WARM_CUDA_CHUNK == begin ? blocks[0] : blocks[N::stages - 1];
                h.heads[i].x +=
                        (a.n_heads + (v ? a.n_kv_heads : 0)) * a.head_dim_k + run.kv_head * dim;
                h.heads[i].weight = v ? NULL : a.d_k_norm;
                h.heads[i].factor = 1.0f;
                h.to[i] = shared + (v ? N::v(stage) : N::k(stage));
                h.at[i] = slot % WARM_CUDA_CHUNK;
                if (run.stores && row - unit.first_row < unit.n_rows)
                        h.d_to[i] = warm_cuda_block(a.kv,
                                                    slot / WARM_BLOCK_TOKENS % 2 ? two.y : two.x) +
                                    (v ? a.v_offset : a.k_offset) +
                                    (uint64_t) (run.kv_head * WARM_BLOCK_TOKENS +
                                                slot % WARM_BLOCK_TOKENS) *
                                            dim * 2;
        }
}

template <uint32_t D>
static __device__ __forceinline__ void warm_narrow_ask(const struct warm_job &job, uint32_t n,
                                                       uint32_t j, struct warm_narrow_heads<D> &h) {
#pragma unroll
        for (uint32_t i = 0; i < 2; i++)
                if (j + i * WARM_ATTENTION_THREADS / 32 < n)
                        warm_head_load<D>(h.heads[i], job.a.halves, h.values[i]);
}

template <bool BF16, uint32_t D>
static __device__ __forceinline__ void warm_narrow_make(const struct warm_job &job, uint32_t n,
                                                        uint32_t j,
                                                        struct warm_narrow_heads<D> &h) {
#pragma unroll
        for (uint32_t i = 0; i < 2; i++)
                if (j + i * WARM_ATTENTION_THREADS / 32 < n)
                        warm_head_make<BF16, D>(
                                h.heads[i], job.a.halves, job.a.norm_epsilon, h.values[i],
                                [&](uint32_t d, uint32_t two) {
                                        *(uint32_t *) (h.to[i] + warm_tile<D>::at(h.at[i], d / 8) +
                                                       d % 8 * 2) = two;
                                        if (h.d_to[i])
                                                *(uint32_t *) (h.d_to[i] + d * 2) = two;
                                });
}

/* The q that the store kernel left, on its way to shared memory. */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_fetch(const struct warm_job &job, const struct warm_schedule &s,
                  const struct warm_run &run, uint8_t *shared) {
        using N = warm_narrow<D, TILES>;
        uint32_t dim = job.a.head_dim_k;

#pragma unroll 2
        for (uint32_t i = threadIdx.x; i < run.n_m * (D / 8); i += WARM_ATTENTION_THREADS) {
                uint32_t m = i / (D / 8), piece = i % (D / 8), pair = run.m_begin + m;
                uint32_t row = s.units[run.unit].first_row + pair / job.ratio;
                uint32_t head = run.kv_head * job.ratio + pair % job.ratio;

                if (piece * 8 < dim)
                        warm_copy(warm_shared(shared + N::q + warm_tile<D>::at(m, piece)),
                                  job.d_q + ((uint64_t) row * job.a.n_heads + head) * dim +
                                          piece * 8,
                                  true);
        }
}

/* What a pair of the run is: its row in the unit (16: there is no such pair), its part at the unit's first granule. */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_pairs(const struct warm_job &job, const struct warm_schedule &s,
                  const struct warm_run &run, uint8_t *shared) {
        using N = warm_narrow<D, TILES>;
        uint32_t n = warm_schedule_granules(s, run.unit, s.shift), m = threadIdx.x;
        uint32_t row = (run.m_begin + m) / job.ratio,
                 head = run.kv_head * job.ratio + (run.m_begin + m) % job.ratio;

        if (m >= N::tiles * 16)
                return;
        ((uint32_t *) (shared + N::rows))[m] = m < run.n_m ? row : 16;
        ((uint32_t *) (shared + N::parts))[m] =
                s.part_begin[run.unit] + (row * job.a.n_heads + head) * n;
}

/* Slots of a chunk, a bit each: that a row of the unit sees; that lie in this step and are to be made. */
struct warm_narrow_slots {
        uint64_t seen, fresh;
};

/*
 * Slots of a chunk that a row of the unit sees, a bit each. Whole warps.
 *
 * @param ret_bits [18] in shared memory, by the first warp: what each row sees; of 16, for pairs that are none, nothing;
 *        and whether each sees all
 */
static __device__ __forceinline__ uint64_t warm_run_look(const struct warm_schedule &s,
                                                         const struct warm_run &run, uint32_t chunk,
                                                         uint64_t *ret_bits) {
        const struct warm_cuda_unit &unit = s.units[run.unit];
        uint32_t lane = threadIdx.x % 32;
        bool mine = lane < unit.n_rows, full;
        uint64_t bits =
                mine ? warm_seen_bits(s.seen[unit.first_row + lane], chunk * WARM_CUDA_CHUNK) : 0;
        uint64_t seen = warm_or(bits);

        full = __all_sync(~0U, !mine || bits == WARM_ALL_SEEN);
        if (threadIdx.x < 18)
                ret_bits[lane] = lane < 17 ? bits : full;
        return seen;
}

/* What is to be sent for of a chunk; and what each row sees of it, to shared memory. */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ struct warm_narrow_slots
warm_narrow_look(const struct warm_schedule &s, const struct warm_run &run, uint32_t chunk,
                 uint32_t stage, uint8_t *shared) {
        using N = warm_narrow<D, TILES>;
        uint32_t lane = threadIdx.x % 32, begin = chunk * WARM_CUDA_CHUNK;
        struct warm_narrow_slots slots = {};

        if (chunk >= run.end)
                return slots;
        slots.seen = warm_run_look(s, run, chunk, (uint64_t *) (shared + N::bits) + stage * 18);
        if (N::makes && s.slots[run.fresh_begin] < begin + WARM_CUDA_CHUNK) {
                for (uint32_t r = run.fresh_begin + lane; r < run.fresh_end; r += 32)
                        if (s.slots[r] - begin < WARM_CUDA_CHUNK)
                                slots.fresh |= 1ULL << (s.slots[r] - begin);
                slots.fresh = warm_or(slots.fresh);
        }
        return slots;
}

/* Send for a chunk: two groups of copies, K and V, even where the run has no such chunk. */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_send(const struct warm_job &job, const struct warm_run &run, uint32_t chunk,
                 uint32_t stage, uint2 blocks, struct warm_narrow_slots slots, uint8_t *shared) {
        using N = warm_narrow<D, TILES>;
        const struct warm_cuda_attention &a = job.a;
        const uint8_t *x = warm_cuda_block(a.kv, blocks.x), *y = warm_cuda_block(a.kv, blocks.y);
        uint32_t to = warm_shared(shared);
        uint64_t offset;

        if (chunk < run.end) {
                offset = a.k_offset + (uint64_t) run.kv_head * WARM_BLOCK_TOKENS * a.head_dim_k * 2;
                warm_copy_tile<D, WARM_ATTENTION_THREADS>(to + N::k(stage), x + offset, y + offset,
                                                          a.head_dim_k, ~slots.fresh, slots.seen);
        }
        warm_copies_commit();
        if (chunk < run.end) {
                offset = a.v_offset + (uint64_t) run.kv_head * WARM_BLOCK_TOKENS * a.head_dim_v * 2;
                warm_copy_tile<D, WARM_ATTENTION_THREADS>(to + N::v(stage), x + offset, y + offset,
                                                          a.head_dim_v, ~slots.fresh, slots.seen);
        }
        warm_copies_commit();
}

/* What a warp has of its quarter of the dimensions, for each of its (row, head) pairs g and g + 8 of a tile. */
template <uint32_t D, uint32_t TILES> struct warm_narrow_state {
        float max[TILES][2];
        float mass[TILES][2];
        float sum[TILES][D / 32][4];
};

template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_clear(struct warm_narrow_state<D, TILES> &state) {
#pragma unroll
        for (uint32_t i = 0; i < TILES; i++) {
                state.max[i][0] = state.max[i][1] = WARM_NONE;
                state.mass[i][0] = state.mass[i][1] = 0.0f;
#pragma unroll
                for (uint32_t n = 0; n < D / 32; n++)
                        state.sum[i][n][0] = state.sum[i][n][1] = state.sum[i][n][2] =
                                state.sum[i][n][3] = 0.0f;
        }
}

/*
 * Scores of the warp's 16 slots to weights. What all warps' slots have as their largest goes through shared memory.
 *
 * @param ret_max the chunk's largest score of each pair
 */
template <bool BF16, uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void warm_narrow_weigh(const struct warm_job &job,
                                                         uint32_t n_tiles, uint32_t stage,
                                                         uint8_t *shared, float (*ret_max)[2]) {
        using N = warm_narrow<D, TILES>;
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        uint32_t from_k = warm_shared(shared) + N::k(stage) +
                          warm_tile<D>::at(warp * 16 + lane / 16 * 8 + lane % 8, lane / 8 % 2);
        uint32_t from_q = warm_shared(shared) + N::q + warm_tile<D>::at(lane % 16, lane / 16);
        const uint64_t *bits = (const uint64_t *) (shared + N::bits) + stage * 18;
        float *maxima = (float *) (shared + N::maxima), s[TILES][2][4] = {};
        bool full = bits[17];

#pragma unroll
        for (uint32_t step = 0; step < D / 16; step++) {
                uint32_t k[4], q[4];

                warm_load_matrices(k, warm_tile<D>::further(from_k, step * 2));
#pragma unroll
                for (uint32_t i = 0; i < TILES; i++)
                        if (i < n_tiles) {
                                warm_load_matrices(q, warm_tile<D>::further(from_q, step * 2) +
                                                              i * 16 * warm_tile<D>::ld_bytes);
                                warm_mma<BF16>(s[i][0], q, k[0], k[1]);
                                warm_mma<BF16>(s[i][1], q, k[2], k[3]);
                        }
        }
#pragma unroll
        for (uint32_t i = 0; i < TILES; i++)
#pragma unroll
                for (uint32_t half = 0; half < 2; half++)
                        if (i < n_tiles) {
                                uint32_t m = i * 16 + half * 8 + g;
                                uint64_t seen = full ? WARM_ALL_SEEN
                                                     : bits[((uint32_t *) (shared + N::rows))[m]];
                                float most = WARM_NONE;

                                seen >>= warp * 16 + t * 2;
#pragma unroll
                                for (uint32_t j = 0; j < 4; j++) {
                                        float *x = &s[i][j / 2][half * 2 + j % 2];

                                        if (job.cap != 0.0f)
                                                *x = __fmul_rn(warm_tanh(*x), job.cap);
                                        *x = seen >> (j / 2 * 8 + j % 2) & 1 ? *x : WARM_NONE;
                                        most = fmaxf(most, *x);
                                }
                                most = fmaxf(most, __shfl_xor_sync(~0U, most, 1));
                                most = fmaxf(most, __shfl_xor_sync(~0U, most, 2));
                                if (t == 0)
                                        maxima[warp * N::tiles * 16 + m] = most;
                        }
        __syncthreads();
#pragma unroll
        for (uint32_t i = 0; i < TILES; i++)
#pragma unroll
                for (uint32_t half = 0; half < 2; half++)
                        if (i < n_tiles) {
                                uint32_t m = i * 16 + half * 8 + g,
                                         to = N::p + m * N::ld_p + warp * 32 + t * 4;
                                float most = maxima[m], shift;

#pragma unroll
                                for (uint32_t w = 1; w < 4; w++)
                                        most = fmaxf(most, maxima[w * N::tiles * 16 + m]);
                                ret_max[i][half] = most;
                                shift = warm_shift(most);
#pragma unroll
                                for (uint32_t j = 0; j < 2; j++)
                                        *(uint32_t *) (shared + to + j * 16) = warm_pair<BF16>(
                                                warm_exp2(__fadd_rn(s[i][j][half * 2], -shift)),
                                                warm_exp2(
                                                        __fadd_rn(s[i][j][half * 2 + 1], -shift)));
                        }
}

/* The weighted sums of V over a chunk, and the weights' own sum (in mass[..][0] and [2]). */
template <bool BF16, uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void warm_narrow_sum(uint32_t n_tiles, uint32_t stage,
                                                       uint32_t at, float (*ret_sum)[D / 32][4],
                                                       float (*ret_mass)[4]) {
        using N = warm_narrow<D, TILES>;
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        uint32_t from_v = at + N::v(stage) + warm_tile<D>::at(lane, warp * N::columns);

#pragma unroll
        for (uint32_t i = 0; i < TILES; i++) {
                ret_mass[i][0] = ret_mass[i][1] = ret_mass[i][2] = ret_mass[i][3] = 0.0f;
#pragma unroll
                for (uint32_t n = 0; n < N::columns; n++)
                        ret_sum[i][n][0] = ret_sum[i][n][1] = ret_sum[i][n][2] = ret_sum[i][n][3] =
                                0.0f;
        }
#pragma unroll
        for (uint32_t step = 0; step < 2; step++) { /* of 32 slots */
                uint32_t v[N::columns][4];

#pragma unroll
                for (uint32_t n = 0; n < N::columns; n++)
                        warm_load_turned(v[n], warm_tile<D>::further(from_v, n) +
                                                       step * 32 * warm_tile<D>::ld_bytes);
#pragma unroll
                for (uint32_t i = 0; i < TILES; i++)
#pragma unroll
                        for (uint32_t half = 0; half < 2; half++)
                                if (i < n_tiles) {
                                        uint32_t p[4];

                                        warm_load_matrices(
                                                p, at + N::p + (i * 16 + lane % 16) * N::ld_p +
                                                           step * 64 + half * 32 + lane / 16 * 16);
#pragma unroll
                                        for (uint32_t n = 0; n < N::columns; n++)
                                                warm_mma<BF16>(ret_sum[i][n], p, v[n][half * 2],
                                                               v[n][half * 2 + 1]);
                                        warm_mma<BF16>(ret_mass[i], p, warm_ones<BF16>(),
                                                       warm_ones<BF16>());
                                }
        }
}

/* Leave a part of each pair at a granule of the unit. */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_leave(const struct warm_job &job, const struct warm_run &run, uint32_t granule,
                  const uint8_t *shared, uint32_t m, float max, float mass, const float (*sum)[4],
                  uint32_t half) {
        using N = warm_narrow<D, TILES>;
        uint32_t part = ((const uint32_t *) (shared + N::parts))[m] + granule, t = threadIdx.x % 4;
        float *to = job.d_sums + (uint64_t) part * job.a.head_dim_v;

        if (m >= run.n_m)
                return;
        if (threadIdx.x < 32 && t == 0)
                job.d_marks[part] = make_float2(max, mass);
#pragma unroll
        for (uint32_t n = 0; n < N::columns; n++) {
                uint32_t d = (threadIdx.x / 32 * N::columns + n) * 8;

                if (d < job.a.head_dim_v)
                        *(float2 *) (to + d + t * 2) =
                                make_float2(sum[n][half * 2], sum[n][half * 2 + 1]);
        }
}

/* The outputs of a pair that no other block has a chunk of. */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_put(const struct warm_job &job, const struct warm_schedule &s,
                const struct warm_run &run, uint32_t m, float mass, const float (*sum)[4],
                uint32_t half) {
        using N = warm_narrow<D, TILES>;
        uint32_t pair = run.m_begin + m, row = s.units[run.unit].first_row + pair / job.ratio;
        uint32_t column = (run.kv_head * job.ratio + pair % job.ratio) * job.a.head_dim_v;
        float share = warm_share(mass);

        if (m >= run.n_m)
                return;
#pragma unroll
        for (uint32_t n = 0; n < N::columns; n++) {
                uint32_t d = (threadIdx.x / 32 * N::columns + n) * 8;

                if (d < job.a.head_dim_v)
                        warm_put(job, row, column + d + threadIdx.x % 4 * 2, sum[n][half * 2],
                                 sum[n][half * 2 + 1], share);
        }
}

/* Send for a chunk inside a run, and make what is missing in it. */
template <bool BF16, uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_next(const struct warm_job &job, const struct warm_schedule &s,
                 const struct warm_run &run, uint32_t chunk, uint32_t stage, uint2 blocks,
                 uint8_t *shared) {
        struct warm_narrow_slots slots = warm_narrow_look<D, TILES>(s, run, chunk, stage, shared);
        struct warm_narrow_heads<D> heads;
        uint2 two[2] = { blocks, blocks };
        uint32_t n, row;

        warm_narrow_send<D, TILES>(job, run, chunk, stage, blocks, slots, shared);
        if (!slots.fresh)
                return;
        n = warm_narrow_count(s, run, 0, chunk, chunk + 1, &row);
#pragma unroll 1
        for (uint32_t j = threadIdx.x / 32; j < n; j += 2 * WARM_ATTENTION_THREADS / 32) {
                warm_narrow_plan<D, TILES>(job, s, run, 0, row, n, j, chunk, two, shared, heads);
                warm_narrow_ask<D>(job, n, j, heads);
                warm_narrow_make<BF16, D>(job, n, j, heads);
        }
}

/*
 * Begin a run: everything that its first chunks need is sent for or made. What can be known before earlier kernels are
 * done is.
 */
template <bool BF16, uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_begin(const struct warm_job &job, const struct warm_schedule &s,
                  const struct warm_run &run, uint8_t *shared) {
        using N = warm_narrow<D, TILES>;
        uint32_t j = threadIdx.x / 32, n = 0, row = 0;
        struct warm_narrow_heads<D> heads;
        struct warm_narrow_slots slots[2];
        uint2 blocks[2];

#pragma unroll
        for (uint32_t i = 0; i < N::stages; i++) {
                blocks[i] = warm_run_blocks(job, s, run, run.begin + i);
                slots[i] = warm_narrow_look<D, TILES>(s, run, run.begin + i, i, shared);
        }
        warm_narrow_pairs<D, TILES>(job, s, run, shared);
        /* Who makes this step's K and V sends for those of earlier steps only, and so need not wait before. */
        if (N::makes) {
                n = warm_narrow_count(s, run, run.n_m, run.begin,
                                      min(run.begin + N::stages, run.end), &row);
        } else {
                warm_wait_for_before();
                warm_narrow_fetch<D, TILES>(job, s, run, shared);
        }
#pragma unroll 1
        for (bool first = true; first || j < n; first = false) {
                if (N::makes)
                        warm_narrow_plan<D, TILES>(job, s, run, run.n_m, row, n, j, run.begin,
                                                   blocks, shared, heads);
                if (first)
#pragma unroll
                        for (uint32_t i = 0; i < N::stages; i++)
                                warm_narrow_send<D, TILES>(job, run, run.begin + i, i, blocks[i],
                                                           slots[i], shared);
                if (!N::makes)
                        break;
                if (first)
                        warm_wait_for_before();
                warm_narrow_ask<D>(job, n, j, heads);
                warm_narrow_make<BF16, D>(job, n, j, heads);
                j += 2 * WARM_ATTENTION_THREADS / 32;
        }
}

/*
 * A chunk of a run, whose K and V are under way (warm_narrow_send), q being in shared memory; sends for those to come.
 *
 * @param blocks of the chunk that is to be sent for; then of the next
 */
template <bool BF16, uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_narrow_chunk(const struct warm_job &job, const struct warm_schedule &s,
                  const struct warm_run &run, uint32_t c, uint2 &blocks, uint8_t *shared,
                  float (*ret_max)[2], float (*ret_sum)[D / 32][4], float (*ret_mass)[4]) {
        using N = warm_narrow<D, TILES>;
        uint32_t stage = (c - run.begin) % N::stages, n_tiles = (run.n_m + 15) / 16;

        if (N::stages == 2 && c == run.begin)
                warm_copies_wait<3>();
        else
                warm_copies_wait<1>();
        __syncthreads();
        if (N::stages == 2 && c > run.begin) {
                warm_narrow_next<BF16, D, TILES>(job, s, run, c + 1, 1 - stage, blocks, shared);
                blocks = warm_run_blocks(job, s, run, c + 2);
        }
        warm_narrow_weigh<BF16, D, TILES>(job, n_tiles, stage, shared, ret_max);
        if (N::stages == 2)
                warm_copies_wait<2>();
        else
                warm_copies_wait<0>();
        __syncthreads();
        warm_narrow_sum<BF16, D, TILES>(n_tiles, stage, warm_shared(shared), ret_sum, ret_mass);
        if (N::stages == 1) {
                __syncthreads();
                warm_narrow_next<BF16, D, TILES>(job, s, run, c + 1, 0, blocks, shared);
                blocks = warm_run_blocks(job, s, run, c + 2);
        }
}

/* One run. */
template <bool BF16, uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void warm_narrow_go(const struct warm_job &job,
                                                      const struct warm_schedule &s,
                                                      const struct warm_run &run, uint8_t *shared) {
        using N = warm_narrow<D, TILES>;
        struct warm_narrow_state<D, TILES> state;
        uint32_t n_tiles = (run.n_m + 15) / 16, g = threadIdx.x % 32 / 4,
                 cb = s.chunk_begin[run.unit];
        uint32_t first = run.begin; /* of what is merged in registers */
        bool merges = first == cb || first % WARM_SPAN_CHUNKS == 0;
        uint2 blocks = warm_run_blocks(job, s, run, run.begin + N::stages);

        warm_narrow_clear(state);
        for (uint32_t c = run.begin; c < run.end; c++) {
                bool last = c + 1 == run.end || (c + 1) % WARM_SPAN_CHUNKS == 0;
                float max[TILES][2], sum[TILES][D / 32][4], mass[TILES][4];

                warm_narrow_chunk<BF16, D, TILES>(job, s, run, c, blocks, shared, max, sum, mass);
#pragma unroll
                for (uint32_t i = 0; i < TILES; i++)
#pragma unroll
                        for (uint32_t half = 0; half < 2; half++) {
                                uint32_t m = i * 16 + half * 8 + g;
                                float keep, take;

                                if (i >= n_tiles)
                                        continue;
                                if (!merges) {
                                        warm_narrow_leave<D, TILES>(
                                                job, run, (c >> s.shift) - (cb >> s.shift), shared,
                                                m, max[i][half], mass[i][half * 2], sum[i], half);
                                        continue;
                                }
                                warm_join(max[i][half], &state.max[i][half], &keep, &take);
                                state.mass[i][half] = warm_joined(state.mass[i][half],
                                                                  mass[i][half * 2], keep, take);
#pragma unroll
                                for (uint32_t n = 0; n < N::columns; n++)
#pragma unroll
                                        for (uint32_t j = half * 2; j < half * 2 + 2; j++)
                                                state.sum[i][n][j] =
                                                        warm_joined(state.sum[i][n][j],
                                                                    sum[i][n][j], keep, take);
                                if (last && run.whole)
                                        warm_narrow_put<D, TILES>(job, s, run, m,
                                                                  state.mass[i][half], state.sum[i],
                                                                  half);
                                else if (last)
                                        warm_narrow_leave<D, TILES>(
                                                job, run, (first >> s.shift) - (cb >> s.shift),
                                                shared, m, state.max[i][half], state.mass[i][half],
                                                state.sum[i], half);
                        }
                if (last) {
                        warm_narrow_clear(state);
                        merges = true;
                        first = c + 1;
                }
        }
}

template <bool BF16, uint32_t D, uint32_t TILES>
static __global__ void __launch_bounds__(WARM_ATTENTION_THREADS, TILES == 1 && D < 256 ? 3 : 2)
        warm_narrow_kernel(const __grid_constant__ struct warm_job job) {
        using N = warm_narrow<D, TILES>;
        extern __shared__ __align__(1024) uint8_t shared[];
        struct warm_schedule &s = *(struct warm_schedule *) (shared + N::schedule);
        struct warm_run run;

        warm_let_next_start();
        if (job.a.head_dim_k < D)
                warm_tiles_clear(shared, N::p);
        if (!warm_run_find(job, s, &run))
                return;
        warm_narrow_begin<BF16, D, TILES>(job, s, run, shared);
        warm_narrow_go<BF16, D, TILES>(job, s, run, shared);
}
