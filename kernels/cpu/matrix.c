/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packing, unpacking and choice of the instruction set; panel.h has the layout.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "panel.h"

const struct warm_kernels *warm_kernels_get(enum warm_isa isa) {
        static const struct warm_kernels *const tables[_WARM_ISA_N] = {
                [WARM_ISA_PLAIN] = &warm_kernels_plain,
#if defined(__x86_64__)
                [WARM_ISA_AVX2] = &warm_kernels_avx2,
                [WARM_ISA_AVX512] = &warm_kernels_avx512,
                [WARM_ISA_AMX] = &warm_kernels_amx,
#elif defined(__aarch64__)
                [WARM_ISA_NEON] = &warm_kernels_neon,
#endif
        };

        assert((unsigned int) isa < _WARM_ISA_N);
        return tables[isa] && warm_isa_present(isa) ? tables[isa] : NULL;
}

static void *allocate(uint64_t n, uint64_t size) {
        uint64_t bytes;

        if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX - WARM_MATRIX_ALIGN)
                return NULL;
        bytes = (bytes + WARM_MATRIX_ALIGN) & ~(uint64_t) (WARM_MATRIX_ALIGN - 1);
        return aligned_alloc(WARM_MATRIX_ALIGN, bytes);
}

int warm_acts_init(struct warm_acts *a, uint32_t n_rows_max, uint64_t n_cols_max) {
        uint64_t n_groups = ((uint64_t) n_rows_max + WARM_ACTS_GROUP - 1) / WARM_ACTS_GROUP;
        uint64_t n_scales;

        *a = (struct warm_acts){ .n_rows_max = n_rows_max, .n_cols_max = n_cols_max };
        if (n_cols_max > UINT64_MAX - 63 ||
            __builtin_mul_overflow(n_groups * WARM_ACTS_GROUP, n_cols_max / 32, &n_scales))
                return -EOVERFLOW;
        a->q_ld = (n_cols_max + 63) & ~63ULL;
        a->q = allocate(n_groups * WARM_ACTS_GROUP, a->q_ld);
        a->scales = allocate(n_scales, sizeof(*a->scales));
        a->sums = allocate(n_scales, sizeof(*a->sums));
        a->offsets = allocate(n_scales, 2 * sizeof(*a->offsets));
        if (!a->q || !a->scales || !a->sums || !a->offsets) {
                warm_acts_deinit(a);
                return -ENOMEM;
        }
        return 0;
}

void warm_acts_deinit(struct warm_acts *a) {
        free(a->q);
        free(a->scales);
        free(a->sums);
        free(a->offsets);
        *a = (struct warm_acts){ 0 };
}

void warm_acts_set(const struct warm_kernels *k, struct warm_acts *a, const float *x, uint64_t ld,
                   uint64_t n_cols, uint32_t row_begin, uint32_t row_end) {
        /* What is the same for all, and never what another thread stores just now. */
        struct warm_acts mine = {
                .n_rows_max = a->n_rows_max,
                .n_cols_max = a->n_cols_max,
                .n_cols = n_cols,
                .q_ld = a->q_ld,
                .q = a->q,
                .scales = a->scales,
                .sums = a->sums,
                .offsets = a->offsets,
                .x = x,
                .ld = ld,
        };

        assert(row_begin <= row_end && row_end <= a->n_rows_max);
        assert(n_cols <= a->n_cols_max && n_cols <= ld);
        /* Threads that share the rows all store the same values; products read them behind a barrier. */
        __atomic_store_n(&a->x, x, __ATOMIC_RELAXED);
        __atomic_store_n(&a->ld, ld, __ATOMIC_RELAXED);
        __atomic_store_n(&a->n_cols, n_cols, __ATOMIC_RELAXED);
        k->set(&mine, row_begin, row_end);
}

/* Bytes of a panel, its scales' offset in it: 16 rows of the file's form, rounded up to the alignment. */
static int panel_bytes(enum warm_type type, uint64_t n_cols, uint64_t *ret_scales_offset,
                       uint64_t *ret_bytes) {
        uint64_t row_bytes, bytes;
        int r;

        r = warm_type_row_bytes(type, n_cols, &row_bytes);
        if (r < 0)
                return r;
        if (__builtin_mul_overflow(row_bytes, WARM_MATRIX_ROWS, &bytes) ||
            bytes > UINT64_MAX - WARM_MATRIX_ALIGN)
                return -EOVERFLOW;
        *ret_scales_offset = n_cols / 32 * warm_panel_value_bytes(type);
        *ret_bytes = (bytes + WARM_MATRIX_ALIGN - 1) & ~(uint64_t) (WARM_MATRIX_ALIGN - 1);
        return 0;
}

