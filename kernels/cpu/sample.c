/* SPDX-License-Identifier: Apache-2.0 */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/sample.h"
#include "rows.h"
#include "sample.h"

#define SORT_FIRST 32U /* ranks sorted before anybody asked for more; untuned guess */

void warm_segment_sum(const struct warm_kernels *k, float *logits, uint32_t first, uint32_t n,
                      float *scratch, struct warm_segment *ret_segment) {
        struct warm_segment s;
        uint32_t best = 0;

        for (uint32_t i = 0; i < n; i++) {
                float l = logits[i] == logits[i] ? logits[i] : -FLT_MAX;

                l = l > FLT_MAX ? FLT_MAX : l;
                logits[i] = l < -FLT_MAX ? -FLT_MAX : l;
        }
        s.max = warm_max(k, logits, n);
        while (logits[best] != s.max)
                best++;
        s.best = (int32_t) (first + best);
        s.mass = warm_exp_sum(k, logits, s.max, scratch, n);
        *ret_segment = s;
}

/* log(sum of exp(l)) over the whole vocabulary, and the best id. */
static double log_mass(const struct warm_segment *segments, uint32_t n, uint32_t *ret_best) {
        double mass = 0;
        uint32_t best = 0;

        for (uint32_t i = 1; i < n; i++)
                if (segments[i].max > segments[best].max)
                        best = i;
        for (uint32_t i = 0; i < n; i++)
                mass += segments[i].mass * exp((double) segments[i].max - segments[best].max);
        *ret_best = best;
        return segments[best].max + log(mass);
}

