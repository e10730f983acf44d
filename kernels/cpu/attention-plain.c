/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in plain C: what every vector form must equal bit for bit. */
#include "lanes-plain.h"

#define KERNELS warm_attention_plain
#include "attention-body.h"
