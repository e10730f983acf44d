/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA backend on the tiny models, held against the CPU backend and against itself.
 *
 * Tolerance against the CPU: the CPU rounds activations to int8 by 32 columns where weights are quantized, the GPU to
 * binary16; the logits' rms difference is held to a few percent of their own rms. Against itself: the same bits in
 * any cut, alone or beside others.
 *
 * --few SHAPE: that one alone and fewer tokens, for a checker, which takes its time.
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../runner.h"
#include "confine.h"
#include "skip.h"

#define TOKENS     200U
#define TOKENS_FEW 80U /* a wide step */

static int failures;
static bool few;

/*
 * Matrices with so many rows that warps of narrow products share activations on 132 multiprocessors: q, k, v with
 * segments, gate and up and the output without.
 */
static const struct tiny_shape large = {
        .name = "large",
        .dim = 768,
        .n_vocab = 22016,
        .n_context = 2048,
        .n_layers = 1,
        .n_heads = 64,
        .n_kv_heads = 2,
        .head_dim_k = 64,
        .head_dim_v = 64,
        .n_ff = 11008,
        .type = WARM_TYPE_Q4_0,
        .rope = WARM_ROPE_HALVES,
        .biases = true,
        .untied = true,
};

static void report(bool ok, const char *what, const char *detail) {
        printf("%s - %s: %s\n", ok ? "ok" : "not ok", what, detail);
        fflush(stdout);
        failures += !ok;
}

static void submit(struct runner *r, const struct warm_step *step) {
        uint64_t ticket;
        int e = warm_step_submit(r->backend, r->weights, step, &ticket);

        while (e == 0 && (e = warm_step_poll(r->backend, ticket)) == WARM_BACKEND_E_PENDING) {
                struct pollfd fd = { .fd = warm_backend_event_fd(r->backend), .events = POLLIN };

                e = 0;
                poll(&fd, 1, 1000);
        }
        if (e) {
                printf("a step ended with %d: %s\n", e, warm_backend_fault(r->backend));
                exit(1);
        }
}

/* Tokens [begin, end) as one step, logits of each wanted; logits NULL: nothing wanted. */
static void step(struct runner *r, const int32_t *tokens, uint32_t begin, uint32_t end,
                 float *logits) {
        static struct warm_row rows[WARM_STEP_ROWS_MAX];
        static struct warm_result results[WARM_STEP_ROWS_MAX];
        struct warm_step s = {
                .sequences = &r->sequence, .n_sequences = 1, .rows = rows, .n_rows = end - begin
        };

        for (uint32_t i = begin; i < end; i++) {
                rows[i - begin] = runner_row(tokens[i], i);
                if (logits) {
                        results[i - begin].logits = logits + (uint64_t) i * r->n_vocab;
                        rows[i - begin].want = WARM_WANT_LOGITS;
                        rows[i - begin].result = &results[i - begin];
                }
        }
        submit(r, &s);
}

