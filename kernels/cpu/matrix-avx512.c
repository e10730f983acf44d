/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with AVX-512 VNNI. A vector holds one float or int32 of each of a panel's 16 outputs; vpdpbusd takes 4
 * unsigned weights of each and 4 signed activations, broadcast from memory. Stored weights are value + bias, so a dot
 * product starts at minus the bias times the sum of the activations, which the activations carry.
 *
 * Few rows: the weights are read once from memory and decoded in registers. Many rows: a panel's weights are decoded
 * once into a scratch in the nearest cache and used by all rows, 8 at a time. Both add in the same order.
 */
#include <assert.h>

#include "panel-avx512.h"
#include "rows-avx512.h"

#define FEW_ROWS       4U
#define AHEAD          8192 /* bytes; tuned: 2,048 to 8,192 alike, without up to half the speed */
#define TILE_ROWS      8U   /* 8 sums, 8 dot products and a quad of weights in 32 registers */
#define SCRATCH_BLOCKS 48U  /* 1,536 columns: 24 KiB of values stay in the nearest cache */

/* Where the activations of one block of one row lie. */
struct act {
        const int8_t *q;
        const float *scale;
        const float *sum;
        const int32_t *offset;
};

WARM_INLINE struct act act_at(const struct warm_acts *a, uint32_t row, uint64_t block) {
        uint64_t at = warm_acts_at(a, row, block);

        return (struct act){ .q = a->q + row * a->q_ld + block * 32,
                             .scale = a->scales + at,
                             .sum = a->sums + at,
                             .offset = a->offsets + (at - row % 16) * 2 + row % 16 };
}

WARM_INLINE struct act act_next(struct act act) {
        return (struct act){ act.q + 32, act.scale + 16, act.sum + 16, act.offset + 32 };
}

WARM_INLINE __m512i broadcast_quad(const int8_t *q) {
        int32_t v;

        memcpy(&v, q, sizeof(v));
        return _mm512_set1_epi32(v);
}

/* -bias times the sum of the activations' first (0), last (1) or all (2) values. */
WARM_INLINE __m512i start_of_dot(int bias, const int32_t *offset, int part) {
        __m512i start;

        if (bias == 0)
                return _mm512_setzero_si512();
        start = _mm512_set1_epi32(part == 0 ? offset[16] : offset[0]);
        if (part == 1)
                start = _mm512_sub_epi32(start, _mm512_set1_epi32(offset[16]));
        return bias == 128  ? start
               : bias == 32 ? _mm512_srai_epi32(start, 2)
               : bias == 16 ? _mm512_srai_epi32(start, 3)
                            : _mm512_srai_epi32(start, 4);
}

/* What a block of weights needs beside its quads. */
struct block_scale {
        __m512 step;
        __m512 minus_base;
        __m512 factors[2];
};

WARM_INLINE __m512 add_block(enum warm_type type, int bias, const __m512i *quads,
                             const struct block_scale *s, struct act act, __m512 acc) {
        __m512 dot, scale = _mm512_mul_ps(s->step, _mm512_set1_ps(*act.scale));
        __m512i first, last;

        if (type == WARM_TYPE_Q6_K) {
                first = start_of_dot(bias, act.offset, 0);
                last = start_of_dot(bias, act.offset, 1);
                for (int g = 0; g < 4; g++) {
                        first = _mm512_dpbusd_epi32(first, quads[g], broadcast_quad(act.q + g * 4));
                        last = _mm512_dpbusd_epi32(last, quads[g + 4],
                                                   broadcast_quad(act.q + 16 + g * 4));
                }
                /* Below 2^24 in size: exact in float. */
                dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(first), s->factors[0],
                                      _mm512_mul_ps(_mm512_cvtepi32_ps(last), s->factors[1]));
        } else {
                first = start_of_dot(bias, act.offset, 2);
                for (int g = 0; g < 8; g++)
                        first = _mm512_dpbusd_epi32(first, quads[g], broadcast_quad(act.q + g * 4));
                dot = _mm512_cvtepi32_ps(first);
        }
        acc = _mm512_fmadd_ps(dot, scale, acc);
        if (warm_panel_has_base(type))
                acc = _mm512_fmadd_ps(s->minus_base, _mm512_set1_ps(*act.sum), acc);
        return acc;
}

