/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test-edits [operations] [seed]: people type, and every answer must be what a run without cache, batch or cuts says.
 *
 * Two uids edit six documents at random (typing, deleting, jumping, brackets that close themselves, accepting) and ask
 * after each edit, as an editor does; in between: alternatives, cancels, trims, warming, scores, 1 to 16 in flight,
 * prefill cut anywhere, a pool so small that requests wait and blocks are evicted. The engine runs the shipped draft
 * model on the CPU backend. The twin computes each prompt and its answer from nothing, in one step of a second backend
 * with another number of threads; tokens, log-probabilities, the most likely others and (where alternatives are asked
 * for) all raw logits must agree bit for bit.
 */
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "sched/internal.h"

#define N_CONTEXT    512U
#define N_DOCUMENTS  6U
#define DOCUMENT_MAX 4096U
#define AT_ONCE_MAX  16U
#define N_TOP        8U
#define N_MAX        6U

static uint32_t n_operations = 100;
static uint64_t seed = 20260101;

struct document {
        uid_t uid;
        uint64_t stream;
        char text[DOCUMENT_MAX];
        uint32_t n, cursor;
        char shown[512]; /* the last answer, to be accepted */
        uint32_t n_shown;
};

/* The run without a cache: one sequence whose block i is block i. */
struct twin {
        struct warm_backend *backend;
        struct warm_weights *weights;
        uint32_t blocks[N_CONTEXT / WARM_BLOCK_TOKENS + 1];
        struct warm_row *rows;
        struct warm_result *results; /* one a row */
        struct warm_sampling *samplings;
        uint64_t *allowed; /* [n_rows][n_words] */
        float *logits;
        uint32_t n_words;
};

struct flight {
        struct warm_request *request;
        uint32_t document; /* whose answer it is; N_DOCUMENTS: nobody's */
};

struct edits {
        struct warm_engine *engine;
        const struct warm_model *model;
        struct warm_model *twin_model;
        struct twin twin;
        struct document documents[N_DOCUMENTS];
        char *corpus;
        size_t n_corpus;
        uint64_t random;
        struct flight flights[64];
        uint32_t n_flights, at_once;
        uint64_t n_requests, n_ids;
        uint64_t n_checked, n_tokens_checked, n_logits_checked, n_scores_checked, n_ended_early;
        uint64_t n_hit, n_prompt;
};

static uint32_t draw(struct edits *x, uint32_t n) {
        uint64_t z = x->random += 0x9e3779b97f4a7c15ULL;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return (uint32_t) ((z ^ (z >> 31)) % n);
}

/* The twin. */

static void twin_init(struct edits *x, const char *path) {
        struct warm_backend_config config = { .n_threads = 1 };
        struct warm_kv_config kv = { .type = WARM_TYPE_F16 };
        struct twin *t = &x->twin;
        struct warm_kv_info info;
        uint32_t n_rows = N_CONTEXT + 1;

        kv.n_blocks_max[0] = N_CONTEXT / WARM_BLOCK_TOKENS + 1;
        assert_int_equal(warm_model_open(path, NULL, &x->twin_model, NULL), 0);
        assert_int_equal(warm_cpu_backend_new(&config, &t->backend), 0);
        assert_int_equal(warm_backend_load(t->backend, &x->twin_model->plan, &t->weights, NULL), 0);
        assert_int_equal(warm_kv_init(t->backend, t->weights, &kv, &info), 0);
        for (uint32_t i = 0; i * info.blocks_per_chunk[0] < kv.n_blocks_max[0]; i++)
                assert_int_equal(warm_kv_add(t->backend, t->weights, 0, i), 0);
        for (uint32_t i = 0; i < kv.n_blocks_max[0]; i++)
                t->blocks[i] = kv.n_blocks_max[0] - 1 - i; /* another order than the cache's */
        t->n_words = (x->twin_model->plan.n_vocab + 63) / 64;
        t->rows = calloc(n_rows, sizeof(*t->rows));
        t->results = calloc(n_rows, sizeof(*t->results));
        t->samplings = calloc(n_rows, sizeof(*t->samplings));
        t->allowed = calloc((size_t) n_rows * t->n_words, sizeof(*t->allowed));
        t->logits = calloc(x->twin_model->plan.n_vocab, sizeof(*t->logits));
        assert_true(t->rows && t->results && t->samplings && t->allowed && t->logits);
}

