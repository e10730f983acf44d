/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash index: 64-bit key to block ref. Open addressing, linear probing, deletion by shifting back: no
 * tombstones, so it never slows down with age. Its size is fixed at start: at most about 2/3 full.
 *
 * It only proposes: equal keys may stand in it several times, and whoever asks compares the tokens.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct warm_index_slot {
        uint32_t tag; /* low 32 bits of the key: the home slot, and a first comparison */
        uint32_t ref; /* UINT32_MAX: empty */
};

struct warm_index {
        struct warm_index_slot *slots; /* [mask + 1] */
        uint32_t mask;
        uint32_t n;
};

/* @param n_max entries it will ever hold. Return: 0; -ENOMEM. */
int warm_index_init(struct warm_index *x, uint32_t n_max);
void warm_index_deinit(struct warm_index *x);

void warm_index_insert(struct warm_index *x, uint64_t key, uint32_t ref);
/* Return: whether it was there. */
bool warm_index_remove(struct warm_index *x, uint64_t key, uint32_t ref);

static inline void warm_index_prefetch(const struct warm_index *x, uint64_t key) {
        __builtin_prefetch(&x->slots[(uint32_t) key & x->mask]);
}

/*
 * Walk the refs stored under a key: start with *at = UINT32_MAX, ask until UINT32_MAX comes back.
 */
static inline uint32_t warm_index_next(const struct warm_index *x, uint64_t key, uint32_t *at) {
        uint32_t i = *at == UINT32_MAX ? (uint32_t) key & x->mask : (*at + 1) & x->mask;

        for (; x->slots[i].ref != UINT32_MAX; i = (i + 1) & x->mask)
                if (x->slots[i].tag == (uint32_t) key)
                        break;
        *at = i;
        return x->slots[i].ref;
}