/* Scales of 8 blocks of a type with a block of 256 columns, else of the one block. */
WARM_INLINE void read_scales(const struct warm_matrix *m, enum warm_type type, const uint8_t *panel,
                             uint64_t block, __m512 *ret_steps, __m512 *ret_minus_bases) {
        const uint8_t *scales = warm_panel_scales(m, panel, block);

        if (type == WARM_TYPE_Q4_K || type == WARM_TYPE_Q5_K) {
                warm_scales_q45_k_avx512(scales, ret_steps, ret_minus_bases);
                return;
        }
        ret_steps[0] = warm_halves_avx512(scales);
        if (warm_panel_has_base(type))
                ret_minus_bases[0] = warm_halves_avx512(scales + 32);
}

/*
 * Fetch what comes AHEAD bytes later, in this panel or the next ones: the processor's own prefetch stops at the end of
 * a page. May point behind the matrix; a prefetch never faults.
 */
WARM_INLINE void fetch_ahead(const uint8_t *p, uint64_t bytes) {
        for (uint64_t i = 0; i < bytes; i += 64)
                _mm_prefetch((const char *) p + AHEAD + i, _MM_HINT_T0);
}

/* n rows (a constant) of one panel, weights decoded in registers. */
WARM_INLINE void few_rows(const struct warm_matrix *m, enum warm_type type, uint32_t n,
                          const uint8_t *panel, const struct warm_acts *a, uint32_t row, float *out,
                          uint64_t ld_out, __mmask16 mask) {
        const uint64_t n_parts = type == WARM_TYPE_Q4_K || type == WARM_TYPE_Q5_K ? 8 : 1;
        __m512 acc[FEW_ROWS], steps[8], minus_bases[8];
        struct act acts[FEW_ROWS];

        for (uint32_t r = 0; r < n; r++) {
                acc[r] = _mm512_setzero_ps();
                acts[r] = act_at(a, row + r, 0);
        }
        for (uint64_t block = 0; block < m->n_cols / 32; block += n_parts) {
                read_scales(m, type, panel, block, steps, minus_bases);
                fetch_ahead(warm_panel_scales(m, panel, block), n_parts == 8 ? 256 : 64);
                for (uint64_t part = 0; part < n_parts; part++) {
                        const uint8_t *values = warm_panel_values(m, panel, block + part);
                        struct block_scale s = { .step = steps[part] };
                        __m512i quads[8];

                        if (warm_panel_has_base(type))
                                s.minus_base = minus_bases[part];
                        if (type == WARM_TYPE_Q6_K)
                                for (uint32_t half = 0; half < 2; half++)
                                        s.factors[half] = warm_factors_avx512(
                                                warm_panel_scales(m, panel, block), block, half);
                        warm_quads_avx512(type, values, quads);
                        fetch_ahead(values, warm_panel_value_bytes(type));
                        for (uint32_t r = 0; r < n; r++) {
                                acc[r] = add_block(type, warm_panel_bias(type), quads, &s, acts[r],
                                                   acc[r]);
                                acts[r] = act_next(acts[r]);
                        }
                }
        }
        for (uint32_t r = 0; r < n; r++)
                _mm512_mask_storeu_ps(out + r * ld_out, mask, acc[r]);
}

/* Decoded blocks of one panel: values of biased types as value + 128. */
struct scratch {
        uint8_t values[SCRATCH_BLOCKS][512];
        __m512 steps[SCRATCH_BLOCKS];
        __m512 minus_bases[SCRATCH_BLOCKS];
        __m512 factors[SCRATCH_BLOCKS][2];
};

