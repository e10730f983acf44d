/* SPDX-License-Identifier: Apache-2.0 */
/* What a request gets back: every kind, alone and with others in the batch. */
#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

static const char prompt[] =
        "the quick brown fox jumps over the lazy dog and then it goes on for more";

static void a_completion_is_what_the_slow_twin_says(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        r = harness_complete(&h, prompt, 0, 40);
        harness_run(&h, r);
        harness_check(&h, r);
        assert_int_equal(r->hit.n_tokens, 0);
        assert_true(r->done_ns >= r->first_ns && r->first_ns > r->arrival_ns);
        assert_true(r->engine_ns > 0 && r->engine_ns <= r->done_ns - r->arrival_ns);
        warm_request_free(r);
        harness_end(&h);
}

static void the_same_again_comes_from_the_cache_with_the_same_answer(void **state) {
        struct harness h;
        uint32_t n = (uint32_t) strlen(prompt);

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        for (uint32_t i = 0; i < 3; i++) {
                struct warm_request *r = harness_complete(&h, prompt, 0, 20);

                harness_run(&h, r);
                harness_check(&h, r);
                assert_int_equal(r->hit.n_tokens, i == 0 ? 0 : n - 1);
                warm_request_free(r);
        }
        harness_end(&h);
}

static void any_cut_of_the_prompt_gives_the_same_answer(void **state) {
        char text[400];

        (void) state;
        for (uint32_t i = 0; i < sizeof(text) - 1; i++)
                text[i] = (char) ('a' + i * i % 26);
        text[sizeof(text) - 1] = 0;
        for (uint64_t seed = 1; seed <= 8; seed++) {
                struct harness h;
                struct warm_request *r;

                harness_start(&h, (struct harness_options){ .cut_seed = seed });
                r = harness_complete(&h, text, 0, 12);
                harness_run(&h, r);
                harness_check(&h, r);
                warm_request_free(r);
                harness_end(&h);
        }
}

static void healing_spells_the_piece_and_the_reply_starts_after_it(void **state) {
        static const char *const pieces[] = { "re", "ret", "r", "retur", "int", "f", "xyz", "e" };
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        for (uint32_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
                struct warm_request *r;
                char text[64];

                snprintf(text, sizeof(text), "if (a > b) { %s", pieces[i]);
                r = harness_complete(&h, text, (uint32_t) strlen(pieces[i]), 10);
                harness_run(&h, r);
                harness_check(&h, r);
                assert_true(r->n_heal_steps >= 1);
                assert_true(r->n_heal_steps <= strlen(pieces[i]));
                warm_request_free(r);
        }
        harness_end(&h);
}

static void alternatives_differ_in_their_first_token_and_each_is_right(void **state) {
        struct harness h;

        (void) state;
        for (uint32_t n_heal = 0; n_heal <= 2; n_heal += 2)
                for (uint32_t n = 2; n <= WARM_ALTERNATIVES_MAX; n++) {
                        struct warm_request *r;

                        harness_start(&h, (struct harness_options){ 0 });
                        atomic_store(&h.fake->never_ends, true);
                        r = harness_complete(&h, "a prompt that ends in re", n_heal, 40);
                        r->n = n;
                        r->n_top = 3;
                        harness_run(&h, r);
                        assert_int_equal(r->n_answers, n);
                        harness_check(&h, r);
                        for (uint32_t i = 0; i < n; i++)
                                for (uint32_t k = 0; k < i; k++)
                                        assert_int_not_equal(r->answers[i].ids[0],
                                                             r->answers[k].ids[0]);
                        assert_int_equal(atomic_load(&h.fake->n_sequences_most), n);
                        warm_request_free(r);
                        harness_end(&h);
                }
}

static void log_probabilities_list_the_most_likely_first(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        r = harness_complete(&h, prompt, 0, 8);
        r->n_top = WARM_TOP_N_MAX;
        harness_run(&h, r);
        harness_check(&h, r);
        for (uint32_t i = 0; i < r->answers[0].n_ids; i++) {
                const struct warm_token_logprob *l = &r->answers[0].logprobs[i];

                assert_int_equal(l->n_top, WARM_TOP_N_MAX);
                assert_int_equal(l->top[0].token, l->token);
                for (uint32_t k = 1; k < l->n_top; k++)
                        assert_true(l->top[k].logprob <= l->top[k - 1].logprob);
        }
        warm_request_free(r);
        harness_end(&h);
}

