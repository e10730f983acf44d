/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of a step, in order. Phases of a layer: q, k, v with the norm before | store and attend | o, residual,
 * squares for the norm that follows | gate, up, activation | down, residual, squares.
 *
 * Each kernel may start while the one before it runs (launch.cuh). Attention and products read the step's description
 * before they wait: so the first product of a step starts only when the description is there.
 */
#include <errno.h>

#include "gpu.h"

struct run {
        struct warm_cuda_backend *b;
        struct warm_weights *w;
        const struct warm_cuda_kind *kind;
        const struct warm_cuda_header *d_header;
        struct warm_cuda_places at;
        uint32_t squares_ld;
        int error; /* of the first launch that failed */
        const char *where;
};

static void note(struct run *r, int error, const char *where) {
        if (r->error || error == 0)
                return;
        r->error = error;
        r->where = where;
}

static struct warm_cuda_acts acts(const struct run *r, uint16_t *d_values, uint32_t n_cols) {
        return (struct warm_cuda_acts){
                .d_values = d_values,
                .n8 = r->kind->n8,
                .k_padded = (n_cols + WARM_CUDA_K - 1) / WARM_CUDA_K * WARM_CUDA_K,
        };
}

static struct warm_cuda_product product(const struct run *r, const struct warm_cuda_matrix *m,
                                        struct warm_cuda_acts in,
                                        enum warm_cuda_epilogue epilogue) {
        return (struct warm_cuda_product){
                .matrix = *m,
                .in = in,
                .epilogue = epilogue,
                .d_n_rows = &r->d_header->counts[WARM_CUDA_N_ROWS],
                .n_rows_max = r->kind->n_rows_max,
                .overlap = r->b->overlap,
                .n_tiles = (r->w->dim + 15) / 16,
                .squares_ld = r->squares_ld,
                .dim = r->w->dim,
                .d_parts = r->w->d_attention, /* which has nothing in it then */
                .parts_bytes = r->w->attention_bytes,
                .d_counters = r->w->d_counters,
        };
}

static void multiply(struct run *r, const struct warm_cuda_product *p) {
        if (p->in.n8)
                note(r, warm_cuda_multiply_narrow(p, r->b->n_sms, r->b->stream),
                     "a narrow product");
        else if (r->b->wgmma)
                note(r, warm_cuda_multiply_sm90(p, r->b->n_sms, r->b->stream), "a wide product");
        else
                note(r, warm_cuda_multiply_wide(p, r->b->stream), "a wide product");
}

/* The input is x with its norm: what scales the sums. */
static void after_norm(const struct run *r, struct warm_cuda_product *p, float epsilon) {
        p->epsilon = epsilon;
        if (p->in.n8)
                p->d_squares = r->w->d_squares;
        else
                p->d_row_scales = r->w->d_row_scales;
}

static void scale_rows(struct run *r, float epsilon) {
        if (r->kind->n8 == 0)
                note(r,
                     warm_cuda_row_scales(r->w->d_squares, r->squares_ld, r->w->dim, epsilon,
                                          &r->d_header->counts[WARM_CUDA_N_ROWS],
                                          r->kind->n_rows_max, r->w->d_row_scales, r->b->overlap,
                                          r->b->stream),
                     "row scales");
}

/* A graph is for many steps; a wide step is launched for itself. */
static uint32_t words_sure(const struct run *r) {
        const struct warm_cuda_header *h = (const void *) r->w->step;

        return r->kind->n8 ? (uint32_t) (r->at.tables + WARM_CUDA_TABLES_SURE) / 16 : h->words;
}

static void begin(struct run *r) {
        const struct warm_cuda_row *d_rows = (const void *) (r->w->d_step + r->at.rows);
        struct warm_cuda_embed e = {
                .embedding = r->w->embedding,
                .d_rows = d_rows,
                .d_n_rows = &r->d_header->counts[WARM_CUDA_N_ROWS],
                .n_rows_max = r->kind->n_rows_max,
                .dim = r->w->dim,
                .embedding_scale = r->w->embedding_scale,
                .d_norm = r->w->layers[0].d_mixer_norm,
                .d_x = r->w->d_x,
                .out = acts(r, r->w->d_acts_x, r->w->dim),
                .d_squares = r->w->d_squares,
                .squares_ld = r->squares_ld,
                .d_turns = r->w->d_turns,
                .n_turns = r->w->n_ropes,
                .n_pairs_max = r->w->n_pairs_max,
                .overlap = r->b->overlap,
        };

        note(r,
             warm_cuda_stage(r->w->d_step, r->w->mapped_step, words_sure(r), false, r->b->stream),
             "the description");
        note(r, warm_cuda_embed_rows(&e, r->b->stream), "embeddings and turns");
}

