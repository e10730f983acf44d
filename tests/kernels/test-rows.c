/* SPDX-License-Identifier: Apache-2.0 */
/* Row operations: plain C against double, every instruction set against plain C by memcmp. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/rows.h"

#define N_MAX 1600

static uint64_t random_state = 88172645463325252ULL;

static uint32_t random_u32(void) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return (uint32_t) (random_state >> 32);
}

static float random_float(float size) {
        return ((float) (random_u32() >> 8) * 0x1p-23F - 1) * size;
}

static float float_of(uint32_t bits) {
        float f;

        memcpy(&f, &bits, sizeof(f));
        return f;
}

/* Distance in units of the last place of the exact result. */
static double ulps(float got, double want) {
        int exponent;

        frexp(want, &exponent);
        return fabs((double) got - want) / ldexp(1, exponent - 24);
}

static void exp_is_within_two_units_in_the_last_place(void **state) {
        double worst = 0;

        (void) state;
        for (uint32_t bits = 0; bits < 0x42b20000; bits += 97) /* 0 .. 89 */
                for (int sign = -1; sign <= 1; sign += 2) {
                        float x = (float) sign * float_of(bits);
                        double e = ulps(warm_expf(x), exp((double) x));

                        if (x <= WARM_EXP_MAX && x >= WARM_EXP_MIN && e > worst)
                                worst = e;
                }
        print_message("largest error %.3f units\n", worst);
        assert_true(worst <= 2);
}

static void exp_at_its_ends(void **state) {
        (void) state;
        assert_true(warm_expf(0) == 1);
        assert_true(warm_expf(-0.0F) == 1);
        assert_true(isfinite(warm_expf(WARM_EXP_MAX)));
        assert_true(isinf(warm_expf(nextafterf(WARM_EXP_MAX, 100))));
        assert_true(isnormal(warm_expf(WARM_EXP_MIN)));
        assert_true(warm_expf(nextafterf(WARM_EXP_MIN, -100)) == 0);
        assert_true(warm_expf(-INFINITY) == 0);
        assert_true(isinf(warm_expf(INFINITY)));
        assert_true(isnan(warm_expf(NAN)));
}

static void rms_norm_divides_by_the_root_of_the_mean_square(void **state) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);
        float x[100], weight[100], out[100];
        double squares = 0;

        (void) state;
        for (int i = 0; i < 100; i++) {
                x[i] = random_float(3);
                weight[i] = random_float(2);
                squares += (double) x[i] * (double) x[i];
        }
        warm_rms_norm(k, x, weight, 1e-6F, out, 100);
        for (int i = 0; i < 100; i++) {
                double want = (double) x[i] / sqrt(squares / 100 + 1e-6) * (double) weight[i];

                assert_true(fabs((double) out[i] - want) <= 1e-6 * fabs(want));
        }
}

static void silu_is_the_gate_times_its_sigmoid(void **state) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);

        (void) state;
        for (int i = 0; i < 1000; i++) {
                float gate = random_float(30), up = random_float(4), out;
                double want = (double) gate / (1 + exp(-(double) gate)) * (double) up;

                warm_silu_times(k, &gate, &up, &out, 1);
                assert_true(fabs((double) out - want) <= 1e-6 * fabs(want));
        }
}

static void exp_sum_gives_each_exponential_and_their_sum(void **state) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);
        float x[77], out[77], sum;
        double want = 0;

        (void) state;
        for (int i = 0; i < 77; i++)
                x[i] = random_float(10);
        sum = warm_exp_sum(k, x, 1.5F, out, 77);
        for (int i = 0; i < 77; i++) {
                assert_true(out[i] == warm_expf(x[i] - 1.5F));
                want += (double) out[i];
        }
        assert_true(fabs((double) sum - want) <= 1e-6 * want);
        assert_true(warm_exp_sum(k, x, 0, out, 0) == 0);
        assert_true(isinf(warm_max(k, x, 0)));
}

/* All five operations of k on n elements into out [4][N_MAX + 1], results last. */
static void run_all(const struct warm_kernels *k, const float *x, const float *y, uint64_t n,
                    float *out) {
        memset(out, 0x5a, 5 * N_MAX * sizeof(float));
        if (n > 0)
                warm_rms_norm(k, x, y, 1e-5F, out, n);
        warm_silu_times(k, x, y, out + N_MAX, n);
        warm_add(k, x, y, out + 2 * N_MAX, n);
        out[4 * N_MAX] = warm_exp_sum(k, x, 0.25F, out + 3 * N_MAX, n);
        out[4 * N_MAX + 1] = warm_max(k, x, n);
}

static void every_instruction_set_gives_the_bits_of_plain_c(void **state) {
        static float x[N_MAX], y[N_MAX], want[5 * N_MAX], got[5 * N_MAX];
        static const uint64_t sizes[] = { 0,  1,  2,  3,   7,   8,   9,    15,   16,  17,
                                          31, 33, 48, 100, 512, 576, 1535, 1536, 1600 };

        (void) state;
        for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                const struct warm_kernels *k = warm_kernels_get((enum warm_isa) isa);

                if (!k)
                        continue;
                for (unsigned int s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
                        for (int round = 0; round < 20; round++) {
                                for (uint64_t i = 0; i < sizes[s]; i++) {
                                        x[i] = random_float(round % 4 ? 8 : 120);
                                        y[i] = random_float(1);
                                        if (round == 5)
                                                x[i] *= 0x1p-140F; /* denormal */
                                        if (round == 6)
                                                x[i] = i % 2 ? 0.0F : -0.0F;
                                }
                                run_all(warm_kernels_get(WARM_ISA_PLAIN), x, y, sizes[s], want);
                                run_all(k, x, y, sizes[s], got);
                                assert_memory_equal(got, want, sizeof(want));
                        }
                }
                print_message("%s: equal\n", warm_isa_name((enum warm_isa) isa));
        }
}

static void an_operation_may_write_over_its_input(void **state) {
        static float x[N_MAX], y[N_MAX], want[N_MAX];

        (void) state;
        for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                const struct warm_kernels *k = warm_kernels_get((enum warm_isa) isa);

                if (!k)
                        continue;
                for (uint64_t i = 0; i < 37; i++)
                        x[i] = random_float(4), y[i] = random_float(4);
                warm_silu_times(k, x, y, want, 37);
                warm_rms_norm(k, want, y, 1e-6F, want, 37);
                warm_silu_times(k, x, y, x, 37);
                warm_rms_norm(warm_kernels_get(WARM_ISA_PLAIN), x, y, 1e-6F, x, 37);
                assert_memory_equal(x, want, 37 * sizeof(float));
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(exp_is_within_two_units_in_the_last_place),
                cmocka_unit_test(exp_at_its_ends),
                cmocka_unit_test(rms_norm_divides_by_the_root_of_the_mean_square),
                cmocka_unit_test(silu_is_the_gate_times_its_sigmoid),
                cmocka_unit_test(exp_sum_gives_each_exponential_and_their_sum),
                cmocka_unit_test(every_instruction_set_gives_the_bits_of_plain_c),
                cmocka_unit_test(an_operation_may_write_over_its_input),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
