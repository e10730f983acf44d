/* SPDX-License-Identifier: Apache-2.0 */
#include "sched/batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sched/internal.h"

#define CHUNK_NS_DEFAULT (20U * 1000 * 1000) /* untuned, of the issue */
#define CHUNK_ALONE      3U                  /* times as long, at most, if nobody else is there */
#define CHUNK_STEPS_ALONE                                                                          \
        16U /* of what a step costs whatever is in it: 2,048 tokens of 7B on an H200 in one step */
#define CHUNK_ROWS_FIRST 64U /* before anything was measured (untuned guess) */
#define CHUNK_ROWS_MIN                                                                             \
        16U /* below that a step is mostly the reading of the weights (untuned guess) */
#define CHUNK_ROWS_ALIGN 16U  /* blocked matrix products like whole tiles (untuned guess) */
#define SNAPSHOT_TOKENS  512U /* of a state, while a prompt is computed (untuned guess) */

int warm_batch_init(struct warm_batch *b, uint64_t cut_seed) {
        *b = (struct warm_batch){ .cut_state = cut_seed };
        b->rows = calloc(WARM_STEP_ROWS_MAX, sizeof(*b->rows));
        b->results = calloc(WARM_STEP_ROWS_MAX, sizeof(*b->results));
        if (!b->rows || !b->results) {
                warm_batch_deinit(b);
                return -ENOMEM;
        }
        return 0;
}

void warm_batch_deinit(struct warm_batch *b) {
        free(b->rows);
        free(b->results);
        *b = (struct warm_batch){ 0 };
}

enum class { CLASS_COMPLETE, CLASS_SCORE, CLASS_WARM };

static enum class class_of(const struct warm_run *run) {
        switch (run->task->request.kind){
                case WARM_REQUEST_COMPLETE : return CLASS_COMPLETE;
                case WARM_REQUEST_SCORE : return CLASS_SCORE;
                default : return CLASS_WARM;
        }
}

/* Where a run stands before others: smaller goes first, key by key. */
struct rank {
        uint64_t keys[3];
        struct warm_run *run;
};

static int compare_ranks(const void *left, const void *right) {
        const struct rank *a = left, *b = right;

        for (uint32_t i = 0; i < 3; i++)
                if (a->keys[i] != b->keys[i])
                        return a->keys[i] < b->keys[i] ? -1 : 1;
        return 0;
}

static uint64_t *turn_of(struct warm_batch *b, const struct warm_run *run) {
        return &b->turns[run->task->request.uid % WARM_BATCH_UIDS];
}

/* The runs of a model that decode (or prefill), first the one to serve first. */
static uint32_t collect(struct warm_engine *e, uint32_t model_index, bool prefill,
                        struct rank *ret_ranks) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < e->n_active; i++) {
                struct warm_run *run = e->active[i];
                struct rank *rank = &ret_ranks[n];

                if (run->task->request.model_index != model_index ||
                    warm_run_prefills(run) != prefill)
                        continue;
                rank->run = run;
                rank->keys[0] = class_of(run);
                rank->keys[1] = prefill ? *turn_of(&e->batch, run) : run->last_step;
                rank->keys[2] = UINT64_MAX - run->task->serial;
                n++;
        }
        qsort(ret_ranks, n, sizeof(*ret_ranks), compare_ranks);
        return n;
}

/*
 * What a chunk may take. Who is alone makes nobody wait but what comes next, which mostly goes on from the same prompt:
 * then chunks are longer where each costs much whatever is in it, as on a GPU.
 */
static uint64_t time_of_a_chunk(const struct warm_engine *e, const struct warm_engine_model *m,
                                bool alone) {
        uint64_t most = e->config.chunk_ns ? e->config.chunk_ns : CHUNK_NS_DEFAULT;
        uint64_t wish = CHUNK_STEPS_ALONE * m->ns_per_step;

        if (!alone || wish < most)
                return most;
        return wish < CHUNK_ALONE * most ? wish : CHUNK_ALONE * most;
}

/* Rows that fit into the time of a chunk. */
static uint32_t rows_of_a_chunk(struct warm_engine *e, uint32_t model_index, bool alone) {
        const struct warm_engine_model *m = &e->models[model_index];
        uint64_t chunk_ns = time_of_a_chunk(e, m, alone);
        uint64_t left_ns =
                chunk_ns - (m->ns_per_step < chunk_ns / 2 ? m->ns_per_step : chunk_ns / 2);
        uint64_t n = m->ns_per_row ? left_ns / m->ns_per_row : CHUNK_ROWS_FIRST;

        n -= n % CHUNK_ROWS_ALIGN;
        if (n < CHUNK_ROWS_MIN)
                n = CHUNK_ROWS_MIN;
        return n < WARM_STEP_ROWS_MAX ? (uint32_t) n : WARM_STEP_ROWS_MAX;
}

/* Tests: any cut, by a generator of their seed (xorshift64, Marsaglia 2003). */
static uint32_t cut(struct warm_batch *b, uint32_t n) {
        uint64_t x = b->cut_state;

        if (x == 0)
                return n;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        b->cut_state = x;
        return 1 + (uint32_t) (x % n);
}

