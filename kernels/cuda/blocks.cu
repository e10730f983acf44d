/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <cuda_runtime.h>
#include <errno.h>

#include "blocks.h"
#include "launch.cuh"
extern "C" {
#include "memory.h"
}

#define THREADS    256U
#define UNROLL     4U    /* 16-byte words a thread has on their way at once; untuned guess */
#define SUM_GRID_X 1056U /* thread blocks a span at most: 8 on each SM of an H100; untuned guess */

struct copy_list {
        struct {
                const uint4 *d_source;
                uint4 *d_target;
                uint64_t n; /* words of 16 bytes */
        } copies[WARM_CUDA_LIST_MAX];
};

struct span_list {
        struct {
                const uint4 *d_words;
                uint64_t n; /* words of 16 bytes */
        } spans[WARM_CUDA_LIST_MAX];
};

static uint8_t *block_address(const struct warm_cuda_kv *kv, uint32_t block) {
        return kv->d_base + (uint64_t) (block >> kv->chunk_shift) * kv->chunk_bytes +
               (uint64_t) (block & ((1U << kv->chunk_shift) - 1)) * kv->block_bytes;
}

static __host__ __device__ uint64_t fold(uint64_t x) {
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
        return x ^ (x >> 31);
}

/* Grid: x * THREADS * UNROLL words, y copies. No two of them touch the same block unless both read it. */
static __global__ void __launch_bounds__(THREADS)
        copy_kernel(const __grid_constant__ struct copy_list list) {
        const uint4 *d_source = list.copies[blockIdx.y].d_source;
        uint4 *d_target = list.copies[blockIdx.y].d_target;
        uint64_t n = list.copies[blockIdx.y].n;
        uint64_t first = (uint64_t) blockIdx.x * THREADS * UNROLL + threadIdx.x;
        uint4 words[UNROLL];

#pragma unroll
        for (uint32_t i = 0; i < UNROLL; i++)
                if (first + i * THREADS < n)
                        words[i] = d_source[first + i * THREADS];
#pragma unroll
        for (uint32_t i = 0; i < UNROLL; i++)
                if (first + i * THREADS < n)
                        d_target[first + i * THREADS] = words[i];
}

static __device__ __forceinline__ uint64_t word_sum(const uint4 &word, uint64_t index) {
        uint64_t key = (2 * index + 1) * 0x9e3779b97f4a7c15ULL;

        return fold(((uint64_t) word.y << 32 | word.x) ^ key) +
               fold(((uint64_t) word.w << 32 | word.z) ^ (key + 0x9e3779b97f4a7c15ULL));
}

/* Grid: x parts of a span, y spans. Adds to d_sums[y], zero before. */
static __global__ void __launch_bounds__(THREADS)
        sum_kernel(const __grid_constant__ struct span_list list, unsigned long long *d_sums) {
        const uint4 *d_words = list.spans[blockIdx.y].d_words;
        uint64_t n = list.spans[blockIdx.y].n, sum = 0;
        uint64_t stride = (uint64_t) gridDim.x * THREADS * UNROLL;

        for (uint64_t at = (uint64_t) blockIdx.x * THREADS * UNROLL + threadIdx.x; at < n;
             at += stride) {
                uint4 words[UNROLL];

#pragma unroll
                for (uint32_t i = 0; i < UNROLL; i++)
                        if (at + i * THREADS < n)
                                words[i] = d_words[at + i * THREADS];
#pragma unroll
                for (uint32_t i = 0; i < UNROLL; i++)
                        if (at + i * THREADS < n)
                                sum += word_sum(words[i], at + i * THREADS);
        }
#pragma unroll
        for (uint32_t offset = 16; offset > 0; offset /= 2)
                sum += __shfl_xor_sync(~0U, sum, offset);
        if (threadIdx.x % 32 == 0)
                atomicAdd(&d_sums[blockIdx.y], (unsigned long long) sum);
}

static uint32_t parts(uint64_t n_words) {
        return (uint32_t) ((n_words + THREADS * UNROLL - 1) / (THREADS * UNROLL));
}

int warm_cuda_blocks_init(struct warm_cuda_blocks *b, cudaStream_t main) {
        struct warm_cuda_blocks made = {};
        uint64_t bytes = WARM_CUDA_LIST_MAX * sizeof(*made.sums);
        int least = 0, greatest = 0;
        cudaError_t e;

        made.main = main;
        e = cudaDeviceGetStreamPriorityRange(&least, &greatest);
        if (e == cudaSuccess)
                e = cudaStreamCreateWithPriority(&made.stream, cudaStreamNonBlocking, least);
        if (e == cudaSuccess)
                e = cudaEventCreateWithFlags(&made.before, cudaEventDisableTiming);
        for (uint32_t i = 0; i < WARM_CUDA_TRANSFERS_MAX && e == cudaSuccess; i++)
                e = cudaEventCreateWithFlags(&made.done[i], cudaEventDisableTiming);
        if (e == cudaSuccess)
                e = cudaMalloc((void **) &made.d_sums, bytes);
        if (e == cudaSuccess) {
                e = cudaHostAlloc((void **) &made.sums, bytes, cudaHostAllocDefault);
                if (e == cudaErrorMemoryAllocation) {
                        warm_cuda_blocks_deinit(&made);
                        return -ENOMEM;
                }
        }
        if (e != cudaSuccess) {
                warm_cuda_blocks_deinit(&made);
                return warm_cuda_error((int) e);
        }
        *b = made;
        return 0;
}

