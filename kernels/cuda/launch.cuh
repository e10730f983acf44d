/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Launches that overlap with the kernel before them (programmatic dependent launch, sm_90 and later), and the two
 * words a kernel says about it. On older GPUs both words are empty and launches follow each other as usual.
 *
 * A kernel launched here may start while the one before it still runs. It may read weights and tables that no kernel
 * of the step writes; before it reads or writes anything else it calls warm_wait_for_before(), which returns when
 * all kernels before have ended and their writes can be seen.
 */
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

/* Returns when everything that earlier kernels wrote can be read. Called by every thread that reads or writes it. */
static __device__ __forceinline__ void warm_wait_for_before() {
#if __CUDA_ARCH__ >= 900
        asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel's blocks may be placed as soon as there is room. */
static __device__ __forceinline__ void warm_let_next_start() {
#if __CUDA_ARCH__ >= 900
        asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/*
 * Give a kernel the most shared memory a multiprocessor can have. All kernels do: one that wants another division of
 * L1 cache and shared memory than the one before waits until multiprocessors are empty, and nothing overlaps.
 */
template <typename Kernel> static inline void warm_carve_out(Kernel kernel) {
        (void) cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                    cudaSharedmemCarveoutMaxShared); /* a wish */
}

/*
 * Launch with overlap where the device has it.
 *
 * @param cluster blocks of one; 1: none Return: 0; a cudaError_t.
 */
template <typename... Parameters, typename... Arguments>
static inline int warm_launch_clusters(void (*kernel)(Parameters...), uint32_t cluster, dim3 grid,
                                       dim3 block, size_t shared_bytes, cudaStream_t stream,
                                       bool overlap, Arguments... arguments) {
        cudaLaunchAttribute attributes[2] = {};
        cudaLaunchConfig_t config = {};

        config.gridDim = grid;
        config.blockDim = block;
        config.dynamicSmemBytes = shared_bytes;
        config.stream = stream;
        config.attrs = attributes;
        if (cluster > 1) {
                cudaLaunchAttribute *a = &attributes[config.numAttrs++];

                a->id = cudaLaunchAttributeClusterDimension;
                a->val.clusterDim.x = cluster;
                a->val.clusterDim.y = a->val.clusterDim.z = 1;
        }
        if (overlap) {
                cudaLaunchAttribute *a = &attributes[config.numAttrs++];

                a->id = cudaLaunchAttributeProgrammaticStreamSerialization;
                a->val.programmaticStreamSerializationAllowed = 1;
        }
        return (int) cudaLaunchKernelEx(&config, kernel, (Parameters) arguments...);
}

template <typename... Parameters, typename... Arguments>
static inline int warm_launch(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                              size_t shared_bytes, cudaStream_t stream, bool overlap,
                              Arguments... arguments) {
        warm_carve_out(kernel);
        return warm_launch_clusters(kernel, 1, grid, block, shared_bytes, stream, overlap,
                                    arguments...);
}
