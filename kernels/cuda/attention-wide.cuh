/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wide step: the store kernel, and a kernel whose warps have one or two tiles of 16 (row, head) pairs each and go
 * through the chunks together: scores, weights and sums of a pair stay in one warp's registers (after Dao 2023,
 * "FlashAttention-2"). Two tiles share what is read of K and V; one makes more blocks of few rows.
 * Shared memory holds Q and one chunk of K and of V; K is sent for while V is used, and the other way round.
 */
#pragma once

#include "attention-job.cuh"

#define WARM_STORE_HEADS 2U /* of a warp, on their way together */
#define WARM_SPAN_BLOCKS (WARM_CUDA_SPAN / WARM_BLOCK_TOKENS)

/* A warp some heads of a row: q into the scratch, K and V into their block. */
template <bool BF16, uint32_t D>
static __global__ void __launch_bounds__(256, 4)
        warm_store_kernel(const __grid_constant__ struct warm_job job) {
        const struct warm_cuda_attention &a = job.a;
        uint32_t n_all = a.n_heads + 2 * a.n_kv_heads,
                 n_warps = (n_all + WARM_STORE_HEADS - 1) / WARM_STORE_HEADS;
        uint32_t at = blockIdx.x * 8 + threadIdx.x / 32, row = at / n_warps,
                 first = at % n_warps * WARM_STORE_HEADS;
        const float *x = a.d_qkv + (uint64_t) row * a.ld_qkv;
        struct warm_head_values<D> values[WARM_STORE_HEADS];
        struct warm_head heads[WARM_STORE_HEADS];
        uint8_t *to[WARM_STORE_HEADS], *block = NULL;
        bool there = row < a.n_rows_max && row < a.d_counts[0];
        uint32_t slot = 0;

        warm_let_next_start();
        if (there) {
                slot = a.d_rows[row].slot;
                block = warm_cuda_block(a.kv, warm_block_of(a.kv, a.d_rows[row].sequence, slot));
        }
        warm_wait_for_before();
        if (!there)
                return;
#pragma unroll
        for (uint32_t i = 0; i < WARM_STORE_HEADS; i++) {
                uint32_t head = first + i, h = (head - a.n_heads) % a.n_kv_heads;
                bool q = head < a.n_heads, v = head >= a.n_heads + a.n_kv_heads;
                uint32_t dim = v ? a.head_dim_v : a.head_dim_k;

                if (head >= n_all)
                        continue;
                heads[i] = { x + head * a.head_dim_k,
                             q ? a.d_q_norm : a.d_k_norm,
                             a.d_turns + (uint64_t) row * a.n_pairs * 2,
                             dim,
                             a.n_pairs,
                             q ? job.q_factor : 1.0f };
                to[i] = block + (v ? a.v_offset : a.k_offset) +
                        (uint64_t) (h * WARM_BLOCK_TOKENS + slot % WARM_BLOCK_TOKENS) * dim * 2;
                if (q)
                        to[i] = (uint8_t *) (job.d_q + ((uint64_t) row * a.n_heads + head) * dim);
                if (v) {
                        heads[i].x = x + (a.n_heads + a.n_kv_heads) * a.head_dim_k + h * dim;
                        heads[i].weight = NULL;
                        heads[i].n_pairs = 0;
                }
                warm_head_load<D>(heads[i], a.halves, values[i]);
        }
#pragma unroll
        for (uint32_t i = 0; i < WARM_STORE_HEADS; i++)
                if (first + i < n_all)
                        warm_head_make<BF16, D>(heads[i], a.halves, a.norm_epsilon, values[i],
                                                [&](uint32_t d, uint32_t two) {
                                                        *(uint32_t *) (to[i] + d * 2) = two;
                                                });
}

