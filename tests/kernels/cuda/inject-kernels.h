/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "kernels/cuda/cuda.h"

/* Queue a kernel that breaks the context. Return: 0; a cudaError_t. */
WARM_CUDA_API int inject_launch_trap(cudaStream_t stream);

/* Queue a kernel that runs until the flag is not 0. @param mapped_flag pinned host memory, as the device sees it */
WARM_CUDA_API int inject_launch_spin(const uint32_t *mapped_flag, cudaStream_t stream);
