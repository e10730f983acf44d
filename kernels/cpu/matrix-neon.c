/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with NEON and its dot product. A vector holds 4 of a panel's 16 outputs; sdot takes 4 signed weights of
 * each and 4 activations, so the decoded weights have their bias subtracted.
 */
#include <arm_neon.h>

#include "rows-neon.h"
#include "narrow.h"

#define AHEAD 8192 /* bytes to fetch ahead; untuned guess */

/* A quarter (4 rows) of quad g, signed. */
WARM_INLINE int8x16_t quad(enum warm_type type, const uint8_t *values, int g, int quarter) {
        const uint8_t *p = values + quarter * 16;
        uint8x16_t v, h;

        if (type == WARM_TYPE_Q8_0) {
                v = veorq_u8(vld1q_u8(p + g * 64), vdupq_n_u8(0x80));
                return vreinterpretq_s8_u8(v);
        }
        v = vld1q_u8(p + g % 4 * 64);
        v = vandq_u8(vshlq_u8(v, vdupq_n_s8((int8_t) (g < 4 ? 0 : -4))), vdupq_n_u8(15));
        if (warm_panel_value_bytes(type) == 320) {
                h = vshlq_u8(vld1q_u8(p + 256), vdupq_n_s8((int8_t) -g));
                v = vorrq_u8(v, vshlq_n_u8(vandq_u8(h, vdupq_n_u8(1)), 4));
        }
        if (type == WARM_TYPE_Q6_K) {
                h = vshlq_u8(vld1q_u8(p + 256 + g / 4 * 64), vdupq_n_s8((int8_t) (g % 4 * -2)));
                v = vorrq_u8(v, vshlq_n_u8(vandq_u8(h, vdupq_n_u8(3)), 4));
        }
        return vsubq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8((int8_t) warm_panel_bias(type)));
}

