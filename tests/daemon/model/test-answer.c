/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/answer.h"

#define S(s) ((struct warm_string){ .data = (s), .n = sizeof(s) - 1 })

static struct warm_string string_of(const char *s) {
        return (struct warm_string){ .data = s, .n = strlen(s) };
}

static struct warm_answer *make(struct warm_answer_config c) {
        struct warm_answer *a = NULL;

        if (c.text_bytes_max == 0)
                c.text_bytes_max = 4096;
        assert_int_equal(warm_answer_new(&c, &a), 0);
        return a;
}

/* Feed all of it in one piece, end it as the model does, and hold text and reason against what is expected. */
static void check(struct warm_answer_config c, const char *model, const char *text,
                  enum warm_finish finish) {
        struct warm_answer *a = make(c);
        struct warm_string got;

        warm_answer_push(a, model, strlen(model));
        assert_int_equal(warm_answer_end(a, WARM_FINISH_END), finish);
        got = warm_answer_text(a);
        if (got.n != strlen(text) || memcmp(got.data, text, got.n) != 0)
                fail_msg("\"%s\" became \"%.*s\", not \"%s\"", model, (int) got.n, got.data, text);
        warm_answer_free(a);
}

static void check_after(const char *suffix, const char *model, const char *text) {
        check((struct warm_answer_config){ .suffix = string_of(suffix) }, model, text,
              WARM_FINISH_END);
}

/* rest: how many bytes of the suffix stayed out of the prompt. */
static void check_rest(const char *suffix, size_t rest, const char *model, const char *text) {
        check((struct warm_answer_config){ .suffix = string_of(suffix),
                                           .rest = { suffix, rest },
                                           .lines = 1 },
              model, text, strchr(model, '\n') ? WARM_FINISH_LINES : WARM_FINISH_END);
}

static void text_comes_out_as_it_went_in(void **state) {
        (void) state;
        check((struct warm_answer_config){ 0 }, "int x = 1;\nint y;\n", "int x = 1;\nint y;\n",
              WARM_FINISH_END);
        check((struct warm_answer_config){ 0 }, "", "", WARM_FINISH_END);
}

static void healed_bytes_are_swallowed(void **state) {
        (void) state;
        check((struct warm_answer_config){ .n_heal = 3 }, "fooba", "ba", WARM_FINISH_END);
        check((struct warm_answer_config){ .n_heal = 9 }, "fooba", "", WARM_FINISH_END);
}

static void lines_end_it_before_the_newline(void **state) {
        (void) state;
        check((struct warm_answer_config){ .lines = 1 }, "a;\nb;\n", "a;", WARM_FINISH_LINES);
        check((struct warm_answer_config){ .lines = 2 }, "a;\nb;\nc", "a;\nb;", WARM_FINISH_LINES);
        check((struct warm_answer_config){ .lines = 1 }, "\nb;", "", WARM_FINISH_LINES);
        check((struct warm_answer_config){ .lines = 1 }, "a;\r\nb;", "a;", WARM_FINISH_LINES);
        check((struct warm_answer_config){ .lines = 1, .raw = true }, "a;\r\nb;", "a;",
              WARM_FINISH_LINES);
        check((struct warm_answer_config){ .lines = 3 }, "a;\nb;", "a;\nb;", WARM_FINISH_END);
}

static void a_stop_string_ends_it_and_is_not_shown(void **state) {
        struct warm_answer_config c = { .n_stops = 2, .stops = { S("STOP"), S("TOPS") } };

        (void) state;
        check(c, "ab STOP cd", "ab ", WARM_FINISH_STOP);
        check(c, "ab STO TOPS", "ab STO ", WARM_FINISH_STOP);
        check(c, "ab STO", "ab STO", WARM_FINISH_END);
        c.raw = true;
        check(c, "ab STOPS", "ab ", WARM_FINISH_STOP);
}

