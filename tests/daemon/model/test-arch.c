/* SPDX-License-Identifier: Apache-2.0 */
/* Plans from tables: each architecture as it should be, and every way in which a file can miss its table. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <cmocka.h>

#include "daemon/model/arch.h"
#include "gguf-write.h"

struct opened {
        uint8_t *bytes;
        struct warm_gguf *g;
        struct warm_plan plan;
};

/* Plan what a writer holds. */
static int plan_of(struct gguf_writer *w, struct opened *ret, char **ret_why) {
        size_t n;
        int r;

        *ret = (struct opened){ .bytes = gguf_write_end(w, &n) };
        r = warm_gguf_open_bytes(ret->bytes, n, &ret->g, ret_why);
        assert_int_equal(r, 0);
        return warm_arch_plan(ret->g, &ret->plan, ret_why);
}

static void close_plan(struct opened *o) {
        warm_arch_plan_deinit(&o->plan);
        warm_gguf_free(o->g);
        free(o->bytes);
}

static void refused_at(struct gguf_writer *w, int error, const char *word, int line) {
        struct opened o;
        char *why = NULL;
        int r = plan_of(w, &o, &why);

        if (r != error || !why || !strstr(why, word))
                fail_msg("line %d: %d, not %d with \"%s\": %s", line, r, error, word,
                         why ? why : "-");
        free(why);
        close_plan(&o);
}

#define REFUSED(w, error, word) refused_at(w, error, word, __LINE__)

static struct opened planned(struct gguf_writer *w) {
        struct opened o;
        char *why = NULL;
        int r = plan_of(w, &o, &why);

        if (r != 0)
                fail_msg("%d: %s", r, why ? why : "-");
        return o;
}

static struct gguf_writer writer_of(const char *architecture) {
        struct gguf_tiny tiny = { .architecture = architecture };
        struct gguf_writer w = { 0 };

        gguf_write_tiny(&w, &tiny);
        return w;
}

/* The same without one key or tensor. */
static struct gguf_writer writer_without(const char *architecture, const char *name) {
        struct gguf_tiny tiny = { .architecture = architecture };
        struct gguf_writer w = { .without = name };

        gguf_write_tiny(&w, &tiny);
        w.without = NULL;
        return w;
}

static void assert_shape(const struct warm_tensor *t, uint64_t n_rows, uint64_t n_cols) {
        assert_non_null(t->data);
        assert_int_equal(t->n_rows, n_rows);
        assert_int_equal(t->n_cols, n_cols);
}

static void llama_turns_adjacent_pairs_and_has_no_biases(void **state) {
        struct gguf_writer w = writer_of("llama");
        struct opened o = planned(&w);
        const struct warm_plan_layer *layer = &o.plan.layers[1];

        (void) state;
        assert_int_equal(o.plan.n_layers, 2);
        assert_int_equal(o.plan.dim, 64);
        assert_int_equal(o.plan.n_context, 128);
        assert_int_equal(o.plan.n_groups, 1);
        assert_int_equal(layer->rope.kind, WARM_ROPE_ADJACENT);
        assert_int_equal(layer->rope.n_dims, 16);
        assert_true(layer->rope.base == 10000 && layer->rope.scale == 1);
        assert_true(layer->rope.attention_factor == 1 && !layer->rope.factors);
        assert_int_equal(layer->rope.scaling, WARM_ROPE_SCALING_NONE);
        assert_int_equal(layer->mixer, WARM_MIXER_ATTENTION);
        assert_int_equal(layer->kv_source, -1);
        assert_true(layer->causal && layer->attention_scale == 0.25F);
        assert_true(layer->residual_scale == 1 && layer->norm_epsilon == 1e-6F);
        assert_shape(&layer->q, 64, 64);
        assert_shape(&layer->k, 32, 64);
        assert_shape(&layer->o, 64, 64);
        assert_shape(&layer->down, 64, 96);
        assert_int_equal(layer->q.type, WARM_TYPE_F16);
        assert_int_equal(layer->q.shard, WARM_SHARD_ROWS);
        assert_int_equal(layer->o.shard, WARM_SHARD_COLS);
        assert_null(layer->q_bias.data);
        assert_null(layer->q_norm.data);
        assert_null(o.plan.output.data);
        assert_true(o.plan.embedding_scale == 1 && o.plan.logit_scale == 1);
        close_plan(&o);
}

