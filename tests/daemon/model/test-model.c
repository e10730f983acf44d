/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole models: tiny ones of each architecture, the ones that ship, and (where they are) a Q4_K_M made by
 * llama-quantize from $WARM_PEERS and the file named by $WARM_SMOLLM.
 */
#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#include "daemon/model/arch.h"
#include "daemon/model/model.h"
#include "gguf-write.h"

extern char **environ;

static struct warm_model *open_tiny(const struct gguf_tiny *tiny,
                                    const struct warm_model_options *options, uint8_t **ret_bytes) {
        struct gguf_writer w = { 0 };
        struct warm_model *m = NULL;
        char *why = NULL;
        size_t n;
        int r;

        gguf_write_tiny(&w, tiny);
        *ret_bytes = gguf_write_end(&w, &n);
        r = warm_model_open_bytes(*ret_bytes, n, "/some/where/Tiny File.gguf", options, &m, &why);
        if (r != 0)
                fail_msg("%d: %s", r, why ? why : "-");
        return m;
}

/* text -> ids -> text */
static void assert_round_trip(const struct warm_model *m, const char *text) {
        char back[256];
        int32_t ids[256];
        size_t n_ids, n = 0;

        assert_int_equal(warm_vocab_tokenize(m->vocab, text, strlen(text), 0, ids, 256, &n_ids), 0);
        for (size_t i = 0; i < n_ids; i++) {
                struct warm_string s = warm_vocab_text(m->vocab, ids[i]);

                assert_true(n + s.n < sizeof back);
                memcpy(back + n, s.data, s.n);
                n += s.n;
        }
        assert_int_equal(n, strlen(text));
        assert_memory_equal(back, text, n);
}

static void a_tiny_model_of_each_architecture_opens(void **state) {
        static const struct gguf_tiny tinies[] = {
                { .architecture = "llama", .sentencepiece = true, .output = true },
                { .architecture = "llama", .biases = true },
                { .architecture = "qwen2" },
                { .architecture = "qwen3", .output = true },
        };

        (void) state;
        for (size_t i = 0; i < sizeof tinies / sizeof tinies[0]; i++) {
                uint8_t *bytes;
                struct warm_model *m = open_tiny(&tinies[i], NULL, &bytes);

                assert_string_equal(m->name, "tiny-model");
                assert_string_equal(m->architecture, tinies[i].architecture);
                assert_int_equal(m->plan.n_vocab, warm_vocab_n_tokens(m->vocab));
                assert_round_trip(m, "return\tx;\n");
                warm_model_free(m);
                free(bytes);
        }
}

static void vocabularies_bring_their_marks_and_ends(void **state) {
        static const struct gguf_tiny spm = { .architecture = "llama", .sentencepiece = true };
        static const struct gguf_tiny bpe = { .architecture = "qwen2" };
        uint8_t *bytes;
        struct warm_model *m = open_tiny(&spm, NULL, &bytes);

        (void) state;
        assert_int_equal(m->format.bos, 1); /* SentencePiece's default */
        assert_true(warm_model_is_end(m, 2));
        assert_int_equal(m->format.pre, 265);
        assert_int_equal(m->format.order, WARM_ORDER_SPM_JOINT);
        assert_int_equal(warm_vocab_kind_of(m->vocab, 265), WARM_TOKEN_CONTROL);
        warm_model_free(m);
        free(bytes);
        m = open_tiny(&bpe, NULL, &bytes);
        assert_int_equal(m->format.bos, -1);
        assert_int_equal(m->format.pre, 261);
        assert_int_equal(m->format.order, WARM_ORDER_PSM);
        assert_true(warm_model_is_end(m, 260) && warm_model_is_end(m, 266));
        assert_false(warm_model_is_end(m, 65));
        warm_model_free(m);
        free(bytes);
}

