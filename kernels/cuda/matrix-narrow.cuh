/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products with mma.sync. A warp computes 16 rows of the matrix in one segment of columns, for all rows of the step
 * (narrow) or for 64 of them (wide); the warps of a block that share the 16 rows then add their segments. Where a
 * block's shared memory is small, a warp computes several segments one after the other: the same sums, added the same.
 *
 * narrow is a race to read the weights once. Each warp streams its own units through a ring of its own in shared
 * memory, with asynchronous copies that need no registers and no other warp; the first of them are on their way before
 * the kernel waits for the one before it.
 */
#pragma once

#include "epilogue.cuh"
#include "format.cuh"
#include "launch.cuh"

#define WARPS_MAX                                                                                  \
        9U /* a block without segments: two of them give the 7B models' gate and up one round */
#define B_TILE_BYTES 1024U /* activations of 8 rows, 64 columns */

/*
 * A ring's shape. A stage is some units with their activations: two at a time, where registers allow, are two
 * independent streams of instructions. Stages: what keeps about 64 KiB of weights in flight on a multiprocessor and
 * lets two blocks share one. Where a matrix gives a multiprocessor one block (the smaller models), deep rings have the
 * same in flight; measured with whole steps on an H200, 2026-11: more is slower, as it delays the kernel before.
 */
template <int F, int N8, bool deep> struct ring {
        static constexpr uint32_t unit_bytes = warm_unit_bytes(F);
        static constexpr uint32_t units = N8 <= 2 ? 2 : 1;
        static constexpr uint32_t stage_bytes = units * (unit_bytes + N8 * B_TILE_BYTES);
        static constexpr uint32_t stages = deep                 ? (N8 == 1 ? 4 : 3)
                                           : N8 == 8            ? 2
                                           : F == WARM_CUDA_F16 ? (N8 == 4 ? 3 : 2)
                                                                : 3;
};

static __host__ __device__ __forceinline__ uint32_t smaller(uint32_t a, uint32_t b) {
        return a < b ? a : b;
}

/* Predicates, not branches: a warp's copies follow each other. */
static __device__ __forceinline__ void copy16(uint32_t to, const void *from, bool wanted) {
        asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; "
                     "@p cp.async.cg.shared.global.L2::128B [%0], [%1], 16; }" ::"r"(to),
                     "l"(from), "r"((uint32_t) wanted)
                     : "memory");
}

/*
 * How long weights stay in the L2 cache. A narrow step reads them once: they leave first, so that they do not drive out
 * what is used again, the kernels' own code among it (1.5B in bf16 on an H200: 1.40 -> 1.21 ms a token).
 */
template <bool wide> static __device__ __forceinline__ uint64_t weights_policy() {
        uint64_t policy;

        if (wide)
                asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
        else
                asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
        return policy;
}

static __device__ __forceinline__ void copy16_by(uint32_t to, const void *from, uint64_t policy,
                                                 bool wanted) {
        asm volatile(
                "{ .reg .pred p; setp.ne.u32 p, %3, 0; "
                "@p cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2; }" ::"r"(
                        to),
                "l"(from), "l"(policy), "r"((uint32_t) wanted)
                : "memory");
}

static __device__ __forceinline__ void commit() {
        asm volatile("cp.async.commit_group;" ::: "memory");
}

/* A warp's way along the units of a segment. */
struct stream {
        const uint8_t *a, *b; /* where the next units come from, this lane's part */
        uint32_t to;          /* the warp's ring in shared memory, this lane's part */
        uint32_t begin, end;  /* units */
        uint64_t policy;      /* of weights */
        uint32_t lane;
        uint32_t first, n; /* rows of the step: the first of these, how many there are in all */
};

/*
 * Start copying the activations of a unit. In shared memory: narrow [2 steps][N8][8 rows][64 bytes], as in global memory;
 * wide [step][2][64 rows][16 bytes].
 *
 * @param from this lane's first piece of the unit @param first row of tile 0 @param n rows that there are
 */
