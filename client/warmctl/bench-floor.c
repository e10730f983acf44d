/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of warmctl bench that have a floor: prefill, decode at depths and in batches, first text after a cached
 * prefix. Prompts are token ids of made-up code, one connection for each sequence.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"

#define DECODED_MIN 6U                      /* fewer tokens say little of a step */
#define TRIES       3U                      /* for each round, with other texts */
#define TEXT_BYTES  (BENCH_TOKENS_MAX * 6U) /* a token of code has 3 to 4 bytes */
#define LONG_TOKENS 2048U                   /* prompts longer than this are computed once */

static const uint32_t depths[] = { 0, 512, 2048, 8192, BENCH_TOKENS_MAX };
static const uint32_t batches[] = { 2, 4, 8, BENCH_BATCH_MAX };

#define N_DEPTHS  (sizeof(depths) / sizeof(depths[0]))
#define N_BATCHES (sizeof(batches) / sizeof(batches[0]))

/* One sequence of a row. */
struct lane {
        struct warm_client *client;
        int32_t *ids; /* [BENCH_TOKENS_MAX + BENCH_FRESH], owned */
        uint32_t n_ids;
        struct warm_client_reply *reply;
};

struct work {
        struct bench *bench;
        struct lane lanes[BENCH_BATCH_MAX]; /* the first's client is borrowed */
        char *text;                         /* [TEXT_BYTES], owned */
};

static void copy_text(const struct warm_client_value *v, char *to, size_t n_max) {
        size_t n = 0;
        const char *text = warm_client_value_text(v, &n);

        n = n < n_max ? n : n_max - 1;
        for (size_t i = 0; i < n; i++)
                to[i] = (char) (text[i] >= ' ' && text[i] <= '~' ? text[i] : '?');
        to[n] = '\0';
}

static double number(const struct warm_client_value *v, const char *path) {
        return warm_client_value_double(warm_client_value_get(v, path), 0);
}

/* ---- What the daemon says of itself ---- */

static void take_machine(struct bench_machine *m, const struct warm_client_value *v) {
        copy_text(warm_client_value_get(v, "engine.backend"), m->backend, sizeof(m->backend));
        copy_text(warm_client_value_get(v, "engine.description"), m->description,
                  sizeof(m->description));
        m->copy_bytes_per_s = number(v, "device.copy_bytes_per_s");
        m->flop_per_s = number(v, "device.matmul_flop_per_s");
}

/* A daemon that may not or cannot measure now still tells what it knows. */
static int ask_machine(struct bench *b, struct warm_client *c) {
        struct warm_client_params *p = warm_client_params_new();
        struct warm_client_reply *reply = NULL;
        const char *name = NULL, *what = NULL;
        uint32_t code;
        int r;

        if (!p)
                return WARMCTL_REFUSED;
        warm_client_params_bool(p, "measure", true);
        r = warm_client_call(c, "status", p, -1, &reply);
        warm_client_params_free(p);
        if (r == WARM_CLIENT_E_REFUSED) {
                if (warm_client_reply_error(reply, &code, &name, &what))
                        fprintf(stderr, "warmctl: the device is not measured: %s (%s, %u)\n", what,
                                name, code);
                reply = warm_client_reply_free(reply);
                r = warmctl_call(c, "status", NULL, &reply);
        } else if (r != 0) {
                fprintf(stderr, "warmctl: the connection to %s broke: %s\n", warm_client_path(c),
                        strerror(r < 0 ? -r : EIO));
                r = WARMCTL_NO_DAEMON;
        }
        if (r == WARMCTL_OK)
                take_machine(&b->machine, warm_client_reply_result(reply));
        warm_client_reply_free(reply);
        return r;
}

static bool is_named(const struct warm_client_value *model, const char *name) {
        size_t n = 0;
        const char *text = warm_client_value_text(warm_client_value_get(model, "name"), &n);

        return !name || (text && n == strlen(name) && memcmp(text, name, n) == 0);
}

static void take_model(struct bench_model *m, const struct warm_client_value *v) {
        copy_text(warm_client_value_get(v, "name"), m->name, sizeof(m->name));
        copy_text(warm_client_value_get(v, "quantization"), m->quantization,
                  sizeof(m->quantization));
        m->context = (uint32_t) number(v, "context");
        m->weights_bytes = number(v, "step.weights_bytes");
        m->kv_token_bytes = number(v, "step.kv_token_bytes");
        m->row_flop = number(v, "step.row_flop");
        m->visible_flop = number(v, "step.visible_flop");
        m->output_flop = number(v, "step.output_flop");
}