void warm_cuda_blocks_deinit(struct warm_cuda_blocks *b) {
        if (b->stream) {
                (void) cudaStreamSynchronize(b->stream);
                (void) cudaStreamDestroy(b->stream);
        }
        if (b->before)
                (void) cudaEventDestroy(b->before);
        for (uint32_t i = 0; i < WARM_CUDA_TRANSFERS_MAX; i++)
                if (b->done[i])
                        (void) cudaEventDestroy(b->done[i]);
        if (b->d_sums) /* or one that never was would make a context */
                (void) cudaFree(b->d_sums);
        if (b->sums)
                (void) cudaFreeHost(b->sums);
        *b = (struct warm_cuda_blocks){};
}

/* Whether two copies may not run at once: one writes what the other reads or writes. */
static bool copies_touch(const struct warm_block_copy *a, const struct warm_block_copy *b) {
        return a->group == b->group &&
               (a->target == b->target || a->target == b->source || a->source == b->target);
}

/* How many of the first copies may run at once. */
static uint32_t copies_at_once(const struct warm_block_copy *copies, uint32_t n_copies) {
        uint32_t n_most = n_copies < WARM_CUDA_LIST_MAX ? n_copies : WARM_CUDA_LIST_MAX;

        for (uint32_t n = 1; n < n_most; n++)
                for (uint32_t i = 0; i < n; i++)
                        if (copies_touch(&copies[i], &copies[n]))
                                return n;
        return n_most;
}

int warm_cuda_blocks_copy(const struct warm_cuda_kv *kv, const struct warm_block_copy *copies,
                          uint32_t n_copies, cudaStream_t stream) {
        for (uint32_t n; n_copies > 0; copies += n, n_copies -= n) {
                struct copy_list list;
                uint64_t n_words_max = 0;
                int r;

                n = copies_at_once(copies, n_copies);
                for (uint32_t i = 0; i < n; i++) {
                        const struct warm_cuda_kv *group = &kv[copies[i].group];
                        uint64_t n_words = copies[i].source == copies[i].target
                                                   ? 0
                                                   : group->block_bytes / sizeof(uint4);

                        list.copies[i].d_source =
                                (const uint4 *) block_address(group, copies[i].source);
                        list.copies[i].d_target = (uint4 *) block_address(group, copies[i].target);
                        list.copies[i].n = n_words;
                        if (n_words > n_words_max)
                                n_words_max = n_words;
                }
                if (n_words_max == 0)
                        continue;
                r = warm_cuda_error(warm_launch(copy_kernel, dim3(parts(n_words_max), n), THREADS,
                                                0, stream, false, list));
                if (r)
                        return r;
        }
        return 0;
}

int warm_cuda_block_zero(const struct warm_cuda_kv *kv, uint32_t block, cudaStream_t stream) {
        return warm_cuda_error(
                (int) cudaMemsetAsync(block_address(kv, block), 0, kv->block_bytes, stream));
}

/* Order the own stream behind what the main one holds now. */
static cudaError_t after_main(struct warm_cuda_blocks *b) {
        cudaError_t e = cudaEventRecord(b->before, b->main);

        return e == cudaSuccess ? cudaStreamWaitEvent(b->stream, b->before, 0) : e;
}

/* Sum n spans into b->sums and wait. */
static cudaError_t spans_sum(struct warm_cuda_blocks *b, const struct span_list *list, uint32_t n) {
        uint64_t bytes = n * sizeof(*b->sums), n_words_max = 0;
        uint32_t n_parts;
        cudaError_t e = after_main(b);

        for (uint32_t i = 0; i < n; i++)
                if (list->spans[i].n > n_words_max)
                        n_words_max = list->spans[i].n;
        n_parts = n_words_max < (uint64_t) SUM_GRID_X * THREADS * UNROLL ? parts(n_words_max)
                                                                         : SUM_GRID_X;
        if (e == cudaSuccess)
                e = cudaMemsetAsync(b->d_sums, 0, bytes, b->stream);
        if (e == cudaSuccess && n_parts > 0)
                e = (cudaError_t) warm_launch(sum_kernel, dim3(n_parts, n), THREADS, 0, b->stream,
                                              false, *list, (unsigned long long *) b->d_sums);
        if (e == cudaSuccess)
                e = cudaMemcpyAsync(b->sums, b->d_sums, bytes, cudaMemcpyDeviceToHost, b->stream);
        return e == cudaSuccess ? cudaStreamSynchronize(b->stream) : e;
}

