/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrices on the device, and their product with a step's activations.
 *
 * Weights are operand M of the tensor cores, rows of the step ("tokens") operand N. A matrix is cut into units of 16
 * rows x 64 columns, [ceil(rows / 128)][columns / 64][8][unit]: a warp that computes 16 rows walks along units, and a
 * block of 128 rows finds its 8 units of 64 columns side by side. Rows and columns beyond the matrix are zeros.
 *
 * A unit holds, for each lane (g = lane / 4, t = lane % 4) and each of the four k16 steps, the eight values of its A
 * fragment: rows g and g + 8, columns 2t, 2t+1, 2t+8, 2t+9:
 *
 * format | planes, each [...][32 lanes]                              | scales, halves          | bytes | from
 * F16    | [step][lane] 16 bytes: (g 2t,2t+1) (g+8 ..) (g 2t+8,..) (g+8 ..) | -                | 2048  | F32, F16, BF16
 * Q8     | [2][lane] 16 bytes: two steps of 8: bytes in the same order, + 128 | [g][32-group][row] s    | 1088  | Q8_0
 * Q4     | [lane] 16 bytes: 4 a step, see below                      | [g][32-group][row] s    | 576   | Q4_0
 * Q4M    | the same                                                  | [g][32-group][row] s, m | 640   | Q4_1, Q4_K
 * Q5     | as Q4, then [lane] 4 bytes: fifth bits, see below         | as Q4                   | 704   | Q5_0
 * Q5M    | the same                                                  | as Q4M                  | 768   | Q5_1, Q5_K
 * Q6     | as Q4, then [lane] 8 bytes: fifth and sixth bits          | [g][16-group][row] s    | 896   | Q6_K
 *
 * The 4 bytes of a step's low nibbles: (g 2t | g 2t+8 << 4) (g+8 ..) (g 2t+1 | g 2t+9 << 4) (g+8 ..): so a mask
 * takes out pairs of neighbours, and a byte belongs to one row. So do the bits beyond a nibble: the low half of a word
 * has those of columns 2t and 2t+8, the high half of 2t+1 and 2t+9, in the order that warm_unit_high_at() tells; of Q5
 * row g in the first byte of each half, g + 8 in the second; of Q6 row g in the first word, g + 8 in the second. "Row"
 * in scales: 0 for g, 1 for g + 8.
 *
 * Value: F16: w. Q8: s (q - 128). Q4: s (q - 8), Q5: s (q - 16), Q6: s (q - 32), with an M: s q - m; each rounded
 * once to binary16, s and m binary16 themselves. All are stored times 2^exponent, and the product is scaled back: an
 * exact operation that keeps small weights out of binary16's subnormal range.
 *
 * Sums. A matrix has s = 1 to 8 segments of columns: segment i is units [i n / s, (i + 1) n / s). Each segment is one
 * chain of m16n8k16 products, ascending, from 0; segments are added ascending. mma.sync and wgmma give the same bits
 * (H100: tests/kernels/cuda/test-matrix), so does every kernel here.
 */
#pragma once

#include "cuda.h"

enum warm_cuda_format {
        WARM_CUDA_F16,
        WARM_CUDA_Q8,
        WARM_CUDA_Q4,
        WARM_CUDA_Q4M,
        WARM_CUDA_Q5,
        WARM_CUDA_Q5M,
        WARM_CUDA_Q6,
        _WARM_CUDA_FORMAT_N,
};

#define WARM_CUDA_EXPONENT_FLOAT 4 /* |w| up to 4,094; steps of 2^-28 at the low end */
#define WARM_CUDA_EXPONENT_QUANT 8 /* |w| up to 255 */

struct warm_cuda_matrix {
        const uint8_t *d_data; /* [row_blocks][k_units][8][unit bytes] */
        enum warm_cuda_format format;
        uint32_t n_rows;     /* that mean something */
        uint32_t row_blocks; /* of 128 rows */
        uint32_t k_units;    /* of 64 columns */
        uint32_t n_segments; /* 1, 2, 4 or 8: fixed by the matrix, part of its numbers */
        float scale;         /* product times this: 2^-exponent / WARM_CUDA_ACT_SCALE */
};

/*
 * Segments of a matrix whose rows alone do not fill a GPU: at least 6 units each, so that a ring fills. No more than
 * that takes: each is an end of a chain of products, when tensor cores wait (7B on an H200, 4 instead of 8 at 56 units:
 * 64 tokens in 8.45 instead of 8.87 ms, a token alone the same).
 */
static inline uint32_t warm_cuda_segments_of(uint32_t k_units) {
        return k_units >= 96 ? 8 : k_units >= 24 ? 4 : k_units >= 12 ? 2 : 1;
}

/* Bytes of a unit. */
WARM_CUDA_API uint32_t warm_cuda_unit_bytes(enum warm_cuda_format format);

/* The format that holds a type. */
WARM_CUDA_API enum warm_cuda_format warm_cuda_format_of(enum warm_type type);

