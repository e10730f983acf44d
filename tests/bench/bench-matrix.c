/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-matrix [TYPE...]: what the matrix kernels reach on one thread, per type and instruction set.
 *
 *   1 row      GB/s of packed weights, 48 MiB of them, so that they come from beyond the nearest two caches
 *   4 rows     the same
 *   512 rows   10^9 multiply-adds a second, 512 and 1,536 columns, 512 outputs
 *
 * Every round runs all instruction sets in turn. Times are of the thread (not the wall), of slices of the outputs;
 * the best round of each slice counts, so that a shared machine's other work stays out of the figure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/matrix.h"

#define WEIGHT_BYTES (48U << 20)
#define N_ROUNDS     9
#define N_SLICES     32

struct work {
        struct warm_matrix matrix;
        struct warm_acts acts;
        void *memory;
        float *x;
        float *out;
};

static double now(void) {
        struct timespec t;

        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
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

/* Seconds of each slice of the outputs. */
static void run(const struct warm_kernels *k, struct work *w, uint32_t n_rows, double *ret_slices) {
        uint64_t step = w->matrix.n_rows / N_SLICES / 16 * 16;

        warm_acts_set(k, &w->acts, w->x, w->matrix.n_cols, w->matrix.n_cols, 0, n_rows);
        for (uint64_t i = 0; i < N_SLICES; i++) {
                double start = now();

                warm_matrix_multiply(k, &w->matrix, &w->acts, 0, n_rows, i * step, (i + 1) * step,
                                     w->out, w->matrix.n_rows);
                ret_slices[i] = now() - start;
                if (k->isa == WARM_ISA_PLAIN) { /* slow: one slice stands for all */
                        for (uint64_t j = 1; j < N_SLICES; j++)
                                ret_slices[j] = ret_slices[0];
                        break;
                }
        }
}

static void best_of(struct work *w, uint32_t n_rows, double *ret_seconds) {
        double best[_WARM_ISA_N][N_SLICES], slices[N_SLICES];

        for (int round = 0; round < N_ROUNDS; round++)
                for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                        const struct warm_kernels *k = warm_kernels_get((enum warm_isa) isa);

                        if (!k || (isa == WARM_ISA_PLAIN && round > 0))
                                continue;
                        run(k, w, n_rows, slices);
                        for (int i = 0; i < N_SLICES; i++)
                                if (round == 0 || slices[i] < best[isa][i])
                                        best[isa][i] = slices[i];
                }
        for (int isa = 0; isa < _WARM_ISA_N; isa++) {
                ret_seconds[isa] = 0;
                for (int i = 0; i < N_SLICES; i++)
                        ret_seconds[isa] += best[isa][i];
        }
}

static void bench(enum warm_type type) {
        uint64_t row_bytes, n_outs;
        double one[_WARM_ISA_N], four[_WARM_ISA_N], many[2][_WARM_ISA_N];
        struct work w;

        if (warm_type_row_bytes(type, 512, &row_bytes) < 0)
                abort();
        n_outs = WEIGHT_BYTES / row_bytes / (N_SLICES * 16) * (N_SLICES * 16);
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
