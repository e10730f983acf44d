/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Barriers in shared memory that count arrivals and bytes, and copies that a single thread asks for and a barrier hears
 * of (sm_90 and later). Elsewhere these words are there, and never run.
 *
 * A ring of stages has two barriers each: `full` counts its producer and the bytes, `empty` those who read. A waiter
 * tells the phases by their parity; that of a barrier nobody waited for yet is 1: a producer's first wait returns.
 */
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

/*
 * How often a warp arrives at a barrier to give a stage back: one lane speaks for it behind a __syncwarp(), which a checker
 * of races does not know: for it, all of them do.
 */
#ifdef WARM_CUDA_RACECHECK
#define WARM_WARP_ARRIVALS 32U
#else
#define WARM_WARP_ARRIVALS 1U
#endif

static __device__ __forceinline__ uint32_t warm_at_shared(const void *p) {
        return (uint32_t) __cvta_generic_to_shared(p);
}

/* @param n who arrive in a phase */
static __device__ __forceinline__ void warm_barrier_init(uint64_t *b, uint32_t n) {
#if __CUDA_ARCH__ >= 900
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(warm_at_shared(b)), "r"(n)
                     : "memory");
#endif
}

/* Who initialized barriers says that copies may know of them; then the block meets. */
static __device__ __forceinline__ void warm_barriers_made() {
#if __CUDA_ARCH__ >= 900
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

static __device__ __forceinline__ void warm_barrier_arrive(uint64_t *b) {
#if __CUDA_ARCH__ >= 900
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(warm_at_shared(b))
                     : "memory");
#endif
}

/* Arrive, and let the phase end only when so many bytes have come. */
static __device__ __forceinline__ void warm_barrier_expect(uint64_t *b, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
        asm volatile(
                "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(warm_at_shared(b)),
                "r"(bytes)
                : "memory");
#endif
}

static __device__ __forceinline__ void warm_barrier_wait(uint64_t *b, uint32_t parity) {
#if __CUDA_ARCH__ >= 900
        asm volatile("{\n.reg .pred p;\nWAIT_%=:\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                     "@p bra DONE_%=;\nbra WAIT_%=;\nDONE_%=:\n}" ::"r"(warm_at_shared(b)),
                     "r"(parity)
                     : "memory");
#endif
}

/* Copy to shared memory. @param bytes a multiple of 16, as are both addresses */
static __device__ __forceinline__ void warm_copy_bulk(void *to, const void *from, uint32_t bytes,
                                                      uint64_t *b) {
#if __CUDA_ARCH__ >= 900
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
                     "[%1], %2, [%3];" ::"r"(warm_at_shared(to)),
                     "l"(from), "r"(bytes), "r"(warm_at_shared(b))
                     : "memory");
#endif
}

/* The same, with a policy for what stays in the L2 cache. */
static __device__ __forceinline__ void warm_copy_bulk_by(void *to, const void *from, uint32_t bytes,
                                                         uint64_t *b, uint64_t policy) {
#if __CUDA_ARCH__ >= 900
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_"
                     "hint [%0], [%1], %2, [%3], %4;" ::"r"(warm_at_shared(to)),
                     "l"(from), "r"(bytes), "r"(warm_at_shared(b)), "l"(policy)
                     : "memory");
#endif
}
