/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend whose KV is the tokens themselves: the oracle of the scheduler's tests.
 *
 * A block stores 32 token ids; copies copy them; the logits of a row are a pure function of the tokens found in the
 * slots it sees. So a wrong block, a copy that was forgotten or ran too late, a slot overwritten by a stranger: all
 * show as a wrong token. What is outside the contract (a slot never written, a block without memory) aborts.
 *
 * A model may have a state group beside (group 1): a state is the hash that makes the logits, and its length, and the
 * state must be that of the tokens in the slots.
 *
 * It is greedy whatever the temperature. Knobs may be turned by the test's thread at any time.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "model/model.h"

#define FAKE_VOCAB       320U /* 256 bytes, merges, control tokens; rows beyond are padding */
#define FAKE_CONTEXT_MAX 4096U
#define FAKE_BLOCKS      16U /* a chunk */
#define FAKE_GROUPS      2U
#define FAKE_END_TOKEN   319
#define FAKE_BARRED_BYTE 1 /* no token may spell it: healing must force its own */

struct fake_backend {
        struct warm_backend base;
        /* Knobs. */
        _Atomic uint64_t step_ns;      /* what a step takes, in submit */
        _Atomic uint64_t row_ns;       /* and so much more for each of its rows */
        _Atomic uint64_t async_ns;     /* or: submit returns at once, poll is pending for so long */
        _Atomic uint64_t early_ns;     /* and the fd says so this much before */
        _Atomic uint64_t lose_at;      /* the n-th step is lost (from 1); 0: never */
        atomic_bool lose_in_poll;      /* in poll, not in submit */
        _Atomic uint64_t hang_at;      /* the n-th step is never done, its fd stays quiet */
        atomic_bool lose_hanging;      /* from now on the step that hangs is lost, fd as quiet */
        _Atomic uint64_t n_chunks_max; /* of all weights together; then WARM_BACKEND_E_MEMORY */
        _Atomic uint64_t memory_free;
        atomic_bool never_ends; /* no context ends by itself */
        /* What was seen. */
        _Atomic uint64_t n_steps, n_rows, n_chunks, n_copies, n_sums, n_measured;
        _Atomic int measure_result;
        _Atomic uint64_t
                n_resumed; /* sequences of a step that found their state in another block */
        _Atomic uint32_t n_sequences_most, n_prefill_rows_most;
        int timer_fd;
        uint64_t due_ns, ticket;
        struct warm_weights *pending_weights;
        const struct warm_step *pending_step;
};

struct fake_backend *fake_backend_new(void);

/* The logits that follow these tokens. @param ret_logits [FAKE_VOCAB] */
void fake_logits(const int32_t *tokens, uint32_t n_tokens, bool never_ends, float *ret_logits);
/* The largest logit among the allowed (NULL: all), the lowest id among equals; -1: none is allowed. */
int32_t fake_choose(const float *logits, const uint64_t *allowed);
float fake_logprob(const float *logits, int32_t token);

/* A model that fits it: bytes, some merges, control tokens; n_context positions. Freed by warm_model_free(). */
struct warm_model *fake_model_new(const char *name, uint32_t n_context);
/* Give it a second layer, with a state. */
void fake_model_add_state(struct warm_model *m);
