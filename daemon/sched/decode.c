/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a sampled token to text: healing, ends, limits, alternatives, confidence.
 */
#include <assert.h>
#include <string.h>

#include "sched/internal.h"

struct candidate {
        int32_t token;
        float logit;
};

static const struct warm_model *model_of(struct warm_engine *e, const struct warm_run *run) {
        return warm_engine_model_of(e, run)->model;
}

/* Whether a token brings text; all others end the answer. */
static bool is_text(const struct warm_model *m, int32_t token) {
        if (token < 0 || (uint32_t) token >= warm_vocab_n_tokens(m->vocab) ||
            warm_model_is_end(m, token))
                return false;
        switch (warm_vocab_kind_of(m->vocab, token)) {
        case WARM_TOKEN_UNKNOWN:
        case WARM_TOKEN_CONTROL:
        case WARM_TOKEN_UNUSED:
                return false;
        default:
                return true;
        }
}

/* The token is part of the answer from now on and will be computed if it goes on. */
static void append(struct warm_run *run, int32_t token, float logprob,
                   const struct warm_result *top) {
        struct warm_request_answer *a = &run->task->request.answers[run->index];

        run->tokens[run->n_known++] = token;
        a->ids[a->n_ids] = token;
        if (a->logprobs) {
                struct warm_token_logprob *l = &a->logprobs[a->n_ids];

                l->token = token;
                l->logprob = logprob;
                l->n_top = top ? top->n_top : 0;
                if (l->n_top > 0)
                        memcpy(l->top, top->top, l->n_top * sizeof(*l->top));
        }
        a->n_ids++;
}

/* Nothing of the vocabulary goes on from here: the piece's own tokens, which are certain, not sampled. */
static enum warm_finish force(struct warm_engine *e, struct warm_run *run) {
        const struct warm_model *m = model_of(e, run);
        struct warm_request *r = &run->task->request;
        enum warm_finish why = WARM_FINISH_NONE;
        uint32_t first;

        if (!warm_heal_canonical(&run->heal, m->vocab, &first))
                return WARM_FINISH_END;
        for (uint32_t i = first; i < r->prompt.n_heal_ids && why == WARM_FINISH_NONE; i++) {
                struct warm_string text = warm_vocab_text(m->vocab, r->prompt.heal_ids[i]);

                if (run->n_known >= run->n_tokens_cap)
                        return WARM_FINISH_LENGTH;
                append(run, r->prompt.heal_ids[i], 0, NULL);
                warm_heal_take(&run->heal, text);
                why = warm_answer_push(r->answers[run->index].answer, text.data, text.n);
        }
        return why;
}

enum warm_finish warm_engine_constrain(struct warm_engine *e, struct warm_run *run) {
        enum warm_finish why = WARM_FINISH_NONE;

        run->sampling.allowed = NULL;
        if (run->task->request.kind != WARM_REQUEST_COMPLETE || warm_heal_left(&run->heal) == 0)
                return WARM_FINISH_NONE;
        if (warm_heal_allow(&run->heal, model_of(e, run)->vocab, run->allowed) > 0)
                run->sampling.allowed = run->allowed;
        else
                why = force(e, run);
        return why;
}

static enum warm_finish limits(const struct warm_run *run, uint64_t now_ns) {
        const struct warm_task *t = run->task;
        const struct warm_request *r = &t->request;

        if (run->n_counted >= r->n_max || run->n_known > run->n_tokens_cap)
                return WARM_FINISH_LENGTH;
        if (r->t_predict_ns > 0 && now_ns - t->first_token_ns >= r->t_predict_ns &&
            warm_answer_at_line_end(r->answers[run->index].answer))
                return WARM_FINISH_TIME;
        return WARM_FINISH_NONE;
}

/* Return: why the run must end, or WARM_FINISH_NONE. */
static enum warm_finish take_token(struct warm_engine *e, struct warm_run *run,
                                   struct candidate chosen, const struct warm_result *top,
                                   uint64_t now_ns) {
        const struct warm_model *m = model_of(e, run);
        struct warm_request *r = &run->task->request;
        uint32_t left = warm_heal_left(&run->heal);
        struct warm_string text;
        enum warm_finish why;

        if (!is_text(m, chosen.token))
                return WARM_FINISH_END;
        text = warm_vocab_text(m->vocab, chosen.token);
        if (left > 0 && text.n == 0)
                return WARM_FINISH_END; /* would spell nothing for ever */
        append(run, chosen.token, chosen.logit, top);
        if (left > 0) {
                warm_heal_take(&run->heal, text);
                r->n_heal_steps += run->index == 0;
        } else {
                run->n_counted++;
        }
        if (text.n > left)
                warm_confidence_add(&run->confidence, chosen.logit);
        why = warm_answer_push(r->answers[run->index].answer, text.data, text.n);
        if (why == WARM_FINISH_NONE)
                why = limits(run, now_ns);
        if (why == WARM_FINISH_NONE)
                why = warm_engine_constrain(e, run);
        return why;
}