static void names_come_from_options_metadata_or_the_path(void **state) {
        static const struct warm_model_options options = { .name = "Mine" };
        struct gguf_tiny tiny = { .architecture = "qwen2" };
        struct gguf_writer w = { .without = "general.name" };
        uint8_t *bytes;
        struct warm_model *m = open_tiny(&tiny, &options, &bytes);
        size_t n;

        (void) state;
        assert_string_equal(m->name, "Mine");
        warm_model_free(m);
        free(bytes);
        gguf_write_tiny(&w, &tiny);
        bytes = gguf_write_end(&w, &n);
        assert_int_equal(warm_model_open_bytes(bytes, n, "/a.d/My File.Q8_0.gguf", NULL, &m, NULL),
                         0);
        assert_string_equal(m->name, "my-file.q8_0");
        assert_string_equal(m->path, "/a.d/My File.Q8_0.gguf");
        warm_model_free(m);
        free(bytes);
}

static void no_data(struct warm_tensor *tensor, void *data) {
        (void) tensor;
        ++*(unsigned *) data;
}

static void dropping_the_file_forgets_its_bytes(void **state) {
        struct gguf_tiny tiny = { .architecture = "qwen3" };
        uint8_t *bytes;
        struct warm_model *m = open_tiny(&tiny, NULL, &bytes);
        unsigned n = 0;

        (void) state;
        assert_non_null(m->plan.embedding.data);
        warm_model_drop_file(m);
        warm_model_drop_file(m);
        assert_null(m->gguf);
        warm_arch_each_tensor(&m->plan, no_data, &n);
        assert_int_equal(n, 0);
        assert_int_equal(m->plan.layers[1].q.n_rows, 128);
        assert_round_trip(m, "still tokenizes");
        warm_model_free(m);
        free(bytes);
}

static void refusals_name_the_file(void **state) {
        static const struct {
                const char *without, *word;
                int r;
        } wrong[] = {
                { "general.architecture", "/x.gguf: lacks the key general.architecture", -EBADMSG },
                { "tokenizer.ggml.model", "/x.gguf: lacks the key tokenizer.ggml.model", -EBADMSG },
                { "tokenizer.ggml.pre", "pre-tokenizer", -EOPNOTSUPP },
                { "tokenizer.ggml.tokens", "0 tokens", -EBADMSG },
                { "tokenizer.ggml.merges", "tokenizer.ggml.merges", -EBADMSG },
        };
        struct gguf_tiny tiny = { .architecture = "qwen2" };
        struct warm_model *m = NULL;
        char *why = NULL;

        (void) state;
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
                struct gguf_writer w = { .without = wrong[i].without };
                uint8_t *bytes;
                size_t n;
                int r;

                gguf_write_tiny(&w, &tiny);
                bytes = gguf_write_end(&w, &n);
                r = warm_model_open_bytes(bytes, n, "/x.gguf", NULL, &m, &why);
                assert_int_equal(r, wrong[i].r);
                assert_non_null(strstr(why, wrong[i].word));
                free(why);
                free(bytes);
        }
        assert_int_equal(warm_model_open("/nonexistent.gguf", NULL, &m, &why), -ENOENT);
        assert_non_null(strstr(why, "/nonexistent.gguf: cannot be opened"));
        free(why);
}

/* A tiny model of which one tokenizer key is written by `write`. */
static void tokenizer_refused(const char *key, void (*write)(struct gguf_writer *w), int error,
                              const char *word) {
        struct gguf_tiny tiny = { .architecture = "llama", .sentencepiece = true };
        struct gguf_writer w = { .without = key };
        struct warm_model *m = NULL;
        char *why = NULL;
        uint8_t *bytes;
        size_t n;
        int r;

        gguf_write_tiny(&w, &tiny);
        w.without = NULL;
        write(&w);
        bytes = gguf_write_end(&w, &n);
        r = warm_model_open_bytes(bytes, n, "x", NULL, &m, &why);
        if (r != error || !why || !strstr(why, word))
                fail_msg("%s: %d: %s", key, r, why ? why : "-");
        free(why);
        free(bytes);
}

static void write_model(struct gguf_writer *w) {
        gguf_write_string(w, "tokenizer.ggml.model", "t5");
}

static void write_kinds(struct gguf_writer *w) {
        static const int32_t kinds[269] = { 7 };

        gguf_write_i32s(w, "tokenizer.ggml.token_type", kinds, 269);
}

static void write_few_kinds(struct gguf_writer *w) {
        static const int32_t kinds[2] = { 1, 1 };

        gguf_write_i32s(w, "tokenizer.ggml.token_type", kinds, 2);
}

static void write_few_scores(struct gguf_writer *w) {
        static const float scores[3] = { 0 };

        gguf_write_f32s(w, "tokenizer.ggml.scores", scores, 3);
}

