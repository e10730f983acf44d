/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "read-vocab.h"

#define NANO "models/warm-nano-q8_0.gguf"

static struct warm_vocab *nano;

static size_t tokenize(const struct warm_vocab *v, const char *text, unsigned flags, int32_t *ids) {
        size_t n;

        assert_int_equal(
                warm_vocab_tokenize(v, text, strlen(text), flags, ids, strlen(text) + 1, &n), 0);
        return n;
}

static void the_name_of_a_control_token_in_text_is_plain_characters(void **state) {
        int32_t ids[64], id = warm_vocab_find(nano, "<|fim_prefix|>");

        (void) state;
        assert_true(id >= 0);
        for (size_t i = tokenize(nano, "a <|fim_prefix|> b", 0, ids); i-- > 0;)
                assert_int_not_equal(warm_vocab_kind_of(nano, ids[i]), WARM_TOKEN_CONTROL);
        assert_int_equal(tokenize(nano, "<|fim_prefix|>", WARM_TOKENIZE_SPECIAL, ids), 1);
        assert_int_equal(ids[0], id);
        assert_int_equal(warm_vocab_text(nano, id).n, 0);
}

static void an_unknown_pre_tokenizer_is_refused_by_name(void **state) {
        struct warm_vocab *v = NULL;
        struct read_vocab r;
        char *why = NULL;

        (void) state;
        read_vocab_open(&r, source_path(NANO));
        r.config.pre = (struct warm_string){ "nonesuch", 8 };
        assert_int_equal(warm_vocab_new(&r.config, &v, &why), -EOPNOTSUPP);
        assert_non_null(strstr(why, "nonesuch"));
        free(why);
        read_vocab_close(&r);
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
                cmocka_unit_test(the_name_of_a_control_token_in_text_is_plain_characters),
                cmocka_unit_test(an_unknown_pre_tokenizer_is_refused_by_name),
        };
        return cmocka_run_group_tests(tests, setup, teardown);
}
