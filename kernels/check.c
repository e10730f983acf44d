/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three tables: what a model, a layer and a tensor may not ask for (-EOPNOTSUPP), then rules of shape (-EINVAL).
 * Each refusal names the field in words; for a layer with its number.
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "rope.h"

#define DIM_MAX      (1U << 16)
#define VOCAB_MAX    (1U << 24)
#define HEADS_MAX    1024U
#define HEAD_DIM_MAX 256U
#define FF_MAX       (1U << 20)
#define CONTEXT_MAX  (1U << 24)

#define GIVEN(t) ((t).data != NULL)

/* What a plan may say and this backend does not compute: condition (on p), name. */
#define MODEL_REFUSALS(X)                                                                          \
        X(GIVEN(p->positions), "learned positions")                                                \
        X(GIVEN(p->output_norm_bias), "a bias of the output norm")                                 \
        X(p->norm != WARM_NORM_RMS, "an output norm other than RMS")                               \
        X(p->n_extra_heads > 0, "extra heads (Medusa)")                                            \
        X(p->n_taps > 0, "hidden rows from tap layers (EAGLE)")

/* The same on one layer (l). */
#define LAYER_REFUSALS(X)                                                                          \
        X(l->mixer != WARM_MIXER_ATTENTION, "a mixer other than attention")                        \
        X(l->kv_source >= 0, "KV of another layer")                                                \
        X(l->latent_rank > 0, "latent attention")                                                  \
        X(!l->causal, "bidirectional attention")                                                   \
        X(GIVEN(l->attention_sinks), "attention sinks")                                            \
        X(l->norm != WARM_NORM_RMS, "norms other than RMS")                                        \
        X(GIVEN(l->mixer_post_norm), "a norm after the mixer")                                     \
        X(GIVEN(l->ffn_post_norm), "a norm after the feed-forward part")                           \
        X(l->conv_width > 0, "convolutions")                                                       \
        X(l->state_rows > 0 || l->state_cols > 0, "recurrent state")                               \
        X(l->ffn == WARM_FFN_EXPERTS || l->n_experts > 0 || l->n_experts_used > 0 ||               \
                  GIVEN(l->router),                                                                \
          "a mixture of experts")

/* The same on one tensor (t). */
#define TENSOR_REFUSALS(X)                                                                         \
        X(t->row_scales, "row scales")                                                             \
        X(t->group_scales || t->group_cols > 0, "group scales")                                    \
        X(t->tensor_scale != 0 && t->tensor_scale != 1, "a tensor scale")                          \
        X(t->n_outlier_cols > 0, "outlier columns")