template <int N8, bool wide>
static __device__ __forceinline__ void fetch_b(uint32_t to, const uint8_t *from, uint32_t lane,
                                               uint32_t first, uint32_t n, bool wanted) {
#pragma unroll
        for (int i = 0; i < N8 * 2; i++) {
                uint32_t row = wide ? first + i % 2 * 32 + lane : i % N8 * 8 + lane / 4;

                copy16(to + i * 512,
                       from + (wide ? i % 2 * 4096 + ((i / 2 ^ lane % 8) * 16) : i * 512),
                       wanted && row < n);
        }
}

/* Start copying a unit of weights. @param to, @param from of this lane */
template <int F>
static __device__ __forceinline__ void fetch_a(uint32_t to, const uint8_t *from, uint32_t lane,
                                               uint64_t policy, bool wanted) {
        constexpr uint32_t n = warm_unit_bytes(F) / 16;

#pragma unroll
        for (uint32_t i = 0; i < (n + 31) / 32; i++)
                copy16_by(to + i * 512, from + i * 512, policy,
                          wanted && (i * 32 + 32 <= n || i * 32 + lane < n));
}

template <int N> static __device__ __forceinline__ void ring_wait() {
        asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
        __syncwarp();
}

/*
 * B fragments of 8 rows, of two steps: x and y of the first, z and w of the second.
 *
 * @param unit in shared memory @param two steps of it, 0 or 1 @param j which 8 rows
 */
template <int N8, bool wide>
static __device__ __forceinline__ uint4 load_b(const uint8_t *unit, int two, int j, uint32_t lane) {
        const uint8_t *at = unit + two * 4096 + (j * 8 + lane / 4) * 16 + lane % 4 * 4;

        if (!wide)
                return *(const uint4 *) (unit + ((two * N8 + j) * 32 + lane) * 16);
        return make_uint4(*(const uint32_t *) at, *(const uint32_t *) (at + 1024),
                          *(const uint32_t *) (at + 2048), *(const uint32_t *) (at + 3072));
}

/*
 * Multiply units that have arrived; their sums are one chain.
 *
 * @param a units, a_step bytes apart @param b their activations, one after the other
 */
template <int F, int N8, bool wide, int UNITS>
static __device__ __forceinline__ void
multiply_units(const uint8_t *a, uint32_t a_step, const uint8_t *b, uint32_t lane, float (*c)[4]) {
        warm_unit<F> u[UNITS];
        uint32_t fragment[2][4];
        uint4 two[N8];

#pragma unroll
        for (int i = 0; i < UNITS; i++)
                warm_unit_load<F, true>(a + i * a_step, lane, u[i]);
        /* A step's fragment is made while the one before it is multiplied. */
        warm_unit_fragment<F>(u[0], 0, fragment[0]);
#pragma unroll
        for (int step = 0; step < 4 * UNITS; step++) {
                bool second = step % 2;

                if (!second)
#pragma unroll
                        for (int j = 0; j < N8; j++)
                                two[j] = load_b<N8, wide>(b + step / 4 * N8 * B_TILE_BYTES,
                                                          step / 2 % 2, j, lane);
                if (step + 1 < 4 * UNITS)
                        warm_unit_fragment<F>(u[(step + 1) / 4], (step + 1) % 4,
                                              fragment[(step + 1) % 2]);
#pragma unroll
                for (int j = 0; j < N8; j++)
                        warm_mma(c[j], fragment[step % 2], second ? two[j].z : two[j].x,
                                 second ? two[j].w : two[j].y);
        }
}

/* The units of a stage of a warp's ring. */
template <int F, int N8, bool wide, int UNITS>
static __device__ __forceinline__ void multiply_stage(const uint8_t *stage, uint32_t lane,
                                                      float (*c)[4]) {
        constexpr uint32_t unit_bytes = warm_unit_bytes(F);

        multiply_units<F, N8, wide, UNITS>(stage, unit_bytes,
                                           stage + ring<F, N8, false>::units * unit_bytes, lane, c);
}

/* A tile's segment, or no units where the tile is beyond the matrix. */
static __device__ __forceinline__ void
segment_begin(const struct warm_cuda_matrix &m, uint32_t segment, bool working, struct stream &s) {
        s.begin = segment * m.k_units / m.n_segments;
        s.end = working ? (segment + 1) * m.k_units / m.n_segments : s.begin;
}

