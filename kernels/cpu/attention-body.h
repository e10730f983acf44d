/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention, written over the lanes that the including file chose. Everything is static but the table KERNELS.
 * What is computed, and in which order, is said in attention.h.
 */
#include <float.h>
#include <stdbool.h>

#include "attention-isa.h"
#include "functions.h"

#define TILE         WARM_TILE_SLOTS
#define SPAN         WARM_SPAN_SLOTS
#define TILE_VECTORS (TILE / LANES)
#define INLINE       static inline __attribute__((always_inline))
#define UNROLL       _Pragma("GCC unroll 16")

/* As warm_expf() for x <= 0 (and -infinity). */
INLINE lanes lanes_exp(lanes x) {
        lanes t = lanes_fma(x, lanes_all(WARM_EXP_LOG2E), lanes_all(WARM_EXP_MAGIC));
        lanes n = lanes_sub(t, lanes_all(WARM_EXP_MAGIC));
        lanes r = lanes_fma(n, lanes_all(-WARM_EXP_LN2_HIGH), x);
        lanes p;

        r = lanes_fma(n, lanes_all(-WARM_EXP_LN2_LOW), r);
        p = lanes_fma(lanes_all(WARM_EXP_C6), r, lanes_all(WARM_EXP_C5));
        p = lanes_fma(p, r, lanes_all(WARM_EXP_C4));
        p = lanes_fma(p, r, lanes_all(WARM_EXP_C3));
        p = lanes_fma(p, r, lanes_all(WARM_EXP_C2));
        p = lanes_fma(p, r, lanes_all(1.0F));
        p = lanes_fma(p, r, lanes_all(1.0F));
        return lanes_if_less(lanes_all(WARM_EXP_MIN), x, lanes_scale(p, t));
}

INLINE lanes load_as(const void *values, enum warm_type type, uint64_t at) {
        switch (type) {
        case WARM_TYPE_F16:
                return lanes_load_half((const uint16_t *) values + at);
        case WARM_TYPE_BF16:
                return lanes_load_bf16((const uint16_t *) values + at);
        default:
                return lanes_load((const float *) values + at);
        }
}

/* A K tile to float; n = head_dim_k * 32. What is stale is masked as a score. */
INLINE void open_k_as(const void *tile, enum warm_type type, uint64_t n, float *k) {
        for (uint64_t i = 0; i < n; i += LANES)
                lanes_store(k + i, load_as(tile, type, i));
}

static void open_k(const void *tile, enum warm_type type, uint64_t n, float *k) {
        if (type == WARM_TYPE_F16)
                open_k_as(tile, WARM_TYPE_F16, n, k);
        else if (type == WARM_TYPE_BF16)
                open_k_as(tile, WARM_TYPE_BF16, n, k);
        else
                open_k_as(tile, WARM_TYPE_F32, n, k);
}

/* One token's V to float, 32 dimensions to each panel [256][32]; not finite: 0. */
INLINE void open_v_as(const void *tile, enum warm_type type, uint64_t token, uint32_t head_dim,
                      float *v) {
        const lanes infinity = lanes_all(INFINITY);
        uint64_t at = token * head_dim;
        uint32_t d = 0;

        for (; d + LANES <= head_dim; d += LANES) {
                lanes x = load_as(tile, type, at + d);

                lanes_store(v + d / TILE * (SPAN * TILE) + d % TILE,
                            lanes_if_less(lanes_abs(x), infinity, x));
        }
        for (; d < (head_dim + TILE - 1) / TILE * TILE; d++) {
                float x = 0;

                if (d < head_dim && type == WARM_TYPE_F16)
                        x = warm_half_to_float(((const uint16_t *) tile)[at + d]);
                else if (d < head_dim && type == WARM_TYPE_BF16)
                        x = warm_bf16_to_float(((const uint16_t *) tile)[at + d]);
                else if (d < head_dim)
                        x = ((const float *) tile)[at + d];
                v[d / TILE * (SPAN * TILE) + d % TILE] = fabsf(x) < INFINITY ? x : 0;
        }
}

static void open_v(const void *tile, enum warm_type type, uint32_t head_dim, float *v) {
        for (uint32_t token = 0; token < TILE; token++) {
                if (type == WARM_TYPE_F16)
                        open_v_as(tile, WARM_TYPE_F16, token, head_dim, v + token * TILE);
                else if (type == WARM_TYPE_BF16)
                        open_v_as(tile, WARM_TYPE_BF16, token, head_dim, v + token * TILE);
                else
                        open_v_as(tile, WARM_TYPE_F32, token, head_dim, v + token * TILE);
        }
}

