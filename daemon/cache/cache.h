/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The prefix cache of one model: which blocks of KV hold which tokens, for whom, and what a new prompt may reuse.
 *
 * Entries form a tree: an entry is 32 tokens (the tail: fewer) under the (block, generation) of its parent. A lookup
 * walks from the root; each step compares the tokens AND that the entry's parent is the block and generation just
 * matched, so a hit is exact by induction and a hash collision cannot serve foreign KV. The hash of block i is
 * XXH3_128(hash of block i-1 || its tokens), seeded per (uid, fingerprint) with a secret drawn at each start.
 *
 * `n_ready` tokens of a block are immutable. The sole owner may append; whoever else goes on from there takes a copy
 * (warm_cache_sequence.copies, to run before the rows of its first step). Block records lie in one flat array in a
 * memfd without pointers (daemon/cache/record.h has the byte table); children, hashes and LRU are rebuilt from it.
 *
 * Thread: engine. Steps: warm_cache_open -> { warm_cache_begin, the device computes, warm_cache_commit }* ->
 * warm_cache_close.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernels/backend.h"

struct warm_cache;

enum {
        WARM_CACHE_E_FULL = 1, /* no room even after evicting all that may be evicted */
        WARM_CACHE_E_BUSY,     /* blocks in use by a running sequence */
        WARM_CACHE_E_FOREIGN,  /* not the records of a cache with this configuration */
};

enum warm_miss {
        WARM_MISS_NONE,      /* all but the last token came from the cache */
        WARM_MISS_NEW,       /* nothing of this uid under this model */
        WARM_MISS_DIFFERENT, /* a token differs from what is cached, at `at` */
        WARM_MISS_SHORTER,   /* the cached text ends at `at` */
        WARM_MISS_EVICTED,   /* it was here, and had to go */
        WARM_MISS_MODEL,     /* cached under another model only */
        WARM_MISS_GROUP,     /* a window or state group cannot resume at a longer length */
        _WARM_MISS_N,
};

/* "none", "new", "different", ...: as the wire spells them. */
const char *warm_miss_name(enum warm_miss m);

struct warm_cache_config {
        uint32_t n_groups;
        struct warm_plan_group groups[WARM_PLAN_GROUPS_MAX];
        uint32_t n_blocks_max
                [WARM_PLAN_GROUPS_MAX]; /* highest block number + 1 that may ever be added */
        uint32_t
                min_share_blocks; /* of each uid: never evicted for another uid's sake (untuned guess) */
        uint8_t fingerprint[16]; /* tensors + plan + tokenizer + KV type + layout + numerics */
};

struct warm_cache_hit {
        uint32_t n_tokens;   /* of the prompt, from the cache */
        enum warm_miss miss; /* why not more */
        uint32_t at;         /* the first token that did not come from it */
};

/*
 * A running sequence. Fields are the cache's; the engine reads.
 * blocks[g] is its block table, large enough for the tokens admitted; n_tokens are computed and recorded;
 * copies must run before the first rows. Of a state group blocks[g][0] takes the state that the next step leaves, and
 * state_in[g] is where that step finds the state after n_tokens: the same block, a snapshot, or WARM_STATE_NONE at 0.
 */
struct warm_cache_sequence {
        struct warm_cache *cache;
        uid_t uid;
        uint32_t n_tokens;
        uint32_t n_tokens_max;
        uint32_t n_blocks;
        uint32_t *blocks[WARM_PLAN_GROUPS_MAX];
        struct warm_block_copy copies[WARM_PLAN_GROUPS_MAX * 2];
        uint32_t n_copies;
        uint32_t state_in[WARM_PLAN_GROUPS_MAX];
        int32_t *tokens; /* [n_tokens] */
};

struct warm_cache_stats {
        uint64_t n_blocks; /* added */
        uint64_t n_free;
        uint64_t n_cached; /* hold tokens, nobody runs on them */
        uint64_t n_pinned;
        uint64_t n_sequences;
        uint64_t n_lookups, n_hit_tokens, n_prompt_tokens, n_evicted;
        uint64_t n_by_miss[_WARM_MISS_N];
        uint64_t n_snapshots; /* of state groups: there now */
        uint64_t n_snapshots_taken, n_snapshots_evicted;
        uint64_t memory_bytes; /* records, hashes, tables */
};

/* Return: 0; -EINVAL (no group that is not a state group, or counts); -ENOMEM; -errno of memfd_create, getrandom. */
int warm_cache_new(const struct warm_cache_config *config, struct warm_cache **ret_cache);

/*
 * Go on with the records an earlier process left: adopt, then warm_cache_add_blocks for every block whose memory was
 * adopted too and whose sum was proven, then warm_cache_rebuild; nothing else in between. What the records say
 * is not trusted: whatever does not fit is dropped.
 *
 * @param records_fd of warm_cache_records_fd; the cache's on success
 * Return: 0; WARM_CACHE_E_FOREIGN; else as warm_cache_new.
 */
int warm_cache_adopt(const struct warm_cache_config *config, int records_fd,
                     struct warm_cache **ret_cache);
/* Return: blocks kept. */
uint32_t warm_cache_rebuild(struct warm_cache *c);
/* For the fd store. Borrowed. */
int warm_cache_records_fd(const struct warm_cache *c);

