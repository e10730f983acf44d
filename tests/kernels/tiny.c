/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tiny.h"

/* clang-format off */
#define SHAPE(name_, type_, rope_, heads, kv_heads, dim_k, dim_v, layers, ...)                             \
        { .name = name_, .dim = 64, .n_vocab = 320, .n_context = 2048, .n_layers = layers, .n_heads = heads, \
          .n_kv_heads = kv_heads, .head_dim_k = dim_k, .head_dim_v = dim_v, .n_ff = 96,                      \
          .type = WARM_TYPE_##type_, .rope = WARM_ROPE_##rope_, __VA_ARGS__ }

const struct tiny_shape tiny_shapes[] = {
        SHAPE("qwen2", Q8_0, HALVES, 4, 2, 32, 32, 2, .biases = true),
        SHAPE("qwen3", Q8_0, HALVES, 4, 2, 64, 64, 2, .head_norms = true, .untied = true),
        SHAPE("llama", Q8_0, ADJACENT, 4, 4, 32, 32, 2, .untied = true),
        SHAPE("llama3", Q8_0, ADJACENT, 4, 2, 32, 32, 2, .factors = true),
        SHAPE("multi-query", F32, HALVES, 4, 1, 32, 32, 2, .biases = true),
        SHAPE("head-80-96", Q8_0, HALVES, 2, 2, 80, 96, 2, .biases = true),
        SHAPE("head-256", Q4_0, HALVES, 1, 1, 256, 256, 1, .untied = true),
        SHAPE("partial-rope", F16, HALVES, 4, 2, 32, 32, 2, .rope_dims = 16),
        SHAPE("no-rope", Q4_0, NONE, 4, 2, 32, 32, 2, .untied = true),
        SHAPE("linear", Q4_1, HALVES, 4, 2, 32, 32, 2, .scaling = WARM_ROPE_SCALING_LINEAR),
        SHAPE("yarn", F32, HALVES, 4, 2, 32, 32, 2, .scaling = WARM_ROPE_SCALING_YARN),
        SHAPE("window", Q8_0, HALVES, 4, 2, 32, 32, 4, .window = 40),
        SHAPE("soft-cap", Q8_0, HALVES, 4, 2, 32, 32, 2, .soft_cap = 4),
        SHAPE("gelu", Q8_0, HALVES, 4, 2, 32, 32, 2, .activation = WARM_ACTIVATION_GELU, .scales = true),
        SHAPE("gelu-tanh", Q8_0, HALVES, 4, 2, 32, 32, 2, .activation = WARM_ACTIVATION_GELU_TANH, .biases = true),
        SHAPE("plain-ffn", F32, HALVES, 4, 2, 32, 32, 2, .ffn = WARM_FFN_PLAIN, .activation = WARM_ACTIVATION_GELU),
        SHAPE("relu", Q8_0, HALVES, 4, 2, 32, 32, 2, .ffn = WARM_FFN_PLAIN, .activation = WARM_ACTIVATION_RELU),
        { .name = NULL },
};
/* clang-format on */

uint64_t tiny_random_bits(uint64_t *state) {
        uint64_t x = *state += 0x9e3779b97f4a7c15ULL;

        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
        return x ^ (x >> 31);
}

float tiny_random(uint64_t *state) {
        return (float) (tiny_random_bits(state) >> 40) * 0x1p-23F - 1;
}

static void *part(struct tiny *t, uint64_t bytes) {
        void *p = calloc(1, bytes);

        assert(p && t->n_parts < sizeof(t->parts) / sizeof(*t->parts));
        return t->parts[t->n_parts++] = p;
}

static void put_half(uint8_t **to, float f) {
        uint16_t h = warm_float_to_half(f);

        memcpy(*to, &h, 2);
        *to += 2;
}

/* One block of random values about as large as most. Return: how many. */
static uint32_t put_block(struct tiny *t, enum warm_type type, float most, uint8_t **to) {
        uint32_t n = type == WARM_TYPE_Q8_0 ? 32 : 16;

        switch (type) {
        case WARM_TYPE_Q6_K:
                for (uint32_t i = 0; i < 192; i++) /* low nibbles, high bits */
                        *(*to)++ = (uint8_t) tiny_random_bits(&t->state);
                for (uint32_t i = 0; i < 16; i++) /* scales */
                        *(*to)++ = (uint8_t) (48 + tiny_random_bits(&t->state) % 32);
                put_half(to, most / (32 * 64));
                return 256;
        case WARM_TYPE_Q8_0:
                put_half(to, most * (1 + tiny_random(&t->state) / 4) / 127);
                break;
        case WARM_TYPE_Q4_0:
                put_half(to, most * (1 + tiny_random(&t->state) / 4) / 8);
                break;
        default:
                assert(type == WARM_TYPE_Q4_1);
                put_half(to, most * (1 + tiny_random(&t->state) / 4) / 8);
                put_half(to, -most);
        }
        for (uint32_t i = 0; i < n; i++)
                *(*to)++ = (uint8_t) tiny_random_bits(&t->state);
        return 32;
}

static struct warm_tensor tensor(struct tiny *t, enum warm_type type, uint64_t n_rows,
                                 uint64_t n_cols, float most) {
        struct warm_tensor w = { .n_rows = n_rows, .n_cols = n_cols, .type = type };
        uint64_t row_bytes, n = n_rows * n_cols;
        uint8_t *data;

        if (warm_type_row_bytes(type, n_cols, &row_bytes) < 0)
                abort();
        w.bytes = row_bytes * n_rows;
        w.data = data = part(t, w.bytes);
        for (uint64_t i = 0; i < n;) {
                float f = most * tiny_random(&t->state);

                if (type == WARM_TYPE_F32) {
                        memcpy(data + 4 * i++, &f, 4);
                } else if (type == WARM_TYPE_F16) {
                        put_half(&data, f);
                        i++;
                } else if (type == WARM_TYPE_BF16) {
                        uint16_t bits = warm_float_to_bf16(f);

                        memcpy(data + 2 * i++, &bits, 2);
                } else {
                        i += put_block(t, type, most, &data);
                }
        }
        return w;
}

static struct warm_tensor matrix(struct tiny *t, const struct tiny_shape *s, uint64_t n_rows,
                                 uint64_t n_cols) {
        return tensor(t, s->type, n_rows, n_cols, 1.7F / sqrtf((float) n_cols));
}

static struct warm_tensor bias(struct tiny *t, const struct tiny_shape *s, uint64_t n) {
        return s->biases ? tensor(t, WARM_TYPE_F32, 1, n, 0.3F) : (struct warm_tensor){ 0 };
}

/* Weights of a norm: about 1. */
static struct warm_tensor norm(struct tiny *t, uint64_t n) {
        struct warm_tensor w = tensor(t, WARM_TYPE_F32, 1, n, 0.3F);
        float *values = t->parts[t->n_parts - 1];

        for (uint64_t i = 0; i < n; i++)
                values[i] += 1;
        return w;
}

static void set_rope(struct tiny *t, const struct tiny_shape *s, struct warm_rope_params *p) {
        *p = (struct warm_rope_params){
                .kind = s->rope,
                .scaling = s->scaling,
                .n_dims = s->rope_dims ? s->rope_dims : s->head_dim_k,
                .base = 10000,
                .scale = s->scaling == WARM_ROPE_SCALING_NONE ? 1 : 0.25F,
                .attention_factor = s->scaling == WARM_ROPE_SCALING_YARN ? 1.138F : 1,
                .yarn_ext = 1,
                .yarn_beta_fast = 32,
                .yarn_beta_slow = 1,
                .n_context_original = 512,
        };
        if (s->factors) {
                float *f = part(t, p->n_dims / 2 * sizeof(*f));

                for (uint32_t i = 0; i < p->n_dims / 2; i++)
                        f[i] = i < p->n_dims / 4 ? 1 : 1 + (float) i / 4;
                p->factors = f;
        }
}

static void set_layer(struct tiny *t, const struct tiny_shape *s, uint32_t index) {
        struct warm_plan_layer *l = &t->plan.layers[index];
        uint64_t q = s->n_heads * s->head_dim_k, k = s->n_kv_heads * s->head_dim_k;
        uint64_t v = s->n_kv_heads * s->head_dim_v, o = s->n_heads * s->head_dim_v;

        *l = (struct warm_plan_layer){
                .kv_source = -1,
                .group = s->window && index % 2,
                .n_heads = s->n_heads,
                .n_kv_heads = s->n_kv_heads,
                .head_dim_k = s->head_dim_k,
                .head_dim_v = s->head_dim_v,
                .causal = true,
                .window = index % 2 ? s->window : 0,
                .attention_scale = 2 / sqrtf((float) s->head_dim_k),
                .attention_soft_cap = s->soft_cap,
                .norm = WARM_NORM_RMS,
                .norm_epsilon = 1e-6F,
                .residual_scale = s->scales ? 0.5F : 1,
                .mixer_norm = norm(t, s->dim),
                .ffn_norm = norm(t, s->dim),
                .q = matrix(t, s, q, s->dim),
                .k = matrix(t, s, k, s->dim),
                .v = matrix(t, s, v, s->dim),
                .o = matrix(t, s, s->dim, o),
                .q_bias = bias(t, s, q),
                .k_bias = bias(t, s, k),
                .v_bias = bias(t, s, v),
                .o_bias = bias(t, s, s->dim),
                .ffn = s->ffn,
                .activation = s->activation,
                .n_ff = s->n_ff,
                .up = matrix(t, s, s->n_ff, s->dim),
                .up_bias = bias(t, s, s->n_ff),
                .down = matrix(t, s, s->dim, s->n_ff),
                .down_bias = bias(t, s, s->dim),
        };
        set_rope(t, s, &l->rope);
        if (s->head_norms) {
                l->q_norm = norm(t, s->head_dim_k);
                l->k_norm = norm(t, s->head_dim_k);
        }
        if (s->ffn == WARM_FFN_GATED) {
                l->gate = matrix(t, s, s->n_ff, s->dim);
                l->gate_bias = bias(t, s, s->n_ff);
        }
}

struct tiny *tiny_new(const struct tiny_shape *s, uint64_t seed) {
        struct tiny *t = calloc(1, sizeof(*t));

        assert(t);
        t->state = seed;
        t->plan = (struct warm_plan){
                .dim = s->dim,
                .n_vocab = s->n_vocab,
                .n_context = s->n_context,
                .n_layers = s->n_layers,
                .n_groups = s->window ? 2 : 1,
                .layers = part(t, s->n_layers * sizeof(struct warm_plan_layer)),
                .groups = { { 0 }, { .window = s->window } },
                .embedding = tensor(t, s->type, s->n_vocab, s->dim, 1),
                .output_norm = norm(t, s->dim),
                .output_bias = bias(t, s, s->n_vocab),
                .norm = WARM_NORM_RMS,
                .norm_epsilon = 1e-6F,
                .embedding_scale = s->scales ? 3 : 1,
                .logit_scale = s->scales ? 0.7F : 1,
                .logit_soft_cap = 3 * s->soft_cap,
        };
        if (s->untied)
                t->plan.output = matrix(t, s, s->n_vocab, s->dim);
        for (uint32_t i = 0; i < s->n_layers; i++)
                set_layer(t, s, i);
        return t;
}

struct tiny *tiny_free(struct tiny *t) {
        for (uint32_t i = 0; t && i < t->n_parts; i++)
                free(t->parts[i]);
        free(t);
        return NULL;
}
