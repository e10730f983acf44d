/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of many rows on Hopper: wgmma, weights from registers as operand A, activations from shared memory as B.
 *
 * A block of three warpgroups stays on its multiprocessor and takes tiles of 128 matrix rows x TOKENS rows of the step.
 * One thread of the first warpgroup copies units of weights, as they lie, and activations into a ring in shared
 * memory; the other two multiply 64 matrix rows each, turning weights into fragments while the tensor cores work on the
 * fragments before. Sums are those of matrix.h: with segments, a second set of accumulators holds the sum of the
 * segments before.
 */
#pragma once

#include "epilogue.cuh"
#include "format.cuh"
#include "launch.cuh"

#define SHARED_MAX   (226U * 1024)
#define STAGES_MAX   8U
#define THREADS      384U
#define B_TILE_BYTES 16384U /* 128 rows x 64 columns, as the wide layout of cuda.h has them */

/* Activations, then units of weights; activations are aligned for their swizzle. */
template <int F, int TOKENS> static constexpr __host__ __device__ uint32_t stage_bytes() {
        return (TOKENS * 128 + 8 * warm_unit_bytes(F) + 1023) / 1024 * 1024;
}

#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

static __device__ __forceinline__ uint32_t at_shared(const void *p) {
        return (uint32_t) __cvta_generic_to_shared(p);
}

static __device__ __forceinline__ void barrier_init(uint64_t *b, uint32_t n) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at_shared(b)), "r"(n));
}

static __device__ __forceinline__ void barrier_expect(uint64_t *b, uint32_t bytes) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at_shared(b)),
                     "r"(bytes)
                     : "memory");
}

static __device__ __forceinline__ void barrier_arrive(uint64_t *b) {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at_shared(b)) : "memory");
}

static __device__ __forceinline__ void barrier_wait(uint64_t *b, uint32_t parity) {
        asm volatile("{\n.reg .pred p;\nWAIT_%=:\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                     "@p bra DONE_%=;\nbra WAIT_%=;\nDONE_%=:\n}" ::"r"(at_shared(b)),
                     "r"(parity)
                     : "memory");
}

