/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with mma.sync. A warp computes 16 rows of the matrix in one segment of columns, for all rows of the step
 * (narrow) or for 64 of them (wide); the warps of a block that share the 16 rows then add their segments.
 *
 * narrow is a race to read the weights once. Each warp streams its own units through a ring of its own in shared
 * memory, with asynchronous copies that need no registers and no other warp; the first of them are on their way before
 * the kernel waits for the one before it.
 */
#pragma once

#include "epilogue.cuh"
#include "format.cuh"
#include "launch.cuh"

#define WARPS_MAX                                                                                  \
        9U /* a block without segments: two of them give the 7B models' gate and up one round */
#define B_TILE_BYTES 1024U /* activations of 8 rows, 64 columns */

/*
 * A ring's shape. A stage is some units with their activations: two at a time, where registers allow, are two
 * independent streams of instructions. Stages: what keeps about 64 KiB of weights in flight on a multiprocessor and
 * lets two blocks, of this kernel and the next, share one.
 */
template <int F, int N8> struct ring {
        static constexpr uint32_t unit_bytes = warm_unit_bytes(F);
        static constexpr uint32_t units = N8 <= 2 ? 2 : 1;
        static constexpr uint32_t stage_bytes = units * (unit_bytes + N8 * B_TILE_BYTES);
        static constexpr uint32_t stages = N8 == 8 ? 2 : F == WARM_CUDA_F16 ? (N8 == 4 ? 3 : 2) : 3;
};

static __device__ __forceinline__ void copy16(uint32_t to, const void *from) {
        asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from)
                     : "memory");
}

static __device__ __forceinline__ void commit() {
        asm volatile("cp.async.commit_group;" ::: "memory");
}

/* A warp's way along its units: where the next ones come from, this lane's part. */
struct stream {
        const uint8_t *a, *b;
        uint32_t n; /* units left to fetch */
};

/*
 * Start copying the activations of a unit. In shared memory: narrow [step][N8][8 rows][32 bytes], as in global memory;
 * wide [step][2][64 rows][16 bytes].
 *
 * @param from this lane's first piece of the unit @param first row of tile 0 @param n rows that there are
 */
template <int N8, bool wide>
static __device__ __forceinline__ void fetch_b(uint32_t to, const uint8_t *from, uint32_t lane,
                                               uint32_t first, uint32_t n) {
#pragma unroll
        for (int i = 0; i < N8 * 2; i++) {
                uint32_t row = wide ? first + i % 2 * 32 + lane
                                    : (N8 <= 2 ? lane / 16 % N8 : (i * 2 + lane / 16) % N8) * 8 +
                                               lane % 16 / 2;

                if (row < n)
                        copy16(to + i * 512,
                               from + (wide ? i % 2 * 4096 + ((i / 2 ^ lane % 8) * 16) : i * 512));
        }
}

/* Start copying a unit of weights. @param to, @param from of this lane */
template <int F>
static __device__ __forceinline__ void fetch_a(uint32_t to, const uint8_t *from, uint32_t lane) {
        constexpr uint32_t n = warm_unit_bytes(F) / 16;

#pragma unroll
        for (uint32_t i = 0; i < (n + 31) / 32; i++)
                if (i * 32 + 32 <= n || i * 32 + lane < n)
                        copy16(to + i * 512, from + i * 512);
}

template <int N> static __device__ __forceinline__ void ring_wait() {
        asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
        __syncwarp();
}

/* Multiply units that have arrived; their sums are one chain. */
template <int F, int N8, bool wide, int UNITS>
static __device__ __forceinline__ void multiply_units(const uint8_t *stage, uint32_t lane,
                                                      float (*c)[4]) {
        constexpr uint32_t unit_bytes = warm_unit_bytes(F);
        const uint8_t *b_stage = stage + ring<F, N8>::units * unit_bytes;
        warm_unit<F> u[UNITS];

#pragma unroll
        for (int i = 0; i < UNITS; i++)
                warm_unit_load<F, true>(stage + i * unit_bytes, lane, u[i]);
#pragma unroll
        for (int step = 0; step < 4 * UNITS; step++) {
                const uint8_t *b_unit = b_stage + step / 4 * N8 * B_TILE_BYTES;
                uint32_t a[4];

                warm_unit_fragment<F>(u[step / 4], step % 4, a);
#pragma unroll
                for (int j = 0; j < N8; j++) {
                        uint2 b;

                        if (wide) {
                                const uint8_t *at = b_unit + step % 4 * 2048 +
                                                    (j * 8 + lane / 4) * 16 + lane % 4 * 4;

                                b.x = *(const uint32_t *) at;
                                b.y = *(const uint32_t *) (at + 1024);
                        } else {
                                b = *(const uint2 *) (b_unit +
                                                      ((step % 4 * N8 + j) * 32 + lane) * 8);
                        }
                        warm_mma(c[j], a, b.x, b.y);
                }
        }
}

