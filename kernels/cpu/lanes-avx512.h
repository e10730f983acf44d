/* SPDX-License-Identifier: Apache-2.0 */
/* lanes-plain.h on AVX-512: 16 lanes. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define LANES        16
#define PASS_QUERIES 12
#define PASS_VECTORS 2

typedef __m512 lanes;

static inline lanes lanes_load(const float *p) {
        return _mm512_loadu_ps(p);
}

static inline void lanes_store(float *p, lanes a) {
        _mm512_storeu_ps(p, a);
}

static inline lanes lanes_load_half(const uint16_t *p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}

static inline lanes lanes_load_bf16(const uint16_t *p) {
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *) p));

        return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void lanes_store_half(uint16_t *p, lanes a) {
        _mm256_storeu_si256((__m256i *) p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

static inline void lanes_store_bf16(uint16_t *p, lanes a) {
        __m512i x = _mm512_castps_si512(a);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi32(x, 16), _mm512_set1_epi32(1));

        x = _mm512_add_epi32(x, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        _mm256_storeu_si256((__m256i *) p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16)));
}

static inline lanes lanes_all(float a) {
        return _mm512_set1_ps(a);
}

static inline lanes lanes_add(lanes a, lanes b) {
        return _mm512_add_ps(a, b);
}

static inline lanes lanes_sub(lanes a, lanes b) {
        return _mm512_sub_ps(a, b);
}

static inline lanes lanes_mul(lanes a, lanes b) {
        return _mm512_mul_ps(a, b);
}

static inline lanes lanes_div(lanes a, lanes b) {
        return _mm512_div_ps(a, b);
}

static inline lanes lanes_fma(lanes a, lanes b, lanes c) {
        return _mm512_fmadd_ps(a, b, c);
}

static inline lanes lanes_max(lanes a, lanes b) {
        return _mm512_max_ps(a, b);
}

static inline lanes lanes_min(lanes a, lanes b) {
        return _mm512_min_ps(a, b);
}

static inline lanes lanes_if_less(lanes a, lanes b, lanes value) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), value);
}

static inline lanes lanes_abs(lanes a) {
        return _mm512_abs_ps(a);
}

static inline lanes lanes_scale(lanes p, lanes n) {
        __m512i e = _mm512_slli_epi32(_mm512_castps_si512(n), 23);

        return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), e));
}

static inline float lanes_sum(lanes a) {
        __m256 y = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        __m128 x = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));

        x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

static inline float lanes_most(lanes a) {
        __m256 y = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        __m128 x = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));

        x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