int bench_ask(struct bench *b, struct warm_client *c) {
        const struct warm_client_value *models;
        struct warm_client_reply *reply = NULL;
        int r = warmctl_call(c, "models", NULL, &reply);

        if (r != WARMCTL_OK)
                return r;
        models = warm_client_value_get(warm_client_reply_result(reply), "models");
        for (size_t i = 0; i < warm_client_value_n(models); i++)
                if (is_named(warm_client_value_at(models, i), b->ctl->model)) {
                        take_model(&b->model, warm_client_value_at(models, i));
                        break;
                }
        warm_client_reply_free(reply);
        return ask_machine(b, c); /* a model that is not there is refused by the first request */
}

/* ---- Requests ---- */

/* Ids of made-up code, put behind the lane's first `keep`. Return: an exit status. */
static int make_ids(struct work *w, struct lane *lane, uint32_t keep, uint32_t n) {
        const struct warmctl *ctl = w->bench->ctl;
        struct warm_client_params *p = warm_client_params_new();
        size_t n_text =
                bench_text(w->bench, w->text,
                           (size_t) n * 6 + 256 < TEXT_BYTES ? (size_t) n * 6 + 256 : TEXT_BYTES);
        const struct warm_client_value *ids;
        struct warm_client_reply *reply = NULL;
        size_t n_made;
        int r;

        if (!p)
                return WARMCTL_REFUSED;
        warm_client_params_text(p, "text", w->text, n_text);
        if (ctl->model)
                warm_client_params_text(p, "model", ctl->model, strlen(ctl->model));
        r = warmctl_call(w->lanes[0].client, "tokenize", p, &reply);
        warm_client_params_free(p);
        if (r != WARMCTL_OK)
                return r;
        ids = warm_client_value_get(warm_client_reply_result(reply), "ids");
        n_made = warm_client_value_n(ids);
        for (uint32_t i = 0; n_made > 0 && i < n; i++)
                lane->ids[keep + i] =
                        (int32_t) warm_client_value_int(warm_client_value_at(ids, i % n_made), 0);
        lane->n_ids = keep + n;
        warm_client_reply_free(reply);
        return WARMCTL_OK;
}

static void on_reply(struct warm_client *c, uint32_t id, struct warm_client_reply *reply,
                     void *userdata) {
        struct lane *lane = userdata;

        (void) c;
        (void) id;
        lane->reply = reply;
}

static int start(struct work *w, struct lane *lane, uint32_t n_max) {
        const char *model = w->bench->ctl->model;
        struct warm_client_params *p = warm_client_params_new();
        uint32_t id;
        int r;

        if (!p)
                return -ENOMEM;
        warm_client_params_ids(p, "prompt", lane->ids, lane->n_ids);
        warm_client_params_uint(p, "n_max", n_max);
        warm_client_params_bool(p, "raw", true);
        if (model)
                warm_client_params_text(p, "model", model, strlen(model));
        r = warm_client_start(lane->client, "complete", p, on_reply, lane, &id);
        warm_client_params_free(p);
        return r;
}

/* Until every lane has its reply. Return: 0; -errno. */
static int wait_all(struct work *w, uint32_t n) {
        struct pollfd fds[BENCH_BATCH_MAX];
        uint32_t n_waiting;
        int r = 0;

        do {
                n_waiting = 0;
                for (uint32_t i = 0; i < n; i++) {
                        const struct lane *lane = &w->lanes[i];

                        n_waiting += !lane->reply;
                        fds[i] = (struct pollfd){
                                .fd = lane->reply ? -1 : warm_client_fd(lane->client),
                                .events = warm_client_events(lane->client),
                        };
                }
                if (n_waiting > 0 && poll(fds, n, -1) < 0 && errno != EINTR)
                        return -errno;
                for (uint32_t i = 0; r == 0 && i < n; i++)
                        if (!w->lanes[i].reply)
                                r = warm_client_dispatch(w->lanes[i].client);
        } while (r == 0 && n_waiting > 0);
        return r;
}

static void drop_replies(struct work *w) {
        for (uint32_t i = 0; i < BENCH_BATCH_MAX; i++)
                w->lanes[i].reply = warm_client_reply_free(w->lanes[i].reply);
}

#define NO_ROOM 46U /* docs/PROTOCOL.md */

