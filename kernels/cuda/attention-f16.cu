/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over KV of one type: see attention-launch.cuh. */
#include "attention-launch.cuh"

const struct warm_attention_launcher warm_attention_f16 = WARM_ATTENTION_LAUNCHER(false);