static void write_few_tokens(struct gguf_writer *w) {
        static const char *const tokens[269] = { "a" };
        static const char *names[268];

        for (size_t i = 0; i < 268; i++)
                names[i] = tokens[0];
        gguf_write_strings(w, "tokenizer.ggml.tokens", names, 268);
}

static void write_bos(struct gguf_writer *w) {
        gguf_write_u32(w, "tokenizer.ggml.bos_token_id", 269);
}

static void write_flag(struct gguf_writer *w) {
        gguf_write_u32(w, "tokenizer.ggml.add_bos_token", 1);
}

static void tokenizer_tables_that_contradict_each_other_are_refused(void **state) {
        (void) state;
        tokenizer_refused("tokenizer.ggml.model", write_model, -EOPNOTSUPP, "kind t5");
        tokenizer_refused("tokenizer.ggml.token_type", write_kinds, -EBADMSG, "kind 7");
        tokenizer_refused("tokenizer.ggml.token_type", write_few_kinds, -EBADMSG, "2 entries");
        tokenizer_refused("tokenizer.ggml.scores", write_few_scores, -EBADMSG, "3 entries");
        tokenizer_refused("tokenizer.ggml.tokens", write_few_tokens, -EBADMSG, "269");
        tokenizer_refused("", write_bos, -EBADMSG, "bos_token_id is 269");
        tokenizer_refused("", write_flag, -EBADMSG, "add_bos_token is u32");
}

static void a_model_is_begun_and_finished(void **state) {
        const struct gguf_tiny tiny = { .architecture = "qwen2" };
        char path[] = "/tmp/warm-test-model-XXXXXX";
        struct warm_model *begun = NULL, *whole = NULL;
        struct gguf_writer w = { 0 };
        uint8_t *bytes;
        char *why = NULL;
        size_t n;

        (void) state;
        gguf_write_tiny(&w, &tiny);
        bytes = gguf_write_end(&w, &n);
        assert_int_equal(gguf_write_temporary(path, bytes, n), 0);
        assert_int_equal(chmod(path, 0666), 0); /* it will not be mapped */
        assert_int_equal(warm_model_open(path, NULL, &whole, NULL), 0);
        assert_true(warm_model_has_data(whole));
        assert_int_equal(warm_model_begin(path, NULL, &begun, NULL), 0);
        assert_string_equal(begun->architecture, "qwen2");
        assert_false(warm_model_has_data(begun));
        assert_int_equal(warm_model_finish(begun, NULL), 0);
        assert_true(warm_model_has_data(begun));
        assert_int_equal(warm_model_finish(begun, NULL), 0);
        assert_memory_equal(begun->content_hash, whole->content_hash, WARM_FINGERPRINT_BYTES);
        assert_memory_equal(begun->plan.embedding.data, whole->plan.embedding.data,
                            begun->plan.embedding.bytes);
        warm_model_free(begun);
        warm_model_free(whole);

        assert_int_equal(warm_model_begin(path, NULL, &begun, NULL), 0);
        warm_model_free(begun);
        assert_int_equal(truncate(path, (off_t) n / 2), 0);
        assert_int_equal(warm_model_begin(path, NULL, &begun, &why), -EBADMSG);
        assert_non_null(strstr(why, path));
        free(why);
        free(bytes);
        unlink(path);
}

static struct warm_model *open_shipped(const char *file) {
        const char *root = getenv("WARM_SOURCE_ROOT");
        struct warm_model *m = NULL;
        char path[4096], *why = NULL;
        int r;

        if (!root)
                skip();
        (void) snprintf(path, sizeof path, "%s/models/%s", root, file);
        r = warm_model_open(path, NULL, &m, &why);
        if (r != 0)
                fail_msg("%d: %s", r, why ? why : "-");
        return m;
}

