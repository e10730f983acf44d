/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan becomes weights: matrices in units (matrix.h), small tensors as floats behind them, all in one arena.
 *
 * First everything that goes into the arena is placed, then the arena is made and cleared (padding is zeros), then the
 * loader brings the tensors' rows over while the kernels of pack.cu lay them out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "kernels/check.h"
#include "loader.h"

#define ALIGN            256U
#define MATRICES_A_LAYER 7U
#define VECTORS_A_LAYER  9U

/* One tensor on its way into a matrix. */
struct item {
        struct loading *loading;
        const struct warm_tensor *tensor;
        struct warm_cuda_matrix *matrix;
        enum warm_cuda_place place;
        uint32_t offset;
};

/* A matrix, or a run of floats, and where it lies in the arena. */
struct piece {
        struct warm_cuda_matrix *matrix;
        const float **floats;
        uint64_t at;
};

struct loading {
        struct warm_cuda_backend *b;
        struct warm_weights *w;
        struct item *items;
        struct piece *pieces;
        uint32_t n_items, n_pieces;
        float *floats; /* [n_floats] of all small tensors */
        uint64_t n_floats, n_floats_max;
        uint64_t matrix_bytes, raw_bytes; /* raw_bytes: of the tensors, as the file has them */
        uint32_t *d_overflow;
        bool no_memory;
};

/* Room for n floats that *ret_place will point at, zeros. Return: them; NULL: no memory, noted. */
static float *new_floats(struct loading *l, uint64_t n, const float **ret_place) {
        uint64_t padded = (n + ALIGN / 4 - 1) / (ALIGN / 4) * (ALIGN / 4);
        float *at;

        if (l->n_floats + padded > l->n_floats_max) {
                uint64_t most = (l->n_floats + padded) * 2;
                float *grown = realloc(l->floats, most * sizeof(float));

                if (!grown) {
                        l->no_memory = true;
                        return NULL;
                }
                l->floats = grown;
                l->n_floats_max = most;
        }
        at = l->floats + l->n_floats;
        memset(at, 0, padded * sizeof(float));
        l->pieces[l->n_pieces++] =
                (struct piece){ .floats = ret_place, .at = l->n_floats * sizeof(float) };
        l->n_floats += padded;
        return at;
}

static void add_vector(struct loading *l, const struct warm_tensor *t, const float **ret_place) {
        float *to = t->data ? new_floats(l, t->n_cols, ret_place) : NULL;

        if (to)
                warm_type_dequantize(t->type, t->data, t->n_cols, to);
}

/* Biases of tensors that stand side by side in a matrix; absent ones are zeros; none at all: no bias. */
static void add_biases(struct loading *l, const struct warm_cuda_matrix *m,
                       const struct warm_tensor *const *biases,
                       const struct warm_tensor *const *tensors, uint32_t n,
                       const float **ret_place) {
        uint64_t at = 0;
        float *to = NULL;

        for (uint32_t i = 0; i < n; i++)
                if (biases[i]->data && !to &&
                    !(to = new_floats(l, (uint64_t) m->row_blocks * 128, ret_place)))
                        return;
        for (uint32_t i = 0; to && i < n; at += tensors[i++]->n_rows)
                if (biases[i]->data)
                        warm_type_dequantize(biases[i]->type, biases[i]->data, biases[i]->n_cols,
                                             to + at);
}

/* The same for gate and up, whose rows take turns by eights. */
static void add_gate_biases(struct loading *l, const struct warm_plan_layer *from,
                            const struct warm_cuda_matrix *m, const float **ret_place) {
        const struct warm_tensor *const biases[2] = { &from->gate_bias, &from->up_bias };
        float *to, *values;

        if (!biases[0]->data && !biases[1]->data)
                return;
        to = new_floats(l, (uint64_t) m->row_blocks * 128, ret_place);
        values = calloc(from->n_ff, sizeof(float));
        if (!to || !values) {
                l->no_memory = true;
                free(values);
                return;
        }
        for (uint32_t i = 0; i < 2; i++) {
                if (!biases[i]->data)
                        continue;
                warm_type_dequantize(biases[i]->type, biases[i]->data, from->n_ff, values);
                for (uint32_t r = 0; r < from->n_ff; r++)
                        to[r / 8 * 16 + i * 8 + r % 8] = values[r];
        }
        free(values);
}

