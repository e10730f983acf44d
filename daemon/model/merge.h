/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Merge neighbours, best pair first, until none is left: the loop that BPE and SentencePiece share.
 *
 * Symbols are a linked list in an array, candidates a binary heap keyed by (priority, position), so equal priorities
 * merge from the left and n symbols take n log n steps whatever the text. A candidate whose symbols have changed
 * since is skipped when it comes up. The caller owns the space.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WARM_MERGE_NONE UINT32_MAX

struct warm_merge_symbol {
        uint32_t at, n; /* bytes of the text; n = 0: merged into its left neighbour */
        uint32_t prev, next;
        uint32_t id; /* the caller's */
};

struct warm_merge_candidate {
        uint64_t key; /* priority << 32 | left symbol; lowest first */
        uint32_t n;   /* bytes of both symbols when it was found */
        uint32_t id;  /* what they become */
};

struct warm_merge_space {
        struct warm_merge_symbol *symbols;       /* [n_max] */
        struct warm_merge_candidate *candidates; /* [2 * n_max] */
        uint32_t n_symbols, n_candidates, n_max;
};

/*
 * May these two neighbours merge?
 * @param ret_priority lower goes first; ret_id what they become
 */
typedef bool (*warm_merge_fn)(const void *context, const struct warm_merge_symbol *left,
                              const struct warm_merge_symbol *right, uint32_t *ret_priority,
                              uint32_t *ret_id);

/*
 * Merge what `n_symbols` symbols (at, n and id set by the caller) hold. Afterwards symbol 0 is the first of the list,
 * `next` leads on to WARM_MERGE_NONE.
 */
void warm_merge_run(struct warm_merge_space *space, warm_merge_fn may_merge, const void *context);

/* Room for n_max symbols. Return: 0; -ENOMEM. */
int warm_merge_space_init(struct warm_merge_space *space, size_t n_max);
void warm_merge_space_deinit(struct warm_merge_space *space);
