/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plan becomes weights: matrices packed into one arena by all threads, small tensors as floats behind them.
 *
 * First a list of what goes into the arena is made, then its size, the arena, the places, and last the packing in
 * jobs of JOB_ROWS rows that the threads take as they come.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu.h"
#include "kernels/check.h"

#define JOB_ROWS          64U /* multiple of WARM_MATRIX_ROWS; untuned guess */
#define MATRICES_A_LAYER  7U
#define VECTORS_A_LAYER   11U
#define ARENA_ALIGN_BYTES (2ULL << 20) /* a huge page */

/* One tensor on its way into the arena: a matrix or a vector of floats. */
struct item {
        const struct warm_tensor *tensor;
        struct warm_matrix *matrix;
        const float **vector;
        uint64_t at;   /* in the arena */
        uint64_t jobs; /* before it */
};

struct loading {
        struct warm_cpu_backend *backend;
        struct item *items;
        uint32_t n_items;
        uint64_t n_jobs;
        char *arena;
        uint64_t arena_bytes;
};

static void add_matrix(struct loading *l, const struct warm_tensor *t, struct warm_matrix *m) {
        if (t->data)
                l->items[l->n_items++] = (struct item){ .tensor = t, .matrix = m };
}

static void add_vector(struct loading *l, const struct warm_tensor *t, const float **v) {
        if (t->data)
                l->items[l->n_items++] = (struct item){ .tensor = t, .vector = v };
}

static void list(struct loading *l, const struct warm_plan *plan, struct warm_weights *w) {
        add_matrix(l, &plan->embedding, &w->embedding);
        add_matrix(l, &plan->output, &w->output);
        add_vector(l, &plan->output_norm, &w->output_norm);
        add_vector(l, &plan->output_bias, &w->output_bias);
        for (uint32_t i = 0; i < plan->n_layers; i++) {
                const struct warm_plan_layer *from = &plan->layers[i];
                struct warm_cpu_layer *to = &w->layers[i];

                add_matrix(l, &from->q, &to->q);
                add_matrix(l, &from->k, &to->k);
                add_matrix(l, &from->v, &to->v);
                add_matrix(l, &from->o, &to->o);
                add_matrix(l, &from->gate, &to->gate);
                add_matrix(l, &from->up, &to->up);
                add_matrix(l, &from->down, &to->down);
                add_vector(l, &from->mixer_norm, &to->mixer_norm);
                add_vector(l, &from->ffn_norm, &to->ffn_norm);
                add_vector(l, &from->q_norm, &to->q_norm);
                add_vector(l, &from->k_norm, &to->k_norm);
                add_vector(l, &from->q_bias, &to->q_bias);
                add_vector(l, &from->k_bias, &to->k_bias);
                add_vector(l, &from->v_bias, &to->v_bias);
                add_vector(l, &from->o_bias, &to->o_bias);
                add_vector(l, &from->gate_bias, &to->gate_bias);
                add_vector(l, &from->up_bias, &to->up_bias);
                add_vector(l, &from->down_bias, &to->down_bias);
        }
}

/* Bytes of the arena; also each item's place and number of jobs. */
static int place(struct loading *l, uint64_t *ret_bytes) {
        uint64_t used = 0;

        for (uint32_t i = 0; i < l->n_items; i++) {
                struct item *item = &l->items[i];
                uint64_t bytes;
                int r;

                item->at = used;
                item->jobs = l->n_jobs;
                if (item->matrix) {
                        r = warm_matrix_bytes(l->backend->kernels, item->tensor, &bytes);
                        if (r < 0)
                                return r;
                        l->n_jobs += (item->tensor->n_rows - 1) / JOB_ROWS + 1;
                } else {
                        bytes = item->tensor->n_cols * sizeof(float);
                        l->n_jobs++;
                }
                if (__builtin_add_overflow(used, bytes, &used) || used > UINT64_MAX / 2)
                        return -EOVERFLOW;
                used = (used + WARM_MATRIX_ALIGN - 1) / WARM_MATRIX_ALIGN * WARM_MATRIX_ALIGN;
        }
        *ret_bytes = used;
        return 0;
}

static void run_job(struct loading *l, const struct item *item, uint64_t job) {
        uint64_t begin = job * JOB_ROWS, end = begin + JOB_ROWS;

        if (item->vector) {
                warm_type_dequantize(item->tensor->type, item->tensor->data, item->tensor->n_cols,
                                     (float *) (void *) (l->arena + item->at));
                return;
        }
        end = end > item->tensor->n_rows ? item->tensor->n_rows : end;
        warm_matrix_pack(l->backend->kernels, item->tensor, item->matrix, begin, end);
}

static void tell(const struct loading *l, uint64_t done_bytes) {
        const struct warm_cpu_backend *b = l->backend;

        if (b->load_progress)
                b->load_progress(b->load_userdata, done_bytes, l->arena_bytes);
}

static void load_worker(void *arg, uint32_t index) {
        struct loading *l = arg;
        uint32_t i = 0;

        for (;;) {
                uint64_t job = warm_threads_take(l->backend->threads, 1);

                if (job >= l->n_jobs)
                        return;
                while (i + 1 < l->n_items && l->items[i + 1].jobs <= job)
                        i++;
                if (index == 0)
                        tell(l, l->arena_bytes / l->n_jobs * job); /* jobs are alike, nearly */
                run_job(l, &l->items[i], job - l->items[i].jobs);
        }
}