WARM_INLINE void decode(const struct warm_matrix *m, enum warm_type type, const uint8_t *panel,
                        uint64_t begin, uint64_t end, struct scratch *s) {
        const uint64_t n_parts = type == WARM_TYPE_Q4_K || type == WARM_TYPE_Q5_K ? 8 : 1;
        const int bias = warm_panel_bias(type);

        for (uint64_t block = begin; block < end; block++) {
                uint64_t at = block - begin;
                __m512i quads[8];

                warm_quads_avx512(type, warm_panel_values(m, panel, block), quads);
                for (int g = 0; g < 8; g++) {
                        if (bias != 0 && bias != 128)
                                quads[g] = _mm512_add_epi8(quads[g],
                                                           _mm512_set1_epi8((char) (128 - bias)));
                        _mm512_store_si512(s->values[at] + g * 64, quads[g]);
                }
                if (at % n_parts == 0)
                        read_scales(m, type, panel, block, s->steps + at, s->minus_bases + at);
                if (type == WARM_TYPE_Q6_K)
                        for (uint32_t half = 0; half < 2; half++)
                                s->factors[at][half] = warm_factors_avx512(
                                        warm_panel_scales(m, panel, block), block, half);
        }
}

/*
 * n rows (a constant) of one activation group with the scratch's blocks. The first blocks of a row start at 0,
 * later ones at what out holds.
 */
WARM_INLINE void tile(enum warm_type type, uint32_t n, const struct scratch *s,
                      const struct warm_acts *a, uint32_t row, uint64_t begin, uint64_t end,
                      float *out, uint64_t ld_out, __mmask16 mask) {
        struct act act = act_at(a, row, begin);
        __m512 acc[TILE_ROWS];

        for (uint32_t r = 0; r < n; r++)
                acc[r] = begin == 0 ? _mm512_setzero_ps()
                                    : _mm512_maskz_loadu_ps(mask, out + r * ld_out);
        for (uint64_t at = 0; at < end - begin; at++, act = act_next(act)) {
                const int bias = warm_panel_bias(type) ? 128 : 0;
                struct block_scale scale = { s->steps[at],
                                             s->minus_bases[at],
                                             { s->factors[at][0], s->factors[at][1] } };
                __m512i first[TILE_ROWS], last[TILE_ROWS];

                for (uint32_t r = 0; r < n; r++) {
                        first[r] =
                                start_of_dot(bias, act.offset + r, type == WARM_TYPE_Q6_K ? 0 : 2);
                        last[r] = start_of_dot(bias, act.offset + r, 1);
                }
                for (int g = 0; g < 8; g++) {
                        __m512i quad = _mm512_load_si512(s->values[at] + g * 64);

                        for (uint32_t r = 0; r < n; r++) {
                                __m512i *dot = type == WARM_TYPE_Q6_K && g >= 4 ? last : first;

                                dot[r] = _mm512_dpbusd_epi32(
                                        dot[r], quad, broadcast_quad(act.q + r * a->q_ld + g * 4));
                        }
                }
                for (uint32_t r = 0; r < n; r++) {
                        __m512 dot = _mm512_cvtepi32_ps(first[r]);

                        if (type == WARM_TYPE_Q6_K)
                                dot = _mm512_fmadd_ps(dot, scale.factors[0],
                                                      _mm512_mul_ps(_mm512_cvtepi32_ps(last[r]),
                                                                    scale.factors[1]));
                        acc[r] = _mm512_fmadd_ps(
                                dot, _mm512_mul_ps(scale.step, _mm512_set1_ps(act.scale[r])),
                                acc[r]);
                        if (warm_panel_has_base(type))
                                acc[r] = _mm512_fmadd_ps(scale.minus_base,
                                                         _mm512_set1_ps(act.sum[r]), acc[r]);
                }
        }
        for (uint32_t r = 0; r < n; r++)
                _mm512_mask_storeu_ps(out + r * ld_out, mask, acc[r]);
}

