/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
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
#include "model/window.h"
#include "tiny.h"

#define S(s) ((struct warm_string){ .data = (s), .n = sizeof(s) - 1 })

static struct warm_model model;
static char *corpus;
static size_t n_corpus;

static int setup(void **state) {
        static const char *const names[] = { "kernels/backend.h", "daemon/model/prompt.c",
                                             "models/recipe/prepare.py" };

        (void) state;
        tiny_init(&model, 1U << 20, false);
        corpus = corpus_read(names, sizeof(names) / sizeof(*names), 1U << 18, &n_corpus);
        return n_corpus > 30000 ? 0 : -1;
}

static int teardown(void **state) {
        (void) state;
        tiny_deinit(&model);
        free(corpus);
        return 0;
}

static struct warm_prompt_source source_of(const char *prefix, size_t n, const char *suffix,
                                           size_t n_suffix) {
        return (struct warm_prompt_source){
                .prefix = { prefix, n },
                .suffix = { suffix, n_suffix },
                .heal = true,
                .n_max = 64,
                .n_context = 1U << 15,
        };
}

static struct warm_prompt_source small(const char *prefix, const char *suffix) {
        return source_of(prefix, strlen(prefix), suffix, strlen(suffix));
}

static struct warm_prompt build(const struct warm_prompt_source *s) {
        struct warm_prompt p = { 0 };

        assert_int_equal(warm_prompt_build(&model, s, &p), 0);
        assert_true(p.n_ids >= 1 && p.n_ids <= s->n_context - s->n_max);
        for (uint32_t i = 0; i < p.n_seams; i++)
                assert_true(p.seams[i] <= p.n_ids && p.seams[i] > (i ? p.seams[i - 1] : 0));
        return p;
}

/* The prompt's spelling, then '|' and what is to be healed. */
static void spells(const struct warm_prompt_source *s, const char *expected) {
        struct warm_prompt p = build(s);
        size_t n;
        char *text = tiny_spell(&model, p.ids, p.n_ids, &n);

        text = realloc(text, n + p.n_heal + 2);
        assert_non_null(text);
        text[n] = '|';
        memcpy(text + n + 1, p.heal, p.n_heal);
        text[n + 1 + p.n_heal] = 0;
        assert_string_equal(text, expected);
        free(text);
        warm_prompt_deinit(&p);
}

static void spm_joint_puts_the_suffix_first(void **state) {
        struct warm_prompt_source s = small("int foo", "\nint b;\n");

        (void) state;
        spells(&s, "[P][S]\nint b;\n[M]int| foo");
        s.heal = false;
        spells(&s, "[P][S]\nint b;\n[M]int foo|");
        s.path = S("a/b.c");
        spells(&s, "[F]a/b.c\n[P][S]\nint b;\n[M]int foo|");
        s = small("", "");
        spells(&s, "[P][S][M]|");
}

static void psm_is_cut_at_the_anchor(void **state) {
        char prefix[256];
        size_t n = 0, anchor;
        struct warm_prompt_source s;
        char expected[512];

        (void) state;
        for (int i = 0; i < 12; i++)
                n += (size_t) snprintf(prefix + n, sizeof(prefix) - n, "line number %d;\n", i);
        n += (size_t) snprintf(prefix + n, sizeof(prefix) - n, "int x");
        s = source_of(prefix, n, "\nend", 4);
        s.order = WARM_ORDER_PSM;
        anchor = warm_window_anchor(prefix, n - 2);
        assert_true(anchor > 0);
        snprintf(expected, sizeof(expected), "[P]%.*s[S]\nend[M]%.*s| x", (int) anchor, prefix,
                 (int) (n - 2 - anchor), prefix + anchor);
        spells(&s, expected);
        s = small("a;\nint x", "\nend");
        s.order = WARM_ORDER_PSM;
        spells(&s, "[P][S]\nend[M]a;\nint| x");
}

static void an_order_that_the_model_does_not_know_is_not_used(void **state) {
        struct warm_prompt_source s = small("a;\nint x", "\nend");

        (void) state;
        model.format.orders = 1U << WARM_ORDER_PSM;
        model.format.order = WARM_ORDER_PSM;
        s.order = WARM_ORDER_SPM_JOINT;
        spells(&s, "[P][S]\nend[M]a;\nint| x");
        model.format.orders |= 1U << WARM_ORDER_SPM_JOINT;
        model.format.order = WARM_ORDER_SPM_JOINT;
}

