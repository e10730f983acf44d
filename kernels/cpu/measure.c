/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine can do at most, as warm_backend_measure() tells it: all threads of the pool together, the best of
 * some rounds, so that another program's work stays out of it.
 *
 * Copy: memcpy between 128 MiB and another 128 MiB, each thread its own part that it touched first; bytes read and bytes
 * written both count. Where a store reads its line first (small parts, some CPUs), that third way does not count; where a
 * cache holds much of 256 MiB the figure is above the memory's. Multiply: the backend's own product of Q8_0 weights with
 * activations quantized by row, 256 rows of 1,024 columns to 512 outputs, which stay in a core's L2; a multiply and an add
 * are two operations. It is the fastest product that the backend has: formats that are multiplied as float have a lower
 * ceiling.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "cpu.h"

#define COPY_BYTES   (128ULL << 20) /* source and target each (untuned guess) */
#define COPY_ROUNDS  5U             /* and one that touches the pages */
#define ROWS         256U
#define COLS         1024U
#define OUTS         512U
#define ROUNDS       3U
#define ROUND_NS     (60ULL * 1000 * 1000) /* untuned guess */
#define PRODUCT_FLOP (2.0 * ROWS * COLS * OUTS)

struct copy {
        uint8_t *source, *target; /* [COPY_BYTES] */
        uint32_t n_threads;
};

struct product {
        const struct warm_kernels *kernels;
        struct warm_acts acts;
        struct warm_matrix matrix;
        void *memory; /* the matrix's, owned */
        float *x;     /* [ROWS][COLS], owned */
        float *outs;  /* [n_threads][ROWS][OUTS], owned */
        uint64_t *n;  /* [n_threads] products done, owned */
        uint64_t until_ns;
};

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

static void copy_part(void *arg, uint32_t index) {
        const struct copy *c = arg;
        uint64_t begin = COPY_BYTES * index / c->n_threads;
        uint64_t end = COPY_BYTES * (index + 1) / c->n_threads;

        memcpy(c->target + begin, c->source + begin, end - begin);
}

/* Else every page of the source would be the one page of zeros. */
static void touch_part(void *arg, uint32_t index) {
        const struct copy *c = arg;
        uint64_t begin = COPY_BYTES * index / c->n_threads;
        uint64_t end = COPY_BYTES * (index + 1) / c->n_threads;

        memset(c->source + begin, 1, end - begin);
        copy_part(arg, index);
}

static int measure_copy(struct warm_cpu_backend *b, double *ret_bytes_per_s) {
        uint8_t *memory = mmap(NULL, 2 * COPY_BYTES, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct copy c = { .n_threads = warm_threads_count(b->threads) };
        uint64_t best_ns = UINT64_MAX;

        if (memory == MAP_FAILED)
                return WARM_BACKEND_E_MEMORY;
        c.source = memory;
        c.target = memory + COPY_BYTES;
        warm_threads_run(b->threads, touch_part, &c);
        for (uint32_t i = 0; i < COPY_ROUNDS; i++) {
                uint64_t start_ns = now_ns(), taken_ns;

                warm_threads_run(b->threads, copy_part, &c);
                taken_ns = now_ns() - start_ns + 1;
                best_ns = taken_ns < best_ns ? taken_ns : best_ns;
        }
        munmap(memory, 2 * COPY_BYTES);
        *ret_bytes_per_s = 2e9 * (double) COPY_BYTES / (double) best_ns;
        return 0;
}

static void product_deinit(struct product *p) {
        warm_acts_deinit(&p->acts);
        free(p->memory);
        free(p->x);
        free(p->outs);
        free(p->n);
}

static int product_init(struct product *p, const struct warm_kernels *kernels, uint32_t n_threads) {
        struct warm_tensor t = { .n_cols = COLS, .n_rows = OUTS, .type = WARM_TYPE_Q8_0 };
        uint64_t row_bytes, bytes;
        int r = warm_type_row_bytes(t.type, COLS, &row_bytes);

        if (r < 0)
                return r;
        t.bytes = row_bytes * OUTS;
        t.data =
                ""; /* never read: the time does not depend on the values, and zeros need no packing */
        r = warm_matrix_bytes(kernels, &t, &bytes);
        if (r == 0)
                r = warm_acts_init(&p->acts, ROWS, COLS);
        if (r < 0)
                return r;
        bytes = (bytes + WARM_MATRIX_ALIGN - 1) / WARM_MATRIX_ALIGN * WARM_MATRIX_ALIGN;
        p->kernels = kernels;
        p->memory = aligned_alloc(WARM_MATRIX_ALIGN, bytes);
        p->x = malloc((uint64_t) ROWS * COLS * sizeof(*p->x));
        p->outs = malloc((uint64_t) n_threads * ROWS * OUTS * sizeof(*p->outs));
        p->n = calloc(n_threads, sizeof(*p->n));
        if (!p->memory || !p->x || !p->outs || !p->n)
                return -ENOMEM;
        memset(p->memory, 0, bytes);
        for (uint64_t i = 0; i < (uint64_t) ROWS * COLS; i++)
                p->x[i] = (float) (i % 17) - 8;
        warm_matrix_init(kernels, &t, p->memory, &p->matrix);
        warm_acts_set(kernels, &p->acts, p->x, COLS, COLS, 0, ROWS);
        return 0;
}

static void multiply_until(void *arg, uint32_t index) {
        struct product *p = arg;
        float *out = p->outs + (uint64_t) index * ROWS * OUTS;
        uint64_t n = 0;

        do {
                warm_matrix_multiply(p->kernels, &p->matrix, &p->acts, 0, ROWS, 0, OUTS, out, OUTS);
                n++;
        } while (now_ns() < p->until_ns);
        p->n[index] = n;
}

static int measure_product(struct warm_cpu_backend *b, double *ret_flop_per_s) {
        uint32_t n_threads = warm_threads_count(b->threads);
        struct product p = { 0 };
        double best = 0;
        int r = product_init(&p, b->kernels, n_threads);

        for (uint32_t i = 0; r == 0 && i < ROUNDS; i++) {
                uint64_t start_ns = now_ns(), n = 0;
                double rate;

                p.until_ns = start_ns + ROUND_NS;
                warm_threads_run(b->threads, multiply_until, &p);
                for (uint32_t t = 0; t < n_threads; t++)
                        n += p.n[t];
                rate = 1e9 * PRODUCT_FLOP * (double) n / (double) (now_ns() - start_ns + 1);
                best = rate > best ? rate : best;
        }
        product_deinit(&p);
        if (r == 0)
                *ret_flop_per_s = best;
        return r;
}

int warm_cpu_measure(struct warm_cpu_backend *b, double *ret_copy_bytes_per_s,
                     double *ret_flop_per_s) {
        double copy, flop;
        int r = measure_copy(b, &copy);

        if (r == 0)
                r = measure_product(b, &flop);
        if (r != 0)
                return r;
        *ret_copy_bytes_per_s = copy;
        *ret_flop_per_s = flop;
        return 0;
}
