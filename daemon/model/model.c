/* SPDX-License-Identifier: Apache-2.0 */
/* See model.h: a GGUF file becomes a plan (arch.c), a vocabulary (tokens.c, vocab.c) and a prompt format (fim.c). */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arch.h"
#include "fim.h"
#include "gguf.h"
#include "memo.h"
#include "model.h"
#include "tokens.h"
#include "why.h"

#define MODEL_NAME_BYTES_MAX 64U

static_assert(WARM_GGUF_HASH_BYTES == WARM_FINGERPRINT_BYTES, "the content hash is a fingerprint");

/* The file's name without folders and ".gguf". */
static struct warm_string file_stem(const char *path) {
        const char *slash = strrchr(path, '/');
        const char *start = slash ? slash + 1 : path;
        size_t n = strlen(start);

        if (n > 5 && strcmp(start + n - 5, ".gguf") == 0)
                n -= 5;
        return (struct warm_string){ start, n };
}

/* A name to call a model by: lower case, and '-' for blanks and whatever else would need quoting. */
static char *make_name(struct warm_string from) {
        size_t n = from.n < MODEL_NAME_BYTES_MAX ? from.n : MODEL_NAME_BYTES_MAX;
        char *name = malloc(n + 1);

        if (!name)
                return NULL;
        for (size_t i = 0; i < n; i++) {
                char c = from.data[i];

                if (c >= 'A' && c <= 'Z')
                        c = (char) (c - 'A' + 'a');
                else if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                           (c != '\0' && strchr("-._:+", c))))
                        c = '-';
                name[i] = c;
        }
        name[n] = '\0';
        return name;
}

static int find_name(struct warm_model *m, const struct warm_model_options *options,
                     char **ret_why) {
        struct warm_string name = { 0 };
        int r;

        if (options && options->name) {
                m->name = strdup(options->name);
                return m->name ? 0 : -ENOMEM;
        }
        r = warm_gguf_get_string(m->gguf, "general.name", &name, ret_why);
        if (r < 0)
                return r;
        if (name.n == 0)
                name = file_stem(m->path);
        if (name.n == 0)
                name = (struct warm_string){ "model", 5 };
        m->name = make_name(name);
        return m->name ? 0 : -ENOMEM;
}

struct census {
        uint64_t n_parameters;
        uint64_t bytes[_WARM_TYPE_N];
};

static void count_tensor(struct warm_tensor *tensor, void *data) {
        struct census *census = data;

        census->n_parameters += tensor->n_cols * tensor->n_rows;
        census->bytes[tensor->type] += tensor->bytes;
}

/* Parameters, and the type that holds the most bytes. */
static int count_tensors(struct warm_model *m) {
        struct census census = { 0 };
        enum warm_type most = 0;

        warm_arch_each_tensor(&m->plan, count_tensor, &census);
        for (enum warm_type t = 1; t < _WARM_TYPE_N; t++)
                if (census.bytes[t] > census.bytes[most])
                        most = t;
        m->n_parameters = census.n_parameters;
        m->quantization = strdup(warm_type_info(most)->name);
        return m->quantization ? 0 : -ENOMEM;
}

/* To the vocabulary its tables are arguments; to us they are the file's. */
static int vocab_new(const struct warm_vocab_config *config, struct warm_vocab **ret_vocab,
                     char **ret_why) {
        int r = warm_vocab_new(config, ret_vocab, ret_why);

        return r == -EINVAL ? -EBADMSG : r;
}

static int make_vocab(struct warm_model *m, const struct warm_model_options *options,
                      char **ret_why) {
        struct warm_tokens tokens;
        int r = warm_tokens_read(m->gguf, &tokens, ret_why);

        if (r < 0)
                return r;
        if (tokens.config.n_tokens != m->plan.n_vocab)
                r = warm_why(ret_why, -EBADMSG,
                             "has %u tokens and an embedding of %u rows; the file is damaged",
                             tokens.config.n_tokens, m->plan.n_vocab);
        if (r == 0)
                r = warm_fim_find(m->gguf, options, &tokens, &m->format, ret_why);
        if (r == 0)
                r = vocab_new(&tokens.config, &m->vocab, ret_why);
        if (r == 0 && tokens.config.kind == WARM_VOCAB_BPE)
                r = warm_memo_new(m->vocab, &m->memo);
        warm_tokens_deinit(&tokens);
        return r;
}

