/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The next step: which runs are in it, with how many of their tokens, as the backend wants it.
 *
 * One model a step; models with work take turns. Up to WARM_ENGINE_BATCH_MAX runs: every decoding run first (one row
 * each; the least recently served first where there are more), prefill in what is left of the rows that fit into the
 * time of a chunk. Between runs: completions before scores before warming, then uids in turn, then the newest first.
 * Beside others warming gets a few rows only: it delays nobody, and still ends.
 *
 * Embedded in the engine; arrays are taken once. Thread: engine.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "sched/engine.h"

#define WARM_BATCH_UIDS                                                                            \
        64U /* slots of the turn table; two uids in one slot only share their turn */

struct warm_run;

struct warm_batch_entry {
        struct warm_run *run;
        uint32_t first_row;
        uint32_t n_rows;
};

struct warm_batch {
        struct warm_row *rows;       /* [WARM_STEP_ROWS_MAX], owned */
        struct warm_result *results; /* [WARM_STEP_ROWS_MAX], owned: rows that are scored */
        struct warm_block_copy copies[WARM_STEP_COPIES_MAX];
        struct warm_step_sequence sequences[WARM_ENGINE_BATCH_MAX];
        struct warm_batch_entry entries[WARM_ENGINE_BATCH_MAX];
        struct warm_step step;
        uint32_t n_entries;
        uint32_t n_rows, n_copies;
        uint32_t n_prefill_rows;
        uint32_t model_index; /* of the step under way; the next one starts its search behind it */
        uint64_t turns[WARM_BATCH_UIDS]; /* the step in which a uid last had prefill rows */
        uint64_t cut_state;              /* tests: generator of random cuts; 0: cut by time */
};

struct warm_engine;

/* Return: 0; -ENOMEM. */
int warm_batch_init(struct warm_batch *b, uint64_t cut_seed);
void warm_batch_deinit(struct warm_batch *b);

/* Fill the step from the active runs and begin their slots. Return: false: there is nothing to compute. */
bool warm_batch_fill(struct warm_engine *e);
/* The step was computed: its tokens are the sequences' now. */
void warm_batch_commit(struct warm_engine *e);
/* It was not: the sequences are as before. */
void warm_batch_rollback(struct warm_engine *e);
/* Learn what a row costs. */
void warm_batch_measure(struct warm_engine *e, uint64_t step_ns);
