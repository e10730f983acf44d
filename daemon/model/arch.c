/* SPDX-License-Identifier: Apache-2.0 */
/* See arch.h. One pass for all architectures: sizes, then tensors by the table, then what is left over. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "arch.h"
#include "why.h"

static const struct warm_arch *const architectures[] = {
        &warm_arch_llama,
        &warm_arch_qwen2,
        &warm_arch_qwen3,
};

const struct warm_arch_tensor warm_arch_model_tensors[] = {
        WARM_ARCH_MODEL("token_embd.weight", embedding, WARM_SIZE_VOCAB, WARM_SIZE_DIM, false),
        WARM_ARCH_MODEL("output_norm.weight", output_norm, WARM_SIZE_ONE, WARM_SIZE_DIM, false),
        WARM_ARCH_MODEL("output.weight", output, WARM_SIZE_VOCAB, WARM_SIZE_DIM, true),
        WARM_ARCH_MODEL("output.bias", output_bias, WARM_SIZE_ONE, WARM_SIZE_VOCAB, true),
        { 0 },
};

const struct warm_arch_refusal warm_arch_refused[] = {
        { "expert_count", 0, "a mixture of experts" },
        { "attention.sliding_window", 0, "sliding window attention" },
        { "attn_logit_softcapping", 0, "soft caps of attention scores" },
        { "final_logit_softcapping", 0, "soft caps of logits" },
        { "attention.clamp_kqv", 0, "clamped queries, keys and values" },
        { "attention.max_alibi_bias", 0, "ALiBi positions" },
        { "attention.scale", 0, "an attention scale of its own" },
        { "embedding_scale", 1, "scaled embeddings" },
        { "residual_scale", 1, "scaled residuals" },
        { "logit_scale", 1, "scaled logits" },
        { 0 },
};

/* Everything a plan is filled from. */
struct filler {
        struct warm_gguf *g;
        const struct warm_arch *arch;
        struct warm_plan plan;
        struct warm_rope_params rope;
        float *factors; /* [rope.n_dims / 2] behind the layers, if the file has them */
        bool *named;    /* [tensors of the file] whether the table names it; owned */
        char **ret_why;
        char key[96]; /* of the last lookup */
};

static const char *key_of(struct filler *f, const char *suffix) {
        (void) snprintf(f->key, sizeof f->key, "%s.%s", f->arch->name, suffix);
        return f->key;
}

/* A size of the model (or of one layer, where the file gives a list) within 1..max. */
static int get_size(struct filler *f, const char *suffix, uint32_t layer, uint32_t max,
                    uint32_t *ret_value) {
        uint32_t v = 0;
        int r = warm_gguf_get_u32_of(f->g, key_of(f, suffix), layer, &v, f->ret_why);

        if (r < 0)
                return r;
        if (r == WARM_GGUF_E_ABSENT)
                return warm_why(f->ret_why, -EBADMSG, "lacks the key %s; convert the model again",
                                f->key);
        if (v < 1 || v > max)
                return warm_why(f->ret_why, -EBADMSG, "%s is %u; 1 to %u are read", f->key, v, max);
        *ret_value = v;
        return 0;
}

/* The same, with a value for an absent key. */
static int get_size_or(struct filler *f, const char *suffix, uint32_t layer, uint32_t max,
                       uint32_t otherwise, uint32_t *ret_value) {
        if (!warm_gguf_find_key(f->g, key_of(f, suffix))) {
                *ret_value = otherwise;
                return 0;
        }
        return get_size(f, suffix, layer, max, ret_value);
}

static int get_float_or(struct filler *f, const char *suffix, float otherwise, float *ret_value) {
        int r = warm_gguf_get_f32(f->g, key_of(f, suffix), ret_value, f->ret_why);

        if (r == WARM_GGUF_E_ABSENT)
                *ret_value = otherwise;
        return r < 0 ? r : 0;
}

const struct warm_arch *warm_arch_find(struct warm_string name) {
        for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++)
                if (warm_string_is(name, architectures[i]->name))
                        return architectures[i];
        return NULL;
}

