/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop's side of the engine: what it hands in, what it takes. It keeps a table of what lives, so that a cancel
 * goes out once, and only for a request whose DONE was not taken.
 */
#include <assert.h>

#include "sched/internal.h"

int warm_engine_submit(struct warm_engine *e, struct warm_request *r) {
        struct warm_task *t = warm_task_of(r);
        struct warm_engine_model *m = &e->models[r->model_index];
        int error;

        assert(r->model_index < e->n_models);
        if (e->n_places == WARM_ENGINE_REQUESTS_MAX)
                return WARM_ENGINE_E_BUSY;
        error = warm_task_prepare(t, m->model, m->n_context, m->token_bytes_max);
        if (error < 0)
                return error;
        t->serial = ++e->n_submitted;
        t->place = e->n_places++;
        e->places[t->place] = t;
        e->ids[t->place] = r->id;
        atomic_fetch_add(&e->n_live, 1);
        error = warm_ring_push(&e->inbox,
                               (struct warm_message){ .kind = WARM_INBOX_SUBMIT, .pointer = t });
        assert(error == 0); /* see WARM_ENGINE_RING_CAPACITY */
        return 0;
}

void warm_engine_cancel(struct warm_engine *e, uint64_t request_id) {
        for (uint32_t i = 0; i < e->n_places; i++) {
                struct warm_task *t = e->places[i];
                int error;

                if (e->ids[i] != request_id || t->cancelled)
                        continue;
                t->cancelled = true;
                /* Its serial, not its address: it may end before the engine reads this. */
                error = warm_ring_push(&e->inbox, (struct warm_message){ .kind = WARM_INBOX_CANCEL,
                                                                         .value = t->serial });
                assert(error == 0);
                return;
        }
}

int warm_engine_event_fd(struct warm_engine *e) {
        return e->events.fd;
}

static void leave(struct warm_engine *e, struct warm_task *t) {
        uint32_t last = --e->n_places;

        assert(e->places[t->place] == t);
        e->places[t->place] = e->places[last];
        e->ids[t->place] = e->ids[last];
        e->places[t->place]->place = t->place;
}

bool warm_engine_next(struct warm_engine *e, struct warm_event *ret_event) {
        struct warm_message message;
        struct warm_task *t;

        if (!warm_ring_pop(&e->events, &message))
                return false;
        t = message.pointer;
        *ret_event = (struct warm_event){ .kind = message.kind };
        if (t)
                ret_event->request = &t->request;
        if (message.kind == WARM_EVENT_TEXT) {
                /* In this order: text published from here on comes as another event. */
                atomic_store(&t->text_queued, false);
                ret_event->n_bytes = atomic_load_explicit(&t->n_bytes, memory_order_acquire);
                ret_event->text = t->text;
        } else if (message.kind == WARM_EVENT_DONE) {
                leave(e, t);
        } else {
                ret_event->fault = e->fault;
                ret_event->fault_text = e->fault_text;
        }
        return true;
}

void warm_engine_expect(struct warm_engine *e) {
        if (!e->has_cores || atomic_load(&e->n_live) > 0)
                return; /* it is awake */
        atomic_store(&e->expected, true);
        warm_ring_wake(&e->inbox);
}

bool warm_engine_has_event(const struct warm_engine *e) {
        return !warm_ring_is_empty(&e->events);
}

void warm_engine_spin(const struct warm_ring *r, const atomic_bool *hope) {
        uint64_t end_ns = warm_now_ns() + WARM_ENGINE_SPIN_NS;

        while (atomic_load(hope) && warm_ring_is_empty(r) && warm_now_ns() < end_ns)
                ;
}

void warm_engine_await(struct warm_engine *e) {
        warm_engine_spin(&e->events, &e->soon);
}

uint64_t warm_engine_progress(struct warm_engine *e, bool *ret_has_work) {
        *ret_has_work = atomic_load(&e->n_live) > 0;
        return atomic_load_explicit(&e->progress, memory_order_relaxed);
}
