/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of inject.c. */
#include <cuda_runtime.h>
#include <stdint.h>

#include "inject-kernels.h"

static __global__ void trap() {
        asm volatile("trap;");
}

static __global__ void spin(const volatile uint32_t *flag) {
        while (*flag == 0)
                __nanosleep(1000);
}

int inject_launch_trap(cudaStream_t stream) {
        trap<<<1, 1, 0, stream>>>();
        return (int) cudaGetLastError();
}

int inject_launch_spin(const uint32_t *mapped_flag, cudaStream_t stream) {
        spin<<<1, 1, 0, stream>>>(mapped_flag);
        return (int) cudaGetLastError();
}