static void place_matrix(struct loading *l, struct warm_cuda_matrix *m,
                         enum warm_cuda_format format, uint64_t n_rows, uint64_t n_cols,
                         bool whole) {
        *m = (struct warm_cuda_matrix){
                .format = format,
                .n_rows = (uint32_t) n_rows,
                .row_blocks = (uint32_t) ((n_rows + 127) / 128),
                .k_units = (uint32_t) ((n_cols + 63) / 64),
                .scale = 1.0f /
                         (format == WARM_CUDA_F16 ? 1 << WARM_CUDA_EXPONENT_FLOAT
                                                  : 1 << WARM_CUDA_EXPONENT_QUANT) /
                         WARM_CUDA_ACT_SCALE,
        };
        m->n_segments = whole ? 1 : warm_cuda_segments_of(m->k_units);
        l->pieces[l->n_pieces++] = (struct piece){ .matrix = m, .at = l->matrix_bytes };
        l->matrix_bytes += (warm_cuda_matrix_bytes(m) + ALIGN - 1) / ALIGN * ALIGN;
}

static void add_item(struct loading *l, const struct warm_tensor *t, struct warm_cuda_matrix *m,
                     enum warm_cuda_place place, uint32_t offset) {
        l->items[l->n_items++] = (struct item){
                .loading = l, .tensor = t, .matrix = m, .place = place, .offset = offset
        };
}

/* A matrix of one tensor. @param whole its rows are many: no segments */
static void add_matrix(struct loading *l, const struct warm_tensor *t, bool whole,
                       struct warm_cuda_matrix *m) {
        place_matrix(l, m, warm_cuda_format_of(t->type), t->n_rows, t->n_cols, whole);
        add_item(l, t, m, WARM_CUDA_PLACE_ROWS, 0);
}

/* q, k, v: neighbours of one format share a matrix. */
static void add_parts(struct loading *l, const struct warm_plan_layer *from,
                      struct warm_cuda_layer *to) {
        const struct warm_tensor *const tensors[3] = { &from->q, &from->k, &from->v };
        const struct warm_tensor *const biases[3] = { &from->q_bias, &from->k_bias, &from->v_bias };
        uint32_t column = 0;

        for (uint32_t i = 0, n; i < 3; i += n) {
                struct warm_cuda_part *part = &to->parts[to->n_parts++];
                enum warm_cuda_format format = warm_cuda_format_of(tensors[i]->type);
                uint64_t rows = 0, offset = 0;

                for (n = 0; i + n < 3 && warm_cuda_format_of(tensors[i + n]->type) == format; n++)
                        rows += tensors[i + n]->n_rows;
                part->column = column;
                place_matrix(l, &part->matrix, format, rows, tensors[i]->n_cols, false);
                for (uint32_t j = 0; j < n; offset += tensors[i + j++]->n_rows)
                        add_item(l, tensors[i + j], &part->matrix, WARM_CUDA_PLACE_ROWS,
                                 (uint32_t) offset);
                add_biases(l, &part->matrix, biases + i, tensors + i, n, &part->d_bias);
                column += (uint32_t) rows;
        }
}

static void add_layer(struct loading *l, const struct warm_plan_layer *from,
                      struct warm_cuda_layer *to) {
        const struct warm_tensor *const o[1] = { &from->o }, *const o_bias[1] = { &from->o_bias };
        const struct warm_tensor *const down[1] = { &from->down }, *const down_bias[1] = {
                &from->down_bias
        };
        const struct warm_tensor *const up[1] = { &from->up }, *const up_bias[1] = {
                &from->up_bias
        };

        add_parts(l, from, to);
        add_matrix(l, &from->o, false, &to->o);
        add_biases(l, &to->o, o_bias, o, 1, &to->d_o_bias);
        if (from->ffn == WARM_FFN_GATED) {
                enum warm_cuda_format format = warm_cuda_format_of(from->up.type);

                /* One matrix has one format: what differs goes to binary16. */
                if (warm_cuda_format_of(from->gate.type) != format)
                        format = WARM_CUDA_F16;
                place_matrix(l, &to->up, format, 2 * from->up.n_rows, from->up.n_cols, true);
                add_item(l, &from->gate, &to->up, WARM_CUDA_PLACE_GATE, 0);
                add_item(l, &from->up, &to->up, WARM_CUDA_PLACE_UP, 0);
                add_gate_biases(l, from, &to->up, &to->d_up_bias);
        } else {
                add_matrix(l, &from->up, true, &to->up);
                add_biases(l, &to->up, up_bias, up, 1, &to->d_up_bias);
        }
        add_matrix(l, &from->down, false, &to->down);
        add_biases(l, &to->down, down_bias, down, 1, &to->d_down_bias);
        add_vector(l, &from->mixer_norm, &to->d_mixer_norm);
        add_vector(l, &from->ffn_norm, &to->d_ffn_norm);
        add_vector(l, &from->q_norm, &to->d_q_norm);
        add_vector(l, &from->k_norm, &to->d_k_norm);
}