static int fill_model(struct warm_model *m, const struct warm_model_options *options,
                      char **ret_why) {
        struct warm_string architecture = { 0 };
        int r = warm_arch_plan(m->gguf, &m->plan, ret_why);

        if (r == 0)
                r = warm_gguf_get_string(m->gguf, "general.architecture", &architecture, ret_why);
        if (r < 0)
                return r;
        m->architecture = strndup(architecture.data, architecture.n);
        if (!m->architecture)
                return -ENOMEM;
        m->file_bytes = warm_gguf_file_bytes(m->gguf);
        r = find_name(m, options, ret_why);
        if (r == 0)
                r = count_tensors(m);
        if (r == 0)
                r = make_vocab(m, options, ret_why);
        /* Last: it reads the whole file, and nothing of a file that is refused should be. */
        if (r == 0)
                r = warm_gguf_load_begin(m->gguf);
        m->unfinished = r == 0;
        return r;
}

/* Put the path before what the parts said. */
static void name_file(const char *path, char *why, char **ret_why) {
        if (ret_why && why)
                (void) warm_why(ret_why, 0, "%s: %s", path, why);
        free(why);
}

static int model_new(const char *path, const struct warm_model_options *options,
                     struct warm_gguf *gguf, struct warm_model **ret_model, char **ret_why) {
        struct warm_model *m = calloc(1, sizeof *m);
        int r = -ENOMEM;

        if (!m) {
                warm_gguf_free(gguf);
                return r;
        }
        m->gguf = gguf;
        m->path = strdup(path);
        if (m->path)
                r = fill_model(m, options, ret_why);
        if (r < 0) {
                warm_model_free(m);
                return r;
        }
        *ret_model = m;
        return 0;
}

int warm_model_begin(const char *path, const struct warm_model_options *options,
                     struct warm_model **ret_model, char **ret_why) {
        struct warm_gguf *gguf;
        char *why = NULL;
        int r = warm_gguf_open(path, &gguf, &why);

        if (r == 0)
                r = model_new(path, options, gguf, ret_model, &why);
        name_file(path, why, ret_why);
        return r;
}

bool warm_model_has_data(const struct warm_model *m) {
        return !m->unfinished || warm_gguf_is_mapped(m->gguf);
}

int warm_model_finish(struct warm_model *m, char **ret_why) {
        int r;

        if (!m->unfinished)
                return 0;
        r = warm_gguf_load(m->gguf, m->content_hash, ret_why);
        m->unfinished = r < 0;
        return r;
}

/* Return: as warm_model_open(); a model that fails is freed. */
static int finish(struct warm_model *m, struct warm_model **ret_model, char **ret_why) {
        char *why = NULL;
        int r = warm_model_finish(m, &why);

        name_file(m->path, why, ret_why);
        if (r < 0)
                warm_model_free(m);
        else
                *ret_model = m;
        return r;
}

int warm_model_open(const char *path, const struct warm_model_options *options,
                    struct warm_model **ret_model, char **ret_why) {
        struct warm_model *m;
        int r = warm_model_begin(path, options, &m, ret_why);

        return r < 0 ? r : finish(m, ret_model, ret_why);
}

int warm_model_open_bytes(const void *bytes, uint64_t n_bytes, const char *path,
                          const struct warm_model_options *options, struct warm_model **ret_model,
                          char **ret_why) {
        struct warm_model *m;
        struct warm_gguf *gguf;
        char *why = NULL;
        int r = warm_gguf_open_bytes(bytes, n_bytes, &gguf, &why);

        if (r == 0)
                r = model_new(path, options, gguf, &m, &why);
        name_file(path, why, ret_why);
        return r < 0 ? r : finish(m, ret_model, ret_why);
}

static void forget_data(struct warm_tensor *tensor, void *data) {
        (void) data;
        tensor->data = NULL;
}

void warm_model_drop_file(struct warm_model *m) {
        assert(!m->unfinished);
        warm_arch_each_tensor(&m->plan, forget_data, NULL);
        m->gguf = warm_gguf_free(m->gguf);
}

struct warm_model *warm_model_free(struct warm_model *m) {
        if (!m)
                return NULL;
        warm_memo_free(m->memo);
        warm_vocab_free(m->vocab);
        warm_arch_plan_deinit(&m->plan);
        warm_fim_deinit(&m->format);
        warm_gguf_free(m->gguf);
        free(m->name);
        free(m->path);
        free(m->architecture);
        free(m->quantization);
        free(m);
        return NULL;
}