static void twin_deinit(struct edits *x) {
        struct twin *t = &x->twin;

        warm_weights_free(t->backend, t->weights);
        warm_backend_free(t->backend);
        warm_model_free(x->twin_model);
        free(t->rows);
        free(t->results);
        free(t->samplings);
        free(t->allowed);
        free(t->logits);
}

static void twin_row(struct twin *t, uint32_t i, int32_t token, uint32_t slot, uint8_t want) {
        t->rows[i] =
                (struct warm_row){ .token = token,
                                   .position = slot,
                                   .slot = slot,
                                   .hi = slot + 1,
                                   .mask = UINT64_MAX,
                                   .want = want,
                                   .n_top = want & WARM_WANT_TOP ? N_TOP : 0,
                                   .sampling = want & WARM_WANT_TOKEN ? &t->samplings[i] : NULL,
                                   .result = want ? &t->results[i] : NULL };
}

static void twin_run(struct twin *t, uint32_t n_rows) {
        struct warm_step_sequence sequence = { .blocks = { t->blocks },
                                               .n_blocks = N_CONTEXT / WARM_BLOCK_TOKENS + 1 };
        struct warm_step step = {
                .sequences = &sequence, .n_sequences = 1, .rows = t->rows, .n_rows = n_rows
        };
        uint64_t ticket;

        assert_int_equal(warm_step_submit(t->backend, t->weights, &step, &ticket), 0);
        while (warm_step_poll(t->backend, ticket) == WARM_BACKEND_E_PENDING)
                continue;
}

static void assert_same_bits(const void *a, const void *b, size_t n) {
        assert_memory_equal(a, b, n);
}

/* Rows of an answer: the last of the prompt and each of its ids, all sampling. Return: how many sample. */
static uint32_t twin_answer_rows(struct edits *x, const struct warm_request *r, uint32_t index,
                                 uint32_t first_row) {
        const struct warm_request_answer *a = &r->answers[index];
        struct twin *t = &x->twin;
        uint32_t healed = 0, n = 0;

        for (uint32_t k = 0; k <= a->n_ids; k++) {
                uint32_t slot = r->prompt.n_ids - 1 + k, row = first_row + k;
                int32_t token = k == 0 ? r->prompt.ids[slot] : a->ids[k - 1];
                uint64_t *allowed = t->allowed + (size_t) row * t->n_words;

                if (k > 0)
                        healed += (uint32_t) warm_vocab_text(x->model->vocab, token).n;
                if (slot >= N_CONTEXT)
                        break;
                t->samplings[row] = r->sampling;
                t->samplings[row].allowed = NULL;
                if (healed < r->prompt.n_heal) {
                        warm_vocab_allow(x->model->vocab, r->prompt.heal + healed,
                                         r->prompt.n_heal - healed, allowed);
                        t->samplings[row].allowed = allowed;
                }
                t->results[row].logits = t->logits;
                twin_row(t, row, token, slot,
                         (uint8_t) (WARM_WANT_TOKEN | WARM_WANT_TOP |
                                    (k == 0 ? WARM_WANT_LOGITS : 0)));
                n++;
        }
        return n;
}

static void check_answer(struct edits *x, const struct warm_request *r, uint32_t index,
                         uint32_t first_row, uint32_t n_sampling) {
        const struct warm_request_answer *a = &r->answers[index];
        struct twin *t = &x->twin;

        for (uint32_t k = 0; k < a->n_ids; k++) {
                const struct warm_result *result = &t->results[first_row + k];
                const struct warm_token_logprob *l = &a->logprobs[k];

                assert_true(k < n_sampling);
                assert_int_equal(l->n_top, N_TOP);
                for (uint32_t i = 0; i < N_TOP; i++) {
                        assert_int_equal(l->top[i].token, result->top[i].token);
                        assert_same_bits(&l->top[i].logprob, &result->top[i].logprob,
                                         sizeof(float));
                }
                if (k == 0 && index > 0) {
                        assert_int_not_equal(a->ids[k], result->token);
                        continue; /* chosen, not sampled; what follows it is held all the same */
                }
                assert_int_equal(a->ids[k], result->token);
                assert_same_bits(&l->logprob, &result->logprob, sizeof(float));
        }
        if (a->finish == WARM_FINISH_END)
                assert_true(warm_model_is_end(x->model, t->results[first_row + a->n_ids].token));
        x->n_tokens_checked += a->n_ids;
        x->n_checked++;
}

