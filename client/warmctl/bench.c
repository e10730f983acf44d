/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmctl bench: what a person would feel on this machine, asked through the socket like any client would.
 *
 * Text of its own, different in each round, so that nothing of it is cached before; then the same again, one
 * character longer, so that nearly all of it is.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "warmctl.h"

#define ROUNDS       9U
#define PREFIX_BYTES 4800U /* about 1,500 tokens of code */
#define N_DECODE     64U

struct sample {
        double cold_ms, warm_ms, decode_ms, prefill_tokens, socket_us;
        bool decoded;
};

/* Lines of made-up code that no two rounds share. */
static size_t make_text(char *text, size_t n_max, unsigned round) {
        uint64_t x = (uint64_t) time(NULL) * 1000003U + (uint64_t) getpid() * 101U + round + 1;
        size_t n = 0;

        while (n + 64 < n_max) {
                x = x * 6364136223846793005ULL + 1442695040888963407ULL;
                n += (size_t) snprintf(text + n, n_max - n,
                                       "        total_%u += weight[%u] * value(%u);\n",
                                       (unsigned) (x >> 60), (unsigned) (x >> 52) & 255,
                                       (unsigned) (x >> 40) & 4095);
        }
        return n;
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

static int one_round(const struct warmctl *ctl, struct warm_client *c, unsigned round,
                     struct sample *ret_sample) {
        char text[PREFIX_BYTES + 64];
        struct warm_client_reply *reply = NULL;
        struct sample s = {};
        size_t n = make_text(text, PREFIX_BYTES, round), n_ids;
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
        r = ask(ctl, c, text, n, N_DECODE, &reply, &wall_us);
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

static void row(const struct warmctl *ctl, const char *name, const char *key, double *values,
                size_t n, bool last) {
        qsort(values, n, sizeof(*values), by_value);
        if (ctl->json)
                printf("\"%s\": {\"median\": %.4f, \"low\": %.4f, \"high\": %.4f}%s", key,
                       n ? values[n / 2] : 0, n ? values[0] : 0, n ? values[n - 1] : 0,
                       last ? "}\n" : ", ");
        else if (n)
                printf("%-44s %10.2f   %.2f .. %.2f\n", name, values[n / 2], values[0],
                       values[n - 1]);
}

static void print(const struct warmctl *ctl, const struct sample *s, size_t n) {
        double cold[ROUNDS], warm[ROUNDS], decode[ROUNDS], prefill[ROUNDS], wire[ROUNDS];
        size_t n_decode = 0;

        for (size_t i = 0; i < n; i++) {
                cold[i] = s[i].cold_ms;
                warm[i] = s[i].warm_ms;
                prefill[i] = s[i].prefill_tokens;
                wire[i] = s[i].socket_us;
                if (s[i].decoded)
                        decode[n_decode++] = s[i].decode_ms;
        }
        if (ctl->json)
                putchar('{');
        else
                printf("%-44s %10s   %s\n", "", "median", "lowest .. highest");
        row(ctl, "first token, nothing cached, ms", "cold_ms", cold, n, false);
        row(ctl, "first token after one typed character, ms", "warm_ms", warm, n, false);
        row(ctl, "prefill, tokens/s", "prefill_tokens_per_s", prefill, n, false);
        row(ctl, "decode, ms a token", "decode_ms", decode, n_decode, false);
        row(ctl, "socket and client beside the daemon, us", "socket_us", wire, n, true);
}

int warmctl_bench(const struct warmctl *ctl) {
        struct sample samples[ROUNDS];
        struct warm_client *c = NULL;
        int r = warmctl_connect(ctl, &c);

        for (unsigned i = 0; r == WARMCTL_OK && i < ROUNDS; i++) {
                if (ctl->progress)
                        fprintf(stderr, "\r[%.*s%*s] %u/%u", (int) i, "#########",
                                (int) (ROUNDS - i), "", i, ROUNDS);
                r = one_round(ctl, c, i, &samples[i]);
        }
        if (ctl->progress)
                fprintf(stderr, "\r%40s\r", "");
        if (r == WARMCTL_OK)
                print(ctl, samples, ROUNDS);
        warm_client_free(c);
        return r;
}
