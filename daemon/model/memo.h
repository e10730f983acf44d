/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last few tokenizations, so that a document that grew by one character costs one line and not 1,500 tokens.
 *
 * A memo never changes what comes out: a text is cut where a piece must start whatever stands left of it
 * (warm_vocab_may_cut), inside what it shares with a remembered text, and only what follows is tokenized.
 * tests/daemon/model/test-memo.c holds it against plain tokenizing.
 *
 * Thread: loop. Owned by its struct warm_model.
 */
#pragma once

#include "vocab.h"

/* Prefix and suffix of a few buffers, in psm the prefix in two parts (untuned guess). */
#define WARM_MEMO_TEXTS 8U
/* Longer texts are not remembered (untuned guess: a window of 16k tokens). */
#define WARM_MEMO_BYTES_MAX (48U << 10)

struct warm_memo;

/* Return: 0; -ENOMEM. */
int warm_memo_new(const struct warm_vocab *vocab, struct warm_memo **ret_memo);
struct warm_memo *warm_memo_free(struct warm_memo *m);

/* As warm_vocab_tokenize(), of the vocabulary that the memo was made for. */
int warm_memo_tokenize(struct warm_memo *m, const void *text, size_t n_text, unsigned flags,
                       int32_t *ids, size_t n_ids_max, size_t *ret_n_ids);
