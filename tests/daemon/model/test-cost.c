/* SPDX-License-Identifier: Apache-2.0 */
/* What a step costs, counted by hand for a plan of two layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "daemon/model/cost.h"

#define MATRIX(rows, cols)                                                                         \
        ((struct warm_tensor){ .n_rows = rows, .n_cols = cols, .bytes = (rows) * (cols) })
#define VECTOR(n) ((struct warm_tensor){ .n_rows = 1, .n_cols = n, .bytes = 4 * (n) })

static void what_a_step_reads_and_multiplies_is_counted_once(void **state) {
        struct warm_plan_layer layers[2] = {
                { .n_heads = 4, .n_kv_heads = 2, .head_dim_k = 2, .head_dim_v = 2 },
        };
        struct warm_plan plan = { .n_layers = 2, .layers = layers };
        struct warm_cost cost;

        (void) state;
        layers[0].q = MATRIX(8, 8);
        layers[0].k = layers[0].v = MATRIX(4, 8);
        layers[0].o = MATRIX(8, 8);
        layers[0].gate = layers[0].up = MATRIX(16, 8);
        layers[0].down = MATRIX(8, 16);
        layers[0].mixer_norm = layers[0].ffn_norm = layers[0].q_bias = VECTOR(8);
        layers[1] = layers[0];
        plan.embedding = MATRIX(100, 8);
        plan.output_norm = VECTOR(8);

        warm_cost_of_plan(&plan, &cost); /* tied: the embedding is the output */
        assert_int_equal(cost.row_flop, 2 * 2 * (64 + 32 + 32 + 64 + 3 * 128));
        assert_int_equal(cost.visible_flop, 2 * 2 * 4 * (2 + 2));
        assert_int_equal(cost.output_flop, 2 * 800);
        assert_int_equal(cost.weights_bytes, 2 * (64 + 32 + 32 + 64 + 3 * 128 + 3 * 32) + 800 + 32);

        plan.output = MATRIX(100, 8);
        plan.output.bytes = 400; /* of another type: then that is what is read */
        warm_cost_of_plan(&plan, &cost);
        assert_int_equal(cost.weights_bytes, 2 * (64 + 32 + 32 + 64 + 3 * 128 + 3 * 32) + 400 + 32);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_a_step_reads_and_multiplies_is_counted_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
