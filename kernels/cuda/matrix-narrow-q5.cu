/* SPDX-License-Identifier: Apache-2.0 */
#include "matrix-together.cuh"

WARM_CUDA_API int warm_narrow_q5(const struct warm_cuda_product *p, uint32_t n_sms,
                                 cudaStream_t stream) {
        return by_rows<WARM_CUDA_Q5>(p, n_sms, stream);
}
