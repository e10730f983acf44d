/* SPDX-License-Identifier: Apache-2.0 */
/* expf.h for 16 lanes: the same bits. Include only where AVX-512 is the build's own. */
#pragma once

#include <immintrin.h>

#include "../expf.h"

static inline __m512 warm_expf_avx512(__m512 x) {
        const __m512 magic = _mm512_set1_ps(WARM_EXP_MAGIC);
        const __m512 one = _mm512_set1_ps(1);
        __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
        __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(WARM_EXP_MAX), _CMP_GT_OQ);
        __mmask16 not_below = _mm512_cmp_ps_mask(x, _mm512_set1_ps(WARM_EXP_MIN), _CMP_GE_OQ);
        __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(WARM_EXP_LOG2E), magic);
        __m512 n = _mm512_sub_ps(t, magic);
        __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-WARM_EXP_LN2_HIGH), x);
        __m512 p;

        r = _mm512_fmadd_ps(n, _mm512_set1_ps(-WARM_EXP_LN2_LOW), r);
        p = _mm512_fmadd_ps(_mm512_set1_ps(WARM_EXP_C6), r, _mm512_set1_ps(WARM_EXP_C5));
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(WARM_EXP_C4));
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(WARM_EXP_C3));
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(WARM_EXP_C2));
        p = _mm512_fmadd_ps(p, r, one);
        p = _mm512_fmadd_ps(p, r, one);
        p = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p),
                                                 _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
        p = _mm512_maskz_mov_ps(not_below, p);
        p = _mm512_mask_mov_ps(p, above, _mm512_set1_ps(INFINITY));
        return _mm512_mask_mov_ps(p, is_nan, x);
}
