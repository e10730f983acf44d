/* SPDX-License-Identifier: Apache-2.0 */
#include "harness.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

void harness_start(struct harness *h, struct harness_options options) {
        struct warm_engine_config config = { .kv_type = WARM_TYPE_F16,
                                             .kv_bytes_max = options.kv_bytes,
                                             .cut_seed = options.cut_seed,
                                             .chunk_ns = options.chunk_ns,
                                             .step_limit_ns = options.step_limit_ns,
                                             .await_cores_min = options.await_cores_min };
        uint32_t n_models = options.n_models ? options.n_models : 1;

        *h = (struct harness){ .fake = fake_backend_new() };
        config.backend = &h->fake->base;
        assert_int_equal(warm_engine_new(&config, &h->engine), 0);
        for (uint32_t i = 0; i < n_models; i++) {
                char name[] = { (char) ('a' + i), 0 };
                struct warm_model *m =
                        fake_model_new(name, options.n_context ? options.n_context : 512);
                uint32_t index;

                if (options.state)
                        fake_model_add_state(m);
                assert_int_equal(warm_engine_add_model(h->engine, m, &index, NULL), 0);
                assert_int_equal(index, i);
        }
        assert_int_equal(warm_engine_start(h->engine), 0);
}

void harness_drop(struct harness *h) {
        h->engine = warm_engine_free(h->engine);
}

void harness_end(struct harness *h) {
        struct warm_request *r = harness_status(h);
        bool has_work;

        for (uint32_t i = 0; i < r->status->n_models; i++) {
                assert_int_equal(r->status->models[i].cache.n_pinned, 0);
                assert_int_equal(r->status->models[i].cache.n_sequences, 0);
        }
        assert_int_equal(r->status->n_running, 0);
        assert_int_equal(r->status->n_waiting, 0);
        warm_request_free(r);
        warm_engine_progress(h->engine, &has_work);
        assert_false(has_work);
        harness_drop(h);
}

struct warm_request *harness_request(struct harness *h, enum warm_request_kind kind,
                                     const char *text) {
        struct warm_request *r = warm_request_new();
        size_t n = strlen(text);

        assert_non_null(r);
        r->id = ++h->n_ids_given;
        r->kind = kind;
        r->uid = 1000;
        r->supersede = true;
        r->arrival_ns = now_ns();
        r->prompt.ids = malloc((n + 1) * sizeof(*r->prompt.ids));
        assert_non_null(r->prompt.ids);
        for (size_t i = 0; i < n; i++)
                r->prompt.ids[i] = (uint8_t) text[i];
        r->prompt.n_ids = (uint32_t) n;
        return r;
}

struct warm_request *harness_complete(struct harness *h, const char *text, uint32_t n_heal,
                                      uint32_t n_max) {
        struct warm_request *r = harness_request(h, WARM_REQUEST_COMPLETE, text);

        r->prompt.n_ids -= n_heal;
        r->prompt.n_heal = n_heal;
        memcpy(r->prompt.heal, text + r->prompt.n_ids, n_heal);
        r->prompt.n_heal_ids = n_heal;
        for (uint32_t i = 0; i < n_heal; i++)
                r->prompt.heal_ids[i] = (uint8_t) text[r->prompt.n_ids + i];
        r->n_max = n_max;
        r->answer.raw = true;
        r->logprobs = true;
        return r;
}

void harness_submit(struct harness *h, struct warm_request *r) {
        assert_int_equal(warm_engine_submit(h->engine, r), 0);
}

struct warm_event harness_event(struct harness *h) {
        struct pollfd fd = { .fd = warm_engine_event_fd(h->engine), .events = POLLIN };
        struct warm_event event;

        while (!warm_engine_next(h->engine, &event))
                assert_int_equal(poll(&fd, 1, HARNESS_WAIT_MS), 1);
        h->n_texts += event.kind == WARM_EVENT_TEXT;
        h->n_faults += event.kind == WARM_EVENT_FAULT;
        if (event.kind == WARM_EVENT_FAULT)
                h->last_fault = event;
        h->n_done += event.kind == WARM_EVENT_DONE;
        if (event.kind == WARM_EVENT_TEXT) {
                assert_true(event.n_bytes > 0);
                /* Every byte is read: a sanitizer sees one that the engine still writes. */
                for (uint64_t i = 0; i < event.n_bytes; i++)
                        assert_int_not_equal(event.text[i], 0);
        }
        return event;
}

void harness_wait(struct harness *h, struct warm_request *r) {
        for (;;) {
                struct warm_event event = harness_event(h);

                if (event.kind == WARM_EVENT_DONE && event.request == r)
                        return;
        }
}

void harness_wait_done(struct harness *h, uint64_t n_done) {
        while (h->n_done < n_done)
                harness_event(h);
}

void harness_run(struct harness *h, struct warm_request *r) {
        harness_submit(h, r);
        harness_wait(h, r);
}

struct warm_request *harness_hold(struct harness *h) {
        struct warm_request *r = harness_complete(h, "held", 0, 1);
        uint64_t n_steps = atomic_load(&h->fake->n_steps);

