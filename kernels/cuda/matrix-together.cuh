/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products whose warps share activations (sm_90 and later): the same sums as matrix-narrow.cuh's.
 *
 * Tiles of a block meet the same activations, segment by segment. In matrix-narrow.cuh each warp has a ring of its own,
 * activations and all: of 64 rows 8 KiB with each unit of half a KiB to 2 KiB of weights. Here a block has one ring for
 * all its warps, and a warp beside them that fills it.
 *
 * That is faster where a matrix gives a multiprocessor several blocks (H200, 7B, us: gate and up in Q4_K, 16 rows 40.8
 * -> 28.8, 64 rows 99 -> 62, in F16 116 -> 72; q, k and v, in four segments, in F16 16 rows 15.9 -> 12.2, 64 rows 25.2
 * -> 20.8). A block alone waits for its first activations, which come later this way than by copies of its own (gate and
 * up of 1.5B, 16 rows, Q4_K 11.6 -> 13.0, F16 17.0 -> 18.2; down of 7B, 16 rows, Q4_K 20 -> 34, but 64 rows 50 -> 43).
 */
#pragma once

#include "barrier.cuh"
#include "matrix-narrow.cuh"

#define TOGETHER_STAGES_MAX    16U
#define SEGMENTS_MAX           8U
#define TOGETHER_SEGMENTS_FROM 2  /* groups of 8 rows, for matrices with segments */
#define SEGMENT_TILES          2U /* of a block, of a matrix with segments: neighbours in memory */

/* Units of a segment in a stage: as many as a warp multiplies at once. */
template <int N8> static constexpr __host__ __device__ uint32_t together_units() {
        return N8 <= 2 ? 2 : 1;
}

/* Bytes of a stage. */
template <int F, int N8>
static constexpr __host__ __device__ uint32_t together_bytes(uint32_t n_tiles,
                                                             uint32_t n_segments) {
        return n_segments * together_units<N8>() *
               (N8 * B_TILE_BYTES + n_tiles * warm_unit_bytes(F));
}

/* A block's ring. A stage: activations [n_segments][units], then weights [n_segments][units][n_tiles]. */
struct together_ring {
        uint8_t *stages;        /* [n_stages][bytes] */
        uint64_t *full, *empty; /* [n_stages] */
        uint32_t bytes, n_stages, n_segments;
        uint32_t first, end, n_tiles; /* the block's; the last block's end before first + n_tiles */
};

/* What a lane of the filling warp brings of each stage. */
struct together_part {
        const uint8_t *a, *b; /* of the first stage, in global memory */
        uint32_t a_to, b_to;  /* in a stage */
        uint32_t a_bytes, b_bytes;
        uint32_t n; /* stages that have it */
};

/*
 * A lane a unit of a segment: its activations, and the weights of the tiles, which lie side by side up to the end of a
 * block of 128 rows. Without segments a block's tiles may be in three of those: four lanes a unit, the first of which has
 * the activations.
 */
template <int F, int N8, bool segments>
static __device__ __forceinline__ struct together_part part_of(const struct warm_cuda_product &p,
                                                               const struct together_ring &r) {
        constexpr uint32_t unit_bytes = warm_unit_bytes(F), units = together_units<N8>(),
                           runs = segments ? 1 : 4;
        uint32_t lane = threadIdx.x % 32, run = lane % runs, unit = lane / runs % units,
                 segment = lane / runs / units, begin, end, k;
        uint32_t block = r.first / 8 + run, from = run ? block * 8 : r.first,
                 to = smaller((block + 1) * 8, r.end);
        struct together_part part = {};

        if (segment >= r.n_segments)
                return part;
        begin = segment * p.matrix.k_units / r.n_segments;
        end = (segment + 1) * p.matrix.k_units / r.n_segments;
        k = begin + unit;
        part.n = k < end ? (end - k + units - 1) / units : 0;
        if (from < to) {
                part.a = p.matrix.d_data +
                         (((uint64_t) block * p.matrix.k_units + k) * 8 + from % 8) * unit_bytes;
                part.a_bytes = (to - from) * unit_bytes;
                part.a_to = r.n_segments * units * N8 * B_TILE_BYTES +
                            ((segment * units + unit) * r.n_tiles + from - r.first) * unit_bytes;
        }
        if (run == 0) {
                part.b = (const uint8_t *) p.in.d_values + (uint64_t) k * N8 * B_TILE_BYTES;
                part.b_bytes = N8 * B_TILE_BYTES;
                part.b_to = (segment * units + unit) * N8 * B_TILE_BYTES;
        }
        return part;
}

