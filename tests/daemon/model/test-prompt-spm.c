/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts of a model whose vocabulary is SentencePiece: orders, healing, the space in front, bytes without a token. */
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

#define LAST_TOKENS 3U

static struct warm_model model;
static char *corpus;
static size_t n_corpus;

static int setup(void **state) {
        static const char *const names[] = { "kernels/backend.h", "daemon/model/prompt.c",
                                             "models/recipe/prepare.py" };

        (void) state;
        tiny_init_spm(&model, 1U << 20, true);
        corpus = corpus_read(names, sizeof(names) / sizeof(*names), 1U << 18, &n_corpus);
        return n_corpus > 30000 ? 0 : -1;
}

static int teardown(void **state) {
        (void) state;
        tiny_deinit(&model);
        free(corpus);
        return 0;
}

static struct warm_prompt_source source_of(const char *prefix, size_t n, const char *suffix) {
        return (struct warm_prompt_source){
                .prefix = { prefix, n },
                .suffix = { suffix, strlen(suffix) },
                .heal = true,
                .n_max = 64,
                .n_context = 1U << 15,
        };
}

static struct warm_prompt build(const struct warm_prompt_source *s) {
        struct warm_prompt p = { 0 };

        assert_int_equal(warm_prompt_build(&model, s, &p), 0);
        assert_true(p.n_ids >= 1 && p.n_ids <= s->n_context - s->n_max);
        return p;
}

/* The prompt's spelling, then '|' and what is to be healed. */
static void spells(const struct warm_prompt_source *s, const char *expected) {
        struct warm_prompt p = build(s);
        char *text = tiny_spell(&model, p.ids, p.n_ids, NULL), whole[512];

        snprintf(whole, sizeof(whole), "%s|%.*s", text, (int) p.n_heal, (const char *) p.heal);
        assert_string_equal(whole, expected);
        free(text);
        warm_prompt_deinit(&p);
}

static void small(const char *prefix, const char *suffix, enum warm_order order,
                  const char *expected) {
        struct warm_prompt_source s = source_of(prefix, strlen(prefix), suffix);

        s.order = order;
        spells(&s, expected);
}

static void each_order_puts_bos_first_and_a_space_where_the_file_begins(void **state) {
        (void) state;
        small("int foo", "\nb;\n", WARM_ORDER_SPM_JOINT, "[B][P][S]\nb;\n[M] int| foo");
        small("int foo", "\nb;\n", WARM_ORDER_PSM, "[B][P][S]\nb;\n[M] int| foo");
        model.format.mid = -1; /* Codestral */
        small("int foo", "\nb", WARM_ORDER_SPM_JOINT, "[B][S]\nb[P] int| foo");
        model.format.mid = TINY_MID;
        model.format.order = WARM_ORDER_NONE;
        small("int foo", "\nb", WARM_ORDER_NONE, "[B] int| foo");
        small("foo", "", WARM_ORDER_NONE, "[B]|foo");
        model.format.order = WARM_ORDER_SPM_JOINT;
        small("", "", WARM_ORDER_SPM_JOINT, "[B][P][S][M]|");
}

static void text_from_the_middle_of_a_file_has_no_space_in_front(void **state) {
        struct warm_prompt_source s = source_of("int foo", 7, "\nb");

        (void) state;
        s.offset_known = true;
        s.offset = 100;
        spells(&s, "[B][P][S]\nb[M]int| foo");
        s.offset = 0;
        spells(&s, "[B][P][S]\nb[M] int| foo");
        tiny_deinit(&model);
        tiny_init_spm(&model, 1U << 20, false);
        spells(&s, "[B][P][S]\nb[M]int| foo");
        tiny_deinit(&model);
        tiny_init_spm(&model, 1U << 20, true);
}

static void psm_is_cut_at_the_anchor(void **state) {
        char prefix[256], expected[512];
        size_t n = 0, anchor;
        struct warm_prompt_source s;

        (void) state;
        for (int i = 0; i < 12; i++)
                n += (size_t) snprintf(prefix + n, sizeof(prefix) - n, "line number %d;\n", i);
        n += (size_t) snprintf(prefix + n, sizeof(prefix) - n, "int x");
        s = source_of(prefix, n, "\nend");
        s.order = WARM_ORDER_PSM;
        anchor = warm_window_anchor(prefix, n - 2);
        assert_true(anchor > 0);
        /* One space for the file's start, none where the anchor parts it. */
        snprintf(expected, sizeof(expected), "[B][P] %.*s[S]\nend[M]%.*s| x", (int) anchor, prefix,
                 (int) (n - 2 - anchor), prefix + anchor);
        spells(&s, expected);
}