static void codestral_has_two_marks_and_the_suffix_first(void **state) {
        struct warm_prompt_source s = small("int foo", "\nb");

        (void) state;
        model.format.mid = -1;
        spells(&s, "[S]\nb[P]int| foo");
        model.format.mid = TINY_MID;
}

static void seed_coders_last_mark_stands_behind_the_prefix(void **state) {
        struct warm_prompt_source s = small("int foo", "\nb");
        const struct warm_prompt_format kept = model.format;

        (void) state;
        model.format.suf = TINY_SEED_SUF;
        model.format.mid = TINY_SEED_MID;
        spells(&s, "[s]\nb[P]int[m]| foo");
        model.format = kept;
}

static void a_model_without_marks_continues_the_prefix(void **state) {
        struct warm_prompt_source s = small("int foo", ")\nb");
        struct warm_prompt p;

        (void) state;
        model.format.order = WARM_ORDER_NONE;
        s.path = S("x.c");
        spells(&s, "int| foo");
        p = build(&s);
        assert_false(p.fim);
        assert_int_equal(p.truncated_suffix, 2);
        assert_int_equal(p.rest.n, 1);
        warm_prompt_deinit(&p);
        model.format.order = WARM_ORDER_SPM_JOINT;
        p = build(&s);
        assert_true(p.fim);
        warm_prompt_deinit(&p);
}

static void the_rest_of_the_line_changes_no_token(void **state) {
        static const char *const suffixes[] = { "\nb;\n", ")\nb;\n", "\");\nb;\n",
                                                " \t}]>`',\nb;\n" };

        (void) state;
        for (size_t i = 0; i < 4; i++) {
                struct warm_prompt_source s = small("int foo", suffixes[i]);
                struct warm_prompt p = build(&s);

                spells(&s, "[P][S]\nb;\n[M]int| foo");
                assert_int_equal(p.rest.n, strcspn(suffixes[i], "\n"));
                assert_int_equal(p.truncated_suffix, 0);
                warm_prompt_deinit(&p);
        }
        {
                struct warm_prompt_source s = small("int foo", ")\r\nb;\r\n");

                spells(&s, "[P][S]\r\nb;\r\n[M]int| foo");
                s = small("int foo", ") {\nb");
                spells(&s, "[P][S]) {\nb[M]int| foo");
                s = small("int foo", ")");
                spells(&s, "[P][S][M]int| foo");
        }
}

static void snippets_stand_in_front_oldest_first(void **state) {
        const struct warm_snippet snippets[] = { { S("old.c"), S("one\n") },
                                                 { S(""), S("two\n") } };
        struct warm_prompt_source s = small("int foo", "\nb");

        (void) state;
        s.snippets = snippets;
        s.n_snippets = 2;
        spells(&s,
               "[R]project\n[F]old.c\none\n[F]filename\ntwo\n[F]filename\n[P][S]\nb[M]int| foo");
        s.path = S("x.c");
        spells(&s, "[R]project\n[F]old.c\none\n[F]filename\ntwo\n[F]x.c\n[P][S]\nb[M]int| foo");
        model.format.repo = -1;
        spells(&s, "[F]old.c\none\n[F]filename\ntwo\n[F]x.c\n[P][S]\nb[M]int| foo");
        model.format.file_sep = -1;
        spells(&s, "old.c\none\n\nfilename\ntwo\n\n[P][S]\nb[M]int| foo");
        model.format.repo = TINY_REPO;
        model.format.file_sep = TINY_SEP;
}

static void the_oldest_snippets_go_first_when_room_is_short(void **state) {
        struct warm_snippet snippets[WARM_PROMPT_SNIPPETS_MAX];
        uint64_t kept_before = 0;

        (void) state;
        for (unsigned i = 0; i < WARM_PROMPT_SNIPPETS_MAX; i++)
                snippets[i] = (struct warm_snippet){ S("p"), { corpus + 100 * i, 90 } };
        for (uint32_t n_context = 256; n_context < 20000; n_context += 701) {
                struct warm_prompt_source s = source_of(corpus, 3000, corpus + 3000, 3000);
                struct warm_prompt p;
                uint64_t kept, n_marks = 0;

                s.n_context = n_context;
                s.snippets = snippets;
                s.n_snippets = WARM_PROMPT_SNIPPETS_MAX;
                p = build(&s);
                kept = WARM_PROMPT_SNIPPETS_MAX - p.truncated_snippets;
                for (uint32_t i = 0; i < p.n_ids; i++)
                        n_marks += p.ids[i] == TINY_SEP;
                assert_int_equal(n_marks, kept + (kept > 0));
                assert_true(kept >= kept_before);
                kept_before = kept;
                warm_prompt_deinit(&p);
        }
        assert_int_equal(kept_before, WARM_PROMPT_SNIPPETS_MAX);
}

