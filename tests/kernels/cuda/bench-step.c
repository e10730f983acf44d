/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What steps of a whole model take on the GPU, without a daemon around them. bench-step [1.5B|7B [BF16|Q8_0|Q4_1|Q4_K_M
 * [n_layers [only lines with this]]]]: a table, asserting nothing. The models have the shapes of Qwen2.5-Coder and
 * random weights; all their layers are uploaded from one. Q4_K_M: Q4_1, which the GPU holds as it holds Q4_K, with
 * Q6_K where llama-quantize puts it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "../runner.h"
#include "skip.h"

#define DEPTH     8192U
#define SEQUENCES 16U
#define BLOCKS    (DEPTH / WARM_BLOCK_TOKENS + 128)
#define ROUNDS    40U

static const struct tiny_shape shapes[] = {
        { .name = "1.5B",
          .dim = 1536,
          .n_vocab = 151936,
          .n_context = 32768,
          .n_layers = 1,
          .n_heads = 12,
          .n_kv_heads = 2,
          .head_dim_k = 128,
          .head_dim_v = 128,
          .n_ff = 8960,
          .rope = WARM_ROPE_HALVES,
          .biases = true },
        { .name = "7B",
          .dim = 3584,
          .n_vocab = 152064,
          .n_context = 32768,
          .n_layers = 1,
          .n_heads = 28,
          .n_kv_heads = 4,
          .head_dim_k = 128,
          .head_dim_v = 128,
          .n_ff = 18944,
          .rope = WARM_ROPE_HALVES,
          .biases = true,
          .untied = true },
};

struct bench {
        struct warm_backend *backend;
        struct warm_weights *weights;
        uint32_t tables[SEQUENCES][BLOCKS];
        struct warm_step_sequence sequences[SEQUENCES];
        struct warm_row rows[WARM_STEP_ROWS_MAX];
        struct warm_result results[SEQUENCES];
        const char *only;
};

