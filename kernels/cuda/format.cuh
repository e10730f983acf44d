/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Units of weights on their way into A fragments of binary16: matrix.h says how they lie.
 *
 * Integers become binary16 by bit patterns: 0x6400 | q is 1024 + q for q < 1024, and (0x6400 | q << 4) is 1024 + 16 q
 * for q < 64; a subtraction (or a product with 1/16 and a subtraction) then gives q, exactly.
 */
#pragma once

#include <cuda_fp16.h>

#include "matrix.h"

static constexpr __host__ __device__ uint32_t warm_unit_plane_bytes(int format) {
        return format == WARM_CUDA_F16   ? 2048
               : format == WARM_CUDA_Q8  ? 1024
               : format == WARM_CUDA_Q4  ? 512
               : format == WARM_CUDA_Q4M ? 512
               : format == WARM_CUDA_Q5  ? 640
               : format == WARM_CUDA_Q5M ? 640
                                         : 768;
}

static constexpr __host__ __device__ uint32_t warm_unit_scale_bytes(int format) {
        return format == WARM_CUDA_F16                                                      ? 0
               : format == WARM_CUDA_Q8 || format == WARM_CUDA_Q4 || format == WARM_CUDA_Q5 ? 64
                                                                                            : 128;
}

static constexpr __host__ __device__ uint32_t warm_unit_bytes(int format) {
        return warm_unit_plane_bytes(format) + warm_unit_scale_bytes(format);
}

/* A lane's share of a unit, in registers as loaded. */
template <int F> struct warm_unit {
        uint4 q[F == WARM_CUDA_F16 ? 4 : F == WARM_CUDA_Q8 ? 2 : 1];
        uint2 high;
        uint4 scales;
};

static __device__ __forceinline__ uint4 warm_load_stream(const void *p) {
        uint4 v;

        asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(p));
        return v;
}

/* Load a lane's share; `shared`: from shared memory, else streamed from global memory. */
template <int F, bool shared>
static __device__ __forceinline__ void warm_unit_load(const uint8_t *unit, uint32_t lane,
                                                      warm_unit<F> &u) {
        constexpr int n = F == WARM_CUDA_F16 ? 4 : F == WARM_CUDA_Q8 ? 2 : 1;
        const uint8_t *p = unit + lane * 16;
        const uint8_t *s = unit + warm_unit_plane_bytes(F);

#pragma unroll
        for (int i = 0; i < n; i++)
                u.q[i] = shared ? *(const uint4 *) (p + i * 512) : warm_load_stream(p + i * 512);
        if (F == WARM_CUDA_Q5 || F == WARM_CUDA_Q5M)
                u.high.x = shared ? *(const uint32_t *) (unit + 512 + lane * 4)
                                  : __ldg((const uint32_t *) (unit + 512 + lane * 4));
        if (F == WARM_CUDA_Q6)
                u.high = shared ? *(const uint2 *) (unit + 512 + lane * 8)
                                : __ldg((const uint2 *) (unit + 512 + lane * 8));
        if (warm_unit_scale_bytes(F) == 64) {
                const uint2 *at = (const uint2 *) (s + lane / 4 * 8);
                uint2 v = shared ? *at : __ldg(at);

                u.scales.x = v.x;
                u.scales.y = v.y;
        }
        if (warm_unit_scale_bytes(F) == 128) {
                const uint4 *at = (const uint4 *) (s + lane / 4 * 16);

                u.scales = shared ? *at : __ldg(at);
        }
}

static __device__ __forceinline__ uint32_t warm_h2_bits(__half2 h) {
        return *(uint32_t *) &h;
}

static __device__ __forceinline__ __half2 warm_h2(uint32_t bits) {
        return *(__half2 *) &bits;
}

static __device__ __forceinline__ uint32_t warm_part(const uint4 &v, int i) {
        return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* (x & mask) | y in one operation: as a compiler takes two constants, it makes two of it. */
static __device__ __forceinline__ uint32_t warm_masked_or(uint32_t x, uint32_t mask, uint32_t y) {
        uint32_t r;

        asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(x), "r"(mask), "r"(y));
        return r;
}

/*
 * Where the bits beyond a nibble lie: of Q5 in the row's byte, of Q6 in the row's 16 bits. Those that meet a high
 * nibble lie 4 higher, as it does, so that one shift puts both right.
 *
 * @param second of columns 2t+8 and 2t+9
 */
static constexpr __host__ __device__ uint32_t warm_unit_high_at(int format, uint32_t step,
                                                                uint32_t second) {
        return (format == WARM_CUDA_Q6 ? step % 2 * 2 + step / 2 * 8 : step) + 4 * second;
}

/* A step's bits beyond a nibble of row g or, if `lower`, g + 8: in bits 4 and up, and 8 and up, of each half. */
template <int F>
static __device__ __forceinline__ uint32_t warm_unit_high(const warm_unit<F> &u, int step,
                                                          bool lower) {
        int at = (int) warm_unit_high_at(F, (uint32_t) step, 0) - 4 +
                 (F != WARM_CUDA_Q6 && lower ? 8 : 0);
        uint32_t x = F == WARM_CUDA_Q6 && lower ? u.high.y : u.high.x;

        return at < 0 ? x << -at : x >> at;
}