static void test_shape(const struct tiny_shape *shape, enum warm_type kv_type) {
        struct tiny *t = tiny_new(shape, 7);
        uint64_t seed = 5, bytes = (uint64_t) TOKENS * shape->n_vocab * sizeof(float);
        uint32_t n = few ? TOKENS_FEW : TOKENS;
        float *logits[5];
        int32_t tokens[TOKENS];
        double error = 0, mass = 0;
        uint32_t same_top = 0;
        struct runner cpu, cuda;
        char detail[200];
        bool same = true;

        for (int i = 0; i < 5; i++)
                logits[i] = calloc(1, bytes);
        for (uint32_t i = 0; i < n; i++)
                tokens[i] = (int32_t) (tiny_random_bits(&seed) % shape->n_vocab);
        runner_init(&cpu, &t->plan, _WARM_ISA_N, 1, kv_type, 3);
        runner_step(&cpu, tokens, 0, n, logits[0]);
        runner_deinit(&cpu);
        for (int way = 1; way < 5; way++) {
                runner_init_on(&cuda, gpu_or_skip(), &t->plan, kv_type, (uint64_t) way);
                for (uint32_t at = 0, end; at < n; at = end) {
                        end = way == 1   ? n
                              : way == 2 ? at + 1
                                         : at + 1 + (uint32_t) (tiny_random_bits(&seed) % 90);
                        end = end > n ? n : end;
                        step(&cuda, tokens, at, end, logits[way]);
                }
                runner_deinit(&cuda);
                same = same && memcmp(logits[1], logits[way],
                                      (uint64_t) n * shape->n_vocab * sizeof(float)) == 0;
        }
        for (uint32_t i = 0; i < n; i++) {
                uint32_t best[2] = { 0, 0 };

                for (uint32_t v = 0; v < shape->n_vocab; v++) {
                        uint64_t at = (uint64_t) i * shape->n_vocab + v;

                        error += pow(logits[0][at] - logits[1][at], 2);
                        mass += pow(logits[0][at], 2);
                        for (int k = 0; k < 2; k++)
                                if (logits[k][at] >
                                    logits[k][(uint64_t) i * shape->n_vocab + best[k]])
                                        best[k] = v;
                }
                same_top += best[0] == best[1];
        }
        snprintf(detail, sizeof(detail),
                 "%s, KV %s: rms difference %.4f of the logits', top-1 the same %u of %u",
                 shape->name, warm_type_info(kv_type)->name, sqrt(error / mass), same_top, n);
        report(sqrt(error / mass) < 0.05, "logits are the CPU's", detail);
        report(same, "whole, one by one and in random cuts: the same bits", shape->name);
        for (int i = 0; i < 5; i++)
                free(logits[i]);
        tiny_free(t);
}

/* Many sequences side by side get what each gets alone; sampling and top-n through the whole way. */
static void test_batch(const struct tiny_shape *shape) {
        enum { N = 24, LENGTH = 20, DECODE = 12 };
        struct tiny *t = tiny_new(shape, 9);
        struct warm_step_sequence sequences[N];
        struct warm_row rows[N];
        struct warm_result results[N];
        struct warm_sampling sampling = {
                .temperature = 0.8f, .top_p = 0.95f, .top_k = 40, .seed = 11
        };
        static struct warm_result alone[N][DECODE], together[N][DECODE];
        int32_t prompts[N][LENGTH];
        uint64_t seed = 77;
        struct runner r;
        bool same = true;

        for (uint32_t i = 0; i < N; i++)
                for (uint32_t j = 0; j < LENGTH; j++)
                        prompts[i][j] = (int32_t) (tiny_random_bits(&seed) % shape->n_vocab);
        for (int way = 0; way < 2; way++) {
                struct warm_result(*to)[DECODE] = way ? together : alone;

                runner_init_on(&r, gpu_or_skip(), &t->plan, WARM_TYPE_F16, 3);
                for (uint32_t i = 0; i < N; i++) {
                        sequences[i] = r.sequence;
                        for (uint32_t g = 0; g < t->plan.n_groups; g++)
                                sequences[i].blocks[g] = r.table[g] + i * 3; /* three blocks each */
                        sequences[i].n_blocks = 3;
                }
                for (uint32_t pos = 0; pos < LENGTH + DECODE; pos++)
                        for (uint32_t i = 0; i < N; i += way ? N : 1) {
                                uint32_t n = way ? N : 1;
                                struct warm_step s = { .sequences = sequences,
                                                       .n_sequences = N,
                                                       .rows = rows,
                                                       .n_rows = n };

                                for (uint32_t k = 0; k < n; k++) {
                                        uint32_t q = i + k;

                                        rows[k] =
                                                runner_row(pos < LENGTH ? prompts[q][pos]
                                                                        : to[q][pos - LENGTH].token,
                                                           pos);
                                        rows[k].sequence = (uint16_t) q;
                                        rows[k].want =
                                                pos + 1 >= LENGTH && pos + 1 < LENGTH + DECODE
                                                        ? WARM_WANT_TOKEN | WARM_WANT_TOP
                                                        : 0;
                                        rows[k].n_top = 5;
                                        rows[k].sampling = &sampling;
                                        rows[k].result = &results[k];
                                        memset(&results[k], 0, sizeof(results[k]));
                                }
                                submit(&r, &s);
                                for (uint32_t k = 0;
                                     k < n && pos + 1 >= LENGTH && pos + 1 < LENGTH + DECODE; k++)
                                        to[i + k][pos + 1 - LENGTH] = results[k];
                        }
                runner_deinit(&r);
        }
        same = memcmp(alone, together, sizeof(alone)) == 0;
        report(same && alone[0][0].n_top == 5, "24 sequences side by side get what each gets alone",
               shape->name);
        tiny_free(t);
}

