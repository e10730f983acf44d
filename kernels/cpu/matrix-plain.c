/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The products in plain C: the oracle. Written to be read; matrix.h has the arithmetic, panel.h the layout.
 */
#include <math.h>
#include <string.h>

#include "panel.h"
#include "rows-plain.h"

static uint32_t bits_of(float f) {
        uint32_t bits;

        memcpy(&bits, &f, sizeof(bits));
        return bits;
}

static void set_block(const float *x, int8_t *q, float *ret_scale, float *ret_sum,
                      int32_t *ret_offset, int32_t *ret_offset_first) {
        int32_t halves[2] = { 0, 0 };
        uint32_t most = 0;
        float largest, scale, inverse;

        for (int i = 0; i < 32; i++) {
                uint32_t size = bits_of(x[i]) & 0x7fffffffU;

                most = size > most ? size : most;
        }
        memcpy(&largest, &most, sizeof(largest));
        scale = largest / 127.0F;
        inverse = 127.0F / largest;
        if (most >= 0x7f800000U || largest < 0x1p-100F) {
                scale = most >= 0x7f800000U ? NAN : 0;
                inverse = 0;
        }
        for (int i = 0; i < 32; i++) {
                /* 1.5 * 2^23 leaves the nearest integer, ties to even, in the low bits. */
                float rounded = inverse != 0 ? x[i] * inverse + 0x1.8p23F : 0x1.8p23F;
                int32_t v = (int32_t) (bits_of(rounded) - bits_of(0x1.8p23F));

                q[i] = (int8_t) v;
                halves[i / 16] += v;
        }
        *ret_scale = scale;
        *ret_sum = scale * (float) (halves[0] + halves[1]);
        *ret_offset = -128 * (halves[0] + halves[1]);
        *ret_offset_first = -128 * halves[0];
}

static void set(struct warm_acts *a, uint32_t row_begin, uint32_t row_end) {
        for (uint32_t row = row_begin; row < row_end; row++)
                for (uint64_t block = 0; block < a->n_cols / 32; block++) {
                        uint64_t at = warm_acts_at(a, row, block);
                        uint64_t at_offset = at / 16 * 32 + at % 16;

                        set_block(a->x + row * a->ld + block * 32,
                                  a->q + row * a->q_ld + block * 32, &a->scales[at], &a->sums[at],
                                  &a->offsets[at_offset], &a->offsets[at_offset + 16]);
                }
}

/* The 32 integers v of matrix.h of one row of a panel; of Q6_K without the factors. */
static void row_values(enum warm_type type, const uint8_t *unit, uint32_t row,
                       int32_t *ret_values) {
        for (int i = 0; i < 32; i++) {
                int g = i / 4;
                const uint8_t *at = unit + row * 4 + i % 4;
                int32_t v;

                if (type == WARM_TYPE_Q8_0) {
                        v = at[g * 64];
                } else {
                        v = at[g % 4 * 64] >> g / 4 * 4 & 15;
                        if (type == WARM_TYPE_Q6_K)
                                v |= (at[256 + g / 4 * 64] >> g % 4 * 2 & 3) << 4;
                        else if (warm_panel_value_bytes(type) == 320)
                                v |= (at[256] >> g & 1) << 4;
                }
                ret_values[i] = v - warm_panel_bias(type);
        }
}

struct row_scale {
        float step;
        float base;        /* w = step * v - base */
        int32_t factor[2]; /* of the first and the last 16 values */
};

static struct row_scale row_scale(const struct warm_matrix *m, const uint8_t *panel, uint64_t block,
                                  uint32_t row) {
        const uint8_t *s = warm_panel_scales(m, panel, block);
        struct row_scale scale = {
                .step = warm_half_to_float(warm_load16(s + row * 2)),
                .factor = { 1, 1 },
        };
        uint32_t g = block % 8;

        switch (m->type) {
        case WARM_TYPE_Q4_1:
        case WARM_TYPE_Q5_1:
                scale.base = -warm_half_to_float(warm_load16(s + 32 + row * 2));
                break;
        case WARM_TYPE_Q4_K:
        case WARM_TYPE_Q5_K:
                scale.base = warm_half_to_float(warm_load16(s + 32 + row * 2));
                for (uint32_t i = 0; i < 2; i++) {
                        const uint8_t *at = s + 64 + i * 16 + row;
                        int low = at[g % 4 * 32] >> g / 4 * 4 & 15;
                        int high = at[128 + g / 4 * 32] >> g % 4 * 2 & 3;

                        *(i ? &scale.base : &scale.step) *= (float) (low | high << 4);
                }
                break;
        case WARM_TYPE_Q6_K:
                scale.factor[0] = (int8_t) s[32 + g * 32 + row];
                scale.factor[1] = (int8_t) s[32 + g * 32 + 16 + row];
                break;
        default:
                break;
        }
        return scale;
}