/* Start copying the weights of the segment's first units; a group a stage. */
template <int F, int N8, bool deep>
static __device__ __forceinline__ void fetch_weights(const struct warm_cuda_matrix &m,
                                                     uint32_t tile, struct stream &s) {
        using R = ring<F, N8, deep>;

        s.a = m.d_data +
              (((uint64_t) (tile / 8) * m.k_units + s.begin) * 8 + tile % 8) * R::unit_bytes +
              s.lane * 16;
#pragma unroll
        for (uint32_t i = 0; i < R::stages; i++) {
#pragma unroll
                for (uint32_t j = 0; j < R::units; j++)
                        fetch_a<F>(s.to + i * R::stage_bytes + j * R::unit_bytes,
                                   s.a + (i * R::units + j) * (8 * R::unit_bytes), s.lane, s.policy,
                                   i * R::units + j < s.end - s.begin);
                commit();
        }
        s.a += R::stages * R::units * (8 * R::unit_bytes);
}

/* A unit on, in global memory. */
template <int N8, bool wide> static constexpr __host__ __device__ uint32_t b_step() {
        return wide ? 128 * 128 : N8 * B_TILE_BYTES;
}

/* The same for its activations. */
template <int F, int N8, bool wide, bool deep>
static __device__ __forceinline__ void fetch_activations(const struct warm_cuda_acts &in,
                                                         struct stream &s) {
        using R = ring<F, N8, deep>;
        constexpr uint32_t step = b_step<N8, wide>();

        s.b = (const uint8_t *) in.d_values;
        if (wide)
                s.b += (((uint64_t) (s.first / 128) * (in.k_padded / 64) + s.begin) * 128 +
                        s.first % 128 + s.lane) *
                       128;
        else
                s.b += (uint64_t) s.begin * step + s.lane * 16;
#pragma unroll
        for (uint32_t i = 0; i < R::stages; i++) {
#pragma unroll
                for (uint32_t j = 0; j < R::units; j++)
                        fetch_b<N8, wide>(s.to + i * R::stage_bytes + R::units * R::unit_bytes +
                                                  j * N8 * B_TILE_BYTES,
                                          s.b + (i * R::units + j) * step, s.lane, s.first, s.n,
                                          i * R::units + j < s.end - s.begin);
                commit();
        }
        s.b += (uint64_t) (R::stages * R::units) * step;
}

/* Multiply a segment's units while the next ones come. @param ring_at the warp's ring */
template <int F, int N8, bool wide, bool deep>
static __device__ __forceinline__ void multiply_segment(const uint8_t *ring_at, struct stream &s,
                                                        float (*c)[4]) {
        using R = ring<F, N8, deep>;
        uint32_t k = s.begin, at = 0;

        for (; k + R::units <= s.end; k += R::units) {
                int left = (int) (s.end - k) - (int) (R::stages * R::units); /* beyond the ring */

                ring_wait<(int) R::stages - 1>();
                multiply_stage<F, N8, wide, R::units>(ring_at + at, s.lane, c);
                __syncwarp(); /* everybody has read */
#pragma unroll
                for (int j = 0; j < (int) R::units; j++) {
                        fetch_a<F>(s.to + at + j * R::unit_bytes, s.a + j * (8 * R::unit_bytes),
                                   s.lane, s.policy, j < left);
                        fetch_b<N8, wide>(
                                s.to + at + R::units * R::unit_bytes + j * N8 * B_TILE_BYTES,
                                s.b + j * b_step<N8, wide>(), s.lane, s.first, s.n, j < left);
                }
                commit();
                s.a += R::units * (8 * R::unit_bytes);
                s.b += R::units * b_step<N8, wide>();
                at = at + R::stage_bytes == R::stages * R::stage_bytes ? 0 : at + R::stage_bytes;
        }
        if (k < s.end) { /* half a stage */
                ring_wait<(int) R::stages - 1>();
                multiply_stage<F, N8, wide, 1>(ring_at + at, s.lane, c);
                __syncwarp(); /* before the next segment's first units come */
        }
}

