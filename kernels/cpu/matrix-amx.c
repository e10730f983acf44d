/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of many rows with AMX int8 tiles: 16 rows of activations times 16 outputs of 32 columns an instruction.
 * The integer dot products come out exact, so the same conversion and fma as everywhere follow, from a small buffer
 * in the nearest cache. Few rows, float weights and everything else are AVX-512's.
 *
 * Tiles hold state that the kernel must save: each call configures them and releases them before it returns.
 */
#include <assert.h>

#include "panel-avx512.h"
#include "rows-avx512.h"

#define TILES_FROM     9U  /* rows; measured: AVX-512 alone is as fast at 8, slower at 10 */
#define SCRATCH_BLOCKS 48U /* 1,536 columns: 24 KiB of values */
#define N_ROWS         16U

/* Decoded blocks of one panel, values signed: a block's 8 quads are one tile operand. */
struct scratch {
        uint8_t values[SCRATCH_BLOCKS][512];
        __m512 steps[SCRATCH_BLOCKS];
        __m512 minus_bases[SCRATCH_BLOCKS];
        __m512 factors[SCRATCH_BLOCKS][2];
};

/* 64 bytes as ldtilecfg reads them (Intel SDM volume 1, chapter 18): palette 1; bytes a row and rows of each tile. */
struct tile_config {
        uint8_t palette;
        uint8_t start_row;
        uint8_t reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
};

_Static_assert(sizeof(struct tile_config) == 64, "as the processor reads it");

/*
 * Tile 0: dot products; 1: activations; 2: weights.
 *
 * @param n_cols columns that one dot product adds: 32, or 16 for Q6_K, whose factors change there
 */
static void configure(uint32_t n_cols) {
        struct tile_config c = { .palette = 1 };

        c.rows[0] = c.rows[1] = N_ROWS;
        c.rows[2] = (uint8_t) (n_cols / 4);
        c.row_bytes[0] = c.row_bytes[2] = 64;
        c.row_bytes[1] = (uint16_t) n_cols;
        _tile_loadconfig(&c);
}

WARM_INLINE void decode(const struct warm_matrix *m, enum warm_type type, const uint8_t *panel,
                        uint64_t begin, uint64_t end, struct scratch *s) {
        const int bias = warm_panel_bias(type);

        for (uint64_t block = begin; block < end; block++) {
                const uint8_t *scales = warm_panel_scales(m, panel, block);
                uint64_t at = block - begin;
                __m512i quads[8];

                warm_quads_avx512(type, warm_panel_values(m, panel, block), quads);
                for (int g = 0; g < 8; g++)
                        _mm512_store_si512(
                                s->values[at] + g * 64,
                                _mm512_sub_epi8(quads[g], _mm512_set1_epi8((char) bias)));
                if (type == WARM_TYPE_Q4_K || type == WARM_TYPE_Q5_K) {
                        if (at % 8 == 0)
                                warm_scales_q45_k_avx512(scales, s->steps + at,
                                                         s->minus_bases + at);
                        continue;
                }
                s->steps[at] = warm_halves_avx512(scales);
                if (warm_panel_has_base(type))
                        s->minus_bases[at] = warm_halves_avx512(scales + 32);
                for (uint32_t half = 0; half < 2 && type == WARM_TYPE_Q6_K; half++)
                        s->factors[at][half] = warm_factors_avx512(scales, block, half);
        }
}

/* The integer dot products of 16 rows and 16 outputs of one block; Q6_K: of its halves. */
struct dots {
        int32_t part[2][N_ROWS][16];
} __attribute__((aligned(64)));

WARM_INLINE void dot_block(enum warm_type type, const uint8_t *values, const int8_t *q,
                           uint64_t q_ld, struct dots *ret_dots) {
        const int n_parts = type == WARM_TYPE_Q6_K ? 2 : 1;

        for (int i = 0; i < n_parts; i++) {
                _tile_zero(0);
                _tile_loadd(1, q + i * 16, q_ld);
                _tile_loadd(2, values + i * 256, 64);
                _tile_dpbssd(0, 1, 2);
                _tile_stored(0, ret_dots->part[i], 64);
        }
}

