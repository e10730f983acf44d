/* SPDX-License-Identifier: Apache-2.0 */
/* Functions that the tables of AVX-512 and AMX share. Private to kernels/cpu. */
#pragma once

#include <stdint.h>

#include "matrix.h"

void warm_acts_set_avx512(struct warm_acts *a, uint32_t row_begin, uint32_t row_end);
void warm_multiply_avx512(const struct warm_matrix *m, const struct warm_acts *a,
                          uint32_t row_begin, uint32_t row_end, uint64_t col_begin,
                          uint64_t col_end, float *out, uint64_t ld_out);
void warm_rms_norm_avx512(const float *x, const float *weight, float epsilon, float *out,
                          uint64_t n);
void warm_silu_times_avx512(const float *gate, const float *up, float *out, uint64_t n);
void warm_add_avx512(const float *x, const float *y, float *out, uint64_t n);
float warm_max_avx512(const float *x, uint64_t n);
float warm_exp_sum_avx512(const float *x, float shift, float *out, uint64_t n);