static int find_arch(struct filler *f) {
        char built[128] = "";
        struct warm_string name;
        int r = warm_gguf_get_string(f->g, "general.architecture", &name, f->ret_why);

        if (r < 0)
                return r;
        if (r == WARM_GGUF_E_ABSENT)
                return warm_why(f->ret_why, -EBADMSG,
                                "lacks the key general.architecture; convert the model again");
        f->arch = warm_arch_find(name);
        if (f->arch)
                return 0;
        for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
                size_t at = strlen(built);

                (void) snprintf(built + at, sizeof built - at, "%s%s", i > 0 ? ", " : "",
                                architectures[i]->name);
        }
        return warm_why(f->ret_why, -EOPNOTSUPP,
                        "has the architecture %s, which is not built; those that are: %s",
                        warm_show(name).text, built);
}

/* One part of a model holds all keys, but not all tensors. */
static int check_split(struct filler *f) {
        uint32_t n_parts = 1;
        int r = warm_gguf_get_u32(f->g, "split.count", &n_parts, f->ret_why);

        if (r < 0)
                return r;
        if (n_parts > 1)
                return warm_why(f->ret_why, -EOPNOTSUPP,
                                "is one of %u parts of a model; merge them first "
                                "(llama-gguf-split --merge)",
                                n_parts);
        return 0;
}

/* What the file may ask for and no plan of ours says. */
static int check_refused(struct filler *f) {
        for (const struct warm_arch_refusal *x = f->arch->refused; x->key; x++) {
                const struct warm_gguf_key *key = warm_gguf_find_key(f->g, key_of(f, x->key));
                bool neutral = false;
                uint32_t u;
                float v;
                int r;

                if (!key)
                        continue;
                if (key->type == WARM_GGUF_F32 || key->type == WARM_GGUF_F64) {
                        r = warm_gguf_get_f32(f->g, f->key, &v, f->ret_why);
                        neutral = r == 0 && v == x->neutral;
                } else {
                        r = warm_gguf_get_u32(f->g, f->key, &u, f->ret_why);
                        neutral = r == 0 && (float) u == x->neutral;
                }
                if (r < 0)
                        return r;
                if (!neutral)
                        return warm_why(f->ret_why, -EOPNOTSUPP,
                                        "asks for %s (%s), which is not built", x->what, f->key);
        }
        return 0;
}

static int get_model_sizes(struct filler *f) {
        struct warm_plan *p = &f->plan;
        int r;

        r = get_size(f, "block_count", 0, WARM_PLAN_LAYERS_MAX, &p->n_layers);
        if (r == 0)
                r = get_size(f, "embedding_length", 0, WARM_ARCH_DIM_MAX, &p->dim);
        if (r == 0)
                r = get_size(f, "context_length", 0, WARM_ARCH_CONTEXT_MAX, &p->n_context);
        if (r == 0)
                r = get_float_or(f, "attention.layer_norm_rms_epsilon", NAN, &p->norm_epsilon);
        if (r < 0)
                return r;
        if (!(p->norm_epsilon > 0 && p->norm_epsilon < 1))
                return warm_why(f->ret_why, -EBADMSG,
                                "%s is missing or not within 0..1; convert the model again",
                                key_of(f, "attention.layer_norm_rms_epsilon"));
        p->n_groups = 1; /* all layers see all tokens */
        p->norm = WARM_NORM_RMS;
        p->embedding_scale = 1;
        p->logit_scale = 1;
        return 0;
}

