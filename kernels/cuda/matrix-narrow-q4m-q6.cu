/* SPDX-License-Identifier: Apache-2.0 */
#include "matrix-narrow.cuh"

WARM_CUDA_API int warm_narrow_q4m_q6(const struct warm_cuda_product *p,
                                     const struct warm_cuda_product *q, uint32_t n_sms,
                                     cudaStream_t stream) {
        return two_by_rows<WARM_CUDA_Q4M, WARM_CUDA_Q6>(p, q, n_sms, stream);
}
