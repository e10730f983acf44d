/* SPDX-License-Identifier: Apache-2.0 */
/* Prompt formats: each family's marks by name, the metadata over them, the options over all. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

#include "daemon/model/fim.h"
#include "gguf-write.h"

#define PSM   (1U << WARM_ORDER_PSM)
#define JOINT (1U << WARM_ORDER_SPM_JOINT)

struct found {
        struct warm_prompt_format format;
        int32_t kinds[64];
        int r;
        char *why;
};

/* Find the format of a file whose tokens are these. Frees the writer. @param kind of all tokens; 0: no table */
static struct found find(struct gguf_writer *w, const char *const *tokens, size_t n, int32_t kind,
                         const struct warm_model_options *options) {
        struct found found = { 0 };
        struct warm_tokens t;
        struct warm_gguf *g;
        uint8_t *bytes;
        int32_t kinds[64];
        size_t n_bytes;

        for (size_t i = 0; i < n; i++)
                kinds[i] = kind;
        gguf_write_string(w, "tokenizer.ggml.model", "gpt2");
        gguf_write_string(w, "tokenizer.ggml.pre", "qwen2");
        gguf_write_strings(w, "tokenizer.ggml.tokens", tokens, n);
        if (kind)
                gguf_write_i32s(w, "tokenizer.ggml.token_type", kinds, n);
        gguf_write_strings(w, "tokenizer.ggml.merges", NULL, 0);
        bytes = gguf_write_end(w, &n_bytes);
        assert_int_equal(warm_gguf_open_bytes(bytes, n_bytes, &g, NULL), 0);
        assert_int_equal(warm_tokens_read(g, &t, NULL), 0);
        found.r = warm_fim_find(g, options, &t, &found.format, &found.why);
        memcpy(found.kinds, t.kinds, n * sizeof *t.kinds);
        warm_tokens_deinit(&t);
        warm_gguf_free(g);
        free(bytes);
        return found;
}

static void done(struct found *f) {
        warm_fim_deinit(&f->format);
        free(f->why);
}

static bool is_end(const struct found *f, int32_t id) {
        for (uint32_t i = 0; i < f->format.n_ends; i++)
                if (f->format.ends[i] == id)
                        return true;
        return false;
}

