/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products without segments whose warps share activations (sm_90 and later): the same sums as matrix-narrow.cuh's.
 *
 * A matrix of many rows gives a block many tiles, and all of them meet the same activations. In matrix-narrow.cuh each
 * warp has a ring of its own, activations and all: of 64 rows 8 KiB with each unit of half a KiB to 2 KiB of weights.
 * Here a block has one ring for all its warps, and a warp beside them that fills it.
 *
 * That is faster where a multiprocessor has several blocks (H200, 7B, gate and up, us: Q4_K 16 rows 40.8 -> 28.8, 64
 * rows 99 -> 62, F16 116 -> 72). A block alone waits for its first activations, which come later this way than by
 * copies of its own (1.5B, 16 rows: Q4_K 11.6 -> 13.0, F16 17.0 -> 18.2).
 */
#pragma once

#include "barrier.cuh"
#include "matrix-narrow.cuh"

#define TOGETHER_STAGES_MAX 16U

/* Units of a stage: as many as a warp multiplies at once. */
template <int N8> static constexpr __host__ __device__ uint32_t together_units() {
        return N8 <= 2 ? 2 : 1;
}

/* Bytes of a stage with so many tiles. */
template <int F, int N8>
static constexpr __host__ __device__ uint32_t together_bytes(uint32_t n_tiles) {
        return together_units<N8>() * (N8 * B_TILE_BYTES + n_tiles * warm_unit_bytes(F));
}

/* A block's ring. */
struct together_ring {
        uint8_t *stages;        /* [n_stages]: activations [units], then weights [units][n_tiles] */
        uint64_t *full, *empty; /* [n_stages] */
        uint32_t bytes, n_stages;
        uint32_t first, end, n_tiles; /* the block's; the last block's end before first + n_tiles */
};

/* Start copying a stage's weights, a lane for each run of units that lie side by side. The warp calls it. */
template <int F, int N8>
static __device__ __forceinline__ void bring_weights(const struct warm_cuda_product &p,
                                                     const struct together_ring &r, uint32_t i,
                                                     uint64_t policy) {
        constexpr uint32_t unit_bytes = warm_unit_bytes(F), units = together_units<N8>();
        uint32_t lane = threadIdx.x % 32, stage = i % r.n_stages, unit = lane / 4,
                 n = smaller(units, p.matrix.k_units - i * units), block = r.first / 8 + lane % 4,
                 from = lane % 4 ? block * 8 : r.first, to = smaller((block + 1) * 8, r.end);

        if (lane == 0) {
                if (i >= r.n_stages)
                        warm_barrier_wait(&r.empty[stage], (i / r.n_stages + 1) % 2);
                warm_barrier_expect(&r.full[stage],
                                    n * (N8 * B_TILE_BYTES + (r.end - r.first) * unit_bytes));
        }
        __syncwarp();
        if (unit < n && from < to)
                warm_copy_bulk_by(
                        r.stages + stage * r.bytes + units * N8 * B_TILE_BYTES +
                                (unit * r.n_tiles + from - r.first) * unit_bytes,
                        p.matrix.d_data +
                                (((uint64_t) block * p.matrix.k_units + i * units + unit) * 8 +
                                 from % 8) *
                                        unit_bytes,
                        (to - from) * unit_bytes, &r.full[stage], policy);
}

/* The same for its activations. */
template <int N8>
static __device__ __forceinline__ void
bring_activations(const struct warm_cuda_product &p, const struct together_ring &r, uint32_t i) {
        constexpr uint32_t units = together_units<N8>();
        uint32_t stage = i % r.n_stages, n = smaller(units, p.matrix.k_units - i * units);

        if (threadIdx.x % 32 == 31)
                warm_copy_bulk(r.stages + stage * r.bytes,
                               (const uint8_t *) p.in.d_values +
                                       (uint64_t) i * units * N8 * B_TILE_BYTES,
                               n * N8 * B_TILE_BYTES, &r.full[stage]);
}

/* The warp that fills the ring: weights before the kernel before has ended. */
template <int F, int N8>
static __device__ __forceinline__ void bring_all(const struct warm_cuda_product &p,
                                                 const struct together_ring &r) {
        constexpr uint32_t units = together_units<N8>();
        const uint64_t policy = weights_policy<false>();
        uint32_t n = (p.matrix.k_units + units - 1) / units, early = smaller(n, r.n_stages);

        for (uint32_t i = 0; i < early; i++)
                bring_weights<F, N8>(p, r, i, policy);
        warm_wait_for_before();
        for (uint32_t i = 0; i < early; i++)
                bring_activations<N8>(p, r, i);
        for (uint32_t i = early; i < n; i++) {
                bring_weights<F, N8>(p, r, i, policy);
                bring_activations<N8>(p, r, i);
        }
}

/* A warp multiplies its tile with all of the ring. @param warp its place in the block */
template <int F, int N8>
static __device__ __forceinline__ void multiply_ring(const struct together_ring &r, uint32_t warp,
                                                     uint32_t k_units, uint32_t lane,
                                                     float (*c)[4]) {
        constexpr uint32_t unit_bytes = warm_unit_bytes(F), units = together_units<N8>();
        const uint32_t step = r.n_tiles * unit_bytes,
                       a_at = units * N8 * B_TILE_BYTES + warp * unit_bytes;
        uint32_t k = 0, stage = 0, parity = 0;

        for (; k + units <= k_units; k += units) {
                const uint8_t *b = r.stages + stage * r.bytes;

                warm_barrier_wait(&r.full[stage], parity);
                multiply_units<F, N8, false, units>(b + a_at, step, b, lane, c);
                __syncwarp(); /* everybody has read */
                if (lane < WARM_WARP_ARRIVALS)
                        warm_barrier_arrive(&r.empty[stage]);
                if (++stage == r.n_stages) {
                        stage = 0;
                        parity ^= 1;
                }
        }
        if (k < k_units) { /* half a stage */
                const uint8_t *b = r.stages + stage * r.bytes;

                warm_barrier_wait(&r.full[stage], parity);
                multiply_units<F, N8, false, 1>(b + a_at, step, b, lane, c);
        }
}