static void of_two_stops_that_end_together_the_longer_counts(void **state) {
        (void) state;
        check((struct warm_answer_config){ .n_stops = 2, .stops = { S("b"), S("ab") } }, "xab", "x",
              WARM_FINISH_STOP);
}

static void a_line_indented_less_ends_it(void **state) {
        struct warm_answer_config c = { .indent_min = 8 };

        (void) state;
        check(c, "a;\n        b;\n}\n", "a;\n        b;", WARM_FINISH_INDENT);
        check(c, "a;\n\tb;\n\n\n    c;", "a;\n\tb;", WARM_FINISH_INDENT);
        check(c, "a;\n\n        b;", "a;\n\n        b;", WARM_FINISH_END);
        c.raw = true;
        check(c, "a;\n}", "a;\n}", WARM_FINISH_END);
}

static void a_line_that_came_three_times_stays_once(void **state) {
        struct warm_answer_config c = { 0 };

        (void) state;
        check(c, "x = 1\nfoo()\nfoo()\nfoo()\nbar()\n", "x = 1\nfoo()", WARM_FINISH_END);
        check(c, "x = 1\nfoo()\nfoo()\nbar()", "x = 1\nfoo()\nfoo()\nbar()", WARM_FINISH_END);
        check(c, "foo()\n\nfoo()\n\nfoo()", "foo()", WARM_FINISH_END);
        check(c, "foo()\nfoo()\nfoo(1)\n", "foo()\nfoo()\nfoo(1)\n", WARM_FINISH_END);
        check(c, "a\n\n\n\n\nb", "a\n\n\n\n\nb", WARM_FINISH_END);
        check(c, "            }\n        }\n    }\n", "            }\n        }\n    }\n",
              WARM_FINISH_END);
        c.raw = true;
        check(c, "a\na\na\na\n", "a\na\na\na\n", WARM_FINISH_END);
}

static void lines_that_came_three_times_together_stay_once(void **state) {
        struct warm_answer_config c = { 0 };

        (void) state;
        check(c, "x\na\nb\na\nb\na\nb\nc\n", "x\na\nb", WARM_FINISH_END);
        check(c, "x\na\nb\na\nb\na\nc\n", "x\na\nb\na\nb\na\nc\n", WARM_FINISH_END);
        check(c, "a\nb\n\na\nb\n\na\n\nb", "a\nb", WARM_FINISH_END);
        check(c, "a\nb\nc\na\nb\nc\na\nb\nc\n", "a\nb\nc", WARM_FINISH_END);
        check(c, "a\na\nb\nc\na\na\nb\nc\na\na\nb\nc\n", "a\na\nb\nc", WARM_FINISH_END);
        check(c, "1\n2\n3\n4\n5\n1\n2\n3\n4\n5\n1\n2\n3\n4\n5\n",
              "1\n2\n3\n4\n5\n1\n2\n3\n4\n5\n1\n2\n3\n4\n5\n", WARM_FINISH_END);
        check(c, "a\nb\na\n b\na\nb\n", "a\nb\na\n b\na\nb\n", WARM_FINISH_END);
        check(c, "a\r\na\r\na\r\n", "a", WARM_FINISH_END);
        check(c, "a\r\nb\r\na\r\nb\r\na\r\nb\r\n", "a\r\nb", WARM_FINISH_END);
        c.raw = true;
        check(c, "a\nb\na\nb\na\nb\n", "a\nb\na\nb\na\nb\n", WARM_FINISH_END);
}

static void what_repeats_the_next_lines_is_cut(void **state) {
        (void) state;
        check_after("\n}\n\nint g;\n", "return x;\n}\n", "return x;");
        check_after("\n}\n\nint g;\n", "return x;\n}", "return x;");
        check_after("\n}\n\nint g;\n", "return x;\n", "return x;");
        check_after("\n}\n\nint g;\n", "return x;\n}\n\nint g;", "return x;");
        check_after("\r\n}\r\n", "return x;\r\n}\r\n", "return x;");
        check_after("\n    a();\n    b();\n", "x();\n    a();\n    b();", "x();");
}

