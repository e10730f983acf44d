/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of many rows on Hopper: wgmma, weights from registers as operand A, activations from shared memory as B.
 *
 * A block of three warpgroups stays on its multiprocessor and takes tiles of 128 matrix rows x TOKENS rows of the step.
 * One thread of the first warpgroup copies units of weights, as they lie, and activations into a ring in shared
 * memory; the other two multiply 64 matrix rows each, turning weights into fragments while the tensor cores work on the
 * fragments before. Sums are those of matrix.h: with segments, a second set of accumulators holds the sum of the
 * segments before.
 *
 * Two blocks are a cluster: they have the same rows of the step, and each copies half of them into both. Alone, each
 * would read 48 KiB for 64 columns of F16, more than the L2 cache gives; clusters of four leave multiprocessors idle
 * (H200: 612 TFLOP/s over the 7B models' products with two, 587 with four). Blocks tell each other what is free
 * without .release: nothing was written, and the fence it brings cost half of the time.
 */
#pragma once

#include "barrier.cuh"
#include "cluster.cuh"
#include "epilogue.cuh"
#include "format.cuh"
#include "launch.cuh"
#include "matrix-share-sm90.cuh"

#define SHARED_MAX   (226U * 1024)
#define STAGES_MAX   8U
#define THREADS      384U
#define B_TILE_BYTES 16384U /* 128 rows x 64 columns, as the wide layout of cuda.h has them */

/*
 * x of a tile, [128 rows of the step][X_LD], which a product adds to: it is there when the sums are. The padding keeps
 * fragments' reads apart.
 */
#define X_LD    132U
#define X_BYTES (128 * X_LD * (uint32_t) sizeof(float))

/* Activations, then units of weights; activations are aligned for their swizzle. */
template <int F, int TOKENS> static constexpr __host__ __device__ uint32_t stage_bytes() {
        return (TOKENS * 128 + 8 * warm_unit_bytes(F) + 1023) / 1024 * 1024;
}

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Arrive at the same barrier of another block of the cluster. */
static __device__ __forceinline__ void barrier_arrive_at(uint64_t *b, uint32_t rank) {
        asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                     "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(warm_at_shared(b)),
                     "r"(rank)
                     : "memory");
}

/* Copy into the same place of both blocks; each one's barrier hears of it. */
static __device__ __forceinline__ void copy_bulk_to_all(void *to, const void *from, uint32_t bytes,
                                                        uint64_t *b) {
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::"
                     "cluster "
                     "[%0], [%1], %2, [%3], %4;" ::"r"(warm_at_shared(to)),
                     "l"(from), "r"(bytes), "r"(warm_at_shared(b)),
                     "h"((uint16_t) ((1U << CLUSTER) - 1))
                     : "memory");
}

/*
 * Descriptor of B with a swizzle of 128 bytes (PTX ISA, "Shared memory matrix descriptor"): rows of 128 bytes, eight of
 * them 1,024 bytes on. The address is aligned to 1,024 but for the step along k, 32 bytes.
 */
static __device__ __forceinline__ uint64_t b_descriptor(uint32_t address) {
        return (uint64_t) (address >> 4) | (uint64_t) 1 << 16 | (uint64_t) (1024 >> 4) << 32 |
               (uint64_t) 1 << 62;
}

