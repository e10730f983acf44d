/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations that attention is made of: the same lines in every kernel, so the same bits. Every sum and product
 * whose rounding counts is spelled with its rounding, so that no compiler joins them differently in two places.
 *
 * Fragments of mma.m16n8k16, lane = 4 g + t: c[0], c[1] row g, columns 2t and 2t + 1; c[2], c[3] row g + 8.
 * Private to kernels/cuda/attention*.
 */
#pragma once

#include <math.h>

#include "attention.h"

#define WARM_LOG2E    1.44269504f
#define WARM_NONE     (-INFINITY)
#define WARM_ALL_SEEN (~0ULL)

/* 2^x; results below the smallest normal number are 0, 2^0 is 1, 2^-infinity 0. */
static __device__ __forceinline__ float warm_exp2(float x) {
        float y;

        asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
        return y;
}

/* From the exponential alone; off by some 2e-7 of 1, which is what a capped score can bear. */
static __device__ __forceinline__ float warm_tanh(float x) {
        float e = warm_exp2(__fmul_rn(fabsf(x), -2.0f * WARM_LOG2E)), r;

        asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(__fadd_rn(1.0f, e)));
        return copysignf(__fmul_rn(__fadd_rn(1.0f, -e), r), x);
}

/* What a maximum may be subtracted as: nothing visible subtracts 0. */
static __device__ __forceinline__ float warm_shift(float max) {
        return max == WARM_NONE ? 0.0f : max;
}

/* A row's factors when a part with the maximum part_max joins; max becomes the larger one. */
static __device__ __forceinline__ void warm_join(float part_max, float *max, float *ret_keep,
                                                 float *ret_take) {
        float most = fmaxf(*max, part_max), shift = warm_shift(most);

        *ret_keep = warm_exp2(__fadd_rn(*max, -shift));
        *ret_take = warm_exp2(__fadd_rn(part_max, -shift));
        *max = most;
}

static __device__ __forceinline__ float warm_joined(float whole, float part, float keep,
                                                    float take) {
        return __fmaf_rn(part, take, __fmul_rn(whole, keep));
}

static __device__ __forceinline__ float warm_share(float mass) {
        return mass > 0.0f ? __fdiv_rn(1.0f, mass) : 0.0f;
}

static __device__ __forceinline__ float warm_output(float sum, float share) {
        return share > 0.0f ? __fadd_rn(__fmul_rn(sum, share), 0.0f) : 0.0f;
}

/* Two values rounded to the KV type, as they lie in memory. */
template <bool BF16> static __device__ __forceinline__ uint32_t warm_pair(float low, float high) {
        uint32_t pair;

        if (BF16)
                asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
        else
                asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
        return pair;
}

/* What is stored is finite: too large becomes the largest, not finite 0. */
template <bool BF16> static __device__ __forceinline__ float warm_finite(float x) {
        const float most = BF16 ? 0x1.FEp+127F : 65504.0F;

        x = fabsf(x) < INFINITY ? x : 0.0f;
        return fmaxf(fminf(x, most), -most);
}

/* c += a b */
template <bool BF16>
static __device__ __forceinline__ void warm_mma(float *c, const uint32_t *a, uint32_t b0,
                                                uint32_t b1) {
        if (BF16)
                asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                    "{%4,%5,%6,%7}, "
                    "{%8,%9}, {%0,%1,%2,%3};"
                    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
        else
                asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                    "{%4,%5,%6,%7}, "
                    "{%8,%9}, {%0,%1,%2,%3};"
                    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two ones of the KV type: P times them is the sum of its rows, in every column. */
template <bool BF16> static __device__ __forceinline__ uint32_t warm_ones() {
        return BF16 ? 0x3f803f80U : 0x3c003c00U;
}

static __device__ __forceinline__ uint32_t warm_shared(const void *p) {
        return (uint32_t) __cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void warm_load_matrices(uint32_t *r, uint32_t at) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
}

static __device__ __forceinline__ void warm_load_turned(uint32_t *r, uint32_t at) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                     : "r"(at)
                     : "memory");
}

/* 16 bytes to shared memory, on their way until warm_copies_wait(); zeros if not wanted (from is not read then). */
static __device__ __forceinline__ void warm_copy(uint32_t to, const void *from, bool wanted) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                     "r"(wanted ? 16 : 0)
                     : "memory");
}