/* Start copying a stage's weights when it is free. The warp calls it. */
template <int F, int N8>
static __device__ __forceinline__ void bring_weights(const struct together_ring &r,
                                                     const struct together_part &part, uint32_t i,
                                                     uint64_t policy) {
        uint32_t stage = i % r.n_stages,
                 bytes = __reduce_add_sync(~0U, i < part.n ? part.a_bytes + part.b_bytes : 0);

        if (threadIdx.x % 32 == 0) {
                if (i >= r.n_stages)
                        warm_barrier_wait(&r.empty[stage], (i / r.n_stages + 1) % 2);
                warm_barrier_expect(&r.full[stage], bytes);
        }
        __syncwarp();
        if (i < part.n && part.a_bytes)
                warm_copy_bulk_by(r.stages + stage * r.bytes + part.a_to,
                                  part.a + (uint64_t) i * together_units<N8>() * 8 *
                                                   warm_unit_bytes(F),
                                  part.a_bytes, &r.full[stage], policy);
}

/* The same for its activations. */
template <int N8>
static __device__ __forceinline__ void
bring_activations(const struct together_ring &r, const struct together_part &part, uint32_t i) {
        uint32_t stage = i % r.n_stages;

        if (i < part.n && part.b_bytes)
                warm_copy_bulk(r.stages + stage * r.bytes + part.b_to,
                               part.b + (uint64_t) i * together_units<N8>() * N8 * B_TILE_BYTES,
                               part.b_bytes, &r.full[stage]);
}

/* The warp that fills the ring: weights before the kernel before has ended. */
template <int F, int N8, bool segments>
static __device__ __forceinline__ void bring_all(const struct warm_cuda_product &p,
                                                 const struct together_ring &r) {
        const struct together_part part = part_of<F, N8, segments>(p, r);
        const uint64_t policy = weights_policy<false>();
        uint32_t n = __reduce_max_sync(~0U, part.n), early = smaller(n, r.n_stages);

        for (uint32_t i = 0; i < early; i++)
                bring_weights<F, N8>(r, part, i, policy);
        warm_wait_for_before();
        for (uint32_t i = 0; i < early; i++)
                bring_activations<N8>(r, part, i);
        for (uint32_t i = early; i < n; i++) {
                bring_weights<F, N8>(r, part, i, policy);
                bring_activations<N8>(r, part, i);
        }
}

/*
 * A warp multiplies its tile's segment with what is in the ring. Segments differ by one unit at most: who has no unit in
 * the last stage need not give it back, as nobody fills it again.
 *
 * @param tile of the block's @param n units
 */