/* What stands for 0. */
static constexpr __host__ __device__ float warm_unit_zero(int format) {
        return format == WARM_CUDA_Q4   ? 8
               : format == WARM_CUDA_Q5 ? 16
               : format == WARM_CUDA_Q6 ? 32
                                        : 0;
}

/* The integers of a step, exact, less what stands for 0, as pairs; a[0], a[2]: row g; a[1], a[3]: row g + 8. */
template <int F>
static __device__ __forceinline__ void warm_unit_integers(const warm_unit<F> &u, int step,
                                                          __half2 *a) {
        const __half2 less1024 = __float2half2_rn(-1024.0f - warm_unit_zero(F)),
                      less64 = __float2half2_rn(-64.0f - warm_unit_zero(F)),
                      sixteenth = __float2half2_rn(0.0625f);
        const uint32_t low = 0x000f000f, high = 0x00f000f0, k = 0x64006400;
        const uint32_t beyond = F == WARM_CUDA_Q6 ? 0x00300030 : 0x00100010;

#pragma unroll
        for (int i = 0; i < 2; i++) { /* rows g, g + 8 */
                uint32_t w = warm_part(u.q[0], step) >> 8 * i;
                uint32_t first = warm_masked_or(w, low, k), second = warm_masked_or(w, high, k);

                if (F != WARM_CUDA_Q4 && F != WARM_CUDA_Q4M) {
                        uint32_t h = warm_unit_high<F>(u, step, i == 1);

                        first = warm_masked_or(h, beyond, first);
                        second = warm_masked_or(h, beyond << 4, second);
                }
                a[i] = __hadd2(warm_h2(first), less1024);
                a[i + 2] = __hfma2(warm_h2(second), sixteenth, less64);
        }
}

/* The A fragment of one k16 step. */
template <int F>
static __device__ __forceinline__ void warm_unit_fragment(const warm_unit<F> &u, int step,
                                                          uint32_t *a) {
        __half2 q[4], s0, s1;

        if (F == WARM_CUDA_F16) {
                a[0] = u.q[step].x;
                a[1] = u.q[step].y;
                a[2] = u.q[step].z;
                a[3] = u.q[step].w;
                return;
        }
        if (F == WARM_CUDA_Q8) {
                uint32_t lo = step & 1 ? u.q[step / 2].z : u.q[step / 2].x;
                uint32_t hi = step & 1 ? u.q[step / 2].w : u.q[step / 2].y;
                const __half2 k = __float2half2_rn(-1152.0f);
                uint32_t s = step < 2 ? u.scales.x : u.scales.y;

                s0 = __low2half2(warm_h2(s));
                s1 = __high2half2(warm_h2(s));
                a[0] = warm_h2_bits(
                        __hmul2(__hadd2(warm_h2(__byte_perm(lo, 0x64646464, 0x4140)), k), s0));
                a[1] = warm_h2_bits(
                        __hmul2(__hadd2(warm_h2(__byte_perm(lo, 0x64646464, 0x4342)), k), s1));
                a[2] = warm_h2_bits(
                        __hmul2(__hadd2(warm_h2(__byte_perm(hi, 0x64646464, 0x4140)), k), s0));
                a[3] = warm_h2_bits(
                        __hmul2(__hadd2(warm_h2(__byte_perm(hi, 0x64646464, 0x4342)), k), s1));
                return;
        }
        warm_unit_integers<F>(u, step, q);
        if (F == WARM_CUDA_Q4M || F == WARM_CUDA_Q5M) {
                /* x, y: (s g, s g+8), (m g, m g+8) of the first 32; z, w: of the second. */
                uint32_t s = step < 2 ? u.scales.x : u.scales.z;
                uint32_t m = step < 2 ? u.scales.y : u.scales.w;
                __half2 m0 = __hneg2(__low2half2(warm_h2(m))),
                        m1 = __hneg2(__high2half2(warm_h2(m)));

                s0 = __low2half2(warm_h2(s));
                s1 = __high2half2(warm_h2(s));
                a[0] = warm_h2_bits(__hfma2(q[0], s0, m0));
                a[1] = warm_h2_bits(__hfma2(q[1], s1, m1));
                a[2] = warm_h2_bits(__hfma2(q[2], s0, m0));
                a[3] = warm_h2_bits(__hfma2(q[3], s1, m1));
                return;
        }
        uint32_t s = F == WARM_CUDA_Q6 ? warm_part(u.scales, step)
                     : step < 2        ? u.scales.x
                                       : u.scales.y;

        s0 = __low2half2(warm_h2(s));
        s1 = __high2half2(warm_h2(s));
        a[0] = warm_h2_bits(__hmul2(q[0], s0));
        a[1] = warm_h2_bits(__hmul2(q[1], s1));
        a[2] = warm_h2_bits(__hmul2(q[2], s0));
        a[3] = warm_h2_bits(__hmul2(q[3], s1));
}

static __device__ __forceinline__ void warm_mma(float *c, const uint32_t *a, uint32_t b0,
                                                uint32_t b1) {
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
