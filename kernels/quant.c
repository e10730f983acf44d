/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dequantization of GGUF's block formats. Each function carries the byte table of its block; all numbers are
 * little-endian, `half` is an IEEE 754 binary16. Source: the layouts as GGUF files in the wild have them (the ggml
 * block formats); the tests hold every one against a second, independent decoder.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "quant.h"

static const struct warm_type_info type_infos[_WARM_TYPE_N] = {
        [WARM_TYPE_F32] = { "F32", 1, 4 },       [WARM_TYPE_F16] = { "F16", 1, 2 },
        [WARM_TYPE_BF16] = { "BF16", 1, 2 },     [WARM_TYPE_Q8_0] = { "Q8_0", 32, 34 },
        [WARM_TYPE_Q4_0] = { "Q4_0", 32, 18 },   [WARM_TYPE_Q4_1] = { "Q4_1", 32, 20 },
        [WARM_TYPE_Q5_0] = { "Q5_0", 32, 22 },   [WARM_TYPE_Q5_1] = { "Q5_1", 32, 24 },
        [WARM_TYPE_Q4_K] = { "Q4_K", 256, 144 }, [WARM_TYPE_Q5_K] = { "Q5_K", 256, 176 },
        [WARM_TYPE_Q6_K] = { "Q6_K", 256, 210 },
};

const struct warm_type_info *warm_type_info(enum warm_type type) {
        assert((unsigned int) type < _WARM_TYPE_N);
        return &type_infos[type];
}

int warm_type_row_bytes(enum warm_type type, uint64_t n, uint64_t *ret_bytes) {
        const struct warm_type_info *info = warm_type_info(type);
        uint64_t bytes;

        if (n % info->elements)
                return -EINVAL;
        if (__builtin_mul_overflow(n / info->elements, (uint64_t) info->bytes, &bytes))
                return -EOVERFLOW;
        *ret_bytes = bytes;
        return 0;
}

static inline float float_of(uint32_t bits) {
        float f;

        memcpy(&f, &bits, sizeof(f));
        return f;
}

static inline uint32_t bits_of(float f) {
        uint32_t bits;

        memcpy(&bits, &f, sizeof(bits));
        return bits;
}

float warm_half_to_float(uint16_t h) {
        uint32_t sign = (uint32_t) (h & 0x8000) << 16;
        uint32_t exponent = (h >> 10) & 0x1f;
        uint32_t fraction = h & 0x3ff;

        if (exponent == 0x1f)
                return float_of(sign | 0x7f800000U | fraction << 13);
        if (exponent)
                return float_of(sign | (exponent + 112) << 23 | fraction << 13);
        /* Zero and subnormal: fraction * 2^-24, exact in float. */
        return float_of(sign | bits_of((float) fraction * 0x1p-24f));
}

uint16_t warm_float_to_half(float f) {
        uint32_t bits = bits_of(f);
        uint16_t sign = (uint16_t) (bits >> 16 & 0x8000);
        uint32_t size = bits & 0x7fffffffU;

        if (size > 0x7f800000U) /* NaN: quiet, the upper payload kept */
                return (uint16_t) (sign | 0x7e00 | (size >> 13 & 0x3ff));
        if (size >= 0x477ff000U) /* 65520 and above round to infinity */
                return (uint16_t) (sign | 0x7c00);
        if (size < 0x38800000U) /* below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 */
                return (uint16_t) (sign | (bits_of(float_of(size) + 0.5f) - 0x3f000000U));
        /* Round to nearest even at bit 13, then move the exponent's bias from 127 to 15. */
        size += 0xfff + (size >> 13 & 1);
        return (uint16_t) (sign | (size - (112U << 23)) >> 13);
}

float warm_bf16_to_float(uint16_t h) {
        return float_of((uint32_t) h << 16);
}

