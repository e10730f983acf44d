/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary of a GGUF file for tests, without the model around it: so that a pre-tokenizer's name and single
 * tokens can be replaced. Aborts on any error.
 */
#pragma once

#include "model/tokens.h"
#include "model/vocab.h"

#define NANO "models/warm-nano-q8_0.gguf" /* from the root of the tree */

/* Every pre-tokenizer that a family of ours names. */
#define N_PRES 7U
extern const char *const pres[N_PRES];

struct read_vocab {
        struct warm_gguf *file;
        struct warm_tokens tokens; /* borrows from the file; its arrays may be changed */
};

/* The path of a file of this source tree, in a static buffer. */
const char *source_path(const char *path);

void read_vocab_open(struct read_vocab *r, const char *path);
void read_vocab_close(struct read_vocab *r);

/* Open, replace the pre-tokenizer (NULL: as in the file), make. */
struct warm_vocab *read_vocab(const char *path, const char *pre);

/* warm-nano's, with these texts as user tokens from 16,000 on. @param pre NULL: as in the file */
struct warm_vocab *read_vocab_with(const char *pre, const char *const *user, uint32_t n_user);