/* Return: WARMCTL_OK and *ret_room, whether all were computed; else an exit status, what failed was said. */
static int check_replies(struct work *w, uint32_t n, bool *ret_room) {
        const char *name = NULL, *what = NULL;
        uint32_t code = 0;

        for (uint32_t i = 0; i < n; i++) {
                if (!warm_client_reply_error(w->lanes[i].reply, &code, &name, &what))
                        continue;
                if (code == NO_ROOM) {
                        *ret_room = false;
                        return WARMCTL_OK;
                }
                fprintf(stderr, "warmctl: refused: %s (%s, %u)\n", what, name, code);
                return WARMCTL_REFUSED;
        }
        *ret_room = true;
        return WARMCTL_OK;
}

/* All lanes at once; their replies stay until drop_replies(). */
static int ask_all(struct work *w, uint32_t n, uint32_t n_max, double *ret_wall_ms,
                   bool *ret_room) {
        struct timespec a, b;
        int r = 0;

        drop_replies(w);
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (uint32_t i = 0; r == 0 && i < n; i++)
                r = start(w, &w->lanes[i], n_max);
        if (r == 0)
                r = wait_all(w, n);
        clock_gettime(CLOCK_MONOTONIC, &b);
        if (r != 0) {
                fprintf(stderr, "warmctl: the connection to %s broke: %s\n",
                        warm_client_path(w->lanes[0].client), strerror(r < 0 ? -r : EMSGSIZE));
                return r < 0 && r != -ENOMEM ? WARMCTL_NO_DAEMON : WARMCTL_REFUSED;
        }
        *ret_wall_ms =
                (double) (b.tv_sec - a.tv_sec) * 1e3 + (double) (b.tv_nsec - a.tv_nsec) / 1e6;
        return check_replies(w, n, ret_room);
}

/* Milliseconds a token, the mean of the lanes; 0: a text ended too soon. */
static double decode_ms(const struct work *w, uint32_t n) {
        double sum = 0;

        for (uint32_t i = 0; i < n; i++) {
                const struct warm_client_value *v = warm_client_reply_result(w->lanes[i].reply);
                size_t n_ids = warm_client_value_n(warm_client_value_get(v, "ids"));
                double first = number(v, "time_us.first");

                if (n_ids < DECODED_MIN || first <= 0)
                        return 0;
                sum += (number(v, "time_us.total") - first) / 1e3 / (double) (n_ids - 1);
        }
        return sum / n;
}

/* ---- Rows ---- */

/* n_outputs: tokens of a sequence whose successor is wanted; at: tokens known before, on the average of what is timed. */
static struct bench_row *add_row(struct bench *b, const char *name, uint32_t depth, double at,
                                 uint32_t batch, uint32_t n_tokens) {
        const struct bench_model *m = &b->model;
        const struct bench_machine *machine = &b->machine;
        struct bench_row *row = &b->rows[b->n_rows++];
        double n = n_tokens, by_bytes, by_flop;

        *row = (struct bench_row){
                .name = name, .depth = depth, .batch = batch, .n_tokens = n_tokens
        };
        row->bytes = m->weights_bytes + batch * m->kv_token_bytes * (at + 2 * n);
        row->flop = batch * (n * m->row_flop + m->visible_flop * (n * at + n * (n + 1) / 2) +
                             m->output_flop);
        if (machine->copy_bytes_per_s > 0 && machine->flop_per_s > 0) {
                by_bytes = row->bytes / machine->copy_bytes_per_s;
                by_flop = row->flop / machine->flop_per_s;
                row->floor_ms = 1e3 * (by_bytes > by_flop ? by_bytes : by_flop);
        }
        return row;
}

static void settle(struct bench *b, struct bench_row *row) {
        bench_sort(row->ms, row->n_ms);
        b->n_done++;
        bench_progress(b);
}

/* Leaves the last prompt cached and in lane 0. */
static int measure_prefill(struct work *w, uint32_t depth) {
        struct bench_row *row = add_row(w->bench, "prefill", 0, 0, 1, depth);
        uint32_t n = depth > LONG_TOKENS ? 1 : BENCH_REPEATS;
        bool room = true;
        int r = WARMCTL_OK;

        for (uint32_t i = 0; r == WARMCTL_OK && room && i < n; i++) {
                double wall_ms;

                r = make_ids(w, &w->lanes[0], 0, depth);
                if (r == WARMCTL_OK)
                        r = ask_all(w, 1, 1, &wall_ms, &room);
                if (r == WARMCTL_OK && room)
                        row->ms[row->n_ms++] = number(warm_client_reply_result(w->lanes[0].reply),
                                                      "time_us.prefill") /
                                               1e3;
        }
        settle(w->bench, row);
        return r;
}

