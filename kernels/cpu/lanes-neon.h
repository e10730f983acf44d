/* SPDX-License-Identifier: Apache-2.0 */
/* lanes-plain.h on NEON (AArch64): 4 lanes. */
#pragma once

#include <arm_neon.h>
#include <stdint.h>

#define LANES        4
#define PASS_QUERIES 6
#define PASS_VECTORS 4

typedef float32x4_t lanes;

static inline lanes lanes_load(const float *p) {
        return vld1q_f32(p);
}

static inline void lanes_store(float *p, lanes a) {
        vst1q_f32(p, a);
}

static inline lanes lanes_load_half(const uint16_t *p) {
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline lanes lanes_load_bf16(const uint16_t *p) {
        return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

static inline void lanes_store_half(uint16_t *p, lanes a) {
        vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
}

static inline void lanes_store_bf16(uint16_t *p, lanes a) {
        uint32x4_t x = vreinterpretq_u32_f32(a);
        uint32x4_t odd = vandq_u32(vshrq_n_u32(x, 16), vdupq_n_u32(1));

        x = vaddq_u32(x, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        vst1_u16(p, vmovn_u32(vshrq_n_u32(x, 16)));
}

static inline lanes lanes_all(float a) {
        return vdupq_n_f32(a);
}

static inline lanes lanes_add(lanes a, lanes b) {
        return vaddq_f32(a, b);
}

static inline lanes lanes_sub(lanes a, lanes b) {
        return vsubq_f32(a, b);
}

static inline lanes lanes_mul(lanes a, lanes b) {
        return vmulq_f32(a, b);
}

static inline lanes lanes_div(lanes a, lanes b) {
        return vdivq_f32(a, b);
}

static inline lanes lanes_fma(lanes a, lanes b, lanes c) {
        return vfmaq_f32(c, a, b);
}

static inline lanes lanes_max(lanes a, lanes b) {
        return vbslq_f32(vcgtq_f32(a, b), a, b);
}

static inline lanes lanes_min(lanes a, lanes b) {
        return vbslq_f32(vcltq_f32(a, b), a, b);
}

static inline lanes lanes_if_less(lanes a, lanes b, lanes value) {
        return vreinterpretq_f32_u32(vandq_u32(vcltq_f32(a, b), vreinterpretq_u32_f32(value)));
}

static inline lanes lanes_abs(lanes a) {
        return vabsq_f32(a);
}

static inline lanes lanes_scale(lanes p, lanes n) {
        uint32x4_t e = vshlq_n_u32(vreinterpretq_u32_f32(n), 23);

        return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(p), e));
}

static inline float lanes_sum(lanes a) {
        float32x2_t x = vadd_f32(vget_low_f32(a), vget_high_f32(a));

        return vget_lane_f32(x, 0) + vget_lane_f32(x, 1);
}

static inline float lanes_most(lanes a) {
        float32x2_t low = vget_low_f32(a), high = vget_high_f32(a);
        float32x2_t x = vbsl_f32(vcgt_f32(low, high), low, high);
        float b = vget_lane_f32(x, 1);

        return vget_lane_f32(x, 0) > b ? vget_lane_f32(x, 0) : b;
}