static __device__ __forceinline__ void wgmma_fence() {
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit() {
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int N> static __device__ __forceinline__ void wgmma_wait() {
        asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* c = a * B (+ c if add), for so many rows of the step. */
static __device__ __forceinline__ void wgmma_128(float *c, const uint32_t *a, uint64_t b, int add) {
        asm volatile(
                "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
                "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63 "
                "}, {%64, %65, %66, %67}, %68, p, 1, 1, 0;\n}"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]),
                  "+f"(c[6]), "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]),
                  "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]),
                  "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]),
                  "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]),
                  "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]),
                  "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]),
                  "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]),
                  "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]),
                  "+f"(c[54]), "+f"(c[55]), "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]),
                  "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

static __device__ __forceinline__ void wgmma_256(float *c, const uint32_t *a, uint64_t b, int add) {
        asm volatile(
                "{\n.reg .pred p;\nsetp.ne.b32 p, %133, 0;\n"
                "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {"
                "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
                "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "
                "%110, %111, "
                "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "
                "%125, %126, %127 "
                "}, {%128, %129, %130, %131}, %132, p, 1, 1, 0;\n}"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]),
                  "+f"(c[6]), "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]),
                  "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15]), "+f"(c[16]), "+f"(c[17]),
                  "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]),
                  "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]),
                  "+f"(c[30]), "+f"(c[31]), "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]),
                  "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), "+f"(c[40]), "+f"(c[41]),
                  "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47]),
                  "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]),
                  "+f"(c[54]), "+f"(c[55]), "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]),
                  "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63]), "+f"(c[64]), "+f"(c[65]),
                  "+f"(c[66]), "+f"(c[67]), "+f"(c[68]), "+f"(c[69]), "+f"(c[70]), "+f"(c[71]),
                  "+f"(c[72]), "+f"(c[73]), "+f"(c[74]), "+f"(c[75]), "+f"(c[76]), "+f"(c[77]),
                  "+f"(c[78]), "+f"(c[79]), "+f"(c[80]), "+f"(c[81]), "+f"(c[82]), "+f"(c[83]),
                  "+f"(c[84]), "+f"(c[85]), "+f"(c[86]), "+f"(c[87]), "+f"(c[88]), "+f"(c[89]),
                  "+f"(c[90]), "+f"(c[91]), "+f"(c[92]), "+f"(c[93]), "+f"(c[94]), "+f"(c[95]),
                  "+f"(c[96]), "+f"(c[97]), "+f"(c[98]), "+f"(c[99]), "+f"(c[100]), "+f"(c[101]),
                  "+f"(c[102]), "+f"(c[103]), "+f"(c[104]), "+f"(c[105]), "+f"(c[106]),
                  "+f"(c[107]), "+f"(c[108]), "+f"(c[109]), "+f"(c[110]), "+f"(c[111]),
                  "+f"(c[112]), "+f"(c[113]), "+f"(c[114]), "+f"(c[115]), "+f"(c[116]),
                  "+f"(c[117]), "+f"(c[118]), "+f"(c[119]), "+f"(c[120]), "+f"(c[121]),
                  "+f"(c[122]), "+f"(c[123]), "+f"(c[124]), "+f"(c[125]), "+f"(c[126]), "+f"(c[127])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}

template <int TOKENS>
static __device__ __forceinline__ layout layout_of(const struct warm_cuda_product &p) {
        layout l;

        l.n_rows = *(volatile const uint32_t *) p.d_n_rows;
        l.n_tokens = (l.n_rows + TOKENS - 1) / TOKENS;
        l.n_down = (p.matrix.n_rows + 127) / 128;
        l.n_all = l.n_tokens * ((l.n_down + CLUSTER - 1) / CLUSTER);
        l.rank = blockIdx.x % CLUSTER;
        return l;
}

/* The copying thread. What lies beyond the matrix is not looked at: its last tile stands in. */
template <int F, int TOKENS>
static __device__ void produce(const struct warm_cuda_product &p, const layout &l, const share &s,
                               uint8_t *stages, uint64_t *full, uint64_t *empty,
                               uint32_t n_stages) {
        constexpr uint32_t a_bytes = 8 * warm_unit_bytes(F), b_bytes = TOKENS * 128,
                           part = b_bytes / CLUSTER;
        const uint64_t b_tile = (uint64_t) p.matrix.k_units * B_TILE_BYTES;
        const uint32_t at = l.rank * part;
        uint32_t stage = 0, parity = 1;
        work w;

        for (uint32_t i = 0; work_of(s, i, &w); i++) {
                uint32_t row = w.pair / l.n_tokens * CLUSTER + l.rank, token = w.pair % l.n_tokens;
                uint32_t end = w.end * p.matrix.k_units / s.n_segments;
                const uint8_t *a =
                        p.matrix.d_data + (uint64_t) (row < l.n_down ? row : l.n_down - 1) *
                                                  p.matrix.k_units * a_bytes;
                const uint8_t *b =
                        (const uint8_t *) p.in.d_values +
                        ((uint64_t) token * (TOKENS / 128) + at / B_TILE_BYTES) * b_tile +
                        at % B_TILE_BYTES;

                for (uint32_t k = w.begin * p.matrix.k_units / s.n_segments; k < end; k++) {
                        uint8_t *to = stages + stage * stage_bytes<F, TOKENS>();

                        warm_barrier_wait(&empty[stage], parity);
                        warm_barrier_expect(&full[stage], a_bytes + b_bytes);
                        warm_copy_bulk(to + b_bytes, a + (uint64_t) k * a_bytes, a_bytes,
                                       &full[stage]);
                        copy_bulk_to_all(to + at, b + (uint64_t) k * B_TILE_BYTES, part,
                                         &full[stage]);
                        if (++stage == n_stages) {
                                stage = 0;
                                parity ^= 1;
                        }
                }
        }
}

/* Whether x comes through shared memory. */
static __device__ __forceinline__ bool stages_x(const struct warm_cuda_product &p) {
        return p.epilogue == WARM_CUDA_RESIDUAL && p.matrix.n_rows % 4 == 0;
}

/* The warp that copies x: a row of the step's part of a tile a lane at a time. */
static __device__ void produce_x(const struct warm_cuda_product &p, const layout &l, const share &s,
                                 float *x, uint64_t *full, uint64_t *empty) {
        const uint32_t lane = threadIdx.x % 32, dim = p.matrix.n_rows;
        uint32_t parity = 1;
        work w;

        for (uint32_t i = 0; work_of(s, i, &w); i++) {
                uint32_t m = (w.pair / l.n_tokens * CLUSTER + l.rank) * 128,
                         token = w.pair % l.n_tokens * 128, n, bytes;

                if (m >= dim || w.end < s.n_segments)
                        continue;
                n = min(128, l.n_rows - token);
                bytes = min(128, dim - m) * (uint32_t) sizeof(float);
                warm_barrier_wait(empty, parity);
                if (lane == 0)
                        warm_barrier_expect(full, n * bytes);
                __syncwarp();
                for (uint32_t row = lane; row < n; row += 32)
                        warm_copy_bulk(x + row * X_LD, p.d_x + (uint64_t) (token + row) * dim + m,
                                       bytes, full);
                parity ^= 1;
        }
}

/* Where a multiplying warpgroup is in the ring. */
struct cursor {
        uint8_t *stages;
        uint64_t *full, *empty;
        uint32_t n_stages, stage, parity;
};

/* Take a stage, make its fragments, start its products. `add` false: sums begin at 0. */
template <int F, int TOKENS>
static __device__ __forceinline__ void multiply_stage(const cursor &at, uint32_t warp,
                                                      uint32_t lane, bool add, uint32_t (*a)[4],
                                                      float *c) {
        const uint8_t *stage = at.stages + at.stage * stage_bytes<F, TOKENS>();
        uint32_t b = warm_at_shared(stage);
        warm_unit<F> u;

        warm_barrier_wait(&at.full[at.stage], at.parity);
        warm_unit_load<F, true>(stage + TOKENS * 128 + warp * warm_unit_bytes(F), lane, u);
#pragma unroll
        for (int step = 0; step < 4; step++)
                warm_unit_fragment<F>(u, step, a[step]);
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
                if (TOKENS == 256)
                        wgmma_256(c, a[step], b_descriptor(b + step * 32), add || step);
                else
                        wgmma_128(c, a[step], b_descriptor(b + step * 32), add || step);
        wgmma_commit();
}

/* All lanes have read the stage. */
static __device__ __forceinline__ void release(cursor &at, uint32_t lane) {
        __syncwarp();
#ifdef WARM_CUDA_RACECHECK
        for (uint32_t rank = 0; rank < CLUSTER; rank++)
                barrier_arrive_at(&at.empty[at.stage], rank);
#else
        if (lane < CLUSTER)
                barrier_arrive_at(&at.empty[at.stage], lane);
#endif
}

static __device__ __forceinline__ void advance(cursor &at) {
        if (++at.stage == at.n_stages) {
                at.stage = 0;
                at.parity ^= 1;
        }
}

/* Units [begin, end) into c, from 0. All products have ended on return. */
template <int F, int TOKENS>
static __device__ __forceinline__ void multiply_units(cursor &at, uint32_t warp, uint32_t lane,
                                                      uint32_t n, float *c) {
        uint32_t a[2][4][4];
        cursor before = at;

        for (uint32_t k = 0; k < n; k += 2) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                        if (k + i >= n)
                                break;
                        multiply_stage<F, TOKENS>(at, warp, lane, k + i > 0, a[i], c);
                        if (k + i > 0) {
                                wgmma_wait<1>();
                                release(before, lane);
                        }
                        before = at;
                        advance(at);
                }
        }
        wgmma_wait<0>();
        if (n > 0)
                release(before, lane);
}

