/* SPDX-License-Identifier: Apache-2.0 */
/* rows.h in plain C: the oracle. */
#include <math.h>

#include "rows.h"
#include "rows-plain.h"

#define N_LANES 16

static float sum_of_lanes(float *lanes) {
        for (int width = N_LANES / 2; width > 0; width /= 2)
                for (int i = 0; i < width; i++)
                        lanes[i] += lanes[i + width];
        return lanes[0];
}

void warm_rms_norm_plain(const float *x, const float *weight, float epsilon, float *out,
                         uint64_t n) {
        float lanes[N_LANES] = { 0 };
        float factor;

        for (uint64_t i = 0; i < n; i++)
                lanes[i % N_LANES] = fmaf(x[i], x[i], lanes[i % N_LANES]);
        factor = 1.0F / sqrtf(sum_of_lanes(lanes) / (float) n + epsilon);
        for (uint64_t i = 0; i < n; i++)
                out[i] = (x[i] * factor) * weight[i];
}

void warm_silu_times_plain(const float *gate, const float *up, float *out, uint64_t n) {
        for (uint64_t i = 0; i < n; i++)
                out[i] = (gate[i] / (1.0F + warm_expf(-gate[i]))) * up[i];
}

void warm_add_plain(const float *x, const float *y, float *out, uint64_t n) {
        for (uint64_t i = 0; i < n; i++)
                out[i] = x[i] + y[i];
}

float warm_max_plain(const float *x, uint64_t n) {
        float most = -INFINITY;

        for (uint64_t i = 0; i < n; i++)
                most = x[i] > most ? x[i] : most;
        return most + 0.0F; /* either zero becomes +0 */
}

float warm_exp_sum_plain(const float *x, float shift, float *out, uint64_t n) {
        float lanes[N_LANES] = { 0 };

        for (uint64_t i = 0; i < n; i++) {
                out[i] = warm_expf(x[i] - shift);
                lanes[i % N_LANES] += out[i];
        }
        return sum_of_lanes(lanes);
}
