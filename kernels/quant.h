/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Element types of tensors as GGUF stores them, and their dequantization to float.
 *
 * A quantized row is a run of blocks; a block holds `elements` values in `bytes` bytes. The byte layout of
 * each block is the table above its dequantizer in quant.c (source: the GGUF/ggml block formats).
 *
 * Pure functions, any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum warm_type {
        WARM_TYPE_F32,
        WARM_TYPE_F16,
        WARM_TYPE_BF16,
        WARM_TYPE_Q8_0,
        WARM_TYPE_Q4_0,
        WARM_TYPE_Q4_1,
        WARM_TYPE_Q5_0,
        WARM_TYPE_Q5_1,
        WARM_TYPE_Q4_K,
        WARM_TYPE_Q5_K,
        WARM_TYPE_Q6_K,
        _WARM_TYPE_N,
};

struct warm_type_info {
        const char *name;  /* as people write it: "Q4_K" */
        uint16_t elements; /* values a block */
        uint16_t bytes;    /* bytes a block */
};

/* @param type < _WARM_TYPE_N. Return: static, never NULL. */
const struct warm_type_info *warm_type_info(enum warm_type type);

/*
 * Bytes of one row of n values.
 * Return: 0 and *ret_bytes; -EINVAL if n is not a multiple of the block's elements; -EOVERFLOW.
 */
int warm_type_row_bytes(enum warm_type type, uint64_t n, uint64_t *ret_bytes);

/*
 * Dequantize n values (a multiple of the block's elements) from data, exactly as the format defines them:
 * one rounding to float a multiplication and an addition, no fma.
 *
 * @param data [row bytes of n], any alignment
 * @param ret_values [n]
 */
void warm_type_dequantize(enum warm_type type, const void *data, uint64_t n, float *ret_values);

/*
 * The 6-bit scale and min of one group of 32 of a Q4_K or Q5_K block.
 *
 * @param scales the 12 bytes at offset 4 of the block
 * @param group 0..7
 */
void warm_q4_k_scale_min(const uint8_t *scales, uint32_t group, uint8_t *ret_scale,
                         uint8_t *ret_min);

/* IEEE half and bfloat16 to float and back (round to nearest even; NaN stays NaN). */
float warm_half_to_float(uint16_t h);
uint16_t warm_float_to_half(float f);
float warm_bf16_to_float(uint16_t h);
uint16_t warm_float_to_bf16(float f);
