/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations on rows of floats, the same bits on every instruction set.
 *
 * A sum over n has 16 lanes: lane i adds the elements i, i + 16, ... in order, starting from 0; then lanes i and i + 8
 * are added, i and i + 4, i and i + 2, i and i + 1. A maximum has no order. Rows may have any alignment; out may be
 * one of the inputs but not overlap it otherwise. Any thread.
 */
#pragma once

#include <stdint.h>

#include "../expf.h"
#include "matrix.h"

/* out[i] = (x[i] * (1 / sqrt(mean(x^2) + epsilon))) * weight[i]; x, weight, out [n], n >= 1. */
static inline void warm_rms_norm(const struct warm_kernels *k, const float *x, const float *weight,
                                 float epsilon, float *out, uint64_t n) {
        k->rms_norm(x, weight, epsilon, out, n);
}

/* out[i] = (gate[i] / (1 + exp(-gate[i]))) * up[i] */
static inline void warm_silu_times(const struct warm_kernels *k, const float *gate, const float *up,
                                   float *out, uint64_t n) {
        k->silu_times(gate, up, out, n);
}

/* out[i] = x[i] + y[i] */
static inline void warm_add(const struct warm_kernels *k, const float *x, const float *y,
                            float *out, uint64_t n) {
        k->add(x, y, out, n);
}

/* Return: the largest x[i] (+0 for either zero); -infinity for n 0. x holds no NaN. */
static inline float warm_max(const struct warm_kernels *k, const float *x, uint64_t n) {
        return k->max(x, n);
}

/* out[i] = warm_expf(x[i] - shift). Return: their sum. */
static inline float warm_exp_sum(const struct warm_kernels *k, const float *x, float shift,
                                 float *out, uint64_t n) {
        return k->exp_sum(x, shift, out, n);
}
