/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever a plan can say and the backend does not compute, or that does not fit together, is refused by name. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend.h"
#include "tiny.h"

static struct warm_backend *backend;
static struct tiny *model;
static struct warm_plan *p;
static struct warm_plan_layer *layer; /* the second */

static int set_up(void **state) {
        struct warm_backend_config config = { .n_threads = 1 };

        (void) state;
        return warm_cpu_backend_new(&config, &backend);
}

static int tear_down(void **state) {
        (void) state;
        warm_backend_free(backend);
        return 0;
}

static void fresh(void) {
        tiny_free(model);
        model = tiny_new(&tiny_shapes[0], 1);
        p = &model->plan;
        layer = &p->layers[1];
}

/* Load what was changed: the code, and a sentence that holds the word. Then start afresh. */
static void refused(int code, const char *word) {
        struct warm_weights *w = NULL;
        char *why = NULL;
        int r = warm_backend_load(backend, &model->plan, &w, &why);

        if (r != code)
                fail_msg("%s: %d instead of %d (%s)", word, r, code, why ? why : "");
        assert_null(w);
        assert_non_null(why);
        if (!strstr(why, word))
                fail_msg("\"%s\" does not say \"%s\"", why, word);
        free(why);
        assert_int_equal(warm_backend_load(backend, &model->plan, &w, NULL), code);
        fresh();
}

#define UNSUPPORTED(change, word)                                                                  \
        do {                                                                                       \
                change;                                                                            \
                refused(-EOPNOTSUPP, word);                                                        \
        } while (0)
#define INCOHERENT(change, word)                                                                   \
        do {                                                                                       \
                change;                                                                            \
                refused(-EINVAL, word);                                                            \
        } while (0)

static void what_is_not_built_is_named(void **state) {
        (void) state;
        fresh();
        UNSUPPORTED(p->positions = p->embedding, "learned positions");
        UNSUPPORTED(p->output_norm_bias = p->output_norm, "bias of the output norm");
        UNSUPPORTED(p->norm = WARM_NORM_LAYER, "output norm");
        UNSUPPORTED(p->norm = WARM_NORM_NONE, "output norm");
        UNSUPPORTED(p->n_extra_heads = 1, "Medusa");
        UNSUPPORTED(p->n_taps = 1, "EAGLE");
        UNSUPPORTED(p->groups[0].state = true, "state snapshots");
        for (int m = WARM_MIXER_LATENT_ATTENTION; m <= WARM_MIXER_GATED_DELTA; m++)
                UNSUPPORTED(layer->mixer = (enum warm_mixer) m, "layer 1: a mixer");
        UNSUPPORTED(layer->kv_source = 0, "layer 1: KV of another layer");
        UNSUPPORTED(layer->latent_rank = 8, "latent attention");
        UNSUPPORTED(layer->causal = false, "bidirectional");
        UNSUPPORTED(layer->attention_sinks = layer->q_bias, "sinks");
        UNSUPPORTED(layer->norm = WARM_NORM_LAYER, "norms other than RMS");
        UNSUPPORTED(layer->norm = WARM_NORM_NONE, "norms other than RMS");
        UNSUPPORTED(layer->mixer_post_norm = layer->mixer_norm, "norm after the mixer");
        UNSUPPORTED(layer->ffn_post_norm = layer->ffn_norm, "norm after the feed-forward");
        UNSUPPORTED(layer->conv_width = 4, "convolutions");
        UNSUPPORTED(layer->state_rows = 1, "recurrent state");
        UNSUPPORTED(layer->state_cols = 1, "recurrent state");
        UNSUPPORTED(layer->ffn = WARM_FFN_EXPERTS, "mixture of experts");
        UNSUPPORTED(layer->n_experts = 2, "mixture of experts");
        UNSUPPORTED(layer->n_experts_used = 2, "mixture of experts");
        UNSUPPORTED(layer->router = layer->q, "mixture of experts");
        tiny_free(model);
        model = NULL;
}

static void what_a_tensor_may_not_have_is_named(void **state) {
        static const float scales[4] = { 1, 1, 1, 1 };

        (void) state;
        fresh();
        UNSUPPORTED(layer->down.row_scales = scales, "tensor down: row scales");
        UNSUPPORTED(layer->q.group_scales = scales, "tensor q: group scales");
        UNSUPPORTED(layer->k.group_cols = 32, "tensor k: group scales");
        UNSUPPORTED(layer->v.tensor_scale = 2, "tensor v: a tensor scale");
        UNSUPPORTED(layer->o.n_outlier_cols = 1, "tensor o: outlier columns");
        UNSUPPORTED(model->plan.embedding.row_scales = scales, "tensor embedding: row scales");
        tiny_free(model);
        model = NULL;
}