/* Twice, the first time beside a step under way: figures a GPU can have, its memory back, the step's result whole. */
static void test_measure(const struct tiny_shape *shape) {
        struct tiny *t = tiny_new(shape, 13);
        struct warm_sampling sampling = { .top_p = 1 };
        struct warm_result results[2] = {};
        struct warm_backend_info info[2];
        double copy = 0, flop = 0;
        struct runner r;
        char detail[100];
        int e = 0;

        runner_init_on(&r, gpu_or_skip(), &t->plan, WARM_TYPE_F16, 3);
        for (int way = 0; way < 2; way++) {
                struct warm_row row = runner_row(5, 0);
                struct warm_step s = {
                        .sequences = &r.sequence, .n_sequences = 1, .rows = &row, .n_rows = 1
                };
                uint64_t ticket;

                row.want = WARM_WANT_TOKEN;
                row.sampling = &sampling;
                row.result = &results[way];
                if (way == 1)
                        submit(&r, &s);
                else if (warm_step_submit(r.backend, r.weights, &s, &ticket))
                        exit(1);
                e = e ? e : warm_backend_measure(r.backend, &copy, &flop);
                while (way == 0 && warm_step_poll(r.backend, ticket) == WARM_BACKEND_E_PENDING)
                        ;
                warm_backend_info(r.backend, &info[way]);
        }
        snprintf(detail, sizeof(detail), "%d: copy %.0f GB/s, product %.1f TFLOP/s", e, copy / 1e9,
                 flop / 1e12);
        report(e == 0 && copy > 50e9 && copy < 50e12 && flop > 1e12 && flop < 1e16,
               "the device is measured", detail);
        snprintf(detail, sizeof(detail), "%.0f MiB free, then %.0f MiB",
                 (double) info[0].memory_free / 0x1p20, (double) info[1].memory_free / 0x1p20);
        report(info[1].memory_free + (64ULL << 20) > info[0].memory_free,
               "what measuring took it gave back", detail);
        report(memcmp(&results[0], &results[1], sizeof(results[0])) == 0 && results[0].logprob < 0,
               "a step beside a measurement is whole", shape->name);
        runner_deinit(&r);
        tiny_free(t);
}

/* All of it again, in a process that the unit's sandbox would hold: CUDA does not survive a bare fork. */
static void test_confined(void) {
        pid_t pid = fork();
        int status = 1;

        if (pid == 0) {
                execl("/proc/self/exe", "test-backend", "confined", (char *) NULL);
                _exit(127);
        }
        report(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0,
               "all of this in a confined process", "init, load, decode, measure");
}

static void test_few(const char *name) {
        const struct tiny_shape *s = tiny_shapes;

        while (s->name && strcmp(s->name, name) != 0)
                s++;
        few = true;
        if (strcmp(name, large.name) == 0)
                s = &large;
        report(s->name != NULL, "there is such a shape", name);
        if (!s->name)
                return;
        test_shape(s, WARM_TYPE_F16);
        test_batch(s);
}

int main(int argc, char **argv) {
        bool confined = argc > 1 && strcmp(argv[1], "confined") == 0;

        if (confined)
                confine();
        warm_backend_free(gpu_or_skip());
        if (argc > 2 && strcmp(argv[1], "--few") == 0) {
                test_few(argv[2]);
                return failures != 0;
        }
        for (const struct tiny_shape *s = tiny_shapes; s->name; s++) {
                test_shape(s, WARM_TYPE_F16);
                if (s == tiny_shapes)
                        test_shape(s, WARM_TYPE_BF16);
        }
        test_shape(&large, WARM_TYPE_F16);
        test_batch(&tiny_shapes[0]);
        test_batch(&tiny_shapes[2]);
        test_batch(&large);
        test_measure(&tiny_shapes[0]);
        if (!confined)
                test_confined();
        return failures != 0;
}
