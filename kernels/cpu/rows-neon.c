/* SPDX-License-Identifier: Apache-2.0 */
/* rows.h and the quantization of activations for NEON: four vectors are the 16 lanes. */
#include "expf-neon.h"
#include "panel.h"
#include "rows-neon.h"

/* The first n (of 4) elements, zeros behind them. */
static inline float32x4_t load(const float *x, uint64_t n) {
        float part[4] = { 0 };

        if (n >= 4)
                return vld1q_f32(x);
        memcpy(part, x, n * sizeof(*x));
        return vld1q_f32(part);
}

static inline void store(float *x, uint64_t n, float32x4_t v) {
        float part[4];

        if (n >= 4) {
                vst1q_f32(x, v);
                return;
        }
        vst1q_f32(part, v);
        memcpy(x, part, n * sizeof(*x));
}

static inline uint32x4_t mask_of(uint64_t n) {
        static const uint32_t lane[4] = { 0, 1, 2, 3 };

        return vcltq_u32(vld1q_u32(lane), vdupq_n_u32(n < 4 ? (uint32_t) n : 4));
}

static float sum_of_lanes(const float32x4_t *v) {
        float32x4_t x = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
        float32x2_t y = vadd_f32(vget_low_f32(x), vget_high_f32(x));

        return vget_lane_f32(y, 0) + vget_lane_f32(y, 1);
}

void warm_rms_norm_neon(const float *x, const float *weight, float epsilon, float *out,
                        uint64_t n) {
        float32x4_t sums[4], v, factor;

        for (int i = 0; i < 4; i++)
                sums[i] = vdupq_n_f32(0);
        for (uint64_t i = 0; i < n; i += 4) {
                v = load(x + i, n - i);
                sums[i / 4 % 4] = vfmaq_f32(sums[i / 4 % 4], v, v);
        }
        factor = vdupq_n_f32(1.0F / __builtin_sqrtf(sum_of_lanes(sums) / (float) n + epsilon));
        for (uint64_t i = 0; i < n; i += 4) {
                v = vmulq_f32(load(x + i, n - i), factor);
                store(out + i, n - i, vmulq_f32(v, load(weight + i, n - i)));
        }
}

void warm_silu_times_neon(const float *gate, const float *up, float *out, uint64_t n) {
        for (uint64_t i = 0; i < n; i += 4) {
                float32x4_t g = load(gate + i, n - i);

                g = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1), warm_expf_neon(vnegq_f32(g))));
                store(out + i, n - i, vmulq_f32(g, load(up + i, n - i)));
        }
}

void warm_add_neon(const float *x, const float *y, float *out, uint64_t n) {
        for (uint64_t i = 0; i < n; i += 4)
                store(out + i, n - i, vaddq_f32(load(x + i, n - i), load(y + i, n - i)));
}

float warm_max_neon(const float *x, uint64_t n) {
        float32x4_t most = vdupq_n_f32(-INFINITY);

        for (uint64_t i = 0; i < n; i += 4)
                most = vmaxq_f32(most, vbslq_f32(mask_of(n - i), load(x + i, n - i),
                                                 vdupq_n_f32(-INFINITY)));
        return vmaxvq_f32(most) + 0.0F;
}

float warm_exp_sum_neon(const float *x, float shift, float *out, uint64_t n) {
        float32x4_t sums[4];

        for (int i = 0; i < 4; i++)
                sums[i] = vdupq_n_f32(0);
        for (uint64_t i = 0; i < n; i += 4) {
                float32x4_t v = warm_expf_neon(vsubq_f32(load(x + i, n - i), vdupq_n_f32(shift)));

                store(out + i, n - i, v);
                v = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), mask_of(n - i)));
                sums[i / 4 % 4] = vaddq_f32(sums[i / 4 % 4], v);
        }
        return sum_of_lanes(sums);
}

static void set_block(struct warm_acts *a, const float *x, int8_t *to, uint64_t at) {
        uint64_t at_offset = at / 16 * 32 + at % 16;
        uint32x4_t sizes = vdupq_n_u32(0);
        int32_t halves[2] = { 0, 0 };
        float largest, scale, inverse;
        uint32_t most;

        for (int i = 0; i < 32; i += 4)
                sizes = vmaxq_u32(sizes, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)),
                                                   vdupq_n_u32(0x7fffffffU)));
        most = vmaxvq_u32(sizes);
        memcpy(&largest, &most, sizeof(largest));
        scale = largest / 127.0F;
        inverse = 127.0F / largest;
        if (most >= 0x7f800000U || largest < 0x1p-100F) {
                scale = most >= 0x7f800000U ? NAN : 0;
                inverse = 0;
        }
        for (int i = 0; i < 32; i += 4) {
                float32x4_t v = inverse != 0 ? vld1q_f32(x + i) : vdupq_n_f32(0);
                int32x4_t q = vcvtnq_s32_f32(vmulq_n_f32(v, inverse));
                int8x8_t narrow = vmovn_s16(vcombine_s16(vmovn_s32(q), vmovn_s32(q)));

                vst1_lane_s32((int32_t *) (void *) (to + i), vreinterpret_s32_s8(narrow), 0);
                halves[i / 16] += vaddvq_s32(q);
        }
        a->scales[at] = scale;
        a->sums[at] = scale * (float) (halves[0] + halves[1]);
        a->offsets[at_offset] = -128 * (halves[0] + halves[1]);
        a->offsets[at_offset + 16] = -128 * halves[0];
}

void warm_acts_set_neon(struct warm_acts *a, uint32_t row_begin, uint32_t row_end) {
        for (uint32_t row = row_begin; row < row_end; row++)
                for (uint64_t block = 0; block < a->n_cols / 32; block++)
                        set_block(a, a->x + row * a->ld + block * 32,
                                  a->q + row * a->q_ld + block * 32, warm_acts_at(a, row, block));
}