static void place_all(struct loading *l, const struct warm_plan *plan) {
        struct warm_weights *w = l->w;
        const struct warm_tensor *output = plan->output.data ? &plan->output : &plan->embedding;
        const struct warm_tensor *const bias[1] = { &plan->output_bias };

        add_matrix(l, &plan->embedding, true, &w->embedding);
        if (plan->output.data)
                add_matrix(l, &plan->output, true, &w->output);
        for (uint32_t i = 0; i < plan->n_layers; i++)
                add_layer(l, &plan->layers[i], &w->layers[i]);
        add_vector(l, &plan->output_norm, &w->d_output_norm);
        add_biases(l, plan->output.data ? &w->output : &w->embedding, bias, &output, 1,
                   &w->d_output_bias);
}

/* On a copy thread. */
static int consume(void *userdata, const void *d_raw, uint64_t first_row, uint64_t n_rows,
                   cudaStream_t stream) {
        const struct item *i = userdata;

        return warm_cuda_error(warm_cuda_pack(
                i->matrix, i->tensor->type, i->place, i->offset, d_raw,
                i->tensor->bytes / i->tensor->n_rows, (uint32_t) first_row, (uint32_t) n_rows,
                (uint32_t) i->tensor->n_cols, i->loading->d_overflow, stream));
}

static int bring(struct loading *l, uint64_t row_bytes_max) {
        struct warm_cuda_loader_config config = { .device = l->b->device.index };
        uint64_t done = 0;
        struct warm_cuda_loader *loader = NULL;
        int r;

        if (row_bytes_max > WARM_CUDA_LOADER_PIECE_BYTES)
                config.piece_bytes = row_bytes_max;
        r = warm_cuda_loader_new(&config, &loader);
        for (uint32_t i = 0; r == 0 && i < l->n_items; i++) {
                const struct warm_tensor *t = l->items[i].tensor;

                r = warm_cuda_loader_rows(loader, t->data, t->bytes / t->n_rows, t->n_rows, 1,
                                          consume, &l->items[i]);
                done += t->bytes;
                if (l->b->load_progress)
                        l->b->load_progress(l->b->load_userdata, done, l->raw_bytes);
        }
        if (loader) {
                int finished = warm_cuda_loader_finish(loader);

                r = r ? r : finished;
        }
        warm_cuda_loader_free(loader);
        return r;
}

/* The arena with everything in it. @param ret_overflow whether a weight is too large for binary16 */
static int fill(struct loading *l, bool *ret_overflow) {
        struct warm_weights *w = l->w;
        uint64_t floats_at = l->matrix_bytes, overflow_at = floats_at + l->n_floats * sizeof(float),
                 row_bytes_max = 0;
        uint32_t overflow = 0;
        int r = warm_cuda_arena_init(&w->arena, &l->b->memory, overflow_at + ALIGN);

        if (r)
                return r;
        w->weights_bytes = w->arena.bytes;
        for (uint32_t i = 0; i < l->n_pieces; i++) {
                struct piece *p = &l->pieces[i];

                if (p->matrix)
                        p->matrix->d_data = w->arena.d_base + p->at;
                else
                        *p->floats = (const float *) (const void *) (w->arena.d_base + floats_at +
                                                                     p->at);
        }
        for (uint32_t i = 0; i < l->n_items; i++) {
                uint64_t bytes = l->items[i].tensor->bytes / l->items[i].tensor->n_rows;

                l->raw_bytes += l->items[i].tensor->bytes;

                row_bytes_max = bytes > row_bytes_max ? bytes : row_bytes_max;
        }
        l->d_overflow = (uint32_t *) (void *) (w->arena.d_base + overflow_at);
        r = warm_cuda_error(
                (int) cudaMemsetAsync(w->arena.d_base, 0, w->arena.bytes, l->b->stream));
        if (r == 0 && l->n_floats)
                r = warm_cuda_error((int) cudaMemcpyAsync(w->arena.d_base + floats_at, l->floats,
                                                          l->n_floats * sizeof(float),
                                                          cudaMemcpyHostToDevice, l->b->stream));
        if (r == 0) /* the loader has streams of its own */
                r = warm_cuda_error((int) cudaStreamSynchronize(l->b->stream));
        if (r == 0)
                r = bring(l, row_bytes_max);
        if (r == 0)
                r = warm_cuda_error((int) cudaMemcpy(&overflow, l->d_overflow, sizeof(overflow),
                                                     cudaMemcpyDeviceToHost));
        *ret_overflow = overflow != 0;
        return r;
}