/* What a thread needs to hand on its part of a tile: 16 rows of the matrix, 128 of the step. */
struct hand {
        uint32_t tile, g, token; /* token: of c[0] */
        uint32_t n;              /* rows of the step */
        float bias0, bias1;
        float scales
                [4]; /* of rows first + 32 i + lane: read once, before stores that a compiler cannot tell apart */
};

/* y of fragment j. */
static __device__ __forceinline__ void finish(const struct warm_cuda_product &p, const hand &h,
                                              int j, float *c) {
        uint32_t from = j % 4 * 8 + threadIdx.x % 4 * 2;

        warm_finish_with(p, h.bias0, h.bias1, __shfl_sync(~0U, h.scales[j / 4], from),
                         __shfl_sync(~0U, h.scales[j / 4], from + 1), c);
}

/* Where (row, column k) of activations lies; rows 8 on lie 512 values on. */
static __device__ __forceinline__ uint16_t *place_of(const struct warm_cuda_acts &a, uint32_t row,
                                                     uint32_t k) {
        return a.d_values +
               (((uint64_t) (row / 128) * (a.k_padded / 64) + k / 64) * 128 + row % 128) * 64 +
               ((k / 8 % 8) ^ (row % 8)) * 8 + k % 8;
}

/*
 * As warm_put_residual(), for 128 rows of the step.
 *
 * @param old x of the fragment's values is old[row * X_LD + 8 * (0 or 1)]
 */
