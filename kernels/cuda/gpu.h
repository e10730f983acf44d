/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host's files of the CUDA backend share: the backend, its weights, and what a step needs on the device.
 *
 * Weights lie in one arena of exportable memory, scratch in another; both are made at load, and nothing is allocated
 * in a step. A step's description is written into pinned memory, one kernel brings it over, and everything behind it
 * reads counts from the device: so a captured graph serves every step of its kind.
 *
 * Owner: the engine. Thread: the engine's, and the loader's own during a load.
 */
#pragma once

#include "attention.h"
#include "blocks.h"
#include "cuda.h"
#include "device.h"
#include "expect.h"
#include "kernels/rope.h"
#include "kernels/step-check.h"
#include "kv.h"
#include "matrix.h"
#include "memory.h"
#include "rows.h"
#include "sample.h"

#define WARM_CUDA_NUMERICS  2U /* raise when any result may change */
#define WARM_CUDA_KV_LAYOUT 1U /* raise when the order inside a tile changes */

#define WARM_CUDA_WANTED  64U /* rows whose logits are computed together */
#define WARM_CUDA_BATCHES (WARM_STEP_ROWS_MAX / WARM_CUDA_WANTED)
#define WARM_CUDA_TABLES_SURE                                                                      \
        2048U /* bytes of block tables that come over with the rest, a sequence's 16,384 tokens */
#define WARM_CUDA_GRAPHS                                                                           \
        64U /* kinds of narrow steps that are kept captured; beyond, the oldest goes */

/* A product of the mixer's input: some of q, k, v side by side, as many as share a format. */
struct warm_cuda_part {
        struct warm_cuda_matrix matrix;
        const float *d_bias;
        uint32_t column; /* in d_qkv */
};

struct warm_cuda_layer {
        uint32_t group;
        uint32_t n_heads, n_kv_heads, head_dim_k, head_dim_v, window;
        float attention_scale, attention_soft_cap, norm_epsilon, residual_scale;
        uint32_t rope; /* index into the ropes */
        enum warm_ffn ffn;
        enum warm_activation activation;
        uint32_t n_ff;
        uint64_t k_offset, v_offset; /* bytes, of its tiles in a block */

        struct warm_cuda_part parts[3];
        uint32_t n_parts;
        struct warm_cuda_matrix o, up, down; /* up: with gate, interleaved, if there is one */
        const float *d_mixer_norm, *d_ffn_norm, *d_q_norm, *d_k_norm;
        const float *d_o_bias, *d_up_bias, *d_down_bias;
};

struct warm_cuda_rope {
        struct warm_rope_table table;
        const double *d_frequencies;
        float *d_turns; /* [rows][n_pairs][2] */
};

/* Sizes of a step that decide which kernels run, and how large their grids are. */
struct warm_cuda_kind {
        uint32_t n8; /* 0: wide */
        uint32_t n_rows_max;
        uint32_t n_units_max;
        uint32_t n_unit_rows_max; /* rows of one sequence that share an attention unit */
        uint32_t n_slots_max;
        uint32_t n_wanted_max; /* 0: nobody wants anything; wide: all batches */
        bool gather;           /* not all rows want something */
        bool greedy;
};

/* Tiles of 8 rows in the narrow layout of n rows (cuda.h). @param n <= WARM_CUDA_NARROW */
static inline uint32_t warm_cuda_n8(uint32_t n) {
        return n > 32 ? 8 : n > 16 ? 4 : n > 8 ? 2 : 1;
}

struct warm_cuda_graph {
        struct warm_cuda_kind kind;
        cudaGraphExec_t exec; /* NULL: free */
        uint64_t used;        /* number of the step that used it last */
        struct warm_cuda_expected expected;
};

/*
 * Where things lie in a step's description; offsets in bytes, multiples of 16. Narrow steps with the same n8 have the
 * same places.
 */
struct warm_cuda_places {
        uint64_t rows, units, wanted, wants, tables;
};

/* The first bytes of a step's description. */
struct warm_cuda_header {
        uint32_t words; /* of 16 bytes, all */
        uint32_t unused[3];
        uint32_t counts[_WARM_CUDA_COUNTS];
        uint64_t ticket;
        uint64_t unused_too;
        uint32_t n_wanted[WARM_CUDA_BATCHES]; /* of each batch */
};