static void families_are_known_by_their_names(void **state) {
        static const struct {
                const char *tokens[5]; /* something, pre, suf, mid, one more end */
                uint32_t orders;
                enum warm_order order;
        } families[] = {
                { { "a", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>" },
                  PSM,
                  WARM_ORDER_PSM },
                { { "a", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<fim_pad>" },
                  PSM | JOINT,
                  WARM_ORDER_SPM_JOINT },
                { { "a", "<fim-prefix>", "<fim-suffix>", "<fim-middle>", "<fim-pad>" },
                  PSM | JOINT,
                  WARM_ORDER_SPM_JOINT },
                { { "a", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>",
                    "<｜end▁of▁sentence｜>" },
                  PSM,
                  WARM_ORDER_PSM },
                { { "a", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>" },
                  PSM | JOINT,
                  WARM_ORDER_SPM_JOINT },
                { { "a", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
                    "<|file_separator|>" },
                  PSM,
                  WARM_ORDER_PSM },
                { { "a", "<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>",
                    "<[end▁of▁sentence]>" },
                  JOINT,
                  WARM_ORDER_SPM_JOINT },
                { { "a", "<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>", "<|endoftext|>" },
                  PSM,
                  WARM_ORDER_PSM },
        };

        (void) state;
        for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
                struct gguf_writer w = { 0 };
                struct found f = find(&w, families[i].tokens, 5, WARM_TOKEN_CONTROL, NULL);

                assert_int_equal(f.r, 0);
                assert_int_equal(f.format.pre, 1);
                assert_int_equal(f.format.suf, 2);
                assert_int_equal(f.format.mid, 3);
                assert_int_equal(f.format.orders, families[i].orders);
                assert_int_equal(f.format.order, families[i].order);
                assert_false(is_end(&f, 0));
                for (int32_t id = 1; id < 5; id++)
                        assert_true(is_end(&f, id));
                done(&f);
        }
}

static void codestral_has_no_mark_for_the_middle(void **state) {
        static const char *const tokens[] = { "[MIDDLE]", "[PREFIX]", "[SUFFIX]", "</s>" };
        struct gguf_writer w = { 0 };
        struct found f;

        (void) state;
        gguf_write_u32(&w, "tokenizer.ggml.eos_token_id", 3);
        f = find(&w, tokens, 4, WARM_TOKEN_CONTROL, NULL);
        assert_int_equal(f.format.pre, 1);
        assert_int_equal(f.format.suf, 2);
        assert_int_equal(f.format.mid, -1);
        assert_int_equal(f.format.orders, JOINT);
        assert_true(is_end(&f, 0) && is_end(&f, 1) && is_end(&f, 2) && is_end(&f, 3));
        done(&f);
}

static void marks_become_control_tokens(void **state) {
        static const char *const tokens[] = { "a", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>", "</s>" };
        struct gguf_writer w = { 0 };
        struct found f = find(&w, tokens, 6, 0, NULL);

        (void) state;
        assert_int_equal(f.kinds[0], WARM_TOKEN_NORMAL);
        for (size_t i = 1; i < 5; i++)
                assert_int_equal(f.kinds[i], WARM_TOKEN_CONTROL);
        /* "</s>" is a word of HTML unless the file says otherwise. */
        assert_int_equal(f.kinds[5], WARM_TOKEN_NORMAL);
        assert_false(is_end(&f, 5));
        done(&f);
}

static void half_a_family_is_no_family(void **state) {
        static const char *const tokens[] = { "a", "<|fim_prefix|>", "<|fim_suffix|>", "<PRE>" };
        struct gguf_writer w = { 0 };
        struct found f = find(&w, tokens, 4, WARM_TOKEN_CONTROL, NULL);

        (void) state;
        assert_int_equal(f.r, 0);
        assert_int_equal(f.format.order, WARM_ORDER_NONE);
        assert_int_equal(f.format.orders, 0);
        assert_int_equal(f.format.pre, -1);
        done(&f);
}

static const char *const plain[] = { "p", "s", "m", "pad", "repo", "sep", "end", "eom", "eos" };

static void the_metadata_names_marks_of_any_spelling(void **state) {
        static const char *const orders[] = { "psm", "spm-joint", "of-tomorrow" };
        struct gguf_writer w = { 0 };
        struct found f;

        (void) state;
        gguf_write_u32(&w, "tokenizer.ggml.fim_pre_token_id", 0);
        gguf_write_u32(&w, "tokenizer.ggml.fim_suf_token_id", 1);
        gguf_write_u32(&w, "tokenizer.ggml.fim_mid_token_id", 2);
        gguf_write_u32(&w, "tokenizer.ggml.fim_pad_token_id", 3);
        gguf_write_u32(&w, "tokenizer.ggml.fim_rep_token_id", 4);
        gguf_write_u32(&w, "tokenizer.ggml.fim_sep_token_id", 5);
        gguf_write_u32(&w, "tokenizer.ggml.eot_token_id", 6);
        gguf_write_u32(&w, "tokenizer.ggml.eom_token_id", 7);
        gguf_write_u32(&w, "tokenizer.ggml.eos_token_id", 8);
        gguf_write_u32(&w, "tokenizer.ggml.bos_token_id", 8);
        f = find(&w, plain, 9, WARM_TOKEN_NORMAL, NULL);
        assert_int_equal(f.r, 0);
        assert_int_equal(f.format.mid, 2);
        assert_int_equal(f.format.repo, 4);
        assert_int_equal(f.format.file_sep, 5);
        assert_int_equal(f.format.eot, 6);
        assert_int_equal(f.format.bos, -1); /* this family puts none in front */
        assert_int_equal(f.format.n_ends, 9);
        assert_int_equal(f.format.orders, PSM); /* nothing more is known of them */
        done(&f);

        gguf_write_u32(&w, "tokenizer.ggml.prefix_token_id", 0); /* as older files call them */
        gguf_write_u32(&w, "tokenizer.ggml.suffix_token_id", 1);
        gguf_write_u32(&w, "tokenizer.ggml.middle_token_id", 2);
        gguf_write_strings(&w, "warm.fim.orders", orders, 3);
        f = find(&w, plain, 9, WARM_TOKEN_NORMAL, NULL);
        assert_int_equal(f.format.orders, PSM | JOINT);
        assert_int_equal(f.format.order, WARM_ORDER_SPM_JOINT);
        done(&f);
}

static void listed_orders_outweigh_the_familys(void **state) {
        static const char *const tokens[] = { "<fim_prefix>", "<fim_suffix>", "<fim_middle>" };
        static const char *const orders[] = { "psm" };
        struct gguf_writer w = { 0 };
        struct found f;

        (void) state;
        gguf_write_strings(&w, "warm.fim.orders", orders, 1);
        f = find(&w, tokens, 3, WARM_TOKEN_CONTROL, NULL);
        assert_int_equal(f.format.orders, PSM);
        assert_int_equal(f.format.order, WARM_ORDER_PSM);
        done(&f);
        gguf_write_u32(&w, "warm.fim.orders", 1);
        f = find(&w, tokens, 3, WARM_TOKEN_CONTROL, NULL);
        assert_int_equal(f.r, -EBADMSG);
        done(&f);
}

static void ids_outside_the_vocabulary_are_refused(void **state) {
        static const char *const keys[] = { "tokenizer.ggml.fim_pre_token_id",
                                            "tokenizer.ggml.fim_sep_token_id",
                                            "tokenizer.ggml.eot_token_id",
                                            "tokenizer.ggml.eom_token_id" };
        struct gguf_writer w = { 0 };
        struct found f;

        (void) state;
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
                gguf_write_u32(&w, keys[i], 9);
                f = find(&w, plain, 9, WARM_TOKEN_NORMAL, NULL);
                assert_int_equal(f.r, -EBADMSG);
                assert_non_null(strstr(f.why, keys[i]));
                done(&f);
        }
        gguf_write_i32(&w, keys[0], -1); /* both say: none */
        gguf_write_u32(&w, keys[2], UINT32_MAX);
        f = find(&w, plain, 9, WARM_TOKEN_NORMAL, NULL);
        assert_int_equal(f.r, 0);
        assert_int_equal(f.format.pre, -1);
        assert_int_equal(f.format.eot, -1);
        done(&f);
}

static void options_outweigh_all(void **state) {
        static const char *const tokens[] = {
                "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "x", "y", "z", "<|file_sep|>"
        };
        const struct warm_model_options marks = {
                .fim_pre = "x", .fim_suf = "y", .fim_mid = "z", .fim_sep = "", .order = "spm-joint"
        };
        const struct warm_model_options none = { .order = "none" };
        const struct warm_model_options wrong[] = { { .fim_mid = "not there" },
                                                    { .order = "sideways" },
                                                    { .order = "psm", .fim_pre = "" } };
        struct gguf_writer w = { 0 };
        struct found f = find(&w, tokens, 7, WARM_TOKEN_CONTROL, &marks);

        (void) state;
        assert_int_equal(f.r, 0);
        assert_int_equal(f.format.pre, 3);
        assert_int_equal(f.format.mid, 5);
        assert_int_equal(f.format.file_sep, -1);
        assert_int_equal(f.format.order, WARM_ORDER_SPM_JOINT);
        assert_int_equal(f.format.orders, PSM | JOINT);
        done(&f);
        f = find(&w, tokens, 7, WARM_TOKEN_CONTROL, &none);
        assert_int_equal(f.format.order, WARM_ORDER_NONE);
        done(&f);
        for (size_t i = 0; i < 3; i++) {
                f = find(&w, tokens, 7, WARM_TOKEN_CONTROL, &wrong[i]);
                assert_int_equal(f.r, -EINVAL);
                assert_non_null(f.why);
                done(&f);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(families_are_known_by_their_names),
                cmocka_unit_test(codestral_has_no_mark_for_the_middle),
                cmocka_unit_test(marks_become_control_tokens),
                cmocka_unit_test(half_a_family_is_no_family),
                cmocka_unit_test(the_metadata_names_marks_of_any_spelling),
                cmocka_unit_test(listed_orders_outweigh_the_familys),
                cmocka_unit_test(ids_outside_the_vocabulary_are_refused),
                cmocka_unit_test(options_outweigh_all),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
