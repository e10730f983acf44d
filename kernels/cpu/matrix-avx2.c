/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with AVX2. A vector holds 8 of a panel's 16 outputs. vpmaddubsw adds two products of an unsigned and a
 * signed byte in 16 bits and saturates; so that it never does, Q8_0 gives it |w| and a with w's sign (at most
 * 2 * 128 * 127), and the sums of unsigned values of 4, 5 and 6 bits are widened after 8, 4 and 2 of them.
 *
 * Few rows: the weights are read once and decoded in registers, a block's scales beside them. Many rows: by way of
 * the scratch of narrow.h. Both add in the same order.
 */
#define WARM_FEW_ROWS 4U
#include "panel-avx2.h"
#include "rows-avx2.h"

#define AHEAD 8192 /* bytes to fetch ahead; as measured for AVX-512 */

WARM_INLINE void decode(const struct warm_matrix *m, enum warm_type type, const uint8_t *panel,
                        uint64_t begin, uint64_t end, struct warm_scratch *s) {
        const int is_q45_k = type == WARM_TYPE_Q4_K || type == WARM_TYPE_Q5_K;

        for (uint64_t block = begin; block < end; block++) {
                const uint8_t *values = warm_panel_values(m, panel, block);
                const uint8_t *scales = warm_panel_scales(m, panel, block);
                uint64_t at = block - begin;
                int group = (int) (block % 8);

                for (uint64_t i = 0; i < warm_panel_value_bytes(type); i += 64)
                        _mm_prefetch((const char *) values + AHEAD + i, _MM_HINT_T0);
                for (int half = 0; half < 2; half++) {
                        __m256 step = warm_halves_avx2(scales + half * 16), base;

                        for (int g = 0; g < 8; g++) {
                                __m256i v = warm_quad_avx2(type, values, g, half);

                                if (type == WARM_TYPE_Q8_0)
                                        v = _mm256_xor_si256(v, _mm256_set1_epi8(-128));
                                _mm256_store_si256((__m256i *) (s->values[at] + g * 64 + half * 32),
                                                   v);
                        }
                        if (warm_panel_has_base(type)) {
                                base = warm_halves_avx2(scales + 32 + half * 16);
                                if (is_q45_k) {
                                        step = _mm256_mul_ps(
                                                step, warm_6bit_avx2(scales, group, 0, half));
                                        base = _mm256_mul_ps(
                                                base, warm_6bit_avx2(scales, group, 1, half));
                                        base = _mm256_xor_ps(base, _mm256_set1_ps(-0.0F));
                                }
                                _mm256_store_ps(s->minus_bases[at] + half * 8, base);
                        }
                        _mm256_store_ps(s->steps[at] + half * 8, step);
                        for (int i = 0; i < 2 && type == WARM_TYPE_Q6_K; i++) {
                                const uint8_t *p = scales + 32 + group * 32 + i * 16 + half * 8;
                                __m256i f =
                                        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p));

                                _mm256_store_ps(s->factors[at][i] + half * 8,
                                                _mm256_cvtepi32_ps(f));
                        }
                }
        }
}

/* Lanes of the outputs [8 half, n_cols). */
WARM_INLINE __m256i half_mask(uint32_t n_cols, int half) {
        __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

        return _mm256_cmpgt_epi32(_mm256_set1_epi32((int) n_cols - half * 8), lane);
}

WARM_INLINE __m256i broadcast_quad(const int8_t *q) {
        int32_t v;

        memcpy(&v, q, sizeof(v));
        return _mm256_set1_epi32(v);
}

/* How many sums of two products fit 16 bits; 4-bit values: 8 * 2 * 15 * 127. */
WARM_INLINE int narrow_sums(enum warm_type type) {
        return type == WARM_TYPE_Q8_0               ? 1
               : type == WARM_TYPE_Q6_K             ? 2
               : warm_panel_value_bytes(type) > 256 ? 4
                                                    : 8;
}