static float dot_blocks(const struct warm_matrix *m, const uint8_t *panel, uint32_t panel_row,
                        const struct warm_acts *a, uint32_t row) {
        float acc = 0;

        for (uint64_t block = 0; block < m->n_cols / 32; block++) {
                struct row_scale scale = row_scale(m, panel, block, panel_row);
                const int8_t *q = a->q + row * a->q_ld + block * 32;
                uint64_t at = warm_acts_at(a, row, block);
                int32_t values[32], sum[2] = { 0, 0 };

                row_values(m->type, warm_panel_values(m, panel, block), panel_row, values);
                for (int i = 0; i < 32; i++)
                        sum[i / 16] += values[i] * q[i];
                sum[0] = sum[0] * scale.factor[0] + sum[1] * scale.factor[1];
                acc = fmaf((float) sum[0], scale.step * a->scales[at], acc);
                if (warm_panel_has_base(m->type))
                        acc = fmaf(-scale.base, a->sums[at], acc);
        }
        return acc;
}

static float float_value(const struct warm_matrix *m, const uint8_t *panel, uint32_t panel_row,
                         uint64_t col) {
        float value;

        warm_type_dequantize(m->type,
                             panel + (col * WARM_MATRIX_ROWS + panel_row) *
                                             warm_type_info(m->type)->bytes,
                             1, &value);
        return value;
}

static float dot_floats(const struct warm_matrix *m, const uint8_t *panel, uint32_t panel_row,
                        const float *x) {
        float acc = 0;

        for (uint64_t i = 0; i < m->n_cols; i++)
                acc = fmaf(float_value(m, panel, panel_row, i), x[i], acc);
        return acc;
}

static void multiply(const struct warm_matrix *m, const struct warm_acts *a, uint32_t row_begin,
                     uint32_t row_end, uint64_t col_begin, uint64_t col_end, float *out,
                     uint64_t ld_out) {
        for (uint64_t col = col_begin; col < col_end; col++) {
                const uint8_t *panel = m->data + col / WARM_MATRIX_ROWS * m->panel_bytes;
                uint32_t panel_row = col % WARM_MATRIX_ROWS;

                for (uint32_t row = row_begin; row < row_end; row++)
                        out[row * ld_out + col] =
                                warm_panel_value_bytes(m->type)
                                        ? dot_blocks(m, panel, panel_row, a, row)
                                        : dot_floats(m, panel, panel_row, a->x + row * a->ld);
        }
}

void warm_matrix_row(const struct warm_kernels *k, const struct warm_matrix *m, uint64_t row,
                     float *ret_values) {
        const uint8_t *panel = m->data + row / WARM_MATRIX_ROWS * m->panel_bytes;
        uint32_t panel_row = row % WARM_MATRIX_ROWS;
        int32_t values[32];

        (void) k;
        if (!warm_panel_value_bytes(m->type)) {
                for (uint64_t i = 0; i < m->n_cols; i++)
                        ret_values[i] = float_value(m, panel, panel_row, i);
                return;
        }
        for (uint64_t block = 0; block < m->n_cols / 32; block++) {
                struct row_scale scale = row_scale(m, panel, block, panel_row);

                row_values(m->type, warm_panel_values(m, panel, block), panel_row, values);
                for (int i = 0; i < 32; i++) {
                        float step = scale.step * (float) scale.factor[i / 16];
                        float y = step * (float) values[i];

                        ret_values[block * 32 + (uint64_t) i] =
                                warm_panel_has_base(m->type) ? y - scale.base : y;
                }
        }
}

const struct warm_kernels warm_kernels_plain = {
        .isa = WARM_ISA_PLAIN,
        .set = set,
        .multiply = multiply,
        .rms_norm = warm_rms_norm_plain,
        .silu_times = warm_silu_times_plain,
        .add = warm_add_plain,
        .max = warm_max_plain,
        .exp_sum = warm_exp_sum_plain,
};
