/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a row wants of its logits, on the device: the rule of backend.h (struct warm_sampling), as kernels/cpu/sample.h
 * has it. Two kernels: the first sums each row up by segments of 1,024 ids and answers greedy rows; the second draws
 * and finds the most likely tokens. No sort of the vocabulary, no copy back: answers go to memory that the host maps.
 *
 * Numbers. A row's answer is a function of its logits and wants alone. Log-probabilities: as the CPU's, but for the
 * order of the float sum inside a segment and float exponentials between segments (a few 1e-7). Weights of a draw are
 * the CPU's floats bit for bit, summed as integers of 2^-43: exact, so in any order. A draw differs from the CPU's
 * only where u meets the border of two ranks, or top_p that of the head, to within 1e-6 of the mass.
 *
 * One row of 151,936 tokens in a graph on an H100 (2026-11-26, test-sample --bench): greedy 5.1 us, top 20 16 us, a
 * draw 18 to 25 us with logits like a model's, up to 46 us with flat ones. Slow and right: where more than 512 tokens
 * share 1/64 nat, each border (top_k, top_p, the draw) reads the row some ten times; 1.1 ms if all logits are equal.
 *
 * Plain C, read by the host's compiler and by nvcc. Thread: the engine's.
 */
#pragma once

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

#define WARM_CUDA_SAMPLE_VOCAB_MAX (1U << 20) /* ids take 20 bits of a sort key */
#define WARM_CUDA_SAMPLE_NONE      UINT32_MAX

/* What one row wants; device memory. want == 0: nothing is read or written for the row. */
struct warm_cuda_want {
        uint32_t want; /* WARM_WANT_TOKEN, _TOP, _LOGPROB; other bits are ignored */
        float temperature;
        float top_p;
        float min_p;
        uint32_t top_k;
        float u;          /* warm_uniform(seed, position of the token to come): [0, 1) */
        int32_t scored;   /* id for WARM_WANT_LOGPROB */
        uint32_t n_top;   /* <= WARM_TOP_N_MAX */
        uint32_t allowed; /* its bitmap's first word in d_allowed; WARM_CUDA_SAMPLE_NONE: all */
        uint32_t banned;  /* its first id in d_banned; read if n_banned > 0 */
        uint32_t n_banned;
        uint32_t reserved; /* rounds up to 16 bytes */
};

/* What one row gets. Members that were not wanted hold 0, token -1; top beyond n_top is not written. */
struct warm_cuda_answer {
        int32_t token; /* -1: nothing was allowed */
        float logprob;
        float scored_logprob;
        uint32_t n_top;
        struct warm_top top[WARM_TOP_N_MAX];
};

/*
 * A call. All memory is the caller's.
 *
 * d_logits: [n_rows_max][ld], 16-byte aligned, final (scaled, capped); not changed. What is not finite is read as the
 *   CPU reads it. Rows from *d_n_rows on are not read.
 * d_wants: [n_rows_max].
 * d_allowed: bitmaps of ceil(n_vocab / 64) words, one bit a token; NULL if no row has one.
 * d_banned: ids; one beyond the vocabulary, or twice, is no matter; NULL if no row has any.
 * d_scratch: 16-byte aligned; zero before the first call, then as calls leave it.
 * answers: [n_rows_max], the device's address of mapped host memory. Read when the stream has passed the call.
 * d_answers: [n_rows_max], the same in device memory for kernels that follow; or NULL.
 */
struct warm_cuda_sample {
        const float *d_logits;
        uint32_t ld;              /* >= n_vocab, a multiple of 4 */
        uint32_t n_vocab;         /* 1 to WARM_CUDA_SAMPLE_VOCAB_MAX */
        uint32_t n_rows_max;      /* 1 to WARM_STEP_ROWS_MAX */
        const uint32_t *d_n_rows; /* 0 to n_rows_max */
        const struct warm_cuda_want *d_wants;
        const uint64_t *d_allowed;
        const int32_t *d_banned;
        void *d_scratch;
        struct warm_cuda_answer *answers;
        struct warm_cuda_answer *d_answers;
        bool greedy;  /* no row has a temperature or WARM_WANT_TOP: without the second kernel */
        bool overlap; /* the device has programmatic dependent launch (sm_90 and later) */
};

