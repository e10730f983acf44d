/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on AVX-512; equals plain C bit for bit. */
#include "lanes-avx512.h"

#define KERNELS warm_attention_avx512
#include "attention-body.h"