#define SQUARES_MAX 8 /* of a lane, that are asked for before the product and added after it */

/* What a warp reads before it multiplies, to have it afterwards. */
struct held {
        float bias[2], norms[2]; /* of matrix rows g and g + 8 */
        float x[4];              /* that its first 8 rows meet */
        float squares[SQUARES_MAX];
};

/* What no kernel of the step writes. */
static __device__ __forceinline__ void hold_constants(const struct warm_cuda_product &p,
                                                      uint32_t tile, bool working, uint32_t g,
                                                      struct held &h) {
        h.bias[0] = p.d_bias && working ? __ldg(&p.d_bias[tile * 16 + g]) : 0;
        h.bias[1] = p.d_bias && working ? __ldg(&p.d_bias[tile * 16 + g + 8]) : 0;
        if (p.epilogue == WARM_CUDA_RESIDUAL && working)
                warm_get_norms(p, tile, g, h.norms);
}

/* @param turn of the warp among those of its tile */
template <int N8>
static __device__ __forceinline__ void hold_inputs(const struct warm_cuda_product &p,
                                                   const struct stream &s, uint32_t tile,
                                                   uint32_t turn, bool working, struct held &h) {
        if (p.epilogue == WARM_CUDA_RESIDUAL && working && turn < N8)
                warm_get_x(p, tile, s.lane / 4, s.first + turn * 8 + s.lane % 4 * 2, s.n, h.x);
}

/*
 * The norm's scales need sums of squares. Of few rows a warp has a row: it reads the squares before its product, and
 * adds them after it. Of more each row's sum is made in parts, by 16 lanes a part that have all rows side by side, while
 * the first activations are on their way; a warp a row was 8 us of a product of 32 rows (1.5B's q, k and v, H200: 14.1
 * us, 5.4 of them the product).
 *
 * @param n_warps that call it, the block's first @param parts [WARM_SQUARES_PARTS][N8 * 8]
 */
template <int N8>
static __device__ __forceinline__ void read_squares(const struct warm_cuda_product &p,
                                                    uint32_t n_warps, uint32_t n, float *parts,
                                                    struct held &h) {
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;

        if constexpr (N8 == 1) {
                if (warp < n)
#pragma unroll
                        for (uint32_t i = 0; i < SQUARES_MAX; i++)
                                h.squares[i] =
                                        i * 32 + lane < p.n_tiles
                                                ? __ldcg(&p.d_squares[(uint64_t) (i * 32 + lane) *
                                                                              p.squares_ld +
                                                                      warp])
                                                : 0;
        } else {
                constexpr uint32_t rows = N8 / 2; /* of a lane */
                uint32_t row = lane % 16 * rows;

                for (uint32_t part = threadIdx.x / 16; part < WARM_SQUARES_PARTS;
                     part += n_warps * 2)
                        if (row < n)
                                warm_squares_part<rows>(p.d_squares + row, p.n_tiles, p.squares_ld,
                                                        part, parts + part * (N8 * 8) + row);
        }
}

/* Shared memory for scales, and for the parts behind them. */
template <int N8> static constexpr __host__ __device__ uint32_t scales_bytes() {
        return (N8 == 1 ? 1 : 1 + WARM_SQUARES_PARTS) * (N8 * 8) * (uint32_t) sizeof(float);
}

/* The scales of rows, by all warps; of more than 8 rows when all parts are there. @param scales [N8 * 8] */
template <int N8>
static __device__ __forceinline__ void row_scales(const struct warm_cuda_product &p,
                                                  uint32_t n_warps, uint32_t n, const float *parts,
                                                  const struct held &h, float *scales) {
        if constexpr (N8 > 1) {
                for (uint32_t row = threadIdx.x; row < N8 * 8; row += n_warps * 32)
                        scales[row] = warm_scale_of_parts(parts + row, N8 * 8, p.dim, p.epsilon);
        } else {
                for (uint32_t i = threadIdx.x / 32; i < n; i += n_warps) {
                        float scale;

                        if (i < n_warps && p.n_tiles <= SQUARES_MAX * 32)
                                scale = warm_row_scale_of(h.squares, SQUARES_MAX, p.dim, p.epsilon);
                        else
                                scale = warm_row_scale(p.d_squares, p.n_tiles, p.squares_ld, i,
                                                       p.dim, p.epsilon);
                        if (threadIdx.x % 32 == 0)
                                scales[i] = scale;
                }
        }
}

