/* SPDX-License-Identifier: Apache-2.0 */
/* Many at once: who is in a step, who waits, who ends whom. */
#include <poll.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

static void check_and_free(struct harness *h, struct warm_request **requests, uint32_t n) {
        for (uint32_t i = 0; i < n; i++) {
                harness_check(h, requests[i]);
                warm_request_free(requests[i]);
        }
}

static void sixteen_decode_in_one_step(void **state) {
        struct warm_request *requests[WARM_ENGINE_BATCH_MAX], *held;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        held = harness_hold(&h);
        for (uint32_t i = 0; i < WARM_ENGINE_BATCH_MAX; i++) {
                char text[32];

                snprintf(text, sizeof(text), "request number %u", i);
                requests[i] = harness_complete(&h, text, 0, 40);
                harness_submit(&h, requests[i]);
        }
        harness_release(&h, held, 200000);
        harness_wait_done(&h, WARM_ENGINE_BATCH_MAX);
        assert_int_equal(atomic_load(&h.fake->n_sequences_most), WARM_ENGINE_BATCH_MAX);
        check_and_free(&h, requests, WARM_ENGINE_BATCH_MAX);
        harness_end(&h);
}

static void requests_join_and_leave_at_any_step(void **state) {
        struct warm_request *requests[60];
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ .cut_seed = 7 });
        atomic_store(&h.fake->step_ns, 50000);
        for (uint32_t i = 0; i < 60; i++) {
                char text[64];

                snprintf(text, sizeof(text), "shared beginning of %u and then %u", i % 7, i);
                requests[i] = harness_complete(&h, text, i % 3, 1 + i * 5 % 23);
                requests[i]->uid = 1000 + i % 2;
                requests[i]->n = 1 + i % 4;
                harness_submit(&h, requests[i]);
                usleep(i * 37 % 400);
        }
        harness_wait_done(&h, 60);
        check_and_free(&h, requests, 60);
        harness_end(&h);
}

static void a_newcomer_shares_steps_with_twenty_that_run(void **state) {
        struct warm_request *requests[20], *late;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->step_ns, 2000000);
        for (uint32_t i = 0; i < 20; i++) {
                requests[i] = harness_complete(&h, "long", 0, 400);
                harness_submit(&h, requests[i]);
        }
        usleep(20000);
        late = harness_complete(&h, "short", 0, 3);
        late->uid = 1001;
        harness_submit(&h, late);
        harness_wait(&h, late);
        assert_int_equal(h.n_done, 1); /* before any of the long ones */
        harness_check(&h, late);
        warm_request_free(late);
        for (uint32_t i = 0; i < 20; i++)
                warm_engine_cancel(h.engine, requests[i]->id);
        harness_wait_done(&h, 21);
        for (uint32_t i = 0; i < 20; i++)
                warm_request_free(requests[i]);
        harness_end(&h);
}

static void a_long_prompt_does_not_stop_others_from_decoding(void **state) {
        struct warm_request *decoding, *prompting, *held;
        char text[1900];
        struct harness h;

        (void) state;
        memset(text, 'x', sizeof(text));
        text[sizeof(text) - 1] = 0;
        /* A step that takes 1 ms at least: the chunk shrinks to its least, 16 rows. */
        harness_start(&h, (struct harness_options){ .n_context = 2048, .chunk_ns = 1000 });
        atomic_store(&h.fake->never_ends, true);
        decoding = harness_complete(&h, "ab", 0, 30);
        prompting = harness_complete(&h, text, 0, 2);
        held = harness_hold(&h);
        harness_submit(&h, prompting);
        harness_submit(&h, decoding);
        harness_release(&h, held, 1000000);
        harness_wait(&h, decoding);
        assert_int_equal(h.n_done, 1);
        harness_wait(&h, prompting);
        harness_check(&h, decoding);
        harness_check(&h, prompting);
        assert_true(atomic_load(&h.fake->n_prefill_rows_most) <= 64);
        warm_request_free(decoding);
        warm_request_free(prompting);
        harness_end(&h);
}

static struct warm_request *long_prompt(struct harness *h, uid_t uid, char first) {
        struct warm_request *r;
        char text[901];

        for (uint32_t i = 0; i < 900; i++)
                text[i] = (char) ('a' + (i * 5 + (uint8_t) first) % 26);
        text[900] = 0;
        r = harness_complete(h, text, 0, 1);
        r->uid = uid;
        return r;
}