        atomic_store(&h->fake->step_ns, 200000000);
        harness_submit(h, r);
        while (atomic_load(&h->fake->n_steps) == n_steps)
                usleep(100);
        return r;
}

void harness_release(struct harness *h, struct warm_request *held, uint64_t step_ns) {
        atomic_store(&h->fake->step_ns, step_ns);
        harness_wait(h, held);
        warm_request_free(held);
        h->n_done = 0;
}

struct warm_request *harness_status(struct harness *h) {
        struct warm_request *r = warm_request_new();

        assert_non_null(r);
        r->id = ++h->n_ids_given;
        r->kind = WARM_REQUEST_STATUS;
        harness_run(h, r);
        assert_non_null(r->status);
        return r;
}

static bool is_control(int32_t token) {
        return token >= (int32_t) FAKE_VOCAB - 16;
}

/* The index-th most likely allowed token that brings text, counted from the chosen one. */
static int32_t choose_nth(const float *logits, const uint64_t *allowed, uint32_t index) {
        uint64_t bitmap[FAKE_VOCAB / 64];
        int32_t token = fake_choose(logits, allowed);

        if (index == 0)
                return token;
        memset(bitmap, 0xff, sizeof(bitmap));
        if (allowed)
                memcpy(bitmap, allowed, sizeof(bitmap));
        for (uint32_t i = 0; i < index; i++) {
                bitmap[token / 64] &= ~(1ULL << (token % 64));
                for (uint32_t v = FAKE_VOCAB - 16; v < FAKE_VOCAB; v++)
                        bitmap[v / 64] &= ~(1ULL << (v % 64));
                token = fake_choose(logits, bitmap);
                if (token < 0)
                        return -1;
        }
        return token;
}

void harness_expect(struct harness *h, const struct warm_request *r, uint32_t index,
                    struct expected *ret_expected) {
        const struct warm_vocab *v = warm_engine_model(h->engine, r->model_index)->vocab;
        struct expected *x = ret_expected;
        int32_t tokens[2048];
        uint32_t n = r->prompt.n_ids, healed = 0, counted = 0;
        bool forced = false, sampled = false;

        *x = (struct expected){ .finish = WARM_FINISH_LENGTH };
        memcpy(tokens, r->prompt.ids, n * sizeof(*tokens));
        while (counted < r->n_max && n <= warm_engine_n_context(h->engine, r->model_index)) {
                uint64_t allowed[FAKE_VOCAB / 64];
                bool heals = healed < r->prompt.n_heal;
                float logits[FAKE_VOCAB];
                struct warm_string text;
                int32_t token;

                fake_logits(tokens, n, atomic_load(&h->fake->never_ends), logits);
                if (heals)
                        forced |= warm_vocab_allow(v, r->prompt.heal + healed,
                                                   r->prompt.n_heal - healed, allowed) == 0;
                if (heals && forced)
                        token = r->prompt.heal[healed];
                else
                        token = choose_nth(logits, heals ? allowed : NULL, sampled ? 0 : index);
                if (is_control(token)) {
                        x->finish = WARM_FINISH_END;
                        break;
                }
                x->logprobs[x->n_ids] = heals && forced ? 0 : fake_logprob(logits, token);
                sampled |= !(heals && forced);
                x->ids[x->n_ids++] = tokens[n++] = token;
                text = warm_vocab_text(v, token);
                memcpy(x->text + x->n_text, text.data, text.n);
                x->n_text += (uint32_t) text.n;
                healed += heals ? (uint32_t) text.n : 0;
                counted += !heals;
        }
        /* The piece's bytes are already before the cursor. */
        healed = x->n_text < r->prompt.n_heal ? x->n_text : r->prompt.n_heal;
        x->n_text -= healed;
        memmove(x->text, x->text + healed, x->n_text);
}

void harness_check(struct harness *h, const struct warm_request *r) {
        assert_int_equal(r->failure, WARM_FAILURE_NONE);
        assert_true(r->n_answers >= 1);
        for (uint32_t i = 0; i < r->n_answers; i++) {
                const struct warm_request_answer *a = &r->answers[i];
                struct warm_string text = warm_answer_text(a->answer);
                struct expected *x = malloc(sizeof(*x));

                assert_non_null(x);
                harness_expect(h, r, i, x);
                assert_int_equal(a->n_ids, x->n_ids);
                assert_memory_equal(a->ids, x->ids, x->n_ids * sizeof(*x->ids));
                assert_int_equal(a->finish, x->finish);
                assert_int_equal(text.n, x->n_text);
                assert_memory_equal(text.data, x->text, x->n_text);
                for (uint32_t k = 0; r->logprobs && k < a->n_ids; k++) {
                        float difference = a->logprobs[k].logprob - x->logprobs[k];

                        assert_int_equal(a->logprobs[k].token, x->ids[k]);
                        assert_true(difference < 1e-4F && difference > -1e-4F);
                }
                free(x);
        }
}