static void an_answer_that_writes_the_next_lines_ends_there(void **state) {
        (void) state;
        check_after("\n    second();\n    third();\n", "first();\n    second();\n    other();\n",
                    "first();");
        check_after("\n}\n\nint global;\nint h;\n", "return x;\n}\n\nint global;\nint i;\n",
                    "return x;");
        check_after("\n}\n\nint g", "return x;\n}\n\nint i;\n", "return x;\n}\n\nint i;");
        check_after("\n    a();\n", "x();\n    a();\n    b();\n", "x();\n    a();\n    b();");
        check_after("\n    second();\n}\n", "if (a) {\n    second();\n}\nx\n",
                    "if (a) {\n    second();\n}\nx");
        check_after("\n}\nsecond();\n", "if (a) {\n}\nsecond();\nthird();\n",
                    "if (a) {\n}\nsecond();\nthird();");
        check((struct warm_answer_config){ .suffix = S("\n    second();\n"), .raw = true },
              "a\n    second();\nb", "a\n    second();\nb", WARM_FINISH_END);
}

static void a_bracket_that_the_answer_opened_is_its_own(void **state) {
        (void) state;
        check_after("\n}\n", "if (x) {\n}", "if (x) {\n}");
        check_after("\n}\n", "if (x) {\n}\n", "if (x) {\n}");
        check_after("\n}\n", "if (x) {\n    y;\n}\n}", "if (x) {\n    y;\n}");
}

static void what_only_looks_alike_stays(void **state) {
        (void) state;
        check_after("}\nint g;\n", "x}", "x}");
        check_after("\nabc\n", "x\nab", "x\nab");
        check_after("bc)\n", "ab", "ab");
        check_after("1\n", "x1", "x1");
        check_after("", "x\n", "x\n");
}

static void the_rest_of_a_line_of_code_is_cut(void **state) {
        (void) state;
        check_after(" + b);\nx\n", "f(a + b);", "f(a + b);");
        check_after(" + b;\nx\n", "f(a) + b;", "f(a)");
        check_after("y, z\nx\n", "a, y, z", "a, ");
}

static void a_length_cut_in_a_repeated_line_takes_it_away(void **state) {
        struct warm_answer *a =
                make((struct warm_answer_config){ .suffix = S("\n    return x;\n") });

        (void) state;
        warm_answer_push(a, "foo();\n    ret", 14);
        assert_int_equal(warm_answer_end(a, WARM_FINISH_LENGTH), WARM_FINISH_LENGTH);
        assert_int_equal(warm_answer_text(a).n, 6);
        assert_int_equal(warm_answer_trimmed(a), 8);
        warm_answer_free(a);
}

static void the_answer_is_cut_where_it_writes_the_rest_of_the_line(void **state) {
        (void) state;
        check_rest(")\nx", 1, "a, b);\n", "a, b");
        check_rest(");\nx", 2, "a, b);\n", "a, b");
        check_rest(")\nx", 1, "f(a))\n", "f(a)");
        check_rest(")\nx", 1, "f(a)\n", "f(a)");
        check_rest(")\nx", 1, "y))\n", "y)");
        check_rest(")\nx", 1, "a) && (b)\n", "a");
        check_rest("\")\nx", 2, "hello\");\n", "hello");
        check_rest("\")\nx", 2, "hello\", x)\n", "hello");
        check_rest("\")\nx", 2, "say \\\"hi\\\"\")\n", "say \\\"hi\\\"");
        check_rest(";\nx", 1, "a + b;\n", "a + b");
        check_rest(",\nx", 1, "f(1, 2),\n", "f(1, 2)");
        check_rest(">\nx", 1, "u8>\n", "u8");
        check_rest(">\nx", 1, "Vec<u8>>\n", "Vec<u8>");
        check_rest(">\nx", 1, "a->b\n", "a->b");
        check_rest("  \nx", 2, "a b\n", "a b");
        check_rest(" )\nx", 2, "a)\n", "a");
        check_rest(")\r\nx", 1, "a, b);\r\n", "a, b");
        check_rest(")", 1, "a, b)", "a, b");
        check_rest(")\nx", 1, "", "");
}

