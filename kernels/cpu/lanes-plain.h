/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vector of floats, in plain C: one lane. The other lanes-*.h define the same names; each operation is one IEEE
 * operation a lane, so that the width makes no difference to any bit.
 *
 * PASS_QUERIES and PASS_VECTORS: the accumulators (their product) that a pass of the product keeps in registers.
 */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/quant.h"

#define LANES        1
#define PASS_QUERIES 4
#define PASS_VECTORS 1

typedef float lanes;

static inline lanes lanes_load(const float *p) {
        return *p;
}

static inline void lanes_store(float *p, lanes a) {
        *p = a;
}

static inline lanes lanes_load_half(const uint16_t *p) {
        return warm_half_to_float(*p);
}

static inline lanes lanes_load_bf16(const uint16_t *p) {
        return warm_bf16_to_float(*p);
}

/* Rounded to nearest even; a is finite and within the type. */
static inline void lanes_store_half(uint16_t *p, lanes a) {
        *p = warm_float_to_half(a);
}

static inline void lanes_store_bf16(uint16_t *p, lanes a) {
        *p = warm_float_to_bf16(a);
}

static inline lanes lanes_all(float a) {
        return a;
}

static inline lanes lanes_add(lanes a, lanes b) {
        return a + b;
}

static inline lanes lanes_sub(lanes a, lanes b) {
        return a - b;
}

static inline lanes lanes_mul(lanes a, lanes b) {
        return a * b;
}

static inline lanes lanes_div(lanes a, lanes b) {
        return a / b;
}

/* a * b + c, rounded once */
static inline lanes lanes_fma(lanes a, lanes b, lanes c) {
        return fmaf(a, b, c);
}

/* The larger; b where a is not larger. */
static inline lanes lanes_max(lanes a, lanes b) {
        return a > b ? a : b;
}

/* The smaller; b where a is not smaller. */
static inline lanes lanes_min(lanes a, lanes b) {
        return a < b ? a : b;
}

/* value where a < b, else +0 */
static inline lanes lanes_if_less(lanes a, lanes b, lanes value) {
        return a < b ? value : 0;
}

static inline lanes lanes_abs(lanes a) {
        return fabsf(a);
}

/* p times 2^n, where n stands in the low bits of the float 1.5 * 2^23 + n. */
static inline lanes lanes_scale(lanes p, lanes n) {
        uint32_t x, e;

        memcpy(&x, &p, 4);
        memcpy(&e, &n, 4);
        x += e << 23;
        memcpy(&p, &x, 4);
        return p;
}

/* All lanes added in halves: lane i and i + LANES / 2, and so on. */
static inline float lanes_sum(lanes a) {
        return a;
}

/* The largest lane, in the same halves by lanes_max(): so that even a NaN comes out alike everywhere. */
static inline float lanes_most(lanes a) {
        return a;
}