/*
 * The most likely other tokens that bring text and are allowed, descending, the lowest id first among equals.
 * Return: how many.
 */
static uint32_t pick_others(struct warm_engine *e, const struct warm_run *run,
                            struct candidate *ret_others) {
        const struct warm_model *m = model_of(e, run);
        const float *logits = run->task->logits;
        const uint64_t *allowed = run->sampling.allowed;
        uint32_t most = run->task->request.n - 1, n = 0;

        for (uint32_t id = 0; id < m->plan.n_vocab; id++) {
                uint32_t at = n;

                if ((n == most && !(logits[id] > ret_others[n - 1].logit)) ||
                    (allowed && !(allowed[id / 64] >> (id % 64) & 1)) ||
                    (int32_t) id == run->result.token || !is_text(m, (int32_t) id))
                        continue;
                if (n < most)
                        n++;
                else
                        at--;
                for (; at > 0 && logits[id] > ret_others[at - 1].logit; at--)
                        ret_others[at] = ret_others[at - 1];
                ret_others[at] = (struct candidate){ (int32_t) id, logits[id] };
        }
        return n;
}

/* Go on from where run 0 stands; if the cache has no room now, wait for it like any other. */
static void fork_run(struct warm_engine *e, struct warm_run *source, struct warm_run *run) {
        struct warm_request *r = &run->task->request;
        struct warm_cache_sequence *sequence;
        int error = WARM_CACHE_E_FULL;

        memcpy(run->tokens, source->tokens, r->prompt.n_ids * sizeof(*run->tokens));
        run->n_known = r->prompt.n_ids;
        run->heal.n_spelled = source->heal.n_spelled;
        /* What the source has already was forced before there was a choice: the same for all. */
        for (uint32_t i = 0; i < r->answers[source->index].n_ids; i++) {
                int32_t token = r->answers[source->index].ids[i];
                struct warm_string text = warm_vocab_text(model_of(e, run)->vocab, token);

                append(run, token, 0, NULL);
                warm_answer_push(r->answers[run->index].answer, text.data, text.n);
        }
        if (e->n_active < WARM_ENGINE_ACTIVE_MAX) {
                warm_kvpool_grow(&warm_engine_model_of(e, run)->pool,
                                 (run->n_tokens_cap - run->n_known) / WARM_BLOCK_TOKENS + 2);
                error = warm_cache_fork(source->sequence, source->sequence->n_tokens,
                                        run->n_tokens_cap, &sequence);
        }
        if (error != 0) {
                run->state = WARM_RUN_WAITING;
                e->n_waiting++;
                return;
        }
        run->sequence = sequence;
        run->state = WARM_RUN_ACTIVE;
        e->active[e->n_active++] = run;
}

static void begin_others(struct warm_engine *e, struct warm_run *source,
                         enum warm_finish *ret_whys) {
        struct warm_task *t = source->task;
        struct candidate others[WARM_ALTERNATIVES_MAX];
        uint32_t n = pick_others(e, source, others);

        for (uint32_t i = 0; i < n; i++)
                fork_run(e, source, &t->runs[1 + i]);
        for (uint32_t i = 0; i < n; i++) {
                struct candidate c = others[i];

                /* Raw log-probabilities differ as the logits do. */
                c.logit = source->result.logprob + (c.logit - t->logits[source->result.token]);
                ret_whys[1 + i] =
                        take_token(e, &t->runs[1 + i], c, &source->result, t->first_token_ns);
        }
        t->n_runs = 1 + n;
}

void warm_engine_take_result(struct warm_engine *e, struct warm_run *run, uint64_t now_ns) {
        struct warm_task *t = run->task;
        enum warm_finish whys[WARM_ALTERNATIVES_MAX] = { WARM_FINISH_NONE };
        struct candidate chosen = { run->result.token, run->result.logprob };
        bool first = t->first_token_ns == 0;

        if (first)
                t->first_token_ns = now_ns;
        if (first && t->request.n > 1 && chosen.token >= 0)
                begin_others(e, run, whys);
        whys[run->index] = take_token(e, run, chosen, &run->result, now_ns);
        if (run->index == 0 && whys[0] == WARM_FINISH_NONE)
                warm_engine_publish(e, t);
        for (uint32_t i = 0, n = t->n_runs; i < n; i++)
                if (whys[i] != WARM_FINISH_NONE)
                        warm_engine_end_run(e, &t->runs[i], whys[i]);
}
