/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts of the shipped model while our own sources are typed. The corpus changes with the tree: bounds are wide.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "corpus.h"
#include "model/prompt.h"

#define N_CONTEXT 2048U

static struct warm_model *model;
static char *corpus;
static size_t n_corpus;
static const char suffix[] = "\n}\n\nint main(void) {\n        return 0;\n}\n";

/* Macros have longer runs of blanks than a piece may have: what they do is a test of its own. */
static void shorten_blanks(void) {
        size_t n = 0, n_blanks = 0;

        for (size_t i = 0; i < n_corpus; i++) {
                n_blanks = corpus[i] == ' ' ? n_blanks + 1 : 0;
                if (n_blanks <= WARM_HEAL_BYTES_MAX / 2)
                        corpus[n++] = corpus[i];
        }
        n_corpus = n;
}

static int setup(void **state) {
        static const char *const names[] = { "kernels/backend.h", "daemon/model/answer.c",
                                             "models/recipe/common.py" };
        const char *root = getenv("WARM_SOURCE_ROOT");
        char path[4096];
        char *why = NULL;

        (void) state;
        snprintf(path, sizeof(path), "%s/models/warm-nano-q8_0.gguf", root ? root : ".");
        if (warm_model_open(path, NULL, &model, &why) < 0)
                fail_msg("%s", why ? why : "the model cannot be opened");
        corpus = corpus_read(names, sizeof(names) / sizeof(*names), 1U << 20, &n_corpus);
        shorten_blanks();
        return n_corpus > 30000 ? 0 : -1;
}

static int teardown(void **state) {
        (void) state;
        warm_model_free(model);
        free(corpus);
        return 0;
}

static struct warm_prompt build(const char *text, size_t n, enum warm_order order) {
        struct warm_prompt_source s = {
                .prefix = { text, n },
                .suffix = { suffix, sizeof(suffix) - 1 },
                .path = { "src/x.c", 7 },
                .offset_known = true,
                .heal = true,
                .n_max = 64,
                .n_context = N_CONTEXT,
                .order = order,
        };
        struct warm_prompt p;

        assert_int_equal(warm_prompt_build(model, &s, &p), 0);
        assert_true(p.fim);
        return p;
}

/*
 * Return: how many of the prompts do not begin with the one before, typing `piece` characters at a time. A piece at its
 * limit of length (a long run of blanks) may change the token in front of it.
 */
static size_t type(const char *text, size_t from, size_t to, size_t piece, enum warm_order order) {
        struct warm_prompt before = { 0 };
        size_t n_breaks = 0;

        for (size_t n = from; n < to; n += piece) {
                struct warm_prompt now = build(text, n, order);

                if (before.n_ids > 0)
                        n_breaks +=
                                now.n_ids < before.n_ids ||
                                memcmp(now.ids, before.ids, before.n_ids * sizeof(*now.ids)) != 0;
                warm_prompt_deinit(&before);
                before = now;
        }
        warm_prompt_deinit(&before);
        return n_breaks;
}

static void while_all_fits_typing_only_appends(void **state) {
        (void) state;
        assert_int_equal(type(corpus, 0, 3000, 1, WARM_ORDER_SPM_JOINT), 0);
        assert_int_equal(type(corpus, 0, 3000, 23, WARM_ORDER_SPM_JOINT), 0);
        for (size_t at = 5000; at < n_corpus - 4000; at += 6007)
                assert_int_equal(type(corpus + at, 0, 2000, 1, WARM_ORDER_SPM_JOINT), 0);
}

static void only_the_anchor_breaks_it_in_psm(void **state) {
        size_t n_breaks = type(corpus, 0, 3000, 1, WARM_ORDER_PSM);

        (void) state;
        print_message("the anchor broke the prompt %zu times in 3000 characters\n", n_breaks);
        assert_in_range(n_breaks, 1, 15);
}

static void the_window_seldom_breaks_it(void **state) {
        size_t n_breaks = type(corpus, 12000, 16000, 1, WARM_ORDER_SPM_JOINT);

        (void) state;
        print_message("the window broke the prompt %zu times in 4000 characters\n", n_breaks);
        assert_true(n_breaks < 40);
}

static void the_window_fills_the_context(void **state) {
        uint64_t sum = 0, n = 0;

        (void) state;
        for (size_t at = 12000; at < n_corpus; at += 997, n++) {
                struct warm_prompt p = build(corpus, at, WARM_ORDER_SPM_JOINT);

                sum += p.n_ids;
                warm_prompt_deinit(&p);
        }
        print_message("%u tokens on average, of %u\n", (unsigned) (sum / n), N_CONTEXT - 64);
        assert_true(sum / n > N_CONTEXT / 2);
}

static void crlf_and_odd_bytes_are_typed_alike(void **state) {
        static const char *const lines[] = { "int \xc3\xa4 = 3;\r\n",
                                             "\tfoo(\"\xe2\x82\xac\");\r\n", "// \xff\xfe odd\r\n",
                                             "}\r\n\r\n", "        x  = 100;  \r\n" };
        char text[4096];
        size_t n = 0;

        (void) state;
        for (unsigned i = 0; n < 2000; i++)
                n += (size_t) snprintf(text + n, sizeof(text) - n, "%s", lines[i * i % 5]);
        assert_int_equal(type(text, 0, n, 1, WARM_ORDER_SPM_JOINT), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(while_all_fits_typing_only_appends),
                cmocka_unit_test(only_the_anchor_breaks_it_in_psm),
                cmocka_unit_test(the_window_seldom_breaks_it),
                cmocka_unit_test(the_window_fills_the_context),
                cmocka_unit_test(crlf_and_odd_bytes_are_typed_alike),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
