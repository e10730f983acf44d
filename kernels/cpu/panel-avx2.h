/* SPDX-License-Identifier: Apache-2.0 */
/* Reading panels (panel.h) with AVX2: half a quad, 8 rows, a vector. Include only where AVX2 is the build's own. */
#pragma once

#include <immintrin.h>

#include "narrow.h"

WARM_INLINE __m256i warm_load_avx2(const uint8_t *p) {
        return _mm256_loadu_si256((const __m256i *) p);
}

/* Rows 8 half .. 8 half + 7 of quad g as stored: unsigned, value + warm_panel_bias(). type, g: constants. */
WARM_INLINE __m256i warm_quad_avx2(enum warm_type type, const uint8_t *values, int g, int half) {
        const uint8_t *p = values + half * 32;
        __m256i v, h;

        if (type == WARM_TYPE_Q8_0)
                return warm_load_avx2(p + g * 64);
        v = warm_load_avx2(p + g % 4 * 64);
        v = _mm256_and_si256(g < 4 ? v : _mm256_srli_epi16(v, 4), _mm256_set1_epi8(15));
        if (warm_panel_value_bytes(type) == 320) {
                h = warm_load_avx2(p + 256);
                h = g < 4 ? _mm256_slli_epi16(h, (4 - g) & 7) : _mm256_srli_epi16(h, (g - 4) & 7);
                v = _mm256_or_si256(v, _mm256_and_si256(h, _mm256_set1_epi8(0x10)));
        }
        if (type == WARM_TYPE_Q6_K) {
                h = warm_load_avx2(p + 256 + g / 4 * 64);
                h = g % 4 < 2 ? _mm256_slli_epi16(h, g % 4 ? 2 : 4)
                              : _mm256_srli_epi16(h, g % 4 == 2 ? 0 : 2);
                v = _mm256_or_si256(v, _mm256_and_si256(h, _mm256_set1_epi8(0x30)));
        }
        return v;
}

WARM_INLINE __m256 warm_halves_avx2(const uint8_t *p) {
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
}

/* The 6-bit scales (which 0) or mins (1) of group g of Q4_K and Q5_K, of 8 rows. */
WARM_INLINE __m256 warm_6bit_avx2(const uint8_t *scales, int g, int which, int half) {
        const uint8_t *p = scales + 64 + which * 16 + half * 8;
        __m128i low =
                _mm_srli_epi16(_mm_loadl_epi64((const __m128i *) (p + g % 4 * 32)), g / 4 * 4);
        __m128i high = _mm_srli_epi16(_mm_loadl_epi64((const __m128i *) (p + 128 + g / 4 * 32)),
                                      g % 4 * 2);
        __m128i v = _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)),
                                 _mm_slli_epi16(_mm_and_si128(high, _mm_set1_epi8(3)), 4));

        return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v));
}
