/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a row wants of its logits: the next token, the most likely ones, log-probabilities.
 *
 * The rule is in backend.h (struct warm_sampling). Log-probabilities: l - (max + log(sum of exp(l - max))), the sum
 * over segments of 1,024 ids, each as warm_exp_sum() has it, then the segments ascending in double. Deterministic;
 * logarithms are libm's in double, rounded once.
 *
 * A NaN logit counts as the lowest float, an infinite one as the largest of its sign.
 * Pure functions; scratch is the caller's. Any thread.
 */
#pragma once

#include <stdint.h>

#include "kernels/backend.h"
#include "matrix.h"

#define WARM_SAMPLE_SEGMENT 1024U

/* What a segment of a row's logits comes to; computed while the logits are in the cache. */
struct warm_segment {
        float max;
        float mass;   /* sum of exp(l - max) */
        int32_t best; /* lowest id with l == max */
};

/* A candidate: logit and id. */
struct warm_candidate {
        float logit;
        int32_t id;
};

/* For one row at a time. */
struct warm_sample_scratch {
        struct warm_candidate *candidates; /* [n_vocab] */
        float *floats;                     /* [n_vocab] */
};

/*
 * Sum up logits[0, n), ids from first on; what is not finite becomes finite first.
 *
 * @param n <= WARM_SAMPLE_SEGMENT
 * @param scratch [n]
 */
void warm_segment_sum(const struct warm_kernels *k, float *logits, uint32_t first, uint32_t n,
                      float *scratch, struct warm_segment *ret_segment);

/*
 * Fill row->result with what the row wants.
 *
 * @param logits [n_vocab] as warm_segment_sum() left them, with segments [ceil(n_vocab / 1024)]
 */
void warm_sample_row(const struct warm_kernels *k, const struct warm_row *row, const float *logits,
                     const struct warm_segment *segments, uint32_t n_vocab,
                     const struct warm_sample_scratch *scratch);
