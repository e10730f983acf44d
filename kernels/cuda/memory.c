/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "kernels/backend.h"
#include "memory.h"

/* The entry points, all of CUDA 10.2. Filled once, then only read. */
static struct {
        PFN_cuMemCreate_v10020 create;
        PFN_cuMemRelease_v10020 release;
        PFN_cuMemAddressReserve_v10020 reserve;
        PFN_cuMemAddressFree_v10020 unreserve;
        PFN_cuMemMap_v10020 map;
        PFN_cuMemUnmap_v10020 unmap;
        PFN_cuMemSetAccess_v10020 set_access;
        PFN_cuMemExportToShareableHandle_v10020 export_handle;
        PFN_cuMemImportFromShareableHandle_v10020 import_handle;
        PFN_cuMemGetAllocationGranularity_v10020 granularity;
        PFN_cuMemGetAllocationPropertiesFromHandle_v10020 properties;
        PFN_cuDeviceGetAttribute_v2000 attribute;
        int result;
} driver;
static pthread_once_t driver_once = PTHREAD_ONCE_INIT;

int warm_cuda_error(int result) {
        switch (result) {
        case cudaSuccess:
                return 0;
        case cudaErrorNotReady:
                return WARM_BACKEND_E_PENDING;
        case cudaErrorMemoryAllocation:
                return WARM_BACKEND_E_MEMORY;
        case cudaErrorInvalidValue:
        case cudaErrorInvalidResourceHandle:
        case cudaErrorInvalidConfiguration:
        case cudaErrorHostMemoryAlreadyRegistered:
        case cudaErrorHostMemoryNotRegistered:
                return -EINVAL;
        case cudaErrorInsufficientDriver:
        case cudaErrorInitializationError:
        case cudaErrorDevicesUnavailable:
        case cudaErrorStubLibrary:
        case cudaErrorNoDevice:
        case cudaErrorInvalidDevice:
        case cudaErrorSystemNotReady:
        case cudaErrorSystemDriverMismatch:
        case cudaErrorCompatNotSupportedOnDevice:
                return -ENODEV;
        case cudaErrorNotPermitted:
                return -EPERM;
        case cudaErrorNotSupported:
        case cudaErrorSymbolNotFound:
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorUnsupportedPtxVersion:
                return -EOPNOTSUPP;
        case cudaErrorOperatingSystem:
        case cudaErrorLaunchOutOfResources:
                return -EIO;
        default:
                return WARM_BACKEND_E_LOST;
        }
}

static void driver_find(void) {
        const struct {
                const char *name;
                void *target;
                unsigned int version;
        } points[] = {
                { "cuMemCreate", &driver.create, 10020 },
                { "cuMemRelease", &driver.release, 10020 },
                { "cuMemAddressReserve", &driver.reserve, 10020 },
                { "cuMemAddressFree", &driver.unreserve, 10020 },
                { "cuMemMap", &driver.map, 10020 },
                { "cuMemUnmap", &driver.unmap, 10020 },
                { "cuMemSetAccess", &driver.set_access, 10020 },
                { "cuMemExportToShareableHandle", &driver.export_handle, 10020 },
                { "cuMemImportFromShareableHandle", &driver.import_handle, 10020 },
                { "cuMemGetAllocationGranularity", &driver.granularity, 10020 },
                { "cuMemGetAllocationPropertiesFromHandle", &driver.properties, 10020 },
                { "cuDeviceGetAttribute", &driver.attribute, 2000 },
        };

        for (size_t i = 0; i < sizeof(points) / sizeof(*points) && driver.result == 0; i++) {
                void *function = NULL;

                if (warm_cuda_driver_function(points[i].name, points[i].version, &function))
                        driver.result = -EOPNOTSUPP;
                memcpy(points[i].target, &function, sizeof(function));
        }
}

static CUmemAllocationProp properties_of(int device) {
        return (CUmemAllocationProp){
                .type = CU_MEM_ALLOCATION_TYPE_PINNED,
                .requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
                .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device },
        };
}

