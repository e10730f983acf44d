/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task is a request as the engine sees it; a run is one of its answers: a token list that is fed to the model.
 *
 * A run's tokens are known (prompt, then what was forced or sampled) before they are computed; sequence->n_tokens of
 * them have KV. While n_known - n_tokens > 1 it prefills, at 1 it decodes: the step that computes the last known
 * token samples the next.
 *
 * All memory of a task is taken at submit, in one piece (beside the answers, which own theirs). Owner: the engine from
 * submit until the loop took DONE. Thread: engine, but for what is marked.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "sched/engine.h"
#include "sched/heal.h"

struct warm_task;

enum warm_run_state {
        WARM_RUN_ABSENT,  /* not begun: an alternative before the first token was sampled */
        WARM_RUN_WAITING, /* for room in the cache or a place among the running */
        WARM_RUN_ACTIVE,  /* has a sequence */
        WARM_RUN_ENDED,
};

/* From raw log-probabilities of tokens that brought bytes to show. */
struct warm_confidence {
        double sum;
        float lowest, first;
        uint32_t n;
};

struct warm_run {
        struct warm_task *task;
        uint32_t index; /* which answer */
        enum warm_run_state state;
        struct warm_cache_sequence *sequence; /* owned; set while active */
        int32_t *tokens;                      /* [n_tokens_cap] */
        uint32_t n_tokens_cap;                /* also what the cache reserves */
        uint32_t n_known;
        uint32_t n_counted;  /* sampled tokens that n_max counts */
        uint64_t last_step;  /* the step that served it last; 0: none */
        uint64_t refused_at; /* engine's n_closed when the cache had no room; UINT64_MAX: never */
        uint64_t *allowed;   /* bitmap of the vocabulary; NULL: nothing to heal */
        struct warm_heal heal;
        struct warm_sampling sampling;
        struct warm_confidence confidence;
        struct warm_result result;
};

struct warm_task {
        struct warm_request request; /* first: the same address */
        struct warm_task *previous, *next;
        uint64_t serial; /* order of arrival; never used twice */
        uint32_t n_runs; /* begun: 1, later up to request.n */
        struct warm_run runs[WARM_ALTERNATIVES_MAX];
        float *logits; /* [n_vocab] for choosing alternatives; NULL when n == 1 */
        uint64_t start_ns, first_token_ns;
        void *memory;
        _Atomic uint64_t n_bytes; /* of answers[0]'s text, published; any thread */
        const char *text;         /* where that text lies; set before the first event of it */
        atomic_bool text_queued;  /* a TEXT event for it is in the ring; any thread */
        uint32_t place;           /* in the loop's table of what lives; thread: loop */
        bool cancelled;           /* the loop sent it once; thread: loop */
};

static inline struct warm_task *warm_task_of(struct warm_request *r) {
        return (struct warm_task *) (void *) r;
}

/*
 * Take all memory that the request can need. Thread: loop, at submit.
 * @param n_context tokens a sequence may hold
 * @param token_bytes_max longest text of a token
 * Return: 0; -ENOMEM.
 */
int warm_task_prepare(struct warm_task *t, const struct warm_model *model, uint32_t n_context,
                      uint32_t token_bytes_max);
/* Undo it: the request is the caller's as before. */
void warm_task_unprepare(struct warm_task *t);

static inline bool warm_run_prefills(const struct warm_run *run) {
        return run->n_known - run->sequence->n_tokens > 1;
}

void warm_confidence_add(struct warm_confidence *c, float logprob);
/* Write the three figures; all 0 where nothing was shown. */
void warm_confidence_settle(const struct warm_confidence *c, struct warm_request_answer *a);