static void shapes_must_fit_together(void **state) {
        (void) state;
        fresh();
        INCOHERENT(model->plan.dim = 0, "width");
        INCOHERENT(model->plan.dim = 1U << 20, "width");
        INCOHERENT(model->plan.dim = 32, "tensor embedding is 320 x 64");
        INCOHERENT(model->plan.n_vocab = 0, "vocabulary");
        INCOHERENT(model->plan.n_vocab = UINT32_MAX, "vocabulary");
        INCOHERENT(model->plan.n_context = 0, "context");
        INCOHERENT(model->plan.n_layers = 0, "number of layers");
        INCOHERENT(model->plan.n_layers = WARM_PLAN_LAYERS_MAX + 1, "number of layers");
        INCOHERENT(model->plan.n_groups = 0, "number of groups");
        INCOHERENT(model->plan.n_groups = WARM_PLAN_GROUPS_MAX + 1, "number of groups");
        INCOHERENT(model->plan.embedding.data = NULL, "tensor embedding is missing");
        INCOHERENT(model->plan.output_norm.data = NULL, "tensor output_norm is missing");
        INCOHERENT(model->plan.output_norm.n_cols = 63, "tensor output_norm");
        INCOHERENT(model->plan.embedding.bytes--, "tensor embedding has");
        INCOHERENT(model->plan.embedding.type = WARM_TYPE_Q4_K, "whole blocks");
        INCOHERENT(model->plan.embedding.type = _WARM_TYPE_N, "unknown element type");
        INCOHERENT(layer->group = 1, "layer 1: its group");
        INCOHERENT(layer->n_kv_heads = 3, "KV heads");
        INCOHERENT(layer->n_kv_heads = 0, "KV heads");
        INCOHERENT(layer->n_heads = 0, "KV heads");
        INCOHERENT(layer->n_heads = 8, "tensor q");
        INCOHERENT(layer->head_dim_k = 0, "head's dimension");
        INCOHERENT(layer->head_dim_v = 257, "head's dimension");
        INCOHERENT(layer->n_ff = 0, "feed-forward");
        INCOHERENT(layer->n_ff = 64, "tensor gate");
        INCOHERENT(layer->gate.data = NULL, "tensor gate is missing");
        INCOHERENT(layer->ffn = WARM_FFN_PLAIN, "no gate");
        INCOHERENT(layer->ffn = (enum warm_ffn) 9, "feed-forward");
        INCOHERENT(layer->activation = (enum warm_activation) 9, "activation");
        INCOHERENT(layer->mixer_norm.data = NULL, "tensor mixer_norm is missing");
        INCOHERENT(layer->k_bias.n_cols = 65, "tensor k_bias");
        tiny_free(model);
        model = NULL;
}

static void numbers_must_be_numbers(void **state) {
        static float factors[16] = { 1, 1, 1 }; /* then zeros */

        (void) state;
        fresh();
        INCOHERENT(model->plan.norm_epsilon = NAN, "epsilon");
        INCOHERENT(model->plan.embedding_scale = 0, "embedding or logit scale");
        INCOHERENT(model->plan.logit_scale = INFINITY, "embedding or logit scale");
        INCOHERENT(model->plan.logit_soft_cap = -1, "logit soft cap");
        INCOHERENT(layer->norm_epsilon = -1, "epsilon");
        INCOHERENT(layer->residual_scale = 0, "residual scale");
        INCOHERENT(layer->attention_scale = NAN, "attention scale");
        INCOHERENT(layer->attention_soft_cap = NAN, "attention soft cap");
        INCOHERENT(layer->rope.kind = (enum warm_rope) 9, "rotary");
        INCOHERENT(layer->rope.n_dims = 7, "rotated dimensions");
        INCOHERENT(layer->rope.n_dims = 34, "rotated dimensions");
        INCOHERENT(layer->rope.base = 1, "base");
        INCOHERENT(layer->rope.attention_factor = 0, "attention factor");
        INCOHERENT(layer->rope.scaling = (enum warm_rope_scaling) 9, "scaling");
        INCOHERENT((layer->rope.scaling = WARM_ROPE_SCALING_LINEAR, layer->rope.scale = 0),
                   "scale");
        INCOHERENT((layer->rope.scaling = WARM_ROPE_SCALING_YARN, layer->rope.yarn_beta_slow = 0),
                   "YaRN");
        INCOHERENT(layer->rope.factors = factors, "factor");
        tiny_free(model);
        model = NULL;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_not_built_is_named),
                cmocka_unit_test(what_a_tensor_may_not_have_is_named),
                cmocka_unit_test(shapes_must_fit_together),
                cmocka_unit_test(numbers_must_be_numbers),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
