/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scratch of a step: sized for the largest slice of this model, cut from one reserved arena. The arena's pages
 * come into being when a step first touches them, so a model that only ever decodes holds little of it.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu.h"

#define LINE 64U

/* The widest of all layers. */
struct widths {
        uint64_t q, k, v, mixed, ff, attention, acts;
};

static uint64_t larger(uint64_t a, uint64_t b) {
        return a > b ? a : b;
}

static struct widths widths(const struct warm_weights *w) {
        struct widths most = { .acts = w->dim };

        for (uint32_t i = 0; i < w->n_layers; i++) {
                const struct warm_cpu_layer *l = &w->layers[i];
                uint32_t n_queries = w->unit_rows * (l->n_heads / l->n_kv_heads);

                most.q = larger(most.q, (uint64_t) l->n_heads * l->head_dim_k);
                most.k = larger(most.k, (uint64_t) l->n_kv_heads * l->head_dim_k);
                most.v = larger(most.v, (uint64_t) l->n_kv_heads * l->head_dim_v);
                most.mixed = larger(most.mixed, (uint64_t) l->n_heads * l->head_dim_v);
                most.ff = larger(most.ff, l->n_ff);
                most.attention = larger(
                        most.attention,
                        warm_attention_scratch_floats(l->head_dim_k, l->head_dim_v, n_queries));
        }
        most.acts = larger(most.acts, larger(most.mixed, most.ff));
        return most;
}

/* Sizes first (base NULL), places second: one function, so that both agree. */
struct cutter {
        char *base;
        uint64_t used;
        bool overflow;
};

static void *cut(struct cutter *c, uint64_t n, uint64_t bytes_each) {
        uint64_t at = c->used, bytes, end;

        if (__builtin_mul_overflow(n, bytes_each, &bytes) ||
            __builtin_add_overflow(at, bytes, &end) || end > UINT64_MAX / 2) {
                c->overflow = true;
                return NULL;
        }
        c->used = (end + LINE - 1) / LINE * LINE;
        return c->base ? c->base + at : NULL;
}

static void cut_all(struct cutter *c, struct warm_cpu_scratch *s, const struct warm_weights *w,
                    const struct widths *most, uint32_t n_threads) {
        uint64_t n_segments = (w->n_vocab - 1) / WARM_SAMPLE_SEGMENT + 1;

        s->x = cut(c, WARM_CPU_SLICE, w->dim * sizeof(float));
        s->normed = cut(c, WARM_CPU_SLICE, w->dim * sizeof(float));
        s->q = cut(c, WARM_CPU_SLICE, most->q * sizeof(float));
        s->k = cut(c, WARM_CPU_SLICE, most->k * sizeof(float));
        s->v = cut(c, WARM_CPU_SLICE, most->v * sizeof(float));
        s->mixed = cut(c, WARM_CPU_SLICE, most->mixed * sizeof(float));
        s->gate = cut(c, WARM_CPU_SLICE, most->ff * sizeof(float));
        s->up = cut(c, WARM_CPU_SLICE, most->ff * sizeof(float));
        s->turns = cut(c, w->n_ropes, WARM_CPU_SLICE * WARM_ROPE_DIMS_MAX * sizeof(float));
        s->logits = cut(c, s->n_logit_rows, w->n_vocab * sizeof(float));
        s->segments = cut(c, s->n_logit_rows, n_segments * sizeof(struct warm_segment));
        for (uint32_t i = 0; i < n_threads; i++) {
                struct warm_cpu_worker *own = &s->workers[i];

                own->normed = cut(c, WARM_CPU_FEW, w->dim * sizeof(float));
                own->attention = cut(c, most->attention, sizeof(float));
                own->segment = cut(c, WARM_SAMPLE_SEGMENT, sizeof(float));
                own->sample.candidates = cut(c, w->n_vocab, sizeof(struct warm_candidate));
                own->sample.floats = cut(c, w->n_vocab, sizeof(float));
        }
}

/* What warm_acts_init() allocates for n rows. */
static uint64_t acts_bytes(const struct warm_acts *a) {
        uint64_t n_rows = (a->n_rows_max + WARM_ACTS_GROUP - 1) / WARM_ACTS_GROUP * WARM_ACTS_GROUP;

        return n_rows * (a->q_ld + a->n_cols_max / 32 * (2 * sizeof(float) + 2 * sizeof(int32_t)));
}

int warm_cpu_scratch_init(struct warm_cpu_scratch *s, const struct warm_weights *w,
                          uint32_t n_threads) {
        struct widths most = widths(w);
        struct cutter c = { 0 };
        void *arena;
        int r;

        *s = (struct warm_cpu_scratch){ 0 };
        s->n_logit_rows = (uint32_t) (WARM_CPU_LOGITS_BYTES / ((uint64_t) w->n_vocab * 4));
        s->n_logit_rows = s->n_logit_rows < WARM_CPU_FEW ? WARM_CPU_FEW : s->n_logit_rows;
        s->n_logit_rows = s->n_logit_rows > WARM_CPU_SLICE ? WARM_CPU_SLICE : s->n_logit_rows;
        s->workers = calloc(n_threads, sizeof(*s->workers));
        if (!s->workers)
                return -ENOMEM;
        cut_all(&c, s, w, &most, n_threads);
        r = c.overflow ? -EOVERFLOW : warm_acts_init(&s->acts, WARM_CPU_SLICE, most.acts);
        for (uint32_t i = 0; r == 0 && i < n_threads; i++)
                r = warm_acts_init(&s->workers[i].acts, WARM_CPU_FEW, most.acts);
        if (r < 0) {
                warm_cpu_scratch_deinit(s, n_threads);
                return r;
        }
        arena = mmap(NULL, c.used, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (arena == MAP_FAILED) {
                warm_cpu_scratch_deinit(s, n_threads);
                return -ENOMEM;
        }
        s->arena = arena;
        s->arena_bytes = c.used;
        s->acts_bytes = acts_bytes(&s->acts) +
                        n_threads * (acts_bytes(&s->workers[0].acts) + sizeof(*s->workers));
        c = (struct cutter){ .base = arena };
        cut_all(&c, s, w, &most, n_threads);
        return 0;
}

void warm_cpu_scratch_deinit(struct warm_cpu_scratch *s, uint32_t n_threads) {
        if (s->arena)
                munmap(s->arena, s->arena_bytes);
        warm_acts_deinit(&s->acts);
        for (uint32_t i = 0; s->workers && i < n_threads; i++)
                warm_acts_deinit(&s->workers[i].acts);
        free(s->workers);
        *s = (struct warm_cpu_scratch){ 0 };
}

uint64_t warm_cpu_scratch_bytes(const struct warm_cpu_scratch *s) {
        return s->arena_bytes + s->acts_bytes;
}
