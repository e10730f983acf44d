/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tiny model for tests: 256 bytes, a few merges, marks. No weights.
 */
#pragma once

#include "model/model.h"

enum {
        TINY_BYTES = 0, /* .. 255 */
        TINY_MERGED = 256,
        TINY_END = 300,
        TINY_PRE,
        TINY_SUF,
        TINY_MID,
        TINY_REPO,
        TINY_SEP,
        TINY_BOS,
        TINY_SEED_SUF, /* Seed-Coder's names */
        TINY_SEED_MID,
        TINY_TOKENS,
};

/* Fails the test on errors. bos: in front of every prompt. */
void tiny_init(struct warm_model *m, uint32_t n_context, bool bos);
/*
 * The same in SentencePiece: byte tokens, a few pieces, BOS in front, the same marks.
 * @param space_prefix a space goes before the start of text
 */
void tiny_init_spm(struct warm_model *m, uint32_t n_context, bool space_prefix);
void tiny_deinit(struct warm_model *m);

/* All tokens as text, control tokens by a letter in brackets: "[P]". malloc'd, terminated. */
char *tiny_spell(const struct warm_model *m, const int32_t *ids, size_t n_ids, size_t *ret_n);
