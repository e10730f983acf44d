/* SPDX-License-Identifier: Apache-2.0 */
/* How requests end before their tokens run out: cancel at every stage, deadlines, limits of the answer, shutdown. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

static struct warm_request *long_prompt(struct harness *h, uint32_t n, uint32_t n_max) {
        char text[2048];

        for (uint32_t i = 0; i < n; i++)
                text[i] = (char) ('a' + i * 7 % 26);
        text[n] = 0;
        return harness_complete(h, text, 0, n_max);
}

/* The text so far must be the beginning of what the twin says. */
static void check_beginning(struct harness *h, const struct warm_request *r) {
        struct warm_string text = warm_answer_text(r->answers[0].answer);
        struct expected *x = malloc(sizeof(*x));

        assert_non_null(x);
        harness_expect(h, r, 0, x);
        assert_true(r->answers[0].n_ids <= x->n_ids);
        assert_memory_equal(r->answers[0].ids, x->ids, r->answers[0].n_ids * sizeof(*x->ids));
        assert_true(text.n <= x->n_text);
        assert_memory_equal(text.data, x->text, text.n);
        free(x);
}

static void cancel_takes_effect_at_every_stage(void **state) {
        (void) state;
        for (uint32_t wait_us = 0; wait_us <= 12000; wait_us += 3000) {
                struct warm_request *requests[40];
                struct harness h;

                /* 40 x 2: more than a step takes; some decode, some prefill, some wait for room. */
                harness_start(
                        &h, (struct harness_options){ .chunk_ns = 1, .kv_bytes = 4096 * 16 * 40 });
                atomic_store(&h.fake->never_ends, true);
                atomic_store(&h.fake->step_ns, 300000);
                for (uint32_t i = 0; i < 40; i++) {
                        requests[i] = long_prompt(&h, 40 + i * 5, 500);
                        requests[i]->n = 1 + i % 2;
                        harness_submit(&h, requests[i]);
                }
                usleep(wait_us);
                for (uint32_t i = 0; i < 40; i++)
                        warm_engine_cancel(h.engine, requests[i]->id);
                harness_wait_done(&h, 40);
                for (uint32_t i = 0; i < 40; i++) {
                        assert_int_equal(requests[i]->answers[0].finish, WARM_FINISH_CANCELLED);
                        check_beginning(&h, requests[i]);
                        warm_request_free(requests[i]);
                }
                harness_end(&h);
        }
}

static void a_cancel_too_late_or_for_nobody_is_ignored(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        warm_engine_cancel(h.engine, 12345);
        r = harness_complete(&h, "abc", 0, 3);
        harness_submit(&h, r);
        usleep(20000); /* done, but DONE is not taken yet */
        warm_engine_cancel(h.engine, r->id);
        harness_wait(&h, r);
        harness_check(&h, r);
        warm_request_free(r);
        r = harness_complete(&h, "abc", 0, 3);
        r->id = 1; /* the same id lives again: the old cancel must not meet it */
        harness_run(&h, r);
        harness_check(&h, r);
        warm_request_free(r);
        harness_end(&h);
}

static void a_deadline_gives_the_best_text_so_far(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->step_ns, 1000000);
        r = harness_complete(&h, "abc", 0, 400);
        r->deadline_ns = now_ns() + 150000000;
        harness_run(&h, r);
        assert_int_equal(r->failure, WARM_FAILURE_NONE);
        assert_int_equal(r->answers[0].finish, WARM_FINISH_DEADLINE);
        assert_true(r->answers[0].n_ids >= 1);
        assert_true(r->done_ns - r->deadline_ns < 200000000);
        check_beginning(&h, r);
        warm_request_free(r);
        harness_end(&h);
}

static void a_deadline_in_prefill_or_while_waiting_gives_empty_text(void **state) {
        struct harness h;
        struct warm_request *big, *in_prefill, *waiting;

        (void) state;
        harness_start(&h, (struct harness_options){
                                  .chunk_ns = 1, .n_context = 1024, .kv_bytes = 4096 * 48 });
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->step_ns, 2000000);
        big = long_prompt(&h, 900, 100);
        harness_submit(&h, big);
        in_prefill = long_prompt(&h, 400, 10);
        in_prefill->deadline_ns = now_ns() + 20000000;
        harness_submit(&h, in_prefill);
        waiting = long_prompt(&h, 800, 100);
        waiting->deadline_ns = now_ns() + 20000000;
        harness_submit(&h, waiting);
        harness_wait_done(&h, 2);
        assert_int_equal(in_prefill->answers[0].finish, WARM_FINISH_DEADLINE);
        assert_int_equal(waiting->answers[0].finish, WARM_FINISH_DEADLINE);
        assert_int_equal(waiting->n_answers, 1);
        assert_int_equal(warm_answer_text(in_prefill->answers[0].answer).n, 0);
        assert_int_equal(warm_answer_text(waiting->answers[0].answer).n, 0);
        warm_engine_cancel(h.engine, big->id);
        harness_wait_done(&h, 3);
        warm_request_free(big);
        warm_request_free(in_prefill);
        warm_request_free(waiting);
        harness_end(&h);
}

