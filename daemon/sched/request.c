/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and the memory behind them. Nothing here knows of steps.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sched/task.h"

#define ALIGN_BYTES 16U

struct warm_request *warm_request_new(void) {
        struct warm_task *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        t->request.n = 1;
        t->request.sampling = (struct warm_sampling){ .top_p = 1 };
        t->request.trim_uid = (uid_t) -1;
        return &t->request;
}

struct warm_request *warm_request_free(struct warm_request *r) {
        struct warm_task *t = warm_task_of(r);

        if (!r)
                return NULL;
        warm_task_unprepare(t);
        warm_prompt_deinit(&r->prompt);
        free(r->memory);
        free(t);
        return NULL;
}

/* Cuts one allocation into parts: once to measure (base NULL), once to hand out. */
struct carver {
        char *base;
        uint64_t at;
};

static void *carve(struct carver *c, uint64_t n, uint64_t size) {
        void *part = c->base ? c->base + c->at : NULL;

        /* Counts are bounded by contexts and vocabularies (32 bits), sizes by a struct's: no overflow. */
        c->at += (n * size + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
        return part;
}

static void carve_answer(struct carver *c, struct warm_request *r, uint32_t index, uint32_t n_ids) {
        struct warm_request_answer *a = &r->answers[index];

        a->ids = carve(c, n_ids, sizeof(*a->ids));
        if (!r->logprobs)
                return;
        a->logprobs = carve(c, n_ids, sizeof(*a->logprobs));
        for (uint32_t i = 0; i < n_ids; i++) {
                struct warm_top *top = carve(c, r->n_top, sizeof(*top));

                if (c->base)
                        a->logprobs[i].top = top;
        }
}

static void carve_all(struct warm_task *t, struct carver *c, uint32_t n_vocab, uint32_t n_cap,
                      uint32_t n_ids) {
        struct warm_request *r = &t->request;

        for (uint32_t i = 0; i < r->n; i++) {
                struct warm_run *run = &t->runs[i];

                run->tokens = carve(c, n_cap, sizeof(*run->tokens));
                run->n_tokens_cap = n_cap;
                if (r->kind != WARM_REQUEST_COMPLETE)
                        continue;
                if (r->prompt.n_heal > 0)
                        run->allowed = carve(c, ((uint64_t) n_vocab + 63) / 64, sizeof(uint64_t));
                carve_answer(c, r, i, n_ids);
        }
        if (r->n > 1)
                t->logits = carve(c, n_vocab, sizeof(*t->logits));
        if (r->kind == WARM_REQUEST_SCORE)
                r->scores = carve(c, r->prompt.n_ids, sizeof(*r->scores));
}

static void bind_runs(struct warm_task *t) {
        struct warm_request *r = &t->request;

        for (uint32_t i = 0; i < r->n; i++) {
                struct warm_run *run = &t->runs[i];

                run->task = t;
                run->index = i;
                run->refused_at = UINT64_MAX;
                run->heal.prompt = &r->prompt;
                run->sampling = r->sampling;
                run->sampling.allowed = NULL;
                run->sampling.banned = NULL;
                run->sampling.n_banned = 0;
                run->result.logits = t->logits;
        }
}

static int make_answers(struct warm_task *t, uint32_t n_ids, uint32_t token_bytes_max) {
        struct warm_request *r = &t->request;
        uint64_t bytes = (uint64_t) n_ids * token_bytes_max;

        r->answer.n_heal = r->prompt.n_heal;
        if (r->answer.text_bytes_max == 0)
                r->answer.text_bytes_max = bytes < UINT32_MAX ? (uint32_t) bytes : UINT32_MAX;
        for (uint32_t i = 0; i < r->n; i++) {
                int error = warm_answer_new(&r->answer, &r->answers[i].answer);

                if (error < 0)
                        return error;
        }
        return 0;
}

static int prepare_tokens(struct warm_task *t, const struct warm_model *model, uint32_t n_context,
                          uint32_t token_bytes_max) {
        struct warm_request *r = &t->request;
        uint32_t n_max = r->n_max < n_context ? r->n_max : n_context;
        uint32_t n_ids = n_max + r->prompt.n_heal;
        uint32_t n_vocab = model->plan.n_vocab;
        uint64_t n_cap = r->prompt.n_ids;
        struct carver c = { 0 };

        if (r->kind == WARM_REQUEST_COMPLETE)
                n_cap += n_ids;
        else
                r->n = 1;
        if (n_cap > n_context)
                n_cap = n_context;
        if (n_cap < r->prompt.n_ids)
                n_cap = r->prompt.n_ids; /* refused when its turn comes */
        if (r->n_top > WARM_TOP_N_MAX)
                r->n_top = WARM_TOP_N_MAX;
        /* One place more: the last sampled token is known, but never computed. */
        carve_all(t, &c, n_vocab, (uint32_t) n_cap + 1, n_ids);
        t->memory = c.base = calloc(1, c.at);
        if (!t->memory)
                return -ENOMEM;
        c.at = 0;
        carve_all(t, &c, n_vocab, (uint32_t) n_cap + 1, n_ids);
        bind_runs(t);
        memcpy(t->runs[0].tokens, r->prompt.ids, (size_t) r->prompt.n_ids * sizeof(int32_t));
        /* The last token of a text that is scored is never fed: nothing is asked about what follows it. */
        t->runs[0].n_known = r->prompt.n_ids - (r->kind == WARM_REQUEST_SCORE ? 1 : 0);
        for (uint32_t i = 0; i < r->n; i++)
                t->runs[i].n_tokens_cap = (uint32_t) n_cap;
        return r->kind == WARM_REQUEST_COMPLETE ? make_answers(t, n_ids, token_bytes_max) : 0;
}

int warm_task_prepare(struct warm_task *t, const struct warm_model *model, uint32_t n_context,
                      uint32_t token_bytes_max) {
        struct warm_request *r = &t->request;
        int error = 0;

        assert(r->n >= 1 && r->n <= WARM_ALTERNATIVES_MAX);
        switch (r->kind) {
        case WARM_REQUEST_COMPLETE:
        case WARM_REQUEST_WARM:
        case WARM_REQUEST_SCORE:
                assert(r->prompt.n_ids >= 1);
                error = prepare_tokens(t, model, n_context, token_bytes_max);
                break;
        case WARM_REQUEST_STATUS:
                r->status = calloc(1, sizeof(*r->status));
                if (!r->status)
                        error = -ENOMEM;
                break;
        case WARM_REQUEST_EXPLAIN:
        case WARM_REQUEST_TRIM:
                break;
        }
        if (error < 0)
                warm_task_unprepare(t);
        return error;
}

void warm_task_unprepare(struct warm_task *t) {
        struct warm_request *r = &t->request;

        for (uint32_t i = 0; i < WARM_ALTERNATIVES_MAX; i++) {
                assert(!t->runs[i].sequence);
                r->answers[i].answer = warm_answer_free(r->answers[i].answer);
                r->answers[i] = (struct warm_request_answer){ 0 };
                t->runs[i] = (struct warm_run){ 0 };
        }
        free(t->memory);
        free(r->status);
        t->memory = NULL;
        t->logits = NULL;
        r->status = NULL;
        r->scores = NULL;
}

void warm_confidence_add(struct warm_confidence *c, float logprob) {
        if (c->n == 0) {
                c->first = logprob;
                c->lowest = logprob;
        } else if (logprob < c->lowest) {
                c->lowest = logprob;
        }
        c->sum += logprob;
        c->n++;
}

void warm_confidence_settle(const struct warm_confidence *c, struct warm_request_answer *a) {
        if (c->n == 0)
                return;
        a->confidence_mean = (float) exp(c->sum / c->n);
        a->confidence_min = expf(c->lowest);
        a->confidence_first = expf(c->first);
}