/*
 * Block: a warp a tile, and one that fills their ring. All rows of the step are computed, those that there are not from
 * whatever lies in their place: columns of a product do not meet.
 *
 * Shared memory: the ring; its barriers; row scales and what they are made of, as in multiply_tiles().
 */
template <int F, int N8>
static __global__ void __launch_bounds__((WARPS_MAX + 1) * 32, 2)
        multiply_together(const __grid_constant__ struct warm_cuda_product p, uint32_t n_tiles,
                          uint32_t n_stages) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900 /* elsewhere nobody launches it */
        extern __shared__ __align__(128) uint8_t shared[];
        uint32_t warp = threadIdx.x / 32, first = blockIdx.x * n_tiles, tile = first + warp;
        bool working = warp < n_tiles && tile * 16 < p.matrix.n_rows;
        float c[N8][4] = {}, *scales, *squares;
        struct together_ring r;
        struct stream s = {};
        struct held h;

        warm_let_next_start();
        r.first = first;
        r.n_tiles = n_tiles;
        r.end = smaller(first + n_tiles, p.matrix.row_blocks * 8);
        r.n_stages = n_stages;
        r.bytes = together_bytes<F, N8>(n_tiles);
        r.stages = shared;
        r.full = (uint64_t *) (shared + r.bytes * n_stages);
        r.empty = r.full + n_stages;
        scales = (float *) (r.empty + n_stages);
        squares = scales + N8 * 8;
        if (threadIdx.x < n_stages) {
                warm_barrier_init(&r.full[threadIdx.x], 1);
                warm_barrier_init(&r.empty[threadIdx.x], n_tiles * WARM_WARP_ARRIVALS);
                warm_barriers_made();
        }
        __syncthreads();
        if (warp == n_tiles)
                bring_all<F, N8>(p, r);
        else {
                s.lane = threadIdx.x % 32;
                hold_constants(p, tile, working, s.lane / 4, h);
                s.n = *(volatile const uint32_t *) p.d_n_rows; /* of the step's description */
                warm_wait_for_before();
                if (p.d_squares)
                        read_squares<N8>(p, n_tiles, s.n, squares, h);
                multiply_ring<F, N8>(r, warp, p.matrix.k_units, s.lane, c);
        }
        if (N8 > 1 && p.d_squares)
                __syncthreads(); /* parts of squares are there */
        if (p.d_squares && warp < n_tiles)
                row_scales<N8>(p, n_tiles, s.n, squares, h, scales);
        __syncthreads();
        if (working)
                finish<N8, false>(p, s, tile, 0, 1, NULL, scales, c, h);
#endif
}

/*
 * Whether a product is for this: a multiprocessor has several blocks, and they find room side by side. Of up to 8 rows
 * it is the copies of 3 and more that are worth it; Q6_K, whose units take the most instructions, then gains nothing.
 */
template <int F, int N8>
static bool is_together(const struct warm_cuda_product *p, uint32_t n_sms) {
        return p->overlap && p->matrix.n_segments == 1 && p->epilogue != WARM_CUDA_RESIDUAL &&
               tiles_of(p) > WARPS_MAX * n_sms &&
               (N8 > 1 || (p->n_rows_max >= 3 && F != WARM_CUDA_Q6)) &&
               warm_cuda_narrow_limit_get() >= 2 * HALF_SHARED;
}

template <int F, int N8>
static int launch_together(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        constexpr uint32_t room = HALF_SHARED - scales_bytes<N8>(), barriers = 2 * sizeof(uint64_t);
        uint32_t rounds = (tiles_of(p) + WARPS_MAX * n_sms - 1) / (WARPS_MAX * n_sms),
                 tiles = (tiles_of(p) + n_sms * rounds - 1) / (n_sms * rounds),
                 stage = together_bytes<F, N8>(tiles) + barriers,
                 n_stages = smaller(room / stage, TOGETHER_STAGES_MAX);
        int r = allow(multiply_together<F, N8>, HALF_SHARED);

        static_assert(room / (together_bytes<F, N8>(WARPS_MAX) + barriers) >= 2,
                      "a ring is too small");
        if (r)
                return r;
        return warm_launch(multiply_together<F, N8>, dim3((tiles_of(p) + tiles - 1) / tiles),
                           dim3((tiles + 1) * 32), n_stages * stage + scales_bytes<N8>(), stream,
                           true, *p, tiles, n_stages);
}

template <int F, int N8>
static int launch_either(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        return is_together<F, N8>(p, n_sms) ? launch_together<F, N8>(p, n_sms, stream)
                                            : launch<F, N8, false>(p, n_sms, stream);
}

template <int F>
static int by_rows(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        switch (p->in.n8) {
        case 1:
                return launch_either<F, 1>(p, n_sms, stream);
        case 2:
                return launch_either<F, 2>(p, n_sms, stream);
        case 4:
                return launch_either<F, 4>(p, n_sms, stream);
        case 8:
                return launch_either<F, 8>(p, n_sms, stream);
        }
        return launch<F, 8, true>(p, smaller(n_sms, 64), stream);
}
