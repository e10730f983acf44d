/* SPDX-License-Identifier: Apache-2.0 */
/* Healing's two questions: where to cut, and which tokens may spell what was cut; each against an obvious twin. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/unicode.h"
#include "model/vocab-private.h"
#include "random-text.h"
#include "read-vocab.h"

static struct warm_vocab *nano;

/* warm-nano's vocabulary in which some tokens are never split: any border may lie in one. */
static struct warm_vocab *with_user_tokens(const char *pre) {
        static const char *const user[] = { "\nret", "n x", "   ", "\n\n", "return a", "()" };

        return read_vocab_with(pre, user, sizeof user / sizeof *user);
}

static int note(void *context, const uint8_t *text, size_t at, size_t end, int32_t id) {
        size_t *start = context;

        (void) text;
        start[0] = at;
        start[1] = end;
        start[2] = id < 0;
        return 0;
}

/* From the very start of the text, each time. */
static size_t last_piece_twin(const struct warm_vocab *v, const uint8_t *text, size_t n) {
        struct warm_pretoken_scan scan;
        size_t part[3] = { 0 }, start, end;

        assert_int_equal(warm_special_split(&v->user, text, n, note, part), 0);
        start = part[0];
        if (part[2]) {
                warm_pretoken_start(&scan, v->pre, text, part[0], n);
                while (warm_pretoken_next(&scan, &start, &end))
                        ;
        }
        if (n - start > WARM_HEAL_BYTES_MAX)
                start = warm_utf8_border(text, n, n - WARM_HEAL_BYTES_MAX);
        return start;
}

static void check_last(const struct warm_vocab *v, const uint8_t *text, size_t n) {
        size_t start = warm_vocab_last_piece(v, text, n);

        assert_int_equal(start, last_piece_twin(v, text, n));
        assert_true(start < n && n - start <= WARM_HEAL_BYTES_MAX);
        assert_int_equal(warm_utf8_border(text, n, start), start);
}

static uint8_t *read_source(const char *path, size_t *ret_n) {
        FILE *f = fopen(source_path(path), "rb");
        uint8_t *text;

        assert_non_null(f);
        fseek(f, 0, SEEK_END);
        *ret_n = (size_t) ftell(f);
        rewind(f);
        text = malloc(*ret_n + 1);
        assert_non_null(text);
        assert_int_equal(fread(text, 1, *ret_n, f), *ret_n);
        fclose(f);
        return text;
}

static void the_tail_alone_tells_the_last_piece(void **state) {
        static const char *const files[] = { "daemon/model/vocab.c", "models/recipe/train.py",
                                             "tests/daemon/model/random-text.c", "README.md" };
        uint64_t random = random_seed(20260102);
        uint8_t other[600], *text;
        size_t n;

        (void) state;
        for (size_t p = 0; p < N_PRES; p++) {
                struct warm_vocab *plain = read_vocab(source_path(NANO), pres[p]),
                                  *user = with_user_tokens(pres[p]);

                for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
                        text = read_source(files[f], &n);
                        for (size_t at = 1; at <= n && at < 6000; at += 1 + at / 500) {
                                check_last(plain, text, at);
                                check_last(user, text, at);
                        }
                        free(text);
                }
                for (int round = 0; round < 2000; round++) {
                        n = random_text(&random, other, sizeof other, round & 1);
                        if (n == 0)
                                continue;
                        check_last(plain, other, n);
                        check_last(user, other, n);
                }
                warm_vocab_free(plain);
                warm_vocab_free(user);
        }
}

static void check_piece(const char *text, const char *piece) {
        size_t n = strlen(text), start = warm_vocab_last_piece(nano, text, n);

        assert_string_equal(text + start, piece);
}

static void the_last_piece_is_what_a_typist_is_in_the_middle_of(void **state) {
        (void) state;
        check_piece("", "");
        check_piece("    return", " return");
        check_piece("    return ", " ");
        check_piece("if (x) {\n        ", "        ");
        check_piece("foo.ba", ".ba");
        check_piece("foo.", ".");
        check_piece("x = 12", "2");
        check_piece("end;\n", ";\n");
        check_piece("a_name", "_name");
}