static double now_us(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static void failed(const struct bench *b, const char *what, int error) {
        printf("%s failed with %d: %s\n", what, error,
               b->backend ? warm_backend_fault(b->backend) : "");
        exit(1);
}

static int by_size(const void *a, const void *b) {
        const double *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

/* Each of n_sequences has n_new tokens at a depth; the last one of each is answered. */
static void measure(struct bench *b, const char *what, uint32_t n_sequences, uint32_t depth,
                    uint32_t n_new) {
        struct warm_sampling greedy = { .top_p = 1 };
        struct warm_step step = {
                .sequences = b->sequences,
                .n_sequences = n_sequences,
                .rows = b->rows,
                .n_rows = n_sequences * n_new,
        };
        double whole[ROUNDS], submit[ROUNDS];

        if (!strstr(what, b->only))
                return;
        for (uint32_t i = 0; i < step.n_rows; i++) {
                uint32_t s = i / n_new, at = i % n_new;

                b->rows[i] = runner_row((int32_t) (i * 7 % 1000), depth + at);
                b->rows[i].sequence = s;
                if (at + 1 < n_new)
                        continue;
                b->rows[i].want = WARM_WANT_TOKEN;
                b->rows[i].sampling = &greedy;
                b->rows[i].result = &b->results[s];
        }
        for (uint32_t round = 0; round < ROUNDS + ROUNDS / 4; round++) {
                double begin = now_us(), submitted;
                uint64_t ticket;
                int r = warm_step_submit(b->backend, b->weights, &step, &ticket);

                submitted = now_us();
                while (r == 0 && (r = warm_step_poll(b->backend, ticket)) == WARM_BACKEND_E_PENDING)
                        r = 0;
                if (r)
                        failed(b, what, r);
                if (round < ROUNDS / 4)
                        continue;
                submit[round - ROUNDS / 4] = submitted - begin;
                whole[round - ROUNDS / 4] = now_us() - begin;
        }
        qsort(whole, ROUNDS, sizeof(*whole), by_size);
        qsort(submit, ROUNDS, sizeof(*submit), by_size);
        printf("%-32s %9.0f %9.0f %9.0f %9.0f %12.0f\n", what, whole[0], whole[ROUNDS / 2],
               whole[ROUNDS - 1], submit[ROUNDS / 2], step.n_rows * 1e6 / whole[ROUNDS / 2]);
        fflush(stdout);
}

static void start(struct bench *b, const struct warm_plan *plan) {
        struct warm_kv_config kv = { .type = WARM_TYPE_F16,
                                     .n_blocks_max = { SEQUENCES * BLOCKS } };
        struct warm_kv_info info;
        int r;

        b->backend = gpu_or_skip();
        r = warm_backend_load(b->backend, plan, &b->weights, NULL);
        r = r ? r : warm_kv_init(b->backend, b->weights, &kv, &info);
        for (uint32_t c = 0; r == 0 && c * info.blocks_per_chunk[0] < SEQUENCES * BLOCKS; c++)
                r = warm_kv_add(b->backend, b->weights, 0, c);
        if (r)
                failed(b, "loading", r);
        for (uint32_t s = 0; s < SEQUENCES; s++) {
                for (uint32_t i = 0; i < BLOCKS; i++) /* scattered */
                        b->tables[s][i] = (s * BLOCKS + i) * 1543 % (SEQUENCES * BLOCKS);
                b->sequences[s].blocks[0] = b->tables[s];
                b->sequences[s].n_blocks = BLOCKS;
        }
}

static enum warm_type type_named(const char *name) {
        for (int i = 0; i < _WARM_TYPE_N; i++)
                if (strcasecmp(warm_type_info((enum warm_type) i)->name, name) == 0)
                        return (enum warm_type) i;
        printf("\"%s\" is no type of weights\n", name);
        exit(2);
}

/* Where Q4_K_M has v and down in Q6_K: an eighth at either end, every third between. */
static bool more_bits(uint32_t layer, uint32_t n) {
        return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
}

int main(int argc, char **argv) {
        struct tiny_shape shape = shapes[argc > 1 && strcmp(argv[1], "7B") == 0];
        uint32_t n_layers = argc > 3 ? (uint32_t) atoi(argv[3]) : 28;
        struct warm_plan_layer *layers = calloc(n_layers, sizeof(*layers));
        struct bench *b = calloc(1, sizeof(*b));
        const char *type = argc > 2 ? argv[2] : "BF16";
        bool mixed = strcmp(type, "Q4_K_M") == 0;
        struct tiny *model, *more = NULL;
        struct warm_plan plan;

        if (mixed) {
                shape.type = WARM_TYPE_Q6_K;
                more = tiny_new(&shape, 4);
        }
        shape.type = type_named(mixed ? "Q4_1" : type);
        model = tiny_new(&shape, 3);
        if (!layers || !b)
                return 1;
        for (uint32_t i = 0; i < n_layers; i++)
                layers[i] = model->plan.layers[0];
        plan = model->plan;
        if (mixed) {
                plan.output = more->plan.output;
                if (!shape.untied)
                        plan.embedding = more->plan.embedding;
        }
        for (uint32_t i = 0; mixed && i < n_layers; i++)
                if (more_bits(i, n_layers)) {
                        layers[i].v = more->plan.layers[0].v;
                        layers[i].down = more->plan.layers[0].down;
                }
        plan.layers = layers;
        plan.n_layers = n_layers;
        b->only = argc > 4 ? argv[4] : "";
        start(b, &plan);
        printf("%s %s, %u layers\n%-32s %9s %9s %9s %9s %12s\n", shape.name, type, n_layers,
               "a step, us", "least", "median", "most", "submit", "tokens/s");
        measure(b, "1 token", 1, 40, 1);
        measure(b, "1 token at 2,048", 1, 2048, 1);
        measure(b, "1 token at 8,192", 1, DEPTH, 1);
        measure(b, "4 sequences at 64", 4, 64, 1);
        measure(b, "16 sequences at 64", 16, 64, 1);
        measure(b, "16 sequences at 1,024", 16, 1024, 1);
        measure(b, "16 tokens at 8,192", 1, DEPTH, 16);
        measure(b, "64 tokens at 0", 1, 0, 64);
        measure(b, "128 tokens at 0", 1, 0, 128);
        measure(b, "512 tokens at 0", 1, 0, 512);
        measure(b, "2,048 tokens at 0", 1, 0, 2048);
        warm_weights_free(b->backend, b->weights);
        warm_backend_free(b->backend);
        free(b);
        free(layers);
        tiny_free(model);
        if (more)
                tiny_free(more);
        return 0;
}
