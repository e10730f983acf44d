/* SPDX-License-Identifier: Apache-2.0 */
/* Reading panels (panel.h) with AVX-512. Include only where AVX-512 is the build's own. */
#pragma once

#include <immintrin.h>

#include "panel.h"

#define WARM_INLINE static inline __attribute__((always_inline))

WARM_INLINE int warm_is_k_type(enum warm_type type) {
        return type == WARM_TYPE_Q4_K || type == WARM_TYPE_Q5_K || type == WARM_TYPE_Q6_K;
}

/* The 8 quads of 32 columns as stored: unsigned, value + warm_panel_bias(). type is a constant at each use. */
WARM_INLINE void warm_quads_avx512(enum warm_type type, const uint8_t *values, __m512i *ret_quads) {
        const __m512i low = _mm512_set1_epi8(15);
        const __m512i bit_4 = _mm512_set1_epi8(0x10), bits_45 = _mm512_set1_epi8(0x30);
        enum { a_or_b_and_c = 0xf8 }; /* an immediate: clang wants a constant expression */
        __m512i h;

        if (type == WARM_TYPE_Q8_0) {
                for (int g = 0; g < 8; g++)
                        ret_quads[g] = _mm512_loadu_si512(values + g * 64);
                return;
        }
        for (int g = 0; g < 4; g++) {
                __m512i v = _mm512_loadu_si512(values + g * 64);

                ret_quads[g] = _mm512_and_si512(v, low);
                ret_quads[g + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
        }
        if (warm_panel_value_bytes(type) == 320) {
                h = _mm512_loadu_si512(values + 256);
                for (int g = 0; g < 8; g++)
                        ret_quads[g] = _mm512_ternarylogic_epi32(
                                ret_quads[g],
                                g < 4 ? _mm512_slli_epi16(h, (unsigned int) (4 - g) & 7)
                                      : _mm512_srli_epi16(h, (unsigned int) (g - 4) & 7),
                                bit_4, a_or_b_and_c);
        }
        if (type == WARM_TYPE_Q6_K)
                for (int u = 0; u < 2; u++) {
                        __m512i *q = ret_quads + u * 4;

                        h = _mm512_loadu_si512(values + 256 + u * 64);
                        q[0] = _mm512_ternarylogic_epi32(q[0], _mm512_slli_epi16(h, 4), bits_45,
                                                         a_or_b_and_c);
                        q[1] = _mm512_ternarylogic_epi32(q[1], _mm512_slli_epi16(h, 2), bits_45,
                                                         a_or_b_and_c);
                        q[2] = _mm512_ternarylogic_epi32(q[2], h, bits_45, a_or_b_and_c);
                        q[3] = _mm512_ternarylogic_epi32(q[3], _mm512_srli_epi16(h, 2), bits_45,
                                                         a_or_b_and_c);
                }
}

WARM_INLINE __m512 warm_halves_avx512(const uint8_t *p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}

/* Steps and minus the bases of the 8 groups of a Q4_K or Q5_K block. */
WARM_INLINE void warm_scales_q45_k_avx512(const uint8_t *scales, __m512 *ret_steps,
                                          __m512 *ret_minus_bases) {
        const __m256i low = _mm256_set1_epi8(15), bits_45 = _mm256_set1_epi8(0x30);
        __m512 d = warm_halves_avx512(scales), minus_dmin;

        minus_dmin = _mm512_castsi512_ps(
                _mm512_xor_si512(_mm512_castps_si512(warm_halves_avx512(scales + 32)),
                                 _mm512_set1_epi32(INT32_MIN)));

        for (int g = 0; g < 8; g++) {
                __m256i v = _mm256_loadu_si256((const __m256i *) (scales + 64 + g % 4 * 32));
                __m256i h = _mm256_loadu_si256((const __m256i *) (scales + 192 + g / 4 * 32));

                v = _mm256_and_si256(g < 4 ? v : _mm256_srli_epi16(v, 4), low);
                h = g % 4 < 2 ? _mm256_slli_epi16(h, g % 4 ? 2 : 4)
                              : _mm256_srli_epi16(h, g % 4 == 2 ? 0 : 2);
                v = _mm256_or_si256(v, _mm256_and_si256(h, bits_45));
                ret_steps[g] = _mm512_mul_ps(
                        d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(v))));
                ret_minus_bases[g] = _mm512_mul_ps(
                        minus_dmin,
                        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(v, 1))));
        }
}

/* Factors of the first (half 0) or last 16 columns of a block of Q6_K. */
WARM_INLINE __m512 warm_factors_avx512(const uint8_t *scales, uint64_t block, uint32_t half) {
        const uint8_t *p = scales + 32 + block % 8 * 32 + half * 16;

        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p)));
}

WARM_INLINE __mmask16 warm_cols_mask(uint64_t n_cols) {
        return n_cols >= 16 ? 0xffff : (__mmask16) ((1U << n_cols) - 1);
}
