/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights from host memory to the device, as fast as the bus takes them.
 *
 * Host memory is whatever the file was mapped into. Copy threads take pieces of whole rows, copy them into pinned
 * memory, send them to the device and launch what turns the raw rows into the backend's own layout; pieces of several
 * tensors are on their way at once. Each thread has two pinned buffers, each with a buffer on the device and a stream:
 * while one is on the bus the other is filled.
 *
 * Why so, 3 and 4 GiB of an ext4 file in the page cache, mapped anew each time (H100, PCIe 5, 16 cores, driver 580):
 * the bus alone 52 GB/s; 8 threads with pieces of 8 MiB 45-51 (37 on one machine of the same kind), of 4 MiB 43-48, of
 * 2 MiB 36-47, of 16 MiB 40-43; 4 threads 30-37; one thread 7-10; 12 threads no better; read(2) instead of the mapping
 * the same. Registering the mapping itself and copying from it did not end within a minute. Buffers for 8 threads: 10 ms as
 * huge pages that each thread makes and registers, 46-57 ms from cudaHostAlloc. A file that is not in the page cache
 * comes as fast as its disk (1.7-2.1 GB/s there); reading around the page cache is not built.
 *
 * Owner: whoever loads, for the time of a load. Thread: one at a time calls; the copy threads are the loader's own.
 */
#pragma once

#include "cuda.h"

#define WARM_CUDA_LOADER_THREADS_MAX 32U
#define WARM_CUDA_LOADER_JOBS_MAX    64U /* calls of rows() in flight; one more waits */
#define WARM_CUDA_LOADER_PIECE_BYTES (8ULL << 20)

struct warm_cuda_loader;

struct warm_cuda_loader_config {
        int device;         /* CUDA index */
        uint32_t n_threads; /* 0: 8, or one for each core this process may use if those are fewer */
        uint64_t
                piece_bytes; /* 0: WARM_CUDA_LOADER_PIECE_BYTES; at least rows_step rows of any tensor */
};

/*
 * Turn raw rows into the backend's layout: queue work on the stream and return.
 * Called on a copy thread, one call at a time over the whole loader, pieces in any order.
 *
 * @param d_raw [n_rows][row_bytes] on the device, 256-byte aligned; lives until the work queued here is done
 * @param first_row of the tensor, a multiple of rows_step
 * @param n_rows a multiple of rows_step, but for the tensor's last rows
 * Return: 0; a code to end the load with.
 */
typedef int (*warm_cuda_loader_fn)(void *userdata, const void *d_raw, uint64_t first_row,
                                   uint64_t n_rows, cudaStream_t stream);

/*
 * Start the threads and make the buffers: 2 * n_threads * piece_bytes of pinned memory and as much of the device's.
 * The device is current in the calling thread (warm_cuda_memory_init()).
 *
 * Return: 0; -EINVAL: too many threads; -ENOMEM: host memory; -EAGAIN: a thread could not be started;
 * WARM_BACKEND_E_MEMORY; WARM_BACKEND_E_LOST.
 */
int warm_cuda_loader_new(const struct warm_cuda_loader_config *config,
                         struct warm_cuda_loader **ret_loader);

/* Finish, stop the threads, free all. Takes NULL, returns NULL. */
struct warm_cuda_loader *warm_cuda_loader_free(struct warm_cuda_loader *l);

/*
 * Bring a tensor's rows over. Returns when the loader knows of them, not when they are there.
 *
 * @param src [n_rows][row_bytes], any alignment; borrowed until finish()
 * @param rows_step pieces are cut at multiples of it
 * @param consume with its
 * @param userdata, borrowed until finish()
 * Return: 0; -EINVAL: a size is 0 or too large; -EMSGSIZE: rows_step rows are more than a piece;
 * or what ended the load before, as finish().
 */
int warm_cuda_loader_rows(struct warm_cuda_loader *l, const void *src, uint64_t row_bytes,
                          uint64_t n_rows, uint32_t rows_step, warm_cuda_loader_fn consume,
                          void *userdata);

/*
 * Wait until all that was given is on the device and consumed. The loader can be used again, after an error too.
 *
 * Return: 0; -EIO: the file behind src could not be read or became shorter; what consume returned;
 * as warm_cuda_error(); whatever came first, and then not all rows came over.
 */
int warm_cuda_loader_finish(struct warm_cuda_loader *l);
