/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: one thread that owns backend, caches and the batch, and runs steps while there is work.
 *
 * The loop thread hands in requests and takes events; both travel as fixed-size messages through two bounded rings
 * with an eventfd each. No lock is held over a step. A request belongs to the engine from submit until its
 * WARM_EVENT_DONE was taken by the loop; between them the loop may read only what the docstrings allow.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/cache.h"
#include "kernels/backend.h"
#include "model/answer.h"
#include "model/model.h"
#include "model/prompt.h"

#define WARM_ALTERNATIVES_MAX    4U
#define WARM_ENGINE_MODELS_MAX   16U
#define WARM_ENGINE_REQUESTS_MAX 1024U /* waiting and running together */
#define WARM_ENGINE_BATCH_MAX    16U   /* sequences in one step (untuned guess) */
#define WARM_ENGINE_SPIN_NS                                                                        \
        160000U /* the GPU's timer is 120 us early, a thread wakes up in 10 to 50, steps differ by some 30 */

enum {
        WARM_ENGINE_E_BUSY = 1, /* WARM_ENGINE_REQUESTS_MAX reached */
};

enum warm_request_kind {
        WARM_REQUEST_COMPLETE,
        WARM_REQUEST_WARM,    /* prefill only */
        WARM_REQUEST_SCORE,   /* log-probabilities of a text's own tokens */
        WARM_REQUEST_EXPLAIN, /* what a prompt would hit; computes nothing */
        WARM_REQUEST_TRIM,
        WARM_REQUEST_STATUS,
};

enum warm_failure {
        WARM_FAILURE_NONE,
        WARM_FAILURE_NO_ROOM, /* KV memory: the prompt and n_max do not fit even in an empty cache */
        WARM_FAILURE_MEMORY,
        WARM_FAILURE_BACKEND,
        WARM_FAILURE_SHUTDOWN,
        WARM_FAILURE_BUSY, /* a measurement wants the device alone, and others have work */
};

struct warm_token_logprob {
        int32_t token;
        float logprob;
        uint32_t n_top;
        struct warm_top *top; /* [n_top] within the request's memory */
};

/* One answer; a request has n of them, the first is the greedy or first sampled one. */
struct warm_request_answer {
        struct warm_answer *answer; /* text; the engine's until DONE */
        int32_t *ids; /* [n_ids] sampled tokens, healing's included, a final control token not */
        struct warm_token_logprob *logprobs; /* [n_ids], if asked for */
        uint32_t n_ids;
        enum warm_finish
                finish; /* WARM, SCORE: answers[0]'s says why it was cut short; NONE: whole */
        float confidence_mean; /* exp(mean logprob): geometric mean, from raw logits; 0..1 */
        float confidence_min;
        float confidence_first;
};

struct warm_model_status {
        const struct warm_model *model;
        uint64_t weights_bytes;
        uint64_t kv_bytes;
        uint64_t kv_bytes_max;
        uint32_t n_context;   /* tokens a sequence may hold */
        uint64_t block_bytes; /* of 32 tokens, of all groups but states */
        struct warm_cache_stats cache;
};

/* What the device can do at most, as warm_backend_measure(); 0: not measured yet, or it cannot tell. */
struct warm_engine_speed {
        double copy_bytes_per_s;
        double flop_per_s;
};

struct warm_engine_status {
        struct warm_backend_info backend;
        uint32_t n_waiting, n_running;
        uint64_t n_requests, n_steps, n_tokens_prefilled, n_tokens_decoded;
        uint64_t busy_ns;
        uint64_t n_memory_short; /* times that the device had no memory for a chunk of KV */
        uint32_t n_models;
        struct warm_model_status models[WARM_ENGINE_MODELS_MAX];
};

