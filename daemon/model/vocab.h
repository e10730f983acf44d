/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vocabulary: text to token ids and back, for byte-level BPE and SentencePiece (llama-spm) models.
 *
 * Text is bytes. Every byte string tokenizes, and detokenize(tokenize(x)) == x. Data is not control: names of
 * control tokens inside text are plain characters, unless the caller asks to parse them.
 *
 * Immutable once made: any thread may use it at any time. Owned by its struct warm_model.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WARM_VOCAB_TOKENS_MAX      (1U << 20)
#define WARM_VOCAB_TOKEN_BYTES_MAX 4096U
#define WARM_HEAL_BYTES_MAX        64U

struct warm_vocab;

enum warm_vocab_kind { WARM_VOCAB_BPE, WARM_VOCAB_SPM };

/* As tokenizer.ggml.token_type numbers them. */
enum warm_token_kind {
        WARM_TOKEN_NORMAL = 1,
        WARM_TOKEN_UNKNOWN = 2,
        WARM_TOKEN_CONTROL = 3,
        WARM_TOKEN_USER = 4, /* plain text that is never split */
        WARM_TOKEN_UNUSED = 5,
        WARM_TOKEN_BYTE = 6, /* SentencePiece's <0x0A> */
};

struct warm_string {
        const char *data; /* borrowed, not terminated */
        size_t n;
};

/* What a file says of its vocabulary; borrowed during warm_vocab_new() only. */
struct warm_vocab_config {
        enum warm_vocab_kind kind;
        struct warm_string pre; /* BPE: name of the pre-tokenizer, "qwen2", "llama-bpe", ... */
        const struct warm_string *tokens; /* [n_tokens], as the file spells them */
        const int32_t *kinds;             /* [n_tokens] enum warm_token_kind, or NULL: all normal */
        const float *scores;              /* SPM: [n_tokens] */
        const struct warm_string *merges; /* BPE: [n_merges] "left right", by rank */
        uint32_t n_tokens;
        uint32_t n_merges;
        int32_t bos, eos, unknown; /* -1: none */
        bool add_bos;
        bool add_space_prefix; /* SPM: a space goes before the start of text */
};

/*
 * Make a vocabulary. Copies what it keeps.
 * @param ret_why on -EINVAL and -EOPNOTSUPP a malloc'd sentence; may be NULL
 * Return: 0; -ENOMEM; -EINVAL: the tables contradict each other; -EOPNOTSUPP: an unknown pre-tokenizer, named.
 */
int warm_vocab_new(const struct warm_vocab_config *config, struct warm_vocab **ret_vocab,
                   char **ret_why);
struct warm_vocab *warm_vocab_free(struct warm_vocab *v);

uint32_t warm_vocab_n_tokens(const struct warm_vocab *v);
uint64_t warm_vocab_memory_bytes(const struct warm_vocab *v);
int32_t warm_vocab_bos(const struct warm_vocab *v); /* -1 if the model wants none in front */
int32_t warm_vocab_eos(const struct warm_vocab *v);

enum {
        WARM_TOKENIZE_SPECIAL = 1 << 0, /* names of control tokens become those tokens */
        WARM_TOKENIZE_START = 1 << 1,   /* text starts a document: SPM's space prefix applies */
};

/*
 * Tokenize n_text bytes; no BOS is added.
 *
 * @param ids [n_ids_max], written up to the returned count
 * Return: 0 and *ret_n_ids; -ENOBUFS: more than n_ids_max (n_text ids always suffice, plus one with
 * WARM_TOKENIZE_START); -ENOMEM.
 * Source: the reference is llama.cpp's llama-tokenize --no-parse-special, token for token.
 */
int warm_vocab_tokenize(const struct warm_vocab *v, const void *text, size_t n_text, unsigned flags,
                        int32_t *ids, size_t n_ids_max, size_t *ret_n_ids);

/*
 * The bytes of one token as text; none for control tokens. Borrowed from the vocabulary.
 * SPM: the space prefix is a real space here; the caller that tokenized with WARM_TOKENIZE_START drops the first.
 */
struct warm_string warm_vocab_text(const struct warm_vocab *v, int32_t id);

/* The token's name as the file has it. */
struct warm_string warm_vocab_name(const struct warm_vocab *v, int32_t id);
enum warm_token_kind warm_vocab_kind_of(const struct warm_vocab *v, int32_t id);

/* The id of a control (or user) token by its exact name; -1 if there is none. */
int32_t warm_vocab_find(const struct warm_vocab *v, const char *name);

/*
 * Where the last pre-token of a text starts: what healing re-spells. At most WARM_HEAL_BYTES_MAX bytes back, never
 * inside a UTF-8 character; n_text if the text is empty. A trailing run of white space that the pre-tokenizer would
 * join with a following word counts as that piece.
 */
size_t warm_vocab_last_piece(const struct warm_vocab *v, const void *text, size_t n_text);

/*
 * Does a piece of byte-level BPE start before text[at], whatever stands further left? Looks at the bytes at - 1 and
 * at, no others, so that two texts that share both agree. Not for SentencePiece, which merges across.
 * @param at 1 .. length of the text - 1
 */
bool warm_vocab_may_cut(const struct warm_vocab *v, const void *text, size_t at);

/*
 * Mark in `bitmap` the tokens that may come next while n_bytes bytes remain to be spelled: a token that begins with
 * all of them, or one with which they begin. Control, unused and unknown tokens are never among them.
 *
 * @param bitmap [ceil(n_tokens / 64)], overwritten
 * Return: how many are allowed.
 */
uint32_t warm_vocab_allow(const struct warm_vocab *v, const void *bytes, size_t n_bytes,
                          uint64_t *bitmap);