/* Leave a segment's sums for all warps of the tile. @param part the segment's [N8][32] */
template <int N8>
static __device__ __forceinline__ void leave(float4 *part, uint32_t lane, const float (*c)[4]) {
#pragma unroll
        for (int j = 0; j < N8; j++)
                part[j * 32 + lane] = make_float4(c[j][0], c[j][1], c[j][2], c[j][3]);
}

/* The sum of the segments of 8 rows, ascending. @param part the first one's, of this lane */
template <int N8>
static __device__ __forceinline__ void add_segments(const float4 *part, uint32_t n_segments,
                                                    float *y) {
        for (uint32_t i = 0; i < n_segments; i++) {
                float4 v = part[i * N8 * 32];

                y[0] = i ? __fadd_rn(y[0], v.x) : v.x;
                y[1] = i ? __fadd_rn(y[1], v.y) : v.y;
                y[2] = i ? __fadd_rn(y[2], v.z) : v.z;
                y[3] = i ? __fadd_rn(y[3], v.w) : v.w;
        }
}

/*
 * Add the segments of a tile and hand on the values; its warps take turns by 8 rows.
 *
 * @param turn of this warp, of n_turns @param parts [n_segments][N8][32] of the tile @param c without segments
 */
template <int N8, bool wide>
static __device__ __forceinline__ void
finish(const struct warm_cuda_product &p, const struct stream &s, uint32_t tile, uint32_t turn,
       uint32_t n_turns, const float4 *parts, const float *scales, const float (*c)[4],
       struct held &h) {
        uint32_t g = s.lane / 4;

        for (uint32_t j = turn; j < N8; j += n_turns) {
                float y[4], s0 = 1, s1 = 1;
                uint32_t token = j * 8 + s.lane % 4 * 2, row = s.first + token;

                if (p.matrix.n_segments > 1) {
                        add_segments<N8>(parts + j * 32 + s.lane, p.matrix.n_segments, y);
                } else {
#pragma unroll
                        for (int i = 0; i < N8; i++)
                                if (i == (int) j)
                                        for (int e = 0; e < 4; e++)
                                                y[e] = c[i][e];
                }
                if (!wide && p.d_squares) {
                        s0 = scales[token];
                        s1 = scales[token + 1];
                } else if (wide && p.d_row_scales) {
                        s0 = row < s.n ? __ldcg(&p.d_row_scales[row]) : 0;
                        s1 = row + 1 < s.n ? __ldcg(&p.d_row_scales[row + 1]) : 0;
                }
                warm_finish_with(p, h.bias[0], h.bias[1], s0, s1, y);
                if (p.epilogue != WARM_CUDA_RESIDUAL) {
                        warm_put(p, tile, g, row, s.n, y);
                        continue;
                }
                if (j != turn)
                        warm_get_x(p, tile, g, row, s.n, h.x);
                warm_put_residual(p, tile, g, row, s.n, y, h.x, h.norms);
        }
}

/*
 * Block: tiles * warps warps. A tile's warps take a segment each; where shared memory does not hold as many rings,
 * there are fewer, each takes segments one after the other, and the block has one tile.
 *
 * Shared memory: [n_segments - warps][N8][32] float4, the sums of all but the last turn's segments; a ring for each
 * warp, later the last turn's sums in their place, so that a tile's sums lie side by side; row scales [N8 * 8], and,
 * of more than 8 rows, what they are made of [WARM_SQUARES_PARTS][N8 * 8].
 *
 * @param block of the product's own @param warps of a tile: divides n_segments @param scales_at byte offset
 */
