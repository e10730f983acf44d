/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products: packing gives back what was packed, plain C is right by its definition in double, and every
 * instruction set gives the bits of plain C for odd shapes and extreme values.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/matrix.h"

/* How random weights and activations are drawn. */
enum draw {
        DRAW_RANDOM,
        DRAW_LEAST, /* every bit 0: the smallest value of most types */
        DRAW_MOST,  /* every bit 1 */
        DRAW_MIXED, /* zero, denormal, huge scales; rows of zeros */
        _DRAW_N,
};

struct fixture {
        struct warm_tensor tensor;
        struct warm_matrix matrix;
        struct warm_acts acts;
        uint8_t *data;
        void *memory;
        float *x;
};

static uint64_t random_state = 88172645463325252ULL;

static uint32_t random_u32(void) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return (uint32_t) (random_state >> 32);
}

static float random_float(void) {
        return (float) (random_u32() >> 8) * 0x1p-23F - 1;
}

static uint16_t random_half(enum draw draw) {
        static const uint16_t odd[] = { 0, 0x8000, 1, 0x83ff, 0x400, 0x7bff, 0xfbff, 0x3c00 };

        if (draw == DRAW_MIXED)
                return odd[random_u32() % 8];
        return warm_float_to_half(random_float() * 0.02F);
}

static void put_half(uint8_t *p, enum draw draw) {
        uint16_t h = random_half(draw);

        memcpy(p, &h, 2);
}

static void draw_block(enum warm_type type, enum draw draw, uint8_t *p) {
        const struct warm_type_info *info = warm_type_info(type);
        float f = random_float();

        for (int i = 0; i < info->bytes; i++)
                p[i] = draw == DRAW_LEAST ? 0 : draw == DRAW_MOST ? 255 : (uint8_t) random_u32();
        switch (type) {
        case WARM_TYPE_F32:
                memcpy(p, &f, 4);
                break;
        case WARM_TYPE_BF16:
                p[0] = (uint8_t) random_u32();
                p[1] = 0x3d | (random_u32() & 0x80);
                break;
        case WARM_TYPE_Q6_K:
                put_half(p + 208, draw);
                break;
        case WARM_TYPE_Q8_0:
                if (draw == DRAW_LEAST)
                        memset(p + 2, 0x80, 32);
                if (draw == DRAW_MOST)
                        memset(p + 2, 0x7f, 32);
                put_half(p, draw);
                break;
        default:
                put_half(p, draw);
        }
        if (type == WARM_TYPE_Q4_1 || type == WARM_TYPE_Q5_1 || type == WARM_TYPE_Q4_K ||
            type == WARM_TYPE_Q5_K)
                put_half(p + 2, draw);
}

static void draw_acts(enum draw draw, float *x, uint64_t n_rows, uint64_t n_cols) {
        for (uint64_t i = 0; i < n_rows * n_cols; i++) {
                x[i] = random_float() * (draw == DRAW_RANDOM ? 5 : 1);
                if (draw == DRAW_MOST)
                        x[i] = 3;
                if (draw == DRAW_LEAST)
                        x[i] = -3;
                if (draw == DRAW_MIXED)
                        x[i] *= i / n_cols % 3 == 0 ? 0 : i / 32 % 3 == 0 ? 0x1p-130F : 1e10F;
        }
}

/* n_rows activations times n_outs rows of n_cols weights; matrix packed with k, acts not yet set. */
static void make(struct fixture *f, const struct warm_kernels *k, enum warm_type type,
                 uint32_t n_rows, uint64_t n_cols, uint64_t n_outs, enum draw draw) {
        const struct warm_type_info *info = warm_type_info(type);
        uint64_t row_bytes, bytes;

        assert_int_equal(warm_type_row_bytes(type, n_cols, &row_bytes), 0);
        f->data = malloc(row_bytes * n_outs);
        f->x = malloc(n_rows * n_cols * sizeof(float));
        assert_true(f->data && f->x);
        for (uint64_t i = 0; i < row_bytes * n_outs; i += info->bytes)
                draw_block(type, draw, f->data + i);
        draw_acts(draw, f->x, n_rows, n_cols);
        f->tensor = (struct warm_tensor){ .data = f->data,
                                          .n_cols = n_cols,
                                          .n_rows = n_outs,
                                          .bytes = row_bytes * n_outs,
                                          .type = type };
        assert_int_equal(warm_matrix_bytes(k, &f->tensor, &bytes), 0);
        f->memory = aligned_alloc(WARM_MATRIX_ALIGN, bytes);
        assert_non_null(f->memory);
        memset(f->memory, 0xa5, bytes);
        warm_matrix_init(k, &f->tensor, f->memory, &f->matrix);
        warm_matrix_pack(k, &f->tensor, &f->matrix, 0, n_outs);
        assert_int_equal(warm_acts_init(&f->acts, n_rows, n_cols), 0);
}

