/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-matrix [TYPE...]: what the matrix kernels reach on one thread, per type and instruction set.
 *
 *   1 row      GB/s of packed weights, 48 MiB of them, so that they come from beyond the nearest two caches
 *   4 rows     the same
 *   512 rows   10^9 multiply-adds a second, 512 and 1,536 columns, 512 outputs
 *
 * The best of several rounds, each of all instruction sets in turn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/matrix.h"

#define WEIGHT_BYTES (48U << 20)
#define N_ROUNDS     5

struct work {
        struct warm_matrix matrix;
        struct warm_acts acts;
        void *memory;
        float *x;
        float *out;
};

static double now(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static void *must(void *p) {
        if (!p)
                abort();
        return p;
}

/* Zero weights: the time does not depend on the values. */
static struct work make(enum warm_type type, uint32_t n_rows, uint64_t n_cols, uint64_t n_outs) {
        const struct warm_kernels *k = warm_kernels_get(WARM_ISA_PLAIN);
        struct warm_tensor t = { .n_cols = n_cols, .n_rows = n_outs, .type = type };
        struct work w = { 0 };
        uint64_t row_bytes, bytes;

        if (warm_type_row_bytes(type, n_cols, &row_bytes) < 0)
                abort();
        t.bytes = row_bytes * n_outs;
        t.data = ""; /* never read: nothing is packed */
        if (warm_matrix_bytes(k, &t, &bytes) < 0 || warm_acts_init(&w.acts, n_rows, n_cols) < 0)
                abort();
        w.memory = must(aligned_alloc(WARM_MATRIX_ALIGN, bytes));
        memset(w.memory, 0, bytes);
        warm_matrix_init(k, &t, w.memory, &w.matrix);
        w.x = must(malloc(n_rows * n_cols * sizeof(float)));
        for (uint64_t i = 0; i < n_rows * n_cols; i++)
                w.x[i] = (float) (i % 17) - 8;
        w.out = must(malloc(n_rows * n_outs * sizeof(float)));
        return w;
}

static void drop(struct work *w) {
        warm_acts_deinit(&w->acts);
        free(w->memory);
        free(w->x);
        free(w->out);
}

static double seconds(const struct warm_kernels *k, struct work *w, uint32_t n_rows) {
        /* Plain C is slow: a 16th of the outputs stands for all. */
        uint64_t share = k->isa == WARM_ISA_PLAIN ? 16 : 1;
        double start;

        warm_acts_set(k, &w->acts, w->x, w->matrix.n_cols, w->matrix.n_cols, 0, n_rows);
        start = now();
        warm_matrix_multiply(k, &w->matrix, &w->acts, 0, n_rows, 0,
                             w->matrix.n_rows / share / 16 * 16, w->out, w->matrix.n_rows);
        return (now() - start) * (double) share;
}

static void best_of(struct work *w, uint32_t n_rows, double *best) {
        for (int round = 0; round < N_ROUNDS; round++)
                for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                        const struct warm_kernels *k = warm_kernels_get((enum warm_isa) isa);
                        double s;

                        if (!k || (isa == WARM_ISA_PLAIN && round > 0))
                                continue;
                        s = seconds(k, w, n_rows);
                        best[isa] = round == 0 || s < best[isa] ? s : best[isa];
                }
}

static void bench(enum warm_type type) {
        uint64_t row_bytes, n_outs;
        double one[_WARM_ISA_N], four[_WARM_ISA_N], many[2][_WARM_ISA_N];
        struct work w;

        if (warm_type_row_bytes(type, 512, &row_bytes) < 0)
                abort();
        n_outs = WEIGHT_BYTES / row_bytes / 16 * 16;
        w = make(type, 4, 512, n_outs);
        best_of(&w, 1, one);
        best_of(&w, 4, four);
        drop(&w);
        for (int i = 0; i < 2; i++) {
                w = make(type, 512, i ? 1536 : 512, 512);
                best_of(&w, 512, many[i]);
                drop(&w);
        }
        for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                if (!warm_kernels_get((enum warm_isa) isa))
                        continue;
                printf("%-5s %-22s %8.2f %8.2f %9.1f %9.1f\n", warm_type_info(type)->name,
                       warm_isa_name((enum warm_isa) isa),
                       1e-9 * (double) (row_bytes * n_outs) / one[isa],
                       1e-9 * (double) (row_bytes * n_outs) / four[isa],
                       1e-9 * 512 * 512 * 512 / many[0][isa],
                       1e-9 * 512 * 1536 * 512 / many[1][isa]);
        }
        fflush(stdout);
}

int main(int argc, char **argv) {
        printf("%-5s %-22s %8s %8s %9s %9s\n%-5s %-22s %8s %8s %9s %9s\n", "", "", "1 row",
               "4 rows", "512 rows", "512 rows", "type", "instruction set", "GB/s", "GB/s",
               "K 512 GMAC", "K 1536");
        for (int type = 0; type < _WARM_TYPE_N; type++) {
                int wanted = argc < 2;

                for (int i = 1; i < argc; i++)
                        wanted |= !strcmp(argv[i], warm_type_info((enum warm_type) type)->name);
                if (wanted)
                        bench((enum warm_type) type);
        }
        return EXIT_SUCCESS;
}
