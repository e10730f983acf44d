/* SPDX-License-Identifier: Apache-2.0 */
/* See tokens.h. Source of the defaults: what llama.cpp assumes where a file is silent. */
#include <errno.h>
#include <string.h>

#include "tokens.h"
#include "why.h"

int warm_tokens_get_id(const struct warm_gguf *g, const char *key, uint32_t n_tokens,
                       int32_t *ret_id, char **ret_why) {
        const struct warm_gguf_key *k = warm_gguf_find_key(g, key);
        uint32_t id = UINT32_MAX;
        int r = 0;

        if (!k || (k->type == WARM_GGUF_I32 && (k->value[3] & 0x80))) {
                *ret_id = -1;
                return 0;
        }
        r = warm_gguf_get_u32(g, key, &id, ret_why);
        if (r < 0)
                return r;
        if (id != UINT32_MAX && id >= n_tokens)
                return warm_why(ret_why, -EBADMSG,
                                "%s is %u in a vocabulary of %u; the file is damaged", key, id,
                                n_tokens);
        *ret_id = id == UINT32_MAX ? -1 : (int32_t) id;
        return 0;
}

/* Which tokenizer, and for BPE which pre-tokenizer. */
static int read_kind(const struct warm_gguf *g, struct warm_vocab_config *c, char **ret_why) {
        struct warm_string model;
        int r = warm_gguf_get_string(g, "tokenizer.ggml.model", &model, ret_why);

        if (r < 0)
                return r;
        if (r == WARM_GGUF_E_ABSENT)
                return warm_why(ret_why, -EBADMSG,
                                "lacks the key tokenizer.ggml.model; convert the model again");
        if (warm_string_is(model, "llama")) {
                c->kind = WARM_VOCAB_SPM;
                return 0;
        }
        if (!warm_string_is(model, "gpt2"))
                return warm_why(
                        ret_why, -EOPNOTSUPP,
                        "has a tokenizer of kind %s, which is not built; those that are: gpt2 "
                        "(byte-level BPE), llama (SentencePiece)",
                        warm_show(model).text);
        c->kind = WARM_VOCAB_BPE;
        r = warm_gguf_get_string(g, "tokenizer.ggml.pre", &c->pre, ret_why);
        if (r == WARM_GGUF_E_ABSENT)
                return warm_why(
                        ret_why, -EOPNOTSUPP,
                        "does not name its pre-tokenizer (tokenizer.ggml.pre), as files from "
                        "before May 2024: convert the model again");
        return r;
}

/* Each table is as long as the vocabulary. */
static int check_length(const char *key, uint32_t n, uint32_t n_tokens, char **ret_why) {
        if (n == n_tokens)
                return 0;
        return warm_why(ret_why, -EBADMSG, "%s has %u entries for %u tokens; the file is damaged",
                        key, n, n_tokens);
}

static int read_kinds(const struct warm_gguf *g, struct warm_tokens *t, char **ret_why) {
        static const char key[] = "tokenizer.ggml.token_type";
        uint32_t n = 0;
        int r = warm_gguf_get_i32s(g, key, &t->kinds, &n, ret_why);

        if (r < 0)
                return r;
        if (r == WARM_GGUF_E_ABSENT) {
                n = t->config.n_tokens;
                t->kinds = calloc(n, sizeof *t->kinds);
                if (!t->kinds)
                        return -ENOMEM;
        }
        for (uint32_t i = 0; i < n; i++) {
                if (t->kinds[i] < 0 || t->kinds[i] > WARM_TOKEN_BYTE)
                        return warm_why(ret_why, -EBADMSG,
                                        "%s gives token %u the kind %d; 1 to 6 are read", key, i,
                                        t->kinds[i]);
                if (t->kinds[i] == 0) /* "undefined" */
                        t->kinds[i] = WARM_TOKEN_NORMAL;
        }
        return check_length(key, n, t->config.n_tokens, ret_why);
}