WARM_INLINE float32x4_t halves(const uint8_t *p) {
        return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

/* The 6-bit scales (which 0) or mins (1) of a group of Q4_K and Q5_K, of 4 rows. */
WARM_INLINE float32x4_t six_bits(const uint8_t *scales, int group, int which, int quarter) {
        const uint8_t *p = scales + 64 + which * 16 + quarter * 4;
        const uint8_t *low = p + group % 4 * 32, *high = p + 128 + group / 4 * 32;
        uint32_t v[4];

        for (int i = 0; i < 4; i++)
                v[i] = (low[i] >> group / 4 * 4 & 15U) | (high[i] >> group % 4 * 2 & 3U) << 4;
        return vcvtq_f32_u32(vld1q_u32(v));
}

WARM_INLINE void decode_scales(enum warm_type type, const uint8_t *scales, int group,
                               struct warm_scratch *s, uint64_t at) {
        for (int quarter = 0; quarter < 4; quarter++) {
                float32x4_t step = halves(scales + quarter * 8), base;

                if (warm_panel_has_base(type)) {
                        base = halves(scales + 32 + quarter * 8);
                        if (type == WARM_TYPE_Q4_K || type == WARM_TYPE_Q5_K) {
                                step = vmulq_f32(step, six_bits(scales, group, 0, quarter));
                                base = vmulq_f32(base, six_bits(scales, group, 1, quarter));
                                base = vnegq_f32(base);
                        }
                        vst1q_f32(s->minus_bases[at] + quarter * 4, base);
                }
                vst1q_f32(s->steps[at] + quarter * 4, step);
        }
        for (int i = 0; i < 32 && type == WARM_TYPE_Q6_K; i++)
                s->factors[at][i / 16][i % 16] = (float) (int8_t) scales[32 + group * 32 + i];
}

WARM_INLINE void decode(const struct warm_matrix *m, enum warm_type type, const uint8_t *panel,
                        uint64_t begin, uint64_t end, struct warm_scratch *s) {
        for (uint64_t block = begin; block < end; block++) {
                const uint8_t *values = warm_panel_values(m, panel, block);
                uint64_t at = block - begin;

                for (uint64_t i = 0; i < warm_panel_value_bytes(type); i += 64)
                        __builtin_prefetch(values + AHEAD + i);
                for (int g = 0; g < 8; g++)
                        for (int quarter = 0; quarter < 4; quarter++)
                                vst1q_s8((int8_t *) s->values[at] + g * 64 + quarter * 16,
                                         quad(type, values, g, quarter));
                decode_scales(type, warm_panel_scales(m, panel, block), (int) (block % 8), s, at);
        }
}

/* Products of 4 quads with one row's 16 activations, on top of dot. */
WARM_INLINE int32x4_t dot_4_quads(const uint8_t *values, int8x16_t q, int32x4_t dot) {
        const int8_t *v = (const int8_t *) values;

        dot = vdotq_laneq_s32(dot, vld1q_s8(v), q, 0);
        dot = vdotq_laneq_s32(dot, vld1q_s8(v + 64), q, 1);
        dot = vdotq_laneq_s32(dot, vld1q_s8(v + 128), q, 2);
        return vdotq_laneq_s32(dot, vld1q_s8(v + 192), q, 3);
}

/* One row, one block, 4 outputs: the (factored) dot product as float. */
WARM_INLINE float32x4_t dot_block(enum warm_type type, const struct warm_scratch *s, uint64_t at,
                                  int quarter, const int8_t *q) {
        const uint8_t *values = s->values[at] + quarter * 16;
        int32x4_t first = dot_4_quads(values, vld1q_s8(q), vdupq_n_s32(0)), last;
        float32x4_t dot;

        if (type != WARM_TYPE_Q6_K)
                return vcvtq_f32_s32(dot_4_quads(values + 256, vld1q_s8(q + 16), first));
        last = dot_4_quads(values + 256, vld1q_s8(q + 16), vdupq_n_s32(0));
        dot = vmulq_f32(vcvtq_f32_s32(last), vld1q_f32(s->factors[at][1] + quarter * 4));
        return vfmaq_f32(dot, vcvtq_f32_s32(first), vld1q_f32(s->factors[at][0] + quarter * 4));
}

/* The first n (of 4) outputs; zeros behind them. */
WARM_INLINE float32x4_t load_outs(const float *out, uint32_t n) {
        float part[4] = { 0 };

        memcpy(part, out, (n < 4 ? n : 4) * sizeof(*out));
        return vld1q_f32(part);
}

WARM_INLINE void store_outs(float *out, uint32_t n, float32x4_t v) {
        float part[4];

        vst1q_f32(part, v);
        memcpy(out, part, (n < 4 ? n : 4) * sizeof(*out));
}

WARM_INLINE void tile(enum warm_type type, uint32_t n, const struct warm_scratch *s,
                      const struct warm_acts *a, uint32_t row, uint64_t begin, uint64_t end,
                      float *out, uint64_t ld_out, uint32_t n_cols) {
        for (int quarter = 0; quarter < 4 && n_cols > (uint32_t) quarter * 4; quarter++) {
                uint32_t n_outs = n_cols - (uint32_t) quarter * 4;
                float *to = out + quarter * 4;
                float32x4_t acc[WARM_TILE_ROWS];

                for (uint32_t r = 0; r < n; r++)
                        acc[r] = begin == 0 ? vdupq_n_f32(0) : load_outs(to + r * ld_out, n_outs);
                for (uint64_t at = 0; at < end - begin; at++) {
                        float32x4_t step = vld1q_f32(s->steps[at] + quarter * 4);

                        for (uint32_t r = 0; r < n; r++) {
                                const int8_t *q = a->q + (row + r) * a->q_ld + (begin + at) * 32;
                                uint64_t i = warm_acts_at(a, row + r, begin + at);
                                float32x4_t dot = dot_block(type, s, at, quarter, q);

                                acc[r] = vfmaq_f32(acc[r], dot, vmulq_n_f32(step, a->scales[i]));
                                if (warm_panel_has_base(type))
                                        acc[r] = vfmaq_f32(
                                                acc[r], vld1q_f32(s->minus_bases[at] + quarter * 4),
                                                vdupq_n_f32(a->sums[i]));
                        }
                }
                for (uint32_t r = 0; r < n; r++)
                        store_outs(to + r * ld_out, n_outs, acc[r]);
        }
}

WARM_INLINE float32x4_t float_weights(enum warm_type type, const uint8_t *p) {
        if (type == WARM_TYPE_F32)
                return vreinterpretq_f32_u8(vld1q_u8(p));
        if (type == WARM_TYPE_F16)
                return halves(p);
        return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}

WARM_INLINE void floats(const struct warm_matrix *m, enum warm_type type, uint32_t n,
                        const uint8_t *panel, const float *x, uint64_t ld, float *out,
                        uint64_t ld_out, uint32_t n_cols) {
        const uint32_t bytes = type == WARM_TYPE_F32 ? 4 : 2;
        float32x4_t acc[4][WARM_TILE_ROWS];

        for (uint32_t i = 0; i < 4; i++)
                for (uint32_t r = 0; r < n; r++)
                        acc[i][r] = vdupq_n_f32(0);
        for (uint64_t col = 0; col < m->n_cols; col++)
                for (uint32_t i = 0; i < 4; i++) {
                        float32x4_t w = float_weights(type, panel + (col * 16 + i * 4) * bytes);

                        for (uint32_t r = 0; r < n; r++)
                                acc[i][r] = vfmaq_n_f32(acc[i][r], w, x[r * ld + col]);
                }
        for (uint32_t r = 0; r < n; r++)
                for (uint32_t i = 0; i < 4 && n_cols > i * 4; i++)
                        store_outs(out + r * ld_out + i * 4, n_cols - i * 4, acc[i][r]);
}

const struct warm_kernels warm_kernels_neon = {
        .isa = WARM_ISA_NEON,
        .set = warm_acts_set_neon,
        .multiply = multiply,
        .rms_norm = warm_rms_norm_neon,
        .silu_times = warm_silu_times_neon,
        .add = warm_add_neon,
        .max = warm_max_neon,
        .exp_sum = warm_exp_sum_neon,
};
