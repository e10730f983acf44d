/* SPDX-License-Identifier: Apache-2.0 */
/* rows.h in plain C. Private to kernels/cpu. */
#pragma once

#include <stdint.h>

void warm_rms_norm_plain(const float *x, const float *weight, float epsilon, float *out,
                         uint64_t n);
void warm_silu_times_plain(const float *gate, const float *up, float *out, uint64_t n);
void warm_add_plain(const float *x, const float *y, float *out, uint64_t n);
float warm_max_plain(const float *x, uint64_t n);
float warm_exp_sum_plain(const float *x, float shift, float *out, uint64_t n);
