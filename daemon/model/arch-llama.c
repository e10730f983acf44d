/* SPDX-License-Identifier: Apache-2.0 */
/*
 * llama: Llama 1 to 3, Mistral, Codestral, SmolLM, DeepSeek-Coder 1, Seed-Coder, Granite Code 3B and 8B. RoPE turns
 * adjacent pairs (the converter permutes q and k for it); biases where a model has them; Llama 3 brings the divisors
 * of its RoPE frequencies in rope_freqs.weight.
 */
#include "arch.h"

static const struct warm_arch_tensor layer_tensors[] = {
        WARM_ARCH_ATTENTION,
        WARM_ARCH_LAYER("attn_q.bias", q_bias, WARM_SIZE_ONE, WARM_SIZE_Q, WARM_SHARD_COLS, true),
        WARM_ARCH_LAYER("attn_k.bias", k_bias, WARM_SIZE_ONE, WARM_SIZE_K, WARM_SHARD_COLS, true),
        WARM_ARCH_LAYER("attn_v.bias", v_bias, WARM_SIZE_ONE, WARM_SIZE_V, WARM_SHARD_COLS, true),
        WARM_ARCH_LAYER("attn_output.bias", o_bias, WARM_SIZE_ONE, WARM_SIZE_DIM, WARM_SHARD_NONE,
                        true),
        WARM_ARCH_FFN,
        WARM_ARCH_LAYER("ffn_gate.bias", gate_bias, WARM_SIZE_ONE, WARM_SIZE_FF, WARM_SHARD_COLS,
                        true),
        WARM_ARCH_LAYER("ffn_up.bias", up_bias, WARM_SIZE_ONE, WARM_SIZE_FF, WARM_SHARD_COLS, true),
        WARM_ARCH_LAYER("ffn_down.bias", down_bias, WARM_SIZE_ONE, WARM_SIZE_DIM, WARM_SHARD_NONE,
                        true),
        { 0 },
};

const struct warm_arch warm_arch_llama = {
        .name = "llama",
        .rope = WARM_ROPE_ADJACENT,
        .activation = WARM_ACTIVATION_SILU,
        .model_tensors = warm_arch_model_tensors,
        .layer_tensors = layer_tensors,
        .refused = warm_arch_refused,
        .rope_factors = true,
};
