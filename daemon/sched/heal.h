/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Healing: the last piece before the cursor was left out of the prompt; the first sampled tokens must spell it.
 *
 * Embedded in a run. Thread: engine (init: loop).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "model/prompt.h"
#include "model/vocab.h"

struct warm_heal {
        const struct warm_prompt *prompt; /* borrowed: bytes and their own tokens */
        uint32_t n_spelled;               /* of prompt->heal */
};

static inline uint32_t warm_heal_left(const struct warm_heal *h) {
        return h->prompt->n_heal - h->n_spelled;
}

/* Mark what may come next; as warm_vocab_allow(). Return: how many tokens are allowed. */
uint32_t warm_heal_allow(const struct warm_heal *h, const struct warm_vocab *v, uint64_t *bitmap);

/*
 * A token with these bytes was taken: it spells some of what is left, or all of it and more.
 * The bytes must agree with what is left.
 */
void warm_heal_take(struct warm_heal *h, struct warm_string text);

/*
 * Where nothing is allowed: the piece's own tokens from the one that starts where the spelling stands.
 * Return: true and the index into prompt->heal_ids; false: no token of its own starts there.
 */
bool warm_heal_canonical(const struct warm_heal *h, const struct warm_vocab *v,
                         uint32_t *ret_first);
