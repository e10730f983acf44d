/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on NEON; equals plain C bit for bit. */
#include "lanes-neon.h"

#define KERNELS warm_attention_neon
#include "attention-body.h"
