/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pre-tokenizers against PCRE2 with the regular expressions that they stand for. PCRE2 carries another version of
 * Unicode: code points to which it gives another class than we do stay out of these texts (compare-tokens.py has them).
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "model/pretoken.h"
#include "model/unicode.h"
#include "random-text.h"

#define TEXT_MAX 400
/* The property White_Space: PCRE2's \s holds U+180E as well, which Unicode took out in 6.3. */
#define S                                                                                          \
        "[\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"   \
        "\\x{205f}\\x{3000}]"
#define NOT_S_IN                                                                                   \
        "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
        "\\x{205f}\\x{3000}"
#define SPACES                                                                                     \
        S "+(?!"                                                                                   \
          "[^" NOT_S_IN "]"                                                                        \
          ")|" S "+"
#define CONTRACTIONS_ANY "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
#define GPT2             "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" NOT_S_IN "\\p{L}\\p{N}]+|" SPACES
#define WORDS(numbers, after)                                                                      \
        CONTRACTIONS_ANY "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers "| ?[^" NOT_S_IN                \
                         "\\p{L}\\p{N}]+" after "|" S "*[\\r\\n]+|" SPACES

static const struct {
        const char *name;
        const char *expressions[WARM_PRETOKEN_STAGES_MAX + 1];
} oracles[] = {
        { "qwen2", { WORDS("\\p{N}", "[\\r\\n]*") } },
        { "llama-bpe", { WORDS("\\p{N}{1,3}", "[\\r\\n]*") } },
        { "glm4", { WORDS("\\p{N}{1,3}", "[\\r\\n]*") } },
        { "seed-coder", { WORDS("\\p{N}", "") } },
        { "gpt-2", { GPT2 } },
        { "smollm", { "\\p{N}", GPT2 } },
        { "starcoder", { "\\p{N}", GPT2 } },
        { "deepseek-coder",
          { "[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+",
            "(?:(?!" S ")[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}])+",
            "\\p{N}" } },
};

static pcre2_code *compile(const char *expression) {
        PCRE2_SIZE at;
        int error;
        pcre2_code *code = pcre2_compile((PCRE2_SPTR) expression, PCRE2_ZERO_TERMINATED, PCRE2_UTF,
                                         &error, &at, NULL);

        if (!code)
                fail_msg("%s: error %d at %zu", expression, error, at);
        return code;
}

/* Cut each of the pieces of ends[n] (ends, ascending) by one expression; gaps between matches are pieces. */
static size_t cut(const pcre2_code *code, const uint8_t *text, const size_t *ends, size_t n,
                  size_t *ret_ends) {
        pcre2_match_data *match = pcre2_match_data_create(1, NULL);
        size_t n_ret = 0, start = 0;

        for (size_t i = 0; i < n; start = ends[i++]) {
                size_t at = start, length = ends[i] - start;

                while (at < ends[i] && pcre2_match(code, text + start, length, at - start,
                                                   PCRE2_NO_UTF_CHECK, match, NULL) > 0) {
                        const PCRE2_SIZE *found = pcre2_get_ovector_pointer(match);

                        if (start + found[0] > at)
                                ret_ends[n_ret++] = start + found[0];
                        at = ret_ends[n_ret++] = start + found[1];
                }
                if (at < ends[i])
                        ret_ends[n_ret++] = ends[i];
        }
        pcre2_match_data_free(match);
        return n_ret;
}

static void show_and_fail(const char *name, const uint8_t *text, size_t n, size_t ours,
                          size_t theirs) {
        printf("%s:", name);
        for (size_t i = 0; i < n; i++)
                printf(" %02x", text[i]);
        fail_msg("a piece ends at %zu, by PCRE2 at %zu", ours, theirs);
}

static void compare(const char *name, pcre2_code *const *codes, const uint8_t *text, size_t n) {
        size_t a[TEXT_MAX + 1] = { n }, b[TEXT_MAX + 1], *ends = a, *other = b, n_ends = n > 0;
        struct warm_pretoken_scan scan;
        size_t start, end, i = 0, last = 0;

        for (; *codes; codes++) {
                size_t *swap = ends;

                n_ends = cut(*codes, text, ends, n_ends, other);
                ends = other;
                other = swap;
        }
        warm_pretoken_start(&scan, warm_pretokenizer_find(name, strlen(name)), text, 0, n);
        for (; warm_pretoken_next(&scan, &start, &end); last = end) {
                assert_int_equal(start, last);
                assert_true(end > start);
                if (i >= n_ends || end != ends[i])
                        show_and_fail(name, text, n, end, i < n_ends ? ends[i] : n);
                i++;
        }
        assert_int_equal(i, n_ends);
        assert_int_equal(last, n);
}

/* Do PCRE2 and our tables agree about every character? */
static bool same_classes(pcre2_code *const *classes, const uint8_t *text, size_t n) {
        static const unsigned ours[] = { WARM_UNICODE_LETTER, WARM_UNICODE_NUMBER,
                                         WARM_UNICODE_PUNCTUATION };
        pcre2_match_data *match = pcre2_match_data_create(1, NULL);
        bool same = true;
        uint32_t code;
        size_t length;

        for (size_t at = 0; at < n && same; at += length) {
                length = warm_utf8_read(text + at, n - at, &code);
                for (size_t i = 0; i < 3; i++)
                        same = same &&
                               (pcre2_match(classes[i], text + at, length, 0, 0, match, NULL) >
                                0) == (warm_unicode_class_of(code) == ours[i]);
        }
        pcre2_match_data_free(match);
        return same;
}

