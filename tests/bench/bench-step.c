/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-step MODEL.gguf [THREADS [ROUNDS [PROMPT [DECODE]]]]: the backend alone, no scheduler, no tokenizer.
 *
 * Prefill of PROMPT random tokens (1,024) in one step, then DECODE tokens (64) one by one from an empty context, as
 * llama-bench's pp and tg do. One line a round, then the median of each, and what a block's sum costs. On a busy machine the wall's clock says
 * little: with one thread, processor time a token is the steadier figure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/backend.h"
#include "model/model.h"

#define ROUNDS_MAX 100U

static double now(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static void must(int r, const char *what) {
        if (r == 0)
                return;
        fprintf(stderr, "%s: %d\n", what, r);
        exit(1);
}

struct bench {
        struct warm_backend *backend;
        struct warm_weights *weights;
        uint32_t table[WARM_STEP_ROWS_MAX / WARM_BLOCK_TOKENS + 1];
        struct warm_step_sequence sequence;
        struct warm_row rows[WARM_STEP_ROWS_MAX];
        struct warm_result result;
        struct warm_sampling sampling;
        uint32_t n_vocab;
};

static void add_kv(struct bench *b) {
        uint32_t n = sizeof(b->table) / sizeof(*b->table);
        struct warm_kv_config config = { .type = WARM_TYPE_F16, .n_blocks_max = { n } };
        struct warm_kv_info info;

        must(warm_kv_init(b->backend, b->weights, &config, &info), "kv");
        for (uint32_t i = 0; i * info.blocks_per_chunk[0] < n; i++)
                must(warm_kv_add(b->backend, b->weights, 0, i), "kv chunk");
        for (uint32_t i = 0; i < n; i++)
                b->table[i] = i;
        b->sequence = (struct warm_step_sequence){ .blocks = { b->table }, .n_blocks = n };
}

/* Of all threads: what a busy machine does to others' time does not count. */
static double processor(void) {
        struct timespec t;

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

/* Seconds for rows [begin, begin + n) in one step; the last wants its token. */
static double step(struct bench *b, uint32_t begin, uint32_t n) {
        struct warm_step s = {
                .sequences = &b->sequence,
                .n_sequences = 1,
                .rows = b->rows,
                .n_rows = n,
        };
        double t = now();
        uint64_t ticket;

        for (uint32_t i = 0; i < n; i++)
                b->rows[i] = (struct warm_row){
                        .token = n == 1 && begin > 0 ? b->result.token
                                                     : (int32_t) ((begin + i) * 7919U % b->n_vocab),
                        .position = begin + i,
                        .slot = begin + i,
                        .hi = begin + i + 1,
                        .mask = UINT64_MAX,
                };
        b->rows[n - 1].want = WARM_WANT_TOKEN;
        b->rows[n - 1].sampling = &b->sampling;
        b->rows[n - 1].result = &b->result;
        must(warm_step_submit(b->backend, b->weights, &s, &ticket), "step");
        return now() - t;
}

/* What recording a block's sum costs, once nobody waits. */
static void print_sum(struct bench *b, uint32_t n_blocks) {
        double t = now();
        uint64_t sum;

        for (uint32_t i = 0; i < n_blocks; i++)
                must(warm_block_sum(b->backend, b->weights, 0, i, &sum), "sum");
        printf("sum of a block: %.1f us\n", 1e6 * (now() - t) / n_blocks);
}

static int compare(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return (x > y) - (x < y);
}

int main(int argc, char **argv) {
        struct warm_backend_config config = { .n_threads =
                                                      argc > 2 ? (uint32_t) atoi(argv[2]) : 0 };
        uint32_t n_rounds = argc > 3 ? (uint32_t) atoi(argv[3]) : 5;
        uint32_t n_prompt = argc > 4 ? (uint32_t) atoi(argv[4]) : 1024;
        uint32_t n_decode = argc > 5 ? (uint32_t) atoi(argv[5]) : 64;
        double prefill[ROUNDS_MAX], decode[ROUNDS_MAX], t;
        struct warm_backend_info info;
        struct warm_model *model;
        struct bench *b = calloc(1, sizeof(*b));
        char *why = NULL;

        if (argc < 2 || !b || n_rounds == 0 || n_rounds > ROUNDS_MAX || n_prompt == 0 ||
            n_prompt > WARM_STEP_ROWS_MAX || n_decode == 0 || n_decode > WARM_STEP_ROWS_MAX) {
                fprintf(stderr, "usage: bench-step MODEL [THREADS [ROUNDS [PROMPT [DECODE]]]]\n");
                return 2;
        }
        if (warm_model_open(argv[1], NULL, &model, &why) < 0) {
                fprintf(stderr, "%s: %s\n", argv[1], why ? why : "no memory");
                return 1;
        }
        must(warm_cpu_backend_new(&config, &b->backend), "backend");
        t = now();
        must(warm_backend_load(b->backend, &model->plan, &b->weights, &why), why ? why : "load");
        t = now() - t;
        b->n_vocab = model->plan.n_vocab;
        b->sampling = (struct warm_sampling){ .top_p = 1 };
        add_kv(b);
        warm_backend_info(b->backend, &info);
        printf("%s: loaded in %.1f ms, weights %.1f MB, scratch %.1f MB\n", info.description,
               1e3 * t, 1e-6 * (double) warm_weights_bytes(b->backend, b->weights),
               1e-6 * (double) info.scratch_bytes);
        for (uint32_t i = 0; i < n_rounds; i++) {
                double cpu = processor(), cpu_prefill;

                prefill[i] = n_prompt / step(b, 0, n_prompt);
                cpu_prefill = processor() - cpu;
                cpu = processor();
                decode[i] = 0;
                for (uint32_t j = 0; j < n_decode; j++)
                        decode[i] += step(b, j, 1);
                decode[i] = n_decode / decode[i];
                printf("prefill %8.1f tok/s   decode %8.1f tok/s   processor: %7.2f and %7.1f us a "
                       "token\n",
                       prefill[i], decode[i], 1e6 * cpu_prefill / n_prompt,
                       1e6 * (processor() - cpu) / n_decode);
        }
        qsort(prefill, n_rounds, sizeof(*prefill), compare);
        qsort(decode, n_rounds, sizeof(*decode), compare);
        printf("median: prefill %.1f (%.1f-%.1f)  decode %.1f (%.1f-%.1f)\n", prefill[n_rounds / 2],
               prefill[0], prefill[n_rounds - 1], decode[n_rounds / 2], decode[0],
               decode[n_rounds - 1]);
        print_sum(b, (n_prompt + WARM_BLOCK_TOKENS - 1) / WARM_BLOCK_TOKENS);
        warm_weights_free(b->backend, b->weights);
        warm_backend_free(b->backend);
        warm_model_free(model);
        free(b);
        return 0;
}