static void llama_takes_biases_and_an_output_where_they_are(void **state) {
        struct gguf_tiny tiny = { .architecture = "llama", .biases = true, .output = true };
        struct gguf_writer w = { 0 };
        struct opened o;

        (void) state;
        gguf_write_tiny(&w, &tiny);
        gguf_write_vector(&w, "output.bias", 267);
        o = planned(&w);
        assert_shape(&o.plan.layers[0].q_bias, 1, 64);
        assert_shape(&o.plan.layers[0].v_bias, 1, 32);
        assert_shape(&o.plan.layers[0].gate_bias, 1, 96);
        assert_shape(&o.plan.output, 267, 64);
        assert_shape(&o.plan.output_bias, 1, 267);
        close_plan(&o);
}

static void qwen2_turns_halves_and_has_biases(void **state) {
        struct gguf_writer w = writer_of("qwen2");
        struct opened o = planned(&w);

        (void) state;
        assert_int_equal(o.plan.layers[0].rope.kind, WARM_ROPE_HALVES);
        assert_shape(&o.plan.layers[0].q_bias, 1, 64);
        assert_shape(&o.plan.layers[0].k_bias, 1, 32);
        assert_null(o.plan.layers[0].o_bias.data);
        close_plan(&o);
        w = writer_without("qwen2", "blk.1.attn_k.bias");
        REFUSED(&w, -EBADMSG, "lacks the tensor blk.1.attn_k.bias");
}

static void qwen3_has_norms_of_heads_whose_size_is_its_own(void **state) {
        struct gguf_writer w = writer_of("qwen3");
        struct opened o = planned(&w);

        (void) state;
        assert_int_equal(o.plan.layers[1].head_dim_k, 32);
        assert_int_equal(o.plan.layers[1].rope.n_dims, 32);
        assert_shape(&o.plan.layers[1].q, 128, 64);
        assert_shape(&o.plan.layers[1].o, 64, 128);
        assert_shape(&o.plan.layers[1].q_norm, 1, 32);
        assert_shape(&o.plan.layers[1].k_norm, 1, 32);
        close_plan(&o);
        w = writer_without("qwen3", "blk.0.attn_q_norm.weight");
        REFUSED(&w, -EBADMSG, "blk.0.attn_q_norm.weight");
}

static void an_unknown_architecture_is_named_beside_those_that_are_built(void **state) {
        struct gguf_writer w = { 0 };

        (void) state;
        gguf_write_string(&w, "general.architecture", "mamba2");
        REFUSED(&w, -EOPNOTSUPP, "mamba2, which is not built; those that are: llama, qwen2, qwen3");
        gguf_write_u32(&w, "general.architecture", 1);
        REFUSED(&w, -EBADMSG, "general.architecture is u32");
        gguf_write_u32(&w, "x", 1);
        REFUSED(&w, -EBADMSG, "lacks the key general.architecture");
}

static void every_key_and_tensor_of_the_table_is_needed(void **state) {
        static const char *const names[] = {
                "block_count",
                "context_length",
                "embedding_length",
                "feed_forward_length",
                "attention.head_count",
                "attention.layer_norm_rms_epsilon",
                "token_embd.weight",
                "output_norm.weight",
                "blk.0.attn_norm.weight",
                "blk.0.attn_q.weight",
                "blk.1.attn_k.weight",
                "blk.0.attn_v.weight",
                "blk.1.attn_output.weight",
                "blk.0.ffn_norm.weight",
                "blk.0.ffn_gate.weight",
                "blk.0.ffn_up.weight",
                "blk.1.ffn_down.weight",
        };

        (void) state;
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
                char name[64];
                struct gguf_writer w;

                (void) snprintf(name, sizeof name, "%s%s", i < 6 ? "llama." : "", names[i]);
                w = writer_without("llama", name);
                REFUSED(&w, -EBADMSG, name);
        }
}