/* `rope.scaling.*`, and what older files call `rope.scale_linear`. */
static int get_rope_scaling(struct filler *f) {
        struct warm_string type = { "linear", 6 };
        struct warm_rope_params *rope = &f->rope;
        float factor;
        int r = get_float_or(f, "rope.scale_linear", 1, &factor);

        if (r == 0)
                r = get_float_or(f, "rope.scaling.factor", factor, &factor);
        if (r == 0)
                r = warm_gguf_get_string(f->g, key_of(f, "rope.scaling.type"), &type, f->ret_why);
        if (r < 0)
                return r;
        if (factor == 0 || warm_string_is(type, "none"))
                factor = 1;
        if (!(factor >= 1e-3F && factor <= 1e6F))
                return warm_why(f->ret_why, -EBADMSG, "%s is %g; the file is damaged",
                                key_of(f, "rope.scaling.factor"), (double) factor);
        rope->scale = 1 / factor;
        if (warm_string_is(type, "yarn"))
                rope->scaling = WARM_ROPE_SCALING_YARN;
        else if (warm_string_is(type, "linear"))
                rope->scaling = factor == 1 ? WARM_ROPE_SCALING_NONE : WARM_ROPE_SCALING_LINEAR;
        else if (!warm_string_is(type, "none"))
                return warm_why(
                        f->ret_why, -EOPNOTSUPP,
                        "asks for RoPE scaling of type %s, which is not built; those that are: "
                        "none, linear, yarn",
                        warm_show(type).text);
        return 0;
}

/*
 * YaRN's parameters. cos and sin are multiplied by 1 + 0.1 ln(factor) (Peng et al. 2023, "YaRN", equation 22), times
 * what the file adds. Defaults of the ramp: the paper's for the llama family.
 */
static int get_rope_yarn(struct filler *f) {
        struct warm_rope_params *rope = &f->rope;
        float attn = 1, yarn_attn = 1, factor = 1 / rope->scale;
        int r = get_float_or(f, "rope.scaling.attn_factor", 1, &attn);

        if (r == 0)
                r = get_float_or(f, "rope.scaling.yarn_attn_factor", 1, &yarn_attn);
        if (r == 0)
                r = get_float_or(f, "rope.scaling.yarn_ext_factor", 1, &rope->yarn_ext);
        if (r == 0)
                r = get_float_or(f, "rope.scaling.yarn_beta_fast", 32, &rope->yarn_beta_fast);
        if (r == 0)
                r = get_float_or(f, "rope.scaling.yarn_beta_slow", 1, &rope->yarn_beta_slow);
        if (r == 0)
                r = get_size_or(f, "rope.scaling.original_context_length", 0, WARM_ARCH_CONTEXT_MAX,
                                f->plan.n_context, &rope->n_context_original);
        if (r < 0)
                return r;
        if (rope->scaling != WARM_ROPE_SCALING_YARN) {
                rope->yarn_ext = 0;
                rope->attention_factor = attn;
                return 0;
        }
        if (!(rope->yarn_beta_fast > rope->yarn_beta_slow && rope->yarn_beta_slow > 0))
                return warm_why(f->ret_why, -EBADMSG,
                                "YaRN's yarn_beta_fast must exceed yarn_beta_slow, and that 0");
        rope->attention_factor =
                attn * yarn_attn * (factor > 1 ? 1 + 0.1F * (float) log((double) factor) : 1);
        return 0;
}

static int get_rope(struct filler *f, const struct warm_plan_layer *first) {
        struct warm_rope_params *rope = &f->rope;
        int r;

        rope->kind = f->arch->rope;
        r = get_size_or(f, "rope.dimension_count", 0, first->head_dim_k, first->head_dim_k,
                        &rope->n_dims);
        if (r == 0)
                r = get_float_or(f, "rope.freq_base", 10000, &rope->base);
        if (r < 0)
                return r;
        if (rope->n_dims % 2 != 0)
                return warm_why(f->ret_why, -EBADMSG,
                                "RoPE rotates pairs and cannot turn %u dimensions", rope->n_dims);
        if (!(rope->base > 1))
                return warm_why(f->ret_why, -EBADMSG, "%s is %g; it must exceed 1",
                                key_of(f, "rope.freq_base"), (double) rope->base);
        r = get_rope_scaling(f);
        return r < 0 ? r : get_rope_yarn(f);
}

