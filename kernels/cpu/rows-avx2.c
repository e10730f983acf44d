/* SPDX-License-Identifier: Apache-2.0 */
/* rows.h and the quantization of activations for AVX2: two vectors are the 16 lanes. */
#include "expf-avx2.h"
#include "panel.h"
#include "rows-avx2.h"

/* Lanes below n. */
static inline __m256i mask_of(uint64_t n) {
        __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

        return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int) n : 8), lane);
}

static inline __m256 load(const float *x, uint64_t n) {
        return _mm256_maskload_ps(x, mask_of(n));
}

static inline void store(float *x, uint64_t n, __m256 v) {
        _mm256_maskstore_ps(x, mask_of(n), v);
}

static float sum_of_lanes(const __m256 *v) {
        __m256 half = _mm256_add_ps(v[0], v[1]);
        __m128 x = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));

        x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        x = _mm_add_ss(x, _mm_movehdup_ps(x));
        return _mm_cvtss_f32(x);
}

void warm_rms_norm_avx2(const float *x, const float *weight, float epsilon, float *out,
                        uint64_t n) {
        __m256 sums[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() }, v, factor;

        for (uint64_t i = 0; i < n; i += 8) {
                v = load(x + i, n - i);
                sums[i / 8 % 2] = _mm256_fmadd_ps(v, v, sums[i / 8 % 2]);
        }
        factor = _mm256_set1_ps(1.0F / __builtin_sqrtf(sum_of_lanes(sums) / (float) n + epsilon));
        for (uint64_t i = 0; i < n; i += 8) {
                v = _mm256_mul_ps(load(x + i, n - i), factor);
                store(out + i, n - i, _mm256_mul_ps(v, load(weight + i, n - i)));
        }
}

void warm_silu_times_avx2(const float *gate, const float *up, float *out, uint64_t n) {
        for (uint64_t i = 0; i < n; i += 8) {
                __m256 g = load(gate + i, n - i);
                __m256 under = warm_expf_avx2(_mm256_xor_ps(g, _mm256_set1_ps(-0.0F)));

                g = _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1), under));
                store(out + i, n - i, _mm256_mul_ps(g, load(up + i, n - i)));
        }
}

void warm_add_avx2(const float *x, const float *y, float *out, uint64_t n) {
        for (uint64_t i = 0; i < n; i += 8)
                store(out + i, n - i, _mm256_add_ps(load(x + i, n - i), load(y + i, n - i)));
}

float warm_max_avx2(const float *x, uint64_t n) {
        const __m256 least = _mm256_set1_ps(-INFINITY);
        __m256 most = least;
        __m128 v;

        for (uint64_t i = 0; i < n; i += 8)
                most = _mm256_max_ps(most, _mm256_blendv_ps(least, load(x + i, n - i),
                                                            _mm256_castsi256_ps(mask_of(n - i))));
        v = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
        v = _mm_max_ps(v, _mm_movehl_ps(v, v));
        v = _mm_max_ss(v, _mm_movehdup_ps(v));
        return _mm_cvtss_f32(v) + 0.0F;
}

float warm_exp_sum_avx2(const float *x, float shift, float *out, uint64_t n) {
        __m256 sums[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };

        for (uint64_t i = 0; i < n; i += 8) {
                __m256 v = warm_expf_avx2(_mm256_sub_ps(load(x + i, n - i), _mm256_set1_ps(shift)));

                store(out + i, n - i, v);
                v = _mm256_and_ps(v, _mm256_castsi256_ps(mask_of(n - i)));
                sums[i / 8 % 2] = _mm256_add_ps(sums[i / 8 % 2], v);
        }
        return sum_of_lanes(sums);
}

static uint32_t largest_bits(const __m256 *x) {
        const __m256i size_bits = _mm256_set1_epi32(INT32_MAX);
        __m256i most = _mm256_setzero_si256();
        __m128i v;

        for (int i = 0; i < 4; i++)
                most = _mm256_max_epu32(most,
                                        _mm256_and_si256(_mm256_castps_si256(x[i]), size_bits));
        v = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
        v = _mm_max_epu32(v, _mm_shuffle_epi32(v, 0x4e));
        v = _mm_max_epu32(v, _mm_shuffle_epi32(v, 0xb1));
        return (uint32_t) _mm_cvtsi128_si32(v);
}

static int32_t sum_of_integers(__m256i a, __m256i b) {
        __m256i ab = _mm256_add_epi32(a, b);
        __m128i v = _mm_add_epi32(_mm256_castsi256_si128(ab), _mm256_extracti128_si256(ab, 1));

        v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
        v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1));
        return _mm_cvtsi128_si32(v);
}

static void set_block(struct warm_acts *a, const float *x, int8_t *to, uint64_t at) {
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        __m256 v[4];
        __m256i q[4];
        uint64_t at_offset = at / 16 * 32 + at % 16;
        float largest, scale, inverse;
        int32_t first, second;
        uint32_t most;

        for (int i = 0; i < 4; i++)
                v[i] = _mm256_loadu_ps(x + i * 8);
        most = largest_bits(v);
        memcpy(&largest, &most, sizeof(largest));
        scale = largest / 127.0F;
        inverse = 127.0F / largest;
        if (most >= 0x7f800000U || largest < 0x1p-100F) {
                scale = most >= 0x7f800000U ? NAN : 0;
                inverse = 0;
                for (int i = 0; i < 4; i++)
                        v[i] = _mm256_setzero_ps();
        }
        for (int i = 0; i < 4; i++)
                q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)));
        first = sum_of_integers(q[0], q[1]);
        second = sum_of_integers(q[2], q[3]);
        q[0] = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
        _mm256_storeu_si256((__m256i *) to, _mm256_permutevar8x32_epi32(q[0], order));
        a->scales[at] = scale;
        a->sums[at] = scale * (float) (first + second);
        a->offsets[at_offset] = -128 * (first + second);
        a->offsets[at_offset + 16] = -128 * first;
}

void warm_acts_set_avx2(struct warm_acts *a, uint32_t row_begin, uint32_t row_end) {
        for (uint32_t row = row_begin; row < row_end; row++)
                for (uint64_t block = 0; block < a->n_cols / 32; block++)
                        set_block(a, a->x + row * a->ld + block * 32,
                                  a->q + row * a->q_ld + block * 32, warm_acts_at(a, row, block));
}
