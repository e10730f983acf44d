/* SPDX-License-Identifier: Apache-2.0 */
/* What a model's steps need beside weights and KV: one arena on the device, cut into pieces, and pinned host memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"

#define ALIGN 256U

struct cut {
        uint8_t *base; /* NULL: only measured */
        uint64_t used;
};

static void *take(struct cut *c, uint64_t bytes) {
        uint64_t at = c->used;

        c->used += (bytes + ALIGN - 1) / ALIGN * ALIGN;
        return c->base ? c->base + at : NULL;
}

static uint64_t acts_bytes(uint32_t n_cols) {
        return (uint64_t) WARM_STEP_ROWS_MAX *
               ((n_cols + WARM_CUDA_K - 1) / WARM_CUDA_K * WARM_CUDA_K) * 2;
}

struct warm_cuda_places warm_cuda_places_of(uint32_t n_rows) {
        uint64_t rows = n_rows <= WARM_CUDA_NARROW ? warm_cuda_n8(n_rows) * 8
                                                   : (n_rows + 3) / 4 * 4,
                 at = sizeof(struct warm_cuda_header);
        struct warm_cuda_places p;

        p.rows = at;
        at += rows * sizeof(struct warm_cuda_row);
        p.units = at;
        at += rows * sizeof(struct warm_cuda_unit);
        p.wanted = at;
        at += rows * sizeof(uint32_t);
        p.wants = at;
        at += rows * sizeof(struct warm_cuda_want);
        p.tables = at;
        return p;
}

/* Bytes of a step's description at most: every sequence's blocks, every wanted row's bitmap of a batch. */
static uint64_t step_bytes(const struct warm_weights *w) {
        uint64_t tables =
                (uint64_t) WARM_STEP_SEQUENCES_MAX * w->n_groups * w->table_ld * sizeof(uint32_t);
        uint64_t allowed = (uint64_t) WARM_CUDA_WANTED * ((w->n_vocab + 63) / 64) * 8;
        uint64_t banned = (uint64_t) WARM_CUDA_WANTED * w->n_vocab * sizeof(int32_t) / 16;

        uint64_t rows = warm_cuda_places_of(WARM_STEP_ROWS_MAX).tables;

        return (rows + WARM_CUDA_TABLES_SURE + tables + allowed + banned + 15) / 16 * 16;
}

static void cut_all(struct warm_weights *w, struct cut *c) {
        uint32_t tiles = (w->dim + 15) / 16;

        w->d_x = take(c, (uint64_t) WARM_STEP_ROWS_MAX * w->dim * sizeof(float));
        w->d_qkv = take(c, (uint64_t) WARM_STEP_ROWS_MAX * w->qkv_max * sizeof(float));
        w->d_squares = take(c, (uint64_t) WARM_STEP_ROWS_MAX * tiles * sizeof(float));
        w->d_squares_wanted = take(c, (uint64_t) WARM_CUDA_WANTED * tiles * sizeof(float));
        w->d_row_scales = take(c, WARM_STEP_ROWS_MAX * sizeof(float));
        w->d_logits =
                take(c, (uint64_t) WARM_CUDA_WANTED * ((w->n_vocab + 3) / 4 * 4) * sizeof(float));
        w->d_acts_x = take(c, acts_bytes(w->dim));
        w->d_acts_attention = take(c, acts_bytes(w->attention_max));
        w->d_acts_ff = take(c, acts_bytes(w->ff_max));
        w->d_acts_wanted = take(c, acts_bytes(w->dim) / WARM_STEP_ROWS_MAX * WARM_CUDA_WANTED);
        for (uint32_t i = 0; i < w->n_ropes; i++) {
                uint32_t n = w->ropes[i].table.n_pairs;

                w->ropes[i].d_frequencies = take(c, n * sizeof(double));
                w->ropes[i].d_turns =
                        take(c, (uint64_t) WARM_STEP_ROWS_MAX * n * 2 * sizeof(float));
        }
        w->d_turns = take(c, w->n_ropes * sizeof(*w->d_turns));
        w->d_step = take(c, w->step_bytes);
        w->d_attention = take(c, w->attention_bytes);
        w->d_counters = take(c, WARM_CUDA_COUNTERS * sizeof(*w->d_counters));
        w->d_sample = take(c, warm_cuda_sample_scratch_bytes(WARM_CUDA_WANTED, w->n_vocab));
}

