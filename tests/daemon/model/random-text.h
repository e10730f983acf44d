/* SPDX-License-Identifier: Apache-2.0 */
/* Seeded random texts of the shapes that tokenizers disagree about. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* xorshift64* (Vigna 2014); never 0. */
static inline uint64_t random_next(uint64_t *state) {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        return *state * UINT64_C(0x2545F4914F6CDD1D);
}

static inline uint32_t random_below(uint64_t *state, uint32_t n) {
        return (uint32_t) ((random_next(state) >> 32) * n >> 32);
}

/* The seed that WARM_SEED gives, else `otherwise`; printed, so that a failure can be had again. */
uint64_t random_seed(uint64_t otherwise);

/*
 * Fill text[n_max] with words, signs, numbers, white space, random code points and, if `bad`, bytes that are no UTF-8.
 * Return: the bytes written, at most n_max.
 */
size_t random_text(uint64_t *state, uint8_t *text, size_t n_max, bool bad);
