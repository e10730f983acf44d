/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step: copies, then slices of rows through all layers, then what the rows want.
 *
 * Every thread runs the same program over one slice and meets the others at barriers; between two barriers the
 * threads take pieces (columns of a product, rows, attention units) as they come. Which thread computes a piece and
 * how pieces are cut changes no bit: see matrix.h, attention.h.
 *
 * Phases of a layer: q, k, v | store and attend | o and residual | gate, up, activation | down and residual. Before
 * each product the activations are prepared (norm, quantization): with few rows by every thread for itself, which
 * costs less than a barrier, else shared out.
 *
 * In the last layer only the rows that want something go on after K and V are stored.
 */
#include <string.h>

#include "cpu.h"
#include "functions.h"
#include "rows.h"

#define PIECE_COLS 64U /* columns of a product that a thread takes at once; untuned guess */

/* A slice under way; shared by the threads. */
struct slice {
        struct warm_cpu_backend *b;
        struct warm_weights *w;
        const struct warm_step *step;
        const struct warm_row *rows; /* [n_all] */
        uint32_t n_all;
        uint32_t n; /* rows in x: all, then those that want something */
        uint32_t n_wanting;
        uint32_t n_units;
        bool single; /* no sequence has two rows here: a unit can store and attend in one go */
};

static void barrier(const struct slice *s, uint32_t index) {
        warm_threads_barrier(s->b->threads, index);
}

static uint32_t take(const struct slice *s, uint32_t n) {
        return warm_threads_take(s->b->threads, n);
}

static uint32_t smaller(uint32_t a, uint32_t b) {
        return a < b ? a : b;
}

/*
 * Activations of n rows, ready for products: normed first if weight is given.
 * After it every thread may multiply; the same x must stay until then.
 */
static struct warm_acts *prepare(const struct slice *s, uint32_t index, const float *x,
                                 uint64_t n_cols, uint32_t n, const float *weight, float epsilon) {
        struct warm_cpu_scratch *scratch = &s->w->scratch;
        const struct warm_kernels *k = s->b->kernels;
        struct warm_cpu_worker *own = &scratch->workers[index];

        if (n <= WARM_CPU_FEW) {
                for (uint32_t i = 0; weight && i < n; i++)
                        warm_rms_norm(k, x + i * n_cols, weight, epsilon, own->normed + i * n_cols,
                                      n_cols);
                warm_acts_set(k, &own->acts, weight ? own->normed : x, n_cols, n_cols, 0, n);
                return &own->acts;
        }
        for (uint32_t at; (at = take(s, WARM_ACTS_GROUP)) < n;) {
                uint32_t end = smaller(at + WARM_ACTS_GROUP, n);

                for (uint32_t i = at; weight && i < end; i++)
                        warm_rms_norm(k, x + i * n_cols, weight, epsilon,
                                      scratch->normed + i * n_cols, n_cols);
                warm_acts_set(k, &scratch->acts, weight ? scratch->normed : x, n_cols, n_cols, at,
                              end);
        }
        barrier(s, index);
        return &scratch->acts;
}

/* One matrix of a phase that computes several from the same activations. */
struct product {
        const struct warm_matrix *matrix;
        const float *bias;
        float *out;
};

static void add_bias(const struct slice *s, const float *bias, float *out, uint64_t ld,
                     uint64_t begin, uint64_t end) {
        for (uint32_t i = 0; bias && i < s->n; i++)
                warm_add(s->b->kernels, out + i * ld + begin, bias + begin, out + i * ld + begin,
                         end - begin);
}

/* Compute the products side by side: their columns are numbered through. */
static void multiply(const struct slice *s, const struct warm_acts *acts, const struct product *p,
                     uint32_t n_products) {
        uint32_t first = 0, i = 0;

        for (uint32_t piece; i < n_products;) {
                piece = take(s, 1);
                for (; i < n_products; i++) {
                        uint32_t n = (uint32_t) ((p[i].matrix->n_rows - 1) / PIECE_COLS) + 1;

                        if (piece - first < n)
                                break;
                        first += n;
                }
                if (i < n_products) {
                        const struct warm_matrix *m = p[i].matrix;
                        uint64_t begin = (uint64_t) (piece - first) * PIECE_COLS;
                        uint64_t end = begin + PIECE_COLS;

                        end = end > m->n_rows ? m->n_rows : end;
                        warm_matrix_multiply(s->b->kernels, m, acts, 0, s->n, begin, end, p[i].out,
                                             m->n_rows);
                        add_bias(s, p[i].bias, p[i].out, m->n_rows, begin, end);
                }
        }
}

