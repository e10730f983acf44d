/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmctl bench: what a person would feel on this machine, asked through the socket like any client would, and beside
 * it what the machine could do (bench-floor.c).
 *
 * Text of its own, different in each round, so that nothing of it is cached before; then the same again, one
 * character longer, so that nearly all of it is.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define PREFIX_BYTES 4800U /* about 1,500 tokens of code */
#define BAR          30U

size_t bench_text(struct bench *b, char *text, size_t n_max) {
        uint64_t x = (uint64_t) time(NULL) * 1000003U + (uint64_t) getpid() * 101U + ++b->seed;
        size_t n = (size_t) snprintf(text, n_max, "%c\n", 'a' + (int) (b->seed % 26));

        while (n + 64 < n_max) {
                x = x * 6364136223846793005ULL + 1442695040888963407ULL;
                n += (size_t) snprintf(text + n, n_max - n,
                                       "        total_%u += weight[%u] * value(%u);\n",
                                       (unsigned) (x >> 60), (unsigned) (x >> 52) & 255,
                                       (unsigned) (x >> 40) & 4095);
        }
        return n;
}

void bench_progress(struct bench *b) {
        uint32_t n = b->n_all ? BAR * b->n_done / b->n_all : 0;

        if (b->ctl->progress)
                fprintf(stderr, "\r[%.*s%*s] %u/%u", (int) n, "##############################",
                        (int) (BAR - n), "", b->n_done, b->n_all);
}

static int ask(const struct warmctl *ctl, struct warm_client *c, const char *text, size_t n,
               uint32_t n_max, struct warm_client_reply **ret_reply, double *ret_wall_us) {
        struct warm_client_params *p = warm_client_params_new();
        struct timespec a, b;
        int r;

        if (!p)
                return WARMCTL_REFUSED;
        warm_client_params_text(p, "prompt", text, n);
        warm_client_params_uint(p, "n_max", n_max);
        warm_client_params_bool(p, "raw", true);
        if (ctl->model)
                warm_client_params_text(p, "model", ctl->model, strlen(ctl->model));
        clock_gettime(CLOCK_MONOTONIC, &a);
        r = warmctl_call(c, "complete", p, ret_reply);
        clock_gettime(CLOCK_MONOTONIC, &b);
        *ret_wall_us =
                (double) (b.tv_sec - a.tv_sec) * 1e6 + (double) (b.tv_nsec - a.tv_nsec) / 1e3;
        warm_client_params_free(p);
        return r;
}

static double number(const struct warm_client_reply *reply, const char *path) {
        return warm_client_value_double(
                warm_client_value_get(warm_client_reply_result(reply), path), 0);
}

static int one_round(struct bench *b, struct warm_client *c, struct bench_sample *ret_sample) {
        const struct warmctl *ctl = b->ctl;
        char text[PREFIX_BYTES + 64];
        struct warm_client_reply *reply = NULL;
        struct bench_sample s = {};
        size_t n = bench_text(b, text, PREFIX_BYTES), n_ids;
        double wall_us = 0;
        int r = ask(ctl, c, text, n, 1, &reply, &wall_us);

        if (r != WARMCTL_OK)
                return r;
        s.cold_ms = number(reply, "time_us.total") / 1e3;
        s.prefill_tokens = (number(reply, "cache.prompt") - number(reply, "cache.hit")) /
                           (number(reply, "time_us.prefill") / 1e6);
        reply = warm_client_reply_free(reply);
        text[n++] = 'x';
        r = ask(ctl, c, text, n, 1, &reply, &wall_us);
        if (r != WARMCTL_OK)
                return r;
        s.warm_ms = number(reply, "time_us.total") / 1e3;
        s.socket_us = wall_us - number(reply, "time_us.total");
        reply = warm_client_reply_free(reply);
        r = ask(ctl, c, text, n, BENCH_DECODE, &reply, &wall_us);
        if (r != WARMCTL_OK)
                return r;
        n_ids = warm_client_value_n(warm_client_value_get(warm_client_reply_result(reply), "ids"));
        s.decoded = n_ids > 8;
        if (s.decoded)
                s.decode_ms = (number(reply, "time_us.total") - number(reply, "time_us.first")) /
                              1e3 / (double) (n_ids - 1);
        warm_client_reply_free(reply);
        *ret_sample = s;
        return WARMCTL_OK;
}

static int by_value(const void *a, const void *b) {
        double x = *(const double *) a, y = *(const double *) b;

        return (x > y) - (x < y);
}

void bench_sort(double *values, size_t n) {
        qsort(values, n, sizeof(*values), by_value);
}

static int measure(struct bench *b, struct warm_client *c) {
        int r = bench_ask(b, c);

        b->n_all = BENCH_ROUNDS + bench_plan(b);
        bench_progress(b);
        for (unsigned i = 0; r == WARMCTL_OK && i < BENCH_ROUNDS; i++) {
                r = one_round(b, c, &b->samples[i]);
                b->n_done++;
                bench_progress(b);
        }
        return r == WARMCTL_OK ? bench_rows(b, c) : r;
}

int warmctl_bench(const struct warmctl *ctl) {
        struct bench b = { .ctl = ctl };
        struct warm_client *c = NULL;
        int r = warmctl_connect(ctl, &c);

        if (r == WARMCTL_OK)
                r = measure(&b, c);
        if (ctl->progress)
                fprintf(stderr, "\r%60s\r", "");
        if (r == WARMCTL_OK) {
                bench_print(&b);
                if (ctl->plot)
                        r = bench_plot(&b, ctl->plot);
        }
        warm_client_free(c);
        return r;
}
