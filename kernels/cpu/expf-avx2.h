/* SPDX-License-Identifier: Apache-2.0 */
/* expf.h for 8 lanes: the same bits. Include only where AVX2 and FMA are the build's own. */
#pragma once

#include <immintrin.h>

#include "../expf.h"

static inline __m256 warm_expf_avx2(__m256 x) {
        const __m256 magic = _mm256_set1_ps(WARM_EXP_MAGIC);
        const __m256 one = _mm256_set1_ps(1);
        __m256 is_nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
        __m256 above = _mm256_cmp_ps(x, _mm256_set1_ps(WARM_EXP_MAX), _CMP_GT_OQ);
        __m256 not_below = _mm256_cmp_ps(x, _mm256_set1_ps(WARM_EXP_MIN), _CMP_GE_OQ);
        __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(WARM_EXP_LOG2E), magic);
        __m256 n = _mm256_sub_ps(t, magic);
        __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-WARM_EXP_LN2_HIGH), x);
        __m256 p;

        r = _mm256_fmadd_ps(n, _mm256_set1_ps(-WARM_EXP_LN2_LOW), r);
        p = _mm256_fmadd_ps(_mm256_set1_ps(WARM_EXP_C6), r, _mm256_set1_ps(WARM_EXP_C5));
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(WARM_EXP_C4));
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(WARM_EXP_C3));
        p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(WARM_EXP_C2));
        p = _mm256_fmadd_ps(p, r, one);
        p = _mm256_fmadd_ps(p, r, one);
        p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p),
                                                 _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
        p = _mm256_and_ps(p, not_below);
        p = _mm256_blendv_ps(p, _mm256_set1_ps(INFINITY), above);
        return _mm256_blendv_ps(p, x, is_nan);
}