template <int F, int N8, bool wide, bool deep>
static __device__ __forceinline__ void multiply_tiles(const struct warm_cuda_product &p,
                                                      uint32_t block, uint32_t tiles,
                                                      uint32_t warps, uint32_t scales_at) {
        extern __shared__ __align__(128) uint8_t shared[];
        using R = ring<F, N8, deep>;
        uint32_t warp = threadIdx.x / 32, n_segments = p.matrix.n_segments, segment = warp % warps;
        uint32_t tile = block * tiles + warp / warps;
        float4 *parts = (float4 *) shared + warp / warps * n_segments * N8 * 32;
        const uint8_t *ring_at =
                shared + (n_segments - warps) * N8 * 512 + warp * (R::stages * R::stage_bytes);
        bool working = tile * 16 < p.matrix.n_rows;
        float *scales = (float *) (shared + scales_at), *squares = scales + N8 * 8;
        struct stream s;
        struct held h;
        float c[N8][4];

        s.lane = threadIdx.x % 32;
        s.policy = weights_policy<wide>();
        s.to = (uint32_t) __cvta_generic_to_shared(ring_at) + s.lane * 16;
        /* One group a stage: first weights alone, then activations alone, then both together. */
        segment_begin(p.matrix, segment, working, s);
        fetch_weights<F, N8, deep>(p.matrix, tile, s);
        hold_constants(p, tile, working, s.lane / 4, h);
        s.n = *(volatile const uint32_t *) p.d_n_rows; /* of the step's description */
        s.first = blockIdx.y * N8 * 8;
        warm_wait_for_before();
        if (s.first >= s.n)
                return;
        for (;;) {
#pragma unroll
                for (int j = 0; j < N8; j++)
                        c[j][0] = c[j][1] = c[j][2] = c[j][3] = 0;
                fetch_activations<F, N8, wide, deep>(p.in, s);
                if (segment < warps) {
                        hold_inputs<N8>(p, s, tile, segment, working, h);
                        if (!wide && p.d_squares)
                                read_squares<N8>(p, blockDim.x / 32, s.n, squares, h);
                }
                multiply_segment<F, N8, wide, deep>(ring_at, s, c);
                if (segment + warps >= n_segments)
                        break;
                leave<N8>(parts + segment * N8 * 32, s.lane, c);
                segment += warps;
                segment_begin(p.matrix, segment, working, s);
                fetch_weights<F, N8, deep>(p.matrix, tile, s);
        }
        if (n_segments > 1 || (N8 > 1 && !wide && p.d_squares))
                __syncthreads(); /* the rings have been read, parts of squares are there */
        if (!wide && p.d_squares)
                row_scales<N8>(p, blockDim.x / 32, s.n, squares, h, scales);
        if (n_segments > 1)
                leave<N8>(parts + segment * N8 * 32, s.lane, c);
        __syncthreads();
        if (working)
                finish<N8, wide>(p, s, tile, warp % warps, warps, parts, scales, c, h);
}

template <int F, int N8, bool wide, bool deep>
static __global__ void __launch_bounds__(WARPS_MAX * 32, N8 <= 2 ? 2 : 1)
        multiply(const __grid_constant__ struct warm_cuda_product p, uint32_t tiles, uint32_t warps,
                 uint32_t scales_at) {
        warm_let_next_start();
        multiply_tiles<F, N8, wide, deep>(p, blockIdx.x, tiles, warps, scales_at);
}

/* Two products side by side: the first n_blocks blocks are p's. Their matrices have the same columns and segments. */
template <int F, int G, int N8, bool deep>
static __global__ void __launch_bounds__(WARPS_MAX * 32, N8 <= 2 ? 2 : 1)
        multiply_two(const __grid_constant__ struct warm_cuda_product p,
                     const __grid_constant__ struct warm_cuda_product q, uint32_t n_blocks,
                     uint32_t tiles, uint32_t warps, uint32_t scales_at) {
        warm_let_next_start();
        if (blockIdx.x < n_blocks)
                multiply_tiles<F, N8, false, deep>(p, blockIdx.x, tiles, warps, scales_at);
        else
                multiply_tiles<G, N8, false, deep>(q, blockIdx.x - n_blocks, tiles, warps,
                                                   scales_at);
}