static __device__ __forceinline__ void copy_bulk(void *to, const void *from, uint32_t bytes,
                                                 uint64_t *b) {
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                     "[%1], %2, [%3];" ::"r"(at_shared(to)),
                     "l"(from), "r"(bytes), "r"(at_shared(b))
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

/* c = a * B (+ c if add). */
static __device__ __forceinline__ void wgmma(float *c, const uint32_t *a, uint64_t b, int add) {
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

struct tile_shape {
        uint32_t n_rows;   /* of the step */
        uint32_t n_tokens; /* tiles along the step's rows */
        uint32_t n_tiles;
};

template <int TOKENS>
static __device__ __forceinline__ tile_shape shape_of(const struct warm_cuda_product &p) {
        tile_shape s;

        s.n_rows = *(volatile const uint32_t *) p.d_n_rows;
        s.n_tokens = (s.n_rows + TOKENS - 1) / TOKENS;
        s.n_tiles = s.n_tokens * ((p.matrix.n_rows + 127) / 128);
        return s;
}

/* The copying thread. */
template <int F, int TOKENS>
static __device__ void produce(const struct warm_cuda_product &p, uint8_t *stages, uint64_t *full,
                               uint64_t *empty, uint32_t n_stages) {
        constexpr uint32_t a_bytes = 8 * warm_unit_bytes(F), b_bytes = TOKENS * 128;
        tile_shape s;
        uint32_t stage = 0, parity = 1;

        warm_wait_for_before();
        s = shape_of<TOKENS>(p);
        for (uint32_t tile = blockIdx.x; tile < s.n_tiles; tile += gridDim.x) {
                const uint8_t *a = p.matrix.d_data +
                                   (uint64_t) (tile / s.n_tokens) * p.matrix.k_units * a_bytes;
                uint64_t b_tile = (uint64_t) p.matrix.k_units * B_TILE_BYTES;
                const uint8_t *b = (const uint8_t *) p.in.d_values +
                                   (uint64_t) (tile % s.n_tokens) * (TOKENS / 128) * b_tile;

                for (uint32_t k = 0; k < p.matrix.k_units; k++) {
                        uint8_t *to = stages + stage * stage_bytes<F, TOKENS>();

                        barrier_wait(&empty[stage], parity);
                        barrier_expect(&full[stage], a_bytes + b_bytes);
                        copy_bulk(to + b_bytes, a + (uint64_t) k * a_bytes, a_bytes, &full[stage]);
                        for (uint32_t h = 0; h < TOKENS / 128; h++)
                                copy_bulk(to + h * B_TILE_BYTES,
                                          b + h * b_tile + (uint64_t) k * B_TILE_BYTES,
                                          B_TILE_BYTES, &full[stage]);
                        if (++stage == n_stages) {
                                stage = 0;
                                parity ^= 1;
                        }
                }
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
                                                      float (*c)[64]) {
        const uint8_t *stage = at.stages + at.stage * stage_bytes<F, TOKENS>();
        uint32_t b = at_shared(stage);
        warm_unit<F> u;

        barrier_wait(&at.full[at.stage], at.parity);
        warm_unit_load<F, true>(stage + TOKENS * 128 + warp * warm_unit_bytes(F), lane, u);
#pragma unroll
        for (int step = 0; step < 4; step++)
                warm_unit_fragment<F>(u, step, a[step]);
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
                for (int h = 0; h < TOKENS / 128; h++)
                        wgmma(c[h], a[step], b_descriptor(b + h * B_TILE_BYTES + step * 32),
                              add || step);
        wgmma_commit();
}

static __device__ __forceinline__ void release(cursor &at, uint32_t lane) {
        if (lane == 0)
                barrier_arrive(&at.empty[at.stage]);
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
                                                      uint32_t n, float (*c)[64]) {
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

static __device__ __forceinline__ void put_residual(const struct warm_cuda_product &p,
                                                    const hand &h, float *c) {
        /* x of eight fragments first: one latency, and registers for it. */
#pragma unroll
        for (int half = 0; half < 16; half += 8) {
                float x[8][4];

#pragma unroll
                for (int j = 0; j < 8; j++)
                        warm_get_x(p, h.tile, h.g, h.token + (half + j) * 8, h.n, x[j]);
#pragma unroll
                for (int j = 0; j < 8; j++) {
                        finish(p, h, half + j, &c[(half + j) * 4]);
                        warm_put_residual(p, h.tile, h.g, h.token + (half + j) * 8, h.n,
                                          &c[(half + j) * 4], x[j]);
                }
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
                                               uint32_t token, uint32_t n, float *c) {
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
        if (TOKENS == 128 && p.epilogue == WARM_CUDA_RESIDUAL) {
                put_residual(p, h, c);
        } else if (TOKENS == 256 && p.epilogue == WARM_CUDA_GATED) {
#pragma unroll
                for (int j = 0; j < 16; j++) {
                        finish(p, h, j, &c[j * 4]);
                        warm_put_gated(p, h.tile, h.g, h.token + j * 8, n, &c[j * 4]);
                }
        } else {
#pragma unroll
                for (int j = 0; j < 16; j++) {
                        finish(p, h, j, &c[j * 4]);
                        put_others(p, tile, h.token + j * 8, n, c[j * 4], c[j * 4 + 1],
                                   c[j * 4 + 2], c[j * 4 + 3]);
                }
        }
}

/* A tile of a matrix with segments: 128 rows of the step. */
template <int F>
static __device__ __forceinline__ void multiply_segments(const struct warm_cuda_product &p,
                                                         cursor &at, uint32_t warp, uint32_t lane,
                                                         float *sum) {
        for (uint32_t i = 0; i < p.matrix.n_segments; i++) {
                uint32_t begin = i * p.matrix.k_units / p.matrix.n_segments;
                uint32_t end = (i + 1) * p.matrix.k_units / p.matrix.n_segments;
                float c[1][64];

                if (begin == end) { /* a short matrix */
#pragma unroll
                        for (int e = 0; e < 64; e++)
                                sum[e] = i ? sum[e] : 0;
                        continue;
                }
                multiply_units<F, 128>(at, warp, lane, end - begin, c);
#pragma unroll
                for (int e = 0; e < 64; e++)
                        sum[e] = i ? __fadd_rn(sum[e], c[0][e]) : c[0][e];
        }
}

template <int F, int TOKENS>
static __global__ void __launch_bounds__(THREADS, 1)
        multiply_wide(const __grid_constant__ struct warm_cuda_product p, uint32_t n_stages) {
        extern __shared__ __align__(1024) uint8_t shared[];
        __shared__ uint64_t full[STAGES_MAX], empty[STAGES_MAX];
        uint32_t group = threadIdx.x / 128, warp = threadIdx.x / 32, lane = threadIdx.x % 32;

        warm_let_next_start();
        if (threadIdx.x == 0) {
                for (uint32_t i = 0; i < n_stages; i++) {
                        barrier_init(&full[i], 1);
                        barrier_init(&empty[i], 8);
                }
                asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncthreads();
        if (group == 0) {
                asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
                if (threadIdx.x == 0)
                        produce<F, TOKENS>(p, shared, full, empty, n_stages);
        } else {
                asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
                cursor at = { shared, full, empty, n_stages, 0, 0 };
                tile_shape s;

                warm_wait_for_before();
                s = shape_of<TOKENS>(p);
                for (uint32_t tile = blockIdx.x; tile < s.n_tiles; tile += gridDim.x) {
                        uint32_t row_tile = tile / s.n_tokens * 8 + warp - 4,
                                 token = tile % s.n_tokens * TOKENS;

                        if (TOKENS == 128) {
                                float sum[64];

                                multiply_segments<F>(p, at, warp - 4, lane, sum);
                                put_all<TOKENS>(p, row_tile, token, s.n_rows, sum);
                        } else {
                                float c[TOKENS / 128][64];

                                multiply_units<F, TOKENS>(at, warp - 4, lane, p.matrix.k_units, c);
#pragma unroll
                                for (int h = 0; h < TOKENS / 128; h++)
                                        put_all<TOKENS>(p, row_tile, token + h * 128, s.n_rows,
                                                        c[h]);
                        }
                }
        }
}

#else

template <int F, int TOKENS>
static __global__ void multiply_wide(const __grid_constant__ struct warm_cuda_product p,
                                     uint32_t n_stages) {}

#endif

template <int F, int TOKENS>
static int launch(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        constexpr uint32_t bytes = stage_bytes<F, TOKENS>();
        uint32_t n_stages = SHARED_MAX / bytes;
        uint32_t n_tiles = (p->matrix.n_rows + 127) / 128 * ((p->n_rows_max + TOKENS - 1) / TOKENS);
        cudaError_t r;

        n_stages = n_stages > STAGES_MAX ? STAGES_MAX : n_stages;
        r = cudaFuncSetAttribute(multiply_wide<F, TOKENS>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 (int) (n_stages * bytes));
        if (r)
                return (int) r;
        return warm_launch(multiply_wide<F, TOKENS>, dim3(n_tiles < n_sms ? n_tiles : n_sms),
                           dim3(THREADS), n_stages * bytes, stream, p->overlap, *p, n_stages);
}

template <int F>
static int by_shape(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        if (p->matrix.n_segments > 1 || p->epilogue == WARM_CUDA_RESIDUAL || p->n_rows_max <= 128)
                return launch<F, 128>(p, n_sms, stream);
        return launch<F, 256>(p, n_sms, stream);
}
