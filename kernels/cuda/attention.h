/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over paged KV on the GPU: head norms, rope, the store of K and V, and the weighted sum of V.
 *
 * What is computed, for a row and a query head (numbers are f32 where nothing else is said):
 *
 * - q, k: RMS norm if there is one, rope, each product and sum rounded once, as the CPU does. K and V are rounded to
 *   the KV type when they are stored, and always read back as stored; what is too large becomes the type's largest
 *   value, what is not finite 0. q is multiplied by scale * log2(e) (with a soft cap: by scale / cap) and rounded to
 *   the KV type likewise.
 * - Time is cut at absolute multiples of 64 slots (chunks) and of 1,024 (spans).
 * - A chunk, from zero: scores by mma.m16n8k16, 16 dimensions a step, ascending; with a soft cap tanh(s) * cap *
 *   log2(e). What is not visible is -infinity. m is the largest score, p = 2^(s - m) by ex2.approx, rounded to the KV
 *   type; l the sum of the rounded p and O the sum of p V, both by mma, 16 slots a step, ascending.
 * - A span, from (-infinity, 0, 0): its chunks are merged in ascending order; then its spans are, in the same way:
 *   M = max(m, m'), a = 2^(m - M), b = 2^(m' - M), l = fma(l', b, l * a), O = fma(O', b, O * a).
 * - The output is O * (1 / l), a zero's sign dropped, as warm_cuda_act_value() rounds it; 0 where nothing is visible.
 *
 * A chunk or a span of which a row sees nothing changes nothing, in bits. A row of an mma never influences another,
 * so that it makes no difference which rows share one, who computes a chunk, or who merges: a row has the same bits
 * alone and in a step of 2,048. Invisible V is read as 0.
 *
 * Steps of up to WARM_CUDA_NARROW rows: runs of chunks spread evenly over the GPU, whose kernel stores too where units
 * are small and is another one where they are large, and a kernel that merges what runs left behind; on sm_90, for few
 * units up to 1,024 slots deep, clusters that do it all. Wider steps: a store kernel, then 64 (row, head) pairs a
 * block that go through their chunks, by spans side by side if the step is too small to fill the GPU.
 *
 * Thread: the engine's. Nothing allocates; everything may be captured in a graph.
 */
#pragma once

#include "cuda.h"

#define WARM_CUDA_CHUNK            64U   /* slots; two blocks */
#define WARM_CUDA_SPAN             1024U /* slots */
#define WARM_CUDA_UNIT_ROWS_NARROW 16U
#define WARM_CUDA_UNIT_ROWS_WIDE   128U

/*
 * Adjacent rows of one sequence: up to WARM_CUDA_UNIT_ROWS_NARROW in a step of up to WARM_CUDA_NARROW rows, up to
 * WARM_CUDA_UNIT_ROWS_WIDE in a wider one. Each row of the step is in one unit; units stand in the rows' order.
 */
struct warm_cuda_unit {
        uint32_t first_row;
        uint32_t n_rows;
};

/* One layer's attention; all pointers borrowed until the launched kernels are done. */
struct warm_cuda_attention {
        uint32_t n_heads;
        uint32_t n_kv_heads; /* divides n_heads */
        uint32_t head_dim_k; /* 16..256, a multiple of 8 */
        uint32_t head_dim_v; /* likewise */
        uint32_t window;     /* tokens visible behind a row; UINT32_MAX: all */
        float scale;
        float soft_cap; /* 0: none */
        float norm_epsilon;
        uint32_t n_pairs;                 /* rope: pairs that turn, an even number; 0: none */
        bool halves;                      /* pairs (i, i + n_pairs), else (2i, 2i + 1) */
        const float *d_q_norm, *d_k_norm; /* [head_dim_k] or NULL */
        const float *d_turns;             /* [n_rows][n_pairs][2]: cos, sin; 16-byte aligned */

        struct warm_cuda_kv kv; /* F16 or BF16 */
        uint64_t k_offset;      /* of the layer's tiles in a block, multiples of 16 */
        uint64_t v_offset;

        /*
         * Written before the first kernel of the step and by none of its kernels (they are read before
         * warm_wait_for_before()), like the block tables.
         */
        const struct warm_cuda_row *d_rows;   /* [n_rows_max]; only the first n_rows count */
        const uint32_t *d_counts;             /* [0] n_rows, [1] n_units */
        const struct warm_cuda_unit *d_units; /* [n_units_max]; only the first n_units count */

        /* What a captured graph is good for. */
        uint32_t n_rows_max; /* <= WARM_CUDA_NARROW: the narrow kernels, whatever n_rows is */
        uint32_t n_units_max;
        uint32_t
                n_unit_rows_max; /* of a narrow step: where it is 1, as in decode, smaller kernels do */
        uint32_t n_slots_max; /* bound of hi and of slot + 1 */

        const float *
                d_qkv; /* [n_rows][ld_qkv]: q heads, k heads, v heads; 16-byte aligned, ld_qkv % 4 = 0 */
        uint32_t ld_qkv;
        struct warm_cuda_acts
                out; /* narrow where n_rows_max is; column = head * head_dim_v + dimension; the padding stays as it is */
        void *d_scratch;        /* 256-byte aligned; may be shared by all layers of a stream */
        uint64_t scratch_bytes; /* as warm_cuda_attention_scratch_bytes() says, or more */
        bool overlap;           /* launch with warm_launch()'s overlap */
};

/*
 * Scratch for a layer of this shape.
 *
 * @param n_rows_max the widest step
 * @param n_slots_max the longest sequence
 */
WARM_CUDA_API uint64_t warm_cuda_attention_scratch_bytes(uint32_t n_heads, uint32_t n_kv_heads,
                                                         uint32_t head_dim_k, uint32_t head_dim_v,
                                                         uint32_t n_rows_max, uint32_t n_slots_max);

/* For tests: whether clusters may be used where the device has them. The same bits come out. */
WARM_CUDA_API void warm_cuda_attention_clusters(bool allowed);

/*
 * Launch the store of the step's K and V, and of its rotated q into the scratch. Where n_unit_rows_max times the heads
 * of a KV head is at most 16 (decode) there is nothing to launch: warm_cuda_attention_run() stores.
 *
 * Return: 0; a cudaError_t.
 */
WARM_CUDA_API int warm_cuda_attention_store(const struct warm_cuda_attention *a,
                                            cudaStream_t stream);

/* Launch the rest; right after warm_cuda_attention_store() of the same layer. Return: 0; a cudaError_t. */
WARM_CUDA_API int warm_cuda_attention_run(const struct warm_cuda_attention *a, cudaStream_t stream);
