/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw rows of a tensor, as GGUF has them, become units (matrix.h). A thread takes 64 columns of one row; the byte
 * layout of each type's blocks is in kernels/quant.c.
 */
#include "format.cuh"

static __device__ __forceinline__ float half_at(const uint8_t *p) {
        return __half2float(*(const __half *) p);
}

/* The integer of value i of a block of 32 or 256, as the unit stores it (Q8_0: + 128). */
static __device__ uint32_t integer_of(enum warm_type type, const uint8_t *b, uint32_t i) {
        uint32_t low, half = i / 128, l = i % 32;

        switch (type) {
        case WARM_TYPE_Q8_0:
                return (uint32_t) ((int) *(const int8_t *) (b + 2 + i) + 128);
        case WARM_TYPE_Q4_0:
                return i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4;
        case WARM_TYPE_Q4_1:
                return i < 16 ? b[4 + i] & 15 : b[4 + i - 16] >> 4;
        case WARM_TYPE_Q5_0:
                low = i < 16 ? b[6 + i] & 15 : b[6 + i - 16] >> 4;
                return low | (b[2 + i / 8] >> (i % 8) & 1) << 4;
        case WARM_TYPE_Q5_1:
                low = i < 16 ? b[8 + i] & 15 : b[8 + i - 16] >> 4;
                return low | (b[4 + i / 8] >> (i % 8) & 1) << 4;
        case WARM_TYPE_Q4_K:
                return b[16 + i / 64 * 32 + l] >> (i / 32 % 2 * 4) & 15;
        case WARM_TYPE_Q5_K:
                low = b[48 + i / 64 * 32 + l] >> (i / 32 % 2 * 4) & 15;
                return low | (b[16 + l] >> (i / 32) & 1) << 4;
        case WARM_TYPE_Q6_K:
                low = b[half * 64 + i / 32 % 2 * 32 + l] >> (i / 64 % 2 * 4) & 15;
                return low | (b[128 + half * 32 + l] >> (i / 32 % 4 * 2) & 3) << 4;
        default:
                return 0;
        }
}

/* Scale and what is subtracted, of the group (of 32; Q6_K: of 16) in which value i of a block lies. */
static __device__ void scales_of(enum warm_type type, const uint8_t *b, uint32_t i, float *ret_s,
                                 float *ret_m) {
        uint32_t j = i / 32, sc, mn;
        const uint8_t *q = b + 4;

        *ret_m = 0;
        switch (type) {
        case WARM_TYPE_Q4_1:
        case WARM_TYPE_Q5_1:
                *ret_m = -half_at(b + 2);
                *ret_s = half_at(b);
                return;
        case WARM_TYPE_Q4_K:
        case WARM_TYPE_Q5_K:
                if (j < 4) {
                        sc = q[j] & 63;
                        mn = q[j + 4] & 63;
                } else {
                        sc = (q[j + 4] & 15) | (q[j - 4] >> 6) << 4;
                        mn = (q[j + 4] >> 4) | (q[j] >> 6) << 4;
                }
                *ret_s = half_at(b) * (float) sc;
                *ret_m = half_at(b + 2) * (float) mn;
                return;
        case WARM_TYPE_Q6_K:
                *ret_s = half_at(b + 208) * (float) *(const int8_t *) (b + 192 + i / 16);
                return;
        default:
                *ret_s = half_at(b);
        }
}

static __device__ uint16_t to_half(float v, uint32_t *d_overflow) {
        if (!(fabsf(v) <= 65504.0f))
                *d_overflow = 1;
        return __half_as_ushort(__float2half_rn(v));
}

struct pack_job {
        uint8_t *d_data;
        uint32_t k_units;
        enum warm_cuda_format format;
        enum warm_type type;
        enum warm_cuda_place place;
        uint32_t offset, first_row, n_rows, n_cols;
        const uint8_t *d_raw;
        uint64_t row_bytes;
        uint32_t block_values, block_bytes;
        uint32_t *d_overflow;
};

