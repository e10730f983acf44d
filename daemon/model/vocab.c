/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables of a vocabulary and what is asked of them. Merging is in bpe.c and spm.c, allowed tokens in allow.c.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unicode.h"
#include "vocab-private.h"

#define LOWER_ONE_EIGHTH_BLOCK "\xE2\x96\x81" /* U+2581, SentencePiece's space */

/*
 * Control tokens by their names, whatever kind a file gives them: many converted files call them user tokens, or say
 * nothing. (The reference overrides the kinds of these as well.) Their names inside text stay plain characters.
 */
static const char *const control_names[] = {
        "<|eot_id|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|begin_of_text|>",
        "<EOT>",
        "_<EOT>",
        "▁<EOT>",
        "[EOT]",
        "[EOS]",
        "<|eom_id|>",
        "</s>",
        "<eos>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_utterance>",
        "<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
        "[PREFIX]",
        "<[fim-prefix]>",
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
        "[SUFFIX]",
        "<[fim-suffix]>",
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
        "[MIDDLE]",
        "<[fim-middle]>",
        "<|fim_pad|>",
        "<fim-pad>",
        "<fim_pad>",
        "<PAD>",
        "[PAD]",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<fim-repo>",
        "<REPO>",
        "<reponame>",
        "<|file_sep|>",
        "<|file_separator|>",
        "<file_sep>",
        "<repo_name>",
};

int warm_vocab_wrong(char **ret_why, const char *format, ...) {
        va_list args;

        if (ret_why) {
                va_start(args, format);
                if (vasprintf(ret_why, format, args) < 0)
                        *ret_why = NULL;
                va_end(args);
        }
        return -EINVAL;
}

static bool is_control_name(struct warm_string name) {
        if (name.n < 3 || !strchr("<[_\xE2", name.data[0]))
                return false;
        for (size_t i = 0; i < sizeof control_names / sizeof *control_names; i++)
                if (strlen(control_names[i]) == name.n &&
                    memcmp(control_names[i], name.data, name.n) == 0)
                        return true;
        return false;
}