static uint8_t wants_of(const struct warm_run *run, uint32_t at) {
        const struct warm_request *r = &run->task->request;

        if (r->kind == WARM_REQUEST_SCORE)
                return WARM_WANT_LOGPROB;
        if (r->kind != WARM_REQUEST_COMPLETE || at + 1 < run->n_known)
                return 0;
        return (uint8_t) (WARM_WANT_TOKEN | (r->logprobs && r->n_top > 0 ? WARM_WANT_TOP : 0) |
                          (r->n > 1 && run->task->first_token_ns == 0 ? WARM_WANT_LOGITS : 0));
}

static void add_row(struct warm_batch *b, struct warm_run *run, uint32_t at) {
        const struct warm_request *r = &run->task->request;
        uint8_t want = wants_of(run, at);
        struct warm_row *row = &b->rows[b->n_rows];

        *row = (struct warm_row){
                .token = run->tokens[at],
                .position = at,
                .slot = at,
                .hi = at + 1,
                .mask = UINT64_MAX,
                .sequence = (uint16_t) b->n_entries,
                .kind = at < r->prompt.n_ids ? WARM_ROW_GIVEN : WARM_ROW_SAMPLED,
                .want = want,
        };
        if (want & WARM_WANT_LOGPROB) {
                row->scored = r->prompt.ids[at + 1];
                row->result = &b->results[b->n_rows];
        } else if (want) {
                row->n_top = want & WARM_WANT_TOP ? r->n_top : 0;
                row->sampling = &run->sampling;
                row->result = &run->result;
        }
        b->n_rows++;
}

static bool has_state(const struct warm_engine_model *m) {
        bool has = false;

        for (uint32_t g = 0; g < m->pool.n_groups; g++)
                has |= m->pool.state[g];
        return has;
}

/*
 * The first length beyond n_tokens at which a prompt's state is kept, so that prefill has to stop there: in whole
 * blocks the seams, the place where answers part, and every so many tokens. More than the prompt: none.
 */
static uint32_t next_snapshot(const struct warm_run *run, uint32_t n_tokens) {
        const struct warm_request *r = &run->task->request;
        uint32_t next = (n_tokens / SNAPSHOT_TOKENS + 1) * SNAPSHOT_TOKENS;

        for (uint32_t i = 0; i <= r->prompt.n_seams; i++) {
                uint32_t at = i < r->prompt.n_seams ? r->prompt.seams[i]
                              : r->n > 1            ? r->prompt.n_ids
                                                    : 0;

                at -= at % WARM_BLOCK_TOKENS;
                if (at > n_tokens && at < next)
                        next = at;
        }
        return next;
}

/* No room for it is no fault: what would have gone on from here starts a little earlier. */
static void keep_state(struct warm_run *run) {
        struct warm_cache_sequence *s = run->sequence;

        if (s->n_tokens <= run->task->request.prompt.n_ids &&
            next_snapshot(run, s->n_tokens - 1) == s->n_tokens)
                warm_cache_snapshot(s);
}

static void add_run(struct warm_engine *e, struct warm_run *run, uint32_t n_rows) {
        struct warm_batch *b = &e->batch;
        struct warm_cache_sequence *s = run->sequence;
        struct warm_step_sequence *out = &b->sequences[b->n_entries];

        assert(n_rows > 0 && b->n_entries < WARM_ENGINE_BATCH_MAX);
        assert(b->n_copies + s->n_copies <= WARM_STEP_COPIES_MAX);
        b->entries[b->n_entries] = (struct warm_batch_entry){ run, b->n_rows, n_rows };
        for (uint32_t i = 0; i < s->n_copies; i++)
                b->copies[b->n_copies++] = s->copies[i];
        *out = (struct warm_step_sequence){ .n_blocks = s->n_blocks };
        memcpy(out->state_in, s->state_in, sizeof(out->state_in));
        for (uint32_t g = 0; g < WARM_PLAN_GROUPS_MAX; g++) {
                out->blocks[g] = s->blocks[g];
                out->state_out[g] = s->blocks[g] ? s->blocks[g][0] : WARM_STATE_NONE;
        }
        for (uint32_t i = 0; i < n_rows; i++)
                add_row(b, run, s->n_tokens + i);
        warm_cache_begin(s, n_rows);
        run->last_step = e->n_steps + 1;
        b->n_entries++;
}

static void add_prefills(struct warm_engine *e, const struct rank *ranks, uint32_t n,
                         uint32_t budget) {
        struct warm_batch *b = &e->batch;
        bool stops = has_state(&e->models[b->model_index]);

        for (uint32_t i = 0; i < n && budget > 0 && b->n_entries < WARM_ENGINE_BATCH_MAX; i++) {
                struct warm_run *run = ranks[i].run;
                uint32_t n_tokens = run->sequence->n_tokens, n_rows;
                uint32_t pending = run->n_known - n_tokens;

                /* Warming takes next to nothing of a step that somebody waits for. */
                if (class_of(run) == CLASS_WARM && b->n_entries > 0 && budget > CHUNK_ROWS_MIN)
                        budget = CHUNK_ROWS_MIN;
                n_rows = cut(b, pending < budget ? pending : budget);
                if (stops && n_rows > next_snapshot(run, n_tokens) - n_tokens)
                        n_rows = next_snapshot(run, n_tokens) - n_tokens;
                add_run(e, run, n_rows);
                *turn_of(b, run) = e->n_steps + 1;
                b->n_prefill_rows += n_rows;
                budget -= n_rows;
        }
}

