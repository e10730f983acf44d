/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and conversions of element types; test-dequantize.py holds the block formats. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/quant.h"

static float float_of(uint32_t bits) {
        float f;

        memcpy(&f, &bits, sizeof(f));
        return f;
}

static uint32_t bits_of(float f) {
        uint32_t bits;

        memcpy(&bits, &f, sizeof(bits));
        return bits;
}

/* The definition, by ldexp. */
static double half_value(uint16_t h) {
        int exponent = h >> 10 & 31, fraction = h & 1023;
        double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);

        return h & 0x8000 ? -size : size;
}

static void every_half_becomes_the_float_it_stands_for(void **state) {
        (void) state;
        for (uint32_t h = 0; h < 65536; h++) {
                float f = warm_half_to_float((uint16_t) h);

                if ((h & 0x7c00) != 0x7c00) {
                        assert_true((double) f == half_value((uint16_t) h));
                        assert_int_equal(signbit(f) != 0, h >> 15);
                } else if (h & 0x3ff) {
                        assert_true(isnan(f));
                } else {
                        assert_true(isinf(f) && (f < 0) == (h >> 15 != 0));
                }
        }
}

static void every_half_survives_the_way_to_float_and_back(void **state) {
        (void) state;
        for (uint32_t h = 0; h < 65536; h++) {
                uint16_t back = warm_float_to_half(warm_half_to_float((uint16_t) h));

                if ((h & 0x7c00) == 0x7c00 && h & 0x3ff)
                        assert_true((back & 0x7c00) == 0x7c00 && back & 0x3ff);
                else
                        assert_int_equal(back, h);
        }
}

static void a_float_between_two_halves_goes_to_the_nearer_and_ties_go_to_even(void **state) {
        (void) state;
        for (uint16_t h = 0; h < 0x7bff; h++) {
                double low = half_value(h), high = half_value((uint16_t) (h + 1));
                float middle = (float) ((low + high) / 2); /* exact: 12 bits */
                uint16_t even = h & 1 ? (uint16_t) (h + 1) : h;

                assert_int_equal(warm_float_to_half(middle), even);
                assert_int_equal(warm_float_to_half(-middle), even | 0x8000);
                assert_int_equal(warm_float_to_half(nextafterf(middle, 0)), h);
                assert_int_equal(warm_float_to_half(nextafterf(middle, INFINITY)), h + 1);
        }
        assert_int_equal(warm_float_to_half(65519.996F), 0x7bff);
        assert_int_equal(warm_float_to_half(65520.0F), 0x7c00);
        assert_int_equal(warm_float_to_half(INFINITY), 0x7c00);
        assert_int_equal(warm_float_to_half(-INFINITY), 0xfc00);
        assert_true((warm_float_to_half(NAN) & 0x7fff) > 0x7c00);
}

static void bfloat16_is_the_upper_half_of_a_float_rounded_to_even(void **state) {
        (void) state;
        assert_int_equal(bits_of(warm_bf16_to_float(0x3fc0)), 0x3fc00000);
        assert_int_equal(warm_float_to_bf16(1.5F), 0x3fc0);
        assert_int_equal(warm_float_to_bf16(float_of(0x3f808000)), 0x3f80); /* tie, even below */
        assert_int_equal(warm_float_to_bf16(float_of(0x3f818000)), 0x3f82); /* tie, even above */
        assert_int_equal(warm_float_to_bf16(float_of(0x3f808001)), 0x3f81);
        assert_int_equal(warm_float_to_bf16(float_of(0x7f7fffff)), 0x7f80);
        assert_int_equal(warm_float_to_bf16(-INFINITY), 0xff80);
        assert_int_equal(warm_float_to_bf16(float_of(0x7f800001)), 0x7fc0);
}

static void row_bytes_are_blocks_times_their_bytes(void **state) {
        uint64_t bytes = 7;

        (void) state;
        assert_int_equal(warm_type_row_bytes(WARM_TYPE_Q4_K, 512, &bytes), 0);
        assert_int_equal(bytes, 288);
        assert_int_equal(warm_type_row_bytes(WARM_TYPE_F16, 3, &bytes), 0);
        assert_int_equal(bytes, 6);
        assert_int_equal(warm_type_row_bytes(WARM_TYPE_Q8_0, 0, &bytes), 0);
        assert_int_equal(bytes, 0);
}

static void rows_of_broken_blocks_and_of_overflowing_size_are_refused(void **state) {
        uint64_t bytes = 7;

        (void) state;
        assert_int_equal(warm_type_row_bytes(WARM_TYPE_Q4_K, 128, &bytes), -EINVAL);
        assert_int_equal(warm_type_row_bytes(WARM_TYPE_Q8_0, 33, &bytes), -EINVAL);
        assert_int_equal(warm_type_row_bytes(WARM_TYPE_F32, UINT64_MAX / 4 + 1, &bytes),
                         -EOVERFLOW);
        assert_int_equal(warm_type_row_bytes(WARM_TYPE_Q8_0, UINT64_MAX - 31, &bytes), -EOVERFLOW);
        assert_int_equal(bytes, 7);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_half_becomes_the_float_it_stands_for),
                cmocka_unit_test(every_half_survives_the_way_to_float_and_back),
                cmocka_unit_test(a_float_between_two_halves_goes_to_the_nearer_and_ties_go_to_even),
                cmocka_unit_test(bfloat16_is_the_upper_half_of_a_float_rounded_to_even),
                cmocka_unit_test(row_bytes_are_blocks_times_their_bytes),
                cmocka_unit_test(rows_of_broken_blocks_and_of_overflowing_size_are_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
