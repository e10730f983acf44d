/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the CUDA backend's memory share: a device, checks, KV memory with known bytes, a loader's sink.
 * A test is a function that CHECKs; run() prints its sentence.
 */
#pragma once

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/kv.h"
#include "kernels/cuda/loader.h"
#include "kernels/cuda/memory.h"

#define MIB      (1ULL << 20)
#define GROUPS   2U
#define N_BLOCKS 70U /* of each group: not a whole number of chunks */
#define FDS_MAX  64U

/* Made by cuda_setup(). */
extern struct warm_cuda_memory memory;
extern struct warm_cuda_blocks blocks;
extern cudaStream_t stream;

extern uint32_t n_failed; /* tests */
extern bool failed;       /* the test that runs */

/* Values a block: 192 KiB and 4 KiB; chunks of 8 blocks: 1.5 MiB and 32 KiB, each rounded up to 2 MiB. */
extern const uint64_t block_values[GROUPS];

#define CHECK(condition)                                                                           \
        do {                                                                                       \
                if (!(condition)) {                                                                \
                        printf("# %s:%d: %s\n", __func__, __LINE__, #condition);                   \
                        failed = true;                                                             \
                }                                                                                  \
        } while (0)
#define CHECK_IS(value, expected)                                                                  \
        do {                                                                                       \
                long long value_ = (long long) (value), expected_ = (long long) (expected);        \
                if (value_ != expected_) {                                                         \
                        printf("# %s:%d: %s is %lld, not %lld\n", __func__, __LINE__, #value,      \
                               value_, expected_);                                                 \
                        failed = true;                                                             \
                }                                                                                  \
        } while (0)

/* Where a tensor goes, and what came of it. */
struct sink {
        uint8_t *d_target;
        uint64_t row_bytes;
        uint64_t n_rows;
        uint64_t n_seen;
        uint32_t rows_step;
        int result; /* of the next calls */
};

int sink_take(void *userdata, const void *d_raw, uint64_t first_row, uint64_t n_rows,
              cudaStream_t from);

/* Make device 0 current, its memory, a stream and blocks. Return: as warm_cuda_memory_init(). */
int cuda_setup(void);
void cuda_end(void);

void run(const char *sentence, void (*test)(void));

uint64_t random_next(uint64_t *state);
void random_fill(uint8_t *bytes, uint64_t n, uint64_t seed);

/* The sum as blocks.h defines it. */
uint64_t host_sum(const uint8_t *bytes, uint64_t n);

/* Bytes the device has left. */
uint64_t memory_free(void);

/* Whether the device has as much left as before, or soon: give or take what others on it do. */
bool memory_is_back(uint64_t before);

/* Bytes of the device, there when this returns: a copy or a fill alone may still be on its way while other streams begin. */
void device_put(void *d_at, const void *bytes, uint64_t n);
void device_set(void *d_at, uint8_t byte, uint64_t n);

/* KV memory of two groups, no chunk added. */
struct warm_cuda_kv_memory kv_new(struct warm_kv_info *ret_info);

/* The same with all chunks and random bytes in all blocks, and their sums. */
struct warm_cuda_kv_memory kv_filled(uint64_t (*ret_sums)[N_BLOCKS]);

bool kv_sums_are(const struct warm_cuda_kv_memory *kv, uint64_t (*sums)[N_BLOCKS]);