/* x += scale * (product + bias), a piece of columns at a time. */
static void multiply_onto_x(const struct slice *s, const struct warm_acts *acts,
                            const struct warm_matrix *m, const float *bias, float scale) {
        const struct warm_kernels *k = s->b->kernels;
        float *x = s->w->scratch.x, *part = s->w->scratch.normed;
        uint64_t dim = m->n_rows;

        for (uint64_t at; (at = (uint64_t) take(s, 1) * PIECE_COLS) < dim;) {
                uint64_t end = at + PIECE_COLS > dim ? dim : at + PIECE_COLS;

                warm_matrix_multiply(k, m, acts, 0, s->n, at, end, part, dim);
                add_bias(s, bias, part, dim, at, end);
                for (uint32_t i = 0; i < s->n; i++) {
                        for (uint64_t c = at; scale != 1 && c < end; c++)
                                part[i * dim + c] *= scale;
                        warm_add(k, x + i * dim + at, part + i * dim + at, x + i * dim + at,
                                 end - at);
                }
        }
}

/* Embeddings and the turns of the rows' positions. */
static void begin_rows(const struct slice *s) {
        struct warm_weights *w = s->w;
        struct warm_cpu_scratch *scratch = &w->scratch;

        for (uint32_t i; (i = take(s, 1)) < s->n_all;) {
                float *x = scratch->x + (uint64_t) i * w->dim;

                warm_matrix_row(s->b->kernels, &w->embedding, (uint64_t) s->rows[i].token, x);
                for (uint32_t c = 0; w->embedding_scale != 1 && c < w->dim; c++)
                        x[c] *= w->embedding_scale;
                for (uint32_t r = 0; r < w->n_ropes; r++)
                        warm_rope_turn(&w->ropes[r], s->rows[i].position,
                                       scratch->turns + ((uint64_t) r * WARM_CPU_SLICE + i) *
                                                                WARM_ROPE_DIMS_MAX);
        }
}

static const float *turn_of(const struct slice *s, const struct warm_cpu_layer *l, uint32_t row) {
        return s->w->scratch.turns +
               ((uint64_t) l->rope * WARM_CPU_SLICE + row) * WARM_ROPE_DIMS_MAX;
}

static struct warm_attend_place place_of(const struct slice *s, const struct warm_cpu_layer *l,
                                         uint32_t kv_head) {
        uint64_t bytes = s->w->kv.type == WARM_TYPE_F32 ? 4 : 2;
        uint64_t k_tile = (uint64_t) WARM_BLOCK_TOKENS * l->head_dim_k;
        uint64_t v_tile = (uint64_t) WARM_BLOCK_TOKENS * l->head_dim_v;

        return (struct warm_attend_place){
                .k_offset = (l->kv_values + kv_head * k_tile) * bytes,
                .v_offset = (l->kv_values + l->n_kv_heads * k_tile + kv_head * v_tile) * bytes,
        };
}

/* Norm and turn K of one row and head, and store it with V. row: of the slice. */
static void store(const struct slice *s, const struct warm_cpu_layer *l, uint32_t row,
                  uint32_t kv_head) {
        const struct warm_row *r = &s->rows[row];
        const struct warm_kv *kv = &s->w->kv;
        struct warm_cpu_scratch *scratch = &s->w->scratch;
        struct warm_attend_place place = place_of(s, l, kv_head);
        uint64_t at = (uint64_t) row * l->n_kv_heads + kv_head;
        float *k = scratch->k + at * l->head_dim_k;
        uint32_t block =
                s->step->sequences[r->sequence].blocks[l->group][r->slot / WARM_BLOCK_TOKENS];

        if (l->k_norm)
                warm_rms_norm(s->b->kernels, k, l->k_norm, l->norm_epsilon, k, l->head_dim_k);
        warm_rope_apply(&s->w->ropes[l->rope], turn_of(s, l, row), k);
        s->b->attention->store(warm_kv_block(kv, l->group, block), &place, kv->type, r->slot, k,
                               l->head_dim_k, scratch->v + at * l->head_dim_v, l->head_dim_v);
}