int warm_cuda_memory_init(struct warm_cuda_memory *m, int device) {
        CUmemAllocationProp properties = properties_of(device);
        size_t granularity;
        int r, exportable;

        r = warm_cuda_error((int) cudaSetDevice(device));
        if (r)
                return r;
        (void) pthread_once(&driver_once, driver_find);
        if (driver.result)
                return driver.result;
        /* before CUDA 12 cudaSetDevice() alone made no context */
        r = warm_cuda_error((int) cudaFree(NULL));
        if (r)
                return r;
        r = warm_cuda_error((int) driver.attribute(
                &exportable, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
                device));
        if (r)
                return r;
        if (!exportable)
                return -EOPNOTSUPP;
        r = warm_cuda_error((int) driver.granularity(&granularity, &properties,
                                                     CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
        if (r)
                return r;
        assert(granularity > 0 && (granularity & (granularity - 1)) == 0);
        *m = (struct warm_cuda_memory){ .device = device, .granularity = granularity };
        return 0;
}

static bool round_up(uint64_t value, uint64_t granularity, uint64_t *ret_value) {
        if (__builtin_add_overflow(value, granularity - 1, &value))
                return false;
        *ret_value = value & ~(granularity - 1);
        return true;
}

int warm_cuda_range_init(struct warm_cuda_range *range, const struct warm_cuda_memory *m,
                         uint64_t chunk_bytes, uint64_t bytes) {
        struct warm_cuda_range made = { .device = m->device };
        CUdeviceptr base = 0;
        uint64_t n_chunks;
        CUresult e;

        assert(chunk_bytes > 0);
        if (!round_up(chunk_bytes, m->granularity, &made.chunk_bytes) ||
            !round_up(bytes, m->granularity, &made.bytes))
                return -ENOMEM;
        if (bytes == 0) {
                *range = made;
                return 0;
        }
        n_chunks = (made.bytes - 1) / made.chunk_bytes + 1;
        if (n_chunks > UINT32_MAX)
                return -ENOMEM;
        made.n_chunks = (uint32_t) n_chunks;
        made.chunks = malloc(n_chunks * sizeof(*made.chunks));
        if (!made.chunks)
                return -ENOMEM;
        for (uint32_t i = 0; i < made.n_chunks; i++)
                made.chunks[i] = (struct warm_cuda_chunk){ .fd = -1 };
        e = driver.reserve(&base, made.bytes, 0, 0, 0);
        if (e != CUDA_SUCCESS) {
                free(made.chunks);
                /* the driver names addresses that do not fit in different ways */
                return warm_cuda_error((int) e) == WARM_BACKEND_E_LOST ? WARM_BACKEND_E_LOST
                                                                       : -ENOMEM;
        }
        made.d_base = (uint8_t *) (uintptr_t) base;
        *range = made;
        return 0;
}

static CUdeviceptr chunk_address(const struct warm_cuda_range *range, uint32_t chunk_index) {
        return (CUdeviceptr) (uintptr_t) range->d_base + chunk_index * range->chunk_bytes;
}

void warm_cuda_range_deinit(struct warm_cuda_range *range) {
        for (uint32_t i = 0; i < range->n_chunks; i++)
                if (warm_cuda_range_has(range, i))
                        (void) warm_cuda_range_remove(range, i);
        if (range->d_base)
                (void) driver.unreserve((CUdeviceptr) (uintptr_t) range->d_base, range->bytes);
        free(range->chunks);
        *range = (struct warm_cuda_range){ 0 };
}

/* Map a handle at its chunk's place; on success the range owns it. Return: what the driver said. */
static CUresult chunk_map(struct warm_cuda_range *range, uint32_t chunk_index,
                          CUmemGenericAllocationHandle handle) {
        uint64_t bytes = warm_cuda_range_chunk_bytes(range, chunk_index);
        CUdeviceptr at = chunk_address(range, chunk_index);
        CUmemAccessDesc access = {
                .location = { .type = CU_MEM_LOCATION_TYPE_DEVICE, .id = range->device },
                .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        CUresult e = driver.map(at, bytes, 0, handle, 0);

        if (e != CUDA_SUCCESS)
                return e;
        e = driver.set_access(at, bytes, &access, 1);
        if (e != CUDA_SUCCESS) {
                (void) driver.unmap(at, bytes);
                return e;
        }
        range->chunks[chunk_index] = (struct warm_cuda_chunk){ .handle = handle, .fd = -1 };
        return CUDA_SUCCESS;
}

/* Whether a chunk can be backed. */
static int chunk_is_free(const struct warm_cuda_range *range, uint32_t chunk_index) {
        if (chunk_index >= range->n_chunks)
                return -ERANGE;
        return range->chunks[chunk_index].handle ? -EEXIST : 0;
}

int warm_cuda_range_add(struct warm_cuda_range *range, uint32_t chunk_index) {
        CUmemAllocationProp properties = properties_of(range->device);
        CUmemGenericAllocationHandle handle;
        CUresult e;
        int r = chunk_is_free(range, chunk_index);

        if (r)
                return r;
        e = driver.create(&handle, warm_cuda_range_chunk_bytes(range, chunk_index), &properties, 0);
        if (e != CUDA_SUCCESS)
                return warm_cuda_error((int) e);
        assert(handle != 0);
        e = chunk_map(range, chunk_index, handle);
        if (e != CUDA_SUCCESS)
                (void) driver.release(handle);
        return warm_cuda_error((int) e);
}

int warm_cuda_range_remove(struct warm_cuda_range *range, uint32_t chunk_index) {
        struct warm_cuda_chunk *chunk;

        if (!warm_cuda_range_has(range, chunk_index))
                return -ENOENT;
        chunk = &range->chunks[chunk_index];
        (void) driver.unmap(chunk_address(range, chunk_index),
                            warm_cuda_range_chunk_bytes(range, chunk_index));
        (void) driver.release(chunk->handle);
        if (chunk->fd >= 0)
                close(chunk->fd);
        *chunk = (struct warm_cuda_chunk){ .fd = -1 };
        return 0;
}

/* The driver only says that the system failed: ask whether it was for want of an fd. */
static int no_fd_left(void) {
        int fd = memfd_create("warm-fd", MFD_CLOEXEC);

        if (fd < 0)
                return -errno;
        close(fd);
        return 0;
}

int warm_cuda_range_export(const struct warm_cuda_range *range, uint32_t chunk_index, int *ret_fd) {
        const struct warm_cuda_chunk *chunk;
        int fd = -1, r;
        CUresult e;

        if (!warm_cuda_range_has(range, chunk_index))
                return -ENOENT;
        chunk = &range->chunks[chunk_index];
        if (chunk->fd >= 0) {
                fd = fcntl(chunk->fd, F_DUPFD_CLOEXEC, 3);
                if (fd < 0)
                        return -errno;
                *ret_fd = fd;
                return 0;
        }
        e = driver.export_handle(&fd, chunk->handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
        if (e != CUDA_SUCCESS) {
                r = e == CUDA_ERROR_OPERATING_SYSTEM ? no_fd_left() : 0;
                return r ? r : warm_cuda_error((int) e);
        }
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) { /* driver 580 made it so; no word promises it */
                r = -errno;
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

/*
 * What a refused import means. Of an fd that is none of its allocations driver 580 says "unknown error", and of one
 * of another size "not supported"; a device that is gone says so to any call.
 */
static int import_error(CUresult e) {
        size_t n_free, n_total;

        if (e == CUDA_ERROR_OUT_OF_MEMORY)
                return WARM_BACKEND_E_MEMORY;
        return cudaMemGetInfo(&n_free, &n_total) == cudaSuccess ? -EINVAL : WARM_BACKEND_E_LOST;
}

static bool is_ours(CUmemGenericAllocationHandle handle, int device) {
        CUmemAllocationProp properties;

        return driver.properties(&properties, handle) == CUDA_SUCCESS &&
               properties.type == CU_MEM_ALLOCATION_TYPE_PINNED &&
               properties.location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
               properties.location.id == device;
}

int warm_cuda_range_import(struct warm_cuda_range *range, uint32_t chunk_index, int fd) {
        CUmemGenericAllocationHandle handle;
        struct stat st;
        CUresult e;
        int own, r = chunk_is_free(range, chunk_index);

        if (r)
                return r;
        if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode)) /* /dev/nvidiactl */
                return -EINVAL;
        own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (own < 0)
                return -errno;
        e = driver.import_handle(&handle, (void *) (intptr_t) own,
                                 CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
        if (e != CUDA_SUCCESS) {
                close(own);
                return import_error(e);
        }
        if (is_ours(handle, range->device)) {
                e = chunk_map(range, chunk_index, handle); /* only at the exact size */
                r = e == CUDA_SUCCESS ? 0 : import_error(e);
        } else
                r = -EINVAL;
        if (r) {
                (void) driver.release(handle);
                close(own);
                return r;
        }
        range->chunks[chunk_index].fd = own;
        return 0;
}

int warm_cuda_arena_init(struct warm_cuda_range *range, const struct warm_cuda_memory *m,
                         uint64_t bytes) {
        struct warm_cuda_range made;
        int r = warm_cuda_range_init(&made, m, WARM_CUDA_ARENA_CHUNK_BYTES, bytes);

        if (r)
                return r;
        for (uint32_t i = 0; i < made.n_chunks; i++) {
                r = warm_cuda_range_add(&made, i);
                if (r) {
                        warm_cuda_range_deinit(&made);
                        return r;
                }
        }
        *range = made;
        return 0;
}

int warm_cuda_arena_export(const struct warm_cuda_range *range, int *fds, uint32_t n_fds_max,
                           uint32_t *ret_n_fds) {
        if (range->n_chunks > n_fds_max)
                return -ENOSPC;
        for (uint32_t i = 0; i < range->n_chunks; i++) {
                int r = warm_cuda_range_export(range, i, &fds[i]);

                if (r) {
                        while (i-- > 0) {
                                close(fds[i]);
                                fds[i] = -1;
                        }
                        return r;
                }
        }
        *ret_n_fds = range->n_chunks;
        return 0;
}

int warm_cuda_arena_import(struct warm_cuda_range *range, const struct warm_cuda_memory *m,
                           uint64_t bytes, const int *fds, uint32_t n_fds) {
        struct warm_cuda_range made;
        int r = warm_cuda_range_init(&made, m, WARM_CUDA_ARENA_CHUNK_BYTES, bytes);

        if (r)
                return r;
        if (made.n_chunks != n_fds)
                r = -EINVAL;
        for (uint32_t i = 0; i < made.n_chunks && r == 0; i++)
                r = warm_cuda_range_import(&made, i, fds[i]);
        if (r) {
                warm_cuda_range_deinit(&made);
                return r;
        }
        *range = made;
        return 0;
}