/* c[i][0..w) = sum over j of a[i][j] * b[j][0..w), one chain of fma an output; Q rows, W vectors. */
INLINE void pass(const float *a, uint64_t ld_a, const float *b, uint32_t n, float *c, uint64_t ld_c,
                 const uint32_t Q, const uint32_t W) {
        lanes sums[PASS_QUERIES][PASS_VECTORS];

        UNROLL for (uint32_t i = 0; i < Q; i++) UNROLL for (uint32_t w = 0; w < W; w++) sums[i][w] =
                lanes_all(0);
        for (uint32_t j = 0; j < n; j++) {
                lanes row[PASS_VECTORS];

                UNROLL for (uint32_t w = 0; w < W; w++) row[w] =
                        lanes_load(b + (uint64_t) j * TILE + w * LANES);
                UNROLL for (uint32_t i = 0; i < Q; i++) {
                        lanes x = lanes_all(a[i * ld_a + j]);

                        UNROLL for (uint32_t w = 0; w < W; w++) sums[i][w] =
                                lanes_fma(x, row[w], sums[i][w]);
                }
        }
        UNROLL for (uint32_t i = 0; i < Q; i++) UNROLL for (uint32_t w = 0; w < W; w++)
                lanes_store(c + i * ld_c + w * LANES, sums[i][w]);
}

/*
 * c [n_rows][32] = a [n_rows][n] times b [n][32].
 *
 * @param a, c row strides ld_a, ld_c; b contiguous
 */
static void product(const float *a, uint64_t ld_a, uint32_t n_rows, const float *b, uint32_t n,
                    float *c, uint64_t ld_c) {
        for (uint32_t v = 0; v < TILE_VECTORS; v += PASS_VECTORS) {
                const float *bv = b + v * LANES;
                float *cv = c + v * LANES;
                uint32_t i = 0;

                for (; i + PASS_QUERIES <= n_rows; i += PASS_QUERIES)
                        pass(a + i * ld_a, ld_a, bv, n, cv + i * ld_c, ld_c, PASS_QUERIES,
                             PASS_VECTORS);
                for (; i + 4 <= n_rows; i += 4)
                        pass(a + i * ld_a, ld_a, bv, n, cv + i * ld_c, ld_c, 4, PASS_VECTORS);
                for (; i < n_rows; i++)
                        pass(a + i * ld_a, ld_a, bv, n, cv + i * ld_c, ld_c, 1, PASS_VECTORS);
        }
}

/* Bit i: slot begin + i is visible; begin is a tile's first slot. */
static uint32_t visible(const struct warm_attend_row *row, uint32_t begin) {
        uint32_t bits = 0;

        if (row->lo <= begin && row->hi >= begin + TILE &&
            (row->mask == UINT64_MAX || row->hi - begin >= 64 + TILE))
                return UINT32_MAX;
        if (row->lo >= begin + TILE || row->hi <= begin)
                return 0;
        if (row->mask != UINT64_MAX)
                for (uint32_t i = 0; i < TILE; i++) {
                        uint32_t age = row->hi - 1 - begin - i;

                        if (age >= 64 || (row->mask >> age & 1)) /* at or above hi: age is huge */
                                bits |= 1U << i;
                }
        else
                bits = UINT32_MAX;
        if (row->lo > begin)
                bits &= UINT32_MAX << (row->lo - begin);
        if (row->hi < begin + TILE)
                bits &= UINT32_MAX >> (begin + TILE - row->hi);
        return bits;
}

static void cap_scores(float *scores, uint32_t n, float cap) {
        for (uint32_t i = 0; i < n; i++)
                scores[i] = warm_soft_cap(scores[i], cap);
}

/* The lanes of a tile folded in halves: first whole vectors, then inside one. */
INLINE float fold_sum(lanes *v) {
        UNROLL for (uint32_t half = TILE_VECTORS / 2; half > 0; half /= 2)
                UNROLL for (uint32_t w = 0; w < half; w++) v[w] = lanes_add(v[w], v[w + half]);
        return lanes_sum(v[0]);
}

INLINE float fold_max(lanes *v) {
        UNROLL for (uint32_t half = TILE_VECTORS / 2; half > 0; half /= 2)
                UNROLL for (uint32_t w = 0; w < half; w++) v[w] = lanes_max(v[w], v[w + half]);
        return lanes_most(v[0]);
}

