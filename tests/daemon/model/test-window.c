/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "corpus.h"
#include "model/window.h"

/* Source text of some length: this very directory's files, one after the other. */
static char *corpus;
static size_t n_corpus;

static int read_corpus(void **state) {
        static const char *const names[] = {
                "kernels/backend.h",        "kernels/plan.h",
                "daemon/sched/engine.h",    "daemon/cache/cache.h",
                "daemon/model/answer.c",    "daemon/model/prompt.c",
                "daemon/model/window.c",    "tests/tree/check-includes.py",
                "models/recipe/prepare.py",
        };

        (void) state;
        corpus = corpus_read(names, sizeof(names) / sizeof(*names), 1U << 20, &n_corpus);
        return n_corpus > 60000 ? 0 : -1;
}

static int free_corpus(void **state) {
        (void) state;
        free(corpus);
        return 0;
}

static size_t start_of(const char *text, size_t room) {
        return warm_window_start(text, strlen(text), room);
}

static void short_text_is_taken_whole(void **state) {
        (void) state;
        assert_int_equal(start_of("", 100), 0);
        assert_int_equal(start_of("int a;\nint b;\nint c;\nint d;\n", 100), 0);
        assert_int_equal(warm_window_start(corpus, WARM_WINDOW_WHOLE_BYTES, 4096), 0);
        assert_int_equal(warm_window_end(corpus, WARM_WINDOW_WHOLE_BYTES, 4096),
                         WARM_WINDOW_WHOLE_BYTES);
        assert_int_equal(start_of("int a;", 0), 6);
        assert_int_equal(warm_window_end("int a;", 6, 0), 0);
}

static void a_window_starts_at_a_line_in_its_first_quarter(void **state) {
        (void) state;
        for (size_t n = 3000; n < n_corpus; n += 97)
                for (size_t room = 512; room <= 8192; room *= 2) {
                        size_t from = n > room ? n - room : 0, at;
                        const char *line = memchr(corpus + from, '\n', (n - from) / 4);

                        at = warm_window_start(corpus, n, room);
                        assert_true(at > from && at <= from + (n - from) / 4 + 1);
                        /* The corpus is our own sources: one long line may fill the quarter. */
                        if (line && memchr(line + 1, '\n', (size_t) (corpus + n - line - 1)))
                                assert_int_equal(corpus[at - 1], '\n');
                }
}

static void a_window_ends_at_a_line_in_its_last_quarter(void **state) {
        (void) state;
        for (size_t n = 3000; n < n_corpus - 8192; n += 97)
                for (size_t room = 512; room <= 4096; room *= 2) {
                        size_t at = warm_window_end(corpus + n, n_corpus - n, room);

                        assert_true(at <= room && at >= room - room / 4 - 1);
                        /* The corpus is our own sources: one long line may fill the quarter. */
                        if (memchr(corpus + n + room - room / 4 - 1, '\n', room / 4))
                                assert_int_equal(corpus[n + at - 1], '\n');
                }
}

static void what_stands_before_the_last_bytes_does_not_matter(void **state) {
        (void) state;
        for (size_t n = 9000; n < n_corpus; n += 1009)
                for (size_t more = 0; more < 5000; more += 613) {
                        size_t a = warm_window_start(corpus, n, 4000);
                        size_t from = n - 4001 - more % 5000;

                        assert_int_equal(from + warm_window_start(corpus + from, n - from, 4000),
                                         a);
                }
}

static void what_stands_behind_the_first_bytes_does_not_matter(void **state) {
        (void) state;
        for (size_t at = 0; at < n_corpus - 9000; at += 1009)
                for (size_t more = 1; more < 5000; more += 613)
                        assert_int_equal(warm_window_end(corpus + at, 2000 + more, 2000),
                                         warm_window_end(corpus + at, 2001, 2000));
}

/* Enter after Enter, a client's own window of 256 lines sliding below. 2/(w + 1) for w lines in the quarter. */
static void the_start_seldom_moves_while_lines_are_typed(void **state) {
        size_t lines[8192], n_lines = 0, n_moves = 0, n_enters = 0, before = 0;

        (void) state;
        lines[n_lines++] = 0;
        for (size_t i = 0; i < n_corpus && n_lines < 8192; i++)
                if (corpus[i] == '\n')
                        lines[n_lines++] = i + 1;
        for (size_t i = 257; i < n_lines; i++) {
                size_t from = lines[i - 256];
                size_t at = from + warm_window_start(corpus + from, lines[i] - from, 1U << 20);

                n_moves += i > 257 && at != before;
                n_enters++;
                before = at;
        }
        print_message("the start moved %zu times over %zu Enters\n", n_moves, n_enters);
        assert_true(n_enters > 1000);
        assert_true(n_moves * 20 < n_enters);
}

static void the_anchor_seldom_moves_while_characters_are_typed(void **state) {
        size_t n_moves = 0, n_typed = 0, before = 0;

        (void) state;
        for (size_t n = 10000; n < n_corpus; n++) {
                size_t at = warm_window_anchor(corpus, n);

                n_moves += n_typed > 0 && at != before;
                n_typed++;
                before = at;
        }
        print_message("the anchor moved %zu times over %zu characters\n", n_moves, n_typed);
        assert_true(n_moves * 300 < n_typed);
}

