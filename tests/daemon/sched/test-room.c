/* SPDX-License-Identifier: Apache-2.0 */
/* Memory: chunks that come and go, waiting for room, refusals, and a backend that fails. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/internal.h"
#include "harness.h"
#include "sched/internal.h"
#include "sched/kvpool.h"

#define BLOCK 4096U /* bytes, as the fake backend tells */
#define CHUNK ((uint64_t) FAKE_BLOCKS * BLOCK)

static struct warm_request *prompt_of(struct harness *h, uint32_t n, uint32_t n_max, char first) {
        char text[4096];

        for (uint32_t i = 0; i < n; i++)
                text[i] = (char) ('a' + (i * 11 + (uint8_t) first) % 26);
        text[n] = 0;
        return harness_complete(h, text, 0, n_max);
}

static uint64_t kv_bytes(struct harness *h) {
        struct warm_request *r = harness_status(h);
        uint64_t bytes = r->status->models[0].kv_bytes;

        warm_request_free(r);
        return bytes;
}

static void the_default_ceiling_is_sixteen_contexts_or_a_quarter_of_what_is_free(void **state) {
        struct warm_model *m = fake_model_new("a", 512);

        (void) state;
        assert_int_equal(warm_kvpool_default_bytes(&m->plan, 512, WARM_TYPE_F16, 1ULL << 40),
                         16ULL * 17 * BLOCK);
        assert_int_equal(warm_kvpool_default_bytes(&m->plan, 512, WARM_TYPE_F32, 1ULL << 40),
                         16ULL * 17 * BLOCK * 2);
        assert_int_equal(warm_kvpool_default_bytes(&m->plan, 512, WARM_TYPE_F16, 1 << 20), 1 << 18);
        assert_int_equal(warm_kvpool_default_bytes(&m->plan, 512, WARM_TYPE_F16, 1000), 17 * BLOCK);
        warm_model_free(m);
}

static void memory_comes_chunk_by_chunk_and_trim_gives_it_back(void **state) {
        struct harness h;
        struct warm_request *r;
        uint64_t last = 0;

        (void) state;
        harness_start(&h, (struct harness_options){ .kv_bytes = 10 * CHUNK });
        assert_int_equal(kv_bytes(&h), 0);
        for (uint32_t i = 0; i < 6; i++) {
                r = prompt_of(&h, 300, 10, (char) i);
                harness_run(&h, r);
                harness_check(&h, r);
                warm_request_free(r);
                assert_true(kv_bytes(&h) >= last);
                last = kv_bytes(&h);
        }
        assert_true(last > 2 * CHUNK);
        r = harness_request(&h, WARM_REQUEST_TRIM, "");
        harness_run(&h, r);
        assert_true(r->n_trimmed_blocks > 0);
        warm_request_free(r);
        assert_int_equal(kv_bytes(&h), 0);
        assert_int_equal(atomic_load(&h.fake->n_chunks), 0);
        r = prompt_of(&h, 300, 10, 0);
        harness_run(&h, r);
        harness_check(&h, r);
        assert_int_equal(r->hit.n_tokens, 0);
        warm_request_free(r);
        harness_end(&h);
}

static void blocks_get_their_sums_once_nobody_asks_for_anything(void **state) {
        struct warm_engine_model *m;
        struct harness h;
        uint32_t n = 0;

        (void) state;
        harness_start(&h, (struct harness_options){ .state = true });
        for (uint32_t i = 0; i < 3; i++) {
                struct warm_request *r = prompt_of(&h, 100 + 100 * i, 20, 'x');

                harness_run(&h, r);
                warm_request_free(r);
        }
        for (uint32_t i = 0; i < 200 && atomic_load(&h.fake->n_sums) < 10; i++)
                usleep(50000);
        usleep(50000);
        warm_engine_stop(h.engine);
        m = &h.engine->models[0];
        for (uint32_t ref = 0; ref < m->cache->base[2]; ref++) {
                const struct warm_record *r = &m->cache->records[ref];
                uint32_t block = ref - m->cache->base[r->group];
                uint64_t sum;

                if (r->state != WARM_RECORD_READY)
                        continue;
                assert_int_equal(warm_block_sum(&h.fake->base, m->weights, r->group, block, &sum),
                                 0);
                assert_int_equal(r->sum, sum);
                n++;
        }
        assert_true(n >= 10);
        harness_drop(&h);
}

