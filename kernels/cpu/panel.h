/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How packed weights lie, for the kernels of every instruction set. Private to kernels/cpu.
 *
 * A panel holds 16 rows of weights (16 outputs; missing ones at the end are zero bytes) in two parts: the values, then
 * at scales_offset the scales. Values come in units of 32 columns, 16 rows interleaved by 4 columns: a "quad" g (0..7)
 * is 64 bytes, byte 4 r + j = column 4 g + j of row r. So a quad is what one 512-bit dot product takes, half of one
 * for 256 bits. All numbers little-endian, `half` binary16; [16] runs over the rows.
 *
 *   values of 32 columns (bytes)
 *   Q8_0   512  u8 quad[8]: value + 128
 *   Q4_x   256  u8 [4][64]: byte i of vector g: low nibble quad g, high nibble quad g + 4
 *   Q5_x   320  the same 256 bytes (bits 0..3), then u8 [64]: bit g = bit 4 of quad g
 *   Q4_K   256  as Q4_x          Q5_K   320  as Q5_x
 *   Q6_K   384  the same 256 bytes (bits 0..3), then u8 [2][64]: bits 2k, 2k + 1 of vector u = bits 4, 5
 *               of quad 4 u + k
 *   F32         float [16] a column         F16, BF16   u16 [16] a column
 *
 *   scales (bytes)
 *   Q8_0, Q4_0, Q5_0   of 32 columns:  32   half d[16]
 *   Q4_1, Q5_1         of 32 columns:  64   half d[16], half m[16]
 *   Q4_K, Q5_K         of 256 columns: 256  half d[16], half dmin[16], then 6-bit scales and mins, s[8][32] with
 *                                           s[g] = scale[16], min[16] of group g: u8 [4][32] bits 0..3 (low nibble
 *                                           group k, high nibble group k + 4), u8 [2][32] bits 4..5 (bits 2k, 2k + 1 of
 *                                           vector u: group 4 u + k)
 *   Q6_K               of 256 columns: 288  half d[16], int8 scale[8][2][16]: group of 32, its half, row
 */
#pragma once

#include <stdint.h>
#include <string.h>

#include "../quant.h"
#include "matrix.h"

/* Bytes of the values of 32 columns of a panel; 0: a float type. */
static inline uint64_t warm_panel_value_bytes(enum warm_type type) {
        switch (type) {
        case WARM_TYPE_Q8_0:
                return 512;
        case WARM_TYPE_Q4_0:
        case WARM_TYPE_Q4_1:
        case WARM_TYPE_Q4_K:
                return 256;
        case WARM_TYPE_Q5_0:
        case WARM_TYPE_Q5_1:
        case WARM_TYPE_Q5_K:
                return 320;
        case WARM_TYPE_Q6_K:
                return 384;
        default:
                return 0;
        }
}

static inline int warm_panel_has_base(enum warm_type type) {
        return type == WARM_TYPE_Q4_1 || type == WARM_TYPE_Q5_1 || type == WARM_TYPE_Q4_K ||
               type == WARM_TYPE_Q5_K;
}

/* What is added to a signed value to store it unsigned. */
static inline int warm_panel_bias(enum warm_type type) {
        switch (type) {
        case WARM_TYPE_Q8_0:
                return 128;
        case WARM_TYPE_Q4_0:
                return 8;
        case WARM_TYPE_Q5_0:
                return 16;
        case WARM_TYPE_Q6_K:
                return 32;
        default:
                return 0;
        }
}

/* The scales that hold block (of 32 columns) of a panel. */
static inline const uint8_t *warm_panel_scales(const struct warm_matrix *m, const uint8_t *panel,
                                               uint64_t block) {
        const uint8_t *scales = panel + m->scales_offset;

        switch (m->type) {
        case WARM_TYPE_Q4_1:
        case WARM_TYPE_Q5_1:
                return scales + block * 64;
        case WARM_TYPE_Q4_K:
        case WARM_TYPE_Q5_K:
                return scales + block / 8 * 256;
        case WARM_TYPE_Q6_K:
                return scales + block / 8 * 288;
        default:
                return scales + block * 32;
        }
}

static inline const uint8_t *warm_panel_values(const struct warm_matrix *m, const uint8_t *panel,
                                               uint64_t block) {
        return panel + block * warm_panel_value_bytes(m->type);
}

/* Where the scales of a block of 32 columns begin: element [row / 16][block][row % 16]. */
static inline uint64_t warm_acts_at(const struct warm_acts *a, uint32_t row, uint64_t block) {
        uint64_t n_blocks = a->n_cols / 32;

        return (row / WARM_ACTS_GROUP * n_blocks + block) * WARM_ACTS_GROUP + row % WARM_ACTS_GROUP;
}

static inline uint16_t warm_load16(const uint8_t *p) {
        uint16_t v;

        memcpy(&v, p, sizeof(v));
        return v;
}

/* One table for each instruction set that this build has. */
extern const struct warm_kernels warm_kernels_plain;
extern const struct warm_kernels warm_kernels_avx2;
extern const struct warm_kernels warm_kernels_avx512;
extern const struct warm_kernels warm_kernels_amx;
extern const struct warm_kernels warm_kernels_neon;