/* A step takes 2 ms whatever is in it, as on a GPU: a few rows cost a lot each, and say nothing of many. */
static void a_few_rows_do_not_make_chunks_small(void **state) {
        struct warm_request *r;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ .n_context = 2048, .chunk_ns = 4000000 });
        atomic_store(&h.fake->step_ns, 2000000);
        for (uint32_t i = 0; i < 15; i++) {
                char text[32];

                snprintf(text, sizeof(text), "%c: twenty tokens more", 'a' + i);
                r = i < 3 ? long_prompt(&h, 1000, (char) i) : harness_complete(&h, text, 0, 1);
                harness_run(&h, r);
                warm_request_free(r);
        }
        atomic_store(&h.fake->n_prefill_rows_most, 0);
        r = long_prompt(&h, 1000, 9);
        harness_run(&h, r);
        harness_check(&h, r);
        assert_true(atomic_load(&h.fake->n_prefill_rows_most) >= 800);
        warm_request_free(r);
        harness_end(&h);
}

/* A step costs 2 ms and 10 us a row; a chunk may take 4 ms, and 12 if nobody else is there. */
static void a_prompt_alone_has_longer_chunks(void **state) {
        struct warm_request *r, *decoding;
        uint64_t alone, together;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ .n_context = 2048, .chunk_ns = 4000000 });
        atomic_store(&h.fake->step_ns, 2000000);
        atomic_store(&h.fake->row_ns, 10000);
        for (uint32_t i = 0; i < 4; i++) { /* what steps and rows cost is learned */
                r = i % 2 ? long_prompt(&h, 1000, (char) i) : harness_complete(&h, "ab", 0, 8);
                harness_run(&h, r);
                warm_request_free(r);
        }
        atomic_store(&h.fake->n_prefill_rows_most, 0);
        r = long_prompt(&h, 1000, 8);
        harness_run(&h, r);
        harness_check(&h, r);
        warm_request_free(r);
        alone = atomic_load(&h.fake->n_prefill_rows_most);

        atomic_store(&h.fake->never_ends, true);
        decoding = harness_complete(&h, "cd", 0, 400);
        harness_submit(&h, decoding);
        usleep(20000); /* its own prompt is done */
        atomic_store(&h.fake->n_prefill_rows_most, 0);
        r = long_prompt(&h, 1000, 9);
        harness_submit(&h, r);
        harness_wait(&h, r);
        harness_check(&h, r);
        warm_request_free(r);
        together = atomic_load(&h.fake->n_prefill_rows_most);
        assert_true(alone > together + together / 2);
        warm_engine_cancel(h.engine, decoding->id);
        harness_wait_done(&h, 7);
        warm_request_free(decoding);
        harness_end(&h);
}

static void prompts_of_two_uids_take_turns_and_the_newest_goes_first(void **state) {
        struct warm_request *many[3], *one, *first = NULL, *held;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ .n_context = 1024, .chunk_ns = 1 });
        held = harness_hold(&h);
        for (uint32_t i = 0; i < 3; i++) {
                many[i] = long_prompt(&h, 1000, (char) i);
                harness_submit(&h, many[i]);
        }
        one = long_prompt(&h, 1001, 9);
        harness_submit(&h, one);
        harness_release(&h, held, 100000);
        for (bool done = false; !done;) {
                struct warm_event event = harness_event(&h);

                if (!first && event.request != one)
                        first = event.request;
                done = event.request == one;
        }
        assert_true(h.n_done <= 2); /* it had every other chunk, not what three left over */
        harness_wait_done(&h, 4);
        if (first)
                assert_ptr_equal(first, many[2]);
        /* The oldest was served last. */
        assert_true(many[0]->done_ns > many[1]->done_ns && many[1]->done_ns > many[2]->done_ns);
        check_and_free(&h, many, 3);
        check_and_free(&h, &one, 1);
        harness_end(&h);
}

static void warming_takes_little_of_a_step_that_somebody_waits_for(void **state) {
        struct warm_request *warm, *r, *held;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ .n_context = 1024 });
        atomic_store(&h.fake->never_ends, true);
        held = harness_hold(&h);
        warm = long_prompt(&h, 1000, 0);
        warm->kind = WARM_REQUEST_WARM;
        harness_submit(&h, warm);
        r = harness_complete(&h, "ab", 0, 30);
        harness_submit(&h, r);
        harness_release(&h, held, 200000);
        harness_wait(&h, r);
        assert_true(atomic_load(&h.fake->n_prefill_rows_most) <= 20); /* and the prompt's own */
        assert_int_equal(h.n_done, 1);
        harness_wait(&h, warm);
        assert_true(atomic_load(&h.fake->n_prefill_rows_most) > 20);
        harness_check(&h, r);
        warm_request_free(r);
        warm_request_free(warm);
        harness_end(&h);
}