template <uint32_t D, uint32_t TILES> struct warm_wide {
        static constexpr uint32_t pairs = WARM_WIDE_PAIRS * TILES;

        /* Byte offsets in shared memory. */
        static constexpr uint32_t k = pairs * warm_tile<D>::ld_bytes;
        static constexpr uint32_t v = k + warm_tile<D>::bytes;
        static constexpr uint32_t seen = v + warm_tile<D>::bytes; /* [rows of the block] */
        static constexpr uint32_t bits = seen + pairs * 16; /* [rows] visible slots of a chunk */
        static constexpr uint32_t marks =
                bits + pairs * 8; /* [pairs] largest score and mass of the spans before */
        static constexpr uint32_t block = marks + pairs * 8;
        static constexpr uint32_t tables = block + 48; /* [2] blocks of a span's slots */
        static constexpr uint32_t bytes = tables + 2 * WARM_SPAN_BLOCKS * 4;
};

/* A block's part of the step; in shared memory. */
struct warm_wide_block {
        uint32_t first_row;    /* of its pairs */
        uint32_t n_rows;       /* <= pairs of a block */
        uint32_t m_begin, n_m; /* pair: (row - unit.first_row) * ratio + head of the KV head */
        uint32_t unit_row;
        uint32_t kv_head;
        uint32_t sequence;
        uint32_t lo, hi;           /* slots that any of its rows sees */
        uint32_t full_lo, full_hi; /* slots that all of them see */
};

static_assert(sizeof(struct warm_wide_block) <= 48, "room for it");

/* Find the block's rows; the whole block calls it. Later rows first: they see more. Return: false: there are none. */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ bool
warm_wide_find(const struct warm_job &job, struct warm_wide_block &b, struct warm_seen *ret_seen) {
        using W = warm_wide<D, TILES>;
        uint32_t n_kv = job.a.n_kv_heads,
                 tiles = (WARM_CUDA_UNIT_ROWS_WIDE * job.ratio + W::pairs - 1) / W::pairs;
        uint32_t u = blockIdx.x / (tiles * n_kv), n_units = job.a.d_counts[1];
        uint32_t m = (tiles - 1 - blockIdx.x % tiles) * W::pairs, n_m, first, n_rows;
        struct warm_cuda_unit unit;

        if (u >= n_units)
                return false;
        unit = job.a.d_units[n_units - 1 - u];
        if (m >= unit.n_rows * job.ratio)
                return false;
        n_m = min(unit.n_rows * job.ratio - m, W::pairs);
        first = unit.first_row + m / job.ratio;
        n_rows = unit.first_row + (m + n_m - 1) / job.ratio - first + 1;
        if (threadIdx.x == 0)
                b = { first,
                      n_rows,
                      m,
                      n_m,
                      unit.first_row,
                      blockIdx.x / tiles % n_kv,
                      job.a.d_rows[first].sequence,
                      UINT32_MAX,
                      0,
                      0,
                      UINT32_MAX };
        __syncthreads();
        if (threadIdx.x < n_rows) {
                struct warm_seen seen =
                        warm_seen_of(job.a.d_rows[first + threadIdx.x], job.a.window);

                ret_seen[threadIdx.x] = seen;
                if (seen.lo < seen.hi) {
                        atomicMin(&b.lo, seen.lo);
                        atomicMax(&b.hi, seen.hi);
                }
                atomicMax(&b.full_lo, seen.lo);
                atomicMin(&b.full_hi,
                          seen.mask == WARM_ALL_SEEN ? seen.hi : max(seen.hi, 64U) - 64);
        }
        __syncthreads();
        if (threadIdx.x == 0)
                b.lo = min(b.lo, b.hi);
        __syncthreads();
        return true;
}

/* Send for a chunk of K (which 0) or V (1); slots that nobody sees become 0. */
template <uint32_t D>
static __device__ __forceinline__ void
warm_wide_send(const struct warm_job &job, const struct warm_wide_block &b, uint32_t which,
               uint64_t seen, const uint32_t (*tables)[WARM_SPAN_BLOCKS], uint32_t chunk,
               uint32_t to) {
        const struct warm_cuda_attention &a = job.a;
        uint2 blocks = ((const uint2 *) tables)[chunk % (2 * WARM_SPAN_CHUNKS)];
        uint32_t dim = which ? a.head_dim_v : a.head_dim_k;
        uint64_t offset = (which ? a.v_offset : a.k_offset) +
                          (uint64_t) b.kv_head * WARM_BLOCK_TOKENS * dim * 2;

        const uint8_t *x = warm_cuda_block(a.kv, blocks.x) + offset,
                      *y = warm_cuda_block(a.kv, blocks.y) + offset;

        if constexpr (WARM_ATTENTION_THREADS % (D / 8) == 0) {
                if (seen == WARM_ALL_SEEN && dim == D) { /* most chunks */
                        warm_copy_whole<D, WARM_ATTENTION_THREADS>(to, x, y);
                        warm_copies_commit();
                        return;
                }
        }
        warm_copy_tile<D, WARM_ATTENTION_THREADS>(to, x, y, dim, WARM_ALL_SEEN, seen);
        warm_copies_commit();
}

