/* SPDX-License-Identifier: Apache-2.0 */
/* qwen3: the dense Qwen 3. RoPE turns halves; an RMS norm over each head of q and k; head_dim is its own number. */
#include "arch.h"

static const struct warm_arch_tensor layer_tensors[] = {
        WARM_ARCH_ATTENTION,
        WARM_ARCH_LAYER("attn_q_norm.weight", q_norm, WARM_SIZE_ONE, WARM_SIZE_HEAD_DIM_K,
                        WARM_SHARD_NONE, false),
        WARM_ARCH_LAYER("attn_k_norm.weight", k_norm, WARM_SIZE_ONE, WARM_SIZE_HEAD_DIM_K,
                        WARM_SHARD_NONE, false),
        WARM_ARCH_FFN,
        { 0 },
};

const struct warm_arch warm_arch_qwen3 = {
        .name = "qwen3",
        .rope = WARM_ROPE_HALVES,
        .activation = WARM_ACTIVATION_SILU,
        .model_tensors = warm_arch_model_tensors,
        .layer_tensors = layer_tensors,
        .refused = warm_arch_refused,
};