static void a_piece_longer_than_64_bytes_is_cut_between_characters(void **state) {
        char text[400] = "x ";

        (void) state;
        for (size_t i = 2; i + 3 < 300; i += 3)
                memcpy(text + i, "\xE4\xB8\xAD", 3);
        assert_int_equal(strlen(text) - warm_vocab_last_piece(nano, text, strlen(text)), 63);
        memset(text, 'a', 299);
        assert_int_equal(warm_vocab_last_piece(nano, text, 299), 299 - 64);
        memset(text, '\xFF', 299);
        assert_int_equal(warm_vocab_last_piece(nano, text, 299), 299 - 64);
}

static bool is_allowed_twin(const struct warm_vocab *v, int32_t id, const void *rest, size_t n) {
        enum warm_token_kind kind = warm_vocab_kind_of(v, id);
        struct warm_string t = warm_vocab_text(v, id);

        if ((kind != WARM_TOKEN_NORMAL && kind != WARM_TOKEN_USER && kind != WARM_TOKEN_BYTE) ||
            t.n == 0)
                return false;
        return memcmp(t.data, rest, t.n < n ? t.n : n) == 0;
}

static void check_allow(const struct warm_vocab *v, const void *rest, size_t n) {
        uint32_t n_tokens = warm_vocab_n_tokens(v), n_allowed = 0;
        uint64_t *bitmap = malloc((n_tokens + 63) / 64 * sizeof *bitmap);
        uint32_t n_said;

        assert_non_null(bitmap);
        memset(bitmap, 0xA5, (n_tokens + 63) / 64 * sizeof *bitmap);
        n_said = warm_vocab_allow(v, rest, n, bitmap);
        for (uint32_t id = 0; id < n_tokens; id++) {
                bool allowed = bitmap[id / 64] >> (id & 63) & 1;

                if (allowed != is_allowed_twin(v, (int32_t) id, rest, n))
                        fail_msg("token %u is %s", id, allowed ? "allowed" : "not allowed");
                n_allowed += allowed;
        }
        assert_int_equal(n_said, n_allowed);
        free(bitmap);
}

static void the_allowed_tokens_are_those_that_spell_the_rest(void **state) {
        static const char *const rests[] = { "",         " ",        "  ",   "\n",          " r",
                                             " return",  "return x", "e",    "_",           "()",
                                             "        ", "\xE4\xB8", "\xFF", "no_such_rest" };
        uint64_t random = random_seed(20260103);
        struct warm_vocab *user = with_user_tokens("qwen2");
        uint8_t text[64];

        (void) state;
        for (size_t i = 0; i < sizeof rests / sizeof *rests; i++) {
                check_allow(nano, rests[i], strlen(rests[i]));
                check_allow(user, rests[i], strlen(rests[i]));
        }
        for (int round = 0; round < 300; round++)
                check_allow(round & 1 ? user : nano, text,
                            random_text(&random, text, sizeof text, true));
        warm_vocab_free(user);
}

static void any_text_is_spelled_to_its_end_by_allowed_tokens(void **state) {
        uint64_t random = random_seed(20260104), bitmap[256];
        uint8_t text[64];

        (void) state;
        for (int round = 0; round < 500; round++) {
                size_t n = random_text(&random, text, sizeof text, true), at = 0;

                while (at < n) {
                        uint32_t id, nth,
                                n_allowed = warm_vocab_allow(nano, text + at, n - at, bitmap);

                        assert_true(n_allowed > 0);
                        nth = random_below(&random, n_allowed);
                        for (id = 0; !(bitmap[id / 64] >> (id & 63) & 1) || nth-- > 0; id++)
                                ;
                        at += warm_vocab_text(nano, (int32_t) id).n;
                }
        }
}

static int setup(void **state) {
        (void) state;
        nano = read_vocab(source_path(NANO), NULL);
        return 0;
}

static int teardown(void **state) {
        (void) state;
        nano = warm_vocab_free(nano);
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_tail_alone_tells_the_last_piece),
                cmocka_unit_test(the_last_piece_is_what_a_typist_is_in_the_middle_of),
                cmocka_unit_test(a_piece_longer_than_64_bytes_is_cut_between_characters),
                cmocka_unit_test(the_allowed_tokens_are_those_that_spell_the_rest),
                cmocka_unit_test(any_text_is_spelled_to_its_end_by_allowed_tokens),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