WARM_INLINE void many_rows(const struct warm_matrix *m, enum warm_type type, const uint8_t *panel,
                           const struct warm_acts *a, uint32_t row_begin, uint32_t row_end,
                           float *out, uint64_t ld_out, __mmask16 mask) {
        struct scratch s;

        for (uint64_t begin = 0; begin < m->n_cols / 32; begin += SCRATCH_BLOCKS) {
                uint64_t end = m->n_cols / 32 - begin > SCRATCH_BLOCKS ? begin + SCRATCH_BLOCKS
                                                                       : m->n_cols / 32;

                decode(m, type, panel, begin, end, &s);
                for (uint32_t row = row_begin; row < row_end;) {
                        uint32_t left = row_end - row, here = TILE_ROWS - row % TILE_ROWS;
                        float *to = out + row * ld_out;

                        left = left < here ? left : here;
                        if (left == 8) {
                                tile(type, 8, &s, a, row, begin, end, to, ld_out, mask);
                                row += 8;
                        } else if (left >= 4) {
                                tile(type, 4, &s, a, row, begin, end, to, ld_out, mask);
                                row += 4;
                        } else {
                                tile(type, 1, &s, a, row, begin, end, to, ld_out, mask);
                                row++;
                        }
                }
        }
}

WARM_INLINE void multiply_blocks(const struct warm_matrix *m, enum warm_type type,
                                 const struct warm_acts *a, uint32_t row_begin, uint32_t row_end,
                                 uint64_t col_begin, uint64_t col_end, float *out,
                                 uint64_t ld_out) {
        for (uint64_t col = col_begin; col < col_end; col += WARM_MATRIX_ROWS) {
                const uint8_t *panel = m->data + col / WARM_MATRIX_ROWS * m->panel_bytes;
                float *to = out + row_begin * ld_out + col;
                __mmask16 mask = warm_cols_mask(col_end - col);

                switch (row_end - row_begin) {
                case 1:
                        few_rows(m, type, 1, panel, a, row_begin, to, ld_out, mask);
                        break;
                case 2:
                        few_rows(m, type, 2, panel, a, row_begin, to, ld_out, mask);
                        break;
                case 3:
                        few_rows(m, type, 3, panel, a, row_begin, to, ld_out, mask);
                        break;
                case 4:
                        few_rows(m, type, 4, panel, a, row_begin, to, ld_out, mask);
                        break;
                default:
                        many_rows(m, type, panel, a, row_begin, row_end, out + col, ld_out, mask);
                }
        }
}

WARM_INLINE __m512 float_weights(enum warm_type type, const uint8_t *panel, uint64_t col) {
        const uint8_t *p = panel + col * 16 * (type == WARM_TYPE_F32 ? 4 : 2);

        if (type == WARM_TYPE_F32)
                return _mm512_loadu_ps(p);
        if (type == WARM_TYPE_F16)
                return warm_halves_avx512(p);
        return _mm512_castsi512_ps(_mm512_slli_epi32(
                _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *) p)), 16));
}

/* n_rows rows of n_panels panels (constants), to hide the latency of the one chain that each output is. */
WARM_INLINE void float_tile(const struct warm_matrix *m, enum warm_type type, uint32_t n_rows,
                            uint32_t n_panels, const uint8_t *panel, const float *x, uint64_t ld,
                            float *out, uint64_t ld_out, __mmask16 last_mask) {
        __m512 acc[4][8];

        for (uint32_t p = 0; p < n_panels; p++)
                for (uint32_t r = 0; r < n_rows; r++)
                        acc[p][r] = _mm512_setzero_ps();
        for (uint64_t col = 0; col < m->n_cols; col++)
                for (uint32_t p = 0; p < n_panels; p++) {
                        __m512 w = float_weights(type, panel + p * m->panel_bytes, col);

                        for (uint32_t r = 0; r < n_rows; r++)
                                acc[p][r] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[r * ld + col]),
                                                            acc[p][r]);
                }
        for (uint32_t p = 0; p < n_panels; p++)
                for (uint32_t r = 0; r < n_rows; r++)
                        _mm512_mask_storeu_ps(out + r * ld_out + p * 16,
                                              p + 1 == n_panels ? last_mask : 0xffff, acc[p][r]);
}