static void attend(struct run *r, const struct warm_cuda_layer *l) {
        const struct warm_cuda_rope *rope = &r->w->ropes[l->rope];
        struct warm_cuda_attention a = {
                .n_heads = l->n_heads,
                .n_kv_heads = l->n_kv_heads,
                .head_dim_k = l->head_dim_k,
                .head_dim_v = l->head_dim_v,
                .window = l->window,
                .scale = l->attention_scale,
                .soft_cap = l->attention_soft_cap,
                .norm_epsilon = l->norm_epsilon,
                .n_pairs = rope->table.n_pairs,
                .halves = rope->table.kind == WARM_ROPE_HALVES,
                .d_q_norm = l->d_q_norm,
                .d_k_norm = l->d_k_norm,
                .d_turns = rope->d_turns,
                .kv = warm_cuda_kv_get(&r->w->kv, l->group),
                .k_offset = l->k_offset,
                .v_offset = l->v_offset,
                .d_rows = (const void *) (r->w->d_step + r->at.rows),
                .d_counts = r->d_header->counts,
                .d_units = (const void *) (r->w->d_step + r->at.units),
                .n_rows_max = r->kind->n_rows_max,
                .n_units_max = r->kind->n_units_max,
                .n_unit_rows_max = r->kind->n_unit_rows_max,
                .n_slots_max = r->kind->n_slots_max,
                .d_qkv = r->w->d_qkv,
                .ld_qkv = r->w->qkv_max,
                .out = acts(r, r->w->d_acts_attention, l->n_heads * l->head_dim_v),
                .d_scratch = r->w->d_attention,
                .scratch_bytes = r->w->attention_bytes,
                .overlap = r->b->overlap,
        };

        /* Row s * n_groups + g of the tables is group g's of sequence s. */
        a.kv.d_tables = (const uint32_t *) (const void *) (r->w->d_step + r->at.tables) +
                        l->group * r->w->table_ld;
        a.kv.table_ld = r->w->table_ld * r->w->n_groups;
        note(r, warm_cuda_attention_store(&a, r->b->stream), "the store of K and V");
        note(r, warm_cuda_attention_run(&a, r->b->stream), "attention");
}

/* x += product; activations and squares of the norm that follows. */
static void add_to_x(struct run *r, const struct warm_cuda_layer *l,
                     const struct warm_cuda_matrix *m, struct warm_cuda_acts in,
                     const float *d_bias, const float *d_next_norm) {
        struct warm_cuda_product p = product(r, m, in, WARM_CUDA_RESIDUAL);

        p.d_bias = d_bias;
        p.d_x = r->w->d_x;
        p.d_next_norm = d_next_norm;
        p.residual_scale = l->residual_scale;
        p.d_squares_out = r->w->d_squares;
        p.out = acts(r, r->w->d_acts_x, r->w->dim);
        multiply(r, &p);
}

/* q, k, v: as many products as they have formats. */
static void project(struct run *r, const struct warm_cuda_layer *l, bool first) {
        struct warm_cuda_product p[3];

        for (uint32_t i = 0; i < l->n_parts; i++) {
                p[i] = product(r, &l->parts[i].matrix, acts(r, r->w->d_acts_x, r->w->dim),
                               WARM_CUDA_OUT);
                after_norm(r, &p[i], l->norm_epsilon);
                p[i].d_bias = l->parts[i].d_bias;
                p[i].d_out = r->w->d_qkv + l->parts[i].column;
                p[i].ld_out = r->w->qkv_max;
                p[i].overlap = r->b->overlap && !(first && i == 0);
        }
        if (l->n_parts == 2 && warm_cuda_two_fit(&p[0], &p[1])) {
                note(r, warm_cuda_multiply_two(&p[0], &p[1], r->b->n_sms, r->b->stream),
                     "two products");
                return;
        }
        for (uint32_t i = 0; i < l->n_parts; i++)
                multiply(r, &p[i]);
}

static void layer(struct run *r, uint32_t index) {
        const struct warm_cuda_layer *l = &r->w->layers[index];
        const float *d_next = index + 1 < r->w->n_layers ? l[1].d_mixer_norm : r->w->d_output_norm;
        struct warm_cuda_product p;

        scale_rows(r, l->norm_epsilon);
        project(r, l, index == 0);
        attend(r, l);
        add_to_x(r, l, &l->o, acts(r, r->w->d_acts_attention, l->n_heads * l->head_dim_v),
                 l->d_o_bias, l->d_ffn_norm);
        scale_rows(r, l->norm_epsilon);
        p = product(r, &l->up, acts(r, r->w->d_acts_x, r->w->dim),
                    l->ffn == WARM_FFN_GATED ? WARM_CUDA_GATED : WARM_CUDA_PLAIN);
        after_norm(r, &p, l->norm_epsilon);
        p.d_bias = l->d_up_bias;
        p.activation = l->activation;
        p.out = acts(r, r->w->d_acts_ff, l->n_ff);
        multiply(r, &p);
        add_to_x(r, l, &l->down, acts(r, r->w->d_acts_ff, l->n_ff), l->d_down_bias, d_next);
}