static int load_tensors(struct warm_cpu_backend *b, const struct warm_plan *plan,
                        struct warm_weights *w) {
        struct loading l = { .backend = b };
        uint64_t bytes = 0;
        int r;

        l.items =
                calloc(4 + plan->n_layers * (MATRICES_A_LAYER + VECTORS_A_LAYER), sizeof(*l.items));
        if (!l.items)
                return -ENOMEM;
        list(&l, plan, w);
        r = place(&l, &bytes);
        if (r < 0)
                goto out;
        l.arena = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (l.arena == MAP_FAILED) {
                r = WARM_BACKEND_E_MEMORY;
                goto out;
        }
        (void) madvise(l.arena, bytes, MADV_HUGEPAGE); /* a wish; kernels without it say no */
        w->arena = l.arena;
        w->arena_bytes = l.arena_bytes = bytes;
        for (uint32_t i = 0; i < l.n_items; i++) {
                struct item *item = &l.items[i];

                if (item->matrix)
                        warm_matrix_init(b->kernels, item->tensor, l.arena + item->at,
                                         item->matrix);
                else
                        *item->vector = (const float *) (const void *) (l.arena + item->at);
        }
        warm_threads_run(b->threads, load_worker, &l);
        tell(&l, bytes);
        if (!plan->output.data)
                w->output = w->embedding;
out:
        free(l.items);
        return r;
}

/* The table of this layer's positions: an equal one, or a new one at the end. */
static uint32_t rope_of(struct warm_weights *w, const struct warm_rope_params *p) {
        struct warm_rope_table *t = &w->ropes[w->n_ropes];

        memset(t, 0, sizeof(*t)); /* compared whole, padding too */
        warm_rope_init(p, t);
        for (uint32_t i = 0; i < w->n_ropes; i++)
                if (memcmp(&w->ropes[i], t, sizeof(*t)) == 0)
                        return i;
        return w->n_ropes++;
}

static void copy_layer(struct warm_weights *w, const struct warm_plan_layer *from,
                       struct warm_cpu_layer *to) {
        uint32_t rows = warm_attention_unit_queries(from->n_heads / from->n_kv_heads) /
                        (from->n_heads / from->n_kv_heads);
        uint32_t window = from->window ? from->window : UINT32_MAX;

        to->group = from->group;
        to->n_heads = from->n_heads;
        to->n_kv_heads = from->n_kv_heads;
        to->head_dim_k = from->head_dim_k;
        to->head_dim_v = from->head_dim_v;
        to->window = window;
        to->attention_scale = from->attention_scale;
        to->attention_soft_cap = from->attention_soft_cap;
        to->rope = rope_of(w, &from->rope);
        to->norm_epsilon = from->norm_epsilon;
        to->residual_scale = from->residual_scale;
        to->ffn = from->ffn;
        to->activation = from->activation;
        to->n_ff = from->n_ff;
        to->kv_values = w->block_values[from->group];
        w->block_values[from->group] += (uint64_t) WARM_BLOCK_TOKENS * from->n_kv_heads *
                                        (from->head_dim_k + from->head_dim_v);
        if (window > w->group_windows[from->group])
                w->group_windows[from->group] = window;
        if (rows < w->unit_rows)
                w->unit_rows = rows;
}

static int copy_plan(const struct warm_plan *plan, struct warm_weights *w) {
        w->dim = plan->dim;
        w->n_vocab = plan->n_vocab;
        w->n_context = plan->n_context;
        w->n_layers = plan->n_layers;
        w->n_groups = plan->n_groups;
        w->norm_epsilon = plan->norm_epsilon;
        w->embedding_scale = plan->embedding_scale;
        w->logit_scale = plan->logit_scale;
        w->logit_soft_cap = plan->logit_soft_cap;
        w->unit_rows = WARM_CPU_SLICE;
        w->layers = calloc(plan->n_layers, sizeof(*w->layers));
        w->ropes = calloc(plan->n_layers, sizeof(*w->ropes));
        if (!w->layers || !w->ropes)
                return -ENOMEM;
        w->tables_bytes = plan->n_layers * (sizeof(*w->layers) + sizeof(*w->ropes));
        for (uint32_t i = 0; i < plan->n_layers; i++)
                copy_layer(w, &plan->layers[i], &w->layers[i]);
        return 0;
}

int warm_cpu_load(struct warm_cpu_backend *b, const struct warm_plan *plan,
                  struct warm_weights **ret_weights, char **ret_why) {
        uint32_t n_threads = warm_threads_count(b->threads);
        struct warm_weights *w;
        int r = warm_plan_check(plan, ret_why);

        if (r < 0)
                return r;
        w = calloc(1, sizeof(*w));
        if (!w)
                return -ENOMEM;
        r = copy_plan(plan, w);
        if (r == 0)
                r = load_tensors(b, plan, w);
        if (r == 0)
                r = warm_cpu_scratch_init(&w->scratch, w, n_threads);
        if (r) {
                assert(r != -EINVAL && r != -EOPNOTSUPP); /* the check has said so */
                warm_cpu_scratch_deinit(&w->scratch, 0);
                warm_cpu_weights_free(b, w);
                return r == -EOVERFLOW ? -ENOMEM : r;
        }
        b->scratch_bytes += warm_cpu_scratch_bytes(&w->scratch);
        *ret_weights = w;
        return 0;
}

struct warm_weights *warm_cpu_weights_free(struct warm_cpu_backend *b, struct warm_weights *w) {
        if (!w)
                return NULL;
        b->scratch_bytes -= warm_cpu_scratch_bytes(&w->scratch);
        warm_cpu_scratch_deinit(&w->scratch, warm_threads_count(b->threads));
        warm_kv_deinit(&w->kv);
        if (w->arena)
                munmap(w->arena, w->arena_bytes);
        free(w->layers);
        free(w->ropes);
        free(w);
        return NULL;
}