static void confidence_is_of_the_tokens_that_were_shown(void **state) {
        struct harness h;
        struct warm_request *r;
        double sum = 0;
        float lowest = 0;
        const struct warm_request_answer *a;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        r = harness_complete(&h, prompt, 0, 16);
        harness_run(&h, r);
        a = &r->answers[0];
        for (uint32_t i = 0; i < a->n_ids; i++) {
                sum += a->logprobs[i].logprob;
                lowest = a->logprobs[i].logprob < lowest ? a->logprobs[i].logprob : lowest;
        }
        assert_true(fabs(a->confidence_mean - exp(sum / a->n_ids)) < 1e-5);
        assert_true(fabsf(a->confidence_min - expf(lowest)) < 1e-6F);
        assert_true(fabsf(a->confidence_first - expf(a->logprobs[0].logprob)) < 1e-6F);
        assert_true(a->confidence_min <= a->confidence_mean);
        warm_request_free(r);
        harness_end(&h);
}

static void a_score_is_of_each_token_and_takes_none_from_the_cache(void **state) {
        struct harness h;

        (void) state;
        for (uint64_t seed = 0; seed < 4; seed++) {
                harness_start(&h, (struct harness_options){ .cut_seed = seed });
                for (uint32_t round = 0; round < 2; round++) {
                        struct warm_request *r = harness_request(&h, WARM_REQUEST_SCORE, prompt);

                        harness_run(&h, r);
                        assert_int_equal(r->failure, WARM_FAILURE_NONE);
                        assert_int_equal(r->hit.n_tokens, 0);
                        assert_true(r->scores[0] == 0);
                        for (uint32_t i = 1; i < r->prompt.n_ids; i++) {
                                float logits[FAKE_VOCAB];

                                fake_logits(r->prompt.ids, i, false, logits);
                                assert_true(r->scores[i] == fake_logprob(logits, r->prompt.ids[i]));
                        }
                        warm_request_free(r);
                }
                harness_end(&h);
        }
}

static void the_score_of_one_token_is_nothing(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        r = harness_request(&h, WARM_REQUEST_SCORE, "a");
        harness_run(&h, r);
        assert_int_equal(r->failure, WARM_FAILURE_NONE);
        assert_true(r->scores[0] == 0);
        assert_int_equal(atomic_load(&h.fake->n_steps), 0);
        warm_request_free(r);
        harness_end(&h);
}

static void warming_samples_nothing_and_explain_sees_what_it_left(void **state) {
        struct harness h;
        struct warm_request *r;
        uint32_t n = (uint32_t) strlen(prompt);

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        r = harness_request(&h, WARM_REQUEST_EXPLAIN, prompt);
        harness_run(&h, r);
        assert_int_equal(r->hit.n_tokens, 0);
        warm_request_free(r);
        r = harness_request(&h, WARM_REQUEST_WARM, prompt);
        harness_run(&h, r);
        assert_int_equal(r->failure, WARM_FAILURE_NONE);
        assert_int_equal(r->n_answers, 0);
        assert_int_equal(r->answers[0].finish, WARM_FINISH_NONE);
        warm_request_free(r);
        r = harness_request(&h, WARM_REQUEST_EXPLAIN, prompt);
        harness_run(&h, r);
        assert_int_equal(r->hit.n_tokens, n - 1);
        assert_int_equal(r->hit.miss, WARM_MISS_NONE);
        warm_request_free(r);
        assert_int_equal(atomic_load(&h.fake->n_rows), n);
        r = harness_complete(&h, prompt, 0, 5);
        harness_run(&h, r);
        assert_int_equal(r->hit.n_tokens, n - 1);
        harness_check(&h, r);
        warm_request_free(r);
        harness_end(&h);
}

static void status_counts_what_was_done(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ .n_models = 2 });
        atomic_store(&h.fake->never_ends, true);
        r = harness_complete(&h, prompt, 0, 10);
        harness_run(&h, r);
        warm_request_free(r);
        r = harness_status(&h);
        assert_string_equal(r->status->backend.name, "fake");
        assert_int_equal(r->status->n_models, 2);
        assert_int_equal(r->status->n_requests, 2);
        assert_int_equal(r->status->n_tokens_prefilled, strlen(prompt));
        assert_int_equal(r->status->n_tokens_decoded, 9);
        assert_true(r->status->models[0].kv_bytes > 0);
        assert_int_equal(r->status->models[1].kv_bytes, 0);
        warm_request_free(r);
        harness_end(&h);
}

static struct warm_request *ask_to_measure(struct harness *h) {
        struct warm_request *r = warm_request_new();

        assert_non_null(r);
        r->id = ++h->n_ids_given;
        r->kind = WARM_REQUEST_STATUS;
        r->measure = true;
        return r;
}

