/* SPDX-License-Identifier: Apache-2.0 */
/* A memo against plain tokenizing, its obvious slow twin: texts that are typed, cut, joined and made of anything. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/memo.h"
#include "read-vocab.h"

#define TEXT_MAX 6000U

static uint64_t random_state = 20261122;

static size_t pick(size_t n) {
        random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
        return n ? (size_t) (random_state >> 33) % n : 0;
}

static void same(struct warm_memo *m, const struct warm_vocab *v, const uint8_t *text, size_t n,
                 unsigned flags) {
        static int32_t plain[TEXT_MAX + 1], ours[TEXT_MAX + 1];
        size_t n_plain = 0, n_ours = 0;

        assert_int_equal(warm_vocab_tokenize(v, text, n, flags, plain, TEXT_MAX + 1, &n_plain), 0);
        assert_int_equal(warm_memo_tokenize(m, text, n, flags, ours, TEXT_MAX + 1, &n_ours), 0);
        if (n_plain != n_ours || memcmp(plain, ours, n_plain * sizeof(*plain)) != 0)
                fail_msg("%zu tokens and not %zu of \"%.*s\"", n_ours, n_plain, (int) n,
                         (const char *) text);
        if (n_plain > 0) /* one id too few is one too few either way */
                assert_int_equal(warm_memo_tokenize(m, text, n, flags, ours, n_plain - 1, &n_ours),
                                 -ENOBUFS);
}

/* Source of this tree: what people type. */
static size_t read_source(const char *path, uint8_t *text, size_t n_max) {
        FILE *f = fopen(source_path(path), "r");
        size_t n;

        assert_non_null(f);
        n = fread(text, 1, n_max, f);
        fclose(f);
        return n;
}

static const uint8_t any[] = "\n\n  \t\r\n a1 'S 're{}\xc3\xa9\xe4\xb8\xad\xff__Z.,;/*";

static size_t edit(uint8_t *text, size_t n, const uint8_t *source, size_t n_source) {
        size_t at = pick(n + 1), k;

        switch (pick(4)) {
        case 0: /* type at the end */
                if (n < TEXT_MAX - 1)
                        text[n] = source[pick(n_source)], n++;
                return n;
        case 1: /* delete from the end */
                k = pick(8);
                return n > k ? n - k : n;
        case 2: /* a piece of the source anywhere */
                k = pick(200);
                if (n + k >= TEXT_MAX || k >= n_source)
                        return n;
                memmove(text + at + k, text + at, n - at);
                memcpy(text + at, source + pick(n_source - k), k);
                return n + k;
        default: /* anything at the end */
                k = pick(sizeof(any) - 1);
                if (n + 1 < TEXT_MAX)
                        text[n] = any[k], n++;
                return n;
        }
}

static void whatever_is_edited_comes_out_as_without_a_memo(void **state) {
        static uint8_t source[20000], text[TEXT_MAX];

        (void) state;
        for (size_t p = 0; p < N_PRES; p++) {
                struct warm_vocab *v = read_vocab(source_path(NANO), pres[p]);
                size_t n_source = read_source("daemon/model/memo.c", source, sizeof(source)),
                       n = 3000;
                struct warm_memo *m = NULL;

                assert_int_equal(warm_memo_new(v, &m), 0);
                memcpy(text, source, n);
                for (size_t i = 0; i < 1500; i++) {
                        unsigned flags = pick(8) == 0   ? WARM_TOKENIZE_START
                                         : pick(8) == 0 ? WARM_TOKENIZE_SPECIAL
                                                        : 0;

                        n = edit(text, n, source, n_source);
                        if (pick(60) == 0) { /* another document */
                                n = 100 + pick(4000);
                                memcpy(text, source + pick(n_source - n), n);
                        }
                        same(m, v, text, n, flags);
                }
                warm_memo_free(m);
                warm_vocab_free(v);
        }
}

static void typing_a_file_byte_by_byte_comes_out_the_same(void **state) {
        static uint8_t source[20000];
        struct warm_vocab *v = read_vocab(source_path(NANO), "qwen2");
        size_t n = read_source("client/client.c", source, sizeof(source));
        struct warm_memo *m = NULL;

        (void) state;
        assert_int_equal(warm_memo_new(v, &m), 0);
        for (size_t i = 2000; i < 4000 && i < n; i++)
                same(m, v, source, i, 0);
        warm_memo_free(m);
        warm_vocab_free(v);
}

static void random_bytes_come_out_the_same(void **state) {
        struct warm_vocab *v = read_vocab(source_path(NANO), "gpt-2");
        struct warm_memo *m = NULL;
        uint8_t text[600];

        (void) state;
        assert_int_equal(warm_memo_new(v, &m), 0);
        for (size_t i = 0; i < 4000; i++) {
                size_t n = pick(sizeof(text)), kept = pick(2) ? pick(n + 1) : 0;

                for (size_t k = kept; k < n; k++)
                        text[k] = pick(3) ? any[pick(sizeof(any) - 1)] : (uint8_t) pick(256);
                same(m, v, text, n, 0);
        }
        warm_memo_free(m);
        warm_vocab_free(v);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(whatever_is_edited_comes_out_as_without_a_memo),
                cmocka_unit_test(typing_a_file_byte_by_byte_comes_out_the_same),
                cmocka_unit_test(random_bytes_come_out_the_same),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