static int load_tensors(struct warm_cuda_backend *b, const struct warm_plan *plan,
                        struct warm_weights *w, char **ret_why) {
        struct loading l = { .b = b, .w = w };
        bool overflow = false;
        int r = -ENOMEM;

        l.items = calloc(2 + plan->n_layers * MATRICES_A_LAYER, sizeof(*l.items));
        l.pieces = calloc(4 + plan->n_layers * (MATRICES_A_LAYER + VECTORS_A_LAYER),
                          sizeof(*l.pieces));
        if (l.items && l.pieces) {
                place_all(&l, plan);
                r = l.no_memory ? -ENOMEM : fill(&l, &overflow);
        }
        if (r == 0 && overflow) {
                if (ret_why)
                        *ret_why = strdup("a weight is larger than the GPU's binary16 can hold "
                                          "(255 in quantized "
                                          "tensors, 4094 in others): use --device cpu");
                r = -EOPNOTSUPP;
        }
        if (r == 0 && !plan->output.data)
                w->output = w->embedding;
        free(l.items);
        free(l.pieces);
        free(l.floats);
        return r;
}

/* What kernels here cannot compute of what the plan's check allows. */
static int check_shapes(const struct warm_plan *plan, char **ret_why) {
        char why[160] = "";

        for (uint32_t i = 0; i < plan->n_layers && !why[0]; i++) {
                const struct warm_plan_layer *l = &plan->layers[i];

                if (l->rope.kind != WARM_ROPE_NONE && l->rope.n_dims % 4)
                        snprintf(why, sizeof(why),
                                 "layer %u: %u dimensions turn: the GPU takes multiples of 4; use "
                                 "--device cpu",
                                 i, l->rope.n_dims);
                if (l->head_dim_k < 16 || l->head_dim_k > 256 || l->head_dim_k % 8 ||
                    l->head_dim_v < 16 || l->head_dim_v > 256 || l->head_dim_v % 8)
                        snprintf(why, sizeof(why),
                                 "layer %u: heads of %u and %u dimensions: the GPU takes multiples "
                                 "of 8 from 16 to "
                                 "256; use --device cpu",
                                 i, l->head_dim_k, l->head_dim_v);
        }
        if (plan->n_vocab > WARM_CUDA_SAMPLE_VOCAB_MAX)
                snprintf(why, sizeof(why),
                         "a vocabulary of %u: the GPU takes up to %u; use --device cpu",
                         plan->n_vocab, WARM_CUDA_SAMPLE_VOCAB_MAX);
        if (!why[0])
                return 0;
        if (ret_why)
                *ret_why = strdup(why);
        return -EOPNOTSUPP;
}

/* The table of this layer's positions: an equal one, or a new one at the end. */
static uint32_t rope_of(struct warm_weights *w, const struct warm_rope_params *p) {
        struct warm_rope_table *t = &w->ropes[w->n_ropes].table;

        memset(t, 0, sizeof(*t)); /* compared whole, padding too */
        warm_rope_init(p, t);
        for (uint32_t i = 0; i < w->n_ropes; i++)
                if (memcmp(&w->ropes[i].table, t, sizeof(*t)) == 0)
                        return i;
        return w->n_ropes++;
}

static uint32_t larger(uint32_t a, uint32_t b) {
        return a > b ? a : b;
}

