/* SPDX-License-Identifier: Apache-2.0 */
/* The compiled forms of attention-body.h, one for each instruction set; chosen in attention.c. */
#pragma once

#include "attention.h"

extern const struct warm_attention_kernels warm_attention_plain;
extern const struct warm_attention_kernels warm_attention_avx2;
extern const struct warm_attention_kernels warm_attention_avx512;
extern const struct warm_attention_kernels warm_attention_neon;