/* Products of n quads (a constant) with as many of one row's activations, on top of dot. */
WARM_INLINE __m256i dot_quads(enum warm_type type, const __m256i *quads, int n, const int8_t *q,
                              __m256i dot) {
        const __m256i ones = _mm256_set1_epi16(1);
        __m256i narrow = _mm256_setzero_si256();

        for (int g = 0; g < n; g++) {
                __m256i x = broadcast_quad(q + g * 4), two;

                if (type == WARM_TYPE_Q8_0)
                        two = _mm256_maddubs_epi16(_mm256_abs_epi8(quads[g]),
                                                   _mm256_sign_epi8(x, quads[g]));
                else
                        two = _mm256_maddubs_epi16(quads[g], x);
                narrow = g % narrow_sums(type) == 0 ? two : _mm256_add_epi16(narrow, two);
                if ((g + 1) % narrow_sums(type) == 0 || g + 1 == n)
                        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(narrow, ones));
        }
        return dot;
}

/* -bias times the sum of the first (0), last (1) or all (2) activations of a block. */
WARM_INLINE __m256i start_of_dot(enum warm_type type, const int32_t *offset, int part) {
        const int bias = type == WARM_TYPE_Q8_0 ? 0 : warm_panel_bias(type);
        int32_t start = part == 2 ? offset[0] : part == 0 ? offset[16] : offset[0] - offset[16];

        return _mm256_set1_epi32(bias ? start / (128 / bias) : 0);
}

/* Of n quads of half a panel in the scratch. */
WARM_INLINE __m256i dot_stored(enum warm_type type, const uint8_t *values, int n, const int8_t *q,
                               __m256i dot) {
        __m256i quads[8];

        for (int g = 0; g < n; g++)
                quads[g] = _mm256_load_si256((const __m256i *) (values + g * 64));
        return dot_quads(type, quads, n, q, dot);
}

WARM_INLINE void tile(enum warm_type type, uint32_t n, const struct warm_scratch *s,
                      const struct warm_acts *a, uint32_t row, uint64_t begin, uint64_t end,
                      float *out, uint64_t ld_out, uint32_t n_cols) {
        for (int half = 0; half < 2; half++) {
                __m256i mask = half_mask(n_cols, half);
                __m256 acc[WARM_TILE_ROWS];

                for (uint32_t r = 0; r < n; r++)
                        acc[r] = begin == 0 ? _mm256_setzero_ps()
                                            : _mm256_maskload_ps(out + r * ld_out + half * 8, mask);
                for (uint64_t at = 0; at < end - begin; at++) {
                        const uint8_t *values = s->values[at] + half * 32;
                        __m256 step = _mm256_load_ps(s->steps[at] + half * 8);

                        for (uint32_t r = 0; r < n; r++) {
                                const int8_t *q = a->q + (row + r) * a->q_ld + (begin + at) * 32;
                                uint64_t i = warm_acts_at(a, row + r, begin + at);
                                const int32_t *offset = a->offsets + i / 16 * 32 + i % 16;
                                __m256i first, last;
                                __m256 dot;

                                first = start_of_dot(type, offset, type == WARM_TYPE_Q6_K ? 0 : 2);
                                last = start_of_dot(type, offset, 1);
                                if (type == WARM_TYPE_Q6_K) {
                                        first = dot_stored(type, values, 4, q, first);
                                        last = dot_stored(type, values + 256, 4, q + 16, last);
                                        dot = _mm256_mul_ps(
                                                _mm256_cvtepi32_ps(last),
                                                _mm256_load_ps(s->factors[at][1] + half * 8));
                                        dot = _mm256_fmadd_ps(
                                                _mm256_cvtepi32_ps(first),
                                                _mm256_load_ps(s->factors[at][0] + half * 8), dot);
                                } else {
                                        first = dot_stored(type, values, 8, q, first);
                                        dot = _mm256_cvtepi32_ps(first);
                                }
                                acc[r] = _mm256_fmadd_ps(
                                        dot, _mm256_mul_ps(step, _mm256_set1_ps(a->scales[i])),
                                        acc[r]);
                                if (warm_panel_has_base(type))
                                        acc[r] = _mm256_fmadd_ps(
                                                _mm256_load_ps(s->minus_bases[at] + half * 8),
                                                _mm256_set1_ps(a->sums[i]), acc[r]);
                        }
                }
                for (uint32_t r = 0; r < n; r++)
                        _mm256_maskstore_ps(out + r * ld_out + half * 8, mask, acc[r]);
        }
}

/* Scales of half a panel in one block. */
struct block_scale {
        __m256 step, minus_base, factors[2];
};

