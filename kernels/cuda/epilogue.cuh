/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of a product's fragments: the same lines in every kernel, so the same bits.
 *
 * A thread holds, of a tile of 16 rows of the matrix and 8 rows of the step, c[0..1]: matrix row g, tokens 2t and
 * 2t+1; c[2..3]: matrix row g + 8, the same tokens. Every operation is spelled with its rounding, so that no compiler
 * joins them differently in two places.
 */
#pragma once

#include "matrix.h"

static __device__ __forceinline__ float warm_activate(enum warm_activation kind, float x) {
        /* ex2.approx and rcp.approx: 2 units in the last place each (PTX ISA), far below binary16's step. */
        if (kind == WARM_ACTIVATION_SILU)
                return __fdividef(x, __fadd_rn(1.0f, __expf(-x)));
        if (kind == WARM_ACTIVATION_GELU)
                return __fmul_rn(__fmul_rn(0.5f, x),
                                 __fadd_rn(1.0f, erff(__fmul_rn(x, 0.70710678f))));
        if (kind == WARM_ACTIVATION_GELU_TANH) {
                /* Hendrycks and Gimpel 2016: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
                float cube = __fmul_rn(__fmul_rn(x, x), x);

                return __fmul_rn(__fmul_rn(0.5f, x),
                                 __fadd_rn(1.0f, tanhf(__fmul_rn(0.79788456f,
                                                                 __fmaf_rn(0.044715f, cube, x)))));
        }
        return fmaxf(x, 0.0f);
}

/* What scales a token whose squares have this sum. */
static __device__ __forceinline__ float warm_scale_of(float sum, uint32_t dim, float epsilon) {
        return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float) dim), epsilon)));
}

/* That of a token of whose squares each lane of a warp has a sum; all lanes get it. */
static __device__ __forceinline__ float warm_scale_of_lanes(float sum, uint32_t dim,
                                                            float epsilon) {
        for (int o = 16; o; o >>= 1)
                sum = __fadd_rn(sum, __shfl_xor_sync(~0U, sum, o));
        return warm_scale_of(sum, dim, epsilon);
}

/* The same, of n squares that each lane holds. */
static __device__ __forceinline__ float warm_row_scale_of(const float *squares, int n, uint32_t dim,
                                                          float epsilon) {
        float sum = 0;

        for (int i = 0; i < n; i++)
                sum = __fadd_rn(sum, squares[i]);
        return warm_scale_of_lanes(sum, dim, epsilon);
}

/* The same, of squares in memory. */
static __device__ __forceinline__ float warm_row_scale(const float *d_squares, uint32_t n_tiles,
                                                       uint32_t ld, uint32_t token, uint32_t dim,
                                                       float epsilon) {
        float sum = 0;

        for (uint32_t i = threadIdx.x % 32; i < n_tiles; i += 32)
                sum = __fadd_rn(sum, __ldcg(&d_squares[(uint64_t) i * ld + token]));
        return warm_scale_of_lanes(sum, dim, epsilon);
}

/*
 * The same sum in eight parts, so that several warps can have one each, for ROWS rows that lie side by side: part i is
 * of what lanes i, i + 8, i + 16 and i + 24 have there.
 *
 * @param from the first row's, aligned to ROWS floats; so is ld
 */
#define WARM_SQUARES_PARTS 8U

template <int ROWS>
static __device__ __forceinline__ void warm_squares_part(const float *from, uint32_t n_tiles,
                                                         uint32_t ld, uint32_t part,
                                                         float *ret_sums) {
        float sum[4][ROWS] = {};

#pragma unroll 4 /* reads under way together */
        for (uint32_t i = 0; i < n_tiles; i += 32)
#pragma unroll
                for (uint32_t j = 0; j < 4; j++) {
                        uint32_t tile = i + j * WARM_SQUARES_PARTS + part;
                        const float *at = from + (uint64_t) tile * ld;
                        float4 v = {};

                        if (tile < n_tiles && ROWS == 4)
                                v = __ldcg((const float4 *) at);
                        else if (tile < n_tiles && ROWS == 2)
                                *(float2 *) &v = __ldcg((const float2 *) at);
                        else if (tile < n_tiles)
                                v.x = __ldcg(at);
#pragma unroll
                        for (int r = 0; r < ROWS; r++) /* 0 changes no sum of squares */
                                sum[j][r] = __fadd_rn(sum[j][r], (&v.x)[r]);
                }
#pragma unroll
        for (int r = 0; r < ROWS; r++)
                ret_sums[r] =
                        __fadd_rn(__fadd_rn(sum[0][r], sum[2][r]), __fadd_rn(sum[1][r], sum[3][r]));
}

/* What scales a row. @param parts its first; [WARM_SQUARES_PARTS][ld] */
static __device__ __forceinline__ float warm_scale_of_parts(const float *parts, uint32_t ld,
                                                            uint32_t dim, float epsilon) {
        float four[4];

#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
                four[i] = __fadd_rn(parts[i * ld], parts[(i + 4) * ld]);
        return warm_scale_of(__fadd_rn(__fadd_rn(four[0], four[2]), __fadd_rn(four[1], four[3])),
                             dim, epsilon);
}

