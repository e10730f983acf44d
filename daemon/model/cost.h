/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a step of a model costs whoever computes it: the floor that measurements are held against. Counted from the
 * plan's shapes; a multiply and an add are two operations, and what is not a product (norms, softmax) is left out.
 *
 * A step reads the weights once: weights_bytes. A row (token) costs row_flop, and visible_flop for each slot that it
 * sees, itself included; a row whose logits are wanted costs output_flop.
 */
#pragma once

#include <stdint.h>

#include "kernels/plan.h"

struct warm_cost {
        uint64_t
                weights_bytes; /* in the file's types; of an embedding table only where it is the output, too */
        uint64_t row_flop;
        uint64_t visible_flop;
        uint64_t output_flop;
};

/* Works on plans whose tensors' data was dropped, too. Any thread. */
void warm_cost_of_plan(const struct warm_plan *plan, struct warm_cost *ret_cost);