static int get_layer_sizes(struct filler *f, uint32_t i, struct warm_plan_layer *layer) {
        uint32_t width = f->plan.dim;
        int r = get_size(f, "attention.head_count", i, WARM_ARCH_HEADS_MAX, &layer->n_heads);

        if (r == 0)
                r = get_size_or(f, "attention.head_count_kv", i, WARM_ARCH_HEADS_MAX,
                                layer->n_heads, &layer->n_kv_heads);
        if (r == 0)
                r = get_size(f, "feed_forward_length", i, WARM_ARCH_FF_MAX, &layer->n_ff);
        if (r < 0)
                return r;
        if (layer->n_heads % layer->n_kv_heads != 0)
                return warm_why(f->ret_why, -EBADMSG, "%u KV heads do not divide %u heads",
                                layer->n_kv_heads, layer->n_heads);
        if (!warm_gguf_find_key(f->g, key_of(f, "attention.key_length")) &&
            width % layer->n_heads != 0)
                return warm_why(f->ret_why, -EBADMSG,
                                "%u heads do not divide a width of %u, and %s is missing",
                                layer->n_heads, width, f->key);
        r = get_size_or(f, "attention.key_length", i, WARM_ARCH_HEAD_DIM_MAX,
                        width / layer->n_heads, &layer->head_dim_k);
        if (r == 0)
                r = get_size_or(f, "attention.value_length", i, WARM_ARCH_HEAD_DIM_MAX,
                                width / layer->n_heads, &layer->head_dim_v);
        if (r < 0)
                return r;
        if (layer->head_dim_v < 1 || layer->head_dim_k < 1 ||
            layer->head_dim_v > WARM_ARCH_HEAD_DIM_MAX ||
            layer->head_dim_k > WARM_ARCH_HEAD_DIM_MAX)
                return warm_why(f->ret_why, -EBADMSG, "a head of %u dimensions; 1 to %u are read",
                                layer->head_dim_k, WARM_ARCH_HEAD_DIM_MAX);
        layer->mixer = WARM_MIXER_ATTENTION;
        layer->kv_source = -1;
        layer->causal = true;
        layer->attention_scale = 1 / sqrtf((float) layer->head_dim_k);
        layer->norm = WARM_NORM_RMS;
        layer->norm_epsilon = f->plan.norm_epsilon;
        layer->residual_scale = 1;
        layer->ffn = WARM_FFN_GATED;
        layer->activation = f->arch->activation;
        return 0;
}

static uint64_t size_of(const struct filler *f, const struct warm_plan_layer *layer,
                        enum warm_arch_size size) {
        switch (size) {
        case WARM_SIZE_ONE:
                return 1;
        case WARM_SIZE_VOCAB:
                return f->plan.n_vocab;
        case WARM_SIZE_DIM:
                return f->plan.dim;
        case WARM_SIZE_FF:
                return layer->n_ff;
        case WARM_SIZE_Q:
                return (uint64_t) layer->n_heads * layer->head_dim_k;
        case WARM_SIZE_K:
                return (uint64_t) layer->n_kv_heads * layer->head_dim_k;
        case WARM_SIZE_V:
                return (uint64_t) layer->n_kv_heads * layer->head_dim_v;
        case WARM_SIZE_O:
                return (uint64_t) layer->n_heads * layer->head_dim_v;
        case WARM_SIZE_HEAD_DIM_K:
                return layer->head_dim_k;
        case WARM_SIZE_ROPE_PAIRS:
                return f->rope.n_dims / 2;
        }
        return 0;
}

/* Look one tensor up and hold its shape against the table. */
static int fill_tensor(struct filler *f, const struct warm_plan_layer *layer, const char *name,
                       const struct warm_arch_tensor *entry, struct warm_tensor *ret_tensor) {
        const struct warm_gguf_tensor *t = warm_gguf_find_tensor(f->g, name);
        uint64_t cols = size_of(f, layer, entry->cols), rows = size_of(f, layer, entry->rows);

        if (!t && entry->optional)
                return 0;
        if (!t)
                return warm_why(
                        f->ret_why, -EBADMSG,
                        "lacks the tensor %s that every %s model has; convert the model again",
                        name, f->arch->name);
        if (t->dims[0] != cols || t->dims[1] != rows || t->dims[2] != 1 || t->dims[3] != 1)
                return warm_why(
                        f->ret_why, -EBADMSG,
                        "tensor %s is %llu x %llu x %llu x %llu where the model's sizes make it "
                        "%llu x %llu; the file is damaged",
                        name, (unsigned long long) t->dims[0], (unsigned long long) t->dims[1],
                        (unsigned long long) t->dims[2], (unsigned long long) t->dims[3],
                        (unsigned long long) cols, (unsigned long long) rows);
        *ret_tensor = (struct warm_tensor){ .data = t->data,
                                            .n_cols = cols,
                                            .n_rows = rows,
                                            .bytes = t->bytes,
                                            .type = t->type,
                                            .shard = entry->shard };
        f->named[t - warm_gguf_tensor_at(f->g, 0)] = true;
        return 0;
}