/* Note a span's part of the block table; where nobody sees a slot of a block it is not looked up. The first threads. */
static __device__ __forceinline__ void warm_wide_look_up(const struct warm_job &job,
                                                         const struct warm_wide_block &b,
                                                         uint32_t span,
                                                         uint32_t (*tables)[WARM_SPAN_BLOCKS]) {
        uint32_t slot = span * WARM_CUDA_SPAN + threadIdx.x * WARM_BLOCK_TOKENS;

        if (threadIdx.x < WARM_SPAN_BLOCKS)
                tables[span % 2][threadIdx.x] = slot < b.hi && slot + WARM_BLOCK_TOKENS > b.lo
                                                        ? warm_block_of(job.a.kv, b.sequence, slot)
                                                        : 0;
}

/* Bits of [lo, hi) in a chunk. */
static __device__ __forceinline__ uint64_t warm_wide_range(const struct warm_wide_block &b,
                                                           uint32_t chunk) {
        struct warm_seen all = { WARM_ALL_SEEN, b.lo, b.hi };

        return warm_seen_bits(all, chunk * WARM_CUDA_CHUNK);
}

/* The pair of the block that a thread has in a tile of its warp: row g of the fragments, or g + 8. */
template <uint32_t TILES>
static __device__ __forceinline__ uint32_t warm_wide_mine(uint32_t tile, uint32_t half) {
        return (threadIdx.x / 32 * TILES + tile) * 16 + half * 8 + threadIdx.x % 32 / 4;
}

/* S = Q K^T of the warp's pairs. */
template <bool BF16, uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void warm_wide_scores(uint32_t q, uint32_t k, float (*s)[8][4]) {
        using T = warm_tile<D>;
        uint32_t lane = threadIdx.x % 32;

        q += T::at(threadIdx.x / 32 * 16 * TILES + lane % 16, lane / 16);
        k += T::at(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
        for (uint32_t n = 0; n < 8 * TILES; n++)
                s[n / 8][n % 8][0] = s[n / 8][n % 8][1] = s[n / 8][n % 8][2] = s[n / 8][n % 8][3] =
                        0.0f;
#pragma unroll
        for (uint32_t step = 0; step < D / 16; step++) {
                uint32_t a[TILES][4], b[4][4];

#pragma unroll
                for (uint32_t i = 0; i < TILES; i++)
                        warm_load_matrices(a[i], T::further(q, step * 2) + i * 16 * T::ld_bytes);
#pragma unroll
                for (uint32_t n = 0; n < 4; n++)
                        warm_load_matrices(b[n], T::further(k, step * 2) + n * 16 * T::ld_bytes);
#pragma unroll
                for (uint32_t n = 0; n < 4 * TILES; n++) {
                        float(*to)[4] = &s[n % TILES][n / TILES * 2];

                        warm_mma<BF16>(to[0], a[n % TILES], b[n / TILES][0], b[n / TILES][1]);
                        warm_mma<BF16>(to[1], a[n % TILES], b[n / TILES][2], b[n / TILES][3]);
                }
        }
}

/* What is not visible becomes -infinity. @param bits of the warp's rows g and g + 8 */
static __device__ __forceinline__ void warm_wide_mask(const uint64_t *bits, float (*s)[4]) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
                uint64_t mine = bits[half] >> threadIdx.x % 4 * 2;
                uint32_t words[2] = { (uint32_t) mine, (uint32_t) (mine >> 32) };

#pragma unroll
                for (uint32_t n = 0; n < 8; n++)
#pragma unroll
                        for (uint32_t j = 0; j < 2; j++)
                                if (!(words[n / 4] & 1U << (n % 4 * 8 + j)))
                                        s[n][half * 2 + j] = WARM_NONE;
        }
}