static int refuse(char **ret_why, int code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

static int refuse(char **ret_why, int code, const char *format, ...) {
        va_list args;

        if (ret_why) {
                va_start(args, format);
                if (vasprintf(ret_why, format, args) < 0)
                        *ret_why = NULL;
                va_end(args);
        }
        return code;
}

/* Where a message points: "layer 3: " or nothing. */
struct place {
        char **ret_why;
        char text[24];
};

static int unsupported(const struct place *at, const char *what) {
        return refuse(at->ret_why, -EOPNOTSUPP, "%s%s: this version does not compute this yet",
                      at->text, what);
}

static int incoherent(const struct place *at, const char *what) {
        return refuse(at->ret_why, -EINVAL, "%s%s", at->text, what);
}

/* A tensor's shape and bytes; absent is well unless it is needed. */
static int check_tensor(const struct place *at, const char *name, const struct warm_tensor *t,
                        uint64_t n_rows, uint64_t n_cols, bool needed) {
        uint64_t bytes;

        if (!GIVEN(*t)) {
                if (!needed)
                        return 0;
                return refuse(at->ret_why, -EINVAL, "%stensor %s is missing", at->text, name);
        }
#define X(condition, what)                                                                         \
        if (condition)                                                                             \
                return refuse(at->ret_why, -EOPNOTSUPP,                                            \
                              "%stensor %s: %s: this version does not compute this yet", at->text, \
                              name, what);
        TENSOR_REFUSALS(X)
#undef X
        if (t->n_rows != n_rows || t->n_cols != n_cols)
                return refuse(at->ret_why, -EINVAL,
                              "%stensor %s is %llu x %llu; the plan's sizes need %llu x %llu",
                              at->text, name, (unsigned long long) t->n_rows,
                              (unsigned long long) t->n_cols, (unsigned long long) n_rows,
                              (unsigned long long) n_cols);
        if ((unsigned) t->type >= _WARM_TYPE_N)
                return refuse(at->ret_why, -EINVAL, "%stensor %s: unknown element type", at->text,
                              name);
        if (warm_type_row_bytes(t->type, n_cols, &bytes) < 0 ||
            __builtin_mul_overflow(bytes, n_rows, &bytes))
                return refuse(at->ret_why, -EINVAL,
                              "%stensor %s: rows of %llu values are not whole blocks of %s",
                              at->text, name, (unsigned long long) n_cols,
                              warm_type_info(t->type)->name);
        if (t->bytes != bytes)
                return refuse(at->ret_why, -EINVAL, "%stensor %s has %llu bytes, not %llu",
                              at->text, name, (unsigned long long) t->bytes,
                              (unsigned long long) bytes);
        return 0;
}

static int check_rope(const struct place *at, const struct warm_plan_layer *l) {
        const struct warm_rope_params *p = &l->rope;

        if (p->kind == WARM_ROPE_NONE)
                return 0;
        if (p->kind != WARM_ROPE_ADJACENT && p->kind != WARM_ROPE_HALVES)
                return incoherent(at, "unknown kind of rotary positions");
        if (p->n_dims == 0 || p->n_dims % 2 || p->n_dims > l->head_dim_k)
                return incoherent(at, "rotated dimensions are not an even part of a head");
        if (!(p->base > 1) || !isfinite(p->base))
                return incoherent(at, "the base of the rotary positions is not above 1");
        if (!(p->attention_factor > 0) || !isfinite(p->attention_factor))
                return incoherent(at,
                                  "the attention factor of the rotary positions is not positive");
        if ((unsigned) p->scaling > WARM_ROPE_SCALING_YARN)
                return incoherent(at, "unknown scaling of the rotary positions");
        if (p->scaling != WARM_ROPE_SCALING_NONE && !(p->scale > 0 && isfinite(p->scale)))
                return incoherent(at, "the scale of the rotary positions is not positive");
        if (p->scaling == WARM_ROPE_SCALING_YARN &&
            (!(p->yarn_beta_slow > 0) || !(p->yarn_beta_fast >= p->yarn_beta_slow) ||
             !(p->yarn_ext >= 0 && p->yarn_ext <= 1) || p->n_context_original == 0))
                return incoherent(at, "YaRN's numbers do not fit together");
        for (uint32_t i = 0; p->factors && i < p->n_dims / 2; i++)
                if (!(p->factors[i] > 0) || !isfinite(p->factors[i]))
                        return incoherent(at, "a frequency factor is not positive");
        return 0;
}

static int check_attention(const struct place *at, const struct warm_plan *p,
                           const struct warm_plan_layer *l) {
        if (l->group >= p->n_groups)
                return incoherent(at, "its group does not exist");
        if (l->n_heads == 0 || l->n_heads > HEADS_MAX || l->n_kv_heads == 0 ||
            l->n_heads % l->n_kv_heads)
                return incoherent(at, "KV heads do not divide the heads");
        if (l->head_dim_k == 0 || l->head_dim_k > HEAD_DIM_MAX || l->head_dim_v == 0 ||
            l->head_dim_v > HEAD_DIM_MAX)
                return incoherent(at, "a head's dimension is not between 1 and 256");
        if (!isfinite(l->attention_scale) || l->attention_scale == 0)
                return incoherent(at, "the attention scale is not a number other than 0");
        if (!(l->attention_soft_cap >= 0) || !isfinite(l->attention_soft_cap))
                return incoherent(at, "the attention soft cap is negative");
        return check_rope(at, l);
}

static int check_layer_tensors(const struct place *at, const struct warm_plan *p,
                               const struct warm_plan_layer *l) {
        uint64_t dim = p->dim, ff = l->n_ff;
        uint64_t q = (uint64_t) l->n_heads * l->head_dim_k;
        uint64_t k = (uint64_t) l->n_kv_heads * l->head_dim_k;
        uint64_t v = (uint64_t) l->n_kv_heads * l->head_dim_v;
        uint64_t out = (uint64_t) l->n_heads * l->head_dim_v;
        bool gated = l->ffn == WARM_FFN_GATED;
        const struct {
                const char *name;
                const struct warm_tensor *tensor;
                uint64_t n_rows, n_cols;
                bool needed;
        } rules[] = {
                { "mixer_norm", &l->mixer_norm, 1, dim, true },
                { "q", &l->q, q, dim, true },
                { "k", &l->k, k, dim, true },
                { "v", &l->v, v, dim, true },
                { "o", &l->o, dim, out, true },
                { "q_bias", &l->q_bias, 1, q, false },
                { "k_bias", &l->k_bias, 1, k, false },
                { "v_bias", &l->v_bias, 1, v, false },
                { "o_bias", &l->o_bias, 1, dim, false },
                { "q_norm", &l->q_norm, 1, l->head_dim_k, false },
                { "k_norm", &l->k_norm, 1, l->head_dim_k, false },
                { "ffn_norm", &l->ffn_norm, 1, dim, true },
                { "gate", &l->gate, ff, dim, gated },
                { "gate_bias", &l->gate_bias, 1, ff, false },
                { "up", &l->up, ff, dim, true },
                { "up_bias", &l->up_bias, 1, ff, false },
                { "down", &l->down, dim, ff, true },
                { "down_bias", &l->down_bias, 1, dim, false },
        };

        for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
                int r = check_tensor(at, rules[i].name, rules[i].tensor, rules[i].n_rows,
                                     rules[i].n_cols, rules[i].needed);

                if (r < 0)
                        return r;
        }
        if (!gated && (GIVEN(l->gate) || GIVEN(l->gate_bias)))
                return incoherent(at, "a plain feed-forward part has no gate");
        return 0;
}