static void an_auto_closed_brace_ends_a_block(void **state) {
        struct warm_answer_config c = { .suffix = S("}\nint g;"), .rest = S("}") };

        (void) state;
        check(c, "\n    if (a) { b; }\n    c;\n}\n\nint f(void) {\n}",
              "\n    if (a) { b; }\n    c;\n", WARM_FINISH_END);
        check(c, " x }; y\nz", " x ", WARM_FINISH_END);
}

static void an_unfinished_character_is_held_back(void **state) {
        struct warm_answer *a = make((struct warm_answer_config){ 0 });

        (void) state;
        warm_answer_push(a, "a\xe2\x82", 3);
        assert_int_equal(warm_answer_text(a).n, 1);
        warm_answer_push(a, "\xac", 1);
        assert_int_equal(warm_answer_text(a).n, 4);
        warm_answer_push(a, "\xf0\x9f", 2);
        warm_answer_end(a, WARM_FINISH_LENGTH);
        assert_int_equal(warm_answer_text(a).n, 4);
        warm_answer_free(a);
}

static void raw_text_is_left_alone(void **state) {
        (void) state;
        check(
                (struct warm_answer_config){
                        .raw = true, .suffix = S(")\n}\n"), .rest = S(")"), .indent_min = 4 },
                "a)\n}\n\xe2\x82", "a)\n}\n\xe2\x82", WARM_FINISH_END);
}

static void text_beyond_the_limit_ends_it(void **state) {
        struct warm_answer *a = make((struct warm_answer_config){ .text_bytes_max = 4 });

        (void) state;
        assert_int_equal(warm_answer_push(a, "abcd", 4), WARM_FINISH_NONE);
        assert_int_equal(warm_answer_push(a, "e", 1), WARM_FINISH_LENGTH);
        assert_int_equal(warm_answer_push(a, "\n", 1), WARM_FINISH_LENGTH);
        assert_int_equal(warm_answer_text(a).n, 4);
        warm_answer_free(a);
}

static void the_first_finish_stands(void **state) {
        struct warm_answer *a = make((struct warm_answer_config){ .lines = 1 });

        (void) state;
        warm_answer_push(a, "a\n", 2);
        assert_int_equal(warm_answer_end(a, WARM_FINISH_CANCELLED), WARM_FINISH_LINES);
        warm_answer_reset(a);
        assert_int_equal(warm_answer_text(a).n, 0);
        assert_int_equal(warm_answer_end(a, WARM_FINISH_CANCELLED), WARM_FINISH_CANCELLED);
        warm_answer_free(a);
}

static void a_line_end_is_seen(void **state) {
        struct warm_answer *a = make((struct warm_answer_config){ 0 });

        (void) state;
        assert_false(warm_answer_at_line_end(a));
        warm_answer_push(a, "a;\n", 3);
        assert_true(warm_answer_at_line_end(a));
        warm_answer_push(a, " ", 1);
        assert_false(warm_answer_at_line_end(a));
        warm_answer_free(a);
}

static void each_finish_has_a_name(void **state) {
        (void) state;
        for (int f = 0; f < _WARM_FINISH_N; f++)
                for (int g = 0; g < f; g++)
                        assert_string_not_equal(warm_finish_name(f), warm_finish_name(g));
        assert_string_equal(warm_finish_name(WARM_FINISH_LINES), "lines");
}

/* Random texts out of few parts, so that every rule meets every other. */
static const char *const parts[] = {
        "a", "b", "foo()", "\n",  "\n", "\r\n", "    ", "\t",           "}",    ")",  "(", "{",
        ";", ",", "\"",    "a\n", "a;", "\xe2", "\x82", "\xe2\x82\xac", "STOP", "ST", ">", "\xff"
};