static __device__ float float_at(enum warm_type type, const uint8_t *row, uint32_t k) {
        if (type == WARM_TYPE_F32)
                return ((const float *) row)[k];
        if (type == WARM_TYPE_F16)
                return half_at(row + 2 * k);
        return __uint_as_float((uint32_t) ((const uint16_t *) row)[k] << 16);
}

static __device__ void pack_floats(const struct pack_job &j, const uint8_t *row, uint32_t k0,
                                   uint8_t *unit, uint32_t g, uint32_t r8) {
        for (uint32_t i = 0; i < 32; i++) {
                uint32_t step = i / 8, t = i % 4, high = i / 4 % 2,
                         k = step * 16 + high * 8 + t * 2;
                uint32_t pair = 0;

                for (uint32_t e = 0; e < 2; e++)
                        if (k0 + k + e < j.n_cols)
                                pair |= (uint32_t) to_half(float_at(j.type, row, k0 + k + e) *
                                                                   (1 << WARM_CUDA_EXPONENT_FLOAT),
                                                           j.d_overflow)
                                        << e * 16;
                *(uint32_t *) (unit + step * 512 + (g * 4 + t) * 16 + (high * 2 + r8) * 4) = pair;
        }
}

/* Four integers of a step: columns 2t, 2t+1, 2t+8, 2t+9. */
static __device__ void pack_four(enum warm_cuda_format f, uint8_t *unit, uint32_t step,
                                 uint32_t lane, uint32_t r8, const uint32_t *q) {
        uint8_t *at = unit + lane * 16 + step * 4;

        if (f == WARM_CUDA_Q8) {
                at = unit + step / 2 * 512 + lane * 16 + step % 2 * 8 + r8 * 2;
                at[0] = (uint8_t) q[0];
                at[1] = (uint8_t) q[1];
                at[4] = (uint8_t) q[2];
                at[5] = (uint8_t) q[3];
                return;
        }
        at[r8] = (uint8_t) ((q[0] & 15) | (q[2] & 15) << 4);
        at[r8 + 2] = (uint8_t) ((q[1] & 15) | (q[3] & 15) << 4);
}

/* The bits beyond a nibble of a row's four steps, gathered in pack(). */
static __device__ void pack_high(enum warm_cuda_format f, uint8_t *unit, uint32_t lane, uint32_t r8,
                                 uint32_t high) {
        uint8_t *at = unit + 512;

        if (f == WARM_CUDA_Q6) {
                *(uint32_t *) (at + lane * 8 + r8 * 4) = high;
        } else if (f == WARM_CUDA_Q5 || f == WARM_CUDA_Q5M) {
                at[lane * 4 + r8] = (uint8_t) high;
                at[lane * 4 + 2 + r8] = (uint8_t) (high >> 16);
        }
}

static __device__ void pack_scales(const struct pack_job &j, const uint8_t *block,
                                   uint32_t in_block, uint8_t *unit, uint32_t g, uint32_t r8,
                                   uint32_t group, bool there) {
        uint32_t f = j.format;
        uint8_t *at = unit + warm_unit_plane_bytes((int) f);
        float s = 0, m = 0;

        if (there)
                scales_of(j.type, block, in_block, &s, &m);
        s *= 1 << WARM_CUDA_EXPONENT_QUANT;
        m *= 1 << WARM_CUDA_EXPONENT_QUANT;
        if (f == WARM_CUDA_Q6) {
                at += g * 16 + group * 4 + r8 * 2;
        } else if (f == WARM_CUDA_Q4M || f == WARM_CUDA_Q5M) {
                at += g * 16 + group * 8 + r8 * 2;
                *(uint16_t *) (at + 4) = to_half(m, j.d_overflow);
        } else {
                at += g * 8 + group * 4 + r8 * 2;
        }
        *(uint16_t *) at = to_half(s, j.d_overflow);
}