int warm_matrix_bytes(const struct warm_kernels *k, const struct warm_tensor *t,
                      uint64_t *ret_bytes) {
        uint64_t row_bytes, bytes, offset;
        int r;

        (void) k; /* one layout for all of them */
        if (t->row_scales || t->group_scales || t->n_outlier_cols ||
            (t->tensor_scale != 0 && t->tensor_scale != 1))
                return -EOPNOTSUPP;
        if (!t->data || t->n_rows == 0 || t->n_cols == 0)
                return -EINVAL;
        r = warm_type_row_bytes(t->type, t->n_cols, &row_bytes);
        if (r < 0)
                return r;
        if (__builtin_mul_overflow(row_bytes, t->n_rows, &bytes))
                return -EOVERFLOW;
        if (t->bytes < bytes)
                return -EINVAL;
        r = panel_bytes(t->type, t->n_cols, &offset, &bytes);
        if (r < 0)
                return r;
        if (__builtin_mul_overflow((t->n_rows - 1) / WARM_MATRIX_ROWS + 1, bytes, &bytes))
                return -EOVERFLOW;
        *ret_bytes = bytes;
        return 0;
}

void warm_matrix_init(const struct warm_kernels *k, const struct warm_tensor *t, void *memory,
                      struct warm_matrix *ret_matrix) {
        struct warm_matrix m = {
                .type = t->type,
                .n_rows = t->n_rows,
                .n_cols = t->n_cols,
                .data = memory,
        };
        int r;

        (void) k;
        assert((uintptr_t) memory % WARM_MATRIX_ALIGN == 0);
        r = panel_bytes(t->type, t->n_cols, &m.scales_offset, &m.panel_bytes);
        assert(r == 0);
        *ret_matrix = m;
}

static void low_high_nibbles(const uint8_t *q, uint8_t *ret_values) {
        for (int i = 0; i < 16; i++) {
                ret_values[i] = q[i] & 15;
                ret_values[i + 16] = q[i] >> 4;
        }
}

static void add_bit_4(const uint8_t *high, uint8_t *values) {
        for (int i = 0; i < 32; i++)
                values[i] |= (uint8_t) ((high[i / 8] >> i % 8 & 1) << 4);
}

/* The 32 unsigned values of a part of a block of the file's form (Q8_0: value + 128). */
static void block_values(enum warm_type type, const uint8_t *p, uint32_t part,
                         uint8_t *ret_values) {
        switch (type) {
        case WARM_TYPE_Q8_0:
                for (int i = 0; i < 32; i++)
                        ret_values[i] = p[2 + i] ^ 0x80;
                break;
        case WARM_TYPE_Q4_0:
                low_high_nibbles(p + 2, ret_values);
                break;
        case WARM_TYPE_Q4_1:
                low_high_nibbles(p + 4, ret_values);
                break;
        case WARM_TYPE_Q5_0:
                low_high_nibbles(p + 6, ret_values);
                add_bit_4(p + 2, ret_values);
                break;
        case WARM_TYPE_Q5_1:
                low_high_nibbles(p + 8, ret_values);
                add_bit_4(p + 4, ret_values);
                break;
        case WARM_TYPE_Q4_K:
                for (int i = 0; i < 32; i++)
                        ret_values[i] = p[16 + part / 2 * 32 + i] >> (part & 1) * 4 & 15;
                break;
        case WARM_TYPE_Q5_K:
                for (int i = 0; i < 32; i++)
                        ret_values[i] = (p[48 + part / 2 * 32 + i] >> (part & 1) * 4 & 15) |
                                        (p[16 + i] >> part & 1) << 4;
                break;
        case WARM_TYPE_Q6_K:
                for (int i = 0; i < 32; i++) {
                        int at = (int) part % 4 * 32 + i;

                        ret_values[i] = (p[part / 4 * 64 + at % 64] >> at / 64 * 4 & 15) |
                                        (p[128 + part / 4 * 32 + i] >> part % 4 * 2 & 3) << 4;
                }
                break;
        default:
                assert(!"a quantized type");
        }
}

/* One row's 32 values into a panel's unit (zeroed before). */
static void put_values(enum warm_type type, uint32_t row, const uint8_t *values, uint8_t *unit) {
        if (type == WARM_TYPE_Q8_0) {
                for (int g = 0; g < 8; g++)
                        memcpy(unit + g * 64 + row * 4, values + g * 4, 4);
                return;
        }
        for (int g = 0; g < 8; g++)
                for (int j = 0; j < 4; j++) {
                        uint8_t v = values[g * 4 + j];
                        uint8_t *at = unit + row * 4 + j;

                        at[g % 4 * 64] |= (uint8_t) ((v & 15) << g / 4 * 4);
                        if (type == WARM_TYPE_Q6_K)
                                at[256 + g / 4 * 64] |= (uint8_t) (v >> 4 << g % 4 * 2);
                        else if (warm_panel_value_bytes(type) == 320)
                                at[256] |= (uint8_t) (v >> 4 << g);
                }
}