static int fill_layer(struct filler *f, uint32_t i, struct warm_plan_layer *layer) {
        layer->rope = f->rope;
        layer->rope.factors = f->factors;
        for (const struct warm_arch_tensor *entry = f->arch->layer_tensors; entry->name; entry++) {
                char name[WARM_GGUF_TENSOR_NAME_MAX + 1];
                int r;

                (void) snprintf(name, sizeof name, "blk.%u.%s", i, entry->name);
                r = fill_tensor(f, layer, name, entry,
                                (struct warm_tensor *) ((char *) layer + entry->place));
                if (r < 0)
                        return r;
        }
        return 0;
}

static int fill_model(struct filler *f) {
        const struct warm_gguf_tensor *embedding = warm_gguf_find_tensor(f->g, "token_embd.weight");

        if (embedding && embedding->dims[1] > WARM_VOCAB_TOKENS_MAX)
                return warm_why(f->ret_why, -EBADMSG, "has %llu tokens; at most %u are read",
                                (unsigned long long) embedding->dims[1], WARM_VOCAB_TOKENS_MAX);
        f->plan.n_vocab = embedding ? (uint32_t) embedding->dims[1] : 0;
        for (const struct warm_arch_tensor *entry = f->arch->model_tensors; entry->name; entry++) {
                int r = fill_tensor(f, f->plan.layers, entry->name, entry,
                                    (struct warm_tensor *) ((char *) &f->plan + entry->place));

                if (r < 0)
                        return r;
        }
        return 0;
}

/* Divisors of the RoPE frequencies, copied: the file's alignment is not ours to choose. */
static int fill_rope_factors(struct filler *f, float *factors) {
        static const struct warm_arch_tensor entry = { "rope_freqs.weight",  0,
                                                       WARM_SIZE_ROPE_PAIRS, WARM_SIZE_ONE,
                                                       WARM_SHARD_NONE,      true };
        const struct warm_gguf_tensor *t = warm_gguf_find_tensor(f->g, entry.name);
        struct warm_tensor tensor = { 0 };
        int r;

        if (!f->arch->rope_factors || !t)
                return 0;
        r = fill_tensor(f, f->plan.layers, entry.name, &entry, &tensor);
        if (r < 0)
                return r;
        if (t->type != WARM_TYPE_F32)
                return warm_why(f->ret_why, -EOPNOTSUPP, "tensor %s has type %s; only F32 is built",
                                entry.name, warm_type_info(t->type)->name);
        r = warm_gguf_load_tensor(f->g, t, f->ret_why);
        if (r < 0)
                return r;
        memcpy(factors, t->data, t->bytes);
        for (uint64_t i = 0; i < t->n_elements; i++)
                if (!(factors[i] > 0 && isfinite(factors[i])))
                        return warm_why(f->ret_why, -EBADMSG,
                                        "tensor %s holds a factor that is not above 0; the file is "
                                        "damaged",
                                        entry.name);
        f->factors = factors;
        return 0;
}

/* A tensor that no table names would be left out of the computation, and the text would be wrong with no error. */
static int check_left_over(struct filler *f) {
        for (uint32_t i = 0; i < warm_gguf_n_tensors(f->g); i++)
                if (!f->named[i])
                        return warm_why(
                                f->ret_why, -EOPNOTSUPP,
                                "has a tensor %s that a %s model as built has no place for; "
                                "leaving it out would change results",
                                warm_show(warm_gguf_tensor_at(f->g, i)->name).text, f->arch->name);
        return 0;
}