/* Attention of a unit's rows in one KV head; rows are places in x. */
static void attend(const struct slice *s, const struct warm_cpu_layer *l, uint32_t index,
                   struct warm_cpu_unit unit, uint32_t kv_head) {
        struct warm_cpu_scratch *scratch = &s->w->scratch;
        uint32_t n_heads = l->n_heads / l->n_kv_heads, sequence;
        struct warm_attend_row rows[WARM_UNIT_QUERIES];
        struct warm_attend_scratch own;
        struct warm_attend a;

        warm_attention_scratch_cut(scratch->workers[index].attention, l->head_dim_k, l->head_dim_v,
                                   unit.n * n_heads, &own);
        for (uint32_t i = 0; i < unit.n; i++) {
                uint32_t row = scratch->rows[unit.begin + i];
                const struct warm_row *r = &s->rows[row];
                uint32_t behind = r->slot < l->window ? 0 : r->slot - l->window + 1;

                rows[i].lo = r->lo > behind ? r->lo : behind;
                rows[i].hi = r->hi;
                rows[i].mask = r->mask;
                for (uint32_t h = 0; h < n_heads; h++) {
                        float *to = own.q + ((uint64_t) i * n_heads + h) * l->head_dim_k;
                        const float *from =
                                scratch->q +
                                (((uint64_t) (unit.begin + i) * l->n_heads) + kv_head * n_heads +
                                 h) * l->head_dim_k;

                        if (l->q_norm)
                                warm_rms_norm(s->b->kernels, from, l->q_norm, l->norm_epsilon, to,
                                              l->head_dim_k);
                        else
                                memcpy(to, from, l->head_dim_k * sizeof(*to));
                        warm_rope_apply(&s->w->ropes[l->rope], turn_of(s, l, row), to);
                        for (uint32_t d = 0; d < l->head_dim_k; d++)
                                to[d] *= l->attention_scale;
                }
        }
        sequence = s->rows[scratch->rows[unit.begin]].sequence;
        a = (struct warm_attend){
                .kv = &s->w->kv,
                .group = l->group,
                .blocks = s->step->sequences[sequence].blocks[l->group],
                .place = place_of(s, l, kv_head),
                .head_dim_k = l->head_dim_k,
                .head_dim_v = l->head_dim_v,
                .n_heads = n_heads,
                .soft_cap = l->attention_soft_cap,
                .rows = rows,
                .n_rows = unit.n,
                .out = scratch->mixed +
                       ((uint64_t) unit.begin * l->n_heads + kv_head * n_heads) * l->head_dim_v,
                .ld_out = (uint64_t) l->n_heads * l->head_dim_v,
        };
        s->b->attention->attend(&a, &own);
}

/* Cut the rows in x into units: neighbours of one sequence, at most unit_rows. */
static void make_units(struct slice *s) {
        struct warm_cpu_scratch *scratch = &s->w->scratch;

        s->n_units = 0;
        for (uint32_t i = 0; i < s->n; i++) {
                struct warm_cpu_unit *last = &scratch->units[s->n_units - (s->n_units > 0)];

                if (s->n_units > 0 && last->n < s->w->unit_rows &&
                    s->rows[scratch->rows[i]].sequence ==
                            s->rows[scratch->rows[last->begin]].sequence)
                        last->n++;
                else
                        scratch->units[s->n_units++] = (struct warm_cpu_unit){ i, 1 };
        }
}

/* All units of all KV heads; those of the last rows first, for they see the most. */
static void attend_all(const struct slice *s, const struct warm_cpu_layer *l, uint32_t index,
                       bool stored) {
        uint32_t n_pieces = s->n_units * l->n_kv_heads;

        for (uint32_t i; (i = take(s, 1)) < n_pieces;) {
                uint32_t unit = s->n_units - 1 - i / l->n_kv_heads, kv_head = i % l->n_kv_heads;

                if (!stored)
                        store(s, l, unit, kv_head); /* a unit is one row, all rows are here */
                attend(s, l, index, s->w->scratch.units[unit], kv_head);
        }
}

static void store_all(const struct slice *s, const struct warm_cpu_layer *l) {
        uint32_t n_pieces = s->n_all * l->n_kv_heads;

        for (uint32_t at; (at = take(s, 8)) < n_pieces;)
                for (uint32_t i = at; i < smaller(at + 8, n_pieces); i++)
                        store(s, l, i / l->n_kv_heads, i % l->n_kv_heads);
}

/* Keep in x only the rows that want something. By one thread, between barriers. */
static void keep_wanting(struct slice *s) {
        struct warm_cpu_scratch *scratch = &s->w->scratch;
        uint64_t dim = s->w->dim;

        s->n = 0;
        for (uint32_t i = 0; i < s->n_all; i++) {
                if (!s->rows[i].want)
                        continue;
                memmove(scratch->x + s->n * dim, scratch->x + i * dim, dim * sizeof(float));
                scratch->rows[s->n++] = i;
        }
        make_units(s);
}

