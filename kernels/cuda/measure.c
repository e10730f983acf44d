/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this GPU can do at most, as warm_backend_measure() tells it: the best of some rounds, timed by events on the
 * stream of steps, so that a step before it and a step after it stay whole.
 *
 * Copy: cudaMemcpyAsync inside the device's memory, COPY_BYTES or a quarter of what is free; bytes read and bytes written
 * both count. Multiply: the backend's own product of binary16 as a long prompt meets it in a gated feed-forward layer
 * (8,192 columns to 2 x 8,192 outputs, 2,048 rows), again and again for ROUND_MS: a GPU at its power limit is slower than
 * in its first millisecond. Quantized weights become binary16 on the way and have a lower ceiling. All values are random:
 * zeros take less power, and clocks rise.
 *
 * The memory is of the same make as weights and KV have (memory.h), and is given back before the call returns.
 */
#include <errno.h>
#include <stdlib.h>

#include "gpu.h"

#define COPY_BYTES  (1ULL << 30) /* source and target each; the largest L2 caches have 126 MiB */
#define COPY_ROUNDS 8U           /* and one before that counts for nothing */
#define PATTERN     (512U << 10) /* random values; memory repeats them */
#define COLS        8192U
#define OUTS        (2 * 8192U) /* gate and up */
#define ROUNDS      3U
#define ROUND_MS    60.0 /* untuned guess */
#define TIMES_MAX   1000U
#define FLOP        (2.0 * WARM_STEP_ROWS_MAX * COLS * OUTS)

struct measure {
        struct warm_cuda_backend *b;
        struct warm_cuda_range memory; /* of what is measured now */
        uint16_t *pattern;             /* [PATTERN], owned */
        cudaEvent_t begin, end;        /* owned */
        int error;                     /* the first of CUDA's */
};

static void note(struct measure *m, cudaError_t e) {
        if (m->error == 0)
                m->error = (int) e;
}

/* Binary16 between 2^-7 and 2 in size, with either sign. */
static void fill_pattern(uint16_t *to) {
        uint64_t x = 0x9e3779b97f4a7c15U; /* xorshift64 (Marsaglia 2003) */

        for (uint32_t i = 0; i < PATTERN; i++) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                to[i] = (uint16_t) ((x & 0x83ff) | (8 + (x >> 16 & 7)) << 10);
        }
}

static int init(struct measure *m, struct warm_cuda_backend *b) {
        *m = (struct measure){ .b = b, .pattern = malloc(PATTERN * sizeof(*m->pattern)) };
        if (!m->pattern)
                return -ENOMEM;
        fill_pattern(m->pattern);
        /* Waiting sleeps: the engine's thread is the only one that works meanwhile. */
        note(m, cudaEventCreateWithFlags(&m->begin, cudaEventBlockingSync));
        note(m, cudaEventCreateWithFlags(&m->end, cudaEventBlockingSync));
        return 0;
}

static void deinit(struct measure *m) {
        if (m->begin)
                (void) cudaEventDestroy(m->begin);
        if (m->end)
                (void) cudaEventDestroy(m->end);
        free(m->pattern);
}

/* Memory for a measurement, its first n_bytes random. Return: as warm_cuda_arena_init(). */
static int take(struct measure *m, uint64_t bytes, uint64_t n_bytes) {
        int r = warm_cuda_arena_init(&m->memory, &m->b->memory, bytes);
        uint8_t *d = m->memory.d_base;
        uint64_t done = PATTERN * sizeof(*m->pattern);

        if (r)
                return r;
        note(m, cudaMemcpyAsync(d, m->pattern, done, cudaMemcpyHostToDevice, m->b->stream));
        for (; done < n_bytes; done *= 2)
                note(m, cudaMemcpyAsync(d + done, d, done < n_bytes - done ? done : n_bytes - done,
                                        cudaMemcpyDeviceToDevice, m->b->stream));
        return 0;
}

static void give_back(struct measure *m) {
        note(m, cudaStreamSynchronize(m->b->stream));
        warm_cuda_range_deinit(&m->memory);
}

static void begin(struct measure *m) {
        note(m, cudaEventRecord(m->begin, m->b->stream));
}

/* Wait for what was queued since begin(). Return: seconds it took; 0: an error. */
static double end(struct measure *m) {
        float ms = 0;

        note(m, cudaEventRecord(m->end, m->b->stream));
        if (m->error == 0)
                note(m, cudaEventSynchronize(m->end));
        if (m->error == 0)
                note(m, cudaEventElapsedTime(&ms, m->begin, m->end));
        return m->error ? 0 : (double) ms / 1e3;
}

static double better(double best, double amount, double seconds) {
        return seconds > 0 && amount / seconds > best ? amount / seconds : best;
}

/* Bytes to copy. Return: 0: there is no room for more than a cache holds. */
static uint64_t copy_bytes(struct measure *m) {
        size_t free_bytes = 0, total = 0;
        int l2_bytes = 0;
        uint64_t bytes;

        note(m, cudaMemGetInfo(&free_bytes, &total));
        note(m, cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, m->b->device.index));
        bytes = free_bytes / 4 < COPY_BYTES ? free_bytes / 4 : COPY_BYTES;
        bytes -= bytes % m->b->memory.granularity;
        return bytes < 2 * (uint64_t) l2_bytes || bytes < PATTERN * sizeof(*m->pattern) ? 0 : bytes;
}