static void drop(struct fixture *f) {
        warm_acts_deinit(&f->acts);
        free(f->memory);
        free(f->data);
        free(f->x);
}

static void set_all(const struct warm_kernels *k, struct fixture *f) {
        warm_acts_set(k, &f->acts, f->x, f->tensor.n_cols, f->tensor.n_cols, 0, f->acts.n_rows_max);
}

static uint64_t block_of(enum warm_type type) {
        return warm_type_info(type)->elements;
}

static void a_row_comes_back_as_the_type_defines_it(void **state) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);

        (void) state;
        for (int type = 0; type < _WARM_TYPE_N; type++)
                for (int draw = 0; draw < _DRAW_N; draw++) {
                        struct fixture f;
                        uint64_t n_cols = 3 * block_of((enum warm_type) type), row_bytes;
                        float want[768], got[768];

                        make(&f, k, (enum warm_type) type, 1, n_cols, 37, (enum draw) draw);
                        row_bytes = f.tensor.bytes / 37;
                        for (uint64_t row = 0; row < 37; row++) {
                                warm_type_dequantize((enum warm_type) type,
                                                     f.data + row * row_bytes, n_cols, want);
                                warm_matrix_row(k, &f.matrix, row, got);
                                assert_memory_equal(got, want, n_cols * sizeof(float));
                        }
                        drop(&f);
                }
}

static void packing_in_parts_gives_the_same_bytes_as_at_once(void **state) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);

        (void) state;
        for (int type = 0; type < _WARM_TYPE_N; type++) {
                struct fixture f;
                struct warm_matrix parts;
                uint64_t bytes;
                void *memory;

                make(&f, k, (enum warm_type) type, 1, 512, 45, DRAW_RANDOM);
                assert_int_equal(warm_matrix_bytes(k, &f.tensor, &bytes), 0);
                memory = aligned_alloc(WARM_MATRIX_ALIGN, bytes);
                assert_non_null(memory);
                warm_matrix_init(k, &f.tensor, memory, &parts);
                warm_matrix_pack(k, &f.tensor, &parts, 32, 45);
                warm_matrix_pack(k, &f.tensor, &parts, 0, 16);
                warm_matrix_pack(k, &f.tensor, &parts, 16, 32);
                assert_memory_equal(memory, f.memory, bytes);
                free(memory);
                drop(&f);
        }
}

static void a_packed_matrix_is_no_larger_than_the_file_form(void **state) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);

        (void) state;
        for (int type = 0; type < _WARM_TYPE_N; type++) {
                struct warm_tensor t = { .data = "", .n_cols = 512, .n_rows = 160 };
                uint64_t row_bytes, bytes;

                t.type = (enum warm_type) type;
                assert_int_equal(warm_type_row_bytes(t.type, 512, &row_bytes), 0);
                t.bytes = row_bytes * 160;
                assert_int_equal(warm_matrix_bytes(k, &t, &bytes), 0);
                assert_int_equal(bytes, t.bytes);
        }
}

static void what_is_not_built_or_not_coherent_is_refused(void **state) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);
        const struct warm_tensor good = {
                .data = "", .n_cols = 64, .n_rows = 4, .bytes = 4 * 68, .type = WARM_TYPE_Q8_0
        };
        struct warm_tensor t = good;
        float scale = 1;
        uint64_t bytes = 7;

        (void) state;
        t.row_scales = &scale;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EOPNOTSUPP);
        t = good, t.group_scales = &scale;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EOPNOTSUPP);
        t = good, t.n_outlier_cols = 1;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EOPNOTSUPP);
        t = good, t.tensor_scale = 2;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EOPNOTSUPP);
        t = good, t.n_cols = 65;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EINVAL);
        t = good, t.bytes--;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EINVAL);
        t = good, t.n_rows = 0;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EINVAL);
        t = good, t.n_cols = 0;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EINVAL);
        t = good, t.data = NULL;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EINVAL);
        t = good, t.n_rows = UINT64_MAX / 2;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), -EOVERFLOW);
        assert_int_equal(bytes, 7);
        t = good, t.tensor_scale = 1;
        assert_int_equal(warm_matrix_bytes(k, &t, &bytes), 0);
}