static int hex_of(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* <0x0A>: 10. -1: another name. */
static int byte_of_name(struct warm_string name) {
        int high, low;

        if (name.n != 6 || memcmp(name.data, "<0x", 3) != 0 || name.data[5] != '>')
                return -1;
        high = hex_of(name.data[3]);
        low = hex_of(name.data[4]);
        return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static int kind_of_token(const struct warm_vocab_config *c, uint32_t id, uint8_t *ret_kind,
                         char **ret_why) {
        int32_t kind = c->kinds ? c->kinds[id] : WARM_TOKEN_NORMAL;
        struct warm_string name = c->tokens[id];

        if (kind < 0 || kind > WARM_TOKEN_BYTE)
                return warm_vocab_wrong(ret_why, "token %u is of the unknown kind %d", id, kind);
        if (kind == 0) /* undefined */
                kind = WARM_TOKEN_UNUSED;
        if (!c->kinds) {
                if ((int32_t) id == c->unknown)
                        kind = WARM_TOKEN_UNKNOWN;
                else if ((int32_t) id == c->bos || (int32_t) id == c->eos)
                        kind = WARM_TOKEN_CONTROL;
                else if (c->kind == WARM_VOCAB_SPM && byte_of_name(name) >= 0)
                        kind = WARM_TOKEN_BYTE;
        }
        if (kind == WARM_TOKEN_BYTE && byte_of_name(name) < 0)
                return warm_vocab_wrong(ret_why, "byte token %u is not named <0x00> to <0xFF>", id);
        if ((kind == WARM_TOKEN_NORMAL || kind == WARM_TOKEN_USER) && is_control_name(name))
                kind = WARM_TOKEN_CONTROL;
        *ret_kind = (uint8_t) kind;
        return 0;
}

/* U+2581 to spaces. Return: the bytes written, at most name.n. */
static size_t unescape_spaces(struct warm_string name, uint8_t *ret_text) {
        size_t n = 0;

        for (size_t at = 0; at < name.n;) {
                if (name.n - at >= 3 && memcmp(name.data + at, LOWER_ONE_EIGHTH_BLOCK, 3) == 0) {
                        ret_text[n++] = ' ';
                        at += 3;
                } else
                        ret_text[n++] = (uint8_t) name.data[at++];
        }
        return n;
}

/*
 * What a token spells.
 * @param ret_text [WARM_VOCAB_TOKEN_BYTES_MAX]
 * @param ret_merged may merging come to it?
 */
static size_t spell(const struct warm_vocab *v, uint32_t id, struct warm_string name,
                    uint8_t *ret_text, bool *ret_merged) {
        int n;

        *ret_merged = false;
        switch (v->kinds[id]) {
        case WARM_TOKEN_CONTROL:
        case WARM_TOKEN_UNKNOWN:
                return 0;
        case WARM_TOKEN_BYTE:
                ret_text[0] = (uint8_t) byte_of_name(name);
                return 1;
        case WARM_TOKEN_USER:
                if (v->kind == WARM_VOCAB_BPE ||
                    !memmem(name.data, name.n, LOWER_ONE_EIGHTH_BLOCK, 3))
                        break;
                /* fall through */
        default:
                if (v->kind == WARM_VOCAB_SPM) {
                        *ret_merged = name.n > 0 && !memchr(name.data, ' ', name.n);
                        return unescape_spaces(name, ret_text);
                }
                n = warm_bpe_unspell(name.data, name.n, ret_text);
                *ret_merged = n > 0;
                if (n >= 0)
                        return (size_t) n;
        }
        memcpy(ret_text, name.data, name.n);
        return name.n;
}

static int add_tokens(struct warm_vocab *v, const struct warm_vocab_config *c, char **ret_why) {
        uint8_t text[WARM_VOCAB_TOKEN_BYTES_MAX];
        uint32_t number;
        bool merged;
        size_t n;
        int r;

        for (uint32_t id = 0; id < c->n_tokens; id++) {
                struct warm_string name = c->tokens[id];

                if (name.n > WARM_VOCAB_TOKEN_BYTES_MAX)
                        return warm_vocab_wrong(ret_why, "token %u is longer than %u bytes", id,
                                                WARM_VOCAB_TOKEN_BYTES_MAX);
                r = kind_of_token(c, id, v->kinds + id, ret_why);
                if (r < 0)
                        return r;
                n = spell(v, id, name, text, &merged);
                number = id;
                r = warm_strings_add(&v->names, name.data, name.n);
                if (r == 0)
                        r = merged ? warm_strings_intern(&v->text, text, n, &number)
                                   : warm_strings_add(&v->text, text, n);
                if (r == 0 && number != id)
                        return warm_vocab_wrong(ret_why, "tokens %u and %u have the same name",
                                                number, id);
                if (r == -E2BIG)
                        return warm_vocab_wrong(ret_why, "the tokens' names are too long together");
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Is this token found in text before anything is merged? */
static bool is_special(const struct warm_vocab *v, uint32_t id, bool control) {
        size_t n_name, n_text;
        const char *name = warm_strings_get(&v->names, id, &n_name);
        const char *text = warm_strings_get(&v->text, id, &n_text);

        if (n_name == 0)
                return false;
        if (v->kinds[id] == WARM_TOKEN_USER)
                return n_text == n_name && memcmp(text, name, n_name) == 0;
        return control &&
               (v->kinds[id] == WARM_TOKEN_CONTROL || v->kinds[id] == WARM_TOKEN_UNKNOWN);
}

static int make_special(const struct warm_vocab *v, bool control, struct warm_special_set *set,
                        char **ret_why) {
        struct warm_special *tokens;
        uint32_t n = 0;
        int r;

        for (uint32_t id = 0; id < v->n_tokens; id++)
                n += is_special(v, id, control);
        tokens = malloc((n + 1) * sizeof *tokens);
        if (!tokens)
                return -ENOMEM;
        n = 0;
        for (uint32_t id = 0; id < v->n_tokens; id++)
                if (is_special(v, id, control))
                        tokens[n++] = (struct warm_special){ warm_vocab_name(v, (int32_t) id),
                                                             (int32_t) id };
        r = warm_special_set_init(set, tokens, n);
        return r == -EEXIST ? warm_vocab_wrong(ret_why, "two control tokens have the same name")
                            : r;
}

static int check(const struct warm_vocab_config *c, char **ret_why) {
        const int32_t ids[] = { c->bos, c->eos, c->unknown };

        if (c->n_tokens == 0 || c->n_tokens > WARM_VOCAB_TOKENS_MAX)
                return warm_vocab_wrong(ret_why, "%u tokens; 1 to %u are possible", c->n_tokens,
                                        WARM_VOCAB_TOKENS_MAX);
        if (c->n_merges > 4 * WARM_VOCAB_TOKENS_MAX)
                return warm_vocab_wrong(ret_why, "%u merges; at most %u are possible", c->n_merges,
                                        4 * WARM_VOCAB_TOKENS_MAX);
        for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
                if (ids[i] < -1 || (ids[i] >= 0 && (uint32_t) ids[i] >= c->n_tokens))
                        return warm_vocab_wrong(ret_why,
                                                "the special token %d is none of the %u tokens",
                                                ids[i], c->n_tokens);
        return 0;
}

static int find_rules(struct warm_vocab *v, struct warm_string pre, char **ret_why) {
        if (v->kind == WARM_VOCAB_SPM)
                pre = (struct warm_string){ "qwen2", 5 };
        v->pre = warm_pretokenizer_find(pre.data ? pre.data : "", pre.n);
        if (v->pre)
                return 0;
        (void) warm_vocab_wrong(ret_why, "the pre-tokenizer \"%.*s\" is not built",
                                pre.n > 64 ? 64 : (int) pre.n, pre.data ? pre.data : "");
        return -EOPNOTSUPP;
}

static int fill(struct warm_vocab *v, const struct warm_vocab_config *c, char **ret_why) {
        uint64_t n_bytes = 0;
        uint32_t n_strings = c->n_tokens + (v->kind == WARM_VOCAB_BPE ? 256 : 0);
        int r;

        for (uint32_t id = 0; id < c->n_tokens; id++)
                n_bytes += c->tokens[id].n;
        if (n_bytes > WARM_STRINGS_BYTES_MAX)
                return warm_vocab_wrong(ret_why, "the tokens' names are too long together");
        v->kinds = malloc(c->n_tokens);
        if (!v->kinds)
                return -ENOMEM;
        r = warm_strings_init(&v->text, n_strings, n_bytes);
        if (r == 0)
                r = warm_strings_init(&v->names, c->n_tokens, n_bytes);
        if (r == 0)
                r = add_tokens(v, c, ret_why);
        if (r == 0)
                r = v->kind == WARM_VOCAB_BPE ? warm_bpe_init(v, c, ret_why)
                                              : warm_spm_init(v, c, ret_why);
        if (r == 0)
                r = make_special(v, false, &v->user, ret_why);
        if (r == 0)
                r = make_special(v, true, &v->special, ret_why);
        if (r == 0)
                r = warm_allow_init(v);
        return r;
}

int warm_vocab_new(const struct warm_vocab_config *c, struct warm_vocab **ret_vocab,
                   char **ret_why) {
        struct warm_vocab *v;
        int r;

        assert(c->kind == WARM_VOCAB_BPE || c->kind == WARM_VOCAB_SPM);
        r = check(c, ret_why);
        if (r < 0)
                return r;
        v = calloc(1, sizeof *v);
        if (!v)
                return -ENOMEM;
        v->kind = c->kind;
        v->n_tokens = c->n_tokens;
        v->bos = c->bos;
        v->eos = c->eos;
        v->unknown = c->unknown;
        v->add_bos = c->add_bos;
        v->add_space_prefix = c->kind == WARM_VOCAB_SPM && c->add_space_prefix;
        r = find_rules(v, c->pre, ret_why);
        if (r == 0)
                r = fill(v, c, ret_why);
        if (r < 0) {
                warm_vocab_free(v);
                return r;
        }
        *ret_vocab = v;
        return 0;
}

struct warm_vocab *warm_vocab_free(struct warm_vocab *v) {
        if (!v)
                return NULL;
        warm_special_set_deinit(&v->user);
        warm_special_set_deinit(&v->special);
        warm_strings_deinit(&v->text);
        warm_strings_deinit(&v->names);
        warm_allow_deinit(v);
        free(v->kinds);
        free(v->merges);
        free(v->whole);
        free(v->priority);
        free(v->joins);
        free(v);
        return NULL;
}

uint32_t warm_vocab_n_tokens(const struct warm_vocab *v) {
        return v->n_tokens;
}

uint64_t warm_vocab_memory_bytes(const struct warm_vocab *v) {
        uint64_t n = sizeof *v + v->n_tokens + warm_strings_memory_bytes(&v->text) +
                     warm_strings_memory_bytes(&v->names) + warm_allow_memory_bytes(v);

        n += (uint64_t) (v->user.n + v->special.n) * sizeof *v->user.tokens;
        n += (uint64_t) v->n_slots * sizeof *v->merges;
        n += v->whole ? v->n_tokens : 0;
        n += v->priority ? v->n_tokens * sizeof *v->priority : 0;
        return n;
}

int32_t warm_vocab_bos(const struct warm_vocab *v) {
        return v->add_bos ? v->bos : -1;
}

int32_t warm_vocab_eos(const struct warm_vocab *v) {
        return v->eos;
}

struct warm_string warm_vocab_text(const struct warm_vocab *v, int32_t id) {
        struct warm_string s;

        assert(id >= 0 && (uint32_t) id < v->n_tokens);
        s.data = warm_strings_get(&v->text, (uint32_t) id, &s.n);
        return s;
}

struct warm_string warm_vocab_name(const struct warm_vocab *v, int32_t id) {
        struct warm_string s;

        assert(id >= 0 && (uint32_t) id < v->n_tokens);
        s.data = warm_strings_get(&v->names, (uint32_t) id, &s.n);
        return s;
}

enum warm_token_kind warm_vocab_kind_of(const struct warm_vocab *v, int32_t id) {
        assert(id >= 0 && (uint32_t) id < v->n_tokens);
        return (enum warm_token_kind) v->kinds[id];
}

int32_t warm_vocab_find(const struct warm_vocab *v, const char *name) {
        int32_t id = warm_special_find(&v->special, name, strlen(name));

        return id >= 0 && v->kinds[id] == WARM_TOKEN_UNKNOWN ? -1 : id;
}

int warm_encoder_reserve(struct warm_encoder *e, size_t n) {
        if (n <= e->space.n_max)
                return 0;
        warm_merge_space_deinit(&e->space);
        return warm_merge_space_init(&e->space, n < 256 ? 256 : n);
}

int warm_encoder_bytes(struct warm_encoder *e, const uint8_t *text, size_t n) {
        const struct warm_vocab *v = e->vocab;
        int r = 0;

        for (size_t i = 0; i < n && r == 0; i++) {
                int32_t id = v->byte_token[text[i]];

                if (id < 0 && v->kind == WARM_VOCAB_SPM && v->unknown >= 0 &&
                    v->kinds[v->unknown] == WARM_TOKEN_UNKNOWN)
                        id = v->unknown;
                if (id >= 0)
                        r = warm_token_put(&e->out, (uint32_t) id);
        }
        return r;
}

static int encode_part(void *context, const uint8_t *text, size_t at, size_t end, int32_t id) {
        struct warm_encoder *e = context;

        if (id >= 0)
                return warm_token_put(&e->out, (uint32_t) id);
        return e->vocab->kind == WARM_VOCAB_BPE ? warm_bpe_encode(e, text + at, end - at)
                                                : warm_spm_encode(e, text + at, end - at);
}

int warm_vocab_tokenize(const struct warm_vocab *v, const void *text, size_t n_text, unsigned flags,
                        int32_t *ids, size_t n_ids_max, size_t *ret_n_ids) {
        struct warm_encoder e = { .vocab = v, .out = { ids, 0, n_ids_max } };
        const struct warm_special_set *set = flags & WARM_TOKENIZE_SPECIAL ? &v->special : &v->user;
        uint8_t *prefixed = NULL;
        int r;

        if (n_text && flags & WARM_TOKENIZE_START && v->add_space_prefix) {
                prefixed = malloc(n_text + 1);
                if (!prefixed)
                        return -ENOMEM;
                prefixed[0] = ' ';
                memcpy(prefixed + 1, text, n_text++);
        }
        r = warm_special_split(set, prefixed ? prefixed : text, n_text, encode_part, &e);
        free(prefixed);
        warm_merge_space_deinit(&e.space);
        if (r == 0)
                *ret_n_ids = e.out.n;
        return r;
}