WARM_INLINE void multiply_floats(const struct warm_matrix *m, enum warm_type type,
                                 const struct warm_acts *a, uint32_t row_begin, uint32_t row_end,
                                 uint64_t col_begin, uint64_t col_end, float *out,
                                 uint64_t ld_out) {
        uint64_t n;

        for (uint64_t col = col_begin; col < col_end; col += n * 16) {
                const uint8_t *panel = m->data + col / WARM_MATRIX_ROWS * m->panel_bytes;
                uint64_t left = (col_end - col + 15) / 16;
                uint32_t row = row_begin;
                __mmask16 mask;

                n = left >= 4 ? 4 : left >= 2 ? 2 : 1;
                mask = warm_cols_mask(col_end - col - (n - 1) * 16);
                while (row < row_end) {
                        const float *x = a->x + row * a->ld;
                        float *to = out + row * ld_out + col;
                        uint32_t n_rows = row_end - row >= 6 ? 6 : 1;

                        if (n == 4 && n_rows == 6)
                                float_tile(m, type, 6, 4, panel, x, a->ld, to, ld_out, mask);
                        else if (n == 4)
                                float_tile(m, type, 1, 4, panel, x, a->ld, to, ld_out, mask);
                        else if (n == 2 && n_rows == 6)
                                float_tile(m, type, 6, 2, panel, x, a->ld, to, ld_out, mask);
                        else if (n == 2)
                                float_tile(m, type, 1, 2, panel, x, a->ld, to, ld_out, mask);
                        else if (n_rows == 6)
                                float_tile(m, type, 6, 1, panel, x, a->ld, to, ld_out, mask);
                        else
                                float_tile(m, type, 1, 1, panel, x, a->ld, to, ld_out, mask);
                        row += n_rows;
                }
        }
}

#define CASE(part, type)                                                                           \
        case type:                                                                                 \
                multiply_##part(m, type, a, row_begin, row_end, col_begin, col_end, out, ld_out);  \
                break

void warm_multiply_avx512(const struct warm_matrix *m, const struct warm_acts *a,
                          uint32_t row_begin, uint32_t row_end, uint64_t col_begin,
                          uint64_t col_end, float *out, uint64_t ld_out) {
        switch (m->type) {
                CASE(floats, WARM_TYPE_F32);
                CASE(floats, WARM_TYPE_F16);
                CASE(floats, WARM_TYPE_BF16);
                CASE(blocks, WARM_TYPE_Q8_0);
                CASE(blocks, WARM_TYPE_Q4_0);
                CASE(blocks, WARM_TYPE_Q4_1);
                CASE(blocks, WARM_TYPE_Q5_0);
                CASE(blocks, WARM_TYPE_Q5_1);
                CASE(blocks, WARM_TYPE_Q4_K);
                CASE(blocks, WARM_TYPE_Q5_K);
                CASE(blocks, WARM_TYPE_Q6_K);
        case _WARM_TYPE_N:
                assert(!"a type");
        }
}

const struct warm_kernels warm_kernels_avx512 = {
        .isa = WARM_ISA_AVX512,
        .set = warm_acts_set_avx512,
        .multiply = warm_multiply_avx512,
        .rms_norm = warm_rms_norm_avx512,
        .silu_times = warm_silu_times_avx512,
        .add = warm_add_avx512,
        .max = warm_max_avx512,
        .exp_sum = warm_exp_sum_avx512,
};
