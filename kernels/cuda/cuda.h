/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the CUDA backend share: what a step looks like on the device, and how activations lie there.
 * Plain C, read by the host's compiler and by nvcc.
 *
 * One family of kernels for all rows: a row's numbers do not depend on how many rows a step has, on its place among
 * them, or on whether its token was given or sampled, bit for bit (docs/ARCHITECTURE.md, "CUDA: same bits").
 *
 * Thread: the engine's. Everything is launched on one stream, warm_cuda_backend.stream, but for block transfers.
 */
#pragma once

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/backend.h"
#ifdef __cplusplus
}
#endif

#ifdef __cplusplus
#define WARM_CUDA_API extern "C"
#else
#define WARM_CUDA_API
#endif

/*
 * How activations that a product reads lie on the device: binary16, each value times WARM_CUDA_ACT_SCALE and clamped
 * to the largest finite one, columns (k) padded to a multiple of WARM_CUDA_K (weights there are 0, so anything finite
 * may stand in the padding). Two layouts, chosen by the number of rows n of the step (the product of a row is the
 * same):
 *
 * narrow (n <= WARM_CUDA_NARROW): as the B fragments of two steps of mma.m16n8k16 want them, a lane's 16 bytes side by
 *   side. n8 = ceil(n / 8) rounded up to 1, 2, 4 or 8. Value (row, k) at
 *   ((k / 32 * n8 + row / 8) * 32 + row % 8 * 4 + k % 8 / 2) * 8 + k % 32 / 8 * 2 + k % 2.
 * wide: [ceil(n / 128)][padded K / 64][128 rows][64 k], the eights of a row in the order that wgmma's swizzle of 128
 *   bytes has. Value (row, k) at ((row / 128 * (padded K / 64) + k / 64) * 128 + row % 128) * 64 +
 *   (k / 8 % 8 ^ row % 8) * 8 + k % 8.
 *
 * Rows beyond n are never read in narrow and may hold anything finite in wide.
 *
 * Why binary16: it holds what quantized weights dequantize to, and activations, with 11 bits where bfloat16 has 8.
 * The scale moves its range to +-4.19e6 (known models reach 1e5), the smallest normal value to 0.004, where the step
 * is still 3.8e-6.
 */
#define WARM_CUDA_K         64U
#define WARM_CUDA_NARROW    64U /* rows */
#define WARM_CUDA_ACT_SCALE (1.0f / 64)

/* Shared memory that a block can have on every GPU, bytes: sm_86, sm_89 and sm_120; sm_80 has 163 KiB, sm_90 227. */
#define WARM_CUDA_SHARED_LEAST (99U << 10)

struct warm_cuda_acts {
        uint16_t *d_values; /* binary16 */
        uint32_t n8;        /* narrow: 1, 2, 4, 8; wide: 0 */
        uint32_t k_padded;  /* columns, a multiple of WARM_CUDA_K */
};

#ifdef __CUDACC__
#include <cuda_fp16.h>

/* Index of (row, k). */
static __device__ __forceinline__ uint64_t warm_cuda_act_index(const struct warm_cuda_acts &a,
                                                               uint32_t row, uint32_t k) {
        if (a.n8)
                return ((uint64_t) ((k / 32 * a.n8 + row / 8) * 32 + row % 8 * 4 + k % 8 / 2)) * 8 +
                       k % 32 / 8 * 2 + k % 2;
        return (((uint64_t) (row / 128) * (a.k_padded / 64) + k / 64) * 128 + row % 128) * 64 +
               ((k / 8 % 8) ^ (row % 8)) * 8 + k % 8;
}

/* A value as activations hold it; NaN becomes the lowest, so that padding stays harmless. */
static __device__ __forceinline__ uint16_t warm_cuda_act_value(float v) {
        return __half_as_ushort(__float2half_rn(
                fminf(fmaxf(__fmul_rn(v, WARM_CUDA_ACT_SCALE), -65504.0f), 65504.0f)));
}

static __device__ __forceinline__ void warm_cuda_act_set(const struct warm_cuda_acts &a,
                                                         uint32_t row, uint32_t k, float v) {
        a.d_values[warm_cuda_act_index(a, row, k)] = warm_cuda_act_value(v);
}
#endif

/* A row as the kernels read it; device memory, written at the start of each step. */
struct warm_cuda_row {
        uint64_t mask; /* over the last 64 visible slots (bit i: slot hi - 1 - i) */
        int32_t token;
        uint32_t position;
        uint32_t slot;
        uint32_t lo,
                hi; /* visible slots [lo, hi); a layer's window cuts lo further: see warm_cuda_visible_lo() */
        uint32_t sequence; /* row of the block tables */
};

/* Where one group's KV memory lies; by value into kernels. */
struct warm_cuda_kv {
        uint8_t *d_base; /* of the reserved range */
        uint64_t chunk_bytes;
        uint64_t block_bytes;
        uint32_t chunk_shift;     /* log2 of the blocks a chunk */
        enum warm_type type;      /* F16 or BF16 */
        const uint32_t *d_tables; /* [n_sequences][table_ld] block of slot / 32 */
        uint32_t table_ld;
};

/*
 * A layer's tiles in a block: K tiles [kv_head][32 tokens][head_dim_k], then V tiles [kv_head][32 tokens][head_dim_v],
 * 2 bytes a value, k_offset and v_offset bytes from the block's start.
 */
#ifdef __CUDACC__
static __device__ __forceinline__ uint8_t *warm_cuda_block(const struct warm_cuda_kv &kv,
                                                           uint32_t block) {
        return kv.d_base + (uint64_t) (block >> kv.chunk_shift) * kv.chunk_bytes +
               (uint64_t) (block & ((1U << kv.chunk_shift) - 1)) * kv.block_bytes;
}
#endif