/* y of the four values. @param bias0, bias1 of rows g, g + 8 @param scale0, scale1 of tokens 2t, 2t + 1, or 1 */
static __device__ __forceinline__ void warm_finish_with(const struct warm_cuda_product &p,
                                                        float bias0, float bias1, float scale0,
                                                        float scale1, float *c) {
        c[0] = __fadd_rn(__fmul_rn(__fmul_rn(c[0], p.matrix.scale), scale0), bias0);
        c[1] = __fadd_rn(__fmul_rn(__fmul_rn(c[1], p.matrix.scale), scale1), bias0);
        c[2] = __fadd_rn(__fmul_rn(__fmul_rn(c[2], p.matrix.scale), scale0), bias1);
        c[3] = __fadd_rn(__fmul_rn(__fmul_rn(c[3], p.matrix.scale), scale1), bias1);
}

static __device__ __forceinline__ void warm_put_out(const struct warm_cuda_product &p, uint32_t m,
                                                    uint32_t token, uint32_t n, float y) {
        if (m >= p.matrix.n_rows || token >= n)
                return;
        if (p.epilogue == WARM_CUDA_LOGITS) {
                y = __fmul_rn(y, p.logit_scale);
                if (p.soft_cap != 0)
                        y = __fmul_rn(p.soft_cap, tanhf(__fdiv_rn(y, p.soft_cap)));
        }
        p.d_out[token * p.ld_out + m] = y;
}

/* The four values of x that a fragment meets; 0 where there is none. */
static __device__ __forceinline__ void warm_get_x(const struct warm_cuda_product &p, uint32_t tile,
                                                  uint32_t g, uint32_t token, uint32_t n,
                                                  float *x) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
                uint32_t m = tile * 16 + g + i / 2 * 8, row = token + i % 2;

                x[i] = m < p.matrix.n_rows && row < n
                               ? __ldcg(&p.d_x[(uint64_t) row * p.matrix.n_rows + m])
                               : 0;
        }
}

/* The next norm's weights of matrix rows g and g + 8 of the tile; 0 where there is none. */
static __device__ __forceinline__ void warm_get_norms(const struct warm_cuda_product &p,
                                                      uint32_t tile, uint32_t g, float *norms) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
                uint32_t m = tile * 16 + g + i * 8;

                norms[i] = m < p.matrix.n_rows ? __ldg(&p.d_next_norm[m]) : 0;
        }
}

/* x += y, what the next product reads, and sums of 16 squares of the new x. The whole warp calls it. */
static __device__ __forceinline__ void warm_put_residual(const struct warm_cuda_product &p,
                                                         uint32_t tile, uint32_t g, uint32_t token,
                                                         uint32_t n, const float *c, const float *x,
                                                         const float *norms) {
        float s[4];

#pragma unroll
        for (int i = 0; i < 4; i++) {
                uint32_t m = tile * 16 + g + i / 2 * 8, row = token + i % 2;
                float v;

                s[i] = 0;
                if (m >= p.matrix.n_rows || row >= n)
                        continue;
                v = __fadd_rn(x[i],
                              p.residual_scale == 1 ? c[i] : __fmul_rn(c[i], p.residual_scale));
                __stcg(&p.d_x[(uint64_t) row * p.matrix.n_rows + m], v);
                warm_cuda_act_set(p.out, row, m, __fmul_rn(v, norms[i / 2]));
                s[i] = __fmul_rn(v, v);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
                s[i] = __fadd_rn(s[i], s[i + 2]);
                for (int o = 4; o < 32; o <<= 1)
                        s[i] = __fadd_rn(s[i], __shfl_xor_sync(~0U, s[i], o));
                if (g == 0 && token + i < n)
                        __stcg(&p.d_squares_out[(uint64_t) tile * p.squares_ld + token + i], s[i]);
        }
}

static __device__ __forceinline__ void warm_put_gated(const struct warm_cuda_product &p,
                                                      uint32_t tile, uint32_t g, uint32_t token,
                                                      uint32_t n, const float *c) {
#pragma unroll
        for (int i = 0; i < 2; i++)
                if (tile * 8 + g < p.matrix.n_rows / 2 && token + i < n)
                        warm_cuda_act_set(p.out, token + i, tile * 8 + g,
                                          __fmul_rn(warm_activate(p.activation, c[i]), c[i + 2]));
}

/*
 * Hand on the finished values of a tile; the whole warp calls it.
 *
 * @param token of c[0]; the fragment's tokens are token, token + 1
 * @param n rows of the step that there are
 */
static __device__ __forceinline__ void warm_put(const struct warm_cuda_product &p, uint32_t tile,
                                                uint32_t g, uint32_t token, uint32_t n,
                                                const float *c) {
        uint32_t m = tile * 16 + g;

        if (p.epilogue == WARM_CUDA_OUT || p.epilogue == WARM_CUDA_LOGITS) {
                for (int i = 0; i < 4; i++)
                        warm_put_out(p, m + i / 2 * 8, token + i % 2, n, c[i]);
        } else if (p.epilogue == WARM_CUDA_RESIDUAL) {
                float x[4], norms[2];

                warm_get_x(p, tile, g, token, n, x);
                warm_get_norms(p, tile, g, norms);
                warm_put_residual(p, tile, g, token, n, c, x, norms);
        } else if (p.epilogue == WARM_CUDA_GATED) {
                warm_put_gated(p, tile, g, token, n, c);
        } else {
                for (int i = 0; i < 4; i++)
                        if (m + i / 2 * 8 < p.matrix.n_rows && token + i % 2 < n)
                                warm_cuda_act_set(p.out, token + i % 2, m + i / 2 * 8,
                                                  warm_activate(p.activation, c[i]));
        }
}