/* One block's products with one row's activations, on top of acc. */
WARM_INLINE __m256 add_block(enum warm_type type, const __m256i *quads, const struct block_scale *s,
                             const struct warm_acts *a, uint32_t row, uint64_t block, __m256 acc) {
        const int8_t *q = a->q + row * a->q_ld + block * 32;
        uint64_t i = warm_acts_at(a, row, block);
        const int32_t *offset = a->offsets + i / 16 * 32 + i % 16;
        __m256 dot;

        if (type == WARM_TYPE_Q6_K) {
                __m256i first = dot_quads(type, quads, 4, q, start_of_dot(type, offset, 0));
                __m256i last = dot_quads(type, quads + 4, 4, q + 16, start_of_dot(type, offset, 1));

                dot = _mm256_mul_ps(_mm256_cvtepi32_ps(last), s->factors[1]);
                dot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(first), s->factors[0], dot);
        } else {
                dot = _mm256_cvtepi32_ps(
                        dot_quads(type, quads, 8, q, start_of_dot(type, offset, 2)));
        }
        acc = _mm256_fmadd_ps(dot, _mm256_mul_ps(s->step, _mm256_set1_ps(a->scales[i])), acc);
        if (warm_panel_has_base(type))
                acc = _mm256_fmadd_ps(s->minus_base, _mm256_set1_ps(a->sums[i]), acc);
        return acc;
}

/* The scales of 8 blocks of Q4_K or Q5_K: [half][block]. */
WARM_INLINE void read_scales_q45_k(const uint8_t *scales, struct block_scale (*ret)[8]) {
        const __m256i low = _mm256_set1_epi8(15), bits_45 = _mm256_set1_epi8(0x30);
        uint8_t six[32] __attribute__((aligned(32))); /* scale[16], min[16] */
        __m256 steps[2], minus_bases[2];

        for (int half = 0; half < 2; half++) {
                steps[half] = warm_halves_avx2(scales + half * 16);
                minus_bases[half] = _mm256_xor_ps(warm_halves_avx2(scales + 32 + half * 16),
                                                  _mm256_set1_ps(-0.0F));
        }
        for (int g = 0; g < 8; g++) {
                __m256i v = warm_load_avx2(scales + 64 + g % 4 * 32);
                __m256i h = warm_load_avx2(scales + 192 + g / 4 * 32);

                v = _mm256_and_si256(g < 4 ? v : _mm256_srli_epi16(v, 4), low);
                h = g % 4 < 2 ? _mm256_slli_epi16(h, g % 4 ? 2 : 4)
                              : _mm256_srli_epi16(h, g % 4 == 2 ? 0 : 2);
                v = _mm256_or_si256(v, _mm256_and_si256(h, bits_45));
                _mm256_store_si256((__m256i *) six, v);
                for (int half = 0; half < 2; half++) {
                        const __m128i *p = (const __m128i *) (six + half * 8);

                        ret[half][g].step = _mm256_mul_ps(
                                steps[half],
                                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p))));
                        ret[half][g].minus_base = _mm256_mul_ps(
                                minus_bases[half],
                                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p + 1))));
                }
        }
}

/* The scales of the n_parts blocks that have theirs together: [half][block]. */
WARM_INLINE void read_scales(const struct warm_matrix *m, enum warm_type type, const uint8_t *panel,
                             uint64_t block, int n_parts, struct block_scale (*ret)[8]) {
        const uint8_t *scales = warm_panel_scales(m, panel, block);

        if (type == WARM_TYPE_Q4_K || type == WARM_TYPE_Q5_K) {
                read_scales_q45_k(scales, ret);
                return;
        }
        for (int half = 0; half < 2; half++)
                for (int part = 0; part < n_parts; part++) {
                        ret[half][part].step = warm_halves_avx2(scales + half * 16);
                        if (warm_panel_has_base(type))
                                ret[half][part].minus_base =
                                        warm_halves_avx2(scales + 32 + half * 16);
                        for (int i = 0; i < 2 && type == WARM_TYPE_Q6_K; i++) {
                                const uint8_t *p = scales + 32 + part * 32 + i * 16 + half * 8;

                                ret[half][part].factors[i] = _mm256_cvtepi32_ps(
                                        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p)));
                        }
                }
}

/*
 * What comes AHEAD bytes later, in this panel or the next ones: the processor's own prefetch stops at the end of a
 * page. May point behind the matrix; a prefetch never faults.
 */