static void measure_attention(struct warm_weights *w) {
        for (uint32_t i = 0; i < w->n_layers; i++) {
                const struct warm_cuda_layer *l = &w->layers[i];
                uint64_t bytes = warm_cuda_attention_scratch_bytes(
                        l->n_heads, l->n_kv_heads, l->head_dim_k, l->head_dim_v, WARM_STEP_ROWS_MAX,
                        w->n_context);

                w->attention_bytes = bytes > w->attention_bytes ? bytes : w->attention_bytes;
        }
}

static int pinned(uint64_t bytes, void *ret_host, void *ret_mapped) {
        void **host = ret_host, **mapped = ret_mapped;
        int r = warm_cuda_error((int) cudaHostAlloc(host, bytes, cudaHostAllocMapped));

        if (r == 0)
                memset(*host, 0, bytes);
        return r ? r : warm_cuda_error((int) cudaHostGetDevicePointer(mapped, *host, 0));
}

static int copy_rope(struct warm_cuda_backend *b, struct warm_weights *w, uint32_t i) {
        const struct warm_cuda_rope *rope = &w->ropes[i];
        uint32_t n = rope->table.n_pairs;
        struct warm_cuda_turns t = { rope->d_frequencies, rope->d_turns, n, rope->table.factor };
        int r = (int) cudaMemcpyAsync(&w->d_turns[i], &t, sizeof(t), cudaMemcpyHostToDevice,
                                      b->stream); /* of pageable memory: t has been read */

        w->n_pairs_max = n > w->n_pairs_max ? n : w->n_pairs_max;
        if (r == 0 && n)
                r = (int) cudaMemcpyAsync((void *) rope->d_frequencies, rope->table.frequencies,
                                          n * sizeof(double), cudaMemcpyHostToDevice, b->stream);
        return warm_cuda_error(r);
}

int warm_cuda_scratch_init(struct warm_cuda_backend *b, struct warm_weights *w) {
        struct cut c = {};
        int r;

        w->table_ld = (w->n_context + WARM_BLOCK_TOKENS - 1) / WARM_BLOCK_TOKENS + 1;
        w->step_bytes = step_bytes(w);
        measure_attention(w);
        cut_all(w, &c);
        r = warm_cuda_arena_init(&w->scratch, &b->memory, c.used);
        if (r)
                return r;
        c = (struct cut){ .base = w->scratch.d_base };
        cut_all(w, &c);
        r = warm_cuda_error(
                (int) cudaMemsetAsync(w->scratch.d_base, 0, w->scratch.bytes, b->stream));
        for (uint32_t i = 0; r == 0 && i < w->n_ropes; i++)
                r = copy_rope(b, w, i);
        if (r == 0)
                r = pinned(WARM_STEP_ROWS_MAX * sizeof(*w->answers), &w->answers,
                           &w->mapped_answers);
        if (r == 0)
                r = pinned(w->step_bytes, &w->step, &w->mapped_step);
        return r ? r : warm_cuda_error((int) cudaStreamSynchronize(b->stream));
}

void warm_cuda_scratch_deinit(struct warm_cuda_backend *b, struct warm_weights *w) {
        (void) b;
        for (uint32_t i = 0; i < WARM_CUDA_GRAPHS; i++)
                if (w->graphs[i].exec)
                        (void) cudaGraphExecDestroy(w->graphs[i].exec);
        if (w->step)
                (void) cudaFreeHost(w->step);
        if (w->answers)
                (void) cudaFreeHost(w->answers);
        warm_cuda_range_deinit(&w->scratch);
}