static void two_models_take_turns(void **state) {
        struct warm_request *requests[2], *held;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ .n_models = 2 });
        atomic_store(&h.fake->never_ends, true);
        held = harness_hold(&h);
        for (uint32_t i = 0; i < 2; i++) {
                requests[i] = harness_complete(&h, "the same text", 0, 60);
                requests[i]->model_index = i;
                harness_submit(&h, requests[i]);
        }
        harness_release(&h, held, 300000);
        harness_wait_done(&h, 2);
        assert_int_equal(atomic_load(&h.fake->n_sequences_most), 1);
        /* Neither had to wait for the other's end. */
        assert_true(requests[0]->first_ns < requests[1]->done_ns);
        assert_true(requests[1]->first_ns < requests[0]->done_ns);
        check_and_free(&h, requests, 2);
        harness_end(&h);
}

static void another_uid_never_hits_what_the_first_cached(void **state) {
        struct warm_request *r;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        for (uint32_t i = 0; i < 3; i++) {
                r = harness_complete(&h, "some text that only one has seen", 0, 4);
                r->uid = 1000 + i % 2;
                harness_run(&h, r);
                harness_check(&h, r);
                assert_int_equal(r->hit.n_tokens, i < 2 ? 0 : r->prompt.n_ids - 1);
                assert_int_equal(r->hit.miss, i < 2 ? WARM_MISS_NEW : WARM_MISS_NONE);
                warm_request_free(r);
        }
        harness_end(&h);
}

static void the_newest_of_a_stream_ends_the_older(void **state) {
        struct warm_request *old, *other, *kept, *warm, *new;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->step_ns, 1000000);
        old = harness_complete(&h, "first", 0, 400);
        old->stream = 5;
        other = harness_complete(&h, "of another uid", 0, 200);
        other->stream = 5;
        other->uid = 1001;
        harness_submit(&h, old);
        harness_submit(&h, other);
        usleep(5000);
        kept = harness_complete(&h, "supersedes nothing", 0, 400);
        kept->stream = 5;
        kept->supersede = false;
        harness_submit(&h, kept);
        warm = harness_request(&h, WARM_REQUEST_WARM, "warming ends no completion");
        warm->stream = 5;
        harness_submit(&h, warm);
        harness_wait(&h, warm);
        usleep(2000);
        assert_int_equal(h.n_done, 1);
        new = harness_complete(&h, "second", 0, 5);
        new->stream = 5;
        harness_submit(&h, new);
        harness_wait_done(&h, 5);
        assert_int_equal(old->answers[0].finish, WARM_FINISH_SUPERSEDED);
        assert_true(old->answers[0].n_ids > 0);
        assert_int_equal(warm_answer_text(old->answers[0].answer).n > 0, 1);
        assert_int_equal(kept->answers[0].finish, WARM_FINISH_SUPERSEDED);
        harness_check(&h, other);
        harness_check(&h, new);
        warm_request_free(old);
        warm_request_free(other);
        warm_request_free(kept);
        warm_request_free(warm);
        warm_request_free(new);
        harness_end(&h);
}

static void one_more_than_the_limit_is_refused(void **state) {
        static struct warm_request *requests[WARM_ENGINE_REQUESTS_MAX];
        struct warm_request *more;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        for (uint32_t i = 0; i < WARM_ENGINE_REQUESTS_MAX; i++) {
                requests[i] = harness_complete(&h, "ab", 0, 2);
                harness_submit(&h, requests[i]);
        }
        more = harness_complete(&h, "one more", 0, 2);
        assert_int_equal(warm_engine_submit(h.engine, more), WARM_ENGINE_E_BUSY);
        for (uint32_t i = 0; i < WARM_ENGINE_REQUESTS_MAX; i++) {
                warm_engine_cancel(h.engine, requests[i]->id);
                warm_engine_cancel(h.engine, requests[i]->id);
        }
        harness_wait_done(&h, WARM_ENGINE_REQUESTS_MAX);
        for (uint32_t i = 0; i < WARM_ENGINE_REQUESTS_MAX; i++)
                warm_request_free(requests[i]);
        harness_run(&h, more);
        harness_check(&h, more);
        warm_request_free(more);
        harness_end(&h);
}

static uint64_t cpu_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

static void an_idle_engine_takes_no_time(void **state) {
        struct harness h;
        struct warm_request *r;
        bool has_work;
        uint64_t progress, before;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        r = harness_complete(&h, "abc", 0, 3);
        harness_run(&h, r);
        warm_request_free(r);
        usleep(250000); /* the sums of what came to rest are recorded */
        progress = warm_engine_progress(h.engine, &has_work);
        assert_false(has_work);
        before = cpu_ns();
        usleep(200000);
        assert_true(cpu_ns() - before < 2000000);
        assert_int_equal(warm_engine_progress(h.engine, &has_work), progress);
        harness_end(&h);
}