static bool fill_from(struct warm_engine *e, uint32_t model_index) {
        struct rank decodes[WARM_ENGINE_ACTIVE_MAX], prefills[WARM_ENGINE_ACTIVE_MAX];
        uint32_t n_decodes = collect(e, model_index, false, decodes);
        uint32_t n_prefills = collect(e, model_index, true, prefills);
        uint32_t most = WARM_ENGINE_BATCH_MAX - (n_prefills > 0 ? 1 : 0);
        bool alone = e->n_active == 1 && e->n_waiting == 0 && n_prefills == 1 &&
                     class_of(prefills[0].run) != CLASS_WARM;
        uint32_t rows = rows_of_a_chunk(e, model_index, alone);

        if (n_decodes + n_prefills == 0)
                return false;
        e->batch.model_index = model_index;
        for (uint32_t i = 0; i < n_decodes && i < most; i++)
                add_run(e, decodes[i].run, 1);
        /* Decoding takes its share of the time; a prompt always moves on a little. */
        rows = rows > e->batch.n_rows + CHUNK_ROWS_MIN ? rows - e->batch.n_rows : CHUNK_ROWS_MIN;
        if (rows > WARM_STEP_ROWS_MAX - e->batch.n_rows)
                rows = WARM_STEP_ROWS_MAX - e->batch.n_rows;
        add_prefills(e, prefills, n_prefills, rows);
        return true;
}

bool warm_batch_fill(struct warm_engine *e) {
        struct warm_batch *b = &e->batch;
        bool found = false;

        b->n_entries = b->n_rows = b->n_copies = b->n_prefill_rows = 0;
        for (uint32_t i = 1; i <= e->n_models && !found; i++)
                found = fill_from(e, (b->model_index + i) % e->n_models);
        b->step = (struct warm_step){
                .copies = b->copies,
                .n_copies = b->n_copies,
                .sequences = b->sequences,
                .n_sequences = b->n_entries,
                .rows = b->rows,
                .n_rows = b->n_rows,
        };
        return found;
}

static void keep_scores(struct warm_batch *b, const struct warm_batch_entry *entry) {
        struct warm_request *r = &entry->run->task->request;

        for (uint32_t i = 0; i < entry->n_rows; i++) {
                uint32_t row = entry->first_row + i;

                r->scores[b->rows[row].slot + 1] = b->results[row].scored_logprob;
        }
}

void warm_batch_commit(struct warm_engine *e) {
        struct warm_batch *b = &e->batch;
        bool keeps = has_state(&e->models[b->model_index]);

        for (uint32_t i = 0; i < b->n_entries; i++) {
                struct warm_batch_entry *entry = &b->entries[i];
                struct warm_cache_sequence *s = entry->run->sequence;

                warm_cache_commit(s, entry->run->tokens + s->n_tokens, entry->n_rows);
                if (keeps)
                        keep_state(entry->run);
                if (entry->run->task->request.kind == WARM_REQUEST_SCORE)
                        keep_scores(b, entry);
        }
}

void warm_batch_rollback(struct warm_engine *e) {
        struct warm_batch *b = &e->batch;

        for (uint32_t i = 0; i < b->n_entries; i++) {
                struct warm_cache_sequence *s = b->entries[i].run->sequence;

                warm_cache_rollback(s, s->n_tokens);
        }
        b->n_entries = 0;
}

void warm_batch_measure(struct warm_engine *e, uint64_t step_ns) {
        struct warm_engine_model *m = &e->models[e->batch.model_index];
        uint64_t fixed_ns, per_row;

        /* Small steps cost what reading the weights costs; they say nothing of a row. */
        if (e->batch.n_prefill_rows < CHUNK_ROWS_MIN) {
                m->ns_per_step = m->ns_per_step ? (3 * m->ns_per_step + step_ns) / 4 : step_ns;
                return;
        }
        fixed_ns = m->ns_per_step < step_ns / 8 * 7 ? m->ns_per_step : step_ns / 8 * 7;
        per_row = (step_ns - fixed_ns) / e->batch.n_rows + 1;
        /*
         * A row costs less in company, on a GPU by far: what is less is believed at once, and a few rows do not say that
         * many have become dearer.
         */
        if (m->ns_per_row == 0 || per_row < m->ns_per_row)
                m->ns_per_row = per_row;
        else if (e->batch.n_rows >= rows_of_a_chunk(e, e->batch.model_index, false) / 4)
                m->ns_per_row = (3 * m->ns_per_row + per_row) / 4;
}