template <int F, int N8>
static __device__ __forceinline__ void multiply_ring(const struct together_ring &r, uint32_t tile,
                                                     uint32_t segment, uint32_t n, uint32_t lane,
                                                     float (*c)[4]) {
        constexpr uint32_t unit_bytes = warm_unit_bytes(F), units = together_units<N8>();
        const uint32_t step = r.n_tiles * unit_bytes, b_at = segment * units * N8 * B_TILE_BYTES,
                       a_at = r.n_segments * units * N8 * B_TILE_BYTES + segment * units * step +
                              tile * unit_bytes;
        uint32_t k = 0, stage = 0, parity = 0;

        for (; k + units <= n; k += units) {
                const uint8_t *at = r.stages + stage * r.bytes;

                warm_barrier_wait(&r.full[stage], parity);
                multiply_units<F, N8, false, units>(at + a_at, step, at + b_at, lane, c);
                __syncwarp(); /* everybody has read */
                if (lane < WARM_WARP_ARRIVALS)
                        warm_barrier_arrive(&r.empty[stage]);
                if (++stage == r.n_stages) {
                        stage = 0;
                        parity ^= 1;
                }
        }
        if (k < n) { /* half a stage */
                const uint8_t *at = r.stages + stage * r.bytes;

                warm_barrier_wait(&r.full[stage], parity);
                multiply_units<F, N8, false, 1>(at + a_at, step, at + b_at, lane, c);
        }
}

/*
 * Block: a warp a tile and segment, and one that fills their ring. All rows of the step are computed, those that there
 * are not from whatever lies in their place: columns of a product do not meet.
 *
 * Shared memory: the ring, later the segments' sums in its place; its barriers; row scales and what they are made of,
 * as in multiply_tiles(). Threads: without segments two blocks share a multiprocessor; with them 17 warps have one.
 */
template <int F, int N8, bool segments>
static __global__ void
__launch_bounds__((segments ? 1 + SEGMENT_TILES * SEGMENTS_MAX : 1 + WARPS_MAX) * 32,
                  segments ? 1 : 2)
        multiply_together(const __grid_constant__ struct warm_cuda_product p, uint32_t n_tiles,
                          uint32_t n_stages) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900 /* elsewhere nobody launches it */
        extern __shared__ __align__(128) uint8_t shared[];
        const uint32_t n_segments = segments ? p.matrix.n_segments : 1;
        uint32_t warp = threadIdx.x / 32, n_warps = n_tiles * n_segments,
                 first = blockIdx.x * n_tiles, segment = warp % n_segments,
                 tile = first + warp / n_segments;
        bool working = warp < n_warps && tile * 16 < p.matrix.n_rows;
        float c[N8][4] = {}, *scales, *squares;
        float4 *parts = (float4 *) shared + warp / n_segments * n_segments * N8 * 32;
        struct together_ring r;
        struct stream s = {};
        struct held h;

        warm_let_next_start();
        r.first = first;
        r.n_tiles = n_tiles;
        r.n_segments = n_segments;
        r.end = smaller(first + n_tiles, p.matrix.row_blocks * 8);
        r.n_stages = n_stages;
        r.bytes = together_bytes<F, N8>(n_tiles, n_segments);
        r.stages = shared;
        r.full = (uint64_t *) (shared + r.bytes * n_stages);
        r.empty = r.full + n_stages;
        scales = (float *) (r.empty + n_stages);
        squares = scales + N8 * 8;
        if (threadIdx.x < n_stages) {
                warm_barrier_init(&r.full[threadIdx.x], 1);
                warm_barrier_init(&r.empty[threadIdx.x], n_warps * WARM_WARP_ARRIVALS);
                warm_barriers_made();
        }
        __syncthreads();
        if (warp == n_warps)
                bring_all<F, N8, segments>(p, r);
        else {
                segment_begin(p.matrix, segment, true, s);
                s.lane = threadIdx.x % 32;
                hold_constants(p, tile, working, s.lane / 4, h);
                s.n = *(volatile const uint32_t *) p.d_n_rows; /* of the step's description */
                warm_wait_for_before();
                hold_inputs<N8>(p, s, tile, segment, working, h);
                if (p.d_squares)
                        read_squares<N8>(p, n_warps, s.n, squares, h);
                multiply_ring<F, N8>(r, warp / n_segments, segment, s.end - s.begin, s.lane, c);
        }
        if (segments || (N8 > 1 && p.d_squares))
                __syncthreads(); /* the ring has been read, parts of squares are there */
        if (p.d_squares && warp < n_warps)
                row_scales<N8>(p, n_warps, s.n, squares, h, scales);
        if (segments && warp < n_warps)
                leave<N8>(parts + segment * N8 * 32, s.lane, c);
        __syncthreads();
        if (working)
                finish<N8, false>(p, s, tile, segment, n_segments, parts, scales, c, h);