static void the_device_is_measured_once_and_only_when_idle(void **state) {
        struct harness h;
        struct warm_request *r, *held;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        warm_request_free(harness_status(&h));
        assert_int_equal(atomic_load(&h.fake->n_measured), 0); /* nobody asked */
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->step_ns, 5000000);
        held = harness_complete(&h, prompt, 0, 400);
        harness_submit(&h, held);
        r = ask_to_measure(&h);
        harness_run(&h, r);
        assert_int_equal(r->failure, WARM_FAILURE_BUSY);
        assert_int_equal(atomic_load(&h.fake->n_measured), 0);
        assert_true(warm_engine_speed(h.engine).copy_bytes_per_s == 0);
        warm_request_free(r);
        warm_engine_cancel(h.engine, held->id);
        harness_wait(&h, held);
        warm_request_free(held);

        atomic_store(&h.fake->measure_result, WARM_BACKEND_E_MEMORY);
        r = ask_to_measure(&h);
        harness_run(&h, r);
        assert_int_equal(r->failure, WARM_FAILURE_MEMORY);
        warm_request_free(r);

        atomic_store(&h.fake->measure_result, 0);
        for (unsigned i = 0; i < 2; i++) {
                r = ask_to_measure(&h);
                harness_run(&h, r);
                assert_int_equal(r->failure, WARM_FAILURE_NONE);
                warm_request_free(r);
        }
        assert_int_equal(atomic_load(&h.fake->n_measured), 1);
        assert_true(warm_engine_speed(h.engine).copy_bytes_per_s == 1e9);
        assert_true(warm_engine_speed(h.engine).flop_per_s == 2e9);
        harness_end(&h);
}

static void a_device_lost_while_it_is_measured_is_told(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        r = harness_complete(&h, prompt, 0, 3);
        harness_run(&h, r);
        warm_request_free(r);
        atomic_store(&h.fake->measure_result, WARM_BACKEND_E_LOST);
        r = ask_to_measure(&h);
        harness_run(&h, r);
        assert_int_equal(r->failure, WARM_FAILURE_BACKEND);
        warm_request_free(r);
        while (h.n_faults == 0)
                harness_event(&h);
        assert_int_equal(h.last_fault.fault, WARM_FAULT_LOST);
        harness_drop(&h);
}

static void progress_shows_text_as_it_becomes_stable(void **state) {
        struct harness h;
        struct warm_request *r;
        uint64_t last = 0;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->step_ns, 500000);
        r = harness_complete(&h, prompt, 0, 30);
        r->progress = true;
        harness_submit(&h, r);
        for (;;) {
                struct warm_event event = harness_event(&h);

                if (event.kind == WARM_EVENT_DONE)
                        break;
                assert_ptr_equal(event.request, r);
                assert_true(event.n_bytes >= last);
                last = event.n_bytes;
        }
        assert_true(h.n_texts >= 1);
        assert_true(last <= warm_answer_text(r->answers[0].answer).n);
        harness_check(&h, r);
        warm_request_free(r);
        harness_end(&h);
}

static void a_loop_that_takes_no_events_cannot_fill_the_ring(void **state) {
        struct warm_request *requests[200];
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        for (uint32_t i = 0; i < 200; i++) {
                requests[i] = harness_complete(&h, "abc", 0, 30);
                requests[i]->progress = true;
                harness_submit(&h, requests[i]);
        }
        usleep(100000);
        harness_wait_done(&h, 200);
        assert_true(h.n_texts <= 200 * 31);
        for (uint32_t i = 0; i < 200; i++) {
                harness_check(&h, requests[i]);
                warm_request_free(requests[i]);
        }
        harness_end(&h);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_completion_is_what_the_slow_twin_says),
                cmocka_unit_test(the_same_again_comes_from_the_cache_with_the_same_answer),
                cmocka_unit_test(any_cut_of_the_prompt_gives_the_same_answer),
                cmocka_unit_test(healing_spells_the_piece_and_the_reply_starts_after_it),
                cmocka_unit_test(alternatives_differ_in_their_first_token_and_each_is_right),
                cmocka_unit_test(log_probabilities_list_the_most_likely_first),
                cmocka_unit_test(confidence_is_of_the_tokens_that_were_shown),
                cmocka_unit_test(a_score_is_of_each_token_and_takes_none_from_the_cache),
                cmocka_unit_test(the_score_of_one_token_is_nothing),
                cmocka_unit_test(warming_samples_nothing_and_explain_sees_what_it_left),
                cmocka_unit_test(status_counts_what_was_done),
                cmocka_unit_test(the_device_is_measured_once_and_only_when_idle),
                cmocka_unit_test(a_device_lost_while_it_is_measured_is_told),
                cmocka_unit_test(progress_shows_text_as_it_becomes_stable),
                cmocka_unit_test(a_loop_that_takes_no_events_cannot_fill_the_ring),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
