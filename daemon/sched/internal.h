/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine's own state, for the files of daemon/sched/ only.
 *
 * Threads: `inbox` and `events` connect loop and engine; `places` and `serials` are the loop's; counters marked so are
 * atomic; all else is the engine thread's from start to stop, main's before and after.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "sched/batch.h"
#include "sched/engine.h"
#include "sched/kvpool.h"
#include "sched/ring.h"
#include "sched/task.h"

/*
 * Sequences admitted at once. More than a step takes, so that a newcomer shares steps instead of waiting for one to end.
 */
#define WARM_ENGINE_ACTIVE_MAX 64U /* untuned guess */

/*
 * A ring holds at most: one SUBMIT or DONE for each request that lives, one CANCEL or TEXT for each, as many CANCELs
 * whose request has ended since, and one FAULT.
 */
#define WARM_ENGINE_RING_CAPACITY (4U * WARM_ENGINE_REQUESTS_MAX)

enum warm_inbox_kind {
        WARM_INBOX_SUBMIT, /* pointer: the task */
        WARM_INBOX_CANCEL, /* value: its serial */
};

struct warm_engine_model {
        struct warm_model *model; /* owned */
        struct warm_weights *weights;
        struct warm_cache *cache;
        struct warm_kvpool pool;
        uint32_t n_context;
        uint32_t token_bytes_max;
        uint64_t weights_bytes;
        uint64_t block_bytes;
        uint64_t ns_per_step; /* measured over steps without a prompt's chunk; 0: not yet */
        uint64_t ns_per_row;  /* what a row adds to it, measured over prefill steps; 0: not yet */
        struct warm_run
                *next; /* refused for room: nobody else of this model is admitted before it */
};

struct warm_engine {
        struct warm_engine_config config;
        struct warm_backend *backend;
        struct warm_kv_budget budget;
        struct warm_engine_model models[WARM_ENGINE_MODELS_MAX];
        uint32_t n_models;

        struct warm_ring inbox, events;
        pthread_t thread;
        bool started;
        atomic_bool stop;
        _Atomic uint64_t progress;      /* any thread reads */
        atomic_bool measured;           /* then `speed` is constant */
        struct warm_engine_speed speed; /* written by the engine before `measured` */
        atomic_bool soon;        /* a step that may bring an event is about to end; any thread */
        atomic_bool expected;    /* a request is in the making; any thread */
        bool has_cores;          /* to spare for spinning; constant from start on */
        _Atomic uint32_t n_live; /* submitted, DONE not yet pushed; any thread reads */

        /* Thread: loop. What lives, unordered; the id stands beside its task so that cancel scans 8 KiB. */
        struct warm_task *places[WARM_ENGINE_REQUESTS_MAX];
        uint64_t ids[WARM_ENGINE_REQUESTS_MAX];
        uint32_t n_places;
        uint64_t n_submitted;

        /* Thread: engine. */
        struct warm_task *first, *last; /* every task, in order of arrival */
        struct warm_run *active[WARM_ENGINE_ACTIVE_MAX];
        uint32_t n_active;
        uint32_t n_waiting;
        uint64_t n_closed; /* moves when room may have come free */
        bool lost;
        enum warm_fault fault;  /* with fault_text: written before FAULT is pushed, then constant */
        const char *fault_text; /* borrowed from the backend */
        bool has_unsummed;      /* blocks may have come to rest since the last sum */
        struct warm_batch batch;
        uint64_t n_requests, n_steps, n_tokens_prefilled, n_tokens_decoded, busy_ns;
};

static inline struct warm_engine_model *warm_engine_model_of(struct warm_engine *e,
                                                             const struct warm_run *run) {
        return &e->models[run->task->request.model_index];
}

uint64_t warm_now_ns(void); /* CLOCK_MONOTONIC */
/* Until a message waits, as long as there is hope of one; WARM_ENGINE_SPIN_NS at most. Thread: the ring's consumer. */
void warm_engine_spin(const struct warm_ring *r, const atomic_bool *hope);

/* admit.c: from waiting to active and back out. */

/* Let waiting runs in while there are places and room; fail what can never fit. */
void warm_engine_admit(struct warm_engine *e);
/* Put a run among the active ones with a sequence it got; its constraint is set up. May end the run. */
void warm_engine_activate(struct warm_engine *e, struct warm_run *run,
                          struct warm_cache_sequence *sequence);
/*
 * Leave the batch.
 * Return: its sequence or NULL, for warm_cache_close() before anything else is admitted; first, whoever waits is told.
 */
struct warm_cache_sequence *warm_engine_retire(struct warm_engine *e, struct warm_run *run);

/* finish.c: the ends of runs and tasks. */

/* End one answer; the task too when it was the last. */
void warm_engine_end_run(struct warm_engine *e, struct warm_run *run, enum warm_finish why);
/* End every answer of a task with the best text so far, and hand it back. */
void warm_engine_end_task(struct warm_engine *e, struct warm_task *t, enum warm_finish why);
/* Hand a task back without an answer. */
void warm_engine_fail_task(struct warm_engine *e, struct warm_task *t, enum warm_failure failure);
/* Tell the loop how much text of answers[0] is stable now. */
void warm_engine_publish(struct warm_engine *e, struct warm_task *t);

/* decode.c: what a computed step means. */

/* The row that samples was computed: take its token, fork the alternatives. */
void warm_engine_take_result(struct warm_engine *e, struct warm_run *run, uint64_t now_ns);
/*
 * Set up the constraint of the next sampling row: allowed tokens, or the forced ones as known tokens.
 * Return: WARM_FINISH_NONE; else why the run must end.
 */
enum warm_finish warm_engine_constrain(struct warm_engine *e, struct warm_run *run);
