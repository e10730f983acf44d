/* SPDX-License-Identifier: Apache-2.0 */
/* Healing where the vocabulary has nothing that goes on: the piece's own tokens are forced. */
#include <string.h>

#include "harness.h"
#include "sched/heal.h"

static struct warm_prompt piece(const char *bytes, const int32_t *ids, uint32_t n_ids) {
        struct warm_prompt p = { .n_heal = (uint32_t) strlen(bytes), .n_heal_ids = n_ids };

        memcpy(p.heal, bytes, p.n_heal);
        memcpy(p.heal_ids, ids, n_ids * sizeof(*ids));
        return p;
}

static void the_own_tokens_count_only_from_where_one_starts(void **state) {
        static const int32_t bytes[] = { 'f', 'o', 'r' };
        struct warm_model *m = fake_model_new("a", 64);
        int32_t merged = -1;
        struct warm_prompt p;
        struct warm_heal h = { .prompt = &p };
        uint32_t first;

        (void) state;
        for (int32_t id = 256; id < (int32_t) FAKE_VOCAB - 16; id++)
                if (warm_vocab_text(m->vocab, id).n == 3 &&
                    memcmp(warm_vocab_text(m->vocab, id).data, "for", 3) == 0)
                        merged = id;
        assert_true(merged >= 256);

        p = piece("for", bytes, 3);
        for (uint32_t n = 0; n < 3; n++) {
                h.n_spelled = n;
                assert_true(warm_heal_canonical(&h, m->vocab, &first));
                assert_int_equal(first, n);
        }
        p = piece("for", &merged, 1);
        h.n_spelled = 0;
        assert_true(warm_heal_canonical(&h, m->vocab, &first));
        assert_int_equal(first, 0);
        h.n_spelled = 1;
        assert_false(warm_heal_canonical(&h, m->vocab, &first));
        /* A space in front that the vocabulary adds belongs to no byte of the piece. */
        p = piece("for", (const int32_t[]){ ' ', merged }, 2);
        h.n_spelled = 0;
        assert_true(warm_heal_canonical(&h, m->vocab, &first));
        assert_int_equal(first, 1);
        p = piece("far", bytes, 3);
        assert_false(warm_heal_canonical(&h, m->vocab, &first));
        p = piece("for", bytes, 2);
        assert_false(warm_heal_canonical(&h, m->vocab, &first));
        warm_model_free(m);
}

static void taking_spells_no_further_than_the_piece(void **state) {
        static const int32_t bytes[] = { 'f', 'o', 'r' };
        struct warm_prompt p = piece("for", bytes, 3);
        struct warm_heal h = { .prompt = &p };

        (void) state;
        warm_heal_take(&h, (struct warm_string){ "f", 1 });
        assert_int_equal(warm_heal_left(&h), 2);
        warm_heal_take(&h, (struct warm_string){ "or (", 4 });
        assert_int_equal(warm_heal_left(&h), 0);
}

static void what_no_token_may_spell_is_forced(void **state) {
        static const char *const pieces[] = { "\001", "\001ab", "re\001", "\001\001\001",
                                              "x\001y" };
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        for (uint32_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]) * 3; i++) {
                const char *bytes = pieces[i / 3];
                struct warm_request *r;
                char text[64] = "before the piece ";

                strcat(text, bytes);
                r = harness_complete(&h, text, (uint32_t) strlen(bytes), 12);
                r->n = 1 + i % 3;
                harness_run(&h, r);
                harness_check(&h, r);
                /* "r" and "re" are all that may start "re\001". */
                if (bytes[0] == 1) {
                        assert_int_equal(r->n_answers, r->n);
                        assert_int_equal(r->n_heal_steps, 0);
                } else {
                        assert_true(r->n_answers <= 2);
                }
                warm_request_free(r);
        }
        harness_end(&h);
}

static void a_piece_that_nothing_can_spell_ends_the_answer(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        r = harness_complete(&h, "before \001", 1, 12);
        r->prompt.n_heal_ids = 0;
        harness_run(&h, r);
        assert_int_equal(r->failure, WARM_FAILURE_NONE);
        assert_int_equal(r->answers[0].finish, WARM_FINISH_END);
        assert_int_equal(r->answers[0].n_ids, 0);
        warm_request_free(r);
        harness_end(&h);
}

static void forced_tokens_stop_at_the_end_of_the_context(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ .n_context = 32 });
        r = harness_complete(&h, "thirty bytes are before it ...\001\001\001\001", 4, 12);
        harness_run(&h, r);
        assert_int_equal(r->answers[0].finish, WARM_FINISH_LENGTH);
        assert_int_equal(warm_answer_text(r->answers[0].answer).n, 0);
        warm_request_free(r);
        harness_end(&h);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_own_tokens_count_only_from_where_one_starts),
                cmocka_unit_test(taking_spells_no_further_than_the_piece),
                cmocka_unit_test(what_no_token_may_spell_is_forced),
                cmocka_unit_test(a_piece_that_nothing_can_spell_ends_the_answer),
                cmocka_unit_test(forced_tokens_stop_at_the_end_of_the_context),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