static void trimming_one_uid_leaves_the_cache_of_another(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ 0 });
        for (uint32_t i = 0; i < 2; i++) {
                r = prompt_of(&h, 100, 4, 0);
                r->uid = 1000 + i;
                harness_run(&h, r);
                warm_request_free(r);
        }
        r = harness_request(&h, WARM_REQUEST_TRIM, "");
        r->trim_uid = 1000;
        harness_run(&h, r);
        warm_request_free(r);
        for (uint32_t i = 0; i < 2; i++) {
                r = prompt_of(&h, 100, 4, 0);
                r->uid = 1000 + i;
                harness_run(&h, r);
                harness_check(&h, r);
                assert_int_equal(r->hit.n_tokens, i == 0 ? 0 : 99);
                warm_request_free(r);
        }
        harness_end(&h);
}

static void trim_under_load_disturbs_nobody(void **state) {
        struct harness h;
        struct warm_request *requests[30];

        (void) state;
        harness_start(&h, (struct harness_options){ .kv_bytes = 12 * CHUNK, .cut_seed = 3 });
        atomic_store(&h.fake->step_ns, 100000);
        for (uint32_t i = 0; i < 30; i++) {
                struct warm_request *trim = harness_request(&h, WARM_REQUEST_TRIM, "");

                requests[i] = prompt_of(&h, 40 + i * 9, 30, (char) (i % 3));
                requests[i]->n = 1 + i % 3;
                harness_submit(&h, requests[i]);
                harness_run(&h, trim);
                warm_request_free(trim);
        }
        harness_wait_done(&h, 60);
        for (uint32_t i = 0; i < 30; i++) {
                harness_check(&h, requests[i]);
                warm_request_free(requests[i]);
        }
        harness_end(&h);
}

static void who_finds_no_room_waits_until_others_end(void **state) {
        struct harness h;
        struct warm_request *requests[12];

        (void) state;
        /* Two chunks: room for two of these at a time. */
        harness_start(&h, (struct harness_options){ .kv_bytes = 2 * CHUNK });
        atomic_store(&h.fake->never_ends, true);
        atomic_store(&h.fake->step_ns, 50000);
        for (uint32_t i = 0; i < 12; i++) {
                requests[i] = prompt_of(&h, 400, 60, (char) i);
                requests[i]->n = 1 + i % 4;
                requests[i]->uid = 1000 + i % 2;
                harness_submit(&h, requests[i]);
        }
        harness_wait_done(&h, 12);
        for (uint32_t i = 0; i < 12; i++) {
                harness_check(&h, requests[i]);
                assert_int_equal(requests[i]->n_answers, requests[i]->n);
                warm_request_free(requests[i]);
        }
        assert_true(atomic_load(&h.fake->n_chunks) <= 2);
        harness_end(&h);
}

static void what_fills_the_cache_alone_fits_and_one_block_more_does_not(void **state) {
        struct harness h;
        struct warm_request *r;

        (void) state;
        harness_start(&h, (struct harness_options){ .kv_bytes = CHUNK, .n_context = 1024 });
        for (uint32_t i = 0; i < 2; i++) {
                /* The second hits the first's half-filled tail: no room for a copy beside its source. */
                r = prompt_of(&h, FAKE_BLOCKS * 32 - 13, 13, 0);
                harness_run(&h, r);
                harness_check(&h, r);
                warm_request_free(r);
        }
        r = prompt_of(&h, FAKE_BLOCKS * 32 - 12, 13, 0);
        harness_run(&h, r);
        assert_int_equal(r->failure, WARM_FAILURE_NO_ROOM);
        warm_request_free(r);
        r = prompt_of(&h, 100, 5, 1);
        harness_run(&h, r);
        harness_check(&h, r);
        warm_request_free(r);
        harness_end(&h);
}

static void a_device_without_memory_is_a_full_cache(void **state) {
        struct harness h;
        struct warm_request *requests[4];

        (void) state;
        harness_start(&h, (struct harness_options){ .kv_bytes = 10 * CHUNK });
        atomic_store(&h.fake->n_chunks_max, 1);
        for (uint32_t i = 0; i < 4; i++) {
                requests[i] = prompt_of(&h, 300, 20, (char) i);
                harness_submit(&h, requests[i]);
        }
        harness_wait_done(&h, 4);
        for (uint32_t i = 0; i < 4; i++) {
                harness_check(&h, requests[i]);
                warm_request_free(requests[i]);
        }
        atomic_store(&h.fake->n_chunks_max, 0);
        requests[0] = harness_request(&h, WARM_REQUEST_TRIM, "");
        harness_run(&h, requests[0]);
        warm_request_free(requests[0]);
        requests[0] = prompt_of(&h, 300, 20, 9);
        harness_run(&h, requests[0]);
        assert_int_equal(requests[0]->failure, WARM_FAILURE_NO_ROOM);
        warm_request_free(requests[0]);
        requests[0] = harness_status(&h);
        assert_true(requests[0]->status->n_memory_short > 0);
        warm_request_free(requests[0]);
        harness_end(&h);
}