static uint64_t seed_now;

static uint32_t draw(uint32_t below) {
        seed_now = seed_now * 6364136223846793005ULL + 1442695040888963407ULL;
        return (uint32_t) (seed_now >> 33) % below;
}

static size_t draw_text(char *text, uint32_t n_parts) {
        size_t n = 0;

        for (uint32_t i = 0; i < n_parts; i++) {
                const char *p = parts[draw(sizeof(parts) / sizeof(*parts))];

                memcpy(text + n, p, strlen(p));
                n += strlen(p);
        }
        return n;
}

/* One answer, its bytes cut at random; each thing shown must stay. Return: why it ended. */
static enum warm_finish feed(struct warm_answer *a, const char *text, size_t n, uint32_t piece_max,
                             enum warm_finish last) {
        char shown[4096];
        size_t n_shown = 0;
        enum warm_finish f = WARM_FINISH_NONE;

        for (size_t i = 0; i <= n && f == WARM_FINISH_NONE;) {
                size_t k = 1 + draw(piece_max);
                struct warm_string s;

                if (i == n)
                        f = warm_answer_end(a, last);
                else {
                        k = k < n - i ? k : n - i;
                        f = warm_answer_push(a, text + i, k);
                        i += k;
                }
                s = warm_answer_text(a);
                assert_true(s.n >= n_shown);
                assert_memory_equal(s.data, shown, n_shown);
                memcpy(shown + n_shown, s.data + n_shown, s.n - n_shown);
                n_shown = s.n;
        }
        return f;
}

/* Where the repetition rule cuts, by comparing whole lines; n: nowhere. */
static size_t cut_of_repeats(const char *text, size_t n) {
        size_t starts[512], ends[512];
        uint32_t n_dark = 0;

        for (size_t at = 0; at < n;) {
                const char *newline = memchr(text + at, '\n', n - at);
                size_t end = newline ? (size_t) (newline - text) : n, next = end + 1;

                if (newline && end > at && text[end - 1] == '\r')
                        end--;
                if (strspn(text + at, " \t\r") < end - at) {
                        starts[n_dark] = at;
                        ends[n_dark++] = end;
                }
                for (uint32_t p = 1; p <= 4 && n_dark >= 3 * p; p++) {
                        bool same = true;

                        for (uint32_t i = n_dark - 2 * p; i < n_dark && same; i++)
                                same = ends[i] - starts[i] == ends[i - p] - starts[i - p] &&
                                       memcmp(text + starts[i], text + starts[i - p],
                                              ends[i] - starts[i]) == 0;
                        if (same)
                                return ends[n_dark - 2 * p - 1];
                }
                at = next;
        }
        return n;
}

static void repetitions_are_found_as_by_comparing_whole_lines(void **state) {
        static const char *const lines[] = { "a\n", "a\n", "b\n", "\n", " a\n", "aa\r\n", "  \n" };
        uint32_t n_cut = 0;

        (void) state;
        for (uint64_t seed = 1; seed < 20000; seed++) {
                struct warm_answer *a = make((struct warm_answer_config){ 0 });
                char text[256];
                size_t n = 0, cut;

                seed_now = seed;
                for (uint32_t i = 0, n_kinds = 1 + draw(7); i < 30; i++) {
                        const char *line = lines[draw(n_kinds)];

                        memcpy(text + n, line, strlen(line));
                        n += strlen(line);
                }
                n -= draw(4);
                text[n] = 0;
                cut = cut_of_repeats(text, n);
                n_cut += cut < n;
                feed(a, text, n, 1 + draw(20), WARM_FINISH_END);
                if (warm_answer_text(a).n != cut ||
                    memcmp(warm_answer_text(a).data, text, cut) != 0)
                        fail_msg("seed %llu: %.*s", (unsigned long long) seed, (int) n, text);
                warm_answer_free(a);
        }
        assert_true(n_cut > 1000 && n_cut < 19000);
}