struct warm_request {
        /* The loop fills these before submit. */
        uint64_t id; /* unique while it lives */
        enum warm_request_kind kind;
        uid_t uid;
        uint32_t model_index;
        uint64_t stream; /* 0: none; a newer request on it ends the older one */
        bool supersede;
        bool progress;             /* WARM_EVENT_TEXT wanted */
        struct warm_prompt prompt; /* owned */
        uint32_t n;                /* answers, 1 .. WARM_ALTERNATIVES_MAX */
        uint32_t n_max;            /* sampled tokens at most, healing's not counted */
        uint32_t
                n_top; /* logprobs: alternatives listed per token; 0 with logprobs: only the chosen */
        bool logprobs;
        struct warm_sampling sampling;    /* allowed and banned are the engine's */
        struct warm_answer_config answer; /* borrows from `memory` */
        uint64_t arrival_ns;              /* CLOCK_MONOTONIC, first byte of the frame complete */
        uint64_t deadline_ns;             /* absolute; 0: none */
        uint64_t t_predict_ns;            /* from the first token; 0: none */
        bool measure;                     /* STATUS: measure the device, if nobody did before */
        uid_t trim_uid;                   /* TRIM: whose; (uid_t) -1: everybody's */
        void *owner;                      /* the loop's */
        void *memory; /* what the fields above borrow from; freed with the request */

        /* The engine fills these; the loop reads them after DONE (text: see warm_engine_next). */
        enum warm_failure failure;
        struct warm_request_answer answers[WARM_ALTERNATIVES_MAX];
        uint32_t n_answers;
        struct warm_cache_hit hit;
        float *scores; /* SCORE: [prompt.n_ids], of each token after the first; scores[0] = 0 */
        uint64_t queue_ns, prefill_ns; /* durations */
        uint64_t first_ns;             /* CLOCK_MONOTONIC of the first shown byte; 0: none */
        uint64_t done_ns;
        uint64_t engine_ns; /* first step's start to last step's end */
        uint32_t n_heal_steps;
        uint64_t n_trimmed_blocks;         /* TRIM */
        struct warm_engine_status *status; /* STATUS: owned */
};

struct warm_request *warm_request_new(void);
/* Frees prompt, answers, memory. Takes NULL, returns NULL. */
struct warm_request *warm_request_free(struct warm_request *r);

/* Why the backend cannot be used any more. */
enum warm_fault {
        WARM_FAULT_LOST, /* it said so */
        WARM_FAULT_HUNG, /* a step was not done within the limit */
};

enum warm_event_kind {
        WARM_EVENT_TEXT,  /* request->answers[0] has n_bytes bytes to show */
        WARM_EVENT_DONE,  /* the request is the loop's again */
        WARM_EVENT_FAULT, /* the backend is lost: end the process */
};

struct warm_event {
        enum warm_event_kind kind;
        struct warm_request *request;
        uint64_t n_bytes; /* TEXT: bytes 0 .. n_bytes of its text are stable and may be read now */
        const char *text; /* TEXT: [n_bytes], borrowed until the request is freed */
        enum warm_fault fault;  /* FAULT */
        const char *fault_text; /* FAULT: what the backend says of it, borrowed from it; or NULL */
};

struct warm_engine_config {
        struct warm_backend *backend; /* owned by the engine from warm_engine_new on */
        enum warm_type kv_type;
        uint64_t
                kv_bytes_max; /* of all models together; 0: 16 contexts, at most a quarter of what is free */
        uint32_t n_context_max; /* 0: the model's */
        uint32_t chunk_ns;      /* what a step with prefill takes, about; 0: 20 ms (untuned) */
        uint64_t step_limit_ns; /* a step that takes longer hangs; 0: 10 s (untuned) */
        uint32_t
                await_cores_min; /* so many let loop and engine spin for each other; 0: 4 (untuned) */
        uint64_t cut_seed;       /* tests: not 0: prefill is cut at random lengths drawn from it */
};

struct warm_engine;

/* Thread: main, before warm_engine_start. Return: 0; -errno (the backend is still the caller's). */
int warm_engine_new(const struct warm_engine_config *config, struct warm_engine **ret_engine);

