/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiny random models in memory, one feature turned at a time, for tests of the backends.
 */
#pragma once

#include "kernels/backend.h"

struct tiny_shape {
        const char *name;
        uint32_t dim, n_vocab, n_context, n_layers;
        uint32_t n_heads, n_kv_heads, head_dim_k, head_dim_v, n_ff;
        enum warm_type type; /* of matrices: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q6_K */
        enum warm_rope rope;
        uint32_t rope_dims; /* 0: the whole head */
        enum warm_rope_scaling scaling;
        bool factors;    /* llama 3's frequency factors */
        bool biases;     /* of q, k, v, o, gate, up, down and the output */
        bool head_norms; /* of q and k */
        bool untied;
        uint32_t window; /* of every second layer, in a group of its own */
        float soft_cap;  /* of attention and, times 3, of logits */
        enum warm_ffn ffn;
        enum warm_activation activation;
        bool scales; /* of embedding, residual and logits */
};

struct tiny {
        struct warm_plan plan;
        void *parts[512]; /* owned */
        uint32_t n_parts;
        uint64_t state; /* of the random numbers */
};

/* The shapes that every backend is tested with; ends with a NULL name. */
extern const struct tiny_shape tiny_shapes[];

/* Aborts when out of memory. */
struct tiny *tiny_new(const struct tiny_shape *shape, uint64_t seed);
struct tiny *tiny_free(struct tiny *t);

/* Uniform in [-1, 1). */
float tiny_random(uint64_t *state);
uint64_t tiny_random_bits(uint64_t *state);