static void one_model_takes_the_memory_that_another_only_caches_in(void **state) {
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ .kv_bytes = 2 * CHUNK, .n_models = 2 });
        for (uint32_t i = 0; i < 6; i++) {
                struct warm_request *r = prompt_of(&h, 490, 10, (char) i);

                r->model_index = i / 2 % 2;
                harness_run(&h, r);
                harness_check(&h, r);
                warm_request_free(r);
        }
        assert_true(atomic_load(&h.fake->n_chunks) <= 2);
        harness_end(&h);
}

static void all_memory_can_be_taken_before_the_start(void **state) {
        const uint32_t there[] = { 8, 4, 7 };

        (void) state;
        for (uint32_t i = 0; i < 3; i++) {
                struct fake_backend *fake = fake_backend_new();
                struct warm_engine_config config = { .backend = &fake->base,
                                                     .kv_type = WARM_TYPE_F16,
                                                     .kv_bytes_max = 8 * CHUNK };
                struct warm_engine *engine;
                uint32_t index;

                atomic_store(&fake->n_chunks_max, there[i]);
                assert_int_equal(warm_engine_new(&config, &engine), 0);
                for (uint32_t m = 0; m < 2; m++)
                        assert_int_equal(warm_engine_add_model(engine,
                                                               fake_model_new(m ? "b" : "a", 512),
                                                               &index, NULL),
                                         0);
                assert_true(warm_engine_kv_bytes_max(engine) == 8 * CHUNK);
                assert_int_equal(warm_engine_take_kv(engine), i ? WARM_BACKEND_E_MEMORY : 0);
                assert_int_equal(atomic_load(&fake->n_chunks), there[i]);
                warm_engine_free(engine);
        }
}

/* A copy of a shipped model that anybody may write, and shorten while it is loaded. */
static void a_model_whose_file_shrinks_is_still_the_callers(void **state) {
        const char *root = getenv("WARM_SOURCE_ROOT");
        char path[] = "/tmp/warm-test-room-XXXXXX", command[4096 + 64], *why = NULL;
        struct fake_backend *fake = fake_backend_new();
        struct warm_engine_config config = { .backend = &fake->base, .kv_type = WARM_TYPE_F16 };
        struct warm_model *model = NULL;
        struct warm_engine *engine;
        int fd = mkstemp(path);
        uint32_t index;

        (void) state;
        if (!root)
                skip();
        assert_true(fd >= 0);
        close(fd);
        (void) snprintf(command, sizeof command, "cp '%s/models/warm-nano-draft-q8_0.gguf' %s",
                        root, path);
        assert_int_equal(system(command), 0);
        assert_int_equal(chmod(path, 0666), 0);
        assert_int_equal(warm_model_begin(path, NULL, &model, NULL), 0);
        assert_int_equal(truncate(path, 2 << 20), 0);
        assert_int_equal(warm_engine_new(&config, &engine), 0);
        assert_int_equal(warm_engine_add_model(engine, model, &index, &why), -EBADMSG);
        assert_non_null(strstr(why, "shorter"));
        assert_null(strstr(why, path)); /* who asked puts it before */
        assert_int_equal(warm_engine_n_models(engine), 0);
        warm_model_free(model);
        assert_int_equal(warm_engine_add_model(engine, fake_model_new("a", 512), &index, NULL), 0);
        warm_engine_free(engine);
        free(why);
        unlink(path);
}

static void a_lost_backend_fails_everything_and_says_so_once(void **state) {
        (void) state;
        for (uint32_t n = 1; n <= 12; n++)
                for (uint32_t in_poll = 0; in_poll < 2; in_poll++) {
                        struct warm_request *requests[20], *late;
                        struct harness h;

                        harness_start(&h, (struct harness_options){ .chunk_ns = 1 });
                        atomic_store(&h.fake->never_ends, true);
                        atomic_store(&h.fake->lose_at, n);
                        atomic_store(&h.fake->lose_in_poll, in_poll > 0);
                        for (uint32_t i = 0; i < 20; i++) {
                                requests[i] = prompt_of(&h, 30 + i, 100, (char) i);
                                requests[i]->n = 1 + i % 3;
                                harness_submit(&h, requests[i]);
                        }
                        harness_wait_done(&h, 20);
                        while (h.n_faults == 0)
                                harness_event(&h);
                        late = prompt_of(&h, 30, 5, 0);
                        harness_run(&h, late);
                        assert_int_equal(late->failure, WARM_FAILURE_BACKEND);
                        assert_int_equal(h.n_faults, 1);
                        assert_int_equal(h.last_fault.fault, WARM_FAULT_LOST);
                        assert_string_equal(h.last_fault.fault_text, "a made-up fault");
                        assert_int_equal(atomic_load(&h.fake->n_steps), n);
                        warm_request_free(late);
                        for (uint32_t i = 0; i < 20; i++) {
                                assert_int_equal(requests[i]->failure, WARM_FAILURE_BACKEND);
                                warm_request_free(requests[i]);
                        }
                        harness_drop(&h);
                }
}

