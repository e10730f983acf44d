/* SPDX-License-Identifier: Apache-2.0 */
/* How long a device's step is slept through: never longer than it takes. Needs no device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kernels/backend.h"
#include "kernels/cuda/expect.h"

static void of_an_unknown_kind_nothing_is_expected(void **state) {
        struct warm_cuda_expected e = { 0 };

        (void) state;
        assert_int_equal(warm_cuda_expected_ns(&e, 1), 0);
        assert_int_equal(warm_cuda_expected_ns(&e, WARM_STEP_ROWS_MAX), 0);
}

static void the_first_of_a_kind_counts_half(void **state) {
        struct warm_cuda_expected e = { 0 };

        (void) state;
        warm_cuda_took(&e, 1, 3000, true);
        assert_int_equal(warm_cuda_expected_ns(&e, 1), 1500);
        warm_cuda_took(&e, 1, 2000, true);
        assert_int_equal(warm_cuda_expected_ns(&e, 1), 2000);
}

static void a_step_found_done_is_looked_for_earlier_the_next_time(void **state) {
        struct warm_cuda_expected e = { .ns = 2000, .n_rows = 1 };

        (void) state;
        warm_cuda_took(&e, 1, 1990, false);
        assert_int_equal(warm_cuda_expected_ns(&e, 1), 1000);
}

static void more_rows_take_as_long_at_least_and_fewer_their_share(void **state) {
        struct warm_cuda_expected e = { .ns = 7000000, .n_rows = 128 };

        (void) state;
        assert_int_equal(warm_cuda_expected_ns(&e, 2048), 7000000);
        assert_int_equal(warm_cuda_expected_ns(&e, 128), 7000000);
        assert_int_equal(warm_cuda_expected_ns(&e, 64), 3500000);
}

static void every_width_has_a_place(void **state) {
        (void) state;
        assert_int_equal(warm_cuda_width(0), 0);
        assert_int_equal(warm_cuda_width(1), 0);
        assert_int_equal(warm_cuda_width(127), 6);
        assert_int_equal(warm_cuda_width(128), 7);
        assert_int_equal(warm_cuda_width(WARM_STEP_ROWS_MAX), WARM_CUDA_WIDTHS - 1);
}

/* Steps that take a + b n, in any order of n: what was 7.3 ms of 128 rows made 117 ms of 2,048 that take 54. */
static void no_step_is_slept_through_however_they_follow(void **state) {
        struct warm_cuda_expected kinds[WARM_CUDA_WIDTHS] = { 0 };
        unsigned seed = 1, n_seen[WARM_CUDA_WIDTHS] = { 0 };

        (void) state;
        for (unsigned i = 0; i < 20000; i++) {
                uint32_t n = 1 + (uint32_t) rand_r(&seed) % WARM_STEP_ROWS_MAX;
                struct warm_cuda_expected *e = &kinds[warm_cuda_width(n)];
                uint64_t takes = 3600000 + 25000ULL * n;

                assert_true(warm_cuda_expected_ns(e, n) <= takes);
                /* Nor does a core spin for long: of one width, rows differ by less than two. */
                if (n_seen[warm_cuda_width(n)]++ >= 2)
                        assert_true(2 * warm_cuda_expected_ns(e, n) >= takes);
                warm_cuda_took(e, n, takes, true);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(of_an_unknown_kind_nothing_is_expected),
                cmocka_unit_test(the_first_of_a_kind_counts_half),
                cmocka_unit_test(a_step_found_done_is_looked_for_earlier_the_next_time),
                cmocka_unit_test(more_rows_take_as_long_at_least_and_fewer_their_share),
                cmocka_unit_test(every_width_has_a_place),
                cmocka_unit_test(no_step_is_slept_through_however_they_follow),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