/* Bytes of d_scratch: about 0.2 * n_vocab + 24 KiB a row. Calls that may run at the same time need their own. */
uint64_t warm_cuda_sample_scratch_bytes(uint32_t n_rows_max, uint32_t n_vocab);

/*
 * Answer each row below *d_n_rows. Can be captured: the grid depends on n_rows_max and n_vocab only, everything
 * behind the pointers is read when it runs. `s` itself is copied.
 *
 * Return: 0; a cudaError_t: cudaErrorInvalidValue (sizes), or the launch's.
 */
int warm_cuda_sample_run(const struct warm_cuda_sample *s, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#ifdef __CUDACC__
#include <float.h>

#include "kernels/expf.h"

/* The order of tokens as keys, the CPU's exponential, sums over a warp: for sample.cu. */
namespace warm_sample {

static constexpr uint32_t ALL_LANES = UINT32_MAX;
static constexpr uint32_t ID_BITS = 20;
static constexpr uint32_t ID_LAST = WARM_CUDA_SAMPLE_VOCAB_MAX - 1;

static __device__ __forceinline__ float finite(float l) {
        return fminf(fmaxf(l, -FLT_MAX), FLT_MAX); /* fmaxf drops a NaN */
}

/* Ascending with l; -0 counts as 0. */
static __device__ __forceinline__ uint32_t order_of(float l) {
        uint32_t bits = __float_as_uint(__fadd_rn(l, 0.0F));

        return bits ^ (bits >> 31 ? UINT32_MAX : 0x80000000U);
}

static __device__ __forceinline__ uint64_t key_of(uint32_t order, uint32_t id) {
        return (uint64_t) order << ID_BITS | (ID_LAST - id);
}

static __device__ __forceinline__ float logit_of(uint64_t key) {
        uint32_t order = (uint32_t) (key >> ID_BITS);

        return __uint_as_float(order ^ (order >> 31 ? 0x80000000U : UINT32_MAX));
}

static __device__ __forceinline__ int32_t id_of(uint64_t key) {
        return (int32_t) (ID_LAST - (uint32_t) (key & ID_LAST));
}

/* warm_expf() for x <= 0, bit for bit. */
static __device__ __forceinline__ float exp_of(float x) {
        float t, n, r, p;

        if (x < WARM_EXP_MIN)
                return 0;
        t = __fmaf_rn(x, WARM_EXP_LOG2E, WARM_EXP_MAGIC);
        n = __fsub_rn(t, WARM_EXP_MAGIC);
        r = __fmaf_rn(n, -WARM_EXP_LN2_HIGH, x);
        r = __fmaf_rn(n, -WARM_EXP_LN2_LOW, r);
        p = __fmaf_rn(WARM_EXP_C6, r, WARM_EXP_C5);
        p = __fmaf_rn(p, r, WARM_EXP_C4);
        p = __fmaf_rn(p, r, WARM_EXP_C3);
        p = __fmaf_rn(p, r, WARM_EXP_C2);
        p = __fmaf_rn(p, r, 1.0F);
        p = __fmaf_rn(p, r, 1.0F);
        return __uint_as_float(__float_as_uint(p) + (__float_as_uint(t) << 23));
}

template <typename T> static __device__ __forceinline__ T warp_sum(T x) {
        for (uint32_t step = 16; step; step /= 2)
                x += __shfl_xor_sync(ALL_LANES, x, step);
        return x;
}

template <typename T> static __device__ __forceinline__ T warp_max(T x) {
        for (uint32_t step = 16; step; step /= 2)
                x = max(x, __shfl_xor_sync(ALL_LANES, x, step));
        return x;
}

/* Inclusive, ascending lanes. */
template <typename T> static __device__ __forceinline__ T warp_scan(T x) {
        for (uint32_t step = 1; step < 32; step *= 2) {
                T before = __shfl_up_sync(ALL_LANES, x, step);

                x += threadIdx.x % 32 >= step ? before : 0;
        }
        return x;
}

} // namespace warm_sample
#endif