static void bos_stands_in_front_where_the_model_wants_one(void **state) {
        struct warm_prompt_source s = small("foo", "");

        (void) state;
        model.format.bos = TINY_BOS;
        spells(&s, "[B][P][S][M]|foo");
        s.continuation = true;
        spells(&s, "[B]|foo");
        s.prefix = S("");
        spells(&s, "[B]|");
        model.format.bos = -1;
}

static void a_continuation_goes_on_from_its_text(void **state) {
        struct warm_prompt_source s = small("int foo", ")");
        struct warm_prompt p = { 0 };

        (void) state;
        s.continuation = true;
        s.path = S("x.c");
        spells(&s, "int| foo");
        s.heal = false;
        spells(&s, "int foo|");
        s.heal = true;
        s.prefix = S("foo");
        spells(&s, "foo|");
        s.prefix = S("");
        assert_int_equal(warm_prompt_build(&model, &s, &p), -EINVAL);
        s.prefix = (struct warm_string){ corpus, n_corpus };
        s.n_context = 1U << 20;
        p = build(&s);
        assert_int_equal(p.truncated_prefix, 0);
        assert_int_equal(p.rest.n, 0);
        warm_prompt_deinit(&p);
}

static void given_ids_are_taken_as_they_are(void **state) {
        const int32_t ids[] = { TINY_MID, 65, 66, TINY_TOKENS - 1 }, wrong[] = { 1, TINY_TOKENS },
                      negative[] = { -1 };
        struct warm_prompt_source s = small("", "");
        struct warm_prompt p;

        (void) state;
        s.ids = ids;
        s.n_ids = 4;
        p = build(&s);
        assert_int_equal(p.n_ids, 4);
        assert_memory_equal(p.ids, ids, sizeof(ids));
        assert_int_equal(p.n_heal, 0);
        warm_prompt_deinit(&p);
        s.n_context = s.n_max + 3;
        s.heal = false;
        assert_int_equal(warm_prompt_build(&model, &s, &p), -EINVAL);
        s.n_context = 256;
        s.n_max = 256 - 40;
        s.n_ids = 41;
        s.ids = calloc(41, sizeof(*s.ids));
        assert_int_equal(warm_prompt_build(&model, &s, &p), -ERANGE);
        s.n_ids = 40;
        p = build(&s);
        warm_prompt_deinit(&p);
        free((int32_t *) s.ids);
        s.ids = wrong;
        s.n_ids = 2;
        assert_int_equal(warm_prompt_build(&model, &s, &p), -EINVAL);
        s.ids = negative;
        s.n_ids = 1;
        assert_int_equal(warm_prompt_build(&model, &s, &p), -EINVAL);
        s.n_ids = 0;
        assert_int_equal(warm_prompt_build(&model, &s, &p), -EINVAL);
}

static void names_of_marks_in_text_are_plain_characters(void **state) {
        struct warm_prompt_source s = small("<|fim_middle|> x", "<|file_sep|>");

        (void) state;
        spells(&s, "[P][S]<|file_sep|>[M]<|fim_middle|>| x");
        s.special = true;
        spells(&s, "[P][S][F][M][M]| x");
        s.prefix = S("a<|fim_middle|>");
        spells(&s, "[P][S][F][M]a[M]|");
        s.prefix = S("<|fim_middle|>ab");
        spells(&s, "[P][S][F][M][M]|ab");
}

static void too_little_room_is_refused(void **state) {
        struct warm_prompt_source s = small("int foo", "b");
        struct warm_prompt p;

        (void) state;
        for (s.n_context = 1; s.n_context < 2048; s.n_context++)
                for (s.n_max = 1; s.n_max <= s.n_context; s.n_max += 1 + s.n_context / 37) {
                        int r = warm_prompt_build(&model, &s, &p);

                        assert_true(r == 0 || r == -EINVAL);
                        if (s.n_max + 128 < s.n_context)
                                assert_int_equal(r, 0);
                        if (r == 0)
                                warm_prompt_deinit(&p);
                }
}