struct warm_weights {
        uint32_t dim, n_vocab, n_context, n_layers, n_groups;
        float norm_epsilon, embedding_scale, logit_scale, logit_soft_cap;
        struct warm_cuda_layer *layers;
        struct warm_cuda_matrix embedding, output;
        const float *d_output_norm, *d_output_bias;
        struct warm_cuda_rope *ropes; /* [n_ropes] */
        uint32_t n_ropes, n_pairs_max;
        uint32_t qkv_max, attention_max, ff_max; /* widest of all layers */
        struct warm_step_limits limits;

        struct warm_cuda_range arena, scratch;
        uint64_t weights_bytes;
        bool counted; /* in the backend's scratch_bytes and held_bytes */
        struct warm_cuda_kv_memory kv;
        uint32_t table_ld; /* blocks a sequence may have */

        /* Scratch, device. */
        float *d_x, *d_qkv, *d_squares, *d_squares_wanted, *d_row_scales, *d_logits;
        uint16_t *d_acts_x, *d_acts_attention, *d_acts_ff, *d_acts_wanted;
        struct warm_cuda_turns *d_turns; /* [n_ropes] */
        uint8_t *d_step;
        void *d_attention, *d_sample;
        uint32_t *d_counters;
        uint64_t attention_bytes, step_bytes;

        /* Pinned host memory, and the same as the device sees it. */
        uint8_t *step, *mapped_step;
        struct warm_cuda_answer *answers, *mapped_answers; /* [WARM_STEP_ROWS_MAX] */
        float *logits; /* [WARM_CUDA_WANTED][n_vocab], made when first wanted */

        struct warm_cuda_graph graphs[WARM_CUDA_GRAPHS];
        struct warm_cuda_expected wide[WARM_CUDA_WIDTHS]; /* and steps that leave logits */
};

/* A step under way. */
struct warm_cuda_pending {
        struct warm_weights *weights; /* NULL: none */
        const struct warm_step *step;
        uint64_t ticket, submitted_ns;
        uint64_t look_ns;                    /* before it nobody looks for the end */
        struct warm_cuda_expected *expected; /* of its kind */
        uint32_t expected_rows;              /* 1 where a kind takes as long with fewer */
};

struct warm_cuda_backend {
        struct warm_backend base;
        struct warm_cuda_device device;
        struct warm_cuda_memory memory;
        struct warm_cuda_blocks blocks;
        cudaStream_t stream;
        uint32_t n_sms;
        bool overlap, wgmma;
        int timer_fd;                 /* becomes readable shortly before a step should be done */
        uint64_t *done, *mapped_done; /* ticket of the last step that ended */
        uint64_t n_tickets;
        struct warm_cuda_pending pending;
        uint64_t scratch_bytes, held_bytes;
        uint64_t context_bytes; /* what the context itself took; 0 where the driver does not tell */
        warm_progress_fn load_progress; /* or NULL */
        void *load_userdata;
        int lost;        /* the CUresult that ended it, or 0 */
        char fault[160]; /* in words */
};

/* Note what ended the backend. Return: WARM_BACKEND_E_LOST. */
int warm_cuda_lost(struct warm_cuda_backend *b, int error, const char *where);

/* load.c */
int warm_cuda_load(struct warm_cuda_backend *b, const struct warm_plan *plan,
                   struct warm_weights **ret_weights, char **ret_why);
struct warm_weights *warm_cuda_weights_free(struct warm_cuda_backend *b, struct warm_weights *w);

/* scratch.c. Return: 0; -ENOMEM; WARM_BACKEND_E_MEMORY; WARM_BACKEND_E_LOST. */
int warm_cuda_scratch_init(struct warm_cuda_backend *b, struct warm_weights *w);
void warm_cuda_scratch_deinit(struct warm_cuda_backend *b, struct warm_weights *w);
struct warm_cuda_places warm_cuda_places_of(uint32_t n_rows);

/* step.c: launch a step that was checked. Return: 0; WARM_BACKEND_E_LOST. */
int warm_cuda_step_submit(struct warm_cuda_backend *b, struct warm_weights *w,
                          const struct warm_step *step, uint64_t ticket);

/* launch.c: queue the kernels of a step of this kind. Return: 0; a cudaError_t. */
int warm_cuda_step_queue(struct warm_cuda_backend *b, struct warm_weights *w,
                         const struct warm_cuda_kind *kind, const struct warm_step *step);

/* measure.c. A step may be pending: it ends first. Return: as warm_backend_measure(). */
int warm_cuda_measure(struct warm_cuda_backend *b, double *ret_copy_bytes_per_s,
                      double *ret_flop_per_s);
