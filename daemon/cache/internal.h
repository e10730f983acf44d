/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the cache share. Thread: engine.
 *
 * Blocks. Inside the cache a block is named by its `ref`: base[group] + number. One group, the primary (the first
 * plain one, else group 0, which is then kept whole), gives the entries of the tree: its records hold the tokens and
 * the parents. A block of another group belongs to an entry: `side[g][entry]`. `blocks[ref]` is what this process
 * knows beside the record.
 *
 * Places. ABSENT: no memory. FREE: on the group's free list. HELD: a sequence's alone, not in the tree yet.
 * LINKED: an entry of the tree, or a side block of one.
 *
 * Invariants (warm_cache_check holds them all):
 * - an entry below the root has a parent that is LINKED, full, of the same uid, and of the recorded generation;
 * - only full entries have children, and at most one sequence runs on an entry that is not full: its only writer;
 * - an unpinned entry has only unpinned descendants: so everything unpinned can be evicted, leaves first;
 * - a block is in its uid's age order exactly if it may be evicted now.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <xxhash.h>

#include "cache.h"
#include "index.h"
#include "record.h"

#define WARM_CACHE_BLOCKS_MAX (1U << 28) /* of all groups: refs and index stay 32 bits */
#define WARM_CACHE_UIDS_MAX   256U       /* with blocks at the same time (untuned guess) */
#define WARM_CACHE_GHOSTS_MAX 65536U     /* evicted keys remembered (untuned guess) */
/* Window blocks stay pinned so much longer, for drafts that are rolled back: the draft mask is 64 wide. */
#define WARM_CACHE_SLACK      64U
#define WARM_CACHE_COPIES_MAX (WARM_PLAN_GROUPS_MAX * 2U)

#define NONE UINT32_MAX

enum warm_place { WARM_PLACE_ABSENT, WARM_PLACE_FREE, WARM_PLACE_HELD, WARM_PLACE_LINKED };

struct warm_links {
        uint32_t left, right;
};

struct warm_block {
        XXH128_hash_t key; /* of a full entry */
        uint64_t value;    /* the lowest goes first */
        struct warm_links
                sibling;       /* order of one parent's children; FREE: previous and next free */
        struct warm_links age; /* order of eviction */
        uint32_t child_root;   /* ref of the root of its children's order */
        uint32_t n_pins;       /* sequences that run on it */
        uint32_t n_holds;      /* copies from it that have not run yet */
        uint32_t owner;        /* side block: ref of its entry */
        uint32_t depth;        /* entry: blocks before it */
        uint16_t uid_slot;
        uint8_t place;   /* enum warm_place */
        bool aged : 1;   /* in the order of eviction */
        bool queued : 1; /* in `unsummed` */
};

static_assert(sizeof(struct warm_block) == 64, "one cache line");

struct warm_cache_uid {
        uid_t uid;
        bool used;
        uint32_t n_sequences;
        uint32_t root;     /* of the order of its first blocks */
        XXH128_hash_t key; /* of the empty prompt: from the secret, the uid and the fingerprint */
        uint32_t n_used[WARM_PLAN_GROUPS_MAX];   /* HELD and LINKED */
        uint32_t n_pinned[WARM_PLAN_GROUPS_MAX]; /* of them: HELD, pinned or held for a copy */
        uint32_t age_root[WARM_PLAN_GROUPS_MAX];
};

typedef XXH128_hash_t (*warm_key_fn)(XXH128_hash_t parent, const int32_t *tokens, uint32_t n);

struct warm_cache {
        struct warm_cache_config config;
        uint32_t primary;
        uint32_t base[WARM_PLAN_GROUPS_MAX + 1]; /* refs of group g: base[g] .. base[g + 1] - 1 */
        uint32_t n_added[WARM_PLAN_GROUPS_MAX];
        uint32_t n_free[WARM_PLAN_GROUPS_MAX];
        uint32_t free_head[WARM_PLAN_GROUPS_MAX];

        int records_fd;
        uint64_t map_bytes;
        struct warm_record_header *header; /* the mapping */
        struct warm_record *records;       /* [base[n_groups]] behind it */
        struct warm_block *blocks;         /* [base[n_groups]] */
        uint32_t *
                side[WARM_PLAN_GROUPS_MAX]; /* [blocks of the primary] refs, or NULL: the primary */
        uint32_t *path; /* [blocks of the primary + 1] scratch: refs that the last find matched */
        struct warm_index index;
        uint32_t *unsummed; /* [base[n_groups]] ring of refs whose sum is to be recorded */
        uint32_t first_unsummed, n_unsummed;
        uint64_t *ghosts; /* [WARM_CACHE_GHOSTS_MAX] keys of evicted entries, by their low bits */
        struct warm_cache_uid *uids; /* [WARM_CACHE_UIDS_MAX] */
        uint32_t n_uids;             /* highest slot used + 1 */
        struct warm_sequence *sequences;
        warm_key_fn key; /* tests put a bad one here */
        uint64_t secret[4];
        uint64_t clock; /* one tick for each sequence opened or closed */
        bool adopted;   /* the records come from another process */
        bool adopting;  /* between warm_cache_adopt and warm_cache_rebuild */
        struct warm_cache_stats stats;
};

