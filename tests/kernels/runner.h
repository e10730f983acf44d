/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sequence on a backend, for tests: its block table, and prompts in any cut.
 */
#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "tiny.h"

#define RUNNER_BLOCKS 72U

struct runner {
        struct warm_backend *backend;
        struct warm_weights *weights;
        uint32_t n_vocab;
        struct warm_kv_info info;
        uint32_t table[WARM_PLAN_GROUPS_MAX][RUNNER_BLOCKS];
        struct warm_step_sequence sequence;
};

/*
 * A backend with this model's weights, KV memory for RUNNER_BLOCKS blocks of every group, filled with bytes 0xff
 * (NaN in every type): what nobody wrote must not matter.
 *
 * @param table_seed order of the block table; 0: ascending
 */
void runner_init(struct runner *r, const struct warm_plan *plan, enum warm_isa isa,
                 uint32_t n_threads, enum warm_type kv_type, uint64_t table_seed);

/* The same on a backend that runner_deinit() takes over; KV memory stays as the backend made it. */
void runner_init_on(struct runner *r, struct warm_backend *backend, const struct warm_plan *plan,
                    enum warm_type kv_type, uint64_t table_seed);
void runner_deinit(struct runner *r);

/* A row as a prompt has it: sees everything up to itself. */
struct warm_row runner_row(int32_t token, uint32_t slot);

/*
 * Compute tokens [begin, end) in one step; the logits of each go to logits[(slot) * n_vocab]. NULL: nobody wants
 * anything. Aborts if the step is refused.
 */
void runner_step(struct runner *r, const int32_t *tokens, uint32_t begin, uint32_t end,
                 float *logits);
