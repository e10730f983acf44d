/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the CPU backend share: the backend, its weights, and the scratch of a step.
 *
 * Weights lie in one arena of anonymous memory (huge pages where the kernel gives them), scratch in another that is
 * reserved at load for the largest slice and touched only as far as steps need it. Nothing is allocated in a step.
 *
 * A step is computed in slices of WARM_CPU_SLICE rows, each through all layers: results do not depend on it.
 */
#pragma once

#include "attention.h"
#include "kernels/backend.h"
#include "kv.h"
#include "matrix.h"
#include "kernels/rope.h"
#include "sample.h"
#include "threads.h"

#define WARM_CPU_NUMERICS  1U /* raise when any result may change */
#define WARM_CPU_KV_LAYOUT 1U /* raise when the order inside a tile changes */

#define WARM_CPU_SLICE 256U /* rows computed together: acts of a slice stay in L2 (untuned guess) */
#define WARM_CPU_FEW                                                                               \
        4U /* rows up to which each thread prepares its own activations: a barrier costs more */

/* Logits computed together: as many rows as fit, at least WARM_CPU_FEW. */
#define WARM_CPU_LOGITS_BYTES (8ULL << 20)

struct warm_cpu_layer {
        uint32_t group;
        uint32_t n_heads, n_kv_heads;
        uint32_t head_dim_k, head_dim_v;
        uint32_t window;
        float attention_scale, attention_soft_cap;
        uint32_t rope; /* index into the ropes */
        float norm_epsilon, residual_scale;
        enum warm_ffn ffn;
        enum warm_activation activation;
        uint32_t n_ff;
        uint64_t kv_values; /* where its KV starts in a block, in values */

        struct warm_matrix q, k, v, o, gate, up, down;
        /* borrowed from the arena; NULL: absent */
        const float *mixer_norm, *ffn_norm, *q_norm, *k_norm;
        const float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias;
};

/* A thread's own scratch. */
struct warm_cpu_worker {
        struct warm_acts acts; /* of WARM_CPU_FEW rows */
        float *normed;         /* [WARM_CPU_FEW][dim] */
        float *attention;      /* cut anew for each layer's shape */
        float *segment;        /* [WARM_SAMPLE_SEGMENT] */
        struct warm_sample_scratch sample;
};

/* Rows of one sequence that share an attention unit. */
struct warm_cpu_unit {
        uint32_t begin, n;
};

struct warm_cpu_scratch {
        void *arena;
        uint64_t arena_bytes;
        uint64_t acts_bytes;
        float *x;                      /* [slice][dim] the residual stream */
        float *normed;                 /* [slice][dim], and what a product adds to x */
        float *q;                      /* [slice][n_heads * head_dim_k] */
        float *k, *v;                  /* [slice][n_kv_heads * head_dim] */
        float *mixed;                  /* [slice][n_heads * head_dim_v] */
        float *gate;                   /* [slice][n_ff] */
        float *up;                     /* [slice][n_ff] */
        float *turns;                  /* [n_ropes][slice][WARM_ROPE_DIMS_MAX] */
        float *logits;                 /* [n_logit_rows][n_vocab] */
        struct warm_segment *segments; /* [n_logit_rows][segments] */
        uint32_t n_logit_rows;
        struct warm_acts acts; /* of a slice */
        struct warm_cpu_worker *workers;
        struct warm_cpu_unit units[WARM_CPU_SLICE];
        uint32_t rows[WARM_CPU_SLICE]; /* place in x -> row of the slice */
};

struct warm_weights {
        uint32_t dim, n_vocab, n_context, n_layers, n_groups;
        float norm_epsilon, embedding_scale, logit_scale, logit_soft_cap;
        struct warm_cpu_layer *layers;
        struct warm_matrix embedding, output; /* output is the embedding if tied */
        const float *output_norm, *output_bias;
        struct warm_rope_table *ropes; /* [n_ropes] */
        uint32_t n_ropes;
        uint32_t group_windows[WARM_PLAN_GROUPS_MAX]; /* slots a row may see; UINT32_MAX: all */
        uint64_t block_values[WARM_PLAN_GROUPS_MAX];
        uint32_t unit_rows; /* rows an attention unit has at most */

        void *arena;
        uint64_t arena_bytes;
        uint64_t tables_bytes; /* layers, ropes */
        struct warm_kv kv;
        struct warm_cpu_scratch scratch;
};

struct warm_cpu_backend {
        struct warm_backend base;
        struct warm_threads *threads;
        const struct warm_kernels *kernels;
        const struct warm_attention_kernels *attention;
        enum warm_isa isa;
        uint64_t scratch_bytes;
        uint64_t n_steps;
        warm_progress_fn load_progress; /* or NULL */
        void *load_userdata;
};

/* warm_cpu_backend_new() held to an instruction set not above `most` (tests compare their bits). */
int warm_cpu_backend_new_isa(const struct warm_backend_config *config, enum warm_isa most,
                             struct warm_backend **ret_backend);

/* load.c: as warm_backend_load(). */
int warm_cpu_load(struct warm_cpu_backend *b, const struct warm_plan *plan,
                  struct warm_weights **ret_weights, char **ret_why);
struct warm_weights *warm_cpu_weights_free(struct warm_cpu_backend *b, struct warm_weights *w);

/* scratch.c. Return: 0; -ENOMEM; -EOVERFLOW. */
int warm_cpu_scratch_init(struct warm_cpu_scratch *s, const struct warm_weights *w,
                          uint32_t n_threads);
void warm_cpu_scratch_deinit(struct warm_cpu_scratch *s, uint32_t n_threads);
uint64_t warm_cpu_scratch_bytes(const struct warm_cpu_scratch *s);

/* measure.c: as warm_backend_measure(). */
int warm_cpu_measure(struct warm_cpu_backend *b, double *ret_copy_bytes_per_s,
                     double *ret_flop_per_s);

/* step.c: compute a step that was checked. */
void warm_cpu_step_run(struct warm_cpu_backend *b, struct warm_weights *w,
                       const struct warm_step *step);
