/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on AVX2; equals plain C bit for bit. */
#include "lanes-avx2.h"

#define KERNELS warm_attention_avx2
#include "attention-body.h"
