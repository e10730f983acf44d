/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What warmctl bench found, between those who measure and those who print.
 *
 * A floor is the time that a step's bytes and operations would take at the measured copy bandwidth and matrix rate of
 * the daemon's device, whichever is longer: the two overlap. Bytes: the weights once, K and V of all tokens seen, and
 * those written. What only reads may be a little faster than a copy: a share may pass 100%.
 */
#pragma once

#include "warmctl.h"

#define BENCH_ROUNDS     9U /* of the rows that a person feels */
#define BENCH_REPEATS    3U /* of a row with a floor */
#define BENCH_ROWS_MAX   24U
#define BENCH_BATCH_MAX  16U
#define BENCH_DECODE     64U /* tokens decoded */
#define BENCH_FRESH      16U /* tokens that are new after a cached prefix; the prompt at depth 0 */
#define BENCH_TOKENS_MAX 32768U

struct bench_model {
        char name[128], quantization[32]; /* printable ASCII */
        uint32_t context;
        double weights_bytes, kv_token_bytes, row_flop, visible_flop, output_flop;
};

struct bench_machine {
        char backend[32], description[128];  /* printable ASCII; "": only administrators are told */
        double copy_bytes_per_s, flop_per_s; /* 0: not known */
};

/* One line of the table. */
struct bench_row {
        const char *name;  /* "prefill", "decode", "first text" */
        uint32_t depth;    /* tokens of a sequence known before */
        uint32_t batch;    /* sequences at once */
        uint32_t n_tokens; /* of a sequence, computed in the time measured */
        double bytes, flop;
        double floor_ms;          /* 0: not known */
        double ms[BENCH_REPEATS]; /* ascending once measured */
        uint32_t n_ms;            /* 0: no room for it, or the model ended its text at once */
};

struct bench_sample {
        double cold_ms, warm_ms, decode_ms, prefill_tokens, socket_us;
        bool decoded;
};

struct bench {
        const struct warmctl *ctl;
        struct bench_machine machine;
        struct bench_model model;
        struct bench_sample samples[BENCH_ROUNDS];
        struct bench_row rows[BENCH_ROWS_MAX];
        uint32_t n_rows;
        uint32_t n_done, n_all; /* for the progress bar */
        uint32_t seed;          /* of the next made-up text */
};

/* bench.c: lines of made-up code that no two calls share. Return: bytes, at most n_max. */
size_t bench_text(struct bench *b, char *text, size_t n_max);
void bench_progress(struct bench *b);
void bench_sort(double *values, size_t n);

/* bench-floor.c */

/* Ask the daemon for model and machine, which it measures if it may. Return: an exit status. */
int bench_ask(struct bench *b, struct warm_client *c);
/* How many rows there will be. */
uint32_t bench_plan(const struct bench *b);
/* Measure the rows. Return: an exit status. */
int bench_rows(struct bench *b, struct warm_client *c);

/* Milliseconds, the middle round. */
static inline double bench_row_ms(const struct bench_row *row) {
        return row->n_ms ? row->ms[row->n_ms / 2] : 0;
}

/* Of the time measured, what the floor is; 0: not known. */
static inline double bench_row_share(const struct bench_row *row) {
        return row->n_ms ? row->floor_ms / bench_row_ms(row) : 0;
}

/* bench-print.c: the table, or one line of JSON. */
void bench_print(const struct bench *b);

/* bench-plot.c: the roofline and each row's share, as SVG. Says what failed. Return: an exit status. */
int bench_plot(const struct bench *b, const char *path);
