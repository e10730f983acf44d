/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"
#include "read-vocab.h"

const char *const pres[N_PRES] = { "qwen2",     "llama-bpe",      "smollm",    "gpt-2",
                                   "starcoder", "deepseek-coder", "seed-coder" };

const char *source_path(const char *path) {
        static char buffer[4096];
        const char *root = getenv("WARM_SOURCE_ROOT");

        snprintf(buffer, sizeof buffer, "%s/%s", root ? root : ".", path);
        return buffer;
}

static void must(int r, const char *path, const char *why) {
        if (r == 0)
                return;
        fprintf(stderr, "%s: %s\n", path, why ? why : strerror(-r));
        abort();
}

void read_vocab_open(struct read_vocab *v, const char *path) {
        char *why = NULL;

        must(warm_gguf_open(path, &v->file, &why), path, why);
        must(warm_tokens_read(v->file, &v->tokens, &why), path, why);
}

void read_vocab_close(struct read_vocab *v) {
        warm_tokens_deinit(&v->tokens);
        v->file = warm_gguf_free(v->file);
}

static struct warm_vocab *make(struct read_vocab *v, const char *path, const char *pre) {
        struct warm_vocab *vocab;
        char *why = NULL;

        if (pre)
                v->tokens.config.pre = (struct warm_string){ pre, strlen(pre) };
        must(warm_vocab_new(&v->tokens.config, &vocab, &why), path, why);
        read_vocab_close(v);
        return vocab;
}

struct warm_vocab *read_vocab(const char *path, const char *pre) {
        struct read_vocab v;

        read_vocab_open(&v, path);
        return make(&v, path, pre);
}

struct warm_vocab *read_vocab_with(const char *pre, const char *const *user, uint32_t n_user) {
        const char *path = source_path(NANO);
        struct read_vocab v;

        read_vocab_open(&v, path);
        for (uint32_t i = 0; i < n_user; i++) {
                v.tokens.tokens[16000 + i] = (struct warm_string){ user[i], strlen(user[i]) };
                v.tokens.kinds[16000 + i] = WARM_TOKEN_USER;
        }
        return make(&v, path, pre);
}
