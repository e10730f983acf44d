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

/* In two parts, for what only has to know that all blocks run: nothing is said of what they wrote. */
static __device__ __forceinline__ void warm_cluster_announce() {
#if __CUDA_ARCH__ >= 900
        asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
#endif
}

static __device__ __forceinline__ void warm_cluster_await() {
#if __CUDA_ARCH__ >= 900
        asm volatile("barrier.cluster.wait;" ::: "memory");
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

/* To another block of the cluster, which is known to be there (warm_cluster_await()). */
static __device__ __forceinline__ void warm_cluster_store(uint32_t there, float x, float y) {
#if __CUDA_ARCH__ >= 900
        asm volatile("st.shared::cluster.v2.f32 [%0], {%1,%2};" ::"r"(there), "f"(x), "f"(y)
                     : "memory");
#endif
}