/* A sequence with what only the cache needs. */
struct warm_sequence {
        struct warm_cache_sequence public; /* first */
        struct warm_sequence *previous, *next;
        uint16_t uid_slot;
        uint32_t n_linked;                    /* entries of its table that are in the tree */
        uint32_t n_begun;                     /* tokens between begin and commit */
        uint32_t first[WARM_PLAN_GROUPS_MAX]; /* blocks before it were dropped behind the window */
        uint32_t copy_refs[WARM_CACHE_COPIES_MAX]; /* what each copy reads, held */
};

/* What a search found. */
struct warm_find {
        uint32_t n_matched; /* tokens */
        uint32_t n_tokens;  /* of them, that every group can resume from: path[0 ..] covers them */
        enum warm_miss miss;
};

/* group.c: which lengths can be resumed */
bool warm_cache_is_state(const struct warm_cache *c, uint32_t g);
bool warm_cache_has_state(const struct warm_cache *c);
uint32_t warm_cache_window(const struct warm_cache *c, uint32_t g); /* 0: all; the primary's is 0 */
/* First block that group g needs to go on after n tokens. */
uint32_t warm_cache_first_needed(const struct warm_cache *c, uint32_t g, uint32_t n);
/* The longest length <= n from which every group can resume on path[0 ..]. */
uint32_t warm_cache_resume(const struct warm_cache *c, const uint32_t *path, uint32_t n);

/* order.c: the two orders of blocks, as treaps */
void warm_order_sibling_insert(struct warm_cache *c, uint32_t *root, uint32_t ref);
void warm_order_sibling_remove(struct warm_cache *c, uint32_t *root, uint32_t ref);
void warm_order_age_insert(struct warm_cache *c, uint32_t *root, uint32_t ref);
void warm_order_age_remove(struct warm_cache *c, uint32_t *root, uint32_t ref);
uint32_t warm_order_age_first(const struct warm_cache *c, uint32_t root);

struct warm_neighbour {
        uint32_t ref;    /* or NONE */
        uint32_t common; /* tokens in common */
};

/*
 * The entries just before (or equal) and just after n tokens among the children under `root`: no other child has
 * a longer common prefix. @param n 1..32
 */
void warm_order_neighbours(const struct warm_cache *c, uint32_t root, const int32_t *tokens,
                           uint32_t n, struct warm_neighbour *ret_before,
                           struct warm_neighbour *ret_after);

/* pool.c: uids, free blocks, pins, eviction */
uint32_t warm_pool_group(const struct warm_cache *c, uint32_t ref);
int warm_pool_uid_find(const struct warm_cache *c, uid_t uid);          /* slot or -1 */
XXH128_hash_t warm_pool_uid_key(const struct warm_cache *c, uid_t uid); /* of its empty prompt */
int warm_pool_uid_get(struct warm_cache *c, uid_t uid);        /* makes one; -1: none to be had */
void warm_pool_uid_put(struct warm_cache *c, uint32_t slot);   /* frees the slot if empty */
bool warm_pool_busy(const struct warm_cache *c, uint32_t ref); /* HELD, pinned or held */
/* Blocks of group g that the uid can have if all it may evict goes. */
uint64_t warm_pool_available(const struct warm_cache *c, uint32_t slot, uint32_t g);
/* A HELD block for the uid, evicting if needed. Return: ref or NONE. */
uint32_t warm_pool_take(struct warm_cache *c, uint32_t slot, uint32_t g);
void warm_pool_give(struct warm_cache *c, uint32_t ref); /* HELD -> FREE */
void warm_pool_pin(struct warm_cache *c, uint32_t ref);
void warm_pool_unpin(struct warm_cache *c, uint32_t ref);
void warm_pool_unpin_cold(struct warm_cache *c, uint32_t ref); /* and evict it before all else */
void warm_pool_hold(struct warm_cache *c, uint32_t ref);
void warm_pool_release(struct warm_cache *c, uint32_t ref);
void warm_pool_free_push(struct warm_cache *c, uint32_t g, uint32_t ref);
void warm_pool_free_remove(struct warm_cache *c, uint32_t g, uint32_t ref);
void warm_pool_age(struct warm_cache *c, uint32_t ref); /* in or out of the order of eviction */
/* An entry without children (its side blocks go with it), or a side block: LINKED and unpinned -> FREE. */
void warm_pool_drop(struct warm_cache *c, uint32_t ref);
/* The same, remembered and counted. */
void warm_pool_evict(struct warm_cache *c, uint32_t ref);