static void check_completion(struct edits *x, struct warm_request *r) {
        struct twin *t = &x->twin;
        uint32_t n_prompt = r->prompt.n_ids;

        assert_int_equal(r->failure, WARM_FAILURE_NONE);
        for (uint32_t i = 0; i < r->n_answers; i++) {
                /* The prompt's own KV is computed once; its last token again with each answer. */
                uint32_t first_row = i == 0 ? n_prompt - 1 : 0, n;

                if (r->answers[i].finish > WARM_FINISH_LENGTH)
                        x->n_ended_early++;
                if (r->answers[i].n_ids == 0 && r->answers[i].finish != WARM_FINISH_END)
                        return; /* it ended before it began: nothing was computed */
                for (uint32_t k = 0; k < first_row; k++)
                        twin_row(t, k, r->prompt.ids[k], k, 0);
                n = twin_answer_rows(x, r, i, first_row);
                twin_run(t, first_row + n);
                check_answer(x, r, i, first_row, n);
                if (i == 0 && r->n > 1) {
                        assert_same_bits(warm_task_of(r)->logits, t->logits,
                                         x->model->plan.n_vocab * sizeof(float));
                        x->n_logits_checked++;
                }
        }
}

static void check_score(struct edits *x, const struct warm_request *r) {
        struct twin *t = &x->twin;
        uint32_t n = r->prompt.n_ids - 1;

        if (r->answers[0].finish != WARM_FINISH_NONE || n == 0)
                return;
        for (uint32_t k = 0; k < n; k++) {
                twin_row(t, k, r->prompt.ids[k], k, WARM_WANT_LOGPROB);
                t->rows[k].scored = r->prompt.ids[k + 1];
        }
        twin_run(t, n);
        for (uint32_t k = 0; k < n; k++)
                assert_same_bits(&r->scores[k + 1], &t->results[k].scored_logprob, sizeof(float));
        x->n_scores_checked++;
}

/* Requests. */

static void keep_shown(struct edits *x, const struct flight *f) {
        struct document *d = &x->documents[f->document];
        struct warm_string text = warm_answer_text(f->request->answers[0].answer);

        d->n_shown = (uint32_t) (text.n < sizeof(d->shown) ? text.n : sizeof(d->shown));
        memcpy(d->shown, text.data, d->n_shown);
}

static void land(struct edits *x, struct warm_request *r) {
        uint32_t i = 0;

        while (x->flights[i].request != r)
                i++;
        x->n_hit += r->hit.n_tokens;
        x->n_prompt += r->prompt.n_ids;
        if (r->kind == WARM_REQUEST_COMPLETE) {
                check_completion(x, r);
                keep_shown(x, &x->flights[i]);
        } else if (r->kind == WARM_REQUEST_SCORE) {
                check_score(x, r);
        }
        x->flights[i] = x->flights[--x->n_flights];
        warm_request_free(r);
}

static void wait_until(struct edits *x, uint32_t n_flights) {
        while (x->n_flights > n_flights) {
                struct pollfd fd = { .fd = warm_engine_event_fd(x->engine), .events = POLLIN };
                struct warm_event event;

                while (!warm_engine_next(x->engine, &event))
                        assert_int_equal(poll(&fd, 1, 60000), 1);
                if (event.kind == WARM_EVENT_DONE)
                        land(x, event.request);
        }
}

static struct warm_request *request_of(struct edits *x, const struct document *d,
                                       enum warm_request_kind kind) {
        struct warm_prompt_source source = {
                .prefix = { d->text, d->cursor },
                .suffix = { d->text + d->cursor, d->n - d->cursor },
                .heal = true,
                .n_max = N_MAX,
                .n_context = N_CONTEXT,
                .order = draw(x, 3) == 0 ? WARM_ORDER_PSM : WARM_ORDER_SPM_JOINT,
                .offset_known = true,
        };
        struct warm_request *r = warm_request_new();

        assert_non_null(r);
        assert_int_equal(warm_prompt_build(x->model, &source, &r->prompt), 0);
        r->id = ++x->n_ids;
        r->kind = kind;
        r->uid = d->uid;
        r->stream = d->stream;
        r->supersede = draw(x, 2) == 0;
        r->answer.raw = true;
        r->logprobs = true;
        r->n_top = N_TOP;
        r->n = 1;
        r->n_max = 1 + draw(x, N_MAX);
        r->progress = draw(x, 2) == 0;
        if (draw(x, 4) == 0)
                r->sampling = (struct warm_sampling){
                        .temperature = 0.8F, .top_p = 0.95F, .top_k = 40, .seed = x->random
                };
        return r;
}