static void predict_time_acts_at_the_end_of_a_line(void **state) {
        struct harness h;
        struct warm_request *r;
        struct warm_string text;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->step_ns, 300000);
        r = harness_complete(&h, "some text", 0, 450);
        r->t_predict_ns = 1000000;
        harness_run(&h, r);
        text = warm_answer_text(r->answers[0].answer);
        assert_int_equal(r->answers[0].finish, WARM_FINISH_TIME);
        assert_true(text.n > 0);
        check_beginning(&h, r);
        warm_request_free(r);
        harness_end(&h);
}

static void lines_and_stop_strings_end_the_text(void **state) {
        struct harness h;
        struct warm_request *r;
        struct warm_string text;
        struct expected *x = malloc(sizeof(*x));
        char stop[4] = { 0 };

        (void) state;
        assert_non_null(x);
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        r = harness_complete(&h, "some text", 0, 400);
        r->answer.lines = 1;
        harness_run(&h, r);
        text = warm_answer_text(r->answers[0].answer);
        assert_int_equal(r->answers[0].finish, WARM_FINISH_LINES);
        assert_true(memchr(text.data, '\n', text.n) == NULL ||
                    memchr(text.data, '\n', text.n) == text.data + text.n - 1);
        check_beginning(&h, r);
        warm_request_free(r);

        r = harness_complete(&h, "some text", 0, 60);
        harness_expect(&h, r, 0, x);
        memcpy(stop, x->text + 20, 3);
        r->answer.stops[0] = (struct warm_string){ stop, 3 };
        r->answer.n_stops = 1;
        harness_run(&h, r);
        text = warm_answer_text(r->answers[0].answer);
        assert_int_equal(r->answers[0].finish, WARM_FINISH_STOP);
        assert_true(text.n <= 20);
        check_beginning(&h, r);
        warm_request_free(r);
        free(x);
        harness_end(&h);
}

static void the_end_of_the_context_ends_the_text(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ .n_context = 128 });
        atomic_store(&h.fake->never_ends, true);
        r = long_prompt(&h, 100, 400);
        harness_run(&h, r);
        harness_check(&h, r);
        /* 28 are computed behind the prompt; one more is sampled from the last of them. */
        assert_int_equal(r->answers[0].n_ids, 29);
        warm_request_free(r);
        r = long_prompt(&h, 128, 5);
        harness_run(&h, r);
        assert_int_equal(r->answers[0].n_ids, 1);
        warm_request_free(r);
        r = long_prompt(&h, 129, 5);
        harness_run(&h, r);
        assert_int_equal(r->failure, WARM_FAILURE_NO_ROOM);
        warm_request_free(r);
        harness_end(&h);
}

static void shutdown_finishes_everything_that_is_in_flight(void **state) {
        (void) state;
        for (uint32_t taken = 0; taken < 2; taken++) {
                struct warm_request *requests[50];
                struct harness h;

                harness_start(&h, (struct harness_options){ 0 });
                atomic_store(&h.fake->never_ends, true);
                atomic_store(&h.fake->step_ns, 500000);
                for (uint32_t i = 0; i < 50; i++) {
                        requests[i] = long_prompt(&h, 30 + i, 300);
                        requests[i]->n = 1 + i % 3;
                        harness_submit(&h, requests[i]);
                }
                usleep(5000);
                if (taken) {
                        warm_engine_stop(h.engine);
                        harness_wait_done(&h, 50);
                        for (uint32_t i = 0; i < 50; i++) {
                                assert_int_equal(requests[i]->failure, WARM_FAILURE_SHUTDOWN);
                                warm_request_free(requests[i]);
                        }
                }
                harness_drop(&h); /* what was not taken is freed here */
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(cancel_takes_effect_at_every_stage),
                cmocka_unit_test(a_cancel_too_late_or_for_nobody_is_ignored),
                cmocka_unit_test(a_deadline_gives_the_best_text_so_far),
                cmocka_unit_test(a_deadline_in_prefill_or_while_waiting_gives_empty_text),
                cmocka_unit_test(predict_time_acts_at_the_end_of_a_line),
                cmocka_unit_test(lines_and_stop_strings_end_the_text),
                cmocka_unit_test(the_end_of_the_context_ends_the_text),
                cmocka_unit_test(shutdown_finishes_everything_that_is_in_flight),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