static void every_shape_is_held_against_the_table(void **state) {
        static const struct {
                const char *name;
                uint64_t n_cols, n_rows;
        } wrong[] = {
                { "blk.0.attn_q.weight", 64, 32 },   { "blk.0.attn_k.weight", 64, 64 },
                { "blk.0.attn_v.weight", 32, 64 },   { "blk.0.attn_output.weight", 96, 64 },
                { "blk.0.attn_norm.weight", 64, 2 }, { "blk.1.ffn_gate.weight", 96, 64 },
                { "blk.1.ffn_down.weight", 64, 96 }, { "output_norm.weight", 32, 1 },
                { "token_embd.weight", 32, 267 },
        };

        (void) state;
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
                struct gguf_writer w = writer_without("llama", wrong[i].name);

                gguf_write_tensor(&w, wrong[i].name, GGML_F32, wrong[i].n_cols, wrong[i].n_rows);
                REFUSED(&w, -EBADMSG, wrong[i].name);
        }
}

static void a_tensor_that_no_table_names_is_refused_by_name(void **state) {
        static const char *const names[] = { "blk.0.attn_q.scale",    "blk.2.attn_q.weight",
                                             "blk.0.attn_qkv.weight", "rope_factors_long.weight",
                                             "blk.00.attn_q.weight",  "v.patch_embd.weight" };
        struct gguf_writer w;

        (void) state;
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
                w = writer_of("llama");
                gguf_write_vector(&w, names[i], 1);
                REFUSED(&w, -EOPNOTSUPP, names[i]);
        }
        w = writer_of("qwen2"); /* only llama has these */
        gguf_write_vector(&w, "rope_freqs.weight", 8);
        REFUSED(&w, -EOPNOTSUPP, "rope_freqs.weight");
}

static void one_part_of_a_split_model_is_refused(void **state) {
        struct gguf_writer w = writer_of("llama");
        struct opened o;

        (void) state;
        gguf_write_u32(&w, "split.count", 3);
        REFUSED(&w, -EOPNOTSUPP, "one of 3 parts");
        w = writer_of("llama");
        gguf_write_u32(&w, "split.count", 1);
        o = planned(&w);
        close_plan(&o);
}

static void what_no_plan_says_is_refused_unless_neutral(void **state) {
        struct gguf_writer w = writer_of("llama");
        struct opened o;

        (void) state;
        gguf_write_u32(&w, "llama.expert_count", 8);
        REFUSED(&w, -EOPNOTSUPP, "a mixture of experts (llama.expert_count)");
        w = writer_of("llama");
        gguf_write_u32(&w, "llama.attention.sliding_window", 4096);
        REFUSED(&w, -EOPNOTSUPP, "sliding window");
        w = writer_of("llama");
        gguf_write_f32(&w, "llama.logit_scale", 2);
        REFUSED(&w, -EOPNOTSUPP, "scaled logits");
        w = writer_of("llama");
        gguf_write_string(&w, "llama.expert_count", "none");
        REFUSED(&w, -EBADMSG, "llama.expert_count is string");
        w = writer_of("llama");
        gguf_write_u32(&w, "llama.expert_count", 0);
        gguf_write_f32(&w, "llama.logit_scale", 1);
        o = planned(&w);
        close_plan(&o);
}

/* A model whose key says something else. */
static struct gguf_writer writer_with(const char *key, uint32_t value) {
        struct gguf_writer w = writer_without("llama", key);

        gguf_write_u32(&w, key, value);
        return w;
}