/* The text of the prompt, with what is healed, is what was sent, less what was left out. */
static void nothing_is_lost_but_what_is_said_to_be(void **state) {
        (void) state;
        for (uint32_t n_context = 200; n_context < 9000; n_context = n_context * 5 / 4)
                for (size_t at = 4000; at < n_corpus - 4000; at += 2503) {
                        struct warm_prompt_source s =
                                source_of(corpus, at, corpus + at, n_corpus - at);
                        char *text, *mid;
                        struct warm_prompt p;
                        size_t n, n_suffix;

                        s.n_context = n_context;
                        p = build(&s);
                        text = tiny_spell(&model, p.ids, p.n_ids, &n);
                        mid = strstr(text, "[M]");
                        assert_non_null(mid);
                        n_suffix = s.suffix.n - p.rest.n - p.truncated_suffix;
                        assert_int_equal(mid - text, 6 + n_suffix);
                        assert_memory_equal(text + 6, s.suffix.data + p.rest.n, n_suffix);
                        mid += 3;
                        n = strlen(mid);
                        assert_int_equal(n + p.n_heal, at - p.truncated_prefix);
                        assert_memory_equal(mid, corpus + p.truncated_prefix, n);
                        assert_memory_equal(p.heal, corpus + at - p.n_heal, p.n_heal);
                        free(text);
                        warm_prompt_deinit(&p);
                }
}

static bool begins(const struct warm_prompt *whole, const struct warm_prompt *part) {
        return whole->n_ids >= part->n_ids &&
               memcmp(whole->ids, part->ids, part->n_ids * sizeof(*part->ids)) == 0;
}

/* Type characters (or accept pieces of text). Return: how often the prompt changed before its end. */
static size_t type(struct warm_prompt_source s, size_t from, size_t to, size_t piece) {
        struct warm_prompt before = { 0 }, now;
        size_t n_breaks = 0;

        for (size_t n = from; n < to; n += piece) {
                s.prefix = (struct warm_string){ corpus, n };
                now = build(&s);
                n_breaks += before.n_ids > 0 && !begins(&now, &before);
                warm_prompt_deinit(&before);
                before = now;
        }
        warm_prompt_deinit(&before);
        return n_breaks;
}

static void typing_and_accepting_only_append(void **state) {
        struct warm_prompt_source s = source_of(corpus, 0, "\n}\n\nint g;\n", 11);

        (void) state;
        s.offset_known = true;
        for (size_t piece = 1; piece < 60; piece += 29) {
                assert_int_equal(type(s, 0, 3000, piece), 0);
                assert_int_equal(type(s, 16000, 18000, piece), 0);
        }
}

static void in_psm_only_the_anchor_breaks_it(void **state) {
        struct warm_prompt_source s = source_of(corpus, 0, "\n}\n\nint g;\n", 11);
        size_t n_breaks;

        (void) state;
        s.offset_known = true;
        s.order = WARM_ORDER_PSM;
        n_breaks = type(s, 3000, 7000, 1);
        print_message("the anchor broke the prompt %zu times in 4000 characters\n", n_breaks);
        assert_true(n_breaks < 20);
}

static void with_a_window_typing_seldom_breaks_it(void **state) {
        struct warm_prompt_source s = source_of(corpus, 0, "\n}\n\nint g;\n", 11);
        size_t n_breaks;

        (void) state;
        s.n_context = 2048;
        n_breaks = type(s, 12000, 16000, 1);
        print_message("the window broke the prompt %zu times in 4000 characters\n", n_breaks);
        assert_true(n_breaks < 80);
}

static void more_text_than_the_window_changes_nothing(void **state) {
        (void) state;
        for (unsigned order = WARM_ORDER_PSM; order <= WARM_ORDER_SPM_JOINT; order++)
                for (size_t at = 12000; at < n_corpus - 8000; at += 1777) {
                        struct warm_prompt_source s =
                                source_of(corpus, at, corpus + at, n_corpus - at);
                        struct warm_prompt all, less;

                        s.n_context = 2048;
                        s.order = order;
                        all = build(&s);
                        s.prefix = (struct warm_string){ corpus + at - 7000, 7000 };
                        s.suffix.n = 7000;
                        less = build(&s);
                        assert_int_equal(all.n_ids, less.n_ids);
                        assert_true(begins(&all, &less));
                        warm_prompt_deinit(&all);
                        warm_prompt_deinit(&less);
                }
}

