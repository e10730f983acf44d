/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scalar functions of the forward pass that are rare enough to need no vectors. The same bits on every instruction
 * set: warm_expf(), IEEE operations, and libm's erff.
 */
#pragma once

#include <math.h>

#include "../expf.h"
#include "kernels/plan.h"

/* (1 - exp(-2|x|)) / (1 + exp(-2|x|)) with x's sign; absolute error below 2^-23. */
static inline float warm_tanhf(float x) {
        float e = warm_expf(-2 * fabsf(x)), t = (1 - e) / (1 + e);

        return x < 0 ? -t : t;
}

/* cap * tanh(x / cap) */
static inline float warm_soft_cap(float x, float cap) {
        return cap * warm_tanhf(x / cap);
}

/*
 * GELU: x/2 * (1 + erf(x / sqrt 2)); its tanh form: x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
 * (Hendrycks and Gimpel 2016).
 */
static inline float warm_activate(enum warm_activation activation, float x) {
        switch (activation) {
        case WARM_ACTIVATION_GELU:
                return 0.5F * x * (1 + erff(x * 0x1.6a09e6p-1F));
        case WARM_ACTIVATION_GELU_TANH:
                return 0.5F * x *
                       (1 + warm_tanhf(0x1.988454p-1F * (x + 0x1.6e4e26p-5F * x * x * x)));
        case WARM_ACTIVATION_RELU:
                return x > 0 ? x : 0;
        default:
                return x / (1 + warm_expf(-x));
        }
}
