/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How runs and tasks end, and what the loop is told. Every task ends by exactly one DONE. Sequences are closed after it:
 * nobody who waits for the answer waits for that, and whatever is asked next comes after it.
 */
#include <assert.h>

#include "sched/internal.h"

static void push_event(struct warm_engine *e, enum warm_event_kind kind, struct warm_task *t) {
        int error = warm_ring_push(&e->events,
                                   (struct warm_message){ .kind = (uint32_t) kind, .pointer = t });

        assert(error == 0); /* the ring holds all that can wait: see WARM_ENGINE_RING_CAPACITY */
}

void warm_engine_publish(struct warm_engine *e, struct warm_task *t) {
        struct warm_request *r = &t->request;
        struct warm_string text = warm_answer_text(r->answers[0].answer);

        if (text.n == 0 || text.n == atomic_load_explicit(&t->n_bytes, memory_order_relaxed))
                return;
        if (r->first_ns == 0) {
                r->first_ns = warm_now_ns();
                t->text = text.data; /* stays there: the answer's buffer never moves */
        }
        assert(text.data == t->text);
        atomic_store_explicit(&t->n_bytes, text.n, memory_order_release);
        if (r->progress && !atomic_exchange(&t->text_queued, true))
                push_event(e, WARM_EVENT_TEXT, t);
}

static void hand_back(struct warm_engine *e, struct warm_task *t) {
        struct warm_request *r = &t->request;

        for (uint32_t i = 0; i < t->n_runs; i++)
                assert(t->runs[i].state == WARM_RUN_ENDED);
        if (r->kind == WARM_REQUEST_COMPLETE && r->failure == WARM_FAILURE_NONE)
                r->n_answers = t->n_runs;
        r->done_ns = warm_now_ns();
        if (t->start_ns == 0)
                r->queue_ns = r->done_ns - r->arrival_ns;
        if (t->previous)
                t->previous->next = t->next;
        else
                e->first = t->next;
        if (t->next)
                t->next->previous = t->previous;
        else
                e->last = t->previous;
        atomic_fetch_sub(&e->n_live, 1);
        push_event(e, WARM_EVENT_DONE, t); /* the loop's from here on */
}

static void settle_answer(struct warm_run *run, enum warm_finish why) {
        struct warm_request *r = &run->task->request;
        struct warm_request_answer *a = &r->answers[run->index];

        if (r->kind == WARM_REQUEST_COMPLETE) {
                why = warm_answer_end(a->answer, why);
                warm_confidence_settle(&run->confidence, a);
                if (run->index == 0 && r->first_ns == 0 && warm_answer_text(a->answer).n > 0)
                        r->first_ns = warm_now_ns();
        }
        a->finish = why;
}

static bool all_ended(const struct warm_task *t) {
        for (uint32_t i = 0; i < t->n_runs; i++)
                if (t->runs[i].state != WARM_RUN_ENDED)
                        return false;
        return true;
}

void warm_engine_end_run(struct warm_engine *e, struct warm_run *run, enum warm_finish why) {
        struct warm_cache_sequence *sequence;

        assert(run->state != WARM_RUN_ENDED);
        settle_answer(run, why);
        sequence = warm_engine_retire(e, run);
        if (all_ended(run->task))
                hand_back(e, run->task);
        warm_cache_close(sequence);
}

/* With every answer: what they held is closed after the task is gone. */
static void end_all(struct warm_engine *e, struct warm_task *t, bool settle, enum warm_finish why) {
        struct warm_cache_sequence *sequences[WARM_ALTERNATIVES_MAX] = { NULL };

        for (uint32_t i = 0; i < t->n_runs; i++) {
                if (t->runs[i].state == WARM_RUN_ENDED)
                        continue;
                if (settle)
                        settle_answer(&t->runs[i], why);
                sequences[i] = warm_engine_retire(e, &t->runs[i]);
        }
        hand_back(e, t);
        for (uint32_t i = 0; i < WARM_ALTERNATIVES_MAX; i++)
                warm_cache_close(sequences[i]);
}

void warm_engine_end_task(struct warm_engine *e, struct warm_task *t, enum warm_finish why) {
        end_all(e, t, true, why);
}

void warm_engine_fail_task(struct warm_engine *e, struct warm_task *t, enum warm_failure failure) {
        t->request.failure = failure;
        end_all(e, t, false, WARM_FINISH_NONE);
}
