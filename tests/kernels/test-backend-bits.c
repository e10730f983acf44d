/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Same bits: logits compared by memcmp however the prompt was cut, whatever else is in the step, on any number of
 * threads, instruction set and block table. KV memory starts out as NaN everywhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runner.h"

#define N_TOKENS 300U /* across a span's border at 256 */
#define N_FEW    84U  /* for many shapes: across tiles and a window */

static const struct tiny_shape *shape_named(const char *name) {
        for (const struct tiny_shape *s = tiny_shapes; s->name; s++)
                if (strcmp(s->name, name) == 0)
                        return s;
        abort();
}

static float *logits_new(const struct tiny_shape *s) {
        float *logits = calloc((size_t) N_TOKENS * s->n_vocab, sizeof(*logits));

        assert_non_null(logits);
        return logits;
}

static void tokens_random(int32_t *tokens, uint32_t n, uint32_t n_vocab, uint64_t seed) {
        for (uint32_t i = 0; i < n; i++)
                tokens[i] = (int32_t) (tiny_random_bits(&seed) % n_vocab);
}

/* Logits of every token, the prompt cut into random pieces of at most piece_max. */
static void compute(const struct tiny *t, const int32_t *tokens, enum warm_isa isa,
                    uint32_t n_threads, enum warm_type kv_type, uint64_t table_seed,
                    uint32_t n_tokens, uint32_t piece_max, float *logits) {
        struct runner r;
        uint64_t state = piece_max;

        runner_init(&r, &t->plan, isa, n_threads, kv_type, table_seed);
        for (uint32_t at = 0, n; at < n_tokens; at += n) {
                n = 1 + (uint32_t) (tiny_random_bits(&state) % piece_max);
                n = n > n_tokens - at ? n_tokens - at : n;
                runner_step(&r, tokens, at, at + n, logits);
        }
        runner_deinit(&r);
}

static void every_shape_is_the_same_in_one_step_and_in_many(void **state) {
        (void) state;
        for (const struct tiny_shape *s = tiny_shapes; s->name; s++) {
                struct tiny *t = tiny_new(s, 7);
                float *whole = logits_new(s), *cut = logits_new(s);
                int32_t tokens[N_TOKENS];

                tokens_random(tokens, N_FEW, s->n_vocab, 3);
                compute(t, tokens, _WARM_ISA_N, 2, WARM_TYPE_F16, 0, N_FEW, 4096, whole);
                compute(t, tokens, _WARM_ISA_N, 2, WARM_TYPE_F16, 5, N_FEW, 1, cut);
                if (memcmp(whole, cut, (size_t) N_FEW * s->n_vocab * sizeof(float)))
                        fail_msg("%s: decode differs from prefill", s->name);
                compute(t, tokens, _WARM_ISA_N, 3, WARM_TYPE_F16, 6, N_FEW, 50, cut);
                if (memcmp(whole, cut, (size_t) N_FEW * s->n_vocab * sizeof(float)))
                        fail_msg("%s: a cut prompt differs", s->name);
                for (uint32_t i = 0; i < N_FEW * s->n_vocab; i++)
                        if (!(whole[i] > -1e9F && whole[i] < 1e9F))
                                fail_msg("%s: logit %u is %f", s->name, i, (double) whole[i]);
                free(whole);
                free(cut);
                tiny_free(t);
        }
}

static void every_instruction_set_gives_the_bits_of_plain_c(void **state) {
        const char *names[] = { "qwen2", "head-80-96", "soft-cap", "window", "gelu-tanh" };
        const enum warm_type kv_types[] = { WARM_TYPE_F16, WARM_TYPE_BF16, WARM_TYPE_F32 };

        (void) state;
        for (uint32_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
                const struct tiny_shape *s = shape_named(names[i]);
                struct tiny *t = tiny_new(s, 11 + i);
                float *plain = logits_new(s), *other = logits_new(s);
                int32_t tokens[N_TOKENS];
                enum warm_type kv = kv_types[i % 3];

                tokens_random(tokens, N_TOKENS, s->n_vocab, i);
                compute(t, tokens, WARM_ISA_PLAIN, 1, kv, 0, N_FEW, 40, plain);
                for (int isa = WARM_ISA_PLAIN + 1; isa < _WARM_ISA_N; isa++) {
                        if (!warm_isa_present((enum warm_isa) isa))
                                continue;
                        compute(t, tokens, (enum warm_isa) isa, 1, kv, 0, N_FEW, 40, other);
                        if (memcmp(plain, other, (size_t) N_FEW * s->n_vocab * sizeof(float)))
                                fail_msg("%s: %s differs from plain C", s->name,
                                         warm_isa_name((enum warm_isa) isa));
                }
                free(plain);
                free(other);
                tiny_free(t);
        }
}

static void the_number_of_threads_changes_no_bit(void **state) {
        const struct tiny_shape *s = shape_named("qwen2");
        struct tiny *t = tiny_new(s, 23);
        float *one = logits_new(s), *more = logits_new(s);
        int32_t tokens[N_TOKENS];

        (void) state;
        tokens_random(tokens, N_TOKENS, s->n_vocab, 9);
        compute(t, tokens, _WARM_ISA_N, 1, WARM_TYPE_F16, 0, N_TOKENS, 70, one);
        for (uint32_t n = 2; n <= 4; n++) {
                compute(t, tokens, _WARM_ISA_N, n, WARM_TYPE_F16, n, N_TOKENS, 70, more);
                assert_memory_equal(one, more, (size_t) N_TOKENS * s->n_vocab * sizeof(float));
        }
        free(one);
        free(more);
        tiny_free(t);
}

