/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation fails once: the n-th since it was armed, n = 1, 2, ... until nothing fails any more. What is refused
 * leaves nothing behind (the leak checker of a sanitized build looks), what was accepted ends by a DONE.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "harness.h"

/* Allocations until one fails; 0: none will. Counted over all threads. */
static _Atomic uint64_t countdown;
static atomic_bool failed;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

static bool fails_now(void) {
        uint64_t left = atomic_load(&countdown);

        while (left > 0)
                if (atomic_compare_exchange_weak(&countdown, &left, left - 1)) {
                        if (left == 1)
                                atomic_store(&failed, true);
                        return left == 1;
                }
        return false;
}

void *__wrap_malloc(size_t n) {
        return fails_now() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
        return fails_now() ? NULL : __real_calloc(n, size);
}

/* Return: whether the allocation it was armed for came at all. */
static bool disarm(void) {
        atomic_store(&countdown, 0);
        return atomic_exchange(&failed, false);
}

static void an_engine_is_made_whole_or_not_at_all(void **state) {
        bool any = true;
        uint64_t n;

        (void) state;
        for (n = 1; any; n++) {
                struct warm_engine_config config = { .kv_type = WARM_TYPE_F16 };
                struct warm_model *model = fake_model_new("a", 512);
                struct fake_backend *fake = fake_backend_new();
                struct warm_engine *e = NULL;
                uint32_t index;
                int error;

                config.backend = &fake->base;
                atomic_store(&countdown, n);
                error = warm_engine_new(&config, &e);
                if (error == 0)
                        error = warm_engine_add_model(e, model, &index, NULL);
                any = disarm();
                assert_int_equal(error, any ? -ENOMEM : 0);
                if (error != 0)
                        warm_model_free(model); /* still the caller's */
                if (e)
                        warm_engine_free(e);
                else
                        warm_backend_free(&fake->base);
        }
        assert_true(n > 8);
}

static void a_request_is_refused_or_answered(void **state) {
        uint64_t n, n_refused = 0, n_failed = 0, n_right = 0;
        bool any = true;

        (void) state;
        for (n = 1; any; n++) {
                struct warm_request *r;
                struct harness h;
                int error;

                harness_start(&h, (struct harness_options){ .cut_seed = 5 });
                r = harness_complete(&h, "a prompt of some length that ends in re", 2, 12);
                r->n = 3;
                r->n_top = 4;
                atomic_store(&countdown, n);
                error = warm_engine_submit(h.engine, r);
                if (error == 0)
                        harness_wait(&h, r);
                any = disarm();
                if (error != 0) {
                        assert_int_equal(error, -ENOMEM);
                        n_refused++;
                        /* It is the caller's as before: the same again is answered. */
                        harness_run(&h, r);
                        harness_check(&h, r);
                } else if (r->failure != WARM_FAILURE_NONE) {
                        assert_true(r->failure == WARM_FAILURE_MEMORY ||
                                    r->failure == WARM_FAILURE_NO_ROOM);
                        n_failed++;
                } else {
                        harness_check(&h, r);
                        n_right++;
                }
                warm_request_free(r);
                harness_end(&h);
        }
        assert_true(n_refused > 3 && n_failed > 0 && n_right > 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_engine_is_made_whole_or_not_at_all),
                cmocka_unit_test(a_request_is_refused_or_answered),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
