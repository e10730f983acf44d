/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fake-engine.h"

enum stage { STAGE_WAITING, STAGE_TEXT, STAGE_DONE };

struct task {
        struct warm_request request; /* first: the two are one address */
        enum stage stage;
        enum warm_finish why; /* asked for from outside */
        struct task *next;
};

struct warm_engine {
        struct warm_model *model;
        struct task *first; /* oldest first */
        uint32_t n_tasks;
        bool hold, fault, measured;
        const char *answer;
        enum warm_failure failure;
        uint64_t n_requests;
        struct warm_request *last;
        int fd;
};

static void wake(struct warm_engine *e) {
        const uint64_t one = 1;

        assert(write(e->fd, &one, sizeof(one)) == sizeof(one));
}

/* ---- The model ---- */

/* The letter by which byte-level BPE spells a byte: bytes that are no letters are moved to U+0100 and on. */
static size_t spell(unsigned byte, char *to) {
        unsigned n = 0, code = byte;

        for (unsigned b = 0; b <= byte; b++)
                if (!((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae)) {
                        code = b == byte ? 0x100 + n : byte;
                        n++;
                }
        if (code < 0x80) {
                to[0] = (char) code;
                return 1;
        }
        to[0] = (char) (0xc0 | code >> 6);
        to[1] = (char) (0x80 | (code & 0x3f));
        return 2;
}

static struct warm_vocab *make_vocab(void) {
        static const char *const controls[] = { "<|fim_prefix|>", "<|fim_suffix|>",
                                                "<|fim_middle|>", "<|endoftext|>" };
        struct warm_string tokens[FAKE_TOKENS];
        int32_t kinds[FAKE_TOKENS];
        char spelled[256][2];
        struct warm_vocab *v;
        int r;

        for (unsigned i = 0; i < FAKE_TOKENS; i++) {
                kinds[i] = i < 256 ? WARM_TOKEN_NORMAL : WARM_TOKEN_CONTROL;
                if (i < 256)
                        tokens[i] = (struct warm_string){ spelled[i], spell(i, spelled[i]) };
                else
                        tokens[i] = (struct warm_string){ controls[i - 256],
                                                          strlen(controls[i - 256]) };
        }
        r = warm_vocab_new(&(struct warm_vocab_config){ .kind = WARM_VOCAB_BPE,
                                                        .pre = { "gpt-2", 5 },
                                                        .tokens = tokens,
                                                        .kinds = kinds,
                                                        .n_tokens = FAKE_TOKENS,
                                                        .bos = -1,
                                                        .eos = FAKE_TOKEN_EOS,
                                                        .unknown = -1 },
                           &v, NULL);
        assert(r == 0);
        return v;
}

static struct warm_model *make_model(void) {
        static const int32_t ends[] = { FAKE_TOKEN_EOS };
        struct warm_model *m = calloc(1, sizeof(*m));

        assert(m);
        m->name = (char *) "bytes";
        m->path = (char *) "/models/bytes.gguf";
        m->architecture = (char *) "qwen2";
        m->quantization = (char *) "F32";
        m->n_parameters = 1000;
        m->file_bytes = 4000;
        m->plan.n_vocab = FAKE_TOKENS;
        m->plan.n_context = FAKE_CONTEXT;
        m->plan.embedding =
                (struct warm_tensor){ .n_rows = FAKE_TOKENS, .n_cols = 4, .bytes = 4160 };
        m->vocab = make_vocab();
        m->format = (struct warm_prompt_format){
                .pre = FAKE_TOKEN_PRE,
                .suf = FAKE_TOKEN_SUF,
                .mid = FAKE_TOKEN_MID,
                .pad = -1,
                .repo = -1,
                .file_sep = -1,
                .eot = -1,
                .bos = -1,
                .order = WARM_ORDER_SPM_JOINT,
                .orders = 1U << WARM_ORDER_SPM_JOINT | 1U << WARM_ORDER_PSM,
                .ends = ends,
                .n_ends = 1,
        };
        return m;
}

struct warm_engine *fake_engine_new(void) {
        struct warm_engine *e = calloc(1, sizeof(*e));

        assert(e);
        e->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert(e->fd >= 0);
        e->model = make_model();
        return e;
}

struct warm_engine *warm_engine_free(struct warm_engine *e) {
        assert(!e->first);
        warm_vocab_free(e->model->vocab);
        free(e->model);
        close(e->fd);
        free(e);
        return NULL;
}

const struct warm_model *warm_engine_model(struct warm_engine *e, uint32_t model_index) {
        assert(model_index == 0);
        return e->model;
}

uint32_t warm_engine_n_models(struct warm_engine *e) {
        (void) e;
        return 1;
}

uint32_t warm_engine_n_context(struct warm_engine *e, uint32_t model_index) {
        (void) e;
        (void) model_index;
        return FAKE_CONTEXT;
}

uint64_t warm_engine_weights_bytes(struct warm_engine *e, uint32_t model_index) {
        (void) e;
        (void) model_index;
        return 4096;
}

uint64_t warm_engine_token_bytes(struct warm_engine *e, uint32_t model_index) {
        (void) e;
        (void) model_index;
        return 256;
}

struct warm_engine_speed warm_engine_speed(struct warm_engine *e) {
        return e->measured ? (struct warm_engine_speed){ 2e9, 3e9 }
                           : (struct warm_engine_speed){ 0 };
}

/* ---- Requests ---- */

struct warm_request *warm_request_new(void) {
        struct task *t = calloc(1, sizeof(*t));

        return t ? &t->request : NULL;
}

struct warm_request *warm_request_free(struct warm_request *r) {
        if (!r)
                return NULL;
        for (unsigned i = 0; i < WARM_ALTERNATIVES_MAX; i++) {
                warm_answer_free(r->answers[i].answer);
                free(r->answers[i].ids);
                free(r->answers[i].logprobs);
        }
        warm_prompt_deinit(&r->prompt);
        free(r->scores);
        free(r->status);
        free(r->memory);
        free(r);
        return NULL;
}

int warm_engine_submit(struct warm_engine *e, struct warm_request *r) {
        struct task *t = (struct task *) r, **at = &e->first;

        if (e->n_tasks == FAKE_REQUESTS_MAX)
                return WARM_ENGINE_E_BUSY;
        for (; *at; at = &(*at)->next)
                if (r->stream != 0 && r->supersede && (*at)->request.stream == r->stream)
                        (*at)->why = WARM_FINISH_SUPERSEDED;
        *at = t;
        e->n_tasks++;
        e->n_requests++;
        e->last = r;
        wake(e);
        return 0;
}

void warm_engine_cancel(struct warm_engine *e, uint64_t request_id) {
        for (struct task *t = e->first; t; t = t->next)
                if (t->request.id == request_id && t->why == WARM_FINISH_NONE)
                        t->why = WARM_FINISH_CANCELLED;
        wake(e);
}

int warm_engine_event_fd(struct warm_engine *e) {
        return e->fd;
}

static void add_logprob(const struct warm_request *r, struct warm_request_answer *a, uint32_t i) {
        struct warm_token_logprob *l = &a->logprobs[i];
        struct warm_top *top = (struct warm_top *) (a->logprobs + 4096) + (size_t) i * r->n_top;

        *l = (struct warm_token_logprob){ a->ids[i], -0.25F, r->n_top, top };
        for (uint32_t k = 0; k < r->n_top; k++)
                top[k] = (struct warm_top){ (int32_t) k, -0.25F * (float) (k + 1) };
}

/* One answer, a byte a token, healing's bytes first. */
static void answer(struct warm_engine *e, struct warm_request *r, struct warm_request_answer *a,
                   enum warm_finish why) {
        const char *text = e->answer ? e->answer : FAKE_ANSWER;
        enum warm_finish finish = WARM_FINISH_NONE;
        uint32_t n_all = r->prompt.n_heal + (uint32_t) strlen(text);

        r->answer.text_bytes_max = n_all + 1;
        a->ids = calloc(n_all + 1, sizeof(*a->ids));
        a->logprobs = calloc(1, 4096 * sizeof(*a->logprobs) +
                                        (size_t) 4096 * r->n_top * sizeof(struct warm_top));
        assert(a->ids && a->logprobs && n_all < 4096);
        assert(warm_answer_new(&r->answer, &a->answer) == 0);
        for (uint32_t i = 0; why == WARM_FINISH_NONE && finish == WARM_FINISH_NONE; i++) {
                uint8_t byte;

                if (i == n_all) {
                        finish = WARM_FINISH_END;
                        break;
                }
                if (i == r->prompt.n_heal + r->n_max) {
                        finish = WARM_FINISH_LENGTH;
                        break;
                }
                byte = i < r->prompt.n_heal ? r->prompt.heal[i]
                                            : (uint8_t) text[i - r->prompt.n_heal];
                a->ids[a->n_ids++] = byte;
                add_logprob(r, a, i);
                finish = warm_answer_push(a->answer, &byte, 1);
        }
        a->finish = warm_answer_end(a->answer, why != WARM_FINISH_NONE ? why : finish);
        a->confidence_mean = 0.75F;
        a->confidence_min = 0.5F;
        a->confidence_first = 1;
}

static void fill_status(struct warm_engine *e, struct warm_request *r) {
        struct warm_engine_status *s = calloc(1, sizeof(*s));

        assert(s);
        s->backend.name = "cpu";
        strcpy(s->backend.description, "nothing");
        s->n_requests = e->n_requests;
        e->measured = e->measured || r->measure;
        s->n_models = 1;
        s->models[0] = (struct warm_model_status){ .model = e->model, .n_context = FAKE_CONTEXT };
        r->status = s;
}

static void compute(struct warm_engine *e, struct task *t) {
        struct warm_request *r = &t->request;

        r->failure = e->failure;
        r->hit = (struct warm_cache_hit){ 0, WARM_MISS_NEW, 0 };
        r->queue_ns = 100000;
        r->prefill_ns = 2000000;
        r->first_ns = r->arrival_ns + 3000000;
        r->done_ns = r->arrival_ns + 5000000;
        r->engine_ns = 4000000;
        if (r->failure != WARM_FAILURE_NONE)
                return;
        switch (r->kind) {
        case WARM_REQUEST_COMPLETE:
                for (; r->n_answers < r->n; r->n_answers++)
                        answer(e, r, &r->answers[r->n_answers], t->why);
                break;
        case WARM_REQUEST_SCORE:
                r->scores = calloc(r->prompt.n_ids, sizeof(float));
                assert(r->scores);
                for (uint32_t i = 1; i < r->prompt.n_ids; i++)
                        r->scores[i] = -0.5F;
                r->answers[0].finish = t->why;
                break;
        case WARM_REQUEST_WARM:
                r->answers[0].finish = t->why;
                break;
        case WARM_REQUEST_TRIM:
                r->n_trimmed_blocks = 7;
                break;
        case WARM_REQUEST_STATUS:
                fill_status(e, r);
                break;
        case WARM_REQUEST_EXPLAIN:
                break;
        }
}

static void unlink_task(struct warm_engine *e, struct task *t) {
        struct task **at = &e->first;

        while (*at != t)
                at = &(*at)->next;
        *at = t->next;
        e->n_tasks--;
        if (e->last == &t->request)
                e->last = NULL;
}

/* Half of the text first, then the end. */
static bool advance(struct warm_engine *e, struct task *t, struct warm_event *ret_event) {
        struct warm_request *r = &t->request;
        struct warm_string text;

        if (t->stage == STAGE_WAITING) {
                compute(e, t);
                t->stage = STAGE_TEXT;
        }
        if (t->stage == STAGE_TEXT && r->progress && r->n_answers > 0) {
                t->stage = STAGE_DONE;
                text = warm_answer_text(r->answers[0].answer);
                if (text.n / 2 > 0) {
                        *ret_event = (struct warm_event){ .kind = WARM_EVENT_TEXT,
                                                          .request = r,
                                                          .n_bytes = text.n / 2,
                                                          .text = text.data };
                        return true;
                }
        }
        unlink_task(e, t);
        *ret_event = (struct warm_event){ .kind = WARM_EVENT_DONE, .request = r };
        return true;
}

static bool is_ready(const struct warm_engine *e, const struct task *t) {
        return !e->hold || t->why != WARM_FINISH_NONE || t->stage != STAGE_WAITING;
}

bool warm_engine_has_event(const struct warm_engine *e) {
        for (const struct task *t = e->first; t; t = t->next)
                if (is_ready(e, t))
                        return true;
        return e->fault;
}

void warm_engine_await(struct warm_engine *e) {
        (void) e; /* it has no steps */
}

void warm_engine_expect(struct warm_engine *e) {
        (void) e; /* it never sleeps */
}

bool warm_engine_next(struct warm_engine *e, struct warm_event *ret_event) {
        uint64_t count;

        if (e->fault) {
                e->fault = false;
                *ret_event = (struct warm_event){ .kind = WARM_EVENT_FAULT };
                return true;
        }
        for (struct task *t = e->first; t; t = t->next)
                if (is_ready(e, t))
                        return advance(e, t, ret_event);
        (void) !read(e->fd, &count, sizeof(count));
        return false;
}

/* ---- What tests say ---- */

void fake_engine_hold(struct warm_engine *e, bool hold) {
        e->hold = hold;
        wake(e);
}

void fake_engine_answer(struct warm_engine *e, const char *text) {
        e->answer = text;
}

void fake_engine_fail(struct warm_engine *e, enum warm_failure failure) {
        e->failure = failure;
}

void fake_engine_fault(struct warm_engine *e) {
        e->fault = true;
        wake(e);
}

uint32_t fake_engine_n_held(const struct warm_engine *e) {
        return e->n_tasks;
}

const struct warm_request *fake_engine_last(const struct warm_engine *e) {
        return e->last;
}
