/* SPDX-License-Identifier: Apache-2.0 */
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inject-kernels.h"
#include "inject.h"
#include "kernels/cuda/gpu.h"

/* What a device says that went away under a program: its memory has an error that cannot be corrected. */
#define GONE cudaErrorECCUncorrectable

static enum inject_kind kind;
static _Atomic int64_t left; /* steps or allocations that go well */
static atomic_bool happened;
static bool is_gone;   /* the device is: nothing works any more */
static bool swallows;  /* what is launched goes nowhere */
static uint32_t *flag; /* pinned, of the kernel that spins; lives as long as the process */
static PFN_cuMemCreate_v10020 real_create;

void inject(enum inject_kind kind_, uint32_t after) {
        kind = kind_;
        left = after;
        happened = false;
}

bool inject_happened(void) {
        return happened;
}

void inject_release(void) {
        if (flag)
                __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
}

/* Allocations. */

static bool memory_is_short(void) {
        if (kind != INJECT_MEMORY || atomic_fetch_sub(&left, 1) > 0)
                return false;
        happened = true;
        return true;
}

static CUresult CUDAAPI create(CUmemGenericAllocationHandle *handle, size_t size,
                               const CUmemAllocationProp *properties, unsigned long long flags) {
        return memory_is_short() ? CUDA_ERROR_OUT_OF_MEMORY
                                 : real_create(handle, size, properties, flags);
}

/* The backend asks for the driver's functions by name: it gets ours for one. */
static void swap(const char *name, void **function) {
        PFN_cuMemCreate_v10020 ours = create;

        if (strcmp(name, "cuMemCreate") != 0 || !*function)
                return;
        memcpy(&real_create, function, sizeof(real_create));
        memcpy(function, &ours, sizeof(ours));
}

int __real_warm_cuda_driver_function(const char *name, unsigned version, void **ret_function);
int __wrap_warm_cuda_driver_function(const char *name, unsigned version, void **ret_function);

int __wrap_warm_cuda_driver_function(const char *name, unsigned version, void **ret_function) {
        int r = __real_warm_cuda_driver_function(name, version, ret_function);

        if (r == 0)
                swap(name, ret_function);
        return r;
}

cudaError_t __real_cudaMalloc(void **at, size_t size);
cudaError_t __wrap_cudaMalloc(void **at, size_t size);
cudaError_t __real_cudaHostAlloc(void **at, size_t size, unsigned int flags);
cudaError_t __wrap_cudaHostAlloc(void **at, size_t size, unsigned int flags);
cudaError_t __real_cudaHostRegister(void *at, size_t size, unsigned int flags);
cudaError_t __wrap_cudaHostRegister(void *at, size_t size, unsigned int flags);

/* The real thing with a size that no device has: it leaves its mark for cudaGetLastError(). */
cudaError_t __wrap_cudaMalloc(void **at, size_t size) {
        return __real_cudaMalloc(at, memory_is_short() ? (size_t) 1 << 46 : size);
}

cudaError_t __wrap_cudaHostAlloc(void **at, size_t size, unsigned int flags) {
        return memory_is_short() ? cudaErrorMemoryAllocation
                                 : __real_cudaHostAlloc(at, size, flags);
}

cudaError_t __wrap_cudaHostRegister(void *at, size_t size, unsigned int flags) {
        return memory_is_short() ? cudaErrorMemoryAllocation
                                 : __real_cudaHostRegister(at, size, flags);
}

/* Steps. */

int __real_warm_cuda_step_submit(struct warm_cuda_backend *b, struct warm_weights *w,
                                 const struct warm_step *step, uint64_t ticket);
int __wrap_warm_cuda_step_submit(struct warm_cuda_backend *b, struct warm_weights *w,
                                 const struct warm_step *step, uint64_t ticket);

static void demand(int error) {
        if (error == 0)
                return;
        printf("the fault cannot be made: %s\n", cudaGetErrorName((cudaError_t) error));
        abort();
}

static void spin(cudaStream_t stream) {
        void *mapped = NULL;

        demand((int) __real_cudaHostAlloc((void **) &flag, sizeof(*flag), cudaHostAllocMapped));
        *flag = 0;
        demand((int) cudaHostGetDevicePointer(&mapped, flag, 0));
        demand(inject_launch_spin(mapped, stream));
}

int __wrap_warm_cuda_step_submit(struct warm_cuda_backend *b, struct warm_weights *w,
                                 const struct warm_step *step, uint64_t ticket) {
        int r;

        if (kind == INJECT_NONE || kind == INJECT_MEMORY || happened ||
            atomic_fetch_sub(&left, 1) > 0)
                return __real_warm_cuda_step_submit(b, w, step, ticket);
        happened = true;
        if (kind == INJECT_TRAP)
                demand(inject_launch_trap(b->stream));
        if (kind == INJECT_HANG)
                spin(b->stream);
        is_gone = kind == INJECT_LOST_IN_SUBMIT;
        swallows = kind == INJECT_LOST_IN_POLL;
        r = __real_warm_cuda_step_submit(b, w, step, ticket);
        is_gone = is_gone || swallows;
        return r;
}

cudaError_t __real_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __real_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function,
                                       void **arguments);
cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function,
                                       void **arguments);
cudaError_t __real_cudaStreamQuery(cudaStream_t stream);
cudaError_t __wrap_cudaStreamQuery(cudaStream_t stream);
cudaError_t __real_cudaStreamSynchronize(cudaStream_t stream);
cudaError_t __wrap_cudaStreamSynchronize(cudaStream_t stream);

cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
        return is_gone ? GONE : swallows ? cudaSuccess : __real_cudaGraphLaunch(exec, stream);
}

cudaError_t __wrap_cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function,
                                       void **arguments) {
        return is_gone    ? GONE
               : swallows ? cudaSuccess
                          : __real_cudaLaunchKernelExC(config, function, arguments);
}

cudaError_t __wrap_cudaStreamQuery(cudaStream_t stream) {
        return is_gone ? GONE : __real_cudaStreamQuery(stream);
}

cudaError_t __wrap_cudaStreamSynchronize(cudaStream_t stream) {
        return is_gone ? GONE : __real_cudaStreamSynchronize(stream);
}