static int measure_copy(struct measure *m, double *ret_bytes_per_s) {
        uint64_t bytes = copy_bytes(m);
        double best = 0;
        int r = bytes == 0 ? WARM_BACKEND_E_MEMORY : take(m, 2 * bytes, bytes);

        if (r)
                return r;
        for (uint32_t i = 0; i <= COPY_ROUNDS; i++) {
                double seconds;

                begin(m);
                note(m, cudaMemcpyAsync(m->memory.d_base + bytes, m->memory.d_base, bytes,
                                        cudaMemcpyDeviceToDevice, m->b->stream));
                seconds = end(m);
                if (i > 0)
                        best = better(best, 2 * (double) bytes, seconds);
        }
        give_back(m);
        *ret_bytes_per_s = best;
        return 0;
}

/* Weights, then activations, then what comes out, then the number of rows. */
static int product_init(struct measure *m, struct warm_cuda_product *ret_product) {
        const uint32_t n_rows = WARM_STEP_ROWS_MAX;
        struct warm_cuda_product p = {
                .matrix = { .format = WARM_CUDA_F16,
                            .n_rows = OUTS,
                            .row_blocks = OUTS / 128,
                            .k_units = COLS / WARM_CUDA_K,
                            .n_segments = 1,
                            .scale = 1.0f / (1 << WARM_CUDA_EXPONENT_FLOAT) / WARM_CUDA_ACT_SCALE },
                .in = { .k_padded = COLS },
                .epilogue = WARM_CUDA_GATED,
                .activation = WARM_ACTIVATION_SILU,
                .n_rows_max = n_rows,
                .overlap = m->b->overlap,
                .dim = COLS,
                .out = { .k_padded = OUTS / 2 },
        };
        const uint64_t in_at = warm_cuda_matrix_bytes(&p.matrix),
                       out_at = in_at + (uint64_t) n_rows * COLS * sizeof(uint16_t),
                       count_at = out_at + (uint64_t) n_rows * (OUTS / 2) * sizeof(uint16_t);
        int r = take(m, count_at + sizeof(n_rows), out_at);
        uint8_t *d = m->memory.d_base;

        if (r)
                return r;
        p.matrix.d_data = d;
        p.in.d_values = (void *) (d + in_at);
        p.out.d_values = (void *) (d + out_at);
        p.d_n_rows = (void *) (d + count_at);
        note(m, cudaMemcpyAsync(d + count_at, &n_rows, sizeof(n_rows), cudaMemcpyHostToDevice,
                                m->b->stream));
        *ret_product = p;
        return 0;
}

/* Multiply so many times. Return: seconds; 0: an error. */
static double multiply(struct measure *m, const struct warm_cuda_product *p, uint32_t times) {
        begin(m);
        for (uint32_t i = 0; i < times && m->error == 0; i++)
                note(m, (cudaError_t) (m->b->wgmma ? warm_cuda_multiply_sm90(p, m->b->n_sms,
                                                                             m->b->stream)
                                                   : warm_cuda_multiply_wide(p, m->b->stream)));
        return end(m);
}

static int measure_product(struct measure *m, double *ret_flop_per_s) {
        struct warm_cuda_product p;
        double best = 0, one, wanted;
        uint32_t times;
        int r = product_init(m, &p);

        if (r)
                return r;
        (void) multiply(m, &p, 1); /* the kernel is loaded when it is first wanted */
        one = multiply(m, &p, 1);
        wanted = one > 0 ? ROUND_MS / 1e3 / one + 1 : 1;
        times = wanted < TIMES_MAX ? (uint32_t) wanted : TIMES_MAX;
        for (uint32_t i = 0; i < ROUNDS; i++)
                best = better(best, FLOP * times, multiply(m, &p, times));
        give_back(m);
        *ret_flop_per_s = best;
        return 0;
}

int warm_cuda_measure(struct warm_cuda_backend *b, double *ret_copy_bytes_per_s,
                      double *ret_flop_per_s) {
        double copy = 0, flop = 0;
        struct measure m;
        int r;

        if (b->lost)
                return WARM_BACKEND_E_LOST;
        r = init(&m, b);
        if (r == 0 && m.error == 0)
                r = measure_copy(&m, &copy);
        if (r == 0 && m.error == 0)
                r = measure_product(&m, &flop);
        deinit(&m);
        if (m.error && warm_cuda_error(m.error) == WARM_BACKEND_E_MEMORY)
                return WARM_BACKEND_E_MEMORY;
        if (m.error || r == WARM_BACKEND_E_LOST)
                return warm_cuda_lost(b, m.error, "measuring the device");
        if (r)
                return r;
        *ret_copy_bytes_per_s = copy;
        *ret_flop_per_s = flop;
        return 0;
}