/* The mixer. last: the last layer. Return: false if nobody goes on. */
static bool mix(struct slice *s, const struct warm_cpu_layer *l, uint32_t index, bool last) {
        struct warm_cpu_scratch *scratch = &s->w->scratch;
        const struct product q = { &l->q, l->q_bias, scratch->q };
        const struct product k = { &l->k, l->k_bias, scratch->k };
        const struct product v = { &l->v, l->v_bias, scratch->v };
        bool fewer = last && s->n_wanting < s->n_all, stored = !s->single || fewer;
        struct warm_acts *acts;

        acts = prepare(s, index, scratch->x, s->w->dim, s->n, l->mixer_norm, l->norm_epsilon);
        multiply(s, acts, fewer ? (struct product[]){ k, v } : (struct product[]){ q, k, v },
                 fewer ? 2 : 3);
        barrier(s, index);
        if (stored) {
                store_all(s, l);
                barrier(s, index);
        }
        if (fewer) {
                if (s->n_wanting == 0)
                        return false;
                if (index == 0)
                        keep_wanting(s);
                barrier(s, index);
                acts = prepare(s, index, scratch->x, s->w->dim, s->n, l->mixer_norm,
                               l->norm_epsilon);
                multiply(s, acts, &q, 1);
                barrier(s, index);
        }
        attend_all(s, l, index, stored);
        barrier(s, index);
        acts = prepare(s, index, scratch->mixed, (uint64_t) l->n_heads * l->head_dim_v, s->n, NULL,
                       0);
        multiply_onto_x(s, acts, &l->o, l->o_bias, l->residual_scale);
        barrier(s, index);
        return true;
}

/* gate = activation(gate) * up over columns [begin, end), or gate = activation(up) without a gate. */
static void activate(const struct slice *s, const struct warm_cpu_layer *l, uint64_t begin,
                     uint64_t end) {
        struct warm_cpu_scratch *scratch = &s->w->scratch;

        for (uint32_t i = 0; i < s->n; i++) {
                float *gate = scratch->gate + (uint64_t) i * l->n_ff;
                const float *up = scratch->up + (uint64_t) i * l->n_ff;

                if (l->ffn == WARM_FFN_GATED && l->activation == WARM_ACTIVATION_SILU)
                        warm_silu_times(s->b->kernels, gate + begin, up + begin, gate + begin,
                                        end - begin);
                else if (l->ffn == WARM_FFN_GATED)
                        for (uint64_t c = begin; c < end; c++)
                                gate[c] = warm_activate(l->activation, gate[c]) * up[c];
                else
                        for (uint64_t c = begin; c < end; c++)
                                gate[c] = warm_activate(l->activation, up[c]);
        }
}

static void feed_forward(const struct slice *s, const struct warm_cpu_layer *l, uint32_t index) {
        struct warm_cpu_scratch *scratch = &s->w->scratch;
        const struct warm_kernels *k = s->b->kernels;
        struct warm_acts *acts =
                prepare(s, index, scratch->x, s->w->dim, s->n, l->ffn_norm, l->norm_epsilon);

        for (uint64_t at; (at = (uint64_t) take(s, 1) * PIECE_COLS) < l->n_ff;) {
                uint64_t end = at + PIECE_COLS > l->n_ff ? l->n_ff : at + PIECE_COLS;

                if (l->ffn == WARM_FFN_GATED) {
                        warm_matrix_multiply(k, &l->gate, acts, 0, s->n, at, end, scratch->gate,
                                             l->n_ff);
                        add_bias(s, l->gate_bias, scratch->gate, l->n_ff, at, end);
                }
                warm_matrix_multiply(k, &l->up, acts, 0, s->n, at, end, scratch->up, l->n_ff);
                add_bias(s, l->up_bias, scratch->up, l->n_ff, at, end);
                activate(s, l, at, end);
        }
        barrier(s, index);
        acts = prepare(s, index, scratch->gate, l->n_ff, s->n, NULL, 0);
        multiply_onto_x(s, acts, &l->down, l->down_bias, l->residual_scale);
        barrier(s, index);
}