static __device__ __forceinline__ void warm_copies_commit() {
        asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All but the last N groups of this thread have arrived. */
template <int N> static __device__ __forceinline__ void warm_copies_wait() {
        asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/*
 * How rows of D values lie in shared memory, so that eight rows' pieces of 16 bytes never share a bank: padded by a
 * piece, or, where every byte counts (D 256: Q, K and V of a wide step in 96 KiB), pieces swapped by the row.
 */
template <uint32_t D> struct warm_tile {
        static constexpr bool swapped = D == 256;
        static constexpr uint32_t ld_bytes = D * 2 + (swapped ? 0 : 16);
        static constexpr uint32_t bytes = 64 * ld_bytes;

        /* Byte offset of a piece of 8 values. */
        static __device__ __forceinline__ uint32_t at(uint32_t row, uint32_t piece) {
                return row * ld_bytes + (swapped ? piece ^ (row & 7) : piece) * 16;
        }

        /* Address of the piece n further in the row, none of whose bits the first one had; tiles begin at 512s. */
        static __device__ __forceinline__ uint32_t further(uint32_t address, uint32_t n) {
                return swapped ? address ^ n * 16 : address + n * 16;
        }
};

/*
 * A tile of 64 slots on its way to shared memory: 32 from each of two blocks, dim values a slot. One way for whole tiles
 * and others, since a kernel that goes through few tiles waits for its instructions to be read.
 *
 * @param copied bit i: slot i is to be copied; @param seen not set: it becomes 0 instead
 */
template <uint32_t D, uint32_t THREADS>
static __device__ __forceinline__ void warm_copy_tile(uint32_t to, const uint8_t *x,
                                                      const uint8_t *y, uint32_t dim,
                                                      uint64_t copied, uint64_t seen) {
        constexpr uint32_t pieces = D / 8, rows = THREADS / pieces;
        constexpr bool even = 32 % rows == 0; /* slots of a turn are of one block */
        uint32_t row = threadIdx.x / pieces, piece = threadIdx.x % pieces;
        uint32_t copies[2] = { (uint32_t) copied >> row % 32,
                               (uint32_t) (copied >> 32) >> row % 32 };
        uint32_t sees[2] = { (uint32_t) seen >> row % 32, (uint32_t) (seen >> 32) >> row % 32 };

        if (row >= rows || piece * 8 >= dim)
                return;
#pragma unroll
        for (uint32_t i = 0; i * rows < 64; i++) {
                uint32_t r = row + i * rows, half = even ? i * rows / 32 : r / 32;
                bool is_copied = even ? copies[half] >> i * rows % 32 & 1 : copied >> r % 64 & 1;
                bool is_seen = even ? sees[half] >> i * rows % 32 & 1 : seen >> r % 64 & 1;

                if ((even || r < 64) && is_copied)
                        warm_copy(to + warm_tile<D>::at(r, piece),
                                  (half ? y : x) + ((r - half * 32) * dim + piece * 8) * 2,
                                  is_seen);
        }
}

/* The same where every slot is copied and seen, of D values: nothing is asked for each. */
template <uint32_t D, uint32_t THREADS>
static __device__ __forceinline__ void warm_copy_whole(uint32_t to, const uint8_t *x,
                                                       const uint8_t *y) {
        constexpr uint32_t pieces = D / 8, rows = THREADS / pieces;
        uint32_t row = threadIdx.x / pieces, piece = threadIdx.x % pieces;

        static_assert(THREADS % pieces == 0 && 32 % rows == 0, "each thread has as many");
        x += threadIdx.x * 16;
        y += threadIdx.x * 16;
#pragma unroll
        for (uint32_t i = 0; i < 64 / rows; i++)
                warm_copy(to + warm_tile<D>::at(row + i * rows, piece),
                          (i < 32 / rows ? x : y) + i % (32 / rows) * rows * D * 2, true);
}

/* The slots that a row sees in a layer, cut by its window. */
struct warm_seen {
        uint64_t mask; /* bit 63: slot hi - 1, bit 0: slot hi - 64 */
        uint32_t lo, hi;
};

static __device__ __forceinline__ struct warm_seen warm_seen_of(const struct warm_cuda_row &row,
                                                                uint32_t window) {
        uint32_t behind = row.slot < window ? 0 : row.slot - window + 1;
        struct warm_seen seen = { __brevll(row.mask), max(row.lo, behind), row.hi };

        return seen;
}

/* Bit i: slot begin + i is visible; begin a multiple of 64. */
static __device__ __forceinline__ uint64_t warm_seen_bits(const struct warm_seen &s,
                                                          uint32_t begin) {
        int32_t apart =
                (int32_t) begin - (int32_t) s.hi + 64; /* of the chunk and the mask's first slot */
        uint64_t bits;

        if (s.lo >= s.hi || apart >= 64 || s.lo >= begin + 64)
                return 0;
        if (apart <= -64)
                bits = ~0ULL;
        else if (apart < 0)
                bits = (s.mask << -apart) | ((1ULL << -apart) - 1);
        else
                bits = s.mask >> apart;
        return s.lo > begin ? bits & (~0ULL << (s.lo - begin)) : bits;
}

/* A head that a warp is to make: where it comes from, and what happens to it. */
struct warm_head {
        const float *x;      /* [dim] in global memory, 16-byte aligned */
        const float *weight; /* of its norm, or NULL */
        const float *turns;  /* [n_pairs][2], 16-byte aligned if n_pairs is even */
        uint32_t dim;        /* <= D, a multiple of 8 */
        uint32_t n_pairs;
        float factor;
};

/*
 * A lane has four dimensions of every 128: two pairs that turn, or four neighbours that do not. So the turning ones
 * come first; of them, (first, first + 1) and (second, second + 1) are neighbours, and turn with each other across
 * (halves) or among themselves.
 */
template <uint32_t D> struct warm_head_values {
        float x[(D + 127) / 128][4];
        float turn[(D + 127) / 128][4]; /* cos, sin of each pair */
};

/* The lane's first and second two dimensions of the j-th 128. @return false: there are none */
static __device__ __forceinline__ bool warm_head_place(const struct warm_head &h, bool halves,
                                                       uint32_t j, uint32_t *ret_first,
                                                       uint32_t *ret_second) {
        uint32_t four = threadIdx.x % 32 + 32 * j;

        *ret_first = four * 4;
        *ret_second = four * 4 + 2;
        if (halves && four * 2 < h.n_pairs) {
                *ret_first = four * 2;
                *ret_second = four * 2 + h.n_pairs;
        }
        return four * 4 < h.dim;
}

/* Ask for the values; for several heads' before any is used, which would be to wait for it. */
template <uint32_t D>
static __device__ __forceinline__ void warm_head_load(const struct warm_head &h, bool halves,
                                                      struct warm_head_values<D> &v) {
#pragma unroll
        for (uint32_t j = 0; j < (D + 127) / 128; j++) {
                uint32_t first, second, four = threadIdx.x % 32 + 32 * j;
                float2 two[2] = {};
                float4 turn = {};

                if (warm_head_place(h, halves, j, &first, &second)) {
                        two[0] = *(const float2 *) (h.x + first);
                        two[1] = *(const float2 *) (h.x + second);
                        if (four * 2 < h.n_pairs)
                                turn = *(const float4 *) (h.turns + four * 4);
                }
                v.x[j][0] = two[0].x;
                v.x[j][1] = two[0].y;
                v.x[j][2] = two[1].x;
                v.x[j][3] = two[1].y;
                v.turn[j][0] = turn.x;
                v.turn[j][1] = turn.y;
                v.turn[j][2] = turn.z;
                v.turn[j][3] = turn.w;
        }
}

/* A pair turns: each product and sum rounded once. */
static __device__ __forceinline__ void warm_turn(float cos, float sin, float *a, float *b) {
        float x = *a, y = *b;

        *a = __fadd_rn(__fmul_rn(x, cos), -__fmul_rn(y, sin));
        *b = __fadd_rn(__fmul_rn(x, sin), __fmul_rn(y, cos));
}

/*
 * Norm, rope, times the factor, rounded to the KV type.
 *
 * @param put takes (even dimension, two values)
 */
template <bool BF16, uint32_t D, typename Put>
static __device__ __forceinline__ void warm_head_make(const struct warm_head &h, bool halves,
                                                      float epsilon, struct warm_head_values<D> &v,
                                                      Put put) {
        float scale = 1.0f;

        if (h.weight) {
                float sum = 0.0f;

#pragma unroll
                for (uint32_t i = 0; i < (D + 127) / 128 * 4; i++)
                        sum = __fmaf_rn(v.x[i / 4][i % 4], v.x[i / 4][i % 4], sum);
#pragma unroll
                for (int o = 16; o; o >>= 1)
                        sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, o));
                scale = __fdiv_rn(1.0f,
                                  __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float) h.dim), epsilon)));
        }