/* Submitted while it wakes up, while it looks, and after it went to sleep again: none is lost. */
static void an_expected_request_comes_at_any_time(void **state) {
        struct harness h;
        uint64_t before;

        (void) state;
        harness_start(&h, (struct harness_options){ .await_cores_min = 1 });
        for (uint32_t i = 0; i < 400; i++) {
                struct warm_request *r = harness_complete(&h, "abc", 0, 1);

                warm_engine_expect(h.engine);
                if (i % 4)
                        usleep(i % 40 * 5);
                harness_run(&h, r);
                harness_check(&h, r);
                warm_request_free(r);
        }
        usleep(250000); /* the sums of what came to rest are recorded */
        before = cpu_ns();
        for (uint32_t i = 0; i < 20; i++) { /* in vain */
                warm_engine_expect(h.engine);
                usleep(5000);
        }
        assert_true(cpu_ns() - before < 20 * (WARM_ENGINE_SPIN_NS + 400000ULL));
        harness_end(&h);
}

/* A resting engine goes round its loop for it, or stays where it is. */
static bool wakes_up_for_what_is_expected(uint32_t await_cores_min) {
        struct harness h;
        uint64_t progress;
        bool has_work;

        harness_start(&h, (struct harness_options){ .await_cores_min = await_cores_min });
        usleep(100000);
        progress = warm_engine_progress(h.engine, &has_work);
        warm_engine_expect(h.engine);
        usleep(100000);
        progress = warm_engine_progress(h.engine, &has_work) - progress;
        harness_end(&h);
        return progress > 0;
}

static void the_engine_wakes_up_for_what_is_expected_if_cores_are_to_spare(void **state) {
        (void) state;
        assert_true(wakes_up_for_what_is_expected(1));
        assert_false(wakes_up_for_what_is_expected(UINT32_MAX));
}

static void a_pending_step_is_waited_for_without_spinning(void **state) {
        struct harness h;
        struct warm_request *r;
        uint64_t start, before;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->async_ns, 10000000);
        r = harness_complete(&h, "abc", 0, 20);
        start = now_ns();
        before = cpu_ns();
        harness_run(&h, r);
        assert_true(now_ns() - start >= 20 * 10000000ULL);
        assert_true(cpu_ns() - before < 100000000U);
        harness_check(&h, r);
        warm_request_free(r);
        harness_end(&h);
}

/* Run a step of 400 ms whose device says 300 ms before that it will end. Return: whether the loop was woken before. */
static bool is_woken_early(uint32_t await_cores_min) {
        struct pollfd fd = { .events = POLLIN };
        struct warm_request *r;
        struct harness h;
        bool early;

        harness_start(&h, (struct harness_options){ .await_cores_min = await_cores_min });
        warm_engine_await(h.engine); /* of an engine that does nothing: back at once */
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->async_ns, 400000000);
        atomic_store(&h.fake->early_ns, 300000000);
        r = harness_complete(&h, "abc", 0, 1);
        harness_submit(&h, r);
        fd.fd = warm_engine_event_fd(h.engine);
        assert_int_equal(poll(&fd, 1, HARNESS_WAIT_MS), 1);
        early = !warm_engine_has_event(h.engine);
        warm_engine_await(h.engine);
        harness_wait(&h, r);
        harness_check(&h, r);
        warm_request_free(r);
        harness_end(&h);
        return early;
}

static void the_loop_is_woken_before_a_step_ends_if_cores_are_to_spare(void **state) {
        (void) state;
        assert_true(is_woken_early(1));
        assert_false(is_woken_early(UINT32_MAX));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(sixteen_decode_in_one_step),
                cmocka_unit_test(requests_join_and_leave_at_any_step),
                cmocka_unit_test(a_newcomer_shares_steps_with_twenty_that_run),
                cmocka_unit_test(a_long_prompt_does_not_stop_others_from_decoding),
                cmocka_unit_test(a_few_rows_do_not_make_chunks_small),
                cmocka_unit_test(a_prompt_alone_has_longer_chunks),
                cmocka_unit_test(prompts_of_two_uids_take_turns_and_the_newest_goes_first),
                cmocka_unit_test(warming_takes_little_of_a_step_that_somebody_waits_for),
                cmocka_unit_test(two_models_take_turns),
                cmocka_unit_test(another_uid_never_hits_what_the_first_cached),
                cmocka_unit_test(the_newest_of_a_stream_ends_the_older),
                cmocka_unit_test(one_more_than_the_limit_is_refused),
                cmocka_unit_test(an_idle_engine_takes_no_time),
                cmocka_unit_test(an_expected_request_comes_at_any_time),
                cmocka_unit_test(the_engine_wakes_up_for_what_is_expected_if_cores_are_to_spare),
                cmocka_unit_test(a_pending_step_is_waited_for_without_spinning),
                cmocka_unit_test(the_loop_is_woken_before_a_step_ends_if_cores_are_to_spare),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