/* The rows [lo, hi) of the activation group that begins at row `first`. */
WARM_INLINE void tile(enum warm_type type, const struct scratch *s, const struct warm_acts *a,
                      uint32_t first, uint32_t lo, uint32_t hi, uint64_t begin, uint64_t end,
                      float *out, uint64_t ld_out, __mmask16 mask) {
        const int8_t *q = a->q + first * a->q_ld + begin * 32;
        const float *scales = a->scales + warm_acts_at(a, first, begin);
        const float *sums = a->sums + warm_acts_at(a, first, begin);
        uint64_t n = end - begin;
        struct dots dots[2];
        __m512 acc[N_ROWS];

        for (uint32_t r = 0; r < N_ROWS; r++)
                acc[r] = begin == 0 || r < lo || r >= hi
                                 ? _mm512_setzero_ps()
                                 : _mm512_maskz_loadu_ps(mask, out + (first + r) * ld_out);
        dot_block(type, s->values[0], q, a->q_ld, &dots[0]);
        for (uint64_t at = 0; at < n; at++, scales += 16, sums += 16) {
                const struct dots *d = &dots[at % 2];

                /* The tiles of the next block run beside the floats of this one. */
                if (at + 1 < n)
                        dot_block(type, s->values[at + 1], q + (at + 1) * 32, a->q_ld,
                                  &dots[(at + 1) % 2]);
#pragma GCC unroll 16
                for (uint32_t r = 0; r < N_ROWS; r++) {
                        __m512 scale = _mm512_mul_ps(s->steps[at], _mm512_set1_ps(scales[r]));
                        __m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(d->part[0][r]));

                        if (type == WARM_TYPE_Q6_K) {
                                __m512 last = _mm512_cvtepi32_ps(_mm512_load_si512(d->part[1][r]));

                                dot = _mm512_fmadd_ps(dot, s->factors[at][0],
                                                      _mm512_mul_ps(last, s->factors[at][1]));
                        }
                        acc[r] = _mm512_fmadd_ps(dot, scale, acc[r]);
                        if (warm_panel_has_base(type))
                                acc[r] = _mm512_fmadd_ps(s->minus_bases[at],
                                                         _mm512_set1_ps(sums[r]), acc[r]);
                }
        }
        for (uint32_t r = 0; r < N_ROWS; r++)
                if (r >= lo && r < hi)
                        _mm512_mask_storeu_ps(out + (first + r) * ld_out, mask, acc[r]);
}

WARM_INLINE void multiply_blocks(const struct warm_matrix *m, enum warm_type type,
                                 const struct warm_acts *a, uint32_t row_begin, uint32_t row_end,
                                 uint64_t col_begin, uint64_t col_end, float *out,
                                 uint64_t ld_out) {
        uint64_t n_blocks = m->n_cols / 32;
        struct scratch s;

        for (uint64_t col = col_begin; col < col_end; col += WARM_MATRIX_ROWS) {
                const uint8_t *panel = m->data + col / WARM_MATRIX_ROWS * m->panel_bytes;
                __mmask16 mask = warm_cols_mask(col_end - col);

                for (uint64_t begin = 0, end; begin < n_blocks; begin = end) {
                        uint32_t group = row_begin / N_ROWS * N_ROWS;

                        end = n_blocks - begin > SCRATCH_BLOCKS ? begin + SCRATCH_BLOCKS : n_blocks;
                        decode(m, type, panel, begin, end, &s);
                        /* The activations of a whole group exist, if not all of its rows were set. */
                        for (; group < row_end; group += N_ROWS)
                                tile(type, &s, a, group, row_begin > group ? row_begin - group : 0,
                                     row_end - group < N_ROWS ? row_end - group : N_ROWS, begin,
                                     end, out + col, ld_out, mask);
                }
        }
}

#define CASE(type)                                                                                 \
        case type:                                                                                 \
                multiply_blocks(m, type, a, row_begin, row_end, col_begin, col_end, out, ld_out);  \
                break

static void multiply(const struct warm_matrix *m, const struct warm_acts *a, uint32_t row_begin,
                     uint32_t row_end, uint64_t col_begin, uint64_t col_end, float *out,
                     uint64_t ld_out) {
        if (row_end - row_begin < TILES_FROM || !warm_panel_value_bytes(m->type)) {
                warm_multiply_avx512(m, a, row_begin, row_end, col_begin, col_end, out, ld_out);
                return;
        }
        configure(m->type == WARM_TYPE_Q6_K ? 16 : 32);
        switch (m->type) {
                CASE(WARM_TYPE_Q8_0);
                CASE(WARM_TYPE_Q4_0);
                CASE(WARM_TYPE_Q4_1);
                CASE(WARM_TYPE_Q5_0);
                CASE(WARM_TYPE_Q5_1);
                CASE(WARM_TYPE_Q4_K);
                CASE(WARM_TYPE_Q5_K);
                CASE(WARM_TYPE_Q6_K);
        default:
                assert(!"a quantized type");
        }
        _tile_release();
}

const struct warm_kernels warm_kernels_amx = {
        .isa = WARM_ISA_AMX,
        .set = warm_acts_set_avx512,
        .multiply = multiply,
        .rms_norm = warm_rms_norm_avx512,
        .silu_times = warm_silu_times_avx512,
        .add = warm_add_avx512,
        .max = warm_max_avx512,
        .exp_sum = warm_exp_sum_avx512,
};