static void sizes_out_of_range_are_refused(void **state) {
        static const struct {
                const char *key;
                uint32_t value;
                const char *word;
        } wrong[] = {
                { "llama.block_count", 0, "1 to 512" },
                { "llama.block_count", 513, "1 to 512" },
                { "llama.block_count", 400, "layers" },
                { "llama.block_count", 3, "blk.2" },
                { "llama.embedding_length", 0, "1 to" },
                { "llama.embedding_length", 65537, "1 to 65536" },
                { "llama.context_length", 0, "1 to" },
                { "llama.context_length", (1U << 24) + 1, "1 to" },
                { "llama.feed_forward_length", 0, "1 to" },
                { "llama.attention.head_count", 0, "1 to" },
                { "llama.attention.head_count", 1025, "1 to 1024" },
                { "llama.attention.head_count", 5, "divide" },
                { "llama.attention.head_count_kv", 3, "do not divide" },
                { "llama.attention.head_count_kv", 8, "do not divide" },
                { "llama.attention.key_length", 1025, "1 to 1024" },
                { "llama.attention.key_length", 0, "1 to 1024" },
                { "llama.rope.dimension_count", 17, "1 to 16" },
                { "llama.rope.dimension_count", 15, "pairs" },
        };

        (void) state;
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
                struct gguf_writer w = writer_with(wrong[i].key, wrong[i].value);

                REFUSED(&w, -EBADMSG, wrong[i].word);
        }
}

static void lists_give_each_layer_its_own_sizes(void **state) {
        static const int32_t heads[] = { 4, 4 }, kv[] = { 2, 2 }, ff[] = { 96, 64 };
        struct gguf_writer w = writer_without("llama", "llama.feed_forward_length");
        struct opened o;

        (void) state;
        gguf_write_i32s(&w, "llama.feed_forward_length", ff, 2);
        REFUSED(&w, -EBADMSG, "blk.1.ffn_gate.weight"); /* the tensors say 96 */
        w = writer_without("llama", "llama.attention.head_count");
        gguf_write_i32s(&w, "llama.attention.head_count", heads, 2);
        o = planned(&w);
        assert_int_equal(o.plan.layers[1].n_heads, 4);
        close_plan(&o);
        w = writer_without("llama", "llama.attention.head_count_kv");
        gguf_write_i32s(&w, "llama.attention.head_count_kv", kv, 1); /* one short */
        REFUSED(&w, -EBADMSG, "no element 1");
}

static void rope_scaling_is_read(void **state) {
        struct gguf_writer w = writer_of("llama");
        struct opened o;

        (void) state;
        gguf_write_f32(&w, "llama.rope.scaling.factor", 4);
        o = planned(&w);
        assert_int_equal(o.plan.layers[0].rope.scaling, WARM_ROPE_SCALING_LINEAR);
        assert_true(o.plan.layers[0].rope.scale == 0.25F);
        assert_true(o.plan.layers[0].rope.attention_factor == 1);
        close_plan(&o);

        w = writer_of("llama");
        gguf_write_f32(&w, "llama.rope.scale_linear", 2); /* as older files call it */
        o = planned(&w);
        assert_true(o.plan.layers[0].rope.scale == 0.5F);
        close_plan(&o);

        w = writer_of("qwen2");
        gguf_write_string(&w, "qwen2.rope.scaling.type", "yarn");
        gguf_write_f32(&w, "qwen2.rope.scaling.factor", 4);
        gguf_write_u32(&w, "qwen2.rope.scaling.original_context_length", 32);
        o = planned(&w);
        assert_int_equal(o.plan.layers[0].rope.scaling, WARM_ROPE_SCALING_YARN);
        assert_true(o.plan.layers[0].rope.scale == 0.25F && o.plan.layers[0].rope.yarn_ext == 1);
        assert_true(o.plan.layers[0].rope.yarn_beta_fast == 32);
        assert_true(o.plan.layers[0].rope.yarn_beta_slow == 1);
        assert_int_equal(o.plan.layers[0].rope.n_context_original, 32);
        assert_true(fabsf(o.plan.layers[0].rope.attention_factor - 1.1386294F) < 1e-6F);
        close_plan(&o);

        w = writer_of("llama");
        gguf_write_string(&w, "llama.rope.scaling.type", "none");
        gguf_write_f32(&w, "llama.rope.scaling.factor", 4);
        o = planned(&w);
        assert_int_equal(o.plan.layers[0].rope.scaling, WARM_ROPE_SCALING_NONE);
        assert_true(o.plan.layers[0].rope.scale == 1);
        close_plan(&o);

        w = writer_of("llama");
        gguf_write_string(&w, "llama.rope.scaling.type", "longrope");
        REFUSED(&w, -EOPNOTSUPP, "longrope");
        w = writer_of("llama");
        gguf_write_f32(&w, "llama.rope.scaling.factor", -1);
        REFUSED(&w, -EBADMSG, "rope.scaling.factor");
}