/* Scores to weights, as the A fragments of the next product. */
template <bool BF16>
static __device__ __forceinline__ void warm_wide_weigh(float (*s)[4], float *ret_max,
                                                       uint32_t (*ret_p)[4]) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
                float most = WARM_NONE, shift;

#pragma unroll
                for (uint32_t n = 0; n < 8; n++)
                        most = fmaxf(most, fmaxf(s[n][half * 2], s[n][half * 2 + 1]));
                most = fmaxf(most, __shfl_xor_sync(~0U, most, 1));
                most = fmaxf(most, __shfl_xor_sync(~0U, most, 2));
                ret_max[half] = most;
                shift = warm_shift(most);
#pragma unroll
                for (uint32_t n = 0; n < 8; n++)
                        ret_p[n / 2][n % 2 * 2 + half] =
                                warm_pair<BF16>(warm_exp2(__fadd_rn(s[n][half * 2], -shift)),
                                                warm_exp2(__fadd_rn(s[n][half * 2 + 1], -shift)));
        }
}

/* What a warp has of its pairs g and g + 8: a span's, or the whole's. */
template <uint32_t D> struct warm_wide_state {
        float max[2];
        float mass[2];
        float sum[D / 8][4];
};

template <uint32_t D>
static __device__ __forceinline__ void warm_wide_clear(struct warm_wide_state<D> &state) {
        state.max[0] = state.max[1] = WARM_NONE;
        state.mass[0] = state.mass[1] = 0.0f;
#pragma unroll
        for (uint32_t n = 0; n < D / 8; n++)
                state.sum[n][0] = state.sum[n][1] = state.sum[n][2] = state.sum[n][3] = 0.0f;
}

/* The chunk's part of the mass joins the span's, and what the span has is scaled. @param ret_take of the chunk's sums */
template <bool BF16, uint32_t D>
static __device__ __forceinline__ void warm_wide_scale(const float *max, const uint32_t (*p)[4],
                                                       struct warm_wide_state<D> &state,
                                                       float *ret_take) {
        float keep[2], mass[4] = {};

#pragma unroll
        for (uint32_t step = 0; step < 4; step++)
                warm_mma<BF16>(mass, p[step], warm_ones<BF16>(), warm_ones<BF16>());
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
                warm_join(max[half], &state.max[half], &keep[half], &ret_take[half]);
                state.mass[half] =
                        warm_joined(state.mass[half], mass[half * 2], keep[half], ret_take[half]);
        }
        if (!__all_sync(~0U, keep[0] == 1.0f && keep[1] == 1.0f)) /* times 1 is no change */
#pragma unroll
                for (uint32_t n = 0; n < D / 8; n++)
#pragma unroll
                        for (uint32_t j = 0; j < 4; j++)
                                state.sum[n][j] = __fmul_rn(state.sum[n][j], keep[j / 2]);
}

/* The chunk's sums of p V, 32 or 16 dimensions at a time, joined to the span's. */
template <bool BF16, uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void warm_wide_join(uint32_t v, const float (*max)[2],
                                                      const uint32_t (*p)[4][4],
                                                      struct warm_wide_state<D> *state) {
        using T = warm_tile<D>;
        constexpr uint32_t twos = TILES > 1 ? 1 : 2; /* of eight dimensions, side by side */
        float take[TILES][2];

#pragma unroll
        for (uint32_t i = 0; i < TILES; i++)
                warm_wide_scale<BF16, D>(max[i], p[i], state[i], take[i]);
        v += T::at(threadIdx.x % 16, threadIdx.x % 32 / 16);
#pragma unroll
        for (uint32_t n = 0; n < D / 8; n += 2 * twos) {
                float sum[TILES][2 * twos][4] = {};

#pragma unroll
                for (uint32_t step = 0; step < 4; step++) {
                        uint32_t b[twos][4];

#pragma unroll
                        for (uint32_t i = 0; i < twos; i++)
                                warm_load_turned(b[i], T::further(v, n + i * 2) +
                                                               step * 16 * T::ld_bytes);
#pragma unroll
                        for (uint32_t i = 0; i < twos * TILES; i++) {
                                uint32_t tile = i % TILES, two = i / TILES;
                                float(*to)[4] = &sum[tile][two * 2];

                                warm_mma<BF16>(to[0], p[tile][step], b[two][0], b[two][1]);
                                warm_mma<BF16>(to[1], p[tile][step], b[two][2], b[two][3]);
                        }
                }
#pragma unroll
                for (uint32_t i = 0; i < 2 * twos * TILES; i++)
#pragma unroll
                        for (uint32_t j = 0; j < 4; j++) {
                                uint32_t tile = i % TILES, at = i / TILES;
                                float *to = &state[tile].sum[n + at][j];

                                *to = __fmaf_rn(sum[tile][at][j], take[tile][j / 2], *to);
                        }
        }
}

