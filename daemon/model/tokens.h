/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a GGUF file says of its vocabulary (tokenizer.ggml.*), as warm_vocab_new() wants it.
 * One owner; strings are borrowed from the file. Any thread.
 */
#pragma once

#include "gguf.h"
#include "vocab.h"

struct warm_tokens {
        struct warm_vocab_config config; /* its arrays are the ones below */
        struct warm_string *tokens;
        struct warm_string *merges;
        int32_t *kinds; /* [n_tokens] always there, so that marks can become control tokens */
        float *scores;
};

/*
 * Return: 0; -ENOMEM; -EBADMSG: a table is missing, of another length, or holds what it cannot; -EOPNOTSUPP: a
 * tokenizer that is not built, named.
 */
int warm_tokens_read(const struct warm_gguf *g, struct warm_tokens *ret_tokens, char **ret_why);
void warm_tokens_deinit(struct warm_tokens *t);

/*
 * A token id under `key`. Return: 0 and the id, or -1 where the key is absent or says "none" (negative, 2^32-1);
 * -EBADMSG: not within the vocabulary.
 */
int warm_tokens_get_id(const struct warm_gguf *g, const char *key, uint32_t n_tokens,
                       int32_t *ret_id, char **ret_why);
