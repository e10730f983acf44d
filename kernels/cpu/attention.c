/* SPDX-License-Identifier: Apache-2.0 */
#include "attention.h"
#include "attention-isa.h"

const struct warm_attention_kernels *warm_attention_get(enum warm_isa isa) {
        switch (isa) {
#if defined(__x86_64__)
        case WARM_ISA_AMX:
        case WARM_ISA_AVX512:
                return &warm_attention_avx512;
        case WARM_ISA_AVX2:
                return &warm_attention_avx2;
#elif defined(__aarch64__)
        case WARM_ISA_NEON:
                return &warm_attention_neon;
#endif
        default:
                return &warm_attention_plain;
        }
}

/* To whole cache lines, so that every part starts on one. */
static uint64_t padded(uint64_t n) {
        return (n + 31) / 32 * 32;
}

uint64_t warm_attention_scratch_floats(uint32_t head_dim_k, uint32_t head_dim_v,
                                       uint32_t n_queries) {
        uint64_t v = padded(head_dim_v);

        return padded((uint64_t) n_queries * head_dim_k) + (uint64_t) WARM_SPAN_SLOTS * head_dim_k +
               WARM_SPAN_SLOTS * v + WARM_QUERY_BLOCK * WARM_SPAN_SLOTS + WARM_QUERY_BLOCK * v +
               n_queries * v + 2 * padded(n_queries);
}

void warm_attention_scratch_cut(float *memory, uint32_t head_dim_k, uint32_t head_dim_v,
                                uint32_t n_queries, struct warm_attend_scratch *ret_scratch) {
        uint64_t v = padded(head_dim_v);
        struct warm_attend_scratch s;

        s.q = memory;
        s.k = s.q + padded((uint64_t) n_queries * head_dim_k);
        s.v = s.k + (uint64_t) WARM_SPAN_SLOTS * head_dim_k;
        s.weights = s.v + WARM_SPAN_SLOTS * v;
        s.part = s.weights + WARM_QUERY_BLOCK * WARM_SPAN_SLOTS;
        s.sum = s.part + WARM_QUERY_BLOCK * v;
        s.max = s.sum + n_queries * v;
        s.mass = s.max + padded(n_queries);
        *ret_scratch = s;
}
