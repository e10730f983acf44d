/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "read-vocab.h"

enum { STRING = 8, ARRAY = 9 };

struct reader {
        const char *at, *end;
};

static void take(struct reader *r, void *ret, size_t n) {
        assert((size_t) (r->end - r->at) >= n);
        memcpy(ret, r->at, n);
        r->at += n;
}

static uint32_t u32(struct reader *r) {
        uint32_t v;

        take(r, &v, sizeof v);
        return v;
}

static uint64_t u64(struct reader *r) {
        uint64_t v;

        take(r, &v, sizeof v);
        return v;
}

static struct warm_string string(struct reader *r) {
        uint64_t n = u64(r);
        struct warm_string s = { r->at, n };

        assert((size_t) (r->end - r->at) >= n);
        r->at += n;
        return s;
}

static void skip(struct reader *r, uint32_t type) {
        static const size_t sizes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
        uint64_t n;

        if (type == STRING) {
                (void) string(r);
        } else if (type == ARRAY) {
                type = u32(r);
                for (n = u64(r); n > 0; n--)
                        skip(r, type);
        } else {
                r->at += sizes[type];
        }
}

static struct warm_string *strings(struct reader *r, uint32_t *ret_n) {
        uint32_t type = u32(r), n = (uint32_t) u64(r);
        struct warm_string *s = malloc((n + 1) * sizeof *s);

        assert(type == STRING && s);
        for (uint32_t i = 0; i < n; i++)
                s[i] = string(r);
        *ret_n = n;
        return s;
}

/* A copy: in the file nothing is aligned. */
static void *array(struct reader *r) {
        const char *start = r->at + 12;
        char *copy;

        skip(r, ARRAY);
        copy = malloc((size_t) (r->at - start) + 1);
        assert(copy);
        memcpy(copy, start, (size_t) (r->at - start));
        return copy;
}

static bool is(struct warm_string key, const char *name) {
        return key.n == strlen(name) && memcmp(key.data, name, key.n) == 0;
}

static void read_key(struct read_vocab *v, struct reader *r, struct warm_string key,
                     uint32_t type) {
        struct warm_vocab_config *c = &v->config;

        if (is(key, "tokenizer.ggml.model"))
                c->kind = is(string(r), "llama") ? WARM_VOCAB_SPM : WARM_VOCAB_BPE;
        else if (is(key, "tokenizer.ggml.pre"))
                c->pre = string(r);
        else if (is(key, "tokenizer.ggml.tokens"))
                c->tokens = v->tokens = strings(r, &c->n_tokens);
        else if (is(key, "tokenizer.ggml.merges"))
                c->merges = v->merges = strings(r, &c->n_merges);
        else if (is(key, "tokenizer.ggml.token_type"))
                c->kinds = v->kinds = array(r);
        else if (is(key, "tokenizer.ggml.scores"))
                c->scores = v->scores = array(r);
        else if (is(key, "tokenizer.ggml.bos_token_id"))
                c->bos = (int32_t) u32(r);
        else if (is(key, "tokenizer.ggml.eos_token_id"))
                c->eos = (int32_t) u32(r);
        else if (is(key, "tokenizer.ggml.unknown_token_id"))
                c->unknown = (int32_t) u32(r);
        else if (is(key, "tokenizer.ggml.add_bos_token"))
                c->add_bos = *r->at++;
        else if (is(key, "tokenizer.ggml.add_space_prefix"))
                c->add_space_prefix = *r->at++;
        else
                skip(r, type);
}

const char *source_path(const char *path) {
        static char buffer[4096];
        const char *root = getenv("WARM_SOURCE_ROOT");

        snprintf(buffer, sizeof buffer, "%s/%s", root ? root : ".", path);
        return buffer;
}

void read_vocab_open(struct read_vocab *v, const char *path) {
        FILE *f = fopen(path, "rb");
        struct reader r;
        uint64_t n;

        assert(f);
        fseek(f, 0, SEEK_END);
        *v = (struct read_vocab){ .n_file = (size_t) ftell(f) };
        rewind(f);
        v->file = malloc(v->n_file + 8);
        assert(v->file && fread(v->file, 1, v->n_file, f) == v->n_file);
        fclose(f);
        v->config = (struct warm_vocab_config){
                .bos = -1, .eos = -1, .unknown = -1, .add_space_prefix = true
        };
        r = (struct reader){ v->file + 16, v->file + v->n_file };
        for (n = u64(&r); n > 0; n--) {
                struct warm_string key = string(&r);
                uint32_t type = u32(&r);

                read_key(v, &r, key, type);
        }
}

void read_vocab_close(struct read_vocab *v) {
        free(v->tokens);
        free(v->merges);
        free(v->kinds);
        free(v->scores);
        free(v->file);
}

struct warm_vocab *read_vocab(const char *path, const char *pre) {
        struct warm_vocab *vocab;
        struct read_vocab v;
        char *why = NULL;
        int r;

        read_vocab_open(&v, path);
        if (pre)
                v.config.pre = (struct warm_string){ pre, strlen(pre) };
        r = warm_vocab_new(&v.config, &vocab, &why);
        if (r < 0)
                fprintf(stderr, "%s: %s\n", path, why ? why : strerror(-r));
        assert(r == 0);
        read_vocab_close(&v);
        return vocab;
}
