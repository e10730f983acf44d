/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel multiplies: each format is compiled in files of its own (matrix-narrow-*.cu, matrix-wide-*-sm90.cu). */
#include "matrix.h"

WARM_CUDA_API int warm_narrow_f16(const struct warm_cuda_product *p, uint32_t n_sms,
                                  cudaStream_t stream);
WARM_CUDA_API int warm_narrow_q8(const struct warm_cuda_product *p, uint32_t n_sms,
                                 cudaStream_t stream);
WARM_CUDA_API int warm_narrow_q4(const struct warm_cuda_product *p, uint32_t n_sms,
                                 cudaStream_t stream);
WARM_CUDA_API int warm_narrow_q4m(const struct warm_cuda_product *p, uint32_t n_sms,
                                  cudaStream_t stream);
WARM_CUDA_API int warm_narrow_q5(const struct warm_cuda_product *p, uint32_t n_sms,
                                 cudaStream_t stream);
WARM_CUDA_API int warm_narrow_q5m(const struct warm_cuda_product *p, uint32_t n_sms,
                                  cudaStream_t stream);
WARM_CUDA_API int warm_narrow_q6(const struct warm_cuda_product *p, uint32_t n_sms,
                                 cudaStream_t stream);
WARM_CUDA_API int warm_narrow_q4m_q6(const struct warm_cuda_product *p,
                                     const struct warm_cuda_product *q, uint32_t n_sms,
                                     cudaStream_t stream);
WARM_CUDA_API int warm_narrow_q5m_q6(const struct warm_cuda_product *p,
                                     const struct warm_cuda_product *q, uint32_t n_sms,
                                     cudaStream_t stream);
WARM_CUDA_API int warm_wide_f16(const struct warm_cuda_product *p, uint32_t n_sms,
                                cudaStream_t stream);
WARM_CUDA_API int warm_wide_q8(const struct warm_cuda_product *p, uint32_t n_sms,
                               cudaStream_t stream);
WARM_CUDA_API int warm_wide_q4(const struct warm_cuda_product *p, uint32_t n_sms,
                               cudaStream_t stream);
WARM_CUDA_API int warm_wide_q4m(const struct warm_cuda_product *p, uint32_t n_sms,
                                cudaStream_t stream);
WARM_CUDA_API int warm_wide_q5(const struct warm_cuda_product *p, uint32_t n_sms,
                               cudaStream_t stream);
WARM_CUDA_API int warm_wide_q5m(const struct warm_cuda_product *p, uint32_t n_sms,
                                cudaStream_t stream);
WARM_CUDA_API int warm_wide_q6(const struct warm_cuda_product *p, uint32_t n_sms,
                               cudaStream_t stream);

int warm_cuda_multiply_narrow(const struct warm_cuda_product *p, uint32_t n_sms,
                              cudaStream_t stream) {
        switch (p->matrix.format) {
        case WARM_CUDA_F16:
                return warm_narrow_f16(p, n_sms, stream);
        case WARM_CUDA_Q8:
                return warm_narrow_q8(p, n_sms, stream);
        case WARM_CUDA_Q4:
                return warm_narrow_q4(p, n_sms, stream);
        case WARM_CUDA_Q4M:
                return warm_narrow_q4m(p, n_sms, stream);
        case WARM_CUDA_Q5:
                return warm_narrow_q5(p, n_sms, stream);
        case WARM_CUDA_Q5M:
                return warm_narrow_q5m(p, n_sms, stream);
        case WARM_CUDA_Q6:
                return warm_narrow_q6(p, n_sms, stream);
        default:
                return (int) cudaErrorInvalidValue;
        }
}

bool warm_cuda_two_fit(const struct warm_cuda_product *p, const struct warm_cuda_product *q) {
        return (p->in.n8 == 1 || p->in.n8 == 2) && p->in.n8 == q->in.n8 &&
               p->matrix.n_segments == q->matrix.n_segments &&
               (p->matrix.format == WARM_CUDA_Q4M || p->matrix.format == WARM_CUDA_Q5M) &&
               q->matrix.format == WARM_CUDA_Q6;
}

int warm_cuda_multiply_two(const struct warm_cuda_product *p, const struct warm_cuda_product *q,
                           uint32_t n_sms, cudaStream_t stream) {
        if (!warm_cuda_two_fit(p, q))
                return (int) cudaErrorInvalidValue;
        return p->matrix.format == WARM_CUDA_Q4M ? warm_narrow_q4m_q6(p, q, n_sms, stream)
                                                 : warm_narrow_q5m_q6(p, q, n_sms, stream);
}

static uint32_t narrow_limit; /* 0: not set */

void warm_cuda_narrow_limit(uint32_t bytes) {
        narrow_limit = bytes;
}

/* The device is asked once: a process has one. */
uint32_t warm_cuda_narrow_limit_get(void) {
        static int most;
        int device;

        if (narrow_limit)
                return narrow_limit;
        if (most == 0 && (cudaGetDevice(&device) != cudaSuccess ||
                          cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                                 device) != cudaSuccess))
                most = 0;
        return most ? (uint32_t) most : WARM_CUDA_SHARED_LEAST;
}

int warm_cuda_multiply_wide(const struct warm_cuda_product *p, cudaStream_t stream) {
        return warm_cuda_multiply_narrow(p, 64,
                                         stream); /* the layout of its activations says which */
}

int warm_cuda_multiply_sm90(const struct warm_cuda_product *p, uint32_t n_sms,
                            cudaStream_t stream) {
#ifdef WARM_CUDA_SM90A
        switch (p->matrix.format) {
        case WARM_CUDA_F16:
                return warm_wide_f16(p, n_sms, stream);
        case WARM_CUDA_Q8:
                return warm_wide_q8(p, n_sms, stream);
        case WARM_CUDA_Q4:
                return warm_wide_q4(p, n_sms, stream);
        case WARM_CUDA_Q4M:
                return warm_wide_q4m(p, n_sms, stream);
        case WARM_CUDA_Q5:
                return warm_wide_q5(p, n_sms, stream);
        case WARM_CUDA_Q5M:
                return warm_wide_q5m(p, n_sms, stream);
        case WARM_CUDA_Q6:
                return warm_wide_q6(p, n_sms, stream);
        default:
                break;
        }
#endif
        (void) p;
        (void) n_sms;
        (void) stream;
        return (int) cudaErrorInvalidValue;
}
