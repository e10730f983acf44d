/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who computes what of a wide product, and how blocks add up a tile together.
 *
 * Clusters take pairs of tiles in turns, as long as there is one for each of them. What is left over then would keep a
 * few busy and let the others wait. Of a matrix with segments it is divided by segments: all but the last one of a
 * tile are left in memory, as they are; who has the last one waits for them and adds them in their order. So it makes no
 * difference in bits who computed what.
 *
 * Nobody waits for a block that waits: a cluster computes a tile's last segment after all others it has. All clusters
 * of a launch run at once.
 */
#pragma once

#include "matrix.h"

#define CLUSTER    2U
#define PART_BYTES (128U * 128 * 4) /* sums of a tile */

/* The tiles of a product; a cluster has two, one below the other. */
struct layout {
        uint32_t n_rows;   /* of the step */
        uint32_t n_tokens; /* tiles along the step's rows */
        uint32_t n_down;   /* tiles along the matrix */
        uint32_t n_all;    /* pairs of tiles */
        uint32_t rank;     /* of this block in its cluster */
};

/* A pair of tiles, and which of its segments. */
struct work {
        uint32_t pair, begin, end;
};

/* What a cluster has to do. */
struct share {
        uint32_t cluster, n_clusters;
        uint32_t n_segments;
        uint32_t n_whole; /* pairs */
        uint32_t base;    /* first pair that is divided */
        uint32_t lo, hi;  /* segments of those: base's first is 0 */
};

/* Pairs that are divided by segments among n_clusters; 0: none are, since it does not pay or there is no room. */
static inline __host__ __device__ uint32_t pairs_left(const struct warm_cuda_product &p,
                                                      uint32_t n_all, uint32_t n_clusters) {
        uint32_t left = n_all % n_clusters, n = p.matrix.n_segments;

        /* As long as two segments: to hand over sums, to wait for them. */
        if (n == 1 || n > p.matrix.k_units || left * n > n_clusters * (n - 2) ||
            (uint64_t) left * (n - 1) * CLUSTER * PART_BYTES > p.parts_bytes ||
            left * CLUSTER > WARM_CUDA_COUNTERS)
                return 0;
        return left;
}

static __device__ __forceinline__ share share_of(const struct warm_cuda_product &p, const layout &l,
                                                 bool divides) {
        share s = { blockIdx.x / CLUSTER, gridDim.x / CLUSTER, p.matrix.n_segments, 0, 0, 0, 0 };
        uint32_t left = divides ? pairs_left(p, l.n_all, s.n_clusters) : 0;

        s.base = l.n_all - left;
        s.n_whole = s.cluster < s.base ? (s.base - s.cluster - 1) / s.n_clusters + 1 : 0;
        s.lo = s.cluster * left * s.n_segments / s.n_clusters;
        s.hi = (s.cluster + 1) * left * s.n_segments / s.n_clusters;
        return s;
}

/* The at-th thing to do. Return: false: there is none. */
static __device__ __forceinline__ bool work_of(const share &s, uint32_t at, work *ret_work) {
        uint32_t last, after, unit;

        if (at < s.n_whole) {
                *ret_work = { s.cluster + at * s.n_clusters, 0, s.n_segments };
                return true;
        }
        at -= s.n_whole;
        if (at >= s.hi - s.lo)
                return false;
        /* A share has a tile's last segment once at most: it comes last, what follows it first. */
        last = (s.lo / s.n_segments + 1) * s.n_segments - 1;
        after = last < s.hi ? s.hi - 1 - last : 0;
        unit = at < after ? last + 1 + at : s.lo + at - after;
        *ret_work = { s.base + unit / s.n_segments, unit % s.n_segments, unit % s.n_segments + 1 };
        return true;
}

static __device__ __forceinline__ void share_meet() {
        asm volatile("bar.sync 1, 256;" ::: "memory"); /* the two warpgroups that multiply */
}

/* Where a thread of the two warpgroups finds its sums of a divided tile's segment. */
static __device__ __forceinline__ float4 *part_of(const struct warm_cuda_product &p, const share &s,
                                                  const layout &l, uint32_t pair,
                                                  uint32_t segment) {
        uint64_t slot =
                ((uint64_t) (pair - s.base) * (s.n_segments - 1) + segment) * CLUSTER + l.rank;

        return (float4 *) ((uint8_t *) p.d_parts + slot * PART_BYTES) + (threadIdx.x - 128);
}

static __device__ __forceinline__ uint32_t *
counter_of(const struct warm_cuda_product &p, const share &s, const layout &l, uint32_t pair) {
        return p.d_counters + (pair - s.base) * CLUSTER + l.rank;
}

/* Leave a segment's sums for who has the last one. */
static __device__ __forceinline__ void leave_part(const struct warm_cuda_product &p, const share &s,
                                                  const layout &l, const work &w, const float *c) {
        float4 *to = part_of(p, s, l, w.pair, w.begin);

#pragma unroll
        for (int e = 0; e < 16; e++)
                __stcg(to + e * 256,
                       make_float4(c[e * 4], c[e * 4 + 1], c[e * 4 + 2], c[e * 4 + 3]));
        __threadfence();
        share_meet();
        if (threadIdx.x == 128)
                atomicAdd(counter_of(p, s, l, w.pair), 1);
}

/*
 * The last segment's sums become those of all: the others', in their order, and then its own.
 *
 * @param keep shared memory for PART_BYTES, as registers do not hold it all: a ring that nothing comes to any more
 */
static __device__ __forceinline__ void take_parts(const struct warm_cuda_product &p, const share &s,
                                                  const layout &l, const work &w, float4 *keep,
                                                  float *c) {
        uint32_t *counter = counter_of(p, s, l, w.pair), n = 0;

        share_meet(); /* all warps have read what is in the ring */
        keep += threadIdx.x - 128;
#pragma unroll
        for (int e = 0; e < 16; e++)
                keep[e * 256] = make_float4(c[e * 4], c[e * 4 + 1], c[e * 4 + 2], c[e * 4 + 3]);
        do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                             : "=r"(n)
                             : "l"(counter)
                             : "memory");
        } while (n < s.n_segments - 1);
#pragma unroll 1
        for (uint32_t i = 0; i < s.n_segments; i++) {
                const float4 *from = part_of(p, s, l, w.pair, i);
                float4 v[16];

                if (i + 1 < s.n_segments) {
#pragma unroll
                        for (int e = 0; e < 16; e++)
                                v[e] = __ldcg(from + e * 256);
                } else {
#pragma unroll
                        for (int e = 0; e < 16; e++)
                                v[e] = keep[e * 256];
                }
#pragma unroll
                for (int e = 0; e < 16; e++) {
                        c[e * 4] = i ? __fadd_rn(c[e * 4], v[e].x) : v[e].x;
                        c[e * 4 + 1] = i ? __fadd_rn(c[e * 4 + 1], v[e].y) : v[e].y;
                        c[e * 4 + 2] = i ? __fadd_rn(c[e * 4 + 2], v[e].z) : v[e].z;
                        c[e * 4 + 3] = i ? __fadd_rn(c[e * 4 + 3], v[e].w) : v[e].w;
                }
        }
        share_meet();
        if (threadIdx.x == 128)
                *counter = 0; /* for the next product */
}
