/* SPDX-License-Identifier: Apache-2.0 */
/* What the table of NEON takes from rows-neon.c. Private to kernels/cpu. */
#pragma once

#include <stdint.h>

#include "matrix.h"

void warm_acts_set_neon(struct warm_acts *a, uint32_t row_begin, uint32_t row_end);
void warm_rms_norm_neon(const float *x, const float *weight, float epsilon, float *out, uint64_t n);
void warm_silu_times_neon(const float *gate, const float *up, float *out, uint64_t n);
void warm_add_neon(const float *x, const float *y, float *out, uint64_t n);
float warm_max_neon(const float *x, uint64_t n);
float warm_exp_sum_neon(const float *x, float shift, float *out, uint64_t n);