static void the_shipped_models_open(void **state) {
        /* What outlives a daemon is found again by it: a change of this is a change of the hash. */
        static const uint8_t expected[WARM_FINGERPRINT_BYTES] = {
                0x24, 0x20, 0xb7, 0x65, 0x45, 0xb9, 0xc8, 0x98,
                0x6a, 0xf6, 0x3c, 0xc8, 0x6a, 0xef, 0xb1, 0x14,
        };
        struct warm_model *m = open_shipped("warm-nano-q8_0.gguf");
        uint8_t hash[WARM_FINGERPRINT_BYTES];

        (void) state;
        assert_string_equal(m->name, "warm-nano");
        assert_string_equal(m->architecture, "qwen2");
        assert_string_equal(m->quantization, "Q8_0");
        assert_int_equal(m->n_parameters, 32520704);
        assert_int_equal(m->plan.n_context, 2048);
        assert_int_equal(m->format.orders, 1U << WARM_ORDER_PSM | 1U << WARM_ORDER_SPM_JOINT);
        assert_int_equal(m->format.order, WARM_ORDER_SPM_JOINT);
        assert_int_equal(m->format.pre, 16378);
        assert_int_equal(m->format.bos, -1);
        assert_true(warm_model_is_end(m, 16377));
        assert_memory_equal(m->content_hash, expected, sizeof expected);
        memcpy(hash, m->content_hash, sizeof hash);
        warm_model_free(m);

        m = open_shipped("warm-nano-draft-q8_0.gguf");
        assert_string_equal(m->name, "warm-nano-draft");
        assert_int_equal(m->plan.layers[2].n_kv_heads, 1);
        assert_memory_not_equal(hash, m->content_hash, sizeof hash);
        warm_model_free(m);
}

static void a_q4_k_m_made_by_llama_quantize_opens(void **state) {
        const char *peers = getenv("WARM_PEERS"), *root = getenv("WARM_SOURCE_ROOT");
        char folder[] = "/tmp/warm-test-model-XXXXXX";
        char tool[4096], from[4096], to[4096], *why = NULL;
        struct warm_model *m = NULL;
        int status, r;
        char option[] = "--allow-requantize", type[] = "Q4_K_M";
        char *const arguments[] = { tool, option, from, to, type, NULL };
        pid_t child;

        (void) state;
        if (!peers || !root)
                skip();
        assert_non_null(mkdtemp(folder));
        (void) snprintf(tool, sizeof tool, "%s/llama-quantize", peers);
        (void) snprintf(from, sizeof from, "%s/models/warm-nano-q8_0.gguf", root);
        (void) snprintf(to, sizeof to, "%s/q4.gguf", folder);
        setenv("LD_LIBRARY_PATH", peers, 1);
        assert_int_equal(posix_spawn(&child, tool, NULL, NULL, arguments, environ), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        unsetenv("LD_LIBRARY_PATH");
        assert_int_equal(status, 0);
        r = warm_model_open(to, NULL, &m, &why);
        unlink(to);
        rmdir(folder);
        if (r != 0)
                fail_msg("%d: %s", r, why ? why : "-");
        assert_string_equal(m->quantization, "Q4_K");
        assert_int_equal(m->n_parameters, 32520704);
        warm_model_free(m);
}

static void smollm2_opens_and_has_no_order(void **state) {
        const char *path = getenv("WARM_SMOLLM");
        struct warm_model *m = NULL;
        char *why = NULL;
        int r;

        (void) state;
        if (!path)
                skip();
        r = warm_model_open(path, NULL, &m, &why);
        if (r != 0)
                fail_msg("%d: %s", r, why ? why : "-");
        assert_string_equal(m->name, "smollm2-135m-8k-lc100k-mix1-ep2");
        assert_string_equal(m->quantization, "Q4_1");
        assert_int_equal(m->plan.layers[29].n_heads, 9);
        assert_int_equal(m->format.order, WARM_ORDER_NONE);
        warm_model_free(m);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_tiny_model_of_each_architecture_opens),
                cmocka_unit_test(vocabularies_bring_their_marks_and_ends),
                cmocka_unit_test(names_come_from_options_metadata_or_the_path),
                cmocka_unit_test(dropping_the_file_forgets_its_bytes),
                cmocka_unit_test(refusals_name_the_file),
                cmocka_unit_test(tokenizer_tables_that_contradict_each_other_are_refused),
                cmocka_unit_test(a_model_is_begun_and_finished),
                cmocka_unit_test(the_shipped_models_open),
                cmocka_unit_test(a_q4_k_m_made_by_llama_quantize_opens),
                cmocka_unit_test(smollm2_opens_and_has_no_order),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