static void submit(struct edits *x, struct warm_request *r, uint32_t document) {
        assert_int_equal(warm_engine_submit(x->engine, r), 0);
        x->flights[x->n_flights++] = (struct flight){ r, document };
        x->n_requests++;
        wait_until(x, x->at_once - 1);
}

/* Operations. */

static void insert(struct document *d, const char *text, uint32_t n) {
        if (d->n + n > DOCUMENT_MAX)
                return;
        memmove(d->text + d->cursor + n, d->text + d->cursor, d->n - d->cursor);
        memcpy(d->text + d->cursor, text, n);
        d->n += n;
        d->cursor += n;
}

static void erase(struct document *d, uint32_t n) {
        if (n > d->cursor)
                n = d->cursor;
        memmove(d->text + d->cursor - n, d->text + d->cursor, d->n - d->cursor);
        d->n -= n;
        d->cursor -= n;
}

static void edit(struct edits *x, struct document *d) {
        uint32_t at = draw(x, (uint32_t) x->n_corpus - 64);

        switch (draw(x, 12)) {
        case 0:
        case 1:
                erase(d, 1 + draw(x, 12));
                break;
        case 2:
                d->cursor = draw(x, d->n + 1);
                break;
        case 3:
                insert(d, "()", 2);
                d->cursor--;
                break;
        case 4:
                insert(d, "\n        ", 9);
                break;
        case 5:
                insert(d, d->shown, d->n_shown);
                break;
        case 6: /* another file, the same way from its start: a new document that shares a beginning */
                d->n = d->cursor = 0;
                at = draw(x, 3) * 1000;
                insert(d, x->corpus + at, 200 + draw(x, 1500));
                d->cursor -= draw(x, d->n);
                break;
        default:
                insert(d, x->corpus + at, 1 + draw(x, 4));
        }
        if (d->n + 600 > DOCUMENT_MAX)
                erase(d, 1000);
}

static void trim(struct edits *x) {
        struct warm_request *r = warm_request_new();

        assert_non_null(r);
        r->id = ++x->n_ids;
        r->kind = WARM_REQUEST_TRIM;
        r->trim_uid = draw(x, 2) ? (uid_t) -1 : x->documents[draw(x, N_DOCUMENTS)].uid;
        submit(x, r, N_DOCUMENTS);
}

static void operate(struct edits *x) {
        uint32_t i = draw(x, N_DOCUMENTS), kind = draw(x, 100);
        struct document *d = &x->documents[i];
        struct warm_request *r;

        if (draw(x, 40) == 0)
                x->at_once = 1 + draw(x, AT_ONCE_MAX);
        if (kind < 6 && x->n_flights > 0) {
                warm_engine_cancel(x->engine, x->flights[draw(x, x->n_flights)].request->id);
        } else if (kind < 8) {
                trim(x);
        } else if (kind < 11) {
                submit(x, request_of(x, d, WARM_REQUEST_WARM), N_DOCUMENTS);
        } else if (kind < 13) {
                submit(x, request_of(x, d, WARM_REQUEST_SCORE), N_DOCUMENTS);
        } else {
                edit(x, d);
                r = request_of(x, d, WARM_REQUEST_COMPLETE);
                if (kind < 30)
                        r->n = 2 + draw(x, WARM_ALTERNATIVES_MAX - 1);
                submit(x, r, i);
        }
}