WARM_INLINE void fetch_ahead(const uint8_t *p, uint64_t bytes) {
        for (uint64_t i = 0; i < bytes; i += 64)
                _mm_prefetch((const char *) p + AHEAD + i, _MM_HINT_T0);
}

WARM_INLINE void few(const struct warm_matrix *m, enum warm_type type, uint32_t n,
                     const uint8_t *panel, const struct warm_acts *a, uint32_t row, float *out,
                     uint64_t ld_out, uint32_t n_cols) {
        const int n_parts =
                type == WARM_TYPE_Q4_K || type == WARM_TYPE_Q5_K || type == WARM_TYPE_Q6_K ? 8 : 1;
        struct block_scale scales[2][8];
        __m256 acc[2][WARM_FEW_ROWS];

        for (uint32_t r = 0; r < n; r++)
                acc[0][r] = acc[1][r] = _mm256_setzero_ps();
        for (uint64_t block = 0; block < m->n_cols / 32; block += (uint64_t) n_parts) {
                read_scales(m, type, panel, block, n_parts, scales);
                fetch_ahead(warm_panel_scales(m, panel, block), n_parts == 8 ? 256 : 64);
                for (int part = 0; part < n_parts; part++) {
                        const uint8_t *values =
                                warm_panel_values(m, panel, block + (uint64_t) part);

                        fetch_ahead(values, warm_panel_value_bytes(type));
                        for (int half = 0; half < 2; half++) {
                                __m256i quads[8];

                                for (int g = 0; g < 8; g++) {
                                        quads[g] = warm_quad_avx2(type, values, g, half);
                                        if (type == WARM_TYPE_Q8_0)
                                                quads[g] = _mm256_xor_si256(quads[g],
                                                                            _mm256_set1_epi8(-128));
                                }
                                for (uint32_t r = 0; r < n; r++)
                                        acc[half][r] = add_block(
                                                type, quads, &scales[half][part], a, row + r,
                                                block + (uint64_t) part, acc[half][r]);
                        }
                }
        }
        for (uint32_t r = 0; r < n; r++)
                for (int half = 0; half < 2; half++)
                        _mm256_maskstore_ps(out + r * ld_out + half * 8, half_mask(n_cols, half),
                                            acc[half][r]);
}

WARM_INLINE __m256 float_weights(enum warm_type type, const uint8_t *p) {
        if (type == WARM_TYPE_F32)
                return _mm256_loadu_ps((const float *) (const void *) p);
        if (type == WARM_TYPE_F16)
                return warm_halves_avx2(p);
        return _mm256_castsi256_ps(
                _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *) p)), 16));
}

WARM_INLINE void floats(const struct warm_matrix *m, enum warm_type type, uint32_t n,
                        const uint8_t *panel, const float *x, uint64_t ld, float *out,
                        uint64_t ld_out, uint32_t n_cols) {
        const uint32_t bytes = type == WARM_TYPE_F32 ? 4 : 2;
        __m256 acc[2][WARM_TILE_ROWS];

        for (uint32_t r = 0; r < n; r++)
                acc[0][r] = acc[1][r] = _mm256_setzero_ps();
        for (uint64_t col = 0; col < m->n_cols; col++)
                for (uint32_t half = 0; half < 2; half++) {
                        __m256 w = float_weights(type, panel + (col * 16 + half * 8) * bytes);

                        for (uint32_t r = 0; r < n; r++)
                                acc[half][r] = _mm256_fmadd_ps(w, _mm256_set1_ps(x[r * ld + col]),
                                                               acc[half][r]);
                }
        for (uint32_t r = 0; r < n; r++)
                for (int half = 0; half < 2; half++)
                        _mm256_maskstore_ps(out + r * ld_out + half * 8, half_mask(n_cols, half),
                                            acc[half][r]);
}

const struct warm_kernels warm_kernels_avx2 = {
        .isa = WARM_ISA_AVX2,
        .set = warm_acts_set_avx2,
        .multiply = multiply,
        .rms_norm = warm_rms_norm_avx2,
        .silu_times = warm_silu_times_avx2,
        .add = warm_add_avx2,
        .max = warm_max_avx2,
        .exp_sum = warm_exp_sum_avx2,
};