/* Row and head of one of the block's pairs. */
static __device__ __forceinline__ void warm_wide_pair(const struct warm_job &job,
                                                      const struct warm_wide_block &b, uint32_t m,
                                                      uint32_t *ret_row, uint32_t *ret_head) {
        uint32_t pair = b.m_begin + m;

        *ret_row = b.unit_row + pair / job.ratio;
        *ret_head = b.kv_head * job.ratio + pair % job.ratio;
}

/*
 * The span is done: join it to the totals in the scratch, [row][head][D]. The first one is put there as it is (joining
 * it to nothing would not change it), the last one stays in the registers.
 */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_wide_total(const struct warm_job &job, const struct warm_wide_block &b, uint32_t tile,
                bool first, bool last, struct warm_wide_state<D> &state, float2 *marks) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
                uint32_t m = warm_wide_mine<TILES>(tile, half), row, head;
                float keep = 0.0f, take = 1.0f, *to;

                if (!first) {
                        float max = marks[m].x;

                        warm_join(state.max[half], &max, &keep, &take);
                        state.max[half] = max;
                        state.mass[half] = warm_joined(marks[m].y, state.mass[half], keep, take);
                }
                __syncwarp();
                if (threadIdx.x % 4 == 0)
                        marks[m] = make_float2(state.max[half], state.mass[half]);
                __syncwarp();
                if (m >= b.n_m)
                        continue;
                warm_wide_pair(job, b, m, &row, &head);
                to = job.d_sums + ((uint64_t) row * job.a.n_heads + head) * D + threadIdx.x % 4 * 2;
#pragma unroll
                for (uint32_t n = 0; n < D / 8; n++) {
                        float *sum = &state.sum[n][half * 2];

                        if (!first) {
                                float2 x = *(float2 *) (to + n * 8);

                                sum[0] = warm_joined(x.x, sum[0], keep, take);
                                sum[1] = warm_joined(x.y, sum[1], keep, take);
                        }
                        if (!last)
                                *(float2 *) (to + n * 8) = make_float2(sum[0], sum[1]);
                }
        }
}

/* Outputs of a tile's pairs, or, where a row sees more spans than this one, its part of the span. */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_wide_finish(const struct warm_job &job, const struct warm_wide_block &b, uint32_t span,
                 uint32_t tile, const struct warm_wide_state<D> &state) {
        struct warm_cuda_acts out = { job.a.out.d_values, 0,
                                      job.a.out.k_padded }; /* wide, as the compiler cannot know */
        uint32_t dim = job.a.head_dim_v, t = threadIdx.x % 4;

#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
                uint32_t m = warm_wide_mine<TILES>(tile, half), row, head;
                float share = warm_share(state.mass[half]), *part = NULL;

                if (m >= b.n_m)
                        continue;
                warm_wide_pair(job, b, m, &row, &head);
                if (job.n_spans) {
                        struct warm_seen seen = warm_seen_of(job.a.d_rows[row], job.a.window);
                        uint32_t first = seen.lo / WARM_CUDA_SPAN,
                                 last = (seen.hi - 1) / WARM_CUDA_SPAN;
                        uint64_t at = ((uint64_t) row * job.a.n_heads + head) * job.n_spans + span;

                        if (seen.lo >= seen.hi)
                                first = last = b.lo / WARM_CUDA_SPAN;
                        if (span < first || span > last)
                                continue;
                        if (first < last)
                                part = job.d_sums + at * dim + t * 2;
                        if (part && t == 0)
                                job.d_marks[at] = make_float2(state.max[half], state.mass[half]);
                }
#pragma unroll
                for (uint32_t n = 0; n < D / 8; n++) {
                        const float *sum = &state.sum[n][half * 2];

                        if (n * 8 >= dim)
                                continue;
                        if (part)
                                *(float2 *) (part + n * 8) = make_float2(sum[0], sum[1]);
                        else
                                *(uint32_t *) &out.d_values[warm_cuda_act_index(
                                        out, row, head * dim + n * 8 + t * 2)] =
                                        warm_act_pair(sum[0], sum[1], share);
                }
        }
}