/* One segment of the vocabulary for n rows: logits as the model has them, and their sums. */
static void output_segment(const struct slice *s, uint32_t index, const struct warm_acts *acts,
                           uint32_t n, uint32_t segment) {
        struct warm_weights *w = s->w;
        struct warm_cpu_scratch *scratch = &w->scratch;
        uint32_t begin = segment * WARM_SAMPLE_SEGMENT;
        uint32_t end = smaller(begin + WARM_SAMPLE_SEGMENT, w->n_vocab);
        uint32_t n_segments = (w->n_vocab - 1) / WARM_SAMPLE_SEGMENT + 1;

        warm_matrix_multiply(s->b->kernels, &w->output, acts, 0, n, begin, end, scratch->logits,
                             w->n_vocab);
        for (uint32_t i = 0; i < n; i++) {
                float *logits = scratch->logits + (uint64_t) i * w->n_vocab;

                for (uint32_t c = begin; w->output_bias && c < end; c++)
                        logits[c] += w->output_bias[c];
                for (uint32_t c = begin; w->logit_scale != 1 && c < end; c++)
                        logits[c] *= w->logit_scale;
                for (uint32_t c = begin; w->logit_soft_cap > 0 && c < end; c++)
                        logits[c] = warm_soft_cap(logits[c], w->logit_soft_cap);
                warm_segment_sum(s->b->kernels, logits + begin, begin, end - begin,
                                 scratch->workers[index].segment,
                                 &scratch->segments[(uint64_t) i * n_segments + segment]);
        }
}

/* Logits and what is wanted of them, as many rows at once as there is room for. */
static void output(const struct slice *s, uint32_t index) {
        struct warm_weights *w = s->w;
        struct warm_cpu_scratch *scratch = &w->scratch;
        uint32_t n_segments = (w->n_vocab - 1) / WARM_SAMPLE_SEGMENT + 1;

        for (uint32_t first = 0; first < s->n; first += scratch->n_logit_rows) {
                uint32_t n = smaller(s->n - first, scratch->n_logit_rows);
                struct warm_acts *acts = prepare(s, index, scratch->x + (uint64_t) first * w->dim,
                                                 w->dim, n, w->output_norm, w->norm_epsilon);

                for (uint32_t i; (i = take(s, 1)) < n_segments;)
                        output_segment(s, index, acts, n, i);
                barrier(s, index);
                for (uint32_t i; (i = take(s, 1)) < n;)
                        warm_sample_row(s->b->kernels, &s->rows[scratch->rows[first + i]],
                                        scratch->logits + (uint64_t) i * w->n_vocab,
                                        scratch->segments + (uint64_t) i * n_segments, w->n_vocab,
                                        &scratch->workers[index].sample);
                barrier(s, index);
        }
}

static void slice_worker(void *arg, uint32_t index) {
        struct slice *s = arg;
        struct warm_weights *w = s->w;

        begin_rows(s);
        barrier(s, index);
        for (uint32_t i = 0; i < w->n_layers; i++) {
                if (!mix(s, &w->layers[i], index, i + 1 == w->n_layers))
                        return;
                feed_forward(s, &w->layers[i], index);
        }
        output(s, index);
}

static void run_slice(struct warm_cpu_backend *b, struct warm_weights *w,
                      const struct warm_step *step, uint32_t first, uint32_t n) {
        struct slice s = {
                .b = b,
                .w = w,
                .step = step,
                .rows = step->rows + first,
                .n_all = n,
                .n = n,
                .single = true,
        };
        uint64_t seen = 0;

        for (uint32_t i = 0; i < n; i++) {
                uint64_t bit = 1ULL << s.rows[i].sequence; /* at most 64 sequences */

                s.single = s.single && !(seen & bit);
                seen |= bit;
                w->scratch.rows[i] = i;
                s.n_wanting += s.rows[i].want != 0;
        }
        make_units(&s);
        warm_threads_run(b->threads, slice_worker, &s);
}

void warm_cpu_step_run(struct warm_cpu_backend *b, struct warm_weights *w,
                       const struct warm_step *step) {
        for (uint32_t i = 0; i < step->n_copies; i++) {
                const struct warm_block_copy *c = &step->copies[i];

                if (c->source != c->target)
                        memcpy(warm_kv_block(&w->kv, c->group, c->target),
                               warm_kv_block(&w->kv, c->group, c->source),
                               w->kv.groups[c->group].block_bytes);
        }
        for (uint32_t i = 0; i < step->n_rows; i += WARM_CPU_SLICE)
                run_slice(b, w, step, i, smaller(step->n_rows - i, WARM_CPU_SLICE));
}