static inline uint64_t warm_cuda_matrix_bytes(const struct warm_cuda_matrix *m) {
        return (uint64_t) m->row_blocks * m->k_units * 8 * warm_cuda_unit_bytes(m->format);
}

/* Where a tensor's rows go in the matrix. */
enum warm_cuda_place {
        WARM_CUDA_PLACE_ROWS, /* row r -> first + r */
        WARM_CUDA_PLACE_GATE, /* row r -> tile r / 8, place r % 8 */
        WARM_CUDA_PLACE_UP,   /* row r -> tile r / 8, place 8 + r % 8 */
};

/*
 * Pack raw rows [first_row, first_row + n_rows) of a tensor, as GGUF has them, into the matrix's memory (writable).
 *
 * @param d_raw [n_rows][row_bytes], any alignment
 * @param n_cols of the tensor; n_cols <= k_units * 64
 * @param d_overflow set to 1 if a value does not fit binary16
 * Return: 0; a cudaError_t.
 */
WARM_CUDA_API int warm_cuda_pack(const struct warm_cuda_matrix *m, enum warm_type type,
                                 enum warm_cuda_place place, uint32_t offset, const void *d_raw,
                                 uint64_t row_bytes, uint32_t first_row, uint32_t n_rows,
                                 uint32_t n_cols, uint32_t *d_overflow, cudaStream_t stream);

#define WARM_CUDA_COUNTERS 256U

/* What becomes of a product y = scale * (sum) [* row scale] + bias. */
enum warm_cuda_epilogue {
        WARM_CUDA_OUT,      /* d_out[row][m] = y */
        WARM_CUDA_LOGITS,   /* d_out[row][m] = cap(y * logit_scale) */
        WARM_CUDA_RESIDUAL, /* x[row][m] += residual_scale * y; next = x * next_norm; squares */
        WARM_CUDA_GATED,    /* out(row, tile * 8 + i) = act(y of gate) * (y of up) */
        WARM_CUDA_PLAIN,    /* out(row, m) = act(y) */
};

struct warm_cuda_product {
        struct warm_cuda_matrix matrix;
        struct warm_cuda_acts in;
        enum warm_cuda_epilogue epilogue;
        enum warm_activation activation;
        const uint32_t *d_n_rows; /* rows there are; <= n_rows_max */
        uint32_t n_rows_max;
        bool overlap; /* may start while the kernel before it runs */

        /*
         * RMS norm of the input, applied to the product: activations are x * norm weight, and 1 / sqrt(mean of x^2 +
         * epsilon) scales the sum. narrow: d_squares [n_tiles][squares_ld] sums of 16 squares, squares_ld a multiple of
         * 4 and at least n8 * 8; wide: d_row_scales.
         */
        const float *d_squares;
        const float *d_row_scales;
        uint32_t n_tiles, squares_ld, dim;
        float epsilon;

        const float *d_bias; /* [row_blocks * 128] in the matrix's order, or NULL */
        float *d_out;        /* OUT, LOGITS: [rows][ld_out] */
        uint64_t ld_out;
        float logit_scale, soft_cap;

        float *d_x;               /* RESIDUAL: [rows][dim of the matrix] */
        const float *d_next_norm; /* [n_rows of the matrix] */
        float residual_scale;
        float *d_squares_out; /* [tiles][squares_ld] */

        struct warm_cuda_acts out; /* RESIDUAL, GATED, PLAIN */

        /* wgmma: room for sums of segments that blocks share, or none, and counters that are 0 between products. */
        void *d_parts; /* 16-byte aligned */
        uint64_t parts_bytes;
        uint32_t *d_counters; /* [WARM_CUDA_COUNTERS] */
};

/* narrow: any GPU. @param n_sms multiprocessors of the device */
WARM_CUDA_API int warm_cuda_multiply_narrow(const struct warm_cuda_product *p, uint32_t n_sms,
                                            cudaStream_t stream);

/*
 * Two products of the same up to 16 rows as one launch, where there is a kernel for their formats: Q4_K_M and Q5_K_M
 * hold v in another than q and k. The same bits as one by one.
 */
WARM_CUDA_API bool warm_cuda_two_fit(const struct warm_cuda_product *p,
                                     const struct warm_cuda_product *q);
WARM_CUDA_API int warm_cuda_multiply_two(const struct warm_cuda_product *p,
                                         const struct warm_cuda_product *q, uint32_t n_sms,
                                         cudaStream_t stream);

/*
 * For tests: let the kernels with mma.sync take no more shared memory a block than this; 0: what the device has. The
 * same bits come out.
 */
WARM_CUDA_API void warm_cuda_narrow_limit(uint32_t bytes);

/* What it is. */
WARM_CUDA_API uint32_t warm_cuda_narrow_limit_get(void);

/* wide, with mma.sync: any GPU. */
WARM_CUDA_API int warm_cuda_multiply_wide(const struct warm_cuda_product *p, cudaStream_t stream);

/* wide, with wgmma: compute capability 9.0. */
WARM_CUDA_API int warm_cuda_multiply_sm90(const struct warm_cuda_product *p, uint32_t n_sms,
                                          cudaStream_t stream);