int warm_cuda_blocks_sum(struct warm_cuda_blocks *b, const struct warm_cuda_kv *kv,
                         const uint32_t *blocks, uint32_t n, uint64_t *ret_sums) {
        for (uint32_t done = 0; done < n;) {
                uint32_t now = n - done < WARM_CUDA_LIST_MAX ? n - done : WARM_CUDA_LIST_MAX;
                struct span_list list;
                cudaError_t e;

                for (uint32_t i = 0; i < now; i++) {
                        list.spans[i].d_words = (const uint4 *) block_address(kv, blocks[done + i]);
                        list.spans[i].n = kv->block_bytes / sizeof(uint4);
                }
                e = spans_sum(b, &list, now);
                if (e != cudaSuccess)
                        return warm_cuda_error((int) e);
                for (uint32_t i = 0; i < now; i++)
                        ret_sums[done + i] = fold(b->sums[i] ^ kv->block_bytes);
                done += now;
        }
        return 0;
}

int warm_cuda_bytes_sum(struct warm_cuda_blocks *b, const void *d_bytes, uint64_t n_bytes,
                        uint64_t *ret_sum) {
        struct span_list list;
        cudaError_t e;

        assert(n_bytes % sizeof(uint4) == 0 && (uintptr_t) d_bytes % sizeof(uint4) == 0);
        list.spans[0].d_words = (const uint4 *) d_bytes;
        list.spans[0].n = n_bytes / sizeof(uint4);
        e = spans_sum(b, &list, 1);
        if (e != cudaSuccess)
                return warm_cuda_error((int) e);
        *ret_sum = fold(b->sums[0] ^ n_bytes);
        return 0;
}

/* How many of the first blocks lie side by side. */
static uint32_t blocks_in_a_row(const struct warm_cuda_kv *kv, const uint32_t *blocks, uint32_t n) {
        uint32_t together = 1;

        while (together < n && blocks[together] == blocks[0] + together &&
               blocks[together] >> kv->chunk_shift == blocks[0] >> kv->chunk_shift)
                together++;
        return together;
}

/* Queue a transfer; one of host_target and host_source is NULL. */
static int transfer(struct warm_cuda_blocks *b, const struct warm_cuda_kv *kv, uint8_t *host_target,
                    const uint8_t *host_source, const uint32_t *blocks, uint32_t n,
                    uint64_t *ret_ticket) {
        cudaEvent_t done = b->done[(b->n_tickets + 1) % WARM_CUDA_TRANSFERS_MAX];
        cudaError_t e = cudaEventQuery(done); /* of the ticket that had this place before */
        uint64_t at = 0;

        assert(n > 0);
        if (e == cudaErrorNotReady)
                return -EAGAIN;
        if (e == cudaSuccess)
                e = after_main(b);
        for (uint32_t i = 0, k; i < n && e == cudaSuccess; i += k) {
                uint8_t *d_block = block_address(kv, blocks[i]);
                uint64_t bytes;

                k = blocks_in_a_row(kv, blocks + i, n - i);
                bytes = k * kv->block_bytes;
                if (host_target)
                        e = cudaMemcpyAsync(host_target + at, d_block, bytes,
                                            cudaMemcpyDeviceToHost, b->stream);
                else
                        e = cudaMemcpyAsync(d_block, host_source + at, bytes,
                                            cudaMemcpyHostToDevice, b->stream);
                at += bytes;
        }
        if (e == cudaSuccess)
                e = cudaEventRecord(done, b->stream);
        if (e != cudaSuccess) {
                (void) cudaStreamSynchronize(b->stream); /* let go of the host's memory */
                return warm_cuda_error((int) e);
        }
        *ret_ticket = ++b->n_tickets;
        return 0;
}

int warm_cuda_blocks_read(struct warm_cuda_blocks *b, const struct warm_cuda_kv *kv, void *host,
                          const uint32_t *blocks, uint32_t n, uint64_t *ret_ticket) {
        return transfer(b, kv, (uint8_t *) host, NULL, blocks, n, ret_ticket);
}

int warm_cuda_blocks_write(struct warm_cuda_blocks *b, const struct warm_cuda_kv *kv,
                           const void *host, const uint32_t *blocks, uint32_t n,
                           uint64_t *ret_ticket) {
        return transfer(b, kv, NULL, (const uint8_t *) host, blocks, n, ret_ticket);
}

int warm_cuda_blocks_poll(struct warm_cuda_blocks *b, uint64_t ticket) {
        assert(ticket > 0 && ticket <= b->n_tickets);
        if (ticket + WARM_CUDA_TRANSFERS_MAX <= b->n_tickets) /* its place was taken: it is done */
                return 0;
        return warm_cuda_error((int) cudaEventQuery(b->done[ticket % WARM_CUDA_TRANSFERS_MAX]));
}
