/* SPDX-License-Identifier: Apache-2.0 */
/* rows.h and the quantization of activations for AVX-512: one vector is the 16 lanes. */
#include "expf-avx512.h"
#include "panel.h"
#include "rows-avx512.h"

/* Lanes of the last, partial vector. */
static inline __mmask16 tail_mask(uint64_t n) {
        return (__mmask16) ((1U << n % 16) - 1);
}

static float sum_of_lanes(__m512 v) {
        __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        __m128 x = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));

        x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        x = _mm_add_ss(x, _mm_movehdup_ps(x));
        return _mm_cvtss_f32(x);
}

void warm_rms_norm_avx512(const float *x, const float *weight, float epsilon, float *out,
                          uint64_t n) {
        __mmask16 tail = tail_mask(n);
        __m512 sum = _mm512_setzero_ps(), v, factor;
        uint64_t i;

        for (i = 0; i + 16 <= n; i += 16) {
                v = _mm512_loadu_ps(x + i);
                sum = _mm512_fmadd_ps(v, v, sum);
        }
        v = _mm512_maskz_loadu_ps(tail, x + i);
        sum = _mm512_fmadd_ps(v, v, sum);
        factor = _mm512_set1_ps(1.0F / __builtin_sqrtf(sum_of_lanes(sum) / (float) n + epsilon));
        for (i = 0; i + 16 <= n; i += 16)
                _mm512_storeu_ps(out + i,
                                 _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), factor),
                                               _mm512_loadu_ps(weight + i)));
        v = _mm512_mul_ps(_mm512_maskz_loadu_ps(tail, x + i), factor);
        _mm512_mask_storeu_ps(out + i, tail,
                              _mm512_mul_ps(v, _mm512_maskz_loadu_ps(tail, weight + i)));
}

static inline __m512 silu_times(__m512 gate, __m512 up) {
        __m512 minus = _mm512_castsi512_ps(
                _mm512_xor_si512(_mm512_castps_si512(gate), _mm512_set1_epi32(INT32_MIN)));
        __m512 under = _mm512_add_ps(_mm512_set1_ps(1), warm_expf_avx512(minus));

        return _mm512_mul_ps(_mm512_div_ps(gate, under), up);
}

void warm_silu_times_avx512(const float *gate, const float *up, float *out, uint64_t n) {
        __mmask16 tail = tail_mask(n);
        uint64_t i;

        for (i = 0; i + 16 <= n; i += 16)
                _mm512_storeu_ps(out + i,
                                 silu_times(_mm512_loadu_ps(gate + i), _mm512_loadu_ps(up + i)));
        _mm512_mask_storeu_ps(out + i, tail,
                              silu_times(_mm512_maskz_loadu_ps(tail, gate + i),
                                         _mm512_maskz_loadu_ps(tail, up + i)));
}

void warm_add_avx512(const float *x, const float *y, float *out, uint64_t n) {
        __mmask16 tail = tail_mask(n);
        uint64_t i;

        for (i = 0; i + 16 <= n; i += 16)
                _mm512_storeu_ps(out + i,
                                 _mm512_add_ps(_mm512_loadu_ps(x + i), _mm512_loadu_ps(y + i)));
        _mm512_mask_storeu_ps(out + i, tail,
                              _mm512_add_ps(_mm512_maskz_loadu_ps(tail, x + i),
                                            _mm512_maskz_loadu_ps(tail, y + i)));
}

float warm_max_avx512(const float *x, uint64_t n) {
        __m512 most = _mm512_set1_ps(-INFINITY);
        uint64_t i;

        for (i = 0; i + 16 <= n; i += 16)
                most = _mm512_max_ps(most, _mm512_loadu_ps(x + i));
        most = _mm512_mask_max_ps(most, tail_mask(n), most,
                                  _mm512_maskz_loadu_ps(tail_mask(n), x + i));
        return _mm512_reduce_max_ps(most) + 0.0F;
}

float warm_exp_sum_avx512(const float *x, float shift, float *out, uint64_t n) {
        const __m512 by = _mm512_set1_ps(shift);
        __mmask16 tail = tail_mask(n);
        __m512 sum = _mm512_setzero_ps(), v;
        uint64_t i;

        for (i = 0; i + 16 <= n; i += 16) {
                v = warm_expf_avx512(_mm512_sub_ps(_mm512_loadu_ps(x + i), by));
                _mm512_storeu_ps(out + i, v);
                sum = _mm512_add_ps(sum, v);
        }
        v = warm_expf_avx512(_mm512_sub_ps(_mm512_maskz_loadu_ps(tail, x + i), by));
        _mm512_mask_storeu_ps(out + i, tail, v);
        return sum_of_lanes(_mm512_mask_add_ps(sum, tail, sum, v));
}

static void set_block(struct warm_acts *a, const float *x, int8_t *q, uint64_t at) {
        const __m512i size_bits = _mm512_set1_epi32(INT32_MAX);
        __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
        uint32_t most = _mm512_reduce_max_epu32(
                _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(x0), size_bits),
                                 _mm512_and_si512(_mm512_castps_si512(x1), size_bits)));
        uint64_t at_offset = at / 16 * 32 + at % 16;
        float largest, scale, inverse;
        int32_t first, second;
        __m512i q0, q1;

        memcpy(&largest, &most, sizeof(largest));
        scale = largest / 127.0F;
        inverse = 127.0F / largest;
        if (most >= 0x7f800000U || largest < 0x1p-100F) {
                scale = most >= 0x7f800000U ? NAN : 0;
                inverse = 0;
                x0 = x1 = _mm512_setzero_ps();
        }
        q0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, _mm512_set1_ps(inverse)));
        q1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, _mm512_set1_ps(inverse)));
        _mm_storeu_si128((__m128i *) q, _mm512_cvtepi32_epi8(q0));
        _mm_storeu_si128((__m128i *) (q + 16), _mm512_cvtepi32_epi8(q1));
        first = _mm512_reduce_add_epi32(q0);
        second = _mm512_reduce_add_epi32(q1);
        a->scales[at] = scale;
        a->sums[at] = scale * (float) (first + second);
        a->offsets[at_offset] = -128 * (first + second);
        a->offsets[at_offset + 16] = -128 * first;
}

void warm_acts_set_avx512(struct warm_acts *a, uint32_t row_begin, uint32_t row_end) {
        for (uint32_t row = row_begin; row < row_end; row++)
                for (uint64_t block = 0; block < a->n_cols / 32; block++)
                        set_block(a, a->x + row * a->ld + block * 32,
                                  a->q + row * a->q_ld + block * 32, warm_acts_at(a, row, block));
}
