/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Architectures as tables: which tensors a model has, of what shape, and what is constant in a family.
 *
 * A new architecture is a new arch-*.c with one struct warm_arch and a line in arch.c's list; it brings no code. A
 * tensor that the file has and the table does not name is refused: it would change results. So is a key of
 * `refused` that is set to anything but its neutral value.
 *
 * Pure functions, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gguf.h"
#include "kernels/plan.h"

/* Limits of a plan, refused by name; far beyond any model of today (untuned guesses). */
#define WARM_ARCH_DIM_MAX      65536U
#define WARM_ARCH_HEADS_MAX    1024U
#define WARM_ARCH_HEAD_DIM_MAX 1024U
#define WARM_ARCH_FF_MAX       (1U << 20)
#define WARM_ARCH_CONTEXT_MAX  (1U << 24)

/* A side of a tensor's shape. */
enum warm_arch_size {
        WARM_SIZE_ONE,
        WARM_SIZE_VOCAB,
        WARM_SIZE_DIM,
        WARM_SIZE_FF,
        WARM_SIZE_Q,          /* n_heads * head_dim_k */
        WARM_SIZE_K,          /* n_kv_heads * head_dim_k */
        WARM_SIZE_V,          /* n_kv_heads * head_dim_v */
        WARM_SIZE_O,          /* n_heads * head_dim_v */
        WARM_SIZE_HEAD_DIM_K, /* of one head */
        WARM_SIZE_ROPE_PAIRS, /* rotated dimensions / 2 */
};

/* One tensor. Its place is an offset into struct warm_plan_layer (or struct warm_plan). */
struct warm_arch_tensor {
        const char *name; /* "attn_q.weight", behind "blk.N." in a layer */
        size_t place;
        uint8_t cols; /* enum warm_arch_size: GGUF's dims[0] */
        uint8_t rows;
        uint8_t shard; /* enum warm_shard */
        bool optional;
};

/* A key behind "ARCH." that must be absent or neutral, as no plan of ours says it. */
struct warm_arch_refusal {
        const char *key;
        float neutral;
        const char *what; /* "mixtures of experts" */
};

struct warm_arch {
        const char *name; /* general.architecture */
        enum warm_rope rope;
        enum warm_activation activation;
        const struct warm_arch_tensor *model_tensors; /* ends with a NULL name */
        const struct warm_arch_tensor *layer_tensors; /* likewise */
        const struct warm_arch_refusal *refused;      /* ends with a NULL key */
        bool rope_factors;                            /* rope_freqs.weight may be there (llama 3) */
};

extern const struct warm_arch warm_arch_llama;
extern const struct warm_arch warm_arch_qwen2;
extern const struct warm_arch warm_arch_qwen3;

/* What the three of the llama family have in common. */
extern const struct warm_arch_tensor warm_arch_model_tensors[];
extern const struct warm_arch_refusal warm_arch_refused[];

/* Shorthand for the tables: a tensor of a layer, of the model. */
#define WARM_ARCH_LAYER(NAME, FIELD, ROWS, COLS, SHARD, OPTIONAL)                                  \
        { (NAME), offsetof(struct warm_plan_layer, FIELD), (COLS), (ROWS), (SHARD), (OPTIONAL) }
#define WARM_ARCH_MODEL(NAME, FIELD, ROWS, COLS, OPTIONAL)                                         \
        { (NAME), offsetof(struct warm_plan, FIELD), (COLS), (ROWS), WARM_SHARD_NONE, (OPTIONAL) }

/* A layer's matrices and the norms before them, in any model of the llama family. */
#define WARM_ARCH_ATTENTION                                                                        \
        WARM_ARCH_LAYER("attn_norm.weight", mixer_norm, WARM_SIZE_ONE, WARM_SIZE_DIM,              \
                        WARM_SHARD_NONE, false),                                                   \
                WARM_ARCH_LAYER("attn_q.weight", q, WARM_SIZE_Q, WARM_SIZE_DIM, WARM_SHARD_ROWS,   \
                                false),                                                            \
                WARM_ARCH_LAYER("attn_k.weight", k, WARM_SIZE_K, WARM_SIZE_DIM, WARM_SHARD_ROWS,   \
                                false),                                                            \
                WARM_ARCH_LAYER("attn_v.weight", v, WARM_SIZE_V, WARM_SIZE_DIM, WARM_SHARD_ROWS,   \
                                false),                                                            \
                WARM_ARCH_LAYER("attn_output.weight", o, WARM_SIZE_DIM, WARM_SIZE_O,               \
                                WARM_SHARD_COLS, false)
#define WARM_ARCH_FFN                                                                              \
        WARM_ARCH_LAYER("ffn_norm.weight", ffn_norm, WARM_SIZE_ONE, WARM_SIZE_DIM,                 \
                        WARM_SHARD_NONE, false),                                                   \
                WARM_ARCH_LAYER("ffn_gate.weight", gate, WARM_SIZE_FF, WARM_SIZE_DIM,              \
                                WARM_SHARD_ROWS, false),                                           \
                WARM_ARCH_LAYER("ffn_up.weight", up, WARM_SIZE_FF, WARM_SIZE_DIM, WARM_SHARD_ROWS, \
                                false),                                                            \
                WARM_ARCH_LAYER("ffn_down.weight", down, WARM_SIZE_DIM, WARM_SIZE_FF,              \
                                WARM_SHARD_COLS, false)

/* Return: the architecture of that name, or NULL. */
const struct warm_arch *warm_arch_find(struct warm_string name);

/*
 * Fill a plan from a file. Tensors point into the file's bytes; layers and rope factors are one allocation, the
 * plan's, freed by warm_arch_plan_deinit().
 *
 * Return: 0; -ENOMEM; -EBADMSG: a key or tensor is missing, has another shape, or is not named by the table;
 * -EOPNOTSUPP: the architecture, or something the file asks for, is not built, named; -EIO and the like: the file.
 */
int warm_arch_plan(struct warm_gguf *g, struct warm_plan *ret_plan, char **ret_why);
void warm_arch_plan_deinit(struct warm_plan *plan);

/* Call once for each tensor of a plan that is there. */
void warm_arch_each_tensor(struct warm_plan *plan,
                           void (*visit)(struct warm_tensor *tensor, void *data), void *data);
