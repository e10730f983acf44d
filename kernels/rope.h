/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotary positions (Su et al. 2021, "RoFormer"): pair i of a head turns by position * frequency[i].
 *
 * Frequencies are made once at load, in double; angles in double too, so that far positions lose nothing to float.
 * A turn is a function of (position, parameters) alone. No fma: the same bits whatever the compiler's target.
 * Pure functions, any thread.
 */
#pragma once

#include <stdint.h>

#include "kernels/plan.h"

#define WARM_ROPE_DIMS_MAX 256U

struct warm_rope_table {
        enum warm_rope kind;
        uint32_t n_pairs;
        float factor; /* cos and sin times this */
        double frequencies[WARM_ROPE_DIMS_MAX / 2];
};

/*
 * Frequencies of a layer: base^(-2i/n), divided by the factors (llama 3) if there are any, times the scale (linear),
 * or between both by YaRN's ramp (Peng et al. 2023, section 3.2-3.4): a pair that turns more often than beta_fast
 * within the original context keeps its frequency, one that turns less than beta_slow is interpolated.
 * attention_factor is taken as it stands; YaRN's own 0.1 ln(1/scale) + 1 is the business of who fills the plan.
 *
 * @param p kind ADJACENT or HALVES; n_dims even, <= WARM_ROPE_DIMS_MAX; checked by warm_plan_check()
 */
void warm_rope_init(const struct warm_rope_params *p, struct warm_rope_table *ret_table);

/* cos and sin of a position. @param ret_turn [n_pairs][2] */
void warm_rope_turn(const struct warm_rope_table *t, uint32_t position, float *ret_turn);

/* Rotate a head in place. @param head [>= 2 * n_pairs] */
void warm_rope_apply(const struct warm_rope_table *t, const float *turn, float *head);