#endif
}

/* How a launch divides its tiles. */
struct together_cut {
        uint32_t tiles, blocks, n_stages, bytes; /* a block's; bytes of shared memory */
};

/*
 * As many stages as half a multiprocessor holds: two blocks share one, of this product or of the next. A block that has a
 * multiprocessor alone may take all of it for a third. Without room for two there is no cut.
 */
template <int F, int N8>
static bool cut_stages(const struct warm_cuda_product *p, uint32_t n_sms, struct together_cut *c) {
        uint32_t n_segments = p->matrix.n_segments, limit = warm_cuda_narrow_limit_get(),
                 stage = together_bytes<F, N8>(c->tiles, n_segments) +
                         2 * (uint32_t) sizeof(uint64_t);

        c->blocks = (tiles_of(p) + c->tiles - 1) / c->tiles;
        c->n_stages = smaller((HALF_SHARED - scales_bytes<N8>()) / stage, TOGETHER_STAGES_MAX);
        if (c->n_stages < 3 && c->blocks <= n_sms)
                c->n_stages = smaller((limit - scales_bytes<N8>()) / stage, 3);
        c->bytes = c->n_stages * stage + scales_bytes<N8>();
        return c->n_stages >= 2;
}

/*
 * Whether a product is for this: on sm_90, where a multiprocessor has several blocks. Of up to 8 rows it is the copies
 * of 3 and more that are worth it; Q6_K, whose units take the most instructions, then gains nothing. Of more than 32
 * rows a block alone gains too, if three quarters of the multiprocessors have one.
 */
template <int F, int N8>
static bool cut_together(const struct warm_cuda_product *p, uint32_t n_sms,
                         struct together_cut *c) {
        uint32_t n_tiles = tiles_of(p), rounds;

        if (!p->overlap || warm_cuda_narrow_limit_get() < 2 * HALF_SHARED)
                return false;
        if (p->matrix.n_segments > 1) {
                c->tiles = SEGMENT_TILES;
                return N8 > 1 &&
                       (n_tiles > SEGMENT_TILES * n_sms || (N8 == 8 && n_tiles * 2 >= n_sms * 3)) &&
                       cut_stages<F, N8>(p, n_sms, c);
        }
        rounds = (n_tiles + WARPS_MAX * n_sms - 1) / (WARPS_MAX * n_sms);
        c->tiles = (n_tiles + n_sms * rounds - 1) / (n_sms * rounds);
        return rounds > 1 && (N8 > 1 || (p->n_rows_max >= 3 && F != WARM_CUDA_Q6)) &&
               cut_stages<F, N8>(p, n_sms, c);
}

template <int F, int N8, bool segments>
static int launch_together(const struct warm_cuda_product *p, const struct together_cut *c,
                           cudaStream_t stream) {
        int r = allow(multiply_together<F, N8, segments>, c->bytes);

        if (r)
                return r;
        return warm_launch(multiply_together<F, N8, segments>, dim3(c->blocks),
                           dim3((c->tiles * (segments ? p->matrix.n_segments : 1) + 1) * 32),
                           c->bytes, stream, true, *p, c->tiles, c->n_stages);
}

template <int F, int N8>
static int launch_either(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        struct together_cut c;

        if (!cut_together<F, N8>(p, n_sms, &c))
                return launch<F, N8, false>(p, n_sms, stream);
        if constexpr (N8 > 1)
                if (p->matrix.n_segments > 1)
                        return launch_together<F, N8, true>(p, &c, stream);
        return launch_together<F, N8, false>(p, &c, stream);
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