/*
 * Load a model's weights, finish it (warm_model_finish()), reserve its KV memory, drop its file. The engine owns the
 * model from then on.
 * Return: 0 and *ret_model_index; -ENOMEM, WARM_BACKEND_E_MEMORY, -EOPNOTSUPP, -EINVAL with *ret_why; what
 * warm_model_finish() returned, with *ret_why; -ENOSPC:
 * WARM_ENGINE_MODELS_MAX reached; -EINVAL without: kv_bytes_max holds not one block. Then it is still the caller's.
 */
int warm_engine_add_model(struct warm_engine *e, struct warm_model *model,
                          uint32_t *ret_model_index, char **ret_why);
const struct warm_model *warm_engine_model(struct warm_engine *e,
                                           uint32_t model_index); /* any thread */
uint32_t warm_engine_n_models(struct warm_engine *e);
uint32_t warm_engine_n_context(struct warm_engine *e, uint32_t model_index);
/* Bytes of the model's weights on the device, and of the K and V of one token. Any thread. */
uint64_t warm_engine_weights_bytes(struct warm_engine *e, uint32_t model_index);
uint64_t warm_engine_token_bytes(struct warm_engine *e, uint32_t model_index);
/* As last measured for a STATUS request. Any thread. */
struct warm_engine_speed warm_engine_speed(struct warm_engine *e);

/* The ceiling of all models' KV memory together. Thread: main, before warm_engine_start. */
uint64_t warm_engine_kv_bytes_max(const struct warm_engine *e);
/*
 * Take all KV memory up to the ceiling now, each model an equal share, so that nobody else can.
 * Thread: main, before warm_engine_start. Return: 0; WARM_BACKEND_E_MEMORY: the device does not have it.
 */
int warm_engine_take_kv(struct warm_engine *e);

int warm_engine_start(struct warm_engine *e);
/*
 * Finish every request with WARM_FAILURE_SHUTDOWN and join the thread. Their DONE events can still be taken; nothing
 * may be submitted any more. Harmless when not started or stopped before. Thread: loop.
 */
void warm_engine_stop(struct warm_engine *e);
/* Stop, free all, requests whose DONE was not taken included. Takes NULL, returns NULL. Thread: loop. */
struct warm_engine *warm_engine_free(struct warm_engine *e);

/*
 * All memory that the request can need is taken here. Thread: loop.
 * Return: 0: the engine's now; WARM_ENGINE_E_BUSY, -ENOMEM: still the caller's.
 */
int warm_engine_submit(struct warm_engine *e, struct warm_request *r);
/* Takes effect at the next step; unknown ids are ignored. The request still ends with DONE. */
void warm_engine_cancel(struct warm_engine *e, uint64_t request_id);

/* Readable while events wait. Thread: loop. */
int warm_engine_event_fd(struct warm_engine *e);
/* Return: true and *ret_event, or false when none waits (the fd is then quiet until the next). */
bool warm_engine_next(struct warm_engine *e, struct warm_event *ret_event);
/* Whether it would be true now. Costs no system call, and leaves the fd as it is. */
bool warm_engine_has_event(const struct warm_engine *e);

/*
 * Spin until an event waits, WARM_ENGINE_SPIN_NS at most, if the engine said that a step is about to end which may bring
 * one. Else it returns at once. Thread: loop.
 */
void warm_engine_await(struct warm_engine *e);

/*
 * A request is in the making: an engine that has nothing to do wakes up now, not when it is submitted, and spins for it,
 * WARM_ENGINE_SPIN_NS at most. Nothing happens where cores are few. Thread: loop.
 */
void warm_engine_expect(struct warm_engine *e);

/* For the watchdog: a counter that moves while the engine is alive, and whether it has work. Any thread. */
uint64_t warm_engine_progress(struct warm_engine *e, bool *ret_has_work);
