/* SPDX-License-Identifier: Apache-2.0 */
/* qwen2: Qwen 2 and 2.5, Qwen2.5-Coder, the models that ship. RoPE turns halves; q, k and v have biases. */
#include "arch.h"

static const struct warm_arch_tensor layer_tensors[] = {
        WARM_ARCH_ATTENTION,
        WARM_ARCH_LAYER("attn_q.bias", q_bias, WARM_SIZE_ONE, WARM_SIZE_Q, WARM_SHARD_COLS, false),
        WARM_ARCH_LAYER("attn_k.bias", k_bias, WARM_SIZE_ONE, WARM_SIZE_K, WARM_SHARD_COLS, false),
        WARM_ARCH_LAYER("attn_v.bias", v_bias, WARM_SIZE_ONE, WARM_SIZE_V, WARM_SHARD_COLS, false),
        WARM_ARCH_FFN,
        { 0 },
};

const struct warm_arch warm_arch_qwen2 = {
        .name = "qwen2",
        .rope = WARM_ROPE_HALVES,
        .activation = WARM_ACTIVATION_SILU,
        .model_tensors = warm_arch_model_tensors,
        .layer_tensors = layer_tensors,
        .refused = warm_arch_refused,
};