/* Layers and the rope factors behind them: one allocation, bounded by the tensors that each layer needs. */
static int allocate_layers(struct filler *f, float **ret_factors) {
        uint64_t n_layers = f->plan.n_layers;

        if (n_layers > warm_gguf_n_tensors(f->g))
                return warm_why(f->ret_why, -EBADMSG,
                                "claims %u layers with %u tensors; the file is damaged",
                                f->plan.n_layers, warm_gguf_n_tensors(f->g));
        f->plan.layers = calloc(1, n_layers * sizeof *f->plan.layers +
                                           WARM_ARCH_HEAD_DIM_MAX / 2 * sizeof(float));
        f->named = calloc(warm_gguf_n_tensors(f->g), sizeof *f->named);
        if (!f->plan.layers || !f->named)
                return -ENOMEM;
        *ret_factors = (float *) (f->plan.layers + n_layers);
        return 0;
}

static int fill_plan(struct filler *f) {
        float *factors = NULL;
        int r = find_arch(f);

        if (r == 0)
                r = check_split(f);
        if (r == 0)
                r = check_refused(f);
        if (r == 0)
                r = get_model_sizes(f);
        if (r == 0)
                r = allocate_layers(f, &factors);
        for (uint32_t i = 0; i < f->plan.n_layers && r == 0; i++)
                r = get_layer_sizes(f, i, &f->plan.layers[i]);
        if (r == 0)
                r = get_rope(f, f->plan.layers);
        if (r == 0)
                r = fill_rope_factors(f, factors);
        if (r == 0)
                r = fill_model(f);
        for (uint32_t i = 0; i < f->plan.n_layers && r == 0; i++) {
                if (f->rope.n_dims > f->plan.layers[i].head_dim_k)
                        return warm_why(f->ret_why, -EBADMSG,
                                        "RoPE turns %u dimensions of heads of %u", f->rope.n_dims,
                                        f->plan.layers[i].head_dim_k);
                r = fill_layer(f, i, &f->plan.layers[i]);
        }
        return r == 0 ? check_left_over(f) : r;
}

int warm_arch_plan(struct warm_gguf *g, struct warm_plan *ret_plan, char **ret_why) {
        struct filler f = { .g = g, .ret_why = ret_why };
        int r = fill_plan(&f);

        free(f.named);
        if (r < 0) {
                warm_arch_plan_deinit(&f.plan);
                return r;
        }
        *ret_plan = f.plan;
        return 0;
}

void warm_arch_plan_deinit(struct warm_plan *plan) {
        free(plan->layers);
        *plan = (struct warm_plan){ 0 };
}

static void visit_present(struct warm_tensor *tensor,
                          void (*visit)(struct warm_tensor *tensor, void *data), void *data) {
        if (tensor->data)
                visit(tensor, data);
}

void warm_arch_each_tensor(struct warm_plan *plan,
                           void (*visit)(struct warm_tensor *tensor, void *data), void *data) {
        struct warm_tensor *const model[] = { &plan->embedding,   &plan->positions,
                                              &plan->output_norm, &plan->output_norm_bias,
                                              &plan->output,      &plan->output_bias };

        for (size_t i = 0; i < sizeof model / sizeof model[0]; i++)
                visit_present(model[i], visit, data);
        for (uint32_t l = 0; l < plan->n_layers; l++) {
                struct warm_plan_layer *x = &plan->layers[l];
                struct warm_tensor *const layer[] = {
                        &x->attention_sinks,
                        &x->mixer_norm,
                        &x->mixer_post_norm,
                        &x->ffn_norm,
                        &x->ffn_post_norm,
                        &x->q,
                        &x->k,
                        &x->v,
                        &x->o,
                        &x->q_bias,
                        &x->k_bias,
                        &x->v_bias,
                        &x->o_bias,
                        &x->q_norm,
                        &x->k_norm,
                        &x->gate,
                        &x->up,
                        &x->down,
                        &x->gate_bias,
                        &x->up_bias,
                        &x->down_bias,
                        &x->router,
                };

                for (size_t i = 0; i < sizeof layer / sizeof layer[0]; i++)
                        visit_present(layer[i], visit, data);
        }
}