static void read_corpus(struct edits *x, const char *root) {
        static const char *const names[] = { "engine.c", "batch.c", "admit.c", "decode.c" };

        x->corpus = malloc(1 << 20);
        assert_non_null(x->corpus);
        for (uint32_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                char path[4096];
                FILE *f;

                snprintf(path, sizeof(path), "%s/daemon/sched/%s", root, names[i]);
                f = fopen(path, "r");
                assert_non_null(f);
                x->n_corpus += fread(x->corpus + x->n_corpus, 1, (1 << 18), f);
                fclose(f);
        }
}

static void start(struct edits *x, const char *path) {
        struct warm_backend_config backend = { .n_threads = 2 };
        struct warm_engine_config config = { .kv_type = WARM_TYPE_F16,
                                             .n_context_max = N_CONTEXT,
                                             .cut_seed = seed | 1 };
        struct warm_model *model;
        uint32_t index;

        assert_int_equal(warm_model_open(path, NULL, &model, NULL), 0);
        /* Five contexts for up to sixteen requests: some must wait, much must be evicted. */
        config.kv_bytes_max =
                warm_kvpool_default_bytes(&model->plan, N_CONTEXT, WARM_TYPE_F16, 1ULL << 40) * 5 /
                16;
        assert_int_equal(warm_cpu_backend_new(&backend, &config.backend), 0);
        assert_int_equal(warm_engine_new(&config, &x->engine), 0);
        assert_int_equal(warm_engine_add_model(x->engine, model, &index, NULL), 0);
        assert_int_equal(warm_engine_start(x->engine), 0);
        x->model = warm_engine_model(x->engine, index);
}

static void report(const struct edits *x, const struct warm_cache_stats *s, double seconds) {
        printf("seed %llu: %u operations, %llu requests, %.1f s\n", (unsigned long long) seed,
               n_operations, (unsigned long long) x->n_requests, seconds);
        printf("held bit for bit: %llu answers, %llu tokens, %llu x all logits, %llu scores; "
               "%llu answers ended early\n",
               (unsigned long long) x->n_checked, (unsigned long long) x->n_tokens_checked,
               (unsigned long long) x->n_logits_checked, (unsigned long long) x->n_scores_checked,
               (unsigned long long) x->n_ended_early);
        printf("prompt tokens %llu, from the cache %llu (%.0f%%); evicted blocks %llu\n",
               (unsigned long long) x->n_prompt, (unsigned long long) x->n_hit,
               100.0 * (double) x->n_hit / (double) x->n_prompt, (unsigned long long) s->n_evicted);
}

static void cached_is_uncached_bit_for_bit(void **state) {
        const char *root = getenv("WARM_SOURCE_ROOT");
        struct edits *x = calloc(1, sizeof(*x));
        struct warm_cache_stats stats;
        struct timespec from, to;
        char path[4096];

        (void) state;
        assert_non_null(x);
        snprintf(path, sizeof(path), "%s/models/warm-nano-draft-q8_0.gguf", root ? root : ".");
        x->random = seed;
        x->at_once = 4;
        read_corpus(x, root ? root : ".");
        start(x, path);
        twin_init(x, path);
        for (uint32_t i = 0; i < N_DOCUMENTS; i++) {
                x->documents[i].uid = 1000 + i % 2;
                x->documents[i].stream = 1 + i / 2; /* the same key under two uids */
                insert(&x->documents[i], x->corpus, 600 + draw(x, 800));
        }
        clock_gettime(CLOCK_MONOTONIC, &from);
        for (uint32_t i = 0; i < n_operations; i++)
                operate(x);
        wait_until(x, 0);
        clock_gettime(CLOCK_MONOTONIC, &to);
        warm_engine_stop(x->engine);
        warm_cache_check(x->engine->models[0].cache);
        warm_cache_stats(x->engine->models[0].cache, &stats);
        assert_int_equal(stats.n_pinned, 0);
        assert_int_equal(stats.n_sequences, 0);
        assert_true(x->n_hit > x->n_prompt / 10); /* or nothing was tested */
        report(x, &stats,
               (double) (to.tv_sec - from.tv_sec) + (double) (to.tv_nsec - from.tv_nsec) * 1e-9);
        warm_engine_free(x->engine);
        twin_deinit(x);
        free(x->corpus);
        free(x);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(cached_is_uncached_bit_for_bit),
        };

        if (argc > 1)
                n_operations = (uint32_t) strtoul(argv[1], NULL, 10);
        if (argc > 2)
                seed = strtoull(argv[2], NULL, 10);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
