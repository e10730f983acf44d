/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>

#include "rope.h"

#define PI 3.14159265358979323846

/* The pair (not rounded) that turns `turns` times within n_context positions. */
static double pair_of_turns(const struct warm_rope_params *p, double turns) {
        return p->n_dims * log(p->n_context_original / (turns * 2 * PI)) / (2 * log(p->base));
}

void warm_rope_init(const struct warm_rope_params *p, struct warm_rope_table *ret_table) {
        uint32_t n = p->n_dims / 2;
        double first = 0, last = 0;

        assert(n <= WARM_ROPE_DIMS_MAX / 2);
        ret_table->kind = p->kind;
        ret_table->n_pairs = p->kind == WARM_ROPE_NONE ? 0 : n;
        ret_table->factor = p->attention_factor;
        if (p->kind == WARM_ROPE_NONE)
                return;
        if (p->scaling == WARM_ROPE_SCALING_YARN) {
                first = fmax(0, floor(pair_of_turns(p, p->yarn_beta_fast)));
                last = fmin(p->n_dims - 1, ceil(pair_of_turns(p, p->yarn_beta_slow)));
        }
        for (uint32_t i = 0; i < n; i++) {
                double f = pow(p->base, -2.0 * i / p->n_dims);

                if (p->factors)
                        f /= p->factors[i];
                if (p->scaling == WARM_ROPE_SCALING_LINEAR)
                        f *= p->scale;
                if (p->scaling == WARM_ROPE_SCALING_YARN) {
                        double ramp = (i - first) / fmax(0.001, last - first);
                        double keep = (1 - fmin(1, fmax(0, ramp))) * p->yarn_ext;

                        f = f * p->scale * (1 - keep) + f * keep;
                }
                ret_table->frequencies[i] = f;
        }
}

void warm_rope_turn(const struct warm_rope_table *t, uint32_t position, float *ret_turn) {
        for (uint32_t i = 0; i < t->n_pairs; i++) {
                double s, c;

                sincos(position * t->frequencies[i], &s, &c);
                ret_turn[2 * i] = (float) c * t->factor;
                ret_turn[2 * i + 1] = (float) s * t->factor;
        }
}

void warm_rope_apply(const struct warm_rope_table *t, const float *turn, float *head) {
        uint32_t step = t->kind == WARM_ROPE_HALVES ? 1 : 2;
        uint32_t apart = t->kind == WARM_ROPE_HALVES ? t->n_pairs : 1;

        for (uint32_t i = 0; i < t->n_pairs; i++) {
                float *x = head + i * step;
                float c = turn[2 * i], s = turn[2 * i + 1], a = x[0], b = x[apart];

                x[0] = a * c - b * s;
                x[apart] = a * s + b * c;
        }
}