/* Logits and answers of up to WARM_CUDA_WANTED wanted rows. @param n_max of them */
static void output(struct run *r, uint32_t batch, uint32_t n_max) {
        struct warm_weights *w = r->w;
        struct warm_cuda_acts all = acts(r, w->d_acts_x, w->dim), in = all;
        const uint32_t *d_n = &r->d_header->counts[WARM_CUDA_N_ROWS];
        struct warm_cuda_product p;
        struct warm_cuda_sample s = {
                .d_logits = w->d_logits,
                .ld = (w->n_vocab + 3) / 4 * 4,
                .n_vocab = w->n_vocab,
                .n_rows_max = n_max,
                .d_wants =
                        (const struct warm_cuda_want *) (const void *) (w->d_step + r->at.wants) +
                        batch * WARM_CUDA_WANTED,
                .d_allowed = (const uint64_t *) (const void *) w->d_step,
                .d_banned = (const int32_t *) (const void *) w->d_step,
                .d_scratch = w->d_sample,
                .answers = w->mapped_answers + batch * WARM_CUDA_WANTED,
                .greedy = r->kind->greedy,
                .overlap = r->b->overlap,
        };

        if (r->kind->gather) {
                d_n = &r->d_header->n_wanted[batch];
                in.d_values = w->d_acts_wanted;
                in.n8 = warm_cuda_n8(n_max);
                note(r,
                     warm_cuda_gather(&all, w->d_squares, r->squares_ld, w->dim,
                                      (const uint32_t *) (const void *) (w->d_step + r->at.wanted) +
                                              batch * WARM_CUDA_WANTED,
                                      d_n, n_max, &in, w->d_squares_wanted, WARM_CUDA_WANTED,
                                      r->b->overlap, r->b->stream),
                     "the wanted rows");
        }
        p = product(r, &w->output, in, WARM_CUDA_LOGITS);
        p.d_n_rows = d_n;
        p.n_rows_max = n_max;
        p.epsilon = w->norm_epsilon;
        p.d_squares = r->kind->gather ? w->d_squares_wanted : w->d_squares;
        p.squares_ld = r->kind->gather ? WARM_CUDA_WANTED : r->squares_ld;
        p.d_bias = w->d_output_bias;
        p.d_out = w->d_logits;
        p.ld_out = s.ld;
        p.logit_scale = w->logit_scale;
        p.soft_cap = w->logit_soft_cap;
        multiply(r, &p);
        s.d_n_rows = d_n;
        note(r, warm_cuda_sample_run(&s, r->b->stream), "sampling");
}

/* Copy the logits of a batch to rows that want them; waits. */
static void fetch_logits(struct run *r, const struct warm_step *step, uint32_t batch) {
        uint32_t n = 0, ld = (r->w->n_vocab + 3) / 4 * 4;

        for (uint32_t i = 0; i < step->n_rows; i++) {
                const struct warm_row *row = &step->rows[i];
                uint32_t at = n - batch * WARM_CUDA_WANTED;

                n += row->want != 0;
                if ((row->want & WARM_WANT_LOGITS) && at < WARM_CUDA_WANTED)
                        note(r,
                             (int) cudaMemcpyAsync(row->result->logits,
                                                   r->w->d_logits + (uint64_t) at * ld,
                                                   r->w->n_vocab * sizeof(float),
                                                   cudaMemcpyDeviceToHost, r->b->stream),
                             "fetching logits");
        }
        note(r, (int) cudaStreamSynchronize(r->b->stream), "fetching logits");
}

int warm_cuda_step_queue(struct warm_cuda_backend *b, struct warm_weights *w,
                         const struct warm_cuda_kind *kind, const struct warm_step *step) {
        struct run r = {
                .b = b,
                .w = w,
                .kind = kind,
                .d_header = (const void *) w->d_step,
                .at = warm_cuda_places_of(kind->n_rows_max),
                .squares_ld = kind->n8 ? WARM_CUDA_NARROW : WARM_STEP_ROWS_MAX,
        };

        begin(&r);
        for (uint32_t i = 0; i < w->n_layers; i++)
                layer(&r, i);
        for (uint32_t i = 0; i * WARM_CUDA_WANTED < kind->n_wanted_max; i++) {
                uint32_t left = kind->n_wanted_max - i * WARM_CUDA_WANTED;

                output(&r, i, left < WARM_CUDA_WANTED ? left : WARM_CUDA_WANTED);
                if (step)
                        fetch_logits(&r, step, i);
        }
        note(&r, warm_cuda_done(&r.d_header->ticket, b->mapped_done, b->overlap, b->stream),
             "the end");
        if (r.error)
                (void) warm_cuda_lost(b, r.error, r.where);
        return r.error;
}