static bool comes_before(const struct warm_candidate *a, const struct warm_candidate *b) {
        return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

static int compare(const void *a, const void *b) {
        return comes_before(a, b) ? -1 : 1;
}

static void swap(struct warm_candidate *a, struct warm_candidate *b) {
        struct warm_candidate t = *a;

        *a = *b;
        *b = t;
}

/* Restore the heap whose root (the last in order) may have changed. */
static void sift(struct warm_candidate *heap, uint32_t n) {
        for (uint32_t i = 0;;) {
                uint32_t c = 2 * i + 1;

                if (c >= n)
                        return;
                if (c + 1 < n && comes_before(&heap[c], &heap[c + 1]))
                        c++;
                if (!comes_before(&heap[i], &heap[c]))
                        return;
                swap(&heap[i], &heap[c]);
                i = c;
        }
}

/*
 * Bring the first `most` of n candidates to the front, in order; the others stand behind in any order. A heap whose
 * root is the last of those kept: each other candidate is compared with it once.
 */
static void sort_first(struct warm_candidate *c, uint32_t n, uint32_t most) {
        if (most < n) {
                for (uint32_t i = 0; i < most; i++)
                        for (uint32_t j = i; j > 0 && comes_before(&c[(j - 1) / 2], &c[j]);
                             j = (j - 1) / 2)
                                swap(&c[j], &c[(j - 1) / 2]);
                for (uint32_t i = most; i < n; i++) {
                        if (!comes_before(&c[i], &c[0]))
                                continue;
                        swap(&c[i], &c[0]);
                        sift(c, most);
                }
                n = most;
        }
        qsort(c, n, sizeof(*c), compare);
}

/* The tokens that may be sampled. A banned one is marked by its bit's absence, so a double ban is no matter. */
static uint32_t candidates(const struct warm_sampling *s, const float *logits, uint32_t n_vocab,
                           struct warm_candidate *ret_candidates) {
        uint32_t n = 0, kept = 0;

        for (uint32_t word = 0; word * 64 < n_vocab; word++) {
                uint64_t bits = s->allowed ? s->allowed[word] : UINT64_MAX;

                for (; bits; bits &= bits - 1) {
                        uint32_t id = word * 64 + (uint32_t) __builtin_ctzll(bits);

                        if (id >= n_vocab)
                                break;
                        ret_candidates[n++] = (struct warm_candidate){ logits[id], (int32_t) id };
                }
        }
        if (s->n_banned == 0)
                return n;
        for (uint32_t i = 0; i < n; i++) {
                bool banned = false;

                for (uint32_t j = 0; j < s->n_banned && !banned; j++)
                        banned = s->banned[j] == ret_candidates[i].id;
                if (!banned)
                        ret_candidates[kept++] = ret_candidates[i];
        }
        return kept;
}

/* Candidates with a temperature; sorted as far as anybody looked. */
struct ranking {
        struct warm_candidate *c;
        uint32_t n, n_sorted;
        float temperature;
        float shift; /* the largest logit over the temperature */
};

/* Weight of a rank, 1 for the first. Ranks are asked for in ascending order. */
static float rank_weight(struct ranking *r, uint32_t rank) {
        if (rank == r->n_sorted) {
                uint32_t more = r->n_sorted ? r->n_sorted * 4 : SORT_FIRST;

                more = more > r->n - rank ? r->n - rank : more;
                sort_first(r->c + rank, r->n - rank, more);
                r->n_sorted += more;
        }
        return warm_expf(r->c[rank].logit / r->temperature - r->shift);
}

/*
 * Temperature, top_p, min_p and the draw. A head that top_p ends is as long as one that min_p ends or shorter, or the
 * other way round: both cut the same descending list, so one pass finds the shorter.
 */
static int32_t draw(const struct warm_kernels *k, const struct warm_sampling *s,
                    struct warm_candidate *c, uint32_t n, uint32_t position, float *scaled) {
        struct ranking r = { .c = c, .n = n, .temperature = s->temperature };
        double mass, head = 0, target;
        uint32_t i;

        if (s->top_k && s->top_k < n) {
                sort_first(c, n, s->top_k);
                r.n = r.n_sorted = s->top_k;
        }
        for (i = 0; i < r.n; i++)
                scaled[i] = c[i].logit / s->temperature;
        r.shift = warm_max(k, scaled, r.n);
        mass = warm_exp_sum(k, scaled, r.shift, scaled, r.n);
        if (s->top_p < 1 || s->min_p > 0) {
                for (i = 0; i < r.n; i++) {
                        float w = rank_weight(&r, i);

                        if (i > 0 && (head >= s->top_p * mass || w < s->min_p))
                                break;
                        head += w;
                }
                r.n = i;
                mass = head;
                head = 0;
        }
        target = warm_uniform(s->seed, position) * mass;
        for (i = 0; i + 1 < r.n; i++) {
                head += rank_weight(&r, i);
                if (head > target)
                        break;
        }
        (void) rank_weight(&r, i);
        return c[i].id;
}

static int32_t choose(const struct warm_kernels *k, const struct warm_row *row, const float *logits,
                      int32_t best, uint32_t n_vocab, const struct warm_sample_scratch *scratch) {
        struct warm_candidate *c = scratch->candidates;
        const struct warm_sampling *s = row->sampling;
        uint32_t n, first = 0;

        if (s->temperature == 0 && !s->allowed && s->n_banned == 0)
                return best;
        n = candidates(s, logits, n_vocab, c);
        if (n == 0)
                return -1;
        if (s->temperature == 0) {
                for (uint32_t i = 1; i < n; i++)
                        if (comes_before(&c[i], &c[first]))
                                first = i;
                return c[first].id;
        }
        return draw(k, s, c, n, row->position + 1, scratch->floats);
}

void warm_sample_row(const struct warm_kernels *k, const struct warm_row *row, const float *logits,
                     const struct warm_segment *segments, uint32_t n_vocab,
                     const struct warm_sample_scratch *scratch) {
        struct warm_candidate *c = scratch->candidates;
        struct warm_result *result = row->result;
        uint32_t best;
        double all = log_mass(segments, (n_vocab - 1) / WARM_SAMPLE_SEGMENT + 1, &best);

        if (row->want & WARM_WANT_TOKEN) {
                result->token = choose(k, row, logits, segments[best].best, n_vocab, scratch);
                result->logprob =
                        result->token < 0 ? 0 : (float) ((double) logits[result->token] - all);
        }
        if (row->want & WARM_WANT_LOGPROB)
                result->scored_logprob = (float) ((double) logits[row->scored] - all);
        if (row->want & WARM_WANT_TOP) {
                uint32_t n = row->n_top < n_vocab ? row->n_top : n_vocab;

                for (uint32_t i = 0; i < n_vocab; i++)
                        c[i] = (struct warm_candidate){ logits[i], (int32_t) i };
                sort_first(c, n_vocab, n);
                result->n_top = n;
                for (uint32_t i = 0; i < n; i++) {
                        result->top[i].token = c[i].id;
                        result->top[i].logprob = (float) ((double) c[i].logit - all);
                }
        }
        if (row->want & WARM_WANT_LOGITS)
                memcpy(result->logits, logits, n_vocab * sizeof(*logits));
}
