/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products by way of a scratch, for vectors narrower than a panel: some blocks of a panel are decoded once, then all
 * rows of the call use them, WARM_TILE_ROWS at a time. Private to kernels/cpu.
 *
 * A file that includes this defines three always-inline functions (type and n are constants where they are inlined):
 *
 * decode   blocks [begin, end) of a panel into the scratch
 * tile     n rows, from row on, with the scratch's blocks; from 0 at begin 0, else from what out holds
 * floats   n rows of a panel of float weights
 *
 * and may define WARM_FEW_ROWS and, for calls of so few rows that a scratch does not pay:
 *
 * few      n rows of a panel with weights that are decoded in registers
 */
#pragma once

#include <assert.h>
#include <stdbool.h>

#include "panel.h"

#define WARM_INLINE         static inline __attribute__((always_inline))
#define WARM_SCRATCH_BLOCKS 32U /* 1,024 columns: 16 KiB of values in the nearest cache */
#define WARM_TILE_ROWS      4U

struct warm_scratch {
        uint8_t values[WARM_SCRATCH_BLOCKS][512]; /* quads; Q8_0 signed, others as stored */
        float steps[WARM_SCRATCH_BLOCKS][16];
        float minus_bases[WARM_SCRATCH_BLOCKS][16];
        float factors[WARM_SCRATCH_BLOCKS][2][16];
} __attribute__((aligned(64)));

WARM_INLINE void decode(const struct warm_matrix *m, enum warm_type type, const uint8_t *panel,
                        uint64_t begin, uint64_t end, struct warm_scratch *s);
WARM_INLINE void tile(enum warm_type type, uint32_t n, const struct warm_scratch *s,
                      const struct warm_acts *a, uint32_t row, uint64_t begin, uint64_t end,
                      float *out, uint64_t ld_out, uint32_t n_cols);
WARM_INLINE void floats(const struct warm_matrix *m, enum warm_type type, uint32_t n,
                        const uint8_t *panel, const float *x, uint64_t ld, float *out,
                        uint64_t ld_out, uint32_t n_cols);

#ifdef WARM_FEW_ROWS
WARM_INLINE void few(const struct warm_matrix *m, enum warm_type type, uint32_t n,
                     const uint8_t *panel, const struct warm_acts *a, uint32_t row, float *out,
                     uint64_t ld_out, uint32_t n_cols);

/* Return: false: too many rows. */
WARM_INLINE bool few_of_blocks(const struct warm_matrix *m, enum warm_type type,
                               const uint8_t *panel, const struct warm_acts *a, uint32_t row_begin,
                               uint32_t row_end, float *out, uint64_t ld_out, uint32_t n_cols) {
        float *to = out + row_begin * ld_out;

        static_assert(WARM_FEW_ROWS == 4, "a case for each");
        switch (row_end - row_begin) {
        case 1:
                few(m, type, 1, panel, a, row_begin, to, ld_out, n_cols);
                return true;
        case 2:
                few(m, type, 2, panel, a, row_begin, to, ld_out, n_cols);
                return true;
        case 3:
                few(m, type, 3, panel, a, row_begin, to, ld_out, n_cols);
                return true;
        case 4:
                few(m, type, 4, panel, a, row_begin, to, ld_out, n_cols);
                return true;
        default:
                return false;
        }
}
#else
WARM_INLINE bool few_of_blocks(const struct warm_matrix *m, enum warm_type type,
                               const uint8_t *panel, const struct warm_acts *a, uint32_t row_begin,
                               uint32_t row_end, float *out, uint64_t ld_out, uint32_t n_cols) {
        (void) m, (void) type, (void) panel, (void) a, (void) row_begin, (void) row_end;
        (void) out, (void) ld_out, (void) n_cols;
        return false;
}
#endif

WARM_INLINE void panel_of_blocks(const struct warm_matrix *m, enum warm_type type,
                                 const uint8_t *panel, const struct warm_acts *a,
                                 uint32_t row_begin, uint32_t row_end, float *out, uint64_t ld_out,
                                 uint32_t n_cols) {
        uint64_t n_blocks = m->n_cols / 32;
        struct warm_scratch s;

        if (few_of_blocks(m, type, panel, a, row_begin, row_end, out, ld_out, n_cols))
                return;
        for (uint64_t begin = 0, end; begin < n_blocks; begin = end) {
                uint32_t row = row_begin;

                end = n_blocks - begin > WARM_SCRATCH_BLOCKS ? begin + WARM_SCRATCH_BLOCKS
                                                             : n_blocks;
                decode(m, type, panel, begin, end, &s);
                for (; row_end - row >= WARM_TILE_ROWS; row += WARM_TILE_ROWS)
                        tile(type, WARM_TILE_ROWS, &s, a, row, begin, end, out + row * ld_out,
                             ld_out, n_cols);
                for (; row < row_end; row++)
                        tile(type, 1, &s, a, row, begin, end, out + row * ld_out, ld_out, n_cols);
        }
}

WARM_INLINE void panel_of_floats(const struct warm_matrix *m, enum warm_type type,
                                 const uint8_t *panel, const struct warm_acts *a,
                                 uint32_t row_begin, uint32_t row_end, float *out, uint64_t ld_out,
                                 uint32_t n_cols) {
        uint32_t row = row_begin;

        for (; row_end - row >= WARM_TILE_ROWS; row += WARM_TILE_ROWS)
                floats(m, type, WARM_TILE_ROWS, panel, a->x + row * a->ld, a->ld,
                       out + row * ld_out, ld_out, n_cols);
        for (; row < row_end; row++)
                floats(m, type, 1, panel, a->x + row * a->ld, a->ld, out + row * ld_out, ld_out,
                       n_cols);
}

#define WARM_CASE(kind, type)                                                                      \
        case type:                                                                                 \
                panel_of_##kind(m, type, panel, a, row_begin, row_end, out + col, ld_out, n_cols); \
                break

/* struct warm_kernels.multiply */
static void multiply(const struct warm_matrix *m, const struct warm_acts *a, uint32_t row_begin,
                     uint32_t row_end, uint64_t col_begin, uint64_t col_end, float *out,
                     uint64_t ld_out) {
        for (uint64_t col = col_begin; col < col_end; col += WARM_MATRIX_ROWS) {
                const uint8_t *panel = m->data + col / WARM_MATRIX_ROWS * m->panel_bytes;
                uint32_t n_cols = col_end - col < 16 ? (uint32_t) (col_end - col) : 16;

                switch (m->type) {
                        WARM_CASE(floats, WARM_TYPE_F32);
                        WARM_CASE(floats, WARM_TYPE_F16);
                        WARM_CASE(floats, WARM_TYPE_BF16);
                        WARM_CASE(blocks, WARM_TYPE_Q8_0);
                        WARM_CASE(blocks, WARM_TYPE_Q4_0);
                        WARM_CASE(blocks, WARM_TYPE_Q4_1);
                        WARM_CASE(blocks, WARM_TYPE_Q5_0);
                        WARM_CASE(blocks, WARM_TYPE_Q5_1);
                        WARM_CASE(blocks, WARM_TYPE_Q4_K);
                        WARM_CASE(blocks, WARM_TYPE_Q5_K);
                        WARM_CASE(blocks, WARM_TYPE_Q6_K);
                case _WARM_TYPE_N:
                        assert(!"a type");
                }
        }
}
