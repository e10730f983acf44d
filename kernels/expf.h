/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One exp for every instruction set and for the GPU, bit for bit: the same steps in the same order, fma where written.
 *
 * exp(x) = 2^n e^r with n = x log2(e) rounded to even and |r| <= ln(2)/2; ln(2) in two parts, the first of 15 bits
 * so that n * LN2_HIGH is exact (|n| <= 128). e^r is the polynomial of degree 6 below, a near-minimax fit on
 * [-ln(2)/2, ln(2)/2] with the first two coefficients held at 1; its error is below 2^-27. Results below the smallest
 * normal float are 0. Measured over every 97th float of the range: at most 0.88 units in the last place
 * (tests/kernels/test-rows.c allows 2).
 */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define WARM_EXP_MIN      -87.3365F /* below: 0 */
#define WARM_EXP_MAX      88.72283F /* above: infinity; ln(2^128) rounded down */
#define WARM_EXP_LOG2E    0x1.715476p+0F
#define WARM_EXP_LN2_HIGH 0x1.62e4p-1F
#define WARM_EXP_LN2_LOW  0x1.7f7d1cp-20F
#define WARM_EXP_MAGIC    0x1.8p23F /* adding it leaves the nearest integer in the low bits */
#define WARM_EXP_C2       0x1.fffffcp-2F
#define WARM_EXP_C3       0x1.555492p-3F
#define WARM_EXP_C4       0x1.5558f2p-5F
#define WARM_EXP_C5       0x1.1239e2p-7F
#define WARM_EXP_C6       0x1.6a2434p-10F

static inline float warm_expf(float x) {
        float t, n, r, p;
        uint32_t bits, shift;

        if (x != x)
                return x;
        if (x > WARM_EXP_MAX)
                return INFINITY;
        if (x < WARM_EXP_MIN)
                return 0;
        t = fmaf(x, WARM_EXP_LOG2E, WARM_EXP_MAGIC);
        n = t - WARM_EXP_MAGIC;
        r = fmaf(n, -WARM_EXP_LN2_HIGH, x);
        r = fmaf(n, -WARM_EXP_LN2_LOW, r);
        p = fmaf(WARM_EXP_C6, r, WARM_EXP_C5);
        p = fmaf(p, r, WARM_EXP_C4);
        p = fmaf(p, r, WARM_EXP_C3);
        p = fmaf(p, r, WARM_EXP_C2);
        p = fmaf(p, r, 1.0F);
        p = fmaf(p, r, 1.0F);
        memcpy(&bits, &p, sizeof(bits));
        memcpy(&shift, &t, sizeof(shift));
        bits += shift << 23;
        memcpy(&p, &bits, sizeof(p));
        return p;
}