static int read_tables(const struct warm_gguf *g, struct warm_tokens *t, char **ret_why) {
        struct warm_vocab_config *c = &t->config;
        uint32_t n = 0;
        int r = warm_gguf_get_strings(g, "tokenizer.ggml.tokens", &t->tokens, &c->n_tokens,
                                      ret_why);

        if (r < 0)
                return r;
        if (r == WARM_GGUF_E_ABSENT || c->n_tokens == 0 || c->n_tokens > WARM_VOCAB_TOKENS_MAX)
                return warm_why(ret_why, -EBADMSG,
                                "has %u tokens in tokenizer.ggml.tokens; 1 to %u are read",
                                c->n_tokens, WARM_VOCAB_TOKENS_MAX);
        r = read_kinds(g, t, ret_why);
        if (r < 0)
                return r;
        if (c->kind == WARM_VOCAB_SPM)
                r = warm_gguf_get_f32s(g, "tokenizer.ggml.scores", &t->scores, &n, ret_why);
        else
                r = warm_gguf_get_strings(g, "tokenizer.ggml.merges", &t->merges, &c->n_merges,
                                          ret_why);
        if (r == WARM_GGUF_E_ABSENT)
                return warm_why(ret_why, -EBADMSG,
                                "lacks the key tokenizer.ggml.%s; convert the model again",
                                c->kind == WARM_VOCAB_SPM ? "scores" : "merges");
        if (r == 0 && c->kind == WARM_VOCAB_SPM)
                r = check_length("tokenizer.ggml.scores", n, c->n_tokens, ret_why);
        c->tokens = t->tokens;
        c->kinds = t->kinds;
        c->scores = t->scores;
        c->merges = t->merges;
        return r;
}

/* Whether a BOS goes in front where the file does not say: as each family was trained. */
static bool default_add_bos(const struct warm_vocab_config *c) {
        static const char *const with[] = { "llama-bpe", "llama3", "llama-v3", "tekken" };

        if (c->kind == WARM_VOCAB_SPM)
                return true;
        for (size_t i = 0; i < sizeof with / sizeof with[0]; i++)
                if (warm_string_is(c->pre, with[i]))
                        return true;
        return false;
}

static int read_ids(const struct warm_gguf *g, struct warm_vocab_config *c, char **ret_why) {
        static const char *const keys[] = { "tokenizer.ggml.bos_token_id",
                                            "tokenizer.ggml.eos_token_id",
                                            "tokenizer.ggml.unknown_token_id" };
        static const int32_t spm[] = { 1, 2,
                                       0 }; /* <s>, </s>, <unk> of every SentencePiece Llama */
        int32_t *const ids[] = { &c->bos, &c->eos, &c->unknown };

        for (size_t i = 0; i < 3; i++) {
                int r = warm_tokens_get_id(g, keys[i], c->n_tokens, ids[i], ret_why);

                if (r < 0)
                        return r;
                if (!warm_gguf_find_key(g, keys[i]) && c->kind == WARM_VOCAB_SPM &&
                    (uint32_t) spm[i] < c->n_tokens)
                        *ids[i] = spm[i];
        }
        return 0;
}

static int read_flag(const struct warm_gguf *g, const char *key, bool otherwise, bool *ret_flag,
                     char **ret_why) {
        int r = warm_gguf_get_bool(g, key, ret_flag, ret_why);

        if (r == WARM_GGUF_E_ABSENT)
                *ret_flag = otherwise;
        return r < 0 ? r : 0;
}

int warm_tokens_read(const struct warm_gguf *g, struct warm_tokens *ret_tokens, char **ret_why) {
        struct warm_tokens t = { 0 };
        int r = read_kind(g, &t.config, ret_why);

        if (r == 0)
                r = read_tables(g, &t, ret_why);
        if (r == 0)
                r = read_ids(g, &t.config, ret_why);
        if (r == 0)
                r = read_flag(g, "tokenizer.ggml.add_bos_token", default_add_bos(&t.config),
                              &t.config.add_bos, ret_why);
        if (r == 0)
                r = read_flag(g, "tokenizer.ggml.add_space_prefix", t.config.kind == WARM_VOCAB_SPM,
                              &t.config.add_space_prefix, ret_why);
        if (r < 0) {
                warm_tokens_deinit(&t);
                return r;
        }
        *ret_tokens = t;
        return 0;
}

void warm_tokens_deinit(struct warm_tokens *t) {
        free(t->tokens);
        free(t->merges);
        free(t->kinds);
        free(t->scores);
        *t = (struct warm_tokens){ 0 };
}
