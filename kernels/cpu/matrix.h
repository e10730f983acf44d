/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of packed weights with activations quantized by row, the same bits on every instruction set.
 *
 * What a product is, exactly. A row of activations is cut into 32 columns; of each, a = max |x|, scale = a / 127,
 * q = x * (127 / a) rounded to even (all 0 if a < 2^-100), sum = scale * (q[0] + ... + q[31]). A row of weights is cut
 * alike; its values are w[i] = step * v[i] - base with integers v. An output starts at 0 and takes each 32 columns in
 * ascending order:
 *
 *         acc = fmaf((float) (v[0] q[0] + ... + v[31] q[31]), step * scale, acc)
 *         acc = fmaf(-base, sum, acc)                 only types with a base: Q4_1, Q5_1, Q4_K, Q5_K
 *
 * The integer sum is exact (Q6_K: v[i] holds the factor of its 16 values; below 2^24). F32, F16 and BF16 weights
 * multiply the float activations: acc = fmaf(w[i], x[i], acc) for each column in ascending order. So a row's outputs
 * do not depend on the other rows of a call, on how columns are cut among threads, or on the machine. Held: finite
 * weights' scales; a row with an infinity or a NaN in x gives NaN for quantized types.
 *
 * Nothing here locks. A matrix is immutable once packed and may be read by any thread; disjoint row ranges of pack
 * and set, and disjoint ranges of multiply, may run at the same time.
 */
#pragma once

#include <stdint.h>

#include "../plan.h"
#include "isa.h"

#define WARM_MATRIX_ROWS                                                                           \
        16U /* weight rows that are packed, and ranges of columns start, together */
#define WARM_MATRIX_ALIGN 64U /* of packed memory */
#define WARM_ACTS_GROUP   16U /* activation rows whose scales lie together */

struct warm_kernels;

/*
 * Activations of up to n_rows_max rows. The scales of 16 rows lie together: element [row / 16][block][row % 16].
 * Owns all but x.
 */
struct warm_acts {
        uint32_t n_rows_max;
        uint64_t n_cols_max;
        uint64_t n_cols; /* of what was set last */
        uint64_t q_ld;   /* bytes between rows of q: a multiple of 64 */
        int8_t *q;       /* [n_rows_max][q_ld] */
        float *scales;   /* [groups][n_cols / 32][16] */
        float *sums;     /* likewise: scale times the sum of q */
        int32_t *
                offsets; /* likewise, [..][2][16]: -128 times the sum of q, its first and its second half */
        const float *x; /* borrowed from the last set: [..][ld] */
        uint64_t ld;
};

/* Packed weights. Borrows the memory. */
struct warm_matrix {
        enum warm_type type;
        uint64_t n_rows;
        uint64_t n_cols;
        uint64_t panel_bytes;   /* 16 rows */
        uint64_t scales_offset; /* in a panel; panel.h has the byte tables */
        uint8_t *data;
};

/* One instruction set's functions. Use the functions below and those in rows.h. */
struct warm_kernels {
        enum warm_isa isa;
        void (*set)(struct warm_acts *a, uint32_t row_begin, uint32_t row_end);
        void (*multiply)(const struct warm_matrix *m, const struct warm_acts *a, uint32_t row_begin,
                         uint32_t row_end, uint64_t col_begin, uint64_t col_end, float *out,
                         uint64_t ld_out);
        void (*rms_norm)(const float *x, const float *weight, float epsilon, float *out,
                         uint64_t n);
        void (*silu_times)(const float *gate, const float *up, float *out, uint64_t n);
        void (*add)(const float *x, const float *y, float *out, uint64_t n);
        float (*max)(const float *x, uint64_t n);
        float (*exp_sum)(const float *x, float shift, float *out, uint64_t n);
};

/*
 * The functions of an instruction set.
 * Return: static; NULL if this machine or this build lacks it.
 */
const struct warm_kernels *warm_kernels_get(enum warm_isa isa);

/*
 * Make room for activations of n_rows_max rows of at most n_cols_max columns.
 * Return: 0; -ENOMEM; -EOVERFLOW.
 */
int warm_acts_init(struct warm_acts *a, uint32_t n_rows_max, uint64_t n_cols_max);

/* Takes an all-zero struct, too. */
void warm_acts_deinit(struct warm_acts *a);

/*
 * Quantize the rows [row_begin, row_end). All calls of one set give the same x, ld and n_cols. A last part of less
 * than 32 columns is not quantized (only float weights can have it).
 *
 * @param x [rows][ld], float; borrowed until the last multiply with this set
 * @param n_cols <= n_cols_max
 * Thread: rows may be shared out among threads at multiples of 16 (else they write to shared lines).
 */
void warm_acts_set(const struct warm_kernels *k, struct warm_acts *a, const float *x, uint64_t ld,
                   uint64_t n_cols, uint32_t row_begin, uint32_t row_end);

/*
 * Bytes that a packed tensor needs: those of the tensor, rows rounded up to 16, and at most 63 for each 16 rows.
 * Return: 0; -EOPNOTSUPP: row, group or tensor scales or outlier columns; -EINVAL: n_cols is not a multiple of the
 * type's block, n_cols or n_rows is 0, or the tensor's bytes are too few; -EOVERFLOW.
 */
int warm_matrix_bytes(const struct warm_kernels *k, const struct warm_tensor *t,
                      uint64_t *ret_bytes);

/*
 * Lay out a matrix in memory; pack its rows next.
 *
 * @param t as warm_matrix_bytes() accepted it
 * @param memory [warm_matrix_bytes], aligned to WARM_MATRIX_ALIGN; borrowed by the matrix
 */
void warm_matrix_init(const struct warm_kernels *k, const struct warm_tensor *t, void *memory,
                      struct warm_matrix *ret_matrix);

/* Pack output rows [row_begin, row_end), multiples of 16 or the end. */
void warm_matrix_pack(const struct warm_kernels *k, const struct warm_tensor *t,
                      struct warm_matrix *m, uint64_t row_begin, uint64_t row_end);

/*
 * out[r][c] = row r of the activations times weight row c, for r in [row_begin, row_end) and c in
 * [col_begin, col_end), multiples of 16 or the end.
 *
 * @param out [row_end][ld_out]: indexed with r and c themselves; nothing outside the ranges is written
 */
void warm_matrix_multiply(const struct warm_kernels *k, const struct warm_matrix *m,
                          const struct warm_acts *a, uint32_t row_begin, uint32_t row_end,
                          uint64_t col_begin, uint64_t col_end, float *out, uint64_t ld_out);

/* Dequantize one row, bit-equal to warm_type_dequantize(). @param ret_values [n_cols] */
void warm_matrix_row(const struct warm_kernels *k, const struct warm_matrix *m, uint64_t row,
                     float *ret_values);
