/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary of a GGUF file for tests, without the model loader: so that a pre-tokenizer's name can be replaced,
 * and a fault in one is no fault in the other. Trusts the file. Aborts on any error.
 */
#pragma once

#include "model/vocab.h"

struct read_vocab {
        struct warm_vocab_config config; /* borrows from the buffers below */
        char *file;
        size_t n_file;
        struct warm_string *tokens, *merges;
        int32_t *kinds;
        float *scores;
};

/* The path of a file of this source tree, in a static buffer. */
const char *source_path(const char *path);

void read_vocab_open(struct read_vocab *r, const char *path);
void read_vocab_close(struct read_vocab *r);

/* Open, replace the pre-tokenizer (NULL: as in the file), make. */
struct warm_vocab *read_vocab(const char *path, const char *pre);