/* How a launch divides its tiles. */
struct cut {
        uint32_t tiles; /* a block */
        uint32_t warps; /* a tile */
        uint32_t scales_at;
        uint32_t bytes; /* of shared memory, a block */
};

template <int F, int N8, bool deep>
static struct cut cut_into(uint32_t tiles, uint32_t warps, uint32_t n_segments) {
        struct cut c = { tiles, warps, 0, 0 };

        c.scales_at = (n_segments - warps) * N8 * 512 +
                      tiles * warps * ring<F, N8, deep>::stages * ring<F, N8, deep>::stage_bytes;
        c.bytes = c.scales_at + scales_bytes<N8>();
        return c;
}

/* Without segments: as many tiles a block as give every multiprocessor the same number of blocks. */
template <int F, int N8>
static struct cut cut_tiles(uint32_t n_tiles, uint32_t n_sms, uint32_t limit) {
        uint32_t most = WARPS_MAX;

        while (most > 1 && cut_into<F, N8, false>(most, 1, 1).bytes > limit)
                most--;
        for (uint32_t rounds = 1;; rounds++) {
                uint32_t tiles = (n_tiles + n_sms * rounds - 1) / (n_sms * rounds);

                if (tiles <= most)
                        return cut_into<F, N8, false>(tiles, 1, 1);
        }
}

/* With segments: 8 warps, fewer where multiprocessors would be idle; where they do not fit, first fewer tiles a block,
 * then fewer warps a tile. */
template <int F, int N8>
static struct cut cut_segments(uint32_t n_tiles, uint32_t n_segments, uint32_t n_sms,
                               uint32_t limit) {
        uint32_t tiles = n_segments < 8 ? 8 / n_segments : 1;
        struct cut c;

        while (tiles > 1 && n_tiles < tiles * n_sms)
                tiles /= 2;
        c = cut_into<F, N8, false>(tiles, n_segments, n_segments);

        while (c.bytes > limit && c.tiles * c.warps > 1)
                c = cut_into<F, N8, false>(c.tiles > 1 ? c.tiles / 2 : 1,
                                           c.tiles > 1 ? c.warps : c.warps / 2, n_segments);
        return c;
}

/* The last turn's sums fit in the rings' place; one warp with 8 segments fits the smallest GPU. */
template <int F, int N8, bool deep> static constexpr bool ring_fits() {
        using R = ring<F, N8, deep>;

        return R::stages * R::stage_bytes >= N8 * 512 &&
               R::stages * R::stage_bytes + 7 * N8 * 512 + scales_bytes<N8>() <=
                       WARM_CUDA_SHARED_LEAST;
}

#define HALF_SHARED                                                                                \
        115000U /* bytes a block, if two of them are to take a multiprocessor of sm_90 */

/*
 * A block of quantized weights and few rows takes half a multiprocessor, even if it needs less: kernels further behind
 * would come in beside it, and what they send for would come first. (H200, one token at 40 and 2,048: 7B Q4_K_M 1,765 ->
 * 1,730 and 1,818 -> 1,760 us, 1.5B 887 -> 887 and 960 -> 915; in binary16 nothing.)
 */
template <int F, int N8> static uint32_t bytes_of(const struct warm_cuda_product *p, struct cut c) {
        bool half = F != WARM_CUDA_F16 && N8 == 1 && p->overlap && c.bytes < HALF_SHARED &&
                    warm_cuda_narrow_limit_get() >= 2 * HALF_SHARED;

        return half ? HALF_SHARED : c.bytes;
}

/* More shared memory than a kernel gets unasked. */
template <typename Kernel> static int allow(Kernel kernel, uint32_t bytes) {
        if (bytes <= 48 * 1024)
                return 0;
        return (int) cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          (int) bytes);
}

static uint32_t tiles_of(const struct warm_cuda_product *p) {
        return (p->matrix.n_rows + 15) / 16;
}

static uint32_t blocks_of(const struct warm_cuda_product *p, struct cut c) {
        return (tiles_of(p) + c.tiles - 1) / c.tiles;
}