#pragma unroll
        for (uint32_t j = 0; j < (D + 127) / 128; j++) {
                uint32_t first, second, four = threadIdx.x % 32 + 32 * j;
                float *x = v.x[j], *turn = v.turn[j];

                if (!warm_head_place(h, halves, j, &first, &second))
                        continue;
                if (h.weight) {
                        x[0] = __fmul_rn(__fmul_rn(x[0], scale), __ldg(&h.weight[first]));
                        x[1] = __fmul_rn(__fmul_rn(x[1], scale), __ldg(&h.weight[first + 1]));
                        x[2] = __fmul_rn(__fmul_rn(x[2], scale), __ldg(&h.weight[second]));
                        x[3] = __fmul_rn(__fmul_rn(x[3], scale), __ldg(&h.weight[second + 1]));
                }
                if (four * 2 < h.n_pairs) {
                        if (halves) {
                                warm_turn(turn[0], turn[1], &x[0], &x[2]);
                                warm_turn(turn[2], turn[3], &x[1], &x[3]);
                        } else {
                                warm_turn(turn[0], turn[1], &x[0], &x[1]);
                                warm_turn(turn[2], turn[3], &x[2], &x[3]);
                        }
                }
#pragma unroll
                for (uint32_t i = 0; i < 4; i++)
                        x[i] = warm_finite<BF16>(__fmul_rn(x[i], h.factor));
                put(first, warm_pair<BF16>(x[0], x[1]));
                put(second, warm_pair<BF16>(x[2], x[3]));
        }
}