static void text_does_not_depend_on_how_its_bytes_are_cut(void **state) {
        const char *from_environment = getenv("WARM_SEED");
        uint64_t first = from_environment ? strtoull(from_environment, NULL, 10) : 1;

        (void) state;
        for (uint64_t seed = first; seed < first + 20000; seed++) {
                char text[512], suffix[128], copy[512];
                enum warm_finish finish, last;
                struct warm_answer_config c = { 0 };
                struct warm_answer *a;
                size_t n, n_copy;

                seed_now = seed;
                n = draw_text(text, draw(40));
                c.suffix = (struct warm_string){ suffix, draw_text(suffix, draw(10)) };
                c.raw = draw(8) == 0;
                c.n_heal = draw(3) ? 0 : draw(6);
                c.lines = draw(3) ? 0 : 1 + draw(3);
                c.indent_min = draw(3) ? 0 : draw(9);
                c.n_stops = draw(3);
                c.stops[0] = S("STOP");
                c.stops[1] = S(";\n");
                if (draw(2))
                        while (c.rest.n < c.suffix.n && strchr(")}\">;, \t", suffix[c.rest.n]))
                                c.rest = (struct warm_string){ suffix, c.rest.n + 1 };
                c.text_bytes_max = draw(4) ? 4096 : draw(64);
                last = draw(2) ? WARM_FINISH_END : WARM_FINISH_LENGTH;
                a = make(c);
                finish = feed(a, text, n, 1, last);
                n_copy = warm_answer_text(a).n;
                memcpy(copy, warm_answer_text(a).data, n_copy);
                for (unsigned cut = 0; cut < 4; cut++) {
                        warm_answer_reset(a);
                        if (feed(a, text, n, 1 + draw(20), last) != finish ||
                            warm_answer_text(a).n != n_copy ||
                            memcmp(warm_answer_text(a).data, copy, n_copy) != 0)
                                fail_msg("WARM_SEED=%llu", (unsigned long long) seed);
                }
                warm_answer_free(a);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(repetitions_are_found_as_by_comparing_whole_lines),
                cmocka_unit_test(text_comes_out_as_it_went_in),
                cmocka_unit_test(healed_bytes_are_swallowed),
                cmocka_unit_test(lines_end_it_before_the_newline),
                cmocka_unit_test(a_stop_string_ends_it_and_is_not_shown),
                cmocka_unit_test(of_two_stops_that_end_together_the_longer_counts),
                cmocka_unit_test(a_line_indented_less_ends_it),
                cmocka_unit_test(a_line_that_came_three_times_stays_once),
                cmocka_unit_test(lines_that_came_three_times_together_stay_once),
                cmocka_unit_test(what_repeats_the_next_lines_is_cut),
                cmocka_unit_test(an_answer_that_writes_the_next_lines_ends_there),
                cmocka_unit_test(a_bracket_that_the_answer_opened_is_its_own),
                cmocka_unit_test(what_only_looks_alike_stays),
                cmocka_unit_test(the_rest_of_a_line_of_code_is_cut),
                cmocka_unit_test(a_length_cut_in_a_repeated_line_takes_it_away),
                cmocka_unit_test(the_answer_is_cut_where_it_writes_the_rest_of_the_line),
                cmocka_unit_test(an_auto_closed_brace_ends_a_block),
                cmocka_unit_test(an_unfinished_character_is_held_back),
                cmocka_unit_test(raw_text_is_left_alone),
                cmocka_unit_test(text_beyond_the_limit_ends_it),
                cmocka_unit_test(the_first_finish_stands),
                cmocka_unit_test(a_line_end_is_seen),
                cmocka_unit_test(each_finish_has_a_name),
                cmocka_unit_test(text_does_not_depend_on_how_its_bytes_are_cut),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