/* One row's scales of one block of the file's form into a panel's scales (zeroed before). */
static void put_scales(enum warm_type type, uint32_t row, const uint8_t *p, uint8_t *scales) {
        uint8_t v[2];

        switch (type) {
        case WARM_TYPE_Q4_1:
        case WARM_TYPE_Q5_1:
                memcpy(scales + 32 + row * 2, p + 2, 2);
                memcpy(scales + row * 2, p, 2);
                break;
        case WARM_TYPE_Q4_K:
        case WARM_TYPE_Q5_K:
                memcpy(scales + row * 2, p, 2);
                memcpy(scales + 32 + row * 2, p + 2, 2);
                for (uint32_t g = 0; g < 8; g++) {
                        warm_q4_k_scale_min(p + 4, g, &v[0], &v[1]);
                        for (uint32_t i = 0; i < 2; i++) {
                                uint8_t *at = scales + 64 + i * 16 + row;

                                at[g % 4 * 32] |= (uint8_t) ((v[i] & 15) << g / 4 * 4);
                                at[128 + g / 4 * 32] |= (uint8_t) (v[i] >> 4 << g % 4 * 2);
                        }
                }
                break;
        case WARM_TYPE_Q6_K:
                memcpy(scales + row * 2, p + 208, 2);
                for (int i = 0; i < 16; i++)
                        scales[32 + i * 16 + (int) row] = p[192 + i];
                break;
        default:
                memcpy(scales + row * 2, p, 2);
        }
}

static void pack_floats(const struct warm_matrix *m, const uint8_t *source, uint32_t row,
                        uint8_t *panel) {
        uint32_t size = warm_type_info(m->type)->bytes;

        for (uint64_t i = 0; i < m->n_cols; i++)
                memcpy(panel + (i * WARM_MATRIX_ROWS + row) * size, source + i * size, size);
}

static void pack_blocks(const struct warm_matrix *m, const uint8_t *source, uint32_t row,
                        uint8_t *panel) {
        const struct warm_type_info *info = warm_type_info(m->type);
        uint32_t n_parts = info->elements / 32;
        uint64_t value_bytes = warm_panel_value_bytes(m->type);
        uint8_t values[32];

        for (uint64_t block = 0; block < m->n_cols / 32; block++) {
                const uint8_t *p = source + block / n_parts * info->bytes;

                block_values(m->type, p, (uint32_t) (block % n_parts), values);
                put_values(m->type, row, values, panel + block * value_bytes);
                if (block % n_parts == 0)
                        put_scales(m->type, row, p, (uint8_t *) warm_panel_scales(m, panel, block));
        }
}

void warm_matrix_pack(const struct warm_kernels *k, const struct warm_tensor *t,
                      struct warm_matrix *m, uint64_t row_begin, uint64_t row_end) {
        uint64_t row_bytes;
        int r;

        (void) k;
        assert(row_begin % WARM_MATRIX_ROWS == 0 && row_end <= m->n_rows);
        assert(row_end % WARM_MATRIX_ROWS == 0 || row_end == m->n_rows);
        r = warm_type_row_bytes(t->type, t->n_cols, &row_bytes);
        assert(r == 0);
        for (uint64_t row = row_begin; row < row_end; row++) {
                uint8_t *panel = m->data + row / WARM_MATRIX_ROWS * m->panel_bytes;
                const uint8_t *source = (const uint8_t *) t->data + row * row_bytes;

                if (row % WARM_MATRIX_ROWS == 0)
                        memset(panel, 0, m->panel_bytes);
                if (warm_panel_value_bytes(m->type))
                        pack_blocks(m, source, row % WARM_MATRIX_ROWS, panel);
                else
                        pack_floats(m, source, row % WARM_MATRIX_ROWS, panel);
        }
}

void warm_matrix_multiply(const struct warm_kernels *k, const struct warm_matrix *m,
                          const struct warm_acts *a, uint32_t row_begin, uint32_t row_end,
                          uint64_t col_begin, uint64_t col_end, float *out, uint64_t ld_out) {
        assert(a->n_cols == m->n_cols);
        assert(row_begin <= row_end && row_end <= a->n_rows_max);
        assert(col_begin % WARM_MATRIX_ROWS == 0 && col_end <= m->n_rows);
        assert(col_end % WARM_MATRIX_ROWS == 0 || col_end == m->n_rows);
        if (row_begin < row_end && col_begin < col_end)
                k->multiply(m, a, row_begin, row_end, col_begin, col_end, out, ld_out);
}
