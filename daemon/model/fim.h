/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The prompt format of a model: its fill-in-the-middle marks, the orders it was trained in, and what ends a text.
 *
 * Each mark comes from the options; else from the metadata (tokenizer.ggml.fim_*_token_id, and their older names); else from
 * the well-known names of its family. Orders come from the options, warm.fim.orders, the family, in that order; an
 * order whose marks are missing is not offered. spm-joint is preferred where there is a choice.
 *
 * Pure functions, any thread.
 */
#pragma once

#include "gguf.h"
#include "model.h"
#include "tokens.h"

#define WARM_FIM_ENDS_MAX 48U

/*
 * Find the format. Marks that the file calls plain text become control tokens in tokens->kinds: so that their names
 * inside a document stay text, and so that they never show.
 *
 * @param ret_format its `ends` is malloc'd, freed by warm_fim_deinit()
 * Return: 0; -ENOMEM; -EBADMSG: a key is of the wrong type or an id outside the vocabulary; -EINVAL: an option names
 * a token or an order that the model does not have.
 */
int warm_fim_find(const struct warm_gguf *g, const struct warm_model_options *options,
                  struct warm_tokens *tokens, struct warm_prompt_format *ret_format,
                  char **ret_why);
void warm_fim_deinit(struct warm_prompt_format *format);

/* "none", "psm", "spm-joint". */
const char *warm_order_name(enum warm_order order);