static __device__ __forceinline__ void put_residual(const struct warm_cuda_product &p,
                                                    const hand &h, const float *old, float *c) {
        const uint32_t m = h.tile * 16 + h.g, dim = p.matrix.n_rows;
        const bool there[2] = { m < dim, m + 8 < dim };
        float *x = p.d_x + (uint64_t) h.token * dim + m,
              *squares = p.d_squares_out + (uint64_t) h.tile * p.squares_ld + h.token;
        const float norms[2] = { there[0] ? __ldg(&p.d_next_norm[m]) : 0,
                                 there[1] ? __ldg(&p.d_next_norm[m + 8]) : 0 };
        uint16_t *to[4];

#pragma unroll
        for (int i = 0; i < 4; i++)
                to[i] = place_of(p.out, h.token + i % 2, m + i / 2 * 8);
#pragma unroll
        for (int j = 0; j < 16; j++) {
                const uint32_t row = h.token + j * 8;
                float *y = &c[j * 4], s[4];

                finish(p, h, j, y);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                        float v;

                        s[i] = 0;
                        if (!there[i / 2] || row + i % 2 >= h.n)
                                continue;
                        v = __fadd_rn(old[(j * 8 + i % 2) * X_LD + i / 2 * 8],
                                      p.residual_scale == 1 ? y[i]
                                                            : __fmul_rn(y[i], p.residual_scale));
                        __stcg(x + (uint64_t) (j * 8 + i % 2) * dim + i / 2 * 8, v);
                        to[i][j * 512] = warm_cuda_act_value(__fmul_rn(v, norms[i / 2]));
                        s[i] = __fmul_rn(v, v);
                }
#pragma unroll
                for (int i = 0; i < 2; i++) {
                        s[i] = __fadd_rn(s[i], s[i + 2]);
#pragma unroll
                        for (int o = 4; o < 32; o <<= 1)
                                s[i] = __fadd_rn(s[i], __shfl_xor_sync(~0U, s[i], o));
                        if (h.g == 0 && there[0] && row + i < h.n)
                                __stcg(squares + j * 8 + i, s[i]);
                }
        }
}

