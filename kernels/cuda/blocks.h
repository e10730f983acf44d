/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole blocks: copies between them, sums of them, and their way to host memory and back.
 *
 * Copies and zeros run on the main stream, in a step. Sums and transfers run on a stream of their own, of the lowest
 * priority, behind what the main stream held when they were queued, and never hold the main stream up. So a caller
 * uses what a transfer writes only after it saw the transfer done, and lets nothing write what a transfer reads.
 *
 * The sum of n bytes, 8 at a time, little endian: fold(n ^ sum over i of fold(word[i] ^ (i + 1) * 0x9e3779b97f4a7c15))
 * modulo 2^64, fold being SplitMix64's finaliser, which is one to one: a change of a single word always shows, others
 * with odds of 2^-64 against. Addition may take any order, so it is the same on every device. Not cryptographic.
 *
 * Owner: the backend. Thread: the engine's.
 */
#pragma once

#include "cuda.h"

#define WARM_CUDA_TRANSFERS_MAX 16U  /* that may run at once; untuned guess */
#define WARM_CUDA_LIST_MAX      128U /* blocks a launch: its list is an argument, of 4 KiB at most */

struct warm_cuda_blocks {
        cudaStream_t main; /* borrowed */
        cudaStream_t stream;
        cudaEvent_t before; /* what the main stream held when a sum or transfer was queued */
        cudaEvent_t done[WARM_CUDA_TRANSFERS_MAX]; /* of ticket % WARM_CUDA_TRANSFERS_MAX */
        uint64_t n_tickets;                        /* given out; the last one's number */
        uint64_t *d_sums;                          /* [WARM_CUDA_LIST_MAX] */
        uint64_t *sums;                            /* the same, pinned host memory */
};

/*
 * @param main the stream of steps; borrowed until deinit
 * Return: 0; -ENOMEM: pinned host memory; WARM_BACKEND_E_MEMORY; WARM_BACKEND_E_LOST.
 */
WARM_CUDA_API int warm_cuda_blocks_init(struct warm_cuda_blocks *b, cudaStream_t main);

/* Wait for transfers that run, free all. Takes an all-zero one. */
WARM_CUDA_API void warm_cuda_blocks_deinit(struct warm_cuda_blocks *b);

/*
 * Queue block copies as if one after the other: a later one sees what an earlier one wrote. Copies that do not touch
 * each other's blocks run at once.
 *
 * @param kv [groups] memory of each group that copies name
 * @param copies [n_copies] of blocks that exist; read before it returns
 * Return: 0; as warm_cuda_error().
 */
WARM_CUDA_API int warm_cuda_blocks_copy(const struct warm_cuda_kv *kv,
                                        const struct warm_block_copy *copies, uint32_t n_copies,
                                        cudaStream_t stream);

/* Queue zeros into a block that exists. Return: 0; as warm_cuda_error(). */
WARM_CUDA_API int warm_cuda_block_zero(const struct warm_cuda_kv *kv, uint32_t block,
                                       cudaStream_t stream);

/*
 * Sums of blocks; returns when they are there.
 *
 * @param blocks [n] that exist
 * @param ret_sums [n]
 * Return: 0; as warm_cuda_error().
 */
WARM_CUDA_API int warm_cuda_blocks_sum(struct warm_cuda_blocks *b, const struct warm_cuda_kv *kv,
                                       const uint32_t *blocks, uint32_t n, uint64_t *ret_sums);

/*
 * Sum of device memory in one piece (weights).
 *
 * @param d_bytes [n_bytes], 16-byte aligned
 * @param n_bytes a multiple of 16
 */
WARM_CUDA_API int warm_cuda_bytes_sum(struct warm_cuda_blocks *b, const void *d_bytes,
                                      uint64_t n_bytes, uint64_t *ret_sum);

/*
 * Queue the transfer of blocks to or from host memory.
 *
 * @param blocks [n] that exist, n > 0; read before it returns
 * @param host [n][block_bytes], pinned; borrowed until the ticket is done
 * Return: 0 and *ret_ticket; -EAGAIN: WARM_CUDA_TRANSFERS_MAX run already; as warm_cuda_error().
 */
WARM_CUDA_API int warm_cuda_blocks_read(struct warm_cuda_blocks *b, const struct warm_cuda_kv *kv,
                                        void *host, const uint32_t *blocks, uint32_t n,
                                        uint64_t *ret_ticket);
WARM_CUDA_API int warm_cuda_blocks_write(struct warm_cuda_blocks *b, const struct warm_cuda_kv *kv,
                                         const void *host, const uint32_t *blocks, uint32_t n,
                                         uint64_t *ret_ticket);

/* Return: 0: the transfer is done, and all before it; WARM_BACKEND_E_PENDING; WARM_BACKEND_E_LOST. */
WARM_CUDA_API int warm_cuda_blocks_poll(struct warm_cuda_blocks *b, uint64_t ticket);
