/* SPDX-License-Identifier: Apache-2.0 */
/* What the table of AVX2 takes from rows-avx2.c. Private to kernels/cpu. */
#pragma once

#include <stdint.h>

#include "matrix.h"

void warm_acts_set_avx2(struct warm_acts *a, uint32_t row_begin, uint32_t row_end);
void warm_rms_norm_avx2(const float *x, const float *weight, float epsilon, float *out, uint64_t n);
void warm_silu_times_avx2(const float *gate, const float *up, float *out, uint64_t n);
void warm_add_avx2(const float *x, const float *y, float *out, uint64_t n);
float warm_max_avx2(const float *x, uint64_t n);
float warm_exp_sum_avx2(const float *x, float shift, float *out, uint64_t n);