static void quantized_activations_are_within_half_a_step(void **state) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);
        struct warm_acts a;
        float x[19 * 96];

        (void) state;
        for (int i = 0; i < 19 * 96; i++)
                x[i] = random_float() * (float) (i % 7);
        assert_int_equal(warm_acts_init(&a, 19, 96), 0);
        warm_acts_set(k, &a, x, 96, 96, 0, 19);
        for (uint32_t row = 0; row < 19; row++)
                for (uint32_t i = 0; i < 96; i++) {
                        float scale = a.scales[(row / 16 * 3 + i / 32) * 16 + row % 16];
                        float back = scale * (float) a.q[row * a.q_ld + i];

                        assert_true(fabsf(back - x[row * 96 + i]) <= scale * 0.50001F);
                }
        warm_acts_deinit(&a);
}

static void a_row_with_a_nan_or_an_infinity_gives_nan(void **state) {
        (void) state;
        for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                const struct warm_kernels *k = warm_kernels_get((enum warm_isa) isa);
                struct fixture f;
                float out[3 * 16];

                if (!k)
                        continue;
                make(&f, k, WARM_TYPE_Q8_0, 3, 64, 16, DRAW_RANDOM);
                f.x[5] = NAN;
                f.x[64 + 40] = -INFINITY;
                set_all(k, &f);
                warm_matrix_multiply(k, &f.matrix, &f.acts, 0, 3, 0, 16, out, 16);
                for (int i = 0; i < 16; i++)
                        assert_true(isnan(out[i]) && isnan(out[16 + i]) && isfinite(out[32 + i]));
                drop(&f);
        }
}

/* The definition of matrix.h with everything in double: the error is that of the float accumulation alone. */
static void plain_c_is_the_product_of_what_was_quantized(void **state) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);

        (void) state;
        for (int type = 0; type < _WARM_TYPE_N; type++) {
                struct fixture f;
                float out[5 * 24], w[512];

                make(&f, k, (enum warm_type) type, 5, 512, 24, DRAW_RANDOM);
                set_all(k, &f);
                warm_matrix_multiply(k, &f.matrix, &f.acts, 0, 5, 0, 24, out, 24);
                for (uint32_t i = 0; i < 5 * 24; i++) {
                        uint32_t row = i / 24;
                        double want = 0, size = 0;

                        warm_type_dequantize((enum warm_type) type,
                                             f.data + i % 24 * (f.tensor.bytes / 24), 512, w);
                        for (uint32_t c = 0; c < 512; c++) {
                                double a = (double) f.x[row * 512 + c];

                                if (type > WARM_TYPE_BF16)
                                        a = (double) f.acts.scales[c / 32 * 16 + row] *
                                            f.acts.q[row * f.acts.q_ld + c];
                                want += a * (double) w[c];
                                size += fabs(a * (double) w[c]);
                        }
                        /* 512 additions, each off by at most half a unit of the running sum */
                        assert_true(fabs((double) out[i] - want) <= size * 512 * 0x1p-24);
                }
                drop(&f);
        }
}

static void setting_activations_gives_the_bits_of_plain_c(void **state) {
        (void) state;
        for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                const struct warm_kernels *k = warm_kernels_get((enum warm_isa) isa);

                if (!k)
                        continue;
                for (int draw = 0; draw < _DRAW_N; draw++) {
                        struct fixture f;
                        struct warm_acts want;

                        make(&f, k, WARM_TYPE_Q8_0, 35, 160, 1, (enum draw) draw);
                        f.x[3] = 0.5F, f.x[4] = 127, f.x[5] = -126.5F, f.x[6] = 1.5F;
                        assert_int_equal(warm_acts_init(&want, 35, 160), 0);
                        warm_acts_set(warm_kernels_get(WARM_ISA_PLAIN), &want, f.x, 160, 160, 0,
                                      35);
                        set_all(k, &f);
                        for (uint32_t row = 0; row < 35; row++) {
                                assert_memory_equal(f.acts.q + row * f.acts.q_ld,
                                                    want.q + row * want.q_ld, 160);
                                for (uint32_t b = 0; b < 5; b++) {
                                        uint32_t at = (row / 16 * 5 + b) * 16 + row % 16;
                                        uint32_t at2 = at / 16 * 32 + at % 16;

                                        assert_memory_equal(&f.acts.scales[at], &want.scales[at],
                                                            4);
                                        assert_memory_equal(&f.acts.sums[at], &want.sums[at], 4);
                                        assert_int_equal(f.acts.offsets[at2], want.offsets[at2]);
                                        assert_int_equal(f.acts.offsets[at2 + 16],
                                                         want.offsets[at2 + 16]);
                                }
                        }
                        warm_acts_deinit(&want);
                        drop(&f);
                }
        }
}

