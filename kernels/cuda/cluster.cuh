/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that see each other's shared memory (sm_90 and later). Elsewhere these words are there, and never run.
 */
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

/* All threads of the cluster are here, and see what each of them wrote to shared memory before. */
static __device__ __forceinline__ void warm_cluster_meet() {
#if __CUDA_ARCH__ >= 900
        asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#endif
}

/* This block's place in the cluster. */
static __device__ __forceinline__ uint32_t warm_cluster_rank() {
        uint32_t rank = 0;

#if __CUDA_ARCH__ >= 900
        asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
        return rank;
}

/* Where in the cluster's shared memory a block has what this one has at an address of its own. */
static __device__ __forceinline__ uint32_t warm_cluster_at(uint32_t address, uint32_t rank) {
        uint32_t there = address;

#if __CUDA_ARCH__ >= 900
        asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
#endif
        return there;
}

static __device__ __forceinline__ float2 warm_cluster_load2(uint32_t there) {
        float2 v = {};

#if __CUDA_ARCH__ >= 900
        asm volatile("ld.shared::cluster.v2.f32 {%0,%1}, [%2];"
                     : "=f"(v.x), "=f"(v.y)
                     : "r"(there)
                     : "memory");
#endif
        return v;
}

static __device__ __forceinline__ float4 warm_cluster_load4(uint32_t there) {
        float4 v = {};

#if __CUDA_ARCH__ >= 900
        asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                     : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                     : "r"(there)
                     : "memory");
#endif
        return v;
}