/* rope_freqs.weight of n values, the first of them replaced. */
static struct gguf_writer writer_with_factors(uint64_t n, float first) {
        struct gguf_writer w = writer_of("llama");
        size_t at;

        gguf_write_vector(&w, "rope_freqs.weight", n);
        at = w.data.n - n * sizeof(float);
        for (uint64_t i = 0; i < n; i++) {
                float f = i == 0 ? first : (float) i;

                memcpy(w.data.data + at + i * sizeof f, &f, sizeof f);
        }
        return w;
}

static void rope_factors_are_copied_and_positive(void **state) {
        struct gguf_writer w = writer_with_factors(8, 0.5F);
        struct opened o = planned(&w);

        (void) state;
        assert_non_null(o.plan.layers[1].rope.factors);
        assert_true(o.plan.layers[1].rope.factors[0] == 0.5F);
        assert_true(o.plan.layers[1].rope.factors[7] == 7);
        close_plan(&o);
        w = writer_with_factors(8, 0);
        REFUSED(&w, -EBADMSG, "not above 0");
        w = writer_with_factors(8, NAN);
        REFUSED(&w, -EBADMSG, "not above 0");
        w = writer_with_factors(9, 1);
        REFUSED(&w, -EBADMSG, "rope_freqs.weight");
        w = writer_of("llama");
        gguf_write_tensor(&w, "rope_freqs.weight", GGML_F16, 8, 1);
        REFUSED(&w, -EOPNOTSUPP, "F16; only F32");
}

static void count(struct warm_tensor *tensor, void *data) {
        (void) tensor;
        ++*(unsigned *) data;
}

static void each_tensor_of_a_plan_is_visited_once(void **state) {
        static const char *const names[] = { "llama", "qwen2", "qwen3" };

        (void) state;
        for (size_t i = 0; i < 3; i++) {
                struct gguf_writer w = writer_of(names[i]);
                struct opened o = planned(&w);
                unsigned n = 0;

                warm_arch_each_tensor(&o.plan, count, &n);
                assert_int_equal(n, warm_gguf_n_tensors(o.g));
                close_plan(&o);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(llama_turns_adjacent_pairs_and_has_no_biases),
                cmocka_unit_test(llama_takes_biases_and_an_output_where_they_are),
                cmocka_unit_test(qwen2_turns_halves_and_has_biases),
                cmocka_unit_test(qwen3_has_norms_of_heads_whose_size_is_its_own),
                cmocka_unit_test(an_unknown_architecture_is_named_beside_those_that_are_built),
                cmocka_unit_test(every_key_and_tensor_of_the_table_is_needed),
                cmocka_unit_test(every_shape_is_held_against_the_table),
                cmocka_unit_test(a_tensor_that_no_table_names_is_refused_by_name),
                cmocka_unit_test(one_part_of_a_split_model_is_refused),
                cmocka_unit_test(what_no_plan_says_is_refused_unless_neutral),
                cmocka_unit_test(sizes_out_of_range_are_refused),
                cmocka_unit_test(lists_give_each_layer_its_own_sizes),
                cmocka_unit_test(rope_scaling_is_read),
                cmocka_unit_test(rope_factors_are_copied_and_positive),
                cmocka_unit_test(each_tensor_of_a_plan_is_visited_once),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