/* tree.c: entries, their keys and children */
XXH128_hash_t warm_tree_key(XXH128_hash_t parent, const int32_t *tokens, uint32_t n);
XXH128_hash_t warm_tree_parent_key(const struct warm_cache *c, uint32_t slot, uint32_t parent_ref);
uint32_t *warm_tree_children(struct warm_cache *c, uint32_t slot, uint32_t parent_ref);
uint32_t warm_tree_parent(const struct warm_cache *c, uint32_t ref); /* ref or NONE */
uint32_t warm_tree_block(const struct warm_cache *c, uint32_t g, uint32_t entry_ref); /* or NONE */
uint32_t warm_tree_find_full(const struct warm_cache *c, uint32_t slot, uint32_t parent_ref,
                             XXH128_hash_t key, const int32_t *tokens);
/* HELD -> LINKED under a parent, pinned once. The record's tokens and n_ready stand. */
void warm_tree_link(struct warm_cache *c, uint32_t ref, uint32_t parent_ref);
void warm_tree_attach(struct warm_cache *c, uint32_t g, uint32_t ref, uint32_t entry_ref);
/* LINKED -> HELD; the record is reset. No children. */
void warm_tree_unlink(struct warm_cache *c, uint32_t ref);
void warm_tree_detach(struct warm_cache *c, uint32_t g, uint32_t ref);
/* The record's tokens change: take it out of its parent's order and the index, and back in. */
void warm_tree_before_change(struct warm_cache *c, uint32_t ref);
void warm_tree_after_change(struct warm_cache *c, uint32_t ref);
void warm_tree_ghost_add(struct warm_cache *c, uint32_t ref);
bool warm_tree_ghost_has(const struct warm_cache *c, XXH128_hash_t parent, const int32_t *tokens,
                         uint32_t n_min, uint32_t n);

/* sum.c */
void warm_sum_want(struct warm_cache *c, uint32_t ref);             /* it has come to rest */
void warm_sum_want_entry(struct warm_cache *c, uint32_t entry_ref); /* with its side blocks */

/* cache.c */
int warm_cache_half_new(const struct warm_cache_config *config, struct warm_cache **ret_cache);

/* rebuild.c */
void warm_cache_forget_record(struct warm_cache *c, uint32_t ref); /* of a free or absent block */

/* find.c */
void warm_find(const struct warm_cache *c, uid_t uid, const int32_t *tokens, uint32_t n_limit,
               struct warm_find *ret_find);

/* table.c: a sequence's block table */
uint32_t warm_table_ref(const struct warm_sequence *s, uint32_t g, uint32_t i); /* or NONE */
/* Refs of the entries that hold the first n tokens, and the ref a pending copy reads for the last. */
void warm_table_path(const struct warm_sequence *s, uint32_t n, uint32_t *path);
/* Whether the blocks can be had that a sequence needs which goes on from path at n tokens. */
bool warm_table_fits(const struct warm_cache *c, uint32_t slot, const uint32_t *path, uint32_t n,
                     uint32_t n_tokens_max);
/* Fill an empty table: pin the path up to n tokens, take over or copy its last part, take the rest. */
void warm_table_fill(struct warm_sequence *s, const uint32_t *path, uint32_t n);
/* Shorten to n tokens: what others use stays with them. May end shorter: see warm_cache_rollback. */
void warm_table_cut(struct warm_sequence *s, uint32_t n);
void warm_table_drop_copies(struct warm_sequence *s);
/* Where the next step finds the state: a snapshot, which is held, the sequence's own block, or nothing (NONE). */
void warm_table_set_state(struct warm_sequence *s, uint32_t g, uint32_t ref);
void warm_table_close(struct warm_sequence *s);

static inline const struct warm_record *warm_record_of(const struct warm_cache *c, uint32_t ref) {
        return &c->records[ref];
}

static inline uint32_t warm_blocks_for(uint32_t n_tokens) {
        return n_tokens / WARM_BLOCK_TOKENS + (n_tokens % WARM_BLOCK_TOKENS != 0);
}
