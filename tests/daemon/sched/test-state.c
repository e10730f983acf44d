/* SPDX-License-Identifier: Apache-2.0 */
/* A model with a state group: where prompts stop to keep it, and what goes on from there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "sched/kvpool.h"

#define BLOCK    4096U /* bytes, of tokens and of a state, as the fake backend tells */
#define CONTEXT  1024U
#define N_TEXT   700U
#define N_RANDOM 200U

static void write_text(char *text, uint32_t n, uint32_t seed) {
        for (uint32_t i = 0; i < n; i++)
                text[i] = (char) ('a' + (i * 11 + i / 26 + seed) % 26);
        text[n] = 0;
}

static struct warm_request *prompt(struct harness *h, const char *text, uint32_t n_max) {
        struct warm_request *r = harness_complete(h, text, 0, n_max);

        r->prompt.seams[0] = 400;
        r->prompt.seams[1] = 650;
        r->prompt.n_seams = 2;
        return r;
}

/* Run it, hold it against the twin, and how much came from the cache. */
static void expect(struct harness *h, const char *text, uint32_t n_max, uint32_t n_hit) {
        struct warm_request *r = prompt(h, text, n_max);

        harness_run(h, r);
        harness_check(h, r);
        assert_int_equal(r->hit.n_tokens, n_hit);
        warm_request_free(r);
}

static uint64_t n_snapshots(struct harness *h) {
        struct warm_request *r = harness_status(h);
        uint64_t n = r->status->models[0].cache.n_snapshots;

        warm_request_free(r);
        return n;
}

static void a_prompt_keeps_its_state_at_seams_and_every_512_tokens(void **state) {
        struct harness h;
        char text[N_TEXT + 1];

        (void) state;
        harness_start(&h, (struct harness_options){ .state = true, .n_context = CONTEXT });
        atomic_store(&h.fake->never_ends, true);
        write_text(text, N_TEXT, 0);
        expect(&h, text, 100, 0);
        /* 384 and 640, in whole blocks, and 512; nothing while the answer was decoded. */
        assert_int_equal(n_snapshots(&h), 3);
        assert_int_equal(atomic_load(&h.fake->n_resumed), 3);
        text[N_TEXT - 1] ^= 1;
        expect(&h, text, 10, 640);
        text[645] ^= 1;
        expect(&h, text, 10, 640);
        text[600] ^= 1;
        expect(&h, text, 10, 512);
        text[450] ^= 1;
        expect(&h, text, 10, 384);
        text[300] ^= 1;
        expect(&h, text, 10, 0);
        harness_end(&h);
}

static void answers_that_part_go_on_from_the_prompts_last_block(void **state) {
        struct warm_request *r;
        struct harness h;
        char text[N_TEXT + 1];

        (void) state;
        harness_start(&h, (struct harness_options){ .state = true, .n_context = CONTEXT });
        write_text(text, N_TEXT, 1);
        r = prompt(&h, text, 30);
        r->n = 4;
        harness_run(&h, r);
        harness_check(&h, r);
        assert_int_equal(r->n_answers, 4);
        warm_request_free(r);
        /* The prompt once, and for each of the others what stands behind its last whole block. */
        assert_true(atomic_load(&h.fake->n_rows) <= N_TEXT + 3 * 32 + 4 * 30);
        harness_end(&h);
}

static void states_are_right_in_any_mix_and_with_little_room(void **state) {
        struct warm_request *requests[N_RANDOM];
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ .state = true,
                                                    .n_context = CONTEXT,
                                                    .cut_seed = 5,
                                                    .kv_bytes = 80 * BLOCK });
        for (uint32_t i = 0; i < N_RANDOM; i++) {
                char text[N_TEXT + 1];
                uint32_t n = 40 + i * 37 % (N_TEXT - 40);

                write_text(text, n, i * 7 % 3);
                text[n - 1 - i * 13 % 40] ^= i % 4;
                requests[i] = harness_complete(&h, text, i % 3, 1 + i * 5 % 23);
                requests[i]->uid = 1000 + i % 2;
                requests[i]->n = 1 + i % 4;
                requests[i]->prompt.seams[0] = n / 3 + 1;
                requests[i]->prompt.seams[1] = n - 30;
                requests[i]->prompt.n_seams = 2;
                harness_submit(&h, requests[i]);
        }
        harness_wait_done(&h, N_RANDOM);
        for (uint32_t i = 0; i < N_RANDOM; i++) {
                harness_check(&h, requests[i]);
                warm_request_free(requests[i]);
        }
        assert_true(atomic_load(&h.fake->n_resumed) > N_RANDOM);
        harness_end(&h);
}

static void memory_for_states_comes_with_memory_for_tokens(void **state) {
        struct warm_model *m = fake_model_new("a", CONTEXT);
        uint64_t bytes;

        (void) state;
        fake_model_add_state(m);
        assert_int_equal(warm_kvpool_block_bytes(&m->plan, 1, WARM_TYPE_F16, &bytes), 0);
        assert_int_equal(bytes, BLOCK);
        m->plan.layers[1].conv_width = 4;
        m->plan.layers[1].n_kv_heads = 2;
        assert_int_equal(warm_kvpool_block_bytes(&m->plan, 1, WARM_TYPE_F16, &bytes), 0);
        assert_int_equal(bytes, BLOCK + 3 * (8 * 8 + 2 * 2 * 16) * 4);
        m->plan.layers[1].conv_width = 0;
        assert_int_equal(warm_kvpool_states(33), 8);
        assert_int_equal(warm_kvpool_default_bytes(&m->plan, CONTEXT, WARM_TYPE_F16, 1000),
                         (33 + 8) * BLOCK);
        m->plan.layers[1].mixer = WARM_MIXER_ATTENTION;
        assert_int_not_equal(warm_kvpool_block_bytes(&m->plan, 1, WARM_TYPE_F16, &bytes), 0);
        warm_model_free(m);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_prompt_keeps_its_state_at_seams_and_every_512_tokens),
                cmocka_unit_test(answers_that_part_go_on_from_the_prompts_last_block),
                cmocka_unit_test(states_are_right_in_any_mix_and_with_little_room),
                cmocka_unit_test(memory_for_states_comes_with_memory_for_tokens),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
