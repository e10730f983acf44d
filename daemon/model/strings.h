/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Byte strings by number, and the numbers of those that were indexed: one arena, one open-addressed table of
 * (hash, number). Grows only while it is filled. Owned by its embedder, one thread until it is full.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WARM_STRINGS_NONE      UINT32_MAX
#define WARM_STRINGS_BYTES_MAX (1U << 28) /* offsets are 32 bits; no real vocabulary comes near */

struct warm_strings {
        char *bytes;
        uint32_t *at;    /* [n + 1] */
        uint64_t *slots; /* hash << 32 | number + 1; 0: free */
        uint32_t n, n_max, n_slots, n_indexed;
        uint64_t n_bytes, n_bytes_max;
};

/* @param n_hint, n_bytes_hint what to expect. Return: 0; -ENOMEM. */
int warm_strings_init(struct warm_strings *s, uint32_t n_hint, uint64_t n_bytes_hint);
void warm_strings_deinit(struct warm_strings *s);

/*
 * Add a string under the next number, not to be found.
 * Return: 0; -ENOMEM; -E2BIG: more than WARM_STRINGS_BYTES_MAX.
 */
int warm_strings_add(struct warm_strings *s, const void *data, size_t n);

/*
 * The number of an indexed string, which is added if it is new: then the number is what s->n was.
 * Return: as warm_strings_add().
 */
int warm_strings_intern(struct warm_strings *s, const void *data, size_t n, uint32_t *ret_number);

/* The number of an indexed string, or WARM_STRINGS_NONE. */
uint32_t warm_strings_find(const struct warm_strings *s, const void *data, size_t n);

static inline const char *warm_strings_get(const struct warm_strings *s, uint32_t i,
                                           size_t *ret_n) {
        *ret_n = s->at[i + 1] - s->at[i];
        return s->bytes + s->at[i];
}

uint64_t warm_strings_memory_bytes(const struct warm_strings *s);