/*
 * Block: blockDim.x / 32 warps = tiles_per_block * n_segments. Shared memory: a ring for each warp,
 * later partial sums [warps][N8][32][4] floats in its place if there are segments; then row scales [N8 * 8].
 */
template <int F, int N8, bool wide>
static __global__ void __launch_bounds__(WARPS_MAX * 32, N8 <= 2 ? 2 : 1)
        multiply(const __grid_constant__ struct warm_cuda_product p, uint32_t tiles_per_block,
                 uint32_t scales_at) {
        extern __shared__ __align__(128) uint8_t shared[];
        using R = ring<F, N8>;
        constexpr uint32_t b_bytes = N8 * B_TILE_BYTES;
        const struct warm_cuda_matrix &m = p.matrix;
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4;
        uint32_t segment = warp % m.n_segments,
                 tile = blockIdx.x * tiles_per_block + warp / m.n_segments;
        uint32_t n_warps = blockDim.x / 32;
        bool working = tile * 16 < m.n_rows;
        uint32_t begin = segment * m.k_units / m.n_segments,
                 end = (segment + 1) * m.k_units / m.n_segments;
        const uint8_t *ring_at = shared + warp * (R::stages * R::stage_bytes);
        uint32_t to = (uint32_t) __cvta_generic_to_shared(ring_at) + lane * 16;
        float *scales = (float *) (shared + scales_at);
        struct stream a, b;
        float c[N8][4];

        warm_let_next_start();
        if (!working)
                end = begin;
        /* One group a stage: first weights alone, then activations alone, then both together. */
        a.a = m.d_data +
              (((uint64_t) (tile / 8) * m.k_units + begin) * 8 + tile % 8) * R::unit_bytes +
              lane * 16;
        a.n = end - begin;
        b = a;
#pragma unroll
        for (uint32_t i = 0; i < R::stages; i++) {
#pragma unroll
                for (uint32_t j = 0; j < R::units; j++)
                        if (i * R::units + j < a.n)
                                fetch_a<F>(to + i * R::stage_bytes + j * R::unit_bytes,
                                           a.a + (i * R::units + j) * (8 * R::unit_bytes), lane);
                commit();
        }
#pragma unroll
        for (int j = 0; j < N8; j++)
                c[j][0] = c[j][1] = c[j][2] = c[j][3] = 0;
        warm_wait_for_before();

        uint32_t n = *(volatile const uint32_t *) p.d_n_rows, first = blockIdx.y * N8 * 8;
        const uint32_t b_step = wide ? 128 * 128 : b_bytes; /* a unit on, in global memory */

        if (first >= n)
                return;
        if (wide)
                b.b = (const uint8_t *) p.in.d_values +
                      (((uint64_t) (first / 128) * (p.in.k_padded / 64) + begin) * 128 +
                       first % 128 + lane) *
                              128;
        else
                b.b = (const uint8_t *) p.in.d_values + (uint64_t) begin * b_bytes + lane * 16;
#pragma unroll
        for (uint32_t i = 0; i < R::stages; i++) {
#pragma unroll
                for (uint32_t j = 0; j < R::units; j++)
                        if (i * R::units + j < a.n)
                                fetch_b<N8, wide>(to + i * R::stage_bytes +
                                                          R::units * R::unit_bytes + j * b_bytes,
                                                  b.b + (i * R::units + j) * b_step, lane, first,
                                                  n);
                commit();
        }
        if (!wide && p.d_squares)
                for (uint32_t i = warp; i < N8 * 8 && first + i < n; i += n_warps) {
                        float s = warm_row_scale(p.d_squares, p.n_tiles, p.squares_ld, first + i,
                                                 p.dim, p.epsilon);

                        if (lane == 0)
                                scales[i] = s;
                }
        a.a += R::stages * R::units * (8 * R::unit_bytes);
        b.b += (uint64_t) (R::stages * R::units) * b_step;
        for (uint32_t k = begin, at = 0; k < end; k += R::units) {
                uint32_t next = k + R::stages * R::units;

                ring_wait<(int) R::stages - 1>();
                if (R::units == 1 || k + 1 < end)
                        multiply_units<F, N8, wide, R::units>(ring_at + at, lane, c);
                else
                        multiply_units<F, N8, wide, 1>(ring_at + at, lane, c);
                __syncwarp(); /* everybody has read */
#pragma unroll
                for (uint32_t j = 0; j < R::units; j++)
                        if (next + j < end) {
                                fetch_a<F>(to + at + j * R::unit_bytes,
                                           a.a + j * (8 * R::unit_bytes), lane);
                                fetch_b<N8, wide>(to + at + R::units * R::unit_bytes + j * b_bytes,
                                                  b.b + j * b_step, lane, first, n);
                        }
                commit();
                a.a += R::units * (8 * R::unit_bytes);
                b.b += R::units * b_step;
                at = at + R::stage_bytes == R::stages * R::stage_bytes ? 0 : at + R::stage_bytes;
        }
        if (m.n_segments > 1) {
                float4 *parts = (float4 *) shared;

                __syncthreads(); /* the rings have been read */
#pragma unroll
                for (int j = 0; j < N8; j++)
                        parts[(warp * N8 + j) * 32 + lane] =
                                make_float4(c[j][0], c[j][1], c[j][2], c[j][3]);
        }
        __syncthreads();
        if (!working)
                return;
        for (uint32_t j = segment; j < N8; j += m.n_segments) {
                float y[4], s0 = 1, s1 = 1;
                uint32_t token = j * 8 + lane % 4 * 2;

                if (m.n_segments > 1) {
                        const float4 *parts = (const float4 *) (const void *) shared +
                                              ((warp - segment) * N8 + j) * 32 + lane;

                        for (uint32_t i = 0; i < m.n_segments; i++) {
                                float4 v = parts[i * N8 * 32];

                                y[0] = i ? __fadd_rn(y[0], v.x) : v.x;
                                y[1] = i ? __fadd_rn(y[1], v.y) : v.y;
                                y[2] = i ? __fadd_rn(y[2], v.z) : v.z;
                                y[3] = i ? __fadd_rn(y[3], v.w) : v.w;
                        }
                } else {
#pragma unroll
                        for (int i = 0; i < N8; i++)
                                if (i == (int) j)
                                        for (int e = 0; e < 4; e++)
                                                y[e] = c[i][e];
                }
                if (!wide && p.d_squares) {
                        s0 = scales[token];
                        s1 = scales[token + 1];
                } else if (wide && p.d_row_scales) {
                        s0 = first + token < n ? __ldcg(&p.d_row_scales[first + token]) : 0;
                        s1 = first + token + 1 < n ? __ldcg(&p.d_row_scales[first + token + 1]) : 0;
                }
                warm_finish(p, tile, g, s0, s1, y);
                warm_put(p, tile, g, first + token, n, y);
        }
}

