/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small kernels around the products: a step's description on its way to the device, embeddings, the turns of
 * positions, row scales, and the rows that somebody wants something of.
 */
#pragma once

#include "matrix.h"

/* Counts of a step, device memory. */
enum {
        WARM_CUDA_N_ROWS,
        WARM_CUDA_N_UNITS,
        WARM_CUDA_N_WANTED,
        _WARM_CUDA_COUNTS = 4,
};

/*
 * Bring a step's description over: words of 16 bytes from pinned host memory that the device can read. The number
 * of words stands in the first 4 bytes of the source. So a captured graph copies what the step at hand needs.
 *
 * @param words_sure that are copied whatever that number is, and sooner than any others; at least 1
 */
WARM_CUDA_API int warm_cuda_stage(void *d_to, const void *mapped_from, uint32_t words_sure,
                                  bool overlap, cudaStream_t stream);

/* A rope of the model, and where the turns of a step's positions go. */
struct warm_cuda_turns {
        const double *d_frequencies; /* [n_pairs] */
        float *d_turns;              /* [rows][n_pairs][2]: cos, sin */
        uint32_t n_pairs;
        float factor;
};

struct warm_cuda_embed {
        struct warm_cuda_matrix embedding;
        const struct warm_cuda_row *d_rows;
        const uint32_t *d_n_rows;
        uint32_t n_rows_max, dim;
        float embedding_scale;
        const float *d_norm; /* of the first layer's mixer, [dim] */
        float *d_x;          /* [rows][dim] */
        struct warm_cuda_acts out;
        float *d_squares; /* [tiles of 16][squares_ld] */
        uint32_t squares_ld;
        const struct warm_cuda_turns *d_turns; /* [n_turns], written by no kernel */
        uint32_t n_turns, n_pairs_max;
        bool overlap;
};

/*
 * x = embedding of each row's token; activations and squares of the first norm. And cos and sin of each row's position,
 * in double, rounded once.
 */
WARM_CUDA_API int warm_cuda_embed_rows(const struct warm_cuda_embed *e, cudaStream_t stream);

/* 1 / sqrt(mean of squares + epsilon) of each row, from sums over tiles of 16. */
WARM_CUDA_API int warm_cuda_row_scales(const float *d_squares, uint32_t squares_ld, uint32_t dim,
                                       float epsilon, const uint32_t *d_n_rows, uint32_t n_rows_max,
                                       float *d_scales, bool overlap, cudaStream_t stream);

/*
 * The activations and squares of wanted rows, side by side.
 *
 * @param d_wanted [n] row of the step
 * @param out narrow, for n_max rows
 */
WARM_CUDA_API int warm_cuda_gather(const struct warm_cuda_acts *in, const float *d_squares,
                                   uint32_t squares_ld, uint32_t dim, const uint32_t *d_wanted,
                                   const uint32_t *d_n, uint32_t n_max, struct warm_cuda_acts *out,
                                   float *d_squares_out, uint32_t squares_out_ld, bool overlap,
                                   cudaStream_t stream);

/* Say that a step has ended: its ticket into memory that the host maps. */
WARM_CUDA_API int warm_cuda_done(const uint64_t *d_ticket, uint64_t *mapped_done, bool overlap,
                                 cudaStream_t stream);
