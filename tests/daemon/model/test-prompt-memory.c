/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation of a prompt and of an answer fails once: -ENOMEM, nothing leaked (the sanitizers look), nothing
 * written.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "model/answer.h"
#include "model/prompt.h"
#include "tiny.h"

#define S(s) ((struct warm_string){ .data = (s), .n = sizeof(s) - 1 })

/* 0: none fails; n: the n-th from now. */
static unsigned fail_at;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

static bool fails(void) {
        return fail_at > 0 && --fail_at == 0;
}

void *__wrap_malloc(size_t n) {
        return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
        return fails() ? NULL : __real_calloc(n, size);
}

static void prompts_survive(const struct warm_model *m, struct warm_prompt_source s) {
        unsigned n = 0;
        int r;

        do {
                struct warm_prompt p = { 0 };

                fail_at = ++n;
                r = warm_prompt_build(m, &s, &p);
                if (r == 0)
                        warm_prompt_deinit(&p);
                else {
                        assert_int_equal(r, -ENOMEM);
                        assert_null(p.ids);
                }
        } while (r < 0 && n < 1000);
        assert_true(fail_at > 0);
        assert_true(n > 1 && n < 1000);
        fail_at = 0;
}

static void a_prompt_without_memory_is_none(void **state) {
        const struct warm_snippet snippets[] = { { S("a.c"), S("int a;\n") },
                                                 { S("b.c"), S("int b;\n") } };
        struct warm_prompt_source s = { .prefix = S("int x;\nint foo = re"),
                                        .suffix = S(");\nreturn;\n"),
                                        .path = S("c.c"),
                                        .snippets = snippets,
                                        .n_snippets = 2,
                                        .heal = true,
                                        .n_max = 16,
                                        .n_context = 512 };
        struct warm_model m;

        (void) state;
        tiny_init(&m, 512, true);
        prompts_survive(&m, s);
        s.order = WARM_ORDER_PSM;
        prompts_survive(&m, s);
        s.continuation = true;
        s.special = true;
        prompts_survive(&m, s);
        tiny_deinit(&m);
}

static void an_answer_without_memory_is_none(void **state) {
        const struct warm_answer_config c = { .suffix = S(")\n}\n"),
                                              .rest = S(")"),
                                              .n_stops = 2,
                                              .stops = { S("a"), S("bc") },
                                              .text_bytes_max = 64 };
        struct warm_answer *a = NULL;
        unsigned n = 0;

        (void) state;
        do {
                fail_at = ++n;
        } while (warm_answer_new(&c, &a) == -ENOMEM && !a && n < 100);
        fail_at = 0;
        assert_non_null(a);
        assert_int_equal(n, 9);
        warm_answer_free(a);
        assert_null(warm_answer_free(NULL));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_prompt_without_memory_is_none),
                cmocka_unit_test(an_answer_without_memory_is_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