/* Scores to weights, in place. Return: the maximum; -infinity if nothing is visible (weights are then 0). */
static float weigh(float *scores, uint32_t n, float *ret_mass) {
        lanes most[TILE_VECTORS], sums[TILE_VECTORS];
        float max;

        UNROLL for (uint32_t w = 0; w < TILE_VECTORS; w++) {
                most[w] = lanes_load(scores + w * LANES);
                sums[w] = lanes_all(0);
        }
        for (uint32_t i = TILE; i < n; i += TILE)
                UNROLL for (uint32_t w = 0; w < TILE_VECTORS; w++) most[w] =
                        lanes_max(most[w], lanes_load(scores + i + w * LANES));
        max = fold_max(most);
        if (max == -INFINITY) {
                memset(scores, 0, n * sizeof(*scores));
                *ret_mass = 0;
                return max;
        }
        for (uint32_t i = 0; i < n; i += TILE)
                UNROLL for (uint32_t w = 0; w < TILE_VECTORS; w++) {
                        lanes x = lanes_load(scores + i + w * LANES);
                        lanes e = lanes_exp(lanes_sub(x, lanes_all(max)));

                        sums[w] = lanes_add(sums[w], e);
                        lanes_store(scores + i + w * LANES, e);
                }
        *ret_mass = fold_sum(sums);
        return max;
}

/* Add a span's part to what the query has: both relative to the larger maximum. */
static void merge(float part_max, float part_mass, const float *part, uint32_t n, float *max,
                  float *mass, float *sum) {
        float keep, take;

        if (part_max == -INFINITY)
                return;
        if (*max == -INFINITY) {
                *max = part_max;
                *mass = part_mass;
                memcpy(sum, part, n * sizeof(*sum));
                return;
        }
        keep = part_max > *max ? warm_expf(*max - part_max) : 1;
        take = part_max > *max ? 1 : warm_expf(part_max - *max);
        *max = part_max > *max ? part_max : *max;
        *mass = *mass * keep + part_mass * take;
        for (uint32_t i = 0; i < n; i += LANES) {
                lanes old = lanes_mul(lanes_load(sum + i), lanes_all(keep));

                lanes_store(sum + i, lanes_fma(lanes_load(part + i), lanes_all(take), old));
        }
}

/* The queries [first, first + n) of the unit over one span, whose tiles [open, n_open) are open in s->k, s->v. */
static void span_block(const struct warm_attend *a, const struct warm_attend_scratch *s,
                       uint32_t span_begin, uint32_t open, uint32_t n_open, uint32_t first,
                       uint32_t n) {
        uint32_t padded = (a->head_dim_v + TILE - 1) / TILE * TILE;
        uint32_t row_begin = first / a->n_heads, row_end = (first + n - 1) / a->n_heads + 1;
        uint32_t lo = UINT32_MAX, hi = 0, begin, end;
        float maxima[WARM_QUERY_BLOCK], masses[WARM_QUERY_BLOCK];

        for (uint32_t r = row_begin; r < row_end; r++) {
                lo = a->rows[r].lo < lo ? a->rows[r].lo : lo;
                hi = a->rows[r].hi > hi ? a->rows[r].hi : hi;
        }
        begin = lo > span_begin ? (lo - span_begin) / TILE : 0;
        end = hi > span_begin ? (hi - span_begin + TILE - 1) / TILE : 0;
        begin = begin < open ? open : begin;
        end = end > n_open ? n_open : end;
        if (begin >= end)
                return;

        for (uint32_t t = begin; t < end; t++)
                product(s->q + (uint64_t) first * a->head_dim_k, a->head_dim_k, n,
                        s->k + (uint64_t) t * TILE * a->head_dim_k, a->head_dim_k,
                        s->weights + t * TILE, SPAN);
        for (uint32_t i = 0; i < n; i++) {
                const struct warm_attend_row *row = &a->rows[(first + i) / a->n_heads];
                float *scores = s->weights + i * SPAN;

                if (a->soft_cap > 0)
                        cap_scores(scores + begin * TILE, (end - begin) * TILE, a->soft_cap);
                for (uint32_t t = begin; t < end; t++) {
                        uint32_t bits = visible(row, span_begin + t * TILE);

                        for (uint32_t j = 0; bits != UINT32_MAX && j < TILE; j++) {
                                float *score = &scores[t * TILE + j];

                                *score = bits >> j & 1 ? *score : -INFINITY;
                        }
                }
                maxima[i] = weigh(scores + begin * TILE, (end - begin) * TILE, &masses[i]);
        }
        for (uint32_t d = 0; d < padded; d += TILE)
                product(s->weights + begin * TILE, SPAN, n,
                        s->v + (uint64_t) d * SPAN + begin * TILE * TILE, (end - begin) * TILE,
                        s->part + d, padded);
        for (uint32_t i = 0; i < n; i++)
                merge(maxima[i], masses[i], s->part + i * padded, padded, &s->max[first + i],
                      &s->mass[first + i], s->sum + (uint64_t) (first + i) * padded);
}