/* No sequence may be open. Takes NULL, returns NULL. */
struct warm_cache *warm_cache_free(struct warm_cache *c);

/* Blocks first .. first + n - 1 of a group now have memory. Return: 0; -ERANGE; -EEXIST (nothing changed). */
int warm_cache_add_blocks(struct warm_cache *c, uint32_t group, uint32_t first, uint32_t n);
/* Evict what is in these blocks and forget them. Return: 0; WARM_CACHE_E_BUSY, -ERANGE, -ENOENT (nothing changed). */
int warm_cache_remove_blocks(struct warm_cache *c, uint32_t group, uint32_t first, uint32_t n);

/* What a prompt would hit. Changes no LRU and no statistics. n_tokens >= 1; at most n_tokens - 1 are hit. */
void warm_cache_lookup(const struct warm_cache *c, uid_t uid, const int32_t *tokens,
                       uint32_t n_tokens, struct warm_cache_hit *ret_hit);

/* Whether anything of this uid is cached: tells WARM_MISS_MODEL from WARM_MISS_NEW across caches. */
bool warm_cache_holds(const struct warm_cache *c, uid_t uid);

/*
 * Admit a sequence: find its prefix, pin it, copy a half-filled tail, reserve blocks for n_tokens_max tokens.
 * Afterwards sequence->n_tokens == hit.n_tokens. On failure nothing has changed.
 *
 * @param n_tokens 1 .. n_tokens_max
 * Return: 0; WARM_CACHE_E_FULL; -ENOMEM.
 */
int warm_cache_open(struct warm_cache *c, uid_t uid, const int32_t *tokens, uint32_t n_tokens,
                    uint32_t n_tokens_max, struct warm_cache_sequence **ret_sequence,
                    struct warm_cache_hit *ret_hit);

/*
 * The same from a running sequence: share its first n_tokens (<= source->n_tokens), go on alone. Afterwards
 * (*ret_sequence)->n_tokens <= n_tokens: less if a window or state group cannot resume there, or if there is no room
 * to copy the last part into.
 *
 * Return: 0; WARM_CACHE_E_FULL; -ENOMEM.
 */
int warm_cache_fork(struct warm_cache_sequence *source, uint32_t n_tokens, uint32_t n_tokens_max,
                    struct warm_cache_sequence **ret_sequence);

/* The next n slots are about to be written by the device: WRITING is stored before the submit. */
void warm_cache_begin(struct warm_cache_sequence *s, uint32_t n);
/*
 * They were written: tokens become part of the sequence and may be shared from now on. copies count as run.
 * blocks[] may change: what somebody else computed meanwhile is shared from now on.
 * @param n <= what begin announced; 0 if only the copies ran. Less: a state that moved on has no way back but to the
 * last snapshot, so with a state group s->n_tokens shrinks to it, and the caller goes on from there.
 */
void warm_cache_commit(struct warm_cache_sequence *s, const int32_t *tokens, uint32_t n);
/*
 * Keep the state as it is now: whoever comes with these n_tokens can go on from here. The state's block becomes the
 * snapshot and the next step leaves its state in another one: nothing is copied. Between steps, where n_tokens is a
 * whole number of blocks and not 0. Does nothing without state groups, and where there is a snapshot already. It may
 * evict: take it while a prompt is computed, not on the decode path.
 *
 * Return: 0; WARM_CACHE_E_FULL: no block for it (nothing has changed).
 */
int warm_cache_snapshot(struct warm_cache_sequence *s);
/*
 * The step failed or was rejected: keep the first n_tokens only. Blocks that others use stay theirs: the sequence goes
 * on in a copy, and copies are to be run again. If the pool has no block for it, n_tokens_max shrinks, and
 * n_tokens to a whole number of blocks; n_tokens also shrinks to where every group can resume. The caller
 * goes on from s->n_tokens.
 */
void warm_cache_rollback(struct warm_cache_sequence *s, uint32_t n_tokens);

/*
 * A block that comes to rest (full, or a tail when its sequence ends) needs a sum in its record before another
 * process can adopt it. Which ones still do, oldest first; each is named once, so what the caller cannot sum it
 * must be content to lose. Tails are named only while nobody runs on them. Off the decode path: a sum reads
 * the block.
 * Return: false: none.
 */
bool warm_cache_unsummed(struct warm_cache *c, uint32_t *ret_group, uint32_t *ret_block);
/* Record the sum of the block just named; nothing was begun since. 0: not known. */
void warm_cache_set_sum(struct warm_cache *c, uint32_t group, uint32_t block, uint64_t sum);

/* End it; its tokens stay cached until evicted. Takes NULL, returns NULL. */
struct warm_cache_sequence *warm_cache_close(struct warm_cache_sequence *s);

/*
 * Evict what is not pinned. @param uid (uid_t) -1: everybody's. Return: blocks freed.
 */
uint64_t warm_cache_trim(struct warm_cache *c, uid_t uid);

/* Blocks of a group that hold nothing. */
uint32_t warm_cache_n_free(const struct warm_cache *c, uint32_t group);
void warm_cache_stats(const struct warm_cache *c, struct warm_cache_stats *ret_stats);

/* Hold every invariant against the records (tests, and -Db_sanitize builds). Aborts with the broken one. */
void warm_cache_check(const struct warm_cache *c);