/* As warm_put_out() without a cap. */
static __device__ __forceinline__ void put_out(const struct warm_cuda_product &p, const hand &h,
                                               float *c) {
        const uint32_t m = h.tile * 16 + h.g;
        const bool there[2] = { m < p.matrix.n_rows, m + 8 < p.matrix.n_rows };
        float *to = p.d_out + (uint64_t) h.token * p.ld_out + m;

#pragma unroll
        for (int j = 0; j < 16; j++) {
                float *y = &c[j * 4];

                finish(p, h, j, y);
#pragma unroll
                for (int i = 0; i < 4; i++)
                        if (there[i / 2] && h.token + j * 8 + i % 2 < h.n)
                                to[(j * 8 + i % 2) * p.ld_out + i / 2 * 8] = y[i];
        }
}

/* As warm_put_gated(), with silu. */
static __device__ __forceinline__ void put_gated(const struct warm_cuda_product &p, const hand &h,
                                                 float *c) {
        const uint32_t k = h.tile * 8 + h.g;
        const bool there = k < p.matrix.n_rows / 2;
        uint16_t *to[2] = { place_of(p.out, h.token, k), place_of(p.out, h.token + 1, k) };

#pragma unroll
        for (int j = 0; j < 16; j++) {
                float *y = &c[j * 4];

                finish(p, h, j, y);
#pragma unroll
                for (int i = 0; i < 2; i++)
                        if (there && h.token + j * 8 + i < h.n)
                                to[i][j * 512] = warm_cuda_act_value(__fmul_rn(
                                        warm_activate(WARM_ACTIVATION_SILU, y[i]), y[i + 2]));
        }
}

static __device__ __noinline__ void put_others(const struct warm_cuda_product &p, uint32_t tile,
                                               uint32_t row, uint32_t n, float c0, float c1,
                                               float c2, float c3) {
        float c[4] = { c0, c1, c2, c3 };

        warm_put(p, tile, threadIdx.x % 32 / 4, row, n, c);
}

/* Tiles of 256 rows come with gate and up, others with residuals: each has its fast way for its own. */
template <int TOKENS>
static __device__ __forceinline__ void put_all(const struct warm_cuda_product &p, uint32_t tile,
                                               uint32_t token, uint32_t n, const float *x,
                                               float *c) {
        hand h = {
                tile, threadIdx.x % 32 / 4, token + threadIdx.x % 4 * 2, n, 0, 0, { 1, 1, 1, 1 }
        };

        if (p.d_bias) {
                h.bias0 = __ldg(&p.d_bias[tile * 16 + h.g]);
                h.bias1 = __ldg(&p.d_bias[tile * 16 + h.g + 8]);
        }
        if (p.d_row_scales) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                        uint32_t row = token + i * 32 + threadIdx.x % 32;

                        h.scales[i] = row < n ? __ldcg(&p.d_row_scales[row]) : 0;
                }
        }
        if (TOKENS == 128 && x) {
                put_residual(p, h, x + threadIdx.x % 4 * 2 * X_LD + tile % 8 * 16 + h.g, c);
        } else if (TOKENS == 128 && p.epilogue == WARM_CUDA_OUT) {
                put_out(p, h, c);
        } else if (p.epilogue == WARM_CUDA_GATED && p.activation == WARM_ACTIVATION_SILU) {
                put_gated(p, h, c);
        } else {
#pragma unroll
                for (int j = 0; j < 16; j++) {
                        finish(p, h, j, &c[j * 4]);
                        put_others(p, tile, h.token + j * 8, n, c[j * 4], c[j * 4 + 1],
                                   c[j * 4 + 2], c[j * 4 + 3]);
                }
        }
}