static void copy_layer(struct warm_weights *w, const struct warm_plan_layer *from,
                       struct warm_cuda_layer *to) {
        uint32_t window = from->window ? from->window : UINT32_MAX, g = from->group;
        uint64_t k_values = (uint64_t) WARM_BLOCK_TOKENS * from->n_kv_heads * from->head_dim_k;

        *to = (struct warm_cuda_layer){
                .group = g,
                .n_heads = from->n_heads,
                .n_kv_heads = from->n_kv_heads,
                .head_dim_k = from->head_dim_k,
                .head_dim_v = from->head_dim_v,
                .window = window,
                .attention_scale = from->attention_scale,
                .attention_soft_cap = from->attention_soft_cap,
                .norm_epsilon = from->norm_epsilon,
                .residual_scale = from->residual_scale,
                .rope = rope_of(w, &from->rope),
                .ffn = from->ffn,
                .activation = from->activation,
                .n_ff = from->n_ff,
                .k_offset = w->limits.block_values[g] * 2,
                .v_offset = (w->limits.block_values[g] + k_values) * 2,
        };
        w->limits.block_values[g] +=
                k_values + (uint64_t) WARM_BLOCK_TOKENS * from->n_kv_heads * from->head_dim_v;
        w->limits.group_windows[g] = larger(w->limits.group_windows[g], window);
        w->qkv_max = larger(w->qkv_max,
                            from->n_heads * from->head_dim_k +
                                    from->n_kv_heads * (from->head_dim_k + from->head_dim_v));
        w->attention_max = larger(w->attention_max, from->n_heads * from->head_dim_v);
        w->ff_max = larger(w->ff_max, from->n_ff);
}

static bool has_block(const void *kv, uint32_t group, uint32_t block) {
        return warm_cuda_kv_has(kv, group, block);
}

static int copy_plan(const struct warm_plan *plan, struct warm_weights *w) {
        w->dim = plan->dim;
        w->n_vocab = w->limits.n_vocab = plan->n_vocab;
        w->n_context = w->limits.n_context = plan->n_context;
        w->n_groups = w->limits.n_groups = plan->n_groups;
        w->limits.has = has_block;
        w->n_layers = plan->n_layers;
        w->norm_epsilon = plan->norm_epsilon;
        w->embedding_scale = plan->embedding_scale;
        w->logit_scale = plan->logit_scale;
        w->logit_soft_cap = plan->logit_soft_cap;
        w->layers = calloc(plan->n_layers, sizeof(*w->layers));
        w->ropes = calloc(plan->n_layers, sizeof(*w->ropes));
        if (!w->layers || !w->ropes)
                return -ENOMEM;
        for (uint32_t i = 0; i < plan->n_layers; i++)
                copy_layer(w, &plan->layers[i], &w->layers[i]);
        w->qkv_max = (w->qkv_max + 3) / 4 * 4;
        return 0;
}

int warm_cuda_load(struct warm_cuda_backend *b, const struct warm_plan *plan,
                   struct warm_weights **ret_weights, char **ret_why) {
        struct warm_weights *w;
        int r = warm_plan_check(plan, ret_why);

        if (r == 0)
                r = check_shapes(plan, ret_why);
        if (r < 0)
                return r;
        w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        r = copy_plan(plan, w);
        if (r == 0)
                r = load_tensors(b, plan, w, ret_why);
        if (r == 0)
                r = warm_cuda_scratch_init(b, w);
        if (r) {
                warm_cuda_weights_free(b, w);
                return r == WARM_BACKEND_E_LOST ? warm_cuda_lost(b, 0, "loading") : r;
        }
        b->scratch_bytes += w->scratch.bytes;
        b->held_bytes += w->arena.bytes + w->scratch.bytes;
        w->counted = true;
        *ret_weights = w;
        return 0;
}

struct warm_weights *warm_cuda_weights_free(struct warm_cuda_backend *b, struct warm_weights *w) {
        if (!w)
                return NULL;
        if (w->counted) {
                b->scratch_bytes -= w->scratch.bytes;
                b->held_bytes -= w->arena.bytes + w->scratch.bytes;
        }
        (void) cudaStreamSynchronize(b->stream);
        warm_cuda_scratch_deinit(b, w);
        warm_cuda_kv_deinit(&w->kv);
        warm_cuda_range_deinit(&w->arena);
        free(w->layers);
        free(w->ropes);
        free(w);
        return NULL;
}