static int check_layer(const struct place *at, const struct warm_plan *p,
                       const struct warm_plan_layer *l) {
        int r;

#define X(condition, what)                                                                         \
        if (condition)                                                                             \
                return unsupported(at, what);
        LAYER_REFUSALS(X)
#undef X
        if (l->ffn != WARM_FFN_GATED && l->ffn != WARM_FFN_PLAIN)
                return incoherent(at, "unknown kind of feed-forward part");
        if ((unsigned) l->activation > WARM_ACTIVATION_RELU)
                return incoherent(at, "unknown activation");
        if (l->n_ff == 0 || l->n_ff > FF_MAX)
                return incoherent(at, "the feed-forward part's width is out of range");
        if (!(l->norm_epsilon >= 0) || !isfinite(l->norm_epsilon))
                return incoherent(at, "the norms' epsilon is negative");
        if (!isfinite(l->residual_scale) || l->residual_scale == 0)
                return incoherent(at, "the residual scale is not a number other than 0");
        r = check_attention(at, p, l);
        return r < 0 ? r : check_layer_tensors(at, p, l);
}

static int check_model(const struct place *at, const struct warm_plan *p) {
        int r;

#define X(condition, what)                                                                         \
        if (condition)                                                                             \
                return unsupported(at, what);
        MODEL_REFUSALS(X)
#undef X
        if (p->dim == 0 || p->dim > DIM_MAX)
                return incoherent(at, "the model's width is out of range");
        if (p->n_vocab == 0 || p->n_vocab > VOCAB_MAX)
                return incoherent(at, "the vocabulary's size is out of range");
        if (p->n_context == 0 || p->n_context > CONTEXT_MAX)
                return incoherent(at, "the context's length is out of range");
        if (p->n_layers == 0 || p->n_layers > WARM_PLAN_LAYERS_MAX || !p->layers)
                return incoherent(at, "the number of layers is out of range");
        if (p->n_groups == 0 || p->n_groups > WARM_PLAN_GROUPS_MAX)
                return incoherent(at, "the number of groups is out of range");
        for (uint32_t i = 0; i < p->n_groups; i++)
                if (p->groups[i].state)
                        return unsupported(at, "groups of state snapshots");
        if (!(p->norm_epsilon >= 0) || !isfinite(p->norm_epsilon))
                return incoherent(at, "the output norm's epsilon is negative");
        if (!isfinite(p->embedding_scale) || p->embedding_scale == 0 || !isfinite(p->logit_scale) ||
            p->logit_scale == 0)
                return incoherent(at, "the embedding or logit scale is not a number other than 0");
        if (!(p->logit_soft_cap >= 0) || !isfinite(p->logit_soft_cap))
                return incoherent(at, "the logit soft cap is negative");
        r = check_tensor(at, "embedding", &p->embedding, p->n_vocab, p->dim, true);
        if (r == 0)
                r = check_tensor(at, "output", &p->output, p->n_vocab, p->dim, false);
        if (r == 0)
                r = check_tensor(at, "output_bias", &p->output_bias, 1, p->n_vocab, false);
        if (r == 0)
                r = check_tensor(at, "output_norm", &p->output_norm, 1, p->dim, true);
        return r;
}

int warm_plan_check(const struct warm_plan *plan, char **ret_why) {
        struct place at = { .ret_why = ret_why };
        int r = check_model(&at, plan);

        for (uint32_t i = 0; r == 0 && i < plan->n_layers; i++) {
                snprintf(at.text, sizeof(at.text), "layer %u: ", i);
                r = check_layer(&at, plan, &plan->layers[i]);
        }
        return r;
}