static void a_piece_longer_than_the_room_makes_a_prompt(void **state) {
        char text[200];
        struct warm_prompt_source s = source_of(text, sizeof(text), "\nb", 2);

        (void) state;
        memset(text, '#', sizeof(text));
        s.n_max = 8;
        for (s.n_context = 100; s.n_context < 300; s.n_context++) {
                struct warm_prompt p = build(&s);

                assert_true(p.n_heal <= WARM_HEAL_BYTES_MAX);
                warm_prompt_deinit(&p);
        }
}

static void any_bytes_make_a_prompt(void **state) {
        char bytes[4096];
        uint64_t x = 7;

        (void) state;
        for (size_t i = 0; i < sizeof(bytes); i++) {
                x = x * 6364136223846793005ULL + 1442695040888963407ULL;
                bytes[i] = (char) (x >> 56);
        }
        for (size_t at = 0; at <= sizeof(bytes); at += 61)
                for (unsigned order = WARM_ORDER_PSM; order <= WARM_ORDER_SPM_JOINT; order++) {
                        struct warm_prompt_source s =
                                source_of(bytes, at, bytes + at, sizeof(bytes) - at);
                        struct warm_prompt p;

                        s.n_context = 128 + (uint32_t) at;
                        s.n_max = 20;
                        s.order = order;
                        s.special = at % 2;
                        p = build(&s);
                        warm_prompt_deinit(&p);
                }
}

static void the_cursors_line_starts_at_a_seam(void **state) {
        struct warm_prompt_source s = small("foo;\nint b = foo", "\nend");
        struct warm_prompt p = build(&s);
        char *text;

        (void) state;
        assert_int_equal(p.n_seams, 2);
        text = tiny_spell(&model, p.ids, p.seams[0], NULL);
        assert_string_equal(text, "[P][S]\nend[M]");
        free(text);
        text = tiny_spell(&model, p.ids, p.seams[1], NULL);
        assert_string_equal(text, "[P][S]\nend[M]foo;\n");
        free(text);
        warm_prompt_deinit(&p);
}

static void the_window_in_bytes_is_bounded(void **state) {
        (void) state;
        assert_int_equal(warm_prompt_window_bytes(&model, 2048), 6144);
        assert_int_equal(warm_prompt_window_bytes(&model, 0), WARM_PREFIX_BYTES_MAX);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(spm_joint_puts_the_suffix_first),
                cmocka_unit_test(psm_is_cut_at_the_anchor),
                cmocka_unit_test(an_order_that_the_model_does_not_know_is_not_used),
                cmocka_unit_test(codestral_has_two_marks_and_the_suffix_first),
                cmocka_unit_test(seed_coders_last_mark_stands_behind_the_prefix),
                cmocka_unit_test(a_model_without_marks_continues_the_prefix),
                cmocka_unit_test(the_rest_of_the_line_changes_no_token),
                cmocka_unit_test(snippets_stand_in_front_oldest_first),
                cmocka_unit_test(the_oldest_snippets_go_first_when_room_is_short),
                cmocka_unit_test(bos_stands_in_front_where_the_model_wants_one),
                cmocka_unit_test(a_continuation_goes_on_from_its_text),
                cmocka_unit_test(given_ids_are_taken_as_they_are),
                cmocka_unit_test(names_of_marks_in_text_are_plain_characters),
                cmocka_unit_test(too_little_room_is_refused),
                cmocka_unit_test(nothing_is_lost_but_what_is_said_to_be),
                cmocka_unit_test(typing_and_accepting_only_append),
                cmocka_unit_test(in_psm_only_the_anchor_breaks_it),
                cmocka_unit_test(with_a_window_typing_seldom_breaks_it),
                cmocka_unit_test(more_text_than_the_window_changes_nothing),
                cmocka_unit_test(a_piece_longer_than_the_room_makes_a_prompt),
                cmocka_unit_test(any_bytes_make_a_prompt),
                cmocka_unit_test(the_cursors_line_starts_at_a_seam),
                cmocka_unit_test(the_window_in_bytes_is_bounded),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