static __global__ void pack(struct pack_job j) {
        uint64_t id = (uint64_t) blockIdx.x * blockDim.x + threadIdx.x;
        uint32_t row = (uint32_t) (id % j.n_rows), ku = (uint32_t) (id / j.n_rows),
                 r = j.first_row + row;
        uint32_t packed = j.place == WARM_CUDA_PLACE_ROWS   ? j.offset + r
                          : j.place == WARM_CUDA_PLACE_GATE ? r / 8 * 16 + r % 8
                                                            : r / 8 * 16 + 8 + r % 8;
        uint32_t tile = packed / 16, g = packed % 8, r8 = packed % 16 / 8, per_group;
        const uint8_t *raw = j.d_raw + row * j.row_bytes;
        uint8_t *unit = j.d_data + (((uint64_t) (tile / 8) * j.k_units + ku) * 8 + tile % 8) *
                                           warm_unit_bytes((int) j.format);

        if (ku >= j.k_units)
                return;
        if (j.format == WARM_CUDA_F16) {
                pack_floats(j, raw, ku * 64, unit, g, r8);
                return;
        }
        for (uint32_t t = 0; t < 4; t++) {
                uint32_t high = 0;

                for (uint32_t step = 0; step < 4; step++) {
                        uint32_t k = ku * 64 + step * 16 + t * 2, q[4] = { 0, 0, 0, 0 };

                        for (uint32_t e = 0; e < 4; e++) {
                                uint32_t at = k + e / 2 * 8 + e % 2;

                                if (at < j.n_cols)
                                        q[e] = integer_of(j.type,
                                                          raw + at / j.block_values * j.block_bytes,
                                                          at % j.block_values);
                                high |= (q[e] >> 4)
                                        << (warm_unit_high_at((int) j.format, step, e / 2) +
                                            e % 2 * 16);
                        }
                        pack_four(j.format, unit, step, g * 4 + t, r8, q);
                }
                pack_high(j.format, unit, g * 4 + t, r8, high);
        }
        per_group = j.format == WARM_CUDA_Q6 ? 16 : 32;
        for (uint32_t i = 0; i < 64 / per_group; i++) {
                uint32_t at = ku * 64 + i * per_group;

                pack_scales(j, raw + at / j.block_values * j.block_bytes, at % j.block_values, unit,
                            g, r8, i, at < j.n_cols);
        }
}

uint32_t warm_cuda_unit_bytes(enum warm_cuda_format format) {
        return warm_unit_bytes((int) format);
}

enum warm_cuda_format warm_cuda_format_of(enum warm_type type) {
        switch (type) {
        case WARM_TYPE_Q8_0:
                return WARM_CUDA_Q8;
        case WARM_TYPE_Q4_0:
                return WARM_CUDA_Q4;
        case WARM_TYPE_Q4_1:
        case WARM_TYPE_Q4_K:
                return WARM_CUDA_Q4M;
        case WARM_TYPE_Q5_0:
                return WARM_CUDA_Q5;
        case WARM_TYPE_Q5_1:
        case WARM_TYPE_Q5_K:
                return WARM_CUDA_Q5M;
        case WARM_TYPE_Q6_K:
                return WARM_CUDA_Q6;
        default:
                return WARM_CUDA_F16;
        }
}

int warm_cuda_pack(const struct warm_cuda_matrix *m, enum warm_type type,
                   enum warm_cuda_place place, uint32_t offset, const void *d_raw,
                   uint64_t row_bytes, uint32_t first_row, uint32_t n_rows, uint32_t n_cols,
                   uint32_t *d_overflow, cudaStream_t stream) {
        const struct warm_type_info *info = warm_type_info(type);
        struct pack_job j = { (uint8_t *) m->d_data,
                              m->k_units,
                              m->format,
                              type,
                              place,
                              offset,
                              first_row,
                              n_rows,
                              n_cols,
                              (const uint8_t *) d_raw,
                              row_bytes,
                              info->elements,
                              info->bytes,
                              d_overflow };
        uint64_t n = (uint64_t) n_rows * m->k_units;

        pack<<<(unsigned) ((n + 127) / 128), 128, 0, stream>>>(j);
        return (int) cudaGetLastError();
}