static void the_piece_before_the_cursor_is_healed(void **state) {
        struct warm_prompt_source s = source_of("int ret", 7, "");
        struct warm_prompt p = build(&s);
        uint64_t allowed[(TINY_TOKENS + 63) / 64] = { 0 };
        size_t n;

        (void) state;
        assert_int_equal(p.n_heal, 4);
        assert_memory_equal(p.heal, " ret", 4);
        /* Its own tokens, as they follow text: no space of the file's start before them. */
        assert_int_equal(p.n_heal_ids, 2);
        assert_int_equal(warm_vocab_text(model.vocab, p.heal_ids[0]).n, 3);
        assert_memory_equal(warm_vocab_text(model.vocab, p.heal_ids[0]).data, " re", 3);
        n = warm_vocab_allow(model.vocab, p.heal, p.n_heal, allowed);
        assert_true(n > 0);
        for (int32_t id = 0; id < TINY_TOKENS; id++) {
                struct warm_string t = warm_vocab_text(model.vocab, id);
                size_t k = t.n < 4 ? t.n : 4;
                bool fits = t.n > 0 && id < TINY_END && memcmp(t.data, " ret", k) == 0;

                if (id < TINY_MERGED || fits)
                        assert_int_equal(allowed[id / 64] >> (id % 64) & 1, fits);
        }
        warm_prompt_deinit(&p);
}

static void what_has_no_token_is_spelled_in_bytes(void **state) {
        struct warm_prompt_source s = source_of("\xE4\xB8\xAD \xC3\xA9t x", 9, "");
        struct warm_prompt p = build(&s);
        uint32_t n_bytes = 0;

        (void) state;
        for (uint32_t i = 0; i < p.n_ids; i++)
                n_bytes += p.ids[i] < TINY_MERGED;
        assert_int_equal(n_bytes, 3); /* U+4E2D; the accent is a piece */
        warm_prompt_deinit(&p);
        spells(&s, "[B][P][S][M] \xE4\xB8\xAD \xC3\xA9t| x");
}

/* The text of the prompt, with what is healed, is what was sent, less what was left out. */
static void nothing_is_lost_but_what_is_said_to_be(void **state) {
        (void) state;
        for (uint32_t n_context = 200; n_context < 40000; n_context = n_context * 2)
                for (size_t at = 4000; at < n_corpus - 4000; at += 2503) {
                        struct warm_prompt_source s = source_of(corpus, at, "\n}\n");
                        char *text, *mid;
                        struct warm_prompt p;
                        size_t n, first;

                        s.n_context = n_context;
                        p = build(&s);
                        text = tiny_spell(&model, p.ids, p.n_ids, NULL);
                        mid = strstr(text, "[M]");
                        assert_non_null(mid);
                        first = p.truncated_prefix == 0; /* the space before the file */
                        mid += 3 + first;
                        n = strlen(mid);
                        assert_int_equal(n + p.n_heal, at - p.truncated_prefix);
                        assert_memory_equal(mid, corpus + p.truncated_prefix, n);
                        assert_memory_equal(p.heal, corpus + at - p.n_heal, p.n_heal);
                        free(text);
                        warm_prompt_deinit(&p);
                }
}

/*
 * SentencePiece merges over the start of a piece: of eight blanks before a word the last belongs to the word until the
 * word is complete, and to the blanks from then on, which makes 4 + 4 of 4 + 2 + 1. So the end of the prompt may
 * change, and nothing before.
 */
static void typing_changes_at_most_the_last_tokens(void **state) {
        struct warm_prompt before = { 0 };
        uint32_t n_changed = 0;

        (void) state;
        for (size_t n = 0; n < 4000; n++) {
                struct warm_prompt_source s = source_of(corpus, n, "\n}\n\nint g;\n");
                struct warm_prompt now;
                uint32_t same = 0;

                s.offset_known = true;
                now = build(&s);
                while (same < before.n_ids && same < now.n_ids && before.ids[same] == now.ids[same])
                        same++;
                assert_true(same + LAST_TOKENS >= before.n_ids);
                n_changed += same < before.n_ids;
                warm_prompt_deinit(&before);
                before = now;
        }
        warm_prompt_deinit(&before);
        print_message("the last tokens changed %u times in 4000 characters\n", n_changed);
        assert_true(n_changed < 200);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_order_puts_bos_first_and_a_space_where_the_file_begins),
                cmocka_unit_test(text_from_the_middle_of_a_file_has_no_space_in_front),
                cmocka_unit_test(psm_is_cut_at_the_anchor),
                cmocka_unit_test(the_piece_before_the_cursor_is_healed),
                cmocka_unit_test(what_has_no_token_is_spelled_in_bytes),
                cmocka_unit_test(nothing_is_lost_but_what_is_said_to_be),
                cmocka_unit_test(typing_changes_at_most_the_last_tokens),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
