/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The obvious slow twin: a device that is an array of tokens for each block of each group, and a naive search. Every
 * slot also remembers the whole text before it, as a number: KV depends on what came before.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "cache/internal.h"

struct twin_slot {
        int32_t token;
        uint64_t history; /* of all tokens up to this one, and the uid */
};

/* A block of a state group. */
struct twin_state {
        uint32_t n_tokens;
        uint64_t history; /* of all of them, and the uid */
};

struct twin {
        uint32_t n_groups;
        uint32_t n_blocks[WARM_PLAN_GROUPS_MAX];
        struct twin_slot (*slots[WARM_PLAN_GROUPS_MAX])[WARM_BLOCK_TOKENS];
        struct twin_state *states[WARM_PLAN_GROUPS_MAX];
};

struct twin *twin_new(const struct warm_cache_config *config);
void twin_free(struct twin *t);

/* Run a sequence's copies, write n slots, move its states on. */
void twin_step(struct twin *t, const struct warm_cache_sequence *s, const int32_t *tokens,
               uint32_t n);
/* Every slot that the sequence may read holds its token after its history; its states are those after its tokens. */
void twin_verify(const struct twin *t, const struct warm_cache_sequence *s);

/* Sum of a block's bytes, as a backend would tell. */
uint64_t twin_sum(const struct twin *t, uint32_t group, uint32_t block);
/* Every sum that a record has is that of its block now. */
void twin_verify_sums(const struct twin *t, const struct warm_cache *c);

/* The longest prefix, at most n - 1 tokens, by walking all live records of one uid; plain groups only. */
uint32_t twin_longest(const struct warm_cache *c, uid_t uid, const int32_t *tokens, uint32_t n);
/* The longest prefix that has a snapshot in group g, at most n - 1 tokens, by walking all snapshots of one uid. */
uint32_t twin_longest_snapshot(const struct warm_cache *c, uid_t uid, const int32_t *tokens,
                               uint32_t n, uint32_t g);