/* Multiply with k and with plain C; the whole of out is compared, so a stray write shows. */
static void compare(const struct warm_kernels *k, enum warm_type type, uint32_t n_rows,
                    uint64_t n_cols, uint64_t n_outs, enum draw draw) {
        const struct warm_kernels *plain = warm_kernels_get(WARM_ISA_PLAIN);
        uint64_t ld = n_outs + 5;
        float *want = malloc(n_rows * ld * sizeof(float)), *got = malloc(n_rows * ld * 4);
        uint64_t middle = n_outs / 2 / 16 * 16;
        struct fixture f;

        assert_true(want && got);
        make(&f, k, type, n_rows, n_cols, n_outs, draw);
        set_all(plain, &f);
        memset(want, 0x5a, n_rows * ld * sizeof(float));
        memset(got, 0x5a, n_rows * ld * sizeof(float));
        warm_matrix_multiply(plain, &f.matrix, &f.acts, 0, n_rows, 0, n_outs, want, ld);
        set_all(k, &f);
        warm_matrix_multiply(k, &f.matrix, &f.acts, 0, n_rows, 0, n_outs, got, ld);
        assert_memory_equal(got, want, n_rows * ld * sizeof(float));

        /* Cut among threads: columns in two, rows in two. */
        memset(got, 0x5a, n_rows * ld * sizeof(float));
        warm_matrix_multiply(k, &f.matrix, &f.acts, 0, n_rows, middle, n_outs, got, ld);
        warm_matrix_multiply(k, &f.matrix, &f.acts, n_rows / 3, n_rows, 0, middle, got, ld);
        warm_matrix_multiply(k, &f.matrix, &f.acts, 0, n_rows / 3, 0, middle, got, ld);
        assert_memory_equal(got, want, n_rows * ld * sizeof(float));

        /* One row at a time, as in decoding. */
        memset(got, 0x5a, n_rows * ld * sizeof(float));
        for (uint32_t row = 0; row < n_rows; row++)
                warm_matrix_multiply(k, &f.matrix, &f.acts, row, row + 1, 0, n_outs, got, ld);
        assert_memory_equal(got, want, n_rows * ld * sizeof(float));
        drop(&f);
        free(want);
        free(got);
}

static void every_instruction_set_gives_the_bits_of_plain_c(void **state) {
        static const struct {
                uint32_t n_rows;
                uint32_t n_blocks;
                uint32_t n_outs;
        } shapes[] = { { 1, 1, 16 },  { 1, 3, 1 },   { 2, 2, 17 },  { 3, 1, 40 },
                       { 4, 5, 33 },  { 5, 3, 64 },  { 8, 2, 100 }, { 16, 2, 48 },
                       { 17, 3, 35 }, { 31, 1, 80 }, { 67, 3, 70 } };

        (void) state;
        for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                const struct warm_kernels *k = warm_kernels_get((enum warm_isa) isa);

                if (!k)
                        continue;
                for (int type = 0; type < _WARM_TYPE_N; type++)
                        for (unsigned int s = 0; s < sizeof(shapes) / sizeof(*shapes); s++)
                                compare(k, (enum warm_type) type, shapes[s].n_rows,
                                        shapes[s].n_blocks * block_of((enum warm_type) type),
                                        shapes[s].n_outs, (enum draw)(s % _DRAW_N));
                print_message("%s: equal\n", warm_isa_name((enum warm_isa) isa));
        }
}

static void extreme_values_and_long_rows_give_the_bits_of_plain_c(void **state) {
        (void) state;
        for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                const struct warm_kernels *k = warm_kernels_get((enum warm_isa) isa);

                if (!k)
                        continue;
                for (int type = 0; type < _WARM_TYPE_N; type++)
                        for (int draw = 0; draw < _DRAW_N; draw++) {
                                compare(k, (enum warm_type) type, 33, 512, 21, (enum draw) draw);
                                compare(k, (enum warm_type) type, 18, 2304, 16, (enum draw) draw);
                        }
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_row_comes_back_as_the_type_defines_it),
                cmocka_unit_test(packing_in_parts_gives_the_same_bytes_as_at_once),
                cmocka_unit_test(a_packed_matrix_is_no_larger_than_the_file_form),
                cmocka_unit_test(what_is_not_built_or_not_coherent_is_refused),
                cmocka_unit_test(quantized_activations_are_within_half_a_step),
                cmocka_unit_test(a_row_with_a_nan_or_an_infinity_gives_nan),
                cmocka_unit_test(plain_c_is_the_product_of_what_was_quantized),
                cmocka_unit_test(setting_activations_gives_the_bits_of_plain_c),
                cmocka_unit_test(every_instruction_set_gives_the_bits_of_plain_c),
                cmocka_unit_test(extreme_values_and_long_rows_give_the_bits_of_plain_c),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