static uint32_t smaller(uint32_t a, uint32_t b) {
        return a < b ? a : b;
}

template <int F, int N8, bool wide>
static int launch(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        uint32_t tiles = (p->matrix.n_rows + 15) / 16, segments = p->matrix.n_segments, per_block,
                 warps;
        uint32_t ring_bytes, parts_bytes, bytes;

        /* Without segments: as many tiles a block as give every multiprocessor the same number of blocks. */
        per_block = segments < 8 ? 8 / segments : 1;
        if (segments == 1)
                for (uint32_t rounds = 1;; rounds++) {
                        per_block = (tiles + n_sms * rounds - 1) / (n_sms * rounds);
                        if (per_block <= WARPS_MAX)
                                break;
                }
        warps = per_block * segments;
        ring_bytes = warps * ring<F, N8>::stages * ring<F, N8>::stage_bytes;
        parts_bytes = segments > 1 ? warps * N8 * 512 : 0;
        ring_bytes = ring_bytes > parts_bytes ? ring_bytes : parts_bytes;
        bytes = ring_bytes + N8 * 8 * (uint32_t) sizeof(float);
        if (bytes > 48 * 1024) {
                cudaError_t r = cudaFuncSetAttribute(multiply<F, N8, wide>,
                                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     (int) bytes);

                if (r)
                        return (int) r;
        }
        return warm_launch(multiply<F, N8, wide>,
                           dim3((tiles + per_block - 1) / per_block,
                                wide ? (p->n_rows_max + N8 * 8 - 1) / (N8 * 8) : 1),
                           dim3(per_block * segments * 32), bytes, stream, p->overlap, *p,
                           per_block, ring_bytes);
}

template <int F>
static int by_rows(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        switch (p->in.n8) {
        case 1:
                return launch<F, 1, false>(p, n_sms, stream);
        case 2:
                return launch<F, 2, false>(p, n_sms, stream);
        case 4:
                return launch<F, 4, false>(p, n_sms, stream);
        case 8:
                return launch<F, 8, false>(p, n_sms, stream);
        }
        return launch<F, 8, true>(p, smaller(n_sms, 64), stream);
}