/* Start some requests of which step n hangs; the limit, if any, is 200 ms. */
static void hang(struct harness *h, uint32_t n, uint64_t limit_ns,
                 struct warm_request *requests[8]) {
        harness_start(h, (struct harness_options){ .chunk_ns = 1, .step_limit_ns = limit_ns });
        atomic_store(&h->fake->never_ends, true);
        atomic_store(&h->fake->async_ns, 100000);
        atomic_store(&h->fake->hang_at, n);
        for (uint32_t i = 0; i < 8; i++) {
                requests[i] = prompt_of(h, 30 + i, 100, (char) i);
                harness_submit(h, requests[i]);
        }
}

/* All of them have failed, the event says how, and nothing more was computed. */
static void check_hung(struct harness *h, uint32_t n, enum warm_fault fault,
                       struct warm_request *requests[8]) {
        struct warm_request *late;

        harness_wait_done(h, 8);
        while (h->n_faults == 0)
                harness_event(h);
        assert_int_equal(h->n_faults, 1);
        assert_int_equal(h->last_fault.fault, fault);
        late = prompt_of(h, 30, 5, 0);
        harness_run(h, late);
        assert_int_equal(late->failure, WARM_FAILURE_BACKEND);
        warm_request_free(late);
        assert_int_equal(atomic_load(&h->fake->n_steps), n);
        for (uint32_t i = 0; i < 8; i++) {
                assert_int_equal(requests[i]->failure, WARM_FAILURE_BACKEND);
                warm_request_free(requests[i]);
        }
        harness_drop(h);
}

static void a_step_that_hangs_is_lost_after_its_limit(void **state) {
        (void) state;
        for (uint32_t n = 1; n <= 20; n += 6) {
                struct warm_request *requests[8];
                struct harness h;
                uint64_t begin = warm_now_ns();

                hang(&h, n, 200000000, requests);
                check_hung(&h, n, WARM_FAULT_HUNG, requests);
                assert_true(warm_now_ns() - begin >= 200000000);
        }
}

static void a_step_that_takes_long_but_ends_is_not_lost(void **state) {
        struct warm_request *r;
        struct harness h;

        (void) state;
        harness_start(&h, (struct harness_options){ .step_limit_ns = 2000000000 });
        atomic_store(&h.fake->async_ns, 250000000); /* beyond two looks */
        r = prompt_of(&h, 20, 2, 0);
        harness_run(&h, r);
        harness_check(&h, r);
        warm_request_free(r);
        harness_end(&h);
}

static void a_device_that_is_lost_without_a_sign_is_found_out(void **state) {
        struct warm_request *requests[8];
        struct harness h;

        (void) state;
        hang(&h, 3, 0, requests); /* by the limit alone it would take 10 s */
        atomic_store(&h.fake->lose_hanging, true);
        check_hung(&h, 3, WARM_FAULT_LOST, requests);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(
                        the_default_ceiling_is_sixteen_contexts_or_a_quarter_of_what_is_free),
                cmocka_unit_test(memory_comes_chunk_by_chunk_and_trim_gives_it_back),
                cmocka_unit_test(blocks_get_their_sums_once_nobody_asks_for_anything),
                cmocka_unit_test(trimming_one_uid_leaves_the_cache_of_another),
                cmocka_unit_test(trim_under_load_disturbs_nobody),
                cmocka_unit_test(who_finds_no_room_waits_until_others_end),
                cmocka_unit_test(what_fills_the_cache_alone_fits_and_one_block_more_does_not),
                cmocka_unit_test(a_device_without_memory_is_a_full_cache),
                cmocka_unit_test(one_model_takes_the_memory_that_another_only_caches_in),
                cmocka_unit_test(all_memory_can_be_taken_before_the_start),
                cmocka_unit_test(a_model_whose_file_shrinks_is_still_the_callers),
                cmocka_unit_test(a_lost_backend_fails_everything_and_says_so_once),
                cmocka_unit_test(a_step_that_hangs_is_lost_after_its_limit),
                cmocka_unit_test(a_step_that_takes_long_but_ends_is_not_lost),
                cmocka_unit_test(a_device_that_is_lost_without_a_sign_is_found_out),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
