/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over paged KV, without a score matrix.
 *
 * A unit of work is some rows of one sequence and one KV head with all its query heads. Time is cut at absolute
 * multiples of 256 slots (spans) and, inside them, of 32 (tiles). For each span and query: scores, their maximum,
 * exp, sums and the weighted sum of V; spans are merged in ascending order with the usual rescaling. Everything a
 * query does depends on its own visible slots alone:
 *
 * - a score is one chain of fma over the dimensions, ascending, from 0;
 * - the sum of a span's weights runs in 32 lanes, lane = slot % 32, over the tiles ascending; the lanes are folded
 *   in halves (16, 8, 4, 2, 1);
 * - an output dimension is one chain of fma over the span's slots, ascending, from 0;
 * - what is not visible has the weight 0 exactly, and V is read as 0 where it is not finite, so that it adds
 *   nothing, whatever the bytes are; a zero's sign is dropped at the end.
 *
 * So it makes no difference which rows share a unit, how wide the vectors are, or which tiles are left out because
 * nobody sees them. The same source (attention-body.h) is compiled for each instruction set.
 *
 * Pure functions, any thread; scratch is the thread's own.
 */
#pragma once

#include <stdint.h>

#include "isa.h"
#include "kernels/backend.h"
#include "kv.h"

#define WARM_TILE_SLOTS  WARM_BLOCK_TOKENS
#define WARM_SPAN_TILES  8U
#define WARM_SPAN_SLOTS  (WARM_SPAN_TILES * WARM_TILE_SLOTS)
#define WARM_QUERY_BLOCK 12U /* queries a pass over a span: what fills the registers of AVX-512 */
#define WARM_UNIT_QUERIES                                                                          \
        96U /* queries a unit has at most, unless one row has more (untuned guess) */

/* Where a KV head's tiles lie, in bytes from the start of a block. */
struct warm_attend_place {
        uint64_t k_offset;
        uint64_t v_offset;
};

/* The slots that a row sees in one layer: [lo, hi), and a mask over the last 64. */
struct warm_attend_row {
        uint32_t lo, hi;
        uint64_t mask;
};

struct warm_attend {
        const struct warm_kv *kv;
        uint32_t group;
        const uint32_t *blocks; /* [ceil(max hi / 32)] the sequence's block table */
        struct warm_attend_place place;
        uint32_t head_dim_k;
        uint32_t head_dim_v;
        uint32_t n_heads; /* query heads that share the KV head */
        float soft_cap;   /* 0: none */
        const struct warm_attend_row *rows;
        uint32_t n_rows;
        float *out; /* row r, head h at out + r * ld_out + h * head_dim_v */
        uint64_t ld_out;
};

/*
 * A thread's scratch, cut from one allocation of warm_attention_scratch_floats().
 * Padded: rounded up to 32.
 */
struct warm_attend_scratch {
        float *q; /* [n_rows * n_heads][head_dim_k]: rotated, times the attention scale; the caller's */
        float *k;       /* [8 tiles][head_dim_k][32] */
        float *v;       /* [padded head_dim_v / 32][256][32] */
        float *weights; /* [12][256] */
        float *part;    /* [12][padded head_dim_v] */
        float *sum;     /* [n_queries][padded head_dim_v] */
        float *max;     /* [n_queries] */
        float *mass;    /* [n_queries] */
};

struct warm_attention_kernels {
        /* Compute one unit. */
        void (*attend)(const struct warm_attend *a, const struct warm_attend_scratch *s);

        /*
         * Put a row's K and V of one KV head into its place, rounded to the type; what is too large becomes the
         * type's largest value and what is not finite becomes 0, so that what is stored is always finite.
         *
         * @param block address of the block; place slot % 32 inside it
         */
        void (*store)(uint8_t *block, const struct warm_attend_place *place, enum warm_type type,
                      uint32_t slot, const float *k, uint32_t head_dim_k, const float *v,
                      uint32_t head_dim_v);
};

/* Return: static; what runs this instruction set. */
const struct warm_attention_kernels *warm_attention_get(enum warm_isa isa);

/* Queries a unit of a layer with this many heads a KV head has at most. */
static inline uint32_t warm_attention_unit_queries(uint32_t n_heads) {
        return n_heads > WARM_UNIT_QUERIES ? n_heads : WARM_UNIT_QUERIES / n_heads * n_heads;
}

/* Floats of scratch that a thread needs for n_queries queries a unit. */
uint64_t warm_attention_scratch_floats(uint32_t head_dim_k, uint32_t head_dim_v,
                                       uint32_t n_queries);

/* Cut memory [warm_attention_scratch_floats()], aligned to 64 bytes, into its parts. */
void warm_attention_scratch_cut(float *memory, uint32_t head_dim_k, uint32_t head_dim_v,
                                uint32_t n_queries, struct warm_attend_scratch *ret_scratch);