/* Q of the block's pairs, and zeros where a product needs them. */
template <uint32_t D, uint32_t TILES>
static __device__ __forceinline__ void
warm_wide_queries(const struct warm_job &job, const struct warm_wide_block &b, uint8_t *shared) {
        using W = warm_wide<D, TILES>;
        const struct warm_cuda_attention &a = job.a;

#pragma unroll 2
        for (uint32_t i = threadIdx.x; i < W::pairs * (D / 8); i += WARM_ATTENTION_THREADS) {
                uint32_t m = i / (D / 8), piece = i % (D / 8), row, head;

                warm_wide_pair(job, b, m, &row, &head);
                if (piece * 8 < a.head_dim_k)
                        warm_copy(warm_shared(shared + warm_tile<D>::at(m, piece)),
                                  job.d_q + ((uint64_t) row * a.n_heads + head) * a.head_dim_k +
                                          piece * 8,
                                  m < b.n_m);
                else
                        *(uint4 *) (shared + warm_tile<D>::at(m, piece)) = make_uint4(0, 0, 0, 0);
        }
        if (a.head_dim_k < D)
                for (uint32_t i = threadIdx.x; i < 64 * (D / 8); i += WARM_ATTENTION_THREADS)
                        if (i % (D / 8) * 8 >= a.head_dim_k)
                                *(uint4 *) (shared + W::k +
                                            warm_tile<D>::at(i / (D / 8), i % (D / 8))) =
                                        make_uint4(0, 0, 0, 0);
}

/* Slots of a chunk that any of the block's rows sees. */
static __device__ __forceinline__ uint64_t warm_wide_any(const uint64_t *bits, uint32_t n_rows) {
        uint64_t any = 0;

        for (uint32_t r = threadIdx.x % 32; r < n_rows; r += 32)
                any |= bits[r];
        return __reduce_or_sync(~0U, (uint32_t) any) |
               (uint64_t) __reduce_or_sync(~0U, (uint32_t) (any >> 32)) << 32;
}

/* Scores with a soft cap, if there is one. */
static __device__ __forceinline__ void warm_wide_cap(const struct warm_job &job, float (*s)[4]) {
        if (job.cap != 0.0f)
#pragma unroll
                for (uint32_t i = 0; i < 32; i++)
                        s[i / 4][i % 4] = __fmul_rn(warm_tanh(s[i / 4][i % 4]), job.cap);
}

/*
 * A chunk's scores of a tile to weights: soft cap, and what each row does not see.
 *
 * @param m the thread's first pair of the tile
 */
template <bool BF16>
static __device__ __forceinline__ void
warm_wide_turn(const struct warm_job &job, const struct warm_wide_block &b, uint32_t m, bool full,
               const uint64_t *bits, float (*s)[4], float *ret_max, uint32_t (*ret_p)[4]) {
        warm_wide_cap(job, s);
        if (!full) {
                uint32_t pair = b.m_begin + m, row = b.unit_row - b.first_row,
                         last = b.n_rows - 1; /* pairs beyond the last: anything */
                uint64_t mine[2] = { bits[min(row + pair / job.ratio, last)],
                                     bits[min(row + (pair + 8) / job.ratio, last)] };

                warm_wide_mask(mine, s);
        }
        warm_wide_weigh<BF16>(s, ret_max, ret_p);
}