template <int F, int N8, bool wide, bool deep>
static int launch_cut(const struct warm_cuda_product *p, struct cut c, cudaStream_t stream) {
        static_assert(ring_fits<F, N8, deep>(), "a ring is too small or too large");
        uint32_t bytes = bytes_of<F, N8>(p, c); /* wide: N8 is 8 */
        int r = allow(multiply<F, N8, wide, deep>, bytes);

        if (r)
                return r;
        return warm_launch(
                multiply<F, N8, wide, deep>,
                dim3(blocks_of(p, c), wide ? (p->n_rows_max + N8 * 8 - 1) / (N8 * 8) : 1),
                dim3(c.tiles * c.warps * 32), bytes, stream, p->overlap, *p, c.tiles, c.warps,
                c.scales_at);
}

template <int F, int N8>
static struct cut cut_of(uint32_t n_tiles, uint32_t n_segments, uint32_t n_sms, uint32_t limit) {
        return n_segments == 1 ? cut_tiles<F, N8>(n_tiles, n_sms, limit)
                               : cut_segments<F, N8>(n_tiles, n_segments, n_sms, limit);
}

/* With deep rings, if a multiprocessor has one block and room for them. @return whether */
template <int F, int N8>
static bool cut_deep(struct cut *c, uint32_t n_tiles, uint32_t n_segments, uint32_t n_sms,
                     uint32_t limit) {
        struct cut d = cut_into<F, N8, true>(c->tiles, c->warps, n_segments);

        if (n_tiles > c->tiles * n_sms || d.bytes > limit)
                return false;
        *c = d;
        return true;
}

template <int F, int N8, bool wide>
static int launch(const struct warm_cuda_product *p, uint32_t n_sms, cudaStream_t stream) {
        uint32_t n_segments = p->matrix.n_segments, limit = warm_cuda_narrow_limit_get();
        struct cut c = cut_of<F, N8>(tiles_of(p), n_segments, n_sms, limit);

        if constexpr (N8 <= 2 && !wide)
                if (cut_deep<F, N8>(&c, tiles_of(p), n_segments, n_sms, limit))
                        return launch_cut<F, N8, wide, true>(p, c, stream);
        return launch_cut<F, N8, wide, false>(p, c, stream);
}

template <int F, int G, int N8, bool deep>
static int launch_cut_two(const struct warm_cuda_product *p, const struct warm_cuda_product *q,
                          struct cut c, cudaStream_t stream) {
        uint32_t bytes = bytes_of<G, N8>(q, c);
        int r = allow(multiply_two<F, G, N8, deep>, bytes);

        if (r)
                return r;
        return warm_launch(multiply_two<F, G, N8, deep>, dim3(blocks_of(p, c) + blocks_of(q, c)),
                           dim3(c.tiles * c.warps * 32), bytes, stream, p->overlap, *p, *q,
                           blocks_of(p, c), c.tiles, c.warps, c.scales_at);
}

template <int F, int G, int N8>
static int launch_two(const struct warm_cuda_product *p, const struct warm_cuda_product *q,
                      uint32_t n_sms, cudaStream_t stream) {
        static_assert(warm_unit_bytes(F) <= warm_unit_bytes(G), "the second's rings are as large");
        uint32_t n_tiles = tiles_of(p) + tiles_of(q), n_segments = q->matrix.n_segments;
        uint32_t limit = warm_cuda_narrow_limit_get();
        struct cut c = cut_of<G, N8>(n_tiles, n_segments, n_sms, limit);

        if (cut_deep<G, N8>(&c, n_tiles, n_segments, n_sms, limit))
                return launch_cut_two<F, G, N8, true>(p, q, c, stream);
        return launch_cut_two<F, G, N8, false>(p, q, c, stream);
}

/* Up to 16 rows. */
template <int F, int G>
static int two_by_rows(const struct warm_cuda_product *p, const struct warm_cuda_product *q,
                       uint32_t n_sms, cudaStream_t stream) {
        return p->in.n8 == 1 ? launch_two<F, G, 1>(p, q, n_sms, stream)
                             : launch_two<F, G, 2>(p, q, n_sms, stream);
}
