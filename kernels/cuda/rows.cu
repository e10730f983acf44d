/* SPDX-License-Identifier: Apache-2.0 */
#include "epilogue.cuh"
#include "format.cuh"
#include "launch.cuh"
#include "rows.h"

#define THREADS       256U
#define STAGE_THREADS 512U

/* A word of the host's memory; never from a cache. */
static __device__ __forceinline__ uint4 host_word(const uint4 *from) {
        uint4 v;

        asm volatile("ld.volatile.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                     : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                     : "l"(from));
        return v;
}

/*
 * A read over the bus takes about a microsecond, and reads of one address queue up: so all ask for words before anybody
 * knows how many there are, and nobody asks for that by itself.
 */
static __global__ void stage(uint4 *to, const uint4 *from, uint32_t sure) {
        uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
        __shared__ uint32_t n;
        uint4 v = {};

        warm_let_next_start();
        warm_wait_for_before(); /* the step before still reads what is written here */
        if (i < sure) {
                v = host_word(from + i);
                __stcg(to + i, v);
        }
        if (blockIdx.x)
                return;
        if (threadIdx.x == 0)
                n = v.x;
        __syncthreads();
        for (i += sure; i < n; i += blockDim.x)
                __stcg(to + i, host_word(from + i));
}

int warm_cuda_stage(void *d_to, const void *mapped_from, uint32_t words_sure, bool overlap,
                    cudaStream_t stream) {
        return warm_launch(stage, dim3((words_sure + STAGE_THREADS - 1) / STAGE_THREADS),
                           dim3(STAGE_THREADS), 0, stream, overlap, (uint4 *) d_to,
                           (const uint4 *) mapped_from, words_sure);
}

/* One value of a matrix, not rounded to binary16 after its scale. */
static __device__ float element(const struct warm_cuda_matrix &m, uint32_t row, uint32_t k) {
        uint32_t tile = row / 16, g = row % 8, r8 = row % 16 / 8, step = k % 64 / 16, t = k % 8 / 2,
                 high = k % 16 / 8, e = k % 2, lane = g * 4 + t, f = m.format;
        const uint8_t *unit =
                m.d_data + (((uint64_t) (tile / 8) * m.k_units + k / 64) * 8 + tile % 8) *
                                   warm_unit_bytes((int) f);
        const uint8_t *scales = unit + warm_unit_plane_bytes((int) f);
        const __half *s;
        uint32_t q;

        if (f == WARM_CUDA_F16)
                return __half2float(*(const __half *) (unit + step * 512 + lane * 16 +
                                                       (high * 2 + r8) * 4 + e * 2)) /
                       (1 << WARM_CUDA_EXPONENT_FLOAT);
        if (f == WARM_CUDA_Q8) {
                q = unit[step / 2 * 512 + lane * 16 + step % 2 * 8 + high * 4 + r8 * 2 + e];
                s = (const __half *) (scales + g * 8 + step / 2 * 4 + r8 * 2);
                return __half2float(*s) * ((float) q - 128) / (1 << WARM_CUDA_EXPONENT_QUANT);
        }
        q = unit[lane * 16 + step * 4 + e * 2 + r8] >> high * 4 & 15;
        if (f == WARM_CUDA_Q5 || f == WARM_CUDA_Q5M)
                q |= (unit[512 + lane * 4 + e * 2 + r8] >> warm_unit_high_at((int) f, step, high) &
                      1U)
                     << 4;
        if (f == WARM_CUDA_Q6)
                q |= (*(const uint16_t *) (unit + 512 + lane * 8 + r8 * 4 + e * 2) >>
                              warm_unit_high_at((int) f, step, high) &
                      3)
                     << 4;
        if (f == WARM_CUDA_Q4M || f == WARM_CUDA_Q5M) {
                s = (const __half *) (scales + g * 16 + step / 2 * 8 + r8 * 2);
                return (__half2float(s[0]) * (float) q - __half2float(s[2])) /
                       (1 << WARM_CUDA_EXPONENT_QUANT);
        }
        s = (const __half *) (scales +
                              (f == WARM_CUDA_Q6 ? g * 16 + step * 4 : g * 8 + step / 2 * 4) +
                              r8 * 2);
        return __half2float(*s) *
               ((float) q - (f == WARM_CUDA_Q4   ? 8
                             : f == WARM_CUDA_Q5 ? 16
                                                 : 32)) /
               (1 << WARM_CUDA_EXPONENT_QUANT);
}

/* A block's share of a rope's pairs, for one row. */
static __device__ void turn(const struct warm_cuda_embed &e, uint32_t block, uint32_t row) {
        uint32_t blocks = (e.n_pairs_max + THREADS - 1) / THREADS;
        struct warm_cuda_turns t = e.d_turns[block / blocks];
        uint32_t i = block % blocks * THREADS + threadIdx.x;
        float *to = t.d_turns + ((uint64_t) row * t.n_pairs + i) * 2;
        double frequency = i < t.n_pairs ? t.d_frequencies[i] : 0, sine, cosine;

        warm_wait_for_before();
        if (i >= t.n_pairs || row >= *(const volatile uint32_t *) e.d_n_rows)
                return;
        sincos(e.d_rows[row].position * frequency, &sine, &cosine);
        to[0] = __fmul_rn((float) cosine, t.factor);
        to[1] = __fmul_rn((float) sine, t.factor);
}

/* Block: 16 tiles of 16 columns of one row; behind those a row has, its turns. */
static __global__ void embed(const __grid_constant__ struct warm_cuda_embed e) {
        uint32_t row = blockIdx.y, k = blockIdx.x * THREADS + threadIdx.x;
        float v = 0, square;

        warm_let_next_start();
        if (blockIdx.x * THREADS >= e.dim) {
                turn(e, blockIdx.x - (e.dim + THREADS - 1) / THREADS, row);
                return;
        }
        warm_wait_for_before();
        if (row >= *(const volatile uint32_t *) e.d_n_rows)
                return;
        if (k < e.dim) {
                v = __fmul_rn(element(e.embedding, (uint32_t) e.d_rows[row].token, k),
                              e.embedding_scale);
                __stcg(&e.d_x[(uint64_t) row * e.dim + k], v);
                warm_cuda_act_set(e.out, row, k, __fmul_rn(v, e.d_norm[k]));
        }
        square = __fmul_rn(v, v);
        for (int o = 1; o < 16; o <<= 1)
                square = __fadd_rn(square, __shfl_xor_sync(~0U, square, o));
        if (k % 16 == 0 && k < e.dim)
                __stcg(&e.d_squares[(uint64_t) (k / 16) * e.squares_ld + row], square);
}

int warm_cuda_embed_rows(const struct warm_cuda_embed *e, cudaStream_t stream) {
        uint32_t blocks = (e->dim + THREADS - 1) / THREADS +
                          e->n_turns * ((e->n_pairs_max + THREADS - 1) / THREADS);

        return warm_launch(embed, dim3(blocks, e->n_rows_max), dim3(THREADS), 0, stream, e->overlap,
                           *e);
}

/* Of 32 rows: a warp has a part of all of them, and reads neighbours. */
static __global__ void row_scales(const float *squares, uint32_t ld, uint32_t dim, float epsilon,
                                  const uint32_t *n_rows, float *to) {
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.x * 32 + lane;
        __shared__ float parts[WARM_SQUARES_PARTS][32];

        warm_let_next_start();
        warm_wait_for_before();
        if (row < *(const volatile uint32_t *) n_rows)
                warm_squares_part<1>(squares + row, (dim + 15) / 16, ld, warp, &parts[warp][lane]);
        __syncthreads();
        if (warp == 0 && row < *(const volatile uint32_t *) n_rows)
                __stcg(&to[row], warm_scale_of_parts(&parts[0][lane], 32, dim, epsilon));
}

int warm_cuda_row_scales(const float *d_squares, uint32_t squares_ld, uint32_t dim, float epsilon,
                         const uint32_t *d_n_rows, uint32_t n_rows_max, float *d_scales,
                         bool overlap, cudaStream_t stream) {
        return warm_launch(row_scales, dim3((n_rows_max + 31) / 32), dim3(WARM_SQUARES_PARTS * 32),
                           0, stream, overlap, d_squares, squares_ld, dim, epsilon, d_n_rows,
                           d_scales);
}

static __global__ void gather(struct warm_cuda_acts in, const float *squares, uint32_t ld,
                              uint32_t dim, const uint32_t *wanted, const uint32_t *n,
                              struct warm_cuda_acts out, float *squares_out, uint32_t ld_out) {
        uint32_t i = blockIdx.y, row, k = blockIdx.x * THREADS + threadIdx.x;

        warm_let_next_start();
        warm_wait_for_before();
        if (i >= *(const volatile uint32_t *) n)
                return;
        row = wanted[i];
        if (k < dim)
                out.d_values[warm_cuda_act_index(out, i, k)] =
                        __ldcg(&in.d_values[warm_cuda_act_index(in, row, k)]);
        if (k < (dim + 15) / 16)
                squares_out[(uint64_t) k * ld_out + i] = __ldcg(&squares[(uint64_t) k * ld + row]);
}

int warm_cuda_gather(const struct warm_cuda_acts *in, const float *d_squares, uint32_t squares_ld,
                     uint32_t dim, const uint32_t *d_wanted, const uint32_t *d_n, uint32_t n_max,
                     struct warm_cuda_acts *out, float *d_squares_out, uint32_t squares_out_ld,
                     bool overlap, cudaStream_t stream) {
        return warm_launch(gather, dim3((dim + THREADS - 1) / THREADS, n_max), dim3(THREADS), 0,
                           stream, overlap, *in, d_squares, squares_ld, dim, d_wanted, d_n, *out,
                           d_squares_out, squares_out_ld);
}

static __global__ void done(const uint64_t *ticket, uint64_t *to) {
        warm_wait_for_before();
        __threadfence_system();
        *(volatile uint64_t *) to = *(const volatile uint64_t *) ticket;
}

int warm_cuda_done(const uint64_t *d_ticket, uint64_t *mapped_done, bool overlap,
                   cudaStream_t stream) {
        return warm_launch(done, dim3(1), dim3(1), 0, stream, overlap, d_ticket, mapped_done);
}