template <bool BF16, uint32_t D, uint32_t TILES>
static __global__ void __launch_bounds__(WARM_ATTENTION_THREADS, D == 256 || TILES > 1 ? 2 : 3)
        warm_wide_kernel(const __grid_constant__ struct warm_job job) {
        using W = warm_wide<D, TILES>;
        extern __shared__ __align__(1024) uint8_t shared[];
        struct warm_wide_block &b = *(struct warm_wide_block *) (shared + W::block);
        struct warm_seen *seen = (struct warm_seen *) (shared + W::seen);
        uint64_t *bits = (uint64_t *) (shared + W::bits);
        uint32_t(*tables)[WARM_SPAN_BLOCKS] = (uint32_t(*)[WARM_SPAN_BLOCKS])(shared + W::tables);
        uint32_t at = warm_shared(shared), begin, end, first_span;
        struct warm_wide_state<D> state[TILES];

        warm_let_next_start();
        if (!warm_wide_find<D, TILES>(job, b, seen)) {
                warm_wait_for_before();
                return;
        }
        begin = b.lo / WARM_CUDA_CHUNK;
        end = (b.hi + WARM_CUDA_CHUNK - 1) / WARM_CUDA_CHUNK;
        first_span = begin / WARM_SPAN_CHUNKS;
        if (job.n_spans) {
                begin = max(begin, (first_span + blockIdx.y) * WARM_SPAN_CHUNKS);
                end = min(end, (first_span + blockIdx.y + 1) * WARM_SPAN_CHUNKS);
        }
        if (begin >= end && blockIdx.y) {
                warm_wait_for_before();
                return;
        }
        warm_wide_look_up(job, b, begin / WARM_SPAN_CHUNKS, tables);
        warm_wait_for_before();
        __syncthreads();
        warm_wide_queries<D, TILES>(job, b, shared);
        if (begin < end)
                warm_wide_send<D>(job, b, 0, warm_wide_range(b, begin), tables, begin, at + W::k);
#pragma unroll
        for (uint32_t i = 0; i < TILES; i++)
                warm_wide_clear(state[i]);
#pragma unroll 1
        for (uint32_t c = begin; c < end; c++) {
                bool full =
                        c * WARM_CUDA_CHUNK >= b.full_lo && (c + 1) * WARM_CUDA_CHUNK <= b.full_hi;
                float s[TILES][8][4], max[TILES][2];
                uint32_t p[TILES][4][4];

                if (c == begin || c % WARM_SPAN_CHUNKS == 0)
                        warm_wide_look_up(job, b, c / WARM_SPAN_CHUNKS + 1, tables);
                if (!full && threadIdx.x < b.n_rows)
                        bits[threadIdx.x] = warm_seen_bits(seen[threadIdx.x], c * WARM_CUDA_CHUNK);
                warm_copies_wait<0>();
                __syncthreads();
                warm_wide_send<D>(job, b, 1, full ? WARM_ALL_SEEN : warm_wide_any(bits, b.n_rows),
                                  tables, c, at + W::v);
                warm_wide_scores<BF16, D, TILES>(at, at + W::k, s);
#pragma unroll
                for (uint32_t i = 0; i < TILES; i++)
                        warm_wide_turn<BF16>(job, b, warm_wide_mine<TILES>(i, 0), full, bits, s[i],
                                             max[i], p[i]);
                warm_copies_wait<0>();
                __syncthreads();
                if (c + 1 < end)
                        warm_wide_send<D>(job, b, 0, warm_wide_range(b, c + 1), tables, c + 1,
                                          at + W::k);
                warm_wide_join<BF16, D, TILES>(at + W::v, max, p, state);
                if (!job.n_spans && first_span != (end - 1) / WARM_SPAN_CHUNKS &&
                    (c + 1 == end || (c + 1) % WARM_SPAN_CHUNKS == 0))
#pragma unroll
                        for (uint32_t i = 0; i < TILES; i++) {
                                warm_wide_total<D, TILES>(
                                        job, b, i, c / WARM_SPAN_CHUNKS == first_span, c + 1 == end,
                                        state[i], (float2 *) (shared + W::marks));
                                if (c + 1 < end)
                                        warm_wide_clear(state[i]);
                        }
        }
#pragma unroll
        for (uint32_t i = 0; i < TILES; i++)
                warm_wide_finish<D, TILES>(job, b, first_span + blockIdx.y, i, state[i]);
}