static void pieces_are_those_of_the_regular_expressions(void **state) {
        pcre2_code *classes[] = { compile("\\p{L}"), compile("\\p{N}"), compile("\\p{P}") };
        uint64_t random = random_seed(20260101);
        uint8_t text[TEXT_MAX];
        size_t n, n_compared = 0;

        (void) state;
        for (size_t o = 0; o < sizeof oracles / sizeof *oracles; o++) {
                pcre2_code *codes[WARM_PRETOKEN_STAGES_MAX + 1] = { 0 };

                for (size_t i = 0; oracles[o].expressions[i]; i++)
                        codes[i] = compile(oracles[o].expressions[i]);
                for (int round = 0; round < 3000; round++) {
                        n = random_text(&random, text, round < 2000 ? 24 : TEXT_MAX, false);
                        if (!same_classes(classes, text, n))
                                continue;
                        compare(oracles[o].name, codes, text, n);
                        n_compared++;
                }
                for (size_t i = 0; codes[i]; i++)
                        pcre2_code_free(codes[i]);
        }
        for (size_t i = 0; i < 3; i++)
                pcre2_code_free(classes[i]);
        assert_true(n_compared > 10000);
}

static void check_pieces(const char *name, const char *text, size_t n, const char *const *pieces) {
        struct warm_pretoken_scan scan;
        size_t start, end;

        warm_pretoken_start(&scan, warm_pretokenizer_find(name, strlen(name)), text, 0, n);
        for (; *pieces; pieces++) {
                assert_true(warm_pretoken_next(&scan, &start, &end));
                assert_int_equal(end - start, strlen(*pieces));
                assert_memory_equal(text + start, *pieces, end - start);
        }
        assert_false(warm_pretoken_next(&scan, &start, &end));
}

#define CHECK(name, text, ...)                                                                     \
        check_pieces(name, text, sizeof text - 1, (const char *const[]){ __VA_ARGS__, NULL })

static void code_is_cut_as_written_here(void **state) {
        (void) state;
        CHECK("qwen2", "  if (x1==12)\n\n    y;", " ", " if", " (", "x", "1", "==", "1", "2",
              ")\n\n", "   ", " y", ";");
        CHECK("seed-coder", "f();\n\tg", "f", "();", "\n", "\tg");
        CHECK("llama-bpe", "12345 it'S", "123", "45", " it", "'S");
        CHECK("gpt-2", "it'S\n  x 123", "it", "'", "S", "\n ", " x", " 123");
        CHECK("smollm", "a  12 b", "a", "  ", "1", "2", " b");
        CHECK("deepseek-coder", "a\n\n b+ c\xE4\xB8\xAD\x64 1", "a", "\n", "\n", " b", "+", " c",
              "\xE4\xB8\xAD", "d", " ", "1");
}

static void a_byte_that_is_not_utf_8_goes_where_signs_go(void **state) {
        (void) state;
        CHECK("qwen2", "a\xFF\xFE(b", "a", "\xFF\xFE(", "b");
        CHECK("gpt-2", "a \xE4\xB8 b", "a", " \xE4\xB8", " b");
        CHECK("qwen2", "\xC0\x80", "\xC0\x80");               /* overlong */
        CHECK("qwen2", "x\xED\xA0\x80", "x", "\xED\xA0\x80"); /* a surrogate */
}

static void utf_8_is_read_strictly(void **state) {
        static const struct {
                const char *bytes;
                size_t n, length;
                uint32_t code;
        } cases[] = {
                { "A", 1, 1, 'A' },
                { "\xC2\x80", 2, 2, 0x80 },
                { "\xDF\xBF", 2, 2, 0x7FF },
                { "\xE0\xA0\x80", 3, 3, 0x800 },
                { "\xEF\xBF\xBF", 3, 3, 0xFFFF },
                { "\xF0\x90\x80\x80", 4, 4, 0x10000 },
                { "\xF4\x8F\xBF\xBF", 4, 4, 0x10FFFF },
                { "\x80", 1, 1, WARM_UNICODE_BAD },
                { "\xC1\xBF", 2, 1, WARM_UNICODE_BAD },
                { "\xE0\x9F\xBF", 3, 1, WARM_UNICODE_BAD },
                { "\xED\xA0\x80", 3, 1, WARM_UNICODE_BAD },
                { "\xF0\x8F\xBF\xBF", 4, 1, WARM_UNICODE_BAD },
                { "\xF4\x90\x80\x80", 4, 1, WARM_UNICODE_BAD },
                { "\xF5\x80\x80\x80", 4, 1, WARM_UNICODE_BAD },
                { "\xE2\x82", 2, 1, WARM_UNICODE_BAD },
                { "\xE2\x82\x41", 3, 1, WARM_UNICODE_BAD },
        };
        uint32_t code;

        (void) state;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                const uint8_t *p = (const uint8_t *) cases[i].bytes;

                assert_int_equal(warm_utf8_read(p, cases[i].n, &code), cases[i].length);
                assert_int_equal(code, cases[i].code);
        }
}

static void a_border_is_never_inside_a_character(void **state) {
        static const uint8_t text[] = "a\xE2\x82\xAC\xF0\x9F\x98\x80\x80\x80\x80\x80z";
        static const size_t borders[] = { 0, 1, 4, 4, 4, 8, 8, 8, 8, 9, 10, 11, 12, 13 };

        (void) state;
        for (size_t at = 0; at < sizeof borders / sizeof *borders; at++)
                assert_int_equal(warm_utf8_border(text, sizeof text - 1, at), borders[at]);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(pieces_are_those_of_the_regular_expressions),
                cmocka_unit_test(code_is_cut_as_written_here),
                cmocka_unit_test(a_byte_that_is_not_utf_8_goes_where_signs_go),
                cmocka_unit_test(utf_8_is_read_strictly),
                cmocka_unit_test(a_border_is_never_inside_a_character),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