/* Three sequences, each at its own place, in one step, in shuffled company: as each alone. */
static void a_row_does_not_know_its_neighbours(void **state) {
        enum { N_SEQUENCES = 3, BLOCKS = RUNNER_BLOCKS / N_SEQUENCES };
        const struct tiny_shape *s = shape_named("window");
        struct tiny *t = tiny_new(s, 31);
        int32_t tokens[N_SEQUENCES][N_TOKENS];
        struct warm_row rows[N_SEQUENCES * 64];
        struct warm_result results[N_SEQUENCES * 64];
        struct warm_step_sequence sequences[N_SEQUENCES];
        float *alone[N_SEQUENCES], *mixed[N_SEQUENCES];
        uint32_t at[N_SEQUENCES] = { 0 }, n_done = 0;
        uint64_t random = 77, ticket;
        struct runner r;

        (void) state;
        runner_init(&r, &t->plan, _WARM_ISA_N, 2, WARM_TYPE_F16, 13);
        for (uint32_t i = 0; i < N_SEQUENCES; i++) {
                alone[i] = logits_new(s);
                mixed[i] = logits_new(s);
                tokens_random(tokens[i], N_TOKENS, s->n_vocab, 100 + i);
                compute(t, tokens[i], _WARM_ISA_N, 1, WARM_TYPE_F16, i, N_TOKENS, 128, alone[i]);
                sequences[i] = (struct warm_step_sequence){
                        .blocks = { r.table[0] + i * BLOCKS, r.table[1] + i * BLOCKS },
                        .n_blocks = BLOCKS,
                };
        }
        while (n_done < N_SEQUENCES) {
                struct warm_step step = {
                        .sequences = sequences,
                        .n_sequences = N_SEQUENCES,
                        .rows = rows,
                };
                uint32_t budget[N_SEQUENCES], left = 0;

                for (uint32_t i = 0; i < N_SEQUENCES; i++) {
                        budget[i] = (uint32_t) (tiny_random_bits(&random) % 64);
                        if (budget[i] > N_TOKENS - at[i])
                                budget[i] = N_TOKENS - at[i];
                        left += budget[i];
                }
                while (left > 0) { /* sequences interleaved at random */
                        uint32_t i = (uint32_t) (tiny_random_bits(&random) % N_SEQUENCES), n;

                        if (budget[i] == 0)
                                continue;
                        n = step.n_rows++;
                        rows[n] = runner_row(tokens[i][at[i]], at[i]);
                        rows[n].sequence = (uint16_t) i;
                        rows[n].want = WARM_WANT_LOGITS;
                        rows[n].result = &results[n];
                        results[n].logits = mixed[i] + (size_t) at[i] * s->n_vocab;
                        budget[i]--;
                        left--;
                        n_done += ++at[i] == N_TOKENS;
                }
                assert_int_equal(warm_step_submit(r.backend, r.weights, &step, &ticket), 0);
        }
        for (uint32_t i = 0; i < N_SEQUENCES; i++) {
                assert_memory_equal(alone[i], mixed[i],
                                    (size_t) N_TOKENS * s->n_vocab * sizeof(float));
                free(alone[i]);
                free(mixed[i]);
        }
        runner_deinit(&r);
        tiny_free(t);
}

/* In the last layer only rows that want something go on: the others' KV must not suffer. */
static void rows_that_want_nothing_leave_the_same_kv(void **state) {
        const struct tiny_shape *s = shape_named("qwen3");
        struct tiny *t = tiny_new(s, 41);
        float *all = logits_new(s), *last = logits_new(s);
        int32_t tokens[N_TOKENS];
        struct runner r;

        (void) state;
        tokens_random(tokens, N_TOKENS, s->n_vocab, 1);
        compute(t, tokens, _WARM_ISA_N, 2, WARM_TYPE_F16, 0, N_TOKENS, 90, all);
        runner_init(&r, &t->plan, _WARM_ISA_N, 2, WARM_TYPE_F16, 2);
        runner_step(&r, tokens, 0, 200, NULL);
        runner_step(&r, tokens, 200, N_TOKENS - 1, NULL);
        runner_step(&r, tokens, N_TOKENS - 1, N_TOKENS, last);
        assert_memory_equal(all + (size_t) (N_TOKENS - 1) * s->n_vocab,
                            last + (size_t) (N_TOKENS - 1) * s->n_vocab,
                            s->n_vocab * sizeof(float));
        runner_deinit(&r);
        free(all);
        free(last);
        tiny_free(t);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_shape_is_the_same_in_one_step_and_in_many),
                cmocka_unit_test(every_instruction_set_gives_the_bits_of_plain_c),
                cmocka_unit_test(the_number_of_threads_changes_no_bit),
                cmocka_unit_test(a_row_does_not_know_its_neighbours),
                cmocka_unit_test(rows_that_want_nothing_leave_the_same_kv),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