static void the_anchor_is_8_to_40_lines_above(void **state) {
        (void) state;
        for (size_t n = 5000; n < n_corpus; n += 41) {
                size_t at = warm_window_anchor(corpus, n), lines = 0;

                assert_true(at > 0);
                assert_int_equal(corpus[at - 1], '\n');
                for (size_t i = at; i < n; i++)
                        lines += corpus[i] == '\n';
                assert_in_range(lines, 8, 40);
        }
        assert_int_equal(warm_window_anchor("a\nb\nc\nd\ne\nf\ng\nh", 15), 0);
        assert_int_equal(warm_window_anchor("a\nb\nc\nd\ne\nf\ng\nh\ni\n", 18), 2);
        assert_int_equal(warm_window_anchor("", 0), 0);
}

static void a_weak_line_is_never_chosen_over_a_strong_one(void **state) {
        char brace[32];
        uint64_t strong = warm_window_line_rank("static int x(void) {\n", 21);

        (void) state;
        for (int i = 0; i < 24; i++) {
                int n = snprintf(brace, sizeof(brace), "%*s}\n", i, "");

                assert_true(warm_window_line_rank(brace, (size_t) n) > strong);
        }
        assert_int_equal(warm_window_line_rank("return foo;\r\n", 13),
                         warm_window_line_rank("return foo;\n", 12));
}

static void text_without_lines_is_cut_between_characters(void **state) {
        char text[12000];
        size_t moves = 0, before = 0;

        (void) state;
        for (size_t i = 0; i < sizeof(text); i += 3)
                memcpy(text + i,
                       (const char[][4]){ "\xe2\x82\xac", "abc", "\xc3\xa4x",
                                          "12," }[i * 7 % 11 % 4],
                       3);
        for (size_t n = 6000; n < sizeof(text); n += 3) {
                size_t at = warm_window_start(text, n, 4000);

                assert_true(at > n - 4001 && at <= n - 3000 + 3);
                assert_true(((unsigned char) text[at] & 0xc0) != 0x80);
                moves += n > 6000 && at != before;
                before = at;
        }
        /* 2,000 characters typed; a border that slid along would have moved each time. */
        assert_true(moves < 200);
        for (size_t room = 2000; room < 2010; room++)
                assert_true(((unsigned char) text[warm_window_end(text, sizeof(text), room)] &
                             0xc0) != 0x80);
}

static void what_one_side_cannot_use_goes_to_the_other(void **state) {
        size_t before, after;

        (void) state;
        warm_window_split(8000, 100000, 100000, &before, &after);
        assert_int_equal(before, 6000);
        assert_int_equal(after, 2000);
        warm_window_split(8000, 100000, 300, &before, &after);
        assert_int_equal(before, 7000);
        warm_window_split(8000, 100000, 0, &before, &after);
        assert_int_equal(before, 8000);
        warm_window_split(8000, 0, 100000, &before, &after);
        assert_int_equal(after, 8000);
        warm_window_split(8000, 2500, 100000, &before, &after);
        assert_int_equal(after, 5000);
        for (size_t room = 0; room < 300; room++)
                for (size_t a = 0; a < 320; a += 7)
                        for (size_t b = 0; b < 320; b += 11) {
                                warm_window_split(room, a, b, &before, &after);
                                assert_true((a < before ? a : before) + (b < after ? b : after) <=
                                            room);
                        }
}

static void typing_seldom_moves_the_room_of_the_other_side(void **state) {
        size_t moves = 0, before, after, last = 0;

        (void) state;
        for (size_t n = 0; n < 20000; n++) {
                warm_window_split(8000, n, 5000, &before, &after);
                moves += n > 0 && after != last;
                last = after;
        }
        assert_true(moves <= 8);
}

static void only_closers_quotes_marks_and_blanks_are_a_rest(void **state) {
        (void) state;
        assert_int_equal(warm_window_rest(")\nfoo", 5), 1);
        assert_int_equal(warm_window_rest("\");\r\nfoo", 8), 3);
        assert_int_equal(warm_window_rest("]}>'`, \t", 8), 8);
        assert_int_equal(warm_window_rest("\n)", 2), 0);
        assert_int_equal(warm_window_rest("\r\n)", 3), 0);
        assert_int_equal(warm_window_rest(") {\n", 4), 0);
        assert_int_equal(warm_window_rest("a)\n", 3), 0);
        assert_int_equal(warm_window_rest(NULL, 0), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(short_text_is_taken_whole),
                cmocka_unit_test(a_window_starts_at_a_line_in_its_first_quarter),
                cmocka_unit_test(a_window_ends_at_a_line_in_its_last_quarter),
                cmocka_unit_test(what_stands_before_the_last_bytes_does_not_matter),
                cmocka_unit_test(what_stands_behind_the_first_bytes_does_not_matter),
                cmocka_unit_test(the_start_seldom_moves_while_lines_are_typed),
                cmocka_unit_test(the_anchor_seldom_moves_while_characters_are_typed),
                cmocka_unit_test(the_anchor_is_8_to_40_lines_above),
                cmocka_unit_test(a_weak_line_is_never_chosen_over_a_strong_one),
                cmocka_unit_test(text_without_lines_is_cut_between_characters),
                cmocka_unit_test(what_one_side_cannot_use_goes_to_the_other),
                cmocka_unit_test(typing_seldom_moves_the_room_of_the_other_side),
                cmocka_unit_test(only_closers_quotes_marks_and_blanks_are_a_rest),
        };

        return cmocka_run_group_tests(tests, read_corpus, free_corpus);
}