uint16_t warm_float_to_bf16(float f) {
        uint32_t bits = bits_of(f);

        if ((bits & 0x7fffffffU) > 0x7f800000U)
                return (uint16_t) (bits >> 16 | 0x40);
        return (uint16_t) ((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline uint16_t load16(const uint8_t *p) {
        return (uint16_t) (p[0] | p[1] << 8);
}

static inline uint32_t load32(const uint8_t *p) {
        return (uint32_t) load16(p) | (uint32_t) load16(p + 2) << 16;
}

static inline float load_half(const uint8_t *p) {
        return warm_half_to_float(load16(p));
}

/*
 * Q8_0, 34 bytes, 32 values: y = d * q
 *
 *   0  half  d
 *   2  int8  q[32]
 */
static void dequantize_q8_0(const uint8_t *p, float *y) {
        float d = load_half(p);

        for (int i = 0; i < 32; i++)
                y[i] = d * (float) (int8_t) p[2 + i];
}

/*
 * Q4_0, 18 bytes, 32 values: y = d * (q - 8)
 *
 *   0  half  d
 *   2  u8    q[16]: low nibble value i, high nibble value i + 16
 */
static void dequantize_q4_0(const uint8_t *p, float *y) {
        float d = load_half(p);

        for (int i = 0; i < 16; i++) {
                y[i] = d * (float) ((p[2 + i] & 15) - 8);
                y[i + 16] = d * (float) ((p[2 + i] >> 4) - 8);
        }
}

/*
 * Q4_1, 20 bytes, 32 values: y = d * q + m
 *
 *   0  half  d
 *   2  half  m
 *   4  u8    q[16]: nibbles as in Q4_0
 */
static void dequantize_q4_1(const uint8_t *p, float *y) {
        float d = load_half(p), m = load_half(p + 2);

        for (int i = 0; i < 16; i++) {
                y[i] = d * (float) (p[4 + i] & 15) + m;
                y[i + 16] = d * (float) (p[4 + i] >> 4) + m;
        }
}

/*
 * Q5_0, 22 bytes, 32 values: y = d * (q - 16)
 *
 *   0  half  d
 *   2  u32   bit i: bit 4 of value i
 *   6  u8    q[16]: bits 0..3, nibbles as in Q4_0
 */
static void dequantize_q5_0(const uint8_t *p, float *y) {
        float d = load_half(p);
        uint32_t high = load32(p + 2);

        for (int i = 0; i < 16; i++) {
                int a = (p[6 + i] & 15) | (int) (high >> i & 1) << 4;
                int b = (p[6 + i] >> 4) | (int) (high >> (i + 16) & 1) << 4;

                y[i] = d * (float) (a - 16);
                y[i + 16] = d * (float) (b - 16);
        }
}

/*
 * Q5_1, 24 bytes, 32 values: y = d * q + m
 *
 *   0  half  d
 *   2  half  m
 *   4  u32   bit i: bit 4 of value i
 *   8  u8    q[16]: bits 0..3, nibbles as in Q4_0
 */
static void dequantize_q5_1(const uint8_t *p, float *y) {
        float d = load_half(p), m = load_half(p + 2);
        uint32_t high = load32(p + 4);

        for (int i = 0; i < 16; i++) {
                int a = (p[8 + i] & 15) | (int) (high >> i & 1) << 4;
                int b = (p[8 + i] >> 4) | (int) (high >> (i + 16) & 1) << 4;

                y[i] = d * (float) a + m;
                y[i + 16] = d * (float) b + m;
        }
}

void warm_q4_k_scale_min(const uint8_t *scales, uint32_t group, uint8_t *ret_scale,
                         uint8_t *ret_min) {
        const uint8_t *s = scales + (group & 3);

        if (group < 4) {
                *ret_scale = s[0] & 63;
                *ret_min = s[4] & 63;
        } else {
                *ret_scale = (uint8_t) ((s[8] & 15) | (s[0] >> 6) << 4);
                *ret_min = (uint8_t) ((s[8] >> 4) | (s[4] >> 6) << 4);
        }
}

/*
 * Q4_K, 144 bytes, 256 values in 8 groups of 32: y = (d * scale) * q - (dmin * min)
 *
 *     0  half  d
 *     2  half  dmin
 *     4  u8    s[12]: 6-bit scale and min of each group
 *              groups 0..3: scale = s[g] & 63, min = s[g + 4] & 63
 *              groups 4..7: scale = s[g + 4] & 15 | s[g - 4] >> 6 << 4, min = s[g + 4] >> 4 | s[g] >> 6 << 4
 *    16  u8    q[128]: 32 bytes for each two groups, low nibbles the even one, high nibbles the odd one
 *
 * Q5_K, 176 bytes, the same with
 *
 *    16  u8    h[32]: bit g of h[i]: bit 4 of value i of group g
 *    48  u8    q[128]
 */
static void dequantize_q45_k(const uint8_t *p, const uint8_t *high, const uint8_t *q, float *y) {
        float d = load_half(p), dmin = load_half(p + 2);

        for (uint32_t g = 0; g < 8; g++) {
                uint8_t scale, min;
                float ds, dm;

                warm_q4_k_scale_min(p + 4, g, &scale, &min);
                ds = d * (float) scale;
                dm = dmin * (float) min;
                for (int i = 0; i < 32; i++) {
                        int v = q[g / 2 * 32 + i] >> (g & 1) * 4 & 15;

                        if (high)
                                v |= (high[i] >> g & 1) << 4;
                        y[g * 32 + i] = ds * (float) v - dm;
                }
        }
}

/*
 * Q6_K, 210 bytes, 256 values in 16 groups of 16: y = (d * scale) * (q - 32)
 *
 *     0  u8    l[128]: bits 0..3. Of each 64 bytes for 128 values: byte i holds value i (low nibble) and
 *              i + 64 (high), i = 0..63
 *   128  u8    h[64]: bits 4..5. Of each 32 bytes for 128 values: bits 2k, 2k + 1 of byte i belong to
 *              value i + 32 k, k = 0..3
 *   192  int8  scale[16]: of values 16 g .. 16 g + 15
 *   208  half  d
 */
static void dequantize_q6_k(const uint8_t *p, float *y) {
        float d = load_half(p + 208);

        for (int i = 0; i < 256; i++) {
                int part = i / 128, at = i % 128;
                int low = p[part * 64 + at % 64] >> at / 64 * 4 & 15;
                int high = p[128 + part * 32 + at % 32] >> at / 32 * 2 & 3;
                float ds = d * (float) (int8_t) p[192 + i / 16];

                y[i] = ds * (float) ((low | high << 4) - 32);
        }
}

static void dequantize_block(enum warm_type type, const uint8_t *p, float *y) {
        switch (type) {
        case WARM_TYPE_F32:
                *y = float_of(load32(p));
                break;
        case WARM_TYPE_F16:
                *y = load_half(p);
                break;
        case WARM_TYPE_BF16:
                *y = warm_bf16_to_float(load16(p));
                break;
        case WARM_TYPE_Q8_0:
                dequantize_q8_0(p, y);
                break;
        case WARM_TYPE_Q4_0:
                dequantize_q4_0(p, y);
                break;
        case WARM_TYPE_Q4_1:
                dequantize_q4_1(p, y);
                break;
        case WARM_TYPE_Q5_0:
                dequantize_q5_0(p, y);
                break;
        case WARM_TYPE_Q5_1:
                dequantize_q5_1(p, y);
                break;
        case WARM_TYPE_Q4_K:
                dequantize_q45_k(p, NULL, p + 16, y);
                break;
        case WARM_TYPE_Q5_K:
                dequantize_q45_k(p, p + 16, p + 48, y);
                break;
        case WARM_TYPE_Q6_K:
                dequantize_q6_k(p, y);
                break;
        case _WARM_TYPE_N:
                assert(!"a type");
        }
}

void warm_type_dequantize(enum warm_type type, const void *data, uint64_t n, float *ret_values) {
        const struct warm_type_info *info = warm_type_info(type);
        const uint8_t *p = data;

        assert(n % info->elements == 0);
        for (uint64_t i = 0; i < n; i += info->elements, p += info->bytes)
                dequantize_block(type, p, ret_values + i);
}