static int measure_first(struct work *w, uint32_t depth) {
        struct bench_row *row = add_row(w->bench, "first text", depth, depth, 1, BENCH_FRESH);
        bool room = true;
        int r = WARMCTL_OK;

        for (uint32_t i = 0; r == WARMCTL_OK && room && i < BENCH_REPEATS; i++) {
                double wall_ms;

                r = make_ids(w, &w->lanes[0], depth, BENCH_FRESH);
                if (r == WARMCTL_OK)
                        r = ask_all(w, 1, 1, &wall_ms, &room);
                if (r == WARMCTL_OK && room)
                        row->ms[row->n_ms++] = wall_ms;
        }
        w->lanes[0].n_ids = depth;
        settle(w->bench, row);
        return r;
}

/* @param depth 0: short prompts, each try others; else what lane 0 holds, with a fresh end where its text ended */
static int measure_decode(struct work *w, uint32_t depth, uint32_t batch) {
        double at = (depth > 0 ? depth : BENCH_FRESH) + BENCH_DECODE / 2.0;
        struct bench_row *row = add_row(w->bench, "decode", depth, at, batch, 1);
        bool room = true;
        int r = WARMCTL_OK;

        for (uint32_t i = 0;
             r == WARMCTL_OK && room && row->n_ms < BENCH_REPEATS && i < TRIES * BENCH_REPEATS;
             i++) {
                double wall_ms, ms;

                for (uint32_t k = 0; r == WARMCTL_OK && k < batch && (depth == 0 || i > 0); k++)
                        r = make_ids(w, &w->lanes[k], depth > 0 ? depth - BENCH_FRESH : 0,
                                     BENCH_FRESH);
                if (r == WARMCTL_OK)
                        r = ask_all(w, batch, BENCH_DECODE + 1, &wall_ms, &room);
                if (r != WARMCTL_OK || !room)
                        break;
                ms = decode_ms(w, batch);
                if (ms > 0)
                        row->ms[row->n_ms++] = ms;
        }
        settle(w->bench, row);
        return r;
}

static bool is_allowed(const struct bench *b, uint32_t depth) {
        return depth + BENCH_FRESH + BENCH_DECODE + 1 <= b->model.context;
}

uint32_t bench_plan(const struct bench *b) {
        uint32_t n = is_allowed(b, 0) ? N_BATCHES + 1 : 0;

        for (uint32_t i = 1; i < N_DEPTHS; i++)
                n += is_allowed(b, depths[i]) ? 3 : 0;
        return n;
}

_Static_assert(N_BATCHES + 1 + 3 * (N_DEPTHS - 1) <= BENCH_ROWS_MAX, "bench_plan()'s most rows");

static int measure_all(struct work *w) {
        int r = WARMCTL_OK;

        for (uint32_t i = 0; r == WARMCTL_OK && i < N_DEPTHS && is_allowed(w->bench, depths[i]);
             i++) {
                if (depths[i] > 0)
                        r = measure_prefill(w, depths[i]);
                if (r == WARMCTL_OK && depths[i] > 0)
                        r = measure_first(w, depths[i]);
                if (r == WARMCTL_OK)
                        r = measure_decode(w, depths[i], 1);
        }
        for (uint32_t i = 0; r == WARMCTL_OK && i < N_BATCHES && is_allowed(w->bench, 0); i++)
                r = measure_decode(w, 0, batches[i]);
        return r;
}

static int open_lanes(struct work *w, struct warm_client *c) {
        int r = WARMCTL_OK;

        w->text = malloc(TEXT_BYTES);
        if (!w->text)
                return WARMCTL_REFUSED;
        w->lanes[0].client = c;
        for (uint32_t i = 0; r == WARMCTL_OK && i < BENCH_BATCH_MAX; i++) {
                w->lanes[i].ids = calloc(BENCH_TOKENS_MAX + BENCH_FRESH, sizeof(int32_t));
                if (!w->lanes[i].ids)
                        return WARMCTL_REFUSED;
                if (i > 0)
                        r = warmctl_connect(w->bench->ctl, &w->lanes[i].client);
        }
        return r;
}

int bench_rows(struct bench *b, struct warm_client *c) {
        struct work w = { .bench = b };
        int r = open_lanes(&w, c);

        if (r == WARMCTL_OK)
                r = measure_all(&w);
        drop_replies(&w);
        for (uint32_t i = 0; i < BENCH_BATCH_MAX; i++) {
                if (i > 0)
                        warm_client_free(w.lanes[i].client);
                free(w.lanes[i].ids);
        }
        free(w.text);
        return r;
}
