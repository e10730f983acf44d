/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory that can outlive its process: reserved address ranges, backed chunk by chunk.
 *
 * A range is one run of device addresses, reserved once. Chunk i lies at i * chunk_bytes and is an allocation of its
 * own (cuMemCreate) that can be exported as a POSIX file descriptor: while anyone holds such an fd, the memory and
 * what it holds stay. All chunks have chunk_bytes but the last, which may be shorter; sizes are whole granules
 * (2 MiB on an H100). An arena is a range with all its chunks there.
 *
 * The driver's entry points are found through the runtime: nothing links libcuda.
 *
 * Owner: whoever embeds it. Thread: one at a time for each range; the driver's table is made once, for all threads.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WARM_CUDA_ARENA_CHUNK_BYTES (256ULL << 20) /* an add takes 0.1 ms (H100); untuned guess */

/* Device memory of one device. Borrowed by the ranges made of it. */
struct warm_cuda_memory {
        int device;           /* CUDA index */
        uint64_t granularity; /* bytes; every allocation is a multiple */
};

struct warm_cuda_chunk {
        uint64_t handle; /* CUmemGenericAllocationHandle; 0: no memory here */
        int fd; /* of an imported chunk, own: the driver exports only what it made; else -1 */
};

struct warm_cuda_range {
        uint8_t *d_base; /* [bytes], or NULL: empty */
        uint64_t bytes;
        uint64_t chunk_bytes;
        uint32_t n_chunks;
        int device;
        struct warm_cuda_chunk *chunks; /* [n_chunks] */
};

/*
 * What a cudaError_t or CUresult means here; both number alike since CUDA 10.1. Pass what the call itself returned:
 * cudaGetLastError() also tells of earlier calls, a refused device index among them.
 *
 * Return: 0; WARM_BACKEND_E_PENDING: not done yet; WARM_BACKEND_E_MEMORY: no memory; -EINVAL, -ENODEV, -EPERM,
 * -EOPNOTSUPP, -EIO: the call failed and the context is whole; WARM_BACKEND_E_LOST: the context is broken, or the
 * code is one that we do not know, and then nothing can be proven.
 */
int warm_cuda_error(int result);

/*
 * Make a device current in the calling thread, find the driver's entry points and what the device's memory wants.
 * The first call in a process makes the context (0.3 s on an H100).
 *
 * Return: 0; -ENODEV: no driver or no such device; -EOPNOTSUPP: no exportable memory; WARM_BACKEND_E_MEMORY;
 * WARM_BACKEND_E_LOST.
 */
int warm_cuda_memory_init(struct warm_cuda_memory *m, int device);

/*
 * Reserve addresses; no memory yet. Zero bytes make an empty range.
 *
 * @param chunk_bytes > 0 and
 * @param bytes are both rounded up to the granularity
 * Return: 0; -ENOMEM; WARM_BACKEND_E_LOST.
 */
int warm_cuda_range_init(struct warm_cuda_range *range, const struct warm_cuda_memory *m,
                         uint64_t chunk_bytes, uint64_t bytes);

/* Give memory and addresses back; nothing on the device may use them any more. Takes an all-zero range. */
void warm_cuda_range_deinit(struct warm_cuda_range *range);

/*
 * Back a chunk with memory that holds anything. Costs no synchronisation.
 * Return: 0; -ERANGE; -EEXIST; WARM_BACKEND_E_MEMORY; WARM_BACKEND_E_LOST.
 */
int warm_cuda_range_add(struct warm_cuda_range *range, uint32_t chunk_index);

/* Give a chunk's memory back; nothing on the device may use it any more. Return: 0; -ENOENT. */
int warm_cuda_range_remove(struct warm_cuda_range *range, uint32_t chunk_index);

/*
 * A new fd of a chunk, CLOEXEC, the caller's. What was queued for the device by then is not waited for.
 * Return: 0; -ENOENT; -EMFILE, -ENFILE; -EIO; WARM_BACKEND_E_LOST.
 */
int warm_cuda_range_export(const struct warm_cuda_range *range, uint32_t chunk_index, int *ret_fd);

/*
 * Back a chunk with the memory of an fd that some process exported. Hostile fds are refused.
 *
 * @param fd borrowed
 * Return: 0; -ERANGE; -EEXIST; -EINVAL: not an allocation of exactly the chunk's size on this device;
 * -EMFILE, -ENFILE; WARM_BACKEND_E_MEMORY; WARM_BACKEND_E_LOST.
 */
int warm_cuda_range_import(struct warm_cuda_range *range, uint32_t chunk_index, int fd);

/* Whether memory stands behind a chunk. */
static inline bool warm_cuda_range_has(const struct warm_cuda_range *range, uint32_t chunk_index) {
        return chunk_index < range->n_chunks && range->chunks[chunk_index].handle != 0;
}

/* The size of a chunk that exists. */
static inline uint64_t warm_cuda_range_chunk_bytes(const struct warm_cuda_range *range,
                                                   uint32_t chunk_index) {
        uint64_t rest = range->bytes - chunk_index * range->chunk_bytes;

        return rest < range->chunk_bytes ? rest : range->chunk_bytes;
}

/*
 * Reserve a range in chunks of WARM_CUDA_ARENA_CHUNK_BYTES and back all of it. End it by warm_cuda_range_deinit().
 * Return: 0; -ENOMEM; WARM_BACKEND_E_MEMORY (nothing is kept); WARM_BACKEND_E_LOST.
 */
int warm_cuda_arena_init(struct warm_cuda_range *range, const struct warm_cuda_memory *m,
                         uint64_t bytes);

/*
 * An fd of each chunk of an arena, ascending, CLOEXEC, the caller's.
 *
 * @param fds [n_fds_max]; nothing is written on an error but -1
 * Return: 0; -ENOSPC: n_fds_max is too small; as warm_cuda_range_export().
 */
int warm_cuda_arena_export(const struct warm_cuda_range *range, int *fds, uint32_t n_fds_max,
                           uint32_t *ret_n_fds);

/*
 * Make an arena of what another process exported. On an error nothing was taken.
 *
 * @param fds [n_fds] as warm_cuda_arena_export() gave them for the same number of bytes; borrowed
 * Return: 0; -ENOMEM; -EINVAL: not as many as the size wants, or as warm_cuda_range_import().
 */
int warm_cuda_arena_import(struct warm_cuda_range *range, const struct warm_cuda_memory *m,
                           uint64_t bytes, const int *fds, uint32_t n_fds);
