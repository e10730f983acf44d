/* SPDX-License-Identifier: Apache-2.0 */
/* lanes-plain.h on AVX2 with FMA and F16C: 8 lanes. */
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define LANES        8
#define PASS_QUERIES 6
#define PASS_VECTORS 2

typedef __m256 lanes;

static inline lanes lanes_load(const float *p) {
        return _mm256_loadu_ps(p);
}

static inline void lanes_store(float *p, lanes a) {
        _mm256_storeu_ps(p, a);
}

static inline lanes lanes_load_half(const uint16_t *p) {
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
}

static inline lanes lanes_load_bf16(const uint16_t *p) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *) p));

        return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline void lanes_store_half(uint16_t *p, lanes a) {
        _mm_storeu_si128((__m128i *) p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

static inline void lanes_store_bf16(uint16_t *p, lanes a) {
        __m256i x = _mm256_castps_si256(a);
        __m256i odd = _mm256_and_si256(_mm256_srli_epi32(x, 16), _mm256_set1_epi32(1));

        x = _mm256_add_epi32(x, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        x = _mm256_srli_epi32(x, 16);
        x = _mm256_permute4x64_epi64(_mm256_packus_epi32(x, x), 0x08);
        _mm_storeu_si128((__m128i *) p, _mm256_castsi256_si128(x));
}

static inline lanes lanes_all(float a) {
        return _mm256_set1_ps(a);
}

static inline lanes lanes_add(lanes a, lanes b) {
        return _mm256_add_ps(a, b);
}

static inline lanes lanes_sub(lanes a, lanes b) {
        return _mm256_sub_ps(a, b);
}

static inline lanes lanes_mul(lanes a, lanes b) {
        return _mm256_mul_ps(a, b);
}

static inline lanes lanes_div(lanes a, lanes b) {
        return _mm256_div_ps(a, b);
}

static inline lanes lanes_fma(lanes a, lanes b, lanes c) {
        return _mm256_fmadd_ps(a, b, c);
}

static inline lanes lanes_max(lanes a, lanes b) {
        return _mm256_max_ps(a, b);
}

static inline lanes lanes_min(lanes a, lanes b) {
        return _mm256_min_ps(a, b);
}

static inline lanes lanes_if_less(lanes a, lanes b, lanes value) {
        return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ), value);
}

static inline lanes lanes_abs(lanes a) {
        return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a);
}

static inline lanes lanes_scale(lanes p, lanes n) {
        __m256i e = _mm256_slli_epi32(_mm256_castps_si256(n), 23);

        return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
}

static inline float lanes_sum(lanes a) {
        __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

        x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

static inline float lanes_most(lanes a) {
        __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

        x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