static void finish(const struct warm_attend *a, const struct warm_attend_scratch *s) {
        uint32_t padded = (a->head_dim_v + TILE - 1) / TILE * TILE;

        for (uint32_t i = 0; i < a->n_rows * a->n_heads; i++) {
                float *out = a->out + i / a->n_heads * a->ld_out + i % a->n_heads * a->head_dim_v;
                const float *sum = s->sum + (uint64_t) i * padded;
                float share = s->max[i] == -INFINITY ? 0 : 1 / s->mass[i];

                for (uint32_t d = 0; d < a->head_dim_v; d++)
                        out[d] = share > 0 ? sum[d] * share + 0.0F : 0;
        }
}

static void attend(const struct warm_attend *a, const struct warm_attend_scratch *s) {
        uint32_t lo = UINT32_MAX, hi = 0, n_queries = a->n_rows * a->n_heads;

        for (uint32_t r = 0; r < a->n_rows; r++) {
                if (a->rows[r].lo >= a->rows[r].hi)
                        continue;
                lo = a->rows[r].lo < lo ? a->rows[r].lo : lo;
                hi = a->rows[r].hi > hi ? a->rows[r].hi : hi;
        }
        for (uint32_t i = 0; i < n_queries; i++)
                s->max[i] = -INFINITY;
        for (uint32_t span = lo / SPAN * SPAN; span < hi; span += SPAN) {
                uint32_t open = lo > span ? (lo - span) / TILE : 0;
                uint32_t n_open = (hi - span + TILE - 1) / TILE;

                n_open = n_open > WARM_SPAN_TILES ? WARM_SPAN_TILES : n_open;
                for (uint32_t t = open; t < n_open; t++) {
                        const uint8_t *block =
                                warm_kv_block(a->kv, a->group, a->blocks[span / TILE + t]);

                        open_k(block + a->place.k_offset, a->kv->type,
                               (uint64_t) TILE * a->head_dim_k,
                               s->k + (uint64_t) t * TILE * a->head_dim_k);
                        open_v(block + a->place.v_offset, a->kv->type, a->head_dim_v,
                               s->v + t * TILE * TILE);
                }
                for (uint32_t i = 0; i < n_queries; i += WARM_QUERY_BLOCK) {
                        uint32_t n = n_queries - i;

                        n = n > WARM_QUERY_BLOCK ? WARM_QUERY_BLOCK : n;
                        span_block(a, s, span, open, n_open, i, n);
                }
        }
        finish(a, s);
}

#define HALF_MAX 65504.0F
#define BF16_MAX 0x1.FEp+127F

INLINE lanes finite_within(lanes x, float most) {
        x = lanes_if_less(lanes_abs(x), lanes_all(INFINITY), x);
        return lanes_max(lanes_min(x, lanes_all(most)), lanes_all(-most));
}

/* n values to the type, contiguous. */
static void round_to(enum warm_type type, const float *values, uint32_t n, void *ret_values) {
        uint16_t *halves = ret_values;
        float *floats = ret_values;
        float most = type == WARM_TYPE_F16 ? HALF_MAX : type == WARM_TYPE_BF16 ? BF16_MAX : FLT_MAX;
        uint32_t i = 0;

        for (; i + LANES <= n; i += LANES) {
                lanes x = finite_within(lanes_load(values + i), most);

                if (type == WARM_TYPE_F16)
                        lanes_store_half(halves + i, x);
                else if (type == WARM_TYPE_BF16)
                        lanes_store_bf16(halves + i, x);
                else
                        lanes_store(floats + i, x);
        }
        for (; i < n; i++) {
                float x = fabsf(values[i]) < INFINITY ? values[i] : 0;

                x = x < most ? x : most;
                x = x > -most ? x : -most;
                if (type == WARM_TYPE_F16)
                        halves[i] = warm_float_to_half(x);
                else if (type == WARM_TYPE_BF16)
                        halves[i] = warm_float_to_bf16(x);
                else
                        floats[i] = x;
        }
}

static void store(uint8_t *block, const struct warm_attend_place *place, enum warm_type type,
                  uint32_t slot, const float *k, uint32_t head_dim_k, const float *v,
                  uint32_t head_dim_v) {
        uint64_t bytes = type == WARM_TYPE_F32 ? 4 : 2, at = slot % TILE;
        union {
                float floats[256];
                uint16_t halves[256];
        } rounded;

        round_to(type, k, head_dim_k, &rounded);
        if (bytes == 4) {
                float *tile = (float *) (void *) (block + place->k_offset);

                for (uint32_t i = 0; i < head_dim_k; i++)
                        tile[i * TILE + at] = rounded.floats[i];
        } else {
                uint16_t *tile = (uint16_t *) (void *) (block + place->k_offset);

                for (uint32_t i = 0; i < head_dim_k; i++)
                        tile[i * TILE + at] = rounded.halves[i];
        }
        round_to(type, v, head_dim_v, block + place->v_offset + at * head_dim_v * bytes);
}

const struct warm_attention_kernels KERNELS = {
        .store = store,
        .attend = attend,
};
