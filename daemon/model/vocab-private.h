/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside a vocabulary: shared by vocab.c (tables), bpe.c and spm.c (the two ways to merge).
 *
 * A symbol is a string that merging may hold: the tokens come first, under their ids; behind them, for BPE, single
 * bytes and results of merges that are no tokens. `text` numbers symbols; only what merging may produce is indexed,
 * so a control token's name is never found in text.
 */
#pragma once

#include <errno.h>

#include "merge.h"
#include "pretoken.h"
#include "special.h"
#include "strings.h"
#include "vocab.h"

/*
 * A longer piece is cut here, so that one piece takes at most 12 MiB of scratch memory. Longer than any window that
 * clients send; the reference does not cut.
 */
#define WARM_PIECE_BYTES_MAX (1U << 18)

struct warm_vocab_merge {
        uint32_t left, right; /* left = WARM_MERGE_NONE: a free slot */
        uint32_t rank;
        uint32_t result;
};

struct warm_vocab {
        enum warm_vocab_kind kind;
        const struct warm_pretokenizer *pre; /* SPM: only to find the last piece */
        uint32_t n_tokens;
        int32_t bos, eos, unknown;
        bool add_bos, add_space_prefix;
        uint8_t *kinds; /* [n_tokens] */
        struct warm_strings text, names;
        struct warm_special_set user,
                special;         /* user: USER only; special: CONTROL, UNKNOWN and USER */
        int32_t byte_token[256]; /* -1: no token spells this byte alone */

        /* BPE */
        struct warm_vocab_merge *merges; /* [n_slots] by hash of (left, right) */
        uint32_t n_slots;
        uint32_t byte_symbol[256];
        /*
         * [n_tokens] do the token's own bytes merge to it? 0: nobody asked yet. What is written is a function of the
         * tables, so any thread may write it at any time.
         */
        _Atomic uint8_t *whole;

        /* SPM */
        uint32_t *priority;   /* [n_tokens] lower merges first */
        uint8_t (*joins)[32]; /* [256] bit b of row a: some token has byte b after byte a */
        size_t n_longest;     /* bytes of the longest token that merging may produce */

        /* For warm_vocab_allow(): ids in the order of their text. */
        uint32_t *sorted; /* [n_sorted] */
        uint32_t n_sorted;
        uint32_t start[257];  /* where texts with this first byte start in it */
        uint64_t *all;        /* [ceil(n_tokens / 64)] the bits of all of them */
        uint64_t *heavy[256]; /* the same for first bytes that many share, else NULL */
};

struct warm_token_out {
        int32_t *ids;
        size_t n, n_max;
};

static inline int warm_token_put(struct warm_token_out *out, uint32_t id) {
        if (out->n == out->n_max)
                return -ENOBUFS;
        out->ids[out->n++] = (int32_t) id;
        return 0;
}

enum { WARM_WHOLE_YES = 1, WARM_WHOLE_NO = 2 };

/* Room that one call of warm_vocab_tokenize() reuses from piece to piece. */
struct warm_encoder {
        const struct warm_vocab *vocab;
        struct warm_token_out out;
        struct warm_merge_space space;
};

/* Room for n symbols in e->space. Return: 0; -ENOMEM. */
int warm_encoder_reserve(struct warm_encoder *e, size_t n);

/* Spell bytes one token each; a byte that no token spells is left out. */
int warm_encoder_bytes(struct warm_encoder *e, const uint8_t *text, size_t n);

/* The merge tables. @param ret_why as in warm_vocab_new(). Return: 0; -ENOMEM; -EINVAL. */
int warm_bpe_init(struct warm_vocab *v, const struct warm_vocab_config *config, char **ret_why);
int warm_spm_init(struct warm_vocab *v, const struct warm_vocab_config *config, char **ret_why);

/*
 * Tokenize text in which no special token is left.
 * Return: 0; -ENOBUFS; -ENOMEM.
 */
int warm_bpe_encode(struct warm_encoder *e, const uint8_t *text, size_t n);
int warm_spm_encode(struct warm_encoder *e, const uint8_t *text, size_t n);

/*
 * The bytes behind a name in GPT-2's byte alphabet (printable bytes stand for themselves, the others for U+0100 on).
 * @param ret_bytes [n] at least
 * Return: how many; -1: a character that is not in the alphabet.
 */
int warm_bpe_unspell(const char *name, size_t n, uint8_t *ret_bytes);

/* The index of allow.c. Return: 0; -ENOMEM. */
int warm_allow_init(struct warm_vocab *v);
void warm_allow_deinit(struct warm_vocab *v);
uint64_t warm_allow_memory_bytes(const struct warm_vocab *v);

/* Are texts of tokens of this kind what merging may come to? */
static inline bool warm_kind_merges(uint8_t kind) {
        return kind == WARM_TOKEN_NORMAL || kind == WARM_TOKEN_UNUSED;
}

/* A malloc'd sentence for ret_why, which may be NULL. Return: -EINVAL. */
int warm_vocab_wrong(char **ret_why, const char *format, ...) __attribute__((format(printf, 2, 3)));
