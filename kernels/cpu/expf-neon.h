/* SPDX-License-Identifier: Apache-2.0 */
/* expf.h for 4 lanes: the same bits. AArch64 only. */
#pragma once

#include <arm_neon.h>

#include "../expf.h"

static inline float32x4_t warm_expf_neon(float32x4_t x) {
        const float32x4_t magic = vdupq_n_f32(WARM_EXP_MAGIC), one = vdupq_n_f32(1);
        uint32x4_t is_number = vceqq_f32(x, x);
        uint32x4_t above = vcgtq_f32(x, vdupq_n_f32(WARM_EXP_MAX));
        uint32x4_t not_below = vcgeq_f32(x, vdupq_n_f32(WARM_EXP_MIN));
        float32x4_t t = vfmaq_f32(magic, x, vdupq_n_f32(WARM_EXP_LOG2E));
        float32x4_t n = vsubq_f32(t, magic);
        float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-WARM_EXP_LN2_HIGH));
        float32x4_t p;

        r = vfmaq_f32(r, n, vdupq_n_f32(-WARM_EXP_LN2_LOW));
        p = vfmaq_f32(vdupq_n_f32(WARM_EXP_C5), vdupq_n_f32(WARM_EXP_C6), r);
        p = vfmaq_f32(vdupq_n_f32(WARM_EXP_C4), p, r);
        p = vfmaq_f32(vdupq_n_f32(WARM_EXP_C3), p, r);
        p = vfmaq_f32(vdupq_n_f32(WARM_EXP_C2), p, r);
        p = vfmaq_f32(one, p, r);
        p = vfmaq_f32(one, p, r);
        p = vreinterpretq_f32_u32(
                vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(t), 23)));
        p = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(p), not_below));
        p = vbslq_f32(above, vdupq_n_f32(INFINITY), p);
        return vbslq_f32(is_number, p, x);
}
