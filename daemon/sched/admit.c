/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may run. A waiting run enters when there is a place among the active ones and the cache has room for all its
 * tokens; memory is added chunk by chunk before anything cached is evicted.
 *
 * Order: completions before scores before warming; then the uid with the fewest active runs; then the newest. A run
 * that found no room is the next of its model: nobody passes it, so what it needs comes free.
 */
#include <assert.h>

#include "sched/internal.h"

static uint32_t blocks_of(const struct warm_run *run) {
        return (run->n_tokens_cap + WARM_BLOCK_TOKENS - 1) / WARM_BLOCK_TOKENS;
}

static uint64_t rank_of(const struct warm_engine *e, const struct warm_run *run) {
        const struct warm_request *r = &run->task->request;
        uint64_t class = r->kind == WARM_REQUEST_COMPLETE ? 0
                         : r->kind == WARM_REQUEST_SCORE  ? 1
                                                          : 2;
        uint64_t n_of_uid = 0;

        for (uint32_t i = 0; i < e->n_active; i++)
                n_of_uid += e->active[i]->task->request.uid == r->uid;
        return class << 32 | n_of_uid;
}

static bool may_try(struct warm_engine *e, const struct warm_run *run) {
        const struct warm_engine_model *m = warm_engine_model_of(e, run);

        return run->state == WARM_RUN_WAITING && run->refused_at != e->n_closed &&
               (!m->next || m->next == run);
}

/* From the newest task to the oldest, so that the first of equal rank is the newest. */
static struct warm_run *best_waiting(struct warm_engine *e) {
        struct warm_run *best = NULL;
        uint64_t best_rank = UINT64_MAX;

        if (e->n_waiting == 0)
                return NULL;
        for (struct warm_task *t = e->last; t; t = t->previous)
                for (uint32_t i = 0; i < t->n_runs; i++) {
                        struct warm_run *run = &t->runs[i];
                        uint64_t rank;

                        if (!may_try(e, run))
                                continue;
                        rank = rank_of(e, run);
                        if (rank < best_rank) {
                                best = run;
                                best_rank = rank;
                        }
                }
        return best;
}

static int open_sequence(struct warm_engine *e, struct warm_run *run,
                         struct warm_cache_sequence **ret_sequence) {
        struct warm_request *r = &run->task->request;
        struct warm_cache_hit hit;
        int error;

        /* A score needs the logits of every token: none may come from the cache. */
        error = warm_cache_open(warm_engine_model_of(e, run)->cache, r->uid, run->tokens,
                                r->kind == WARM_REQUEST_SCORE ? 1 : run->n_known, run->n_tokens_cap,
                                ret_sequence, &hit);
        if (error == 0 && run->index == 0)
                r->hit = hit;
        return error;
}

/* Take memory from models that do not use theirs now. */
static bool grow_at_others_cost(struct warm_engine *e, struct warm_run *run) {
        struct warm_engine_model *m = warm_engine_model_of(e, run);
        uint64_t wanted = warm_kvpool_bytes(&m->pool, blocks_of(run));
        bool freed = false;

        for (uint32_t i = 0; i < e->n_models; i++)
                if (&e->models[i] != m)
                        freed |= warm_kvpool_shrink(&e->models[i].pool, wanted) > 0;
        return freed && warm_kvpool_grow(&m->pool, blocks_of(run));
}

static int find_room(struct warm_engine *e, struct warm_run *run,
                     struct warm_cache_sequence **ret_sequence) {
        struct warm_engine_model *m = warm_engine_model_of(e, run);
        int error;

        warm_kvpool_grow(&m->pool, blocks_of(run));
        error = open_sequence(e, run, ret_sequence);
        if (error != WARM_CACHE_E_FULL || !warm_kvpool_could_hold(&m->pool, blocks_of(run)))
                return error;
        if (grow_at_others_cost(e, run)) {
                error = open_sequence(e, run, ret_sequence);
                if (error != WARM_CACHE_E_FULL)
                        return error;
        }
        if (e->n_active > 0)
                return WARM_CACHE_E_FULL;
        /* Nothing runs: what is in the way is cached. One's own goes before the shares of others. */
        warm_cache_trim(m->cache, run->task->request.uid);
        error = open_sequence(e, run, ret_sequence);
        if (error != WARM_CACHE_E_FULL)
                return error;
        warm_cache_trim(m->cache, (uid_t) -1);
        return open_sequence(e, run, ret_sequence);
}

static void try_admit(struct warm_engine *e, struct warm_run *run) {
        struct warm_engine_model *m = warm_engine_model_of(e, run);
        struct warm_cache_sequence *sequence = NULL;
        int error = find_room(e, run, &sequence);

        if (m->next == run)
                m->next = NULL;
        if (error == 0) {
                e->n_waiting--;
                warm_engine_activate(e, run, sequence);
        } else if (error == WARM_CACHE_E_FULL && e->n_active > 0 &&
                   warm_kvpool_could_hold(&m->pool, blocks_of(run))) {
                run->refused_at = e->n_closed;
                if (run->task->request.kind != WARM_REQUEST_WARM) /* warming delays nobody */
                        m->next = run;
        } else {
                warm_engine_fail_task(e, run->task,
                                      error == WARM_CACHE_E_FULL ? WARM_FAILURE_NO_ROOM
                                                                 : WARM_FAILURE_MEMORY);
        }
}

void warm_engine_admit(struct warm_engine *e) {
        while (e->n_active < WARM_ENGINE_ACTIVE_MAX) {
                struct warm_run *run = best_waiting(e);

                if (!run)
                        return;
                try_admit(e, run);
        }
}

void warm_engine_activate(struct warm_engine *e, struct warm_run *run,
                          struct warm_cache_sequence *sequence) {
        enum warm_finish why;

        assert(e->n_active < WARM_ENGINE_ACTIVE_MAX && !run->sequence);
        run->sequence = sequence;
        run->state = WARM_RUN_ACTIVE;
        e->active[e->n_active++] = run;
        why = warm_engine_constrain(e, run);
        if (why != WARM_FINISH_NONE)
                warm_engine_end_run(e, run, why);
}

struct warm_cache_sequence *warm_engine_retire(struct warm_engine *e, struct warm_run *run) {
        struct warm_engine_model *m = warm_engine_model_of(e, run);
        struct warm_cache_sequence *sequence = run->sequence;

        if (run->state == WARM_RUN_WAITING) {
                e->n_waiting--;
                if (m->next == run)
                        m->next = NULL;
        }
        if (run->state == WARM_RUN_ACTIVE) {
                uint32_t i = 0;

                while (e->active[i] != run)
                        i++;
                e->active[i] = e->active[--e->n_active];
                run->sequence = NULL;
                e->n_closed++;
        }
        run->state = WARM_RUN_ENDED;
        return sequence;
}
