/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: what a backend needs to know of a model. Sizes, layers as tables, tensors. No tokenizer.
 *
 * A new architecture fills this table (daemon/model/arch-*.c); it does not bring a forward pass. What a field can
 * say and no backend computes yet is refused by name at load: warm_backend_load() returns -EOPNOTSUPP and a
 * sentence.
 *
 * The plan and the bytes its tensors point at are owned by the caller and need to live only until
 * warm_backend_load() has returned.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quant.h"

#define WARM_PLAN_LAYERS_MAX 512U
#define WARM_PLAN_GROUPS_MAX 8U

/* Tokens a KV block holds; one number everywhere (cache, backend, scheduler). */
#define WARM_BLOCK_TOKENS 32U

enum warm_mixer {
        WARM_MIXER_ATTENTION,
        WARM_MIXER_LATENT_ATTENTION,
        WARM_MIXER_STATE_SPACE,
        WARM_MIXER_LINEAR_ATTENTION,
        WARM_MIXER_GATED_DELTA,
};

enum warm_norm { WARM_NORM_NONE, WARM_NORM_RMS, WARM_NORM_LAYER };

/* Which pairs rotate: (2i, 2i+1) as llama's GGUF files have them, or (i, i + n/2) as qwen2 and qwen3. */
enum warm_rope { WARM_ROPE_NONE, WARM_ROPE_ADJACENT, WARM_ROPE_HALVES };

enum warm_rope_scaling { WARM_ROPE_SCALING_NONE, WARM_ROPE_SCALING_LINEAR, WARM_ROPE_SCALING_YARN };

enum warm_ffn { WARM_FFN_GATED, WARM_FFN_PLAIN, WARM_FFN_EXPERTS };

enum warm_activation {
        WARM_ACTIVATION_SILU,
        WARM_ACTIVATION_GELU,
        WARM_ACTIVATION_GELU_TANH,
        WARM_ACTIVATION_RELU
};

enum warm_shard { WARM_SHARD_NONE, WARM_SHARD_ROWS, WARM_SHARD_COLS };

/*
 * A matrix maps n_cols inputs to n_rows outputs; data holds n_rows rows, each contiguous
 * (GGUF's ne[0] is n_cols). A vector has n_rows 1. data NULL: the tensor is absent.
 */
struct warm_tensor {
        const void *data; /* borrowed, any alignment */
        uint64_t n_cols;
        uint64_t n_rows;
        uint64_t bytes;
        enum warm_type type;
        enum warm_shard shard;     /* axis to cut over several devices */
        const float *row_scales;   /* [n_rows] or NULL: each row times this */
        const float *group_scales; /* [n_rows][n_cols / group_cols] or NULL */
        uint32_t group_cols;
        float tensor_scale;           /* 0 means 1 */
        const uint32_t *outlier_cols; /* [n_outlier_cols] columns kept in float, or NULL */
        const float *outlier_values;  /* [n_rows][n_outlier_cols] */
        uint32_t n_outlier_cols;
};

struct warm_rope_params {
        enum warm_rope kind;
        enum warm_rope_scaling scaling;
        uint32_t n_dims; /* rotated dimensions of a head: all or the first ones */
        float base;
        float scale;            /* positions times this (linear); 1 if none */
        float attention_factor; /* cos and sin times this; 1 if none */
        float yarn_ext, yarn_beta_fast, yarn_beta_slow;
        uint32_t n_context_original;
        const float *factors; /* [n_dims / 2] divisors of each frequency (llama 3), or NULL */
};

struct warm_plan_layer {
        enum warm_mixer mixer;
        uint32_t group;    /* index into warm_plan.groups: whose blocks hold its KV */
        int32_t kv_source; /* the layer whose KV it reads, or -1: its own */

        uint32_t n_heads;
        uint32_t n_kv_heads; /* divides n_heads */
        uint32_t head_dim_k;
        uint32_t head_dim_v;
        uint32_t latent_rank; /* latent attention only */
        bool causal;
        uint32_t window;                    /* tokens visible behind a row; 0: all */
        float attention_scale;              /* scores times this; usually 1 / sqrt(head_dim_k) */
        float attention_soft_cap;           /* cap * tanh(s / cap); 0: none */
        struct warm_tensor attention_sinks; /* [n_heads] */
        struct warm_rope_params rope;

        enum warm_norm norm; /* kind of all norms of this layer */
        float norm_epsilon;
        float residual_scale;               /* of what a mixer or ffn adds; 1 if none */
        struct warm_tensor mixer_norm;      /* before the mixer, [dim] */
        struct warm_tensor mixer_post_norm; /* after it, before the residual */
        struct warm_tensor ffn_norm;
        struct warm_tensor ffn_post_norm;

        struct warm_tensor q, k, v,
                o; /* [n_heads*head_dim_k, dim], [n_kv_heads*..., dim], ..., [dim, n_heads*head_dim_v] */
        struct warm_tensor q_bias, k_bias, v_bias, o_bias;
        struct warm_tensor q_norm, k_norm; /* RMS over each head, [head_dim_k], before rope */

        uint32_t conv_width; /* state layers */
        uint32_t state_rows, state_cols;

        enum warm_ffn ffn;
        enum warm_activation activation;
        uint32_t n_ff;
        struct warm_tensor gate, up, down; /* [n_ff, dim], [n_ff, dim], [dim, n_ff] */
        struct warm_tensor gate_bias, up_bias, down_bias;
        uint32_t n_experts, n_experts_used;
        struct warm_tensor router;
};

/* Layers whose cached state lives equally long. */
struct warm_plan_group {
        uint32_t window; /* tokens a block must stay for; 0: for ever */
        bool state;      /* a block is one state snapshot, not 32 tokens */
};

struct warm_plan {
        uint32_t dim;
        uint32_t n_vocab;
        uint32_t n_context; /* positions the model was trained for */
        uint32_t n_layers;
        uint32_t n_groups;
        struct warm_plan_layer *layers; /* [n_layers], owned by whoever made the plan */
        struct warm_plan_group groups[WARM_PLAN_GROUPS_MAX];

        struct warm_tensor embedding; /* [n_vocab, dim] */
        struct warm_tensor positions; /* learned positions [n_context, dim], or absent */
        struct warm_tensor output_norm;
        struct warm_tensor output_norm_bias;
        struct warm_tensor output; /* [n_vocab, dim]; absent: tied to the embedding */
        struct warm_tensor output_bias;
        enum warm_norm norm;
        float norm_epsilon;
        float embedding_scale; /* 1 if none */
        float logit_scale;     /* 1 if none */
        float logit_soft_cap;  /* 0: none */

        uint32_t n_extra_heads; /* Medusa */
        uint32_t n_taps;        /* EAGLE: hidden rows wanted from these layers */
        uint32_t taps[8];
};