/* Segments of a tile of 128 rows of the step, added. */
template <int F>
static __device__ __forceinline__ void multiply_segments(const struct warm_cuda_product &p,
                                                         const work &w, cursor &at, uint32_t warp,
                                                         uint32_t lane, float *sum) {
        for (uint32_t i = w.begin; i < w.end; i++) {
                uint32_t begin = i * p.matrix.k_units / p.matrix.n_segments;
                uint32_t end = (i + 1) * p.matrix.k_units / p.matrix.n_segments;
                float c[64];

                if (begin == end) { /* a short matrix */
#pragma unroll
                        for (int e = 0; e < 64; e++)
                                sum[e] = i > w.begin ? sum[e] : 0;
                        continue;
                }
                multiply_units<F, 128>(at, warp, lane, end - begin, c);
#pragma unroll
                for (int e = 0; e < 64; e++)
                        sum[e] = i > w.begin ? __fadd_rn(sum[e], c[e]) : c[e];
        }
}

template <int F, int TOKENS>
static __global__ void __launch_bounds__(THREADS, 1)
        multiply_wide(const __grid_constant__ struct warm_cuda_product p, uint32_t n_stages) {
        extern __shared__ __align__(1024) uint8_t shared[];
        __shared__ uint64_t full[STAGES_MAX], empty[STAGES_MAX], x_full, x_empty;
        uint32_t group = threadIdx.x / 128, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        float *x = TOKENS == 128 && stages_x(p)
                           ? (float *) (shared + n_stages * stage_bytes<F, TOKENS>())
                           : NULL;
        layout l;
        share s;

        warm_let_next_start();
        l = layout_of<TOKENS>(p); /* the number of rows is of the step's description */
        s = share_of(p, l, TOKENS == 128);
        if (threadIdx.x == 0) {
                warm_barrier_init(&x_full, 1);
                warm_barrier_init(&x_empty, 8);
                for (uint32_t i = 0; i < n_stages; i++) {
                        warm_barrier_init(&full[i], 1);
                        warm_barrier_init(&empty[i], 8 * WARM_WARP_ARRIVALS * CLUSTER);
                }
                asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncthreads();
        warm_cluster_meet();
        warm_wait_for_before();
        if (group == 0) {
                asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
                if (threadIdx.x == 0)
                        produce<F, TOKENS>(p, l, s, shared, full, empty, n_stages);
                else if (warp == 1 && x)
                        produce_x(p, l, s, x, &x_full, &x_empty);
        } else {
                asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
                cursor at = { shared, full, empty, n_stages, 0, 0 };
                uint32_t x_parity = 0;
                work w;

                for (uint32_t i = 0; work_of(s, i, &w); i++) {
                        uint32_t row = w.pair / l.n_tokens * CLUSTER + l.rank,
                                 token = w.pair % l.n_tokens * TOKENS;
                        uint32_t n = row < l.n_down ? l.n_rows
                                                    : 0; /* beyond the matrix: nothing to hand on */
                        uint32_t row_tile = row * 8 + warp - 4;

                        if (TOKENS == 128) {
                                float sum[64];

                                multiply_segments<F>(p, w, at, warp - 4, lane, sum);
                                if (n > 0 && w.end < s.n_segments)
                                        leave_part(p, s, l, w, sum);
                                if (w.end < s.n_segments)
                                        continue;
                                if (n > 0 && w.begin > 0)
                                        take_parts(p, s, l, w, (float4 *) shared, sum);
                                if (token < n && x) {
                                        warm_barrier_wait(&x_full, x_parity);
                                        put_all<TOKENS>(p, row_tile, token, n, x, sum);
                                        __syncwarp();
                                        if (lane == 0)
                                                barrier_arrive_at(&x_empty, l.rank);
                                        x_parity ^= 1;
                                } else if (token < n) {
                                        put_all<TOKENS>(p, row_tile, token, n, NULL, sum);
                                }
                        } else {
                                float c[TOKENS / 2];

                                multiply_units<F, TOKENS>(at, warp - 4, lane, p.matrix.k_units, c);
#pragma unroll
                                for (int h = 0; h < TOKENS / 128; h++)
                                        if (token + h * 128 < n)
                                                put_all<TOKENS>(p, row_tile, token + h * 128, n,
                                                                NULL, c + h * 64);
                        }
                }
        }
        warm_cluster_meet(); /* nobody leaves while others may still reach into it */
}

#else

template <int F, int TOKENS>
static __global__ void multiply_wide(const __grid_constant__ struct warm_cuda_product p,
                                     uint32_t n_stages) {}

#endif

template <int F, int TOKENS>
static int launch(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        constexpr uint32_t bytes = stage_bytes<F, TOKENS>();
        const bool residual = p->epilogue == WARM_CUDA_RESIDUAL;
        const uint32_t room = (SHARED_MAX - (residual ? X_BYTES : 0)) / bytes,
                       n_stages = room > STAGES_MAX ? STAGES_MAX : room;
        static int n_clusters; /* that run at once; asked once */
        uint32_t n_tiles = (p->n_rows_max + TOKENS - 1) / TOKENS *
                           (((p->matrix.n_rows + 127) / 128 + CLUSTER - 1) / CLUSTER);
        uint32_t n;
        cudaLaunchAttribute attributes[2] = {};
        cudaLaunchConfig_t config = {};
        cudaError_t r;

        attributes[0].id = cudaLaunchAttributeClusterDimension;
        attributes[0].val.clusterDim.x = CLUSTER;
        attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
        attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[1].val.programmaticStreamSerializationAllowed = 1;
        config.gridDim = dim3(CLUSTER);
        config.blockDim = dim3(THREADS);
        config.dynamicSmemBytes = n_stages * bytes + (residual ? X_BYTES : 0);
        config.stream = stream;
        config.attrs = attributes;
        config.numAttrs = 1;
        if (n_clusters == 0) {
                warm_carve_out(multiply_wide<F, TOKENS>);
                r = cudaFuncSetAttribute(multiply_wide<F, TOKENS>,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         (int) SHARED_MAX);
                if (r == cudaSuccess)
                        r = cudaOccupancyMaxActiveClusters(&n_clusters, multiply_wide<F, TOKENS>,
                                                           &config);
                if (r)
                        return (int) r;
        }
        n = n_clusters > 0 ? (uint32_t) n_clusters : n_sms / CLUSTER;
        if (TOKENS == 128 && pairs_left(*p, n_tiles, n))
                n_tiles *= p->matrix.n_segments;
        config.gridDim = dim3((n_tiles < n ? n_tiles : n) * CLUSTER);
        config.numAttrs = p->overlap ? 2 : 1;
        return (int) cudaLaunchKernelEx(&config, multiply_wide<F, TOKENS>, *p, n_stages);
}

/*
 * Whether tiles of 256 rows of the step are faster than twice as many of 128. A tile of 128 takes 9 / 16 of the time
 * (H200), but of the last round of tiles there may be less to wait for.
 */
static bool is_for_256(const struct warm_cuda_product *p, uint32_t n_sms) {
        uint32_t n = n_sms / CLUSTER, pairs = ((p->matrix.n_rows + 127) / 128 + 1) / 2;
        uint32_t rounds_256 = (pairs * ((p->n_rows_max + 255) / 256) + n - 1) / n;
        uint32_t rounds_128 = (pairs * ((p->n_rows_max + 127) / 128) + n - 1) / n;

        return rounds_256 * 16 <= rounds_128 * 9;
}

template <int F>
static int by_shape(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        if (p->matrix.n_segments > 1 || p->epilogue == WARM_CUDA_RESIDUAL || !is_for_256(p, n_sms))
                return launch<F, 128>(p, n_sms, stream);
        return launch<F, 256>(p, n_sms, stream);
}
