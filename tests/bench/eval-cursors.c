/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval-cursors MODEL CURSORS.json [-n CURSORS] [-v] [-b]: how good completions are, through prompt, engine and answer.
 *
 * CURSORS.json: [{"path", "prefix", "suffix", "rest_of_line"}, ...]. Greedy, one line, for each order that the model
 * knows:
 *   exact    the answer is the rest of the line
 *   first 3  its first three characters are right
 *   typed    after typing through the first character shown, a fresh answer is the rest of what was shown
 *   broken   of these, prompts that changed before their end
 *   rest     cursors whose line ends in closers, as if an editor had closed them: exact with them kept out of the
 *            prompt (the rule); in brackets, with them in it, and where nothing was closed
 * -b: fail below the bars for the shipped model and its 200 held-out cursors; exit 77 where the cursors are not.
 */
#include <assert.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "model/prompt.h"
#include "sched/engine.h"

#define N_MAX 48U

/* Of 200 cursors, in each order; typed: in a hundred. Healed with llama.cpp: 68 and 154, 70 and 156; 94 of 98. */
#define BAR_CURSORS 200U
#define BAR_EXACT   60U
#define BAR_FIRST   140U
#define BAR_TYPED   94U

struct cursor {
        struct warm_string path, prefix, suffix, rest;
};

struct eval {
        struct warm_engine *engine;
        const struct warm_model *model;
        uint32_t index;
        uint64_t n_requests;
        enum warm_order order;
        bool verbose;
};

struct score {
        unsigned n, exact, first, typed, n_typed, broken, n_rest, rest_plain, rest_out, rest_in;
};

static void fail(const char *what) {
        fprintf(stderr, "eval-cursors: %s\n", what);
        exit(1);
}

static struct warm_string string_of(json_object *o, const char *key) {
        json_object *s = json_object_object_get(o, key);

        if (!s || !json_object_is_type(s, json_type_string))
                return (struct warm_string){ "", 0 };
        return (struct warm_string){ json_object_get_string(s),
                                     (size_t) json_object_get_string_len(s) };
}

static char *joined(struct warm_string a, struct warm_string b) {
        char *s = malloc(a.n + b.n + 1);

        if (!s)
                fail("out of memory");
        memcpy(s, a.data, a.n);
        memcpy(s + a.n, b.data, b.n);
        s[a.n + b.n] = 0;
        return s;
}

static bool equal(struct warm_string a, struct warm_string b) {
        return a.n == b.n && memcmp(a.data, b.data, a.n) == 0;
}

/* Bytes of the first n characters; more than s has if there are fewer. */
static size_t characters(struct warm_string s, unsigned n) {
        size_t i = 0;

        while (n > 0 && i < s.n) {
                i++;
                while (i < s.n && ((unsigned char) s.data[i] & 0xc0) == 0x80)
                        i++;
                n--;
        }
        return i + n;
}

static struct warm_prompt_source source_of(const struct eval *e, const struct cursor *c) {
        return (struct warm_prompt_source){
                .prefix = c->prefix,
                .suffix = c->suffix,
                .path = c->path,
                .heal = true,
                .n_max = N_MAX,
                .n_context = warm_engine_n_context(e->engine, e->index),
                .order = e->order,
        };
}

/* Run a prompt (taken); its answer as malloc'd text. */
static struct warm_string ask(struct eval *e, struct warm_prompt *prompt,
                              struct warm_string suffix) {
        struct warm_request *r = warm_request_new();
        struct pollfd fd = { .fd = warm_engine_event_fd(e->engine), .events = POLLIN };
        struct warm_event event = { 0 };
        struct warm_string text;

        if (!r)
                fail("out of memory");
        r->id = ++e->n_requests;
        r->kind = WARM_REQUEST_COMPLETE;
        r->model_index = e->index;
        r->n_max = N_MAX;
        r->prompt = *prompt;
        r->answer =
                (struct warm_answer_config){ .lines = 1, .suffix = suffix, .rest = prompt->rest };
        if (warm_engine_submit(e->engine, r) != 0)
                fail("the engine is busy");
        while (event.kind != WARM_EVENT_DONE || event.request != r)
                if (!warm_engine_next(e->engine, &event))
                        poll(&fd, 1, -1);
        if (r->failure != WARM_FAILURE_NONE)
                fail("a request failed");
        text = warm_answer_text(r->answers[0].answer);
        text.data = joined(text, (struct warm_string){ "", 0 });
        warm_request_free(r);
        return text;
}

static struct warm_string complete(struct eval *e, const struct cursor *c) {
        struct warm_prompt_source s = source_of(e, c);
        struct warm_prompt p;

        if (warm_prompt_build(e->model, &s, &p) < 0)
                fail("a prompt was refused");
        return ask(e, &p, c->suffix);
}

/* Tokens of a prompt as it would be with the rest of the line in it: those of the suffix are exchanged. */
static struct warm_prompt with_rest(struct eval *e, const struct cursor *c) {
        const struct warm_prompt_format *f = &e->model->format;
        struct warm_prompt_source s = source_of(e, c);
        size_t n_suffix = 0, suf = 0, mid = 0;
        struct warm_prompt p;
        int32_t *ids;

        if (warm_prompt_build(e->model, &s, &p) < 0)
                fail("a prompt was refused");
        while (suf < p.n_ids && p.ids[suf] != f->suf)
                suf++;
        for (mid = suf; mid < p.n_ids && p.ids[mid] != f->mid;)
                mid++;
        ids = malloc((p.n_ids + c->suffix.n) * sizeof(*ids));
        if (!ids || mid == p.n_ids)
                fail("no marks in a prompt");
        memcpy(ids, p.ids, ++suf * sizeof(*ids));
        if (warm_vocab_tokenize(e->model->vocab, c->suffix.data, c->suffix.n - p.truncated_suffix,
                                0, ids + suf, c->suffix.n, &n_suffix) < 0)
                fail("no tokens");
        memcpy(ids + suf + n_suffix, p.ids + mid, (p.n_ids - mid) * sizeof(*ids));
        free(p.ids);
        p.ids = ids;
        p.n_ids = (uint32_t) (suf + n_suffix + p.n_ids - mid);
        return p;
}

static bool prompt_breaks(const struct eval *e, const struct cursor *a, const struct cursor *b) {
        struct warm_prompt_source s = source_of(e, a), t = source_of(e, b);
        struct warm_prompt p, q;
        bool breaks;

        if (warm_prompt_build(e->model, &s, &p) < 0 || warm_prompt_build(e->model, &t, &q) < 0)
                fail("a prompt was refused");
        breaks = q.n_ids < p.n_ids || memcmp(p.ids, q.ids, p.n_ids * sizeof(*p.ids)) != 0;
        warm_prompt_deinit(&p);
        warm_prompt_deinit(&q);
        return breaks;
}

static void type_through(struct eval *e, const struct cursor *c, struct warm_string shown,
                         struct score *s) {
        size_t n = characters(shown, 1);
        struct warm_string typed = { shown.data, n }, rest, fresh;
        struct cursor next = *c;

        if (shown.n <= n)
                return;
        rest = (struct warm_string){ shown.data + n, shown.n - n };
        next.prefix = (struct warm_string){ joined(c->prefix, typed), c->prefix.n + n };
        fresh = complete(e, &next);
        s->n_typed++;
        s->typed += equal(fresh, rest);
        s->broken += prompt_breaks(e, c, &next);
        if (e->verbose && !equal(fresh, rest))
                printf("  typed: %.*s|%.*s| then |%.*s|\n", (int) n, shown.data, (int) rest.n,
                       rest.data, (int) fresh.n, fresh.data);
        free((char *) fresh.data);
        free((char *) next.prefix.data);
}

/*
 * Where the closers at the end of a line start that an editor could have put there: of brackets and quotes that stand
 * before the cursor, not of the line's own, with a ';' or ','.
 */
static size_t closers_of(struct warm_string line) {
        static const char opening[] = "([{<", closing[] = ")]}>", quotes[] = "\"'`";
        unsigned depth[4] = { 0 }, n_quotes[3] = { 0 };
        size_t start = line.n;

        for (size_t i = 0; i < line.n; i++) {
                const char *o = strchr(opening, line.data[i]), *c = strchr(closing, line.data[i]),
                           *q = strchr(quotes, line.data[i]);
                bool own = !strchr(";,", line.data[i]);

                if (o)
                        depth[o - opening]++;
                else if (c && depth[c - closing] == 0)
                        own = false;
                else if (c)
                        depth[c - closing]--;
                else if (q)
                        own = n_quotes[q - quotes]++ % 2 == 1 || strchr(line.data + i + 1, *q);
                if (own)
                        start = line.n;
                else if (start == line.n)
                        start = i;
        }
        return start;
}

/* The same cursor with the closers at the line's end already there. */
static void with_closers(struct eval *e, const struct cursor *c, struct warm_string shown,
                         struct score *s) {
        struct warm_string closers, expected, got;
        size_t n = closers_of(c->rest);
        struct cursor next = *c;
        struct warm_prompt p;

        if (n == c->rest.n || n == 0)
                return;
        expected = (struct warm_string){ c->rest.data, n };
        closers = (struct warm_string){ c->rest.data + n, c->rest.n - n };
        next.suffix = (struct warm_string){ joined(closers, c->suffix), closers.n + c->suffix.n };
        s->n_rest++;
        s->rest_plain += equal(shown, c->rest);
        got = complete(e, &next);
        s->rest_out += equal(got, expected);
        if (e->verbose && !equal(got, expected))
                printf("  rest: |%.*s|%.*s| got |%.*s|\n", (int) n, c->rest.data, (int) closers.n,
                       closers.data, (int) got.n, got.data);
        free((char *) got.data);
        p = with_rest(e, &next);
        got = ask(e, &p, next.suffix);
        s->rest_in += equal(got, expected);
        free((char *) got.data);
        free((char *) next.suffix.data);
}

static void evaluate(struct eval *e, json_object *cursors, size_t n_max, struct score *s) {
        size_t n = json_object_array_length(cursors);

        for (size_t i = 0; i < n && i < n_max; i++) {
                json_object *o = json_object_array_get_idx(cursors, i);
                struct cursor c = { string_of(o, "path"), string_of(o, "prefix"),
                                    string_of(o, "suffix"), string_of(o, "rest_of_line") };
                struct warm_string shown = complete(e, &c);
                size_t three = characters(c.rest, 3);

                s->n++;
                s->exact += equal(shown, c.rest);
                s->first += characters(shown, 3) == three && three <= shown.n &&
                            memcmp(shown.data, c.rest.data, three) == 0;
                if (e->verbose && !equal(shown, c.rest))
                        printf("%3zu: |%.*s| got |%.*s|\n", i, (int) c.rest.n, c.rest.data,
                               (int) shown.n, shown.data);
                type_through(e, &c, shown, s);
                with_closers(e, &c, shown, s);
                free((char *) shown.data);
        }
}

static bool is_above_bars(const struct score *s) {
        return s->n == BAR_CURSORS && s->exact >= BAR_EXACT && s->first >= BAR_FIRST &&
               s->typed * 100 >= s->n_typed * BAR_TYPED;
}

/* Return: whether every order is above the bars. */
static bool evaluate_orders(struct eval *e, json_object *cursors, size_t n_max) {
        static const char *const names[] = { "none", "psm", "spm-joint" };
        bool above = true;

        printf("%-10s %7s %7s %7s %12s %7s %16s\n", "order", "cursors", "exact", "first 3", "typed",
               "broken", "rest");
        for (e->order = WARM_ORDER_PSM; e->order <= WARM_ORDER_SPM_JOINT; e->order++) {
                struct score s = { 0 };
                char typed[32], rest[48];

                if (!(e->model->format.orders & 1U << e->order))
                        continue;
                evaluate(e, cursors, n_max, &s);
                snprintf(typed, sizeof(typed), "%u/%u", s.typed, s.n_typed);
                snprintf(rest, sizeof(rest), "%u/%u (%u, %u)", s.rest_out, s.n_rest, s.rest_in,
                         s.rest_plain);
                printf("%-10s %7u %7u %7u %12s %7u %16s\n", names[e->order], s.n, s.exact, s.first,
                       typed, s.broken, rest);
                above = above && is_above_bars(&s);
        }
        return above;
}

static void start(struct eval *e, const char *path) {
        struct warm_engine_config config = { 0 };
        struct warm_backend_config cpu = { 0 };
        struct warm_model *model;
        char *why = NULL;

        if (warm_model_open(path, NULL, &model, &why) < 0)
                fail(why ? why : "the model cannot be opened");
        if (warm_cpu_backend_new(&cpu, &config.backend) < 0 ||
            warm_engine_new(&config, &e->engine) < 0 ||
            warm_engine_add_model(e->engine, model, &e->index, &why) != 0)
                fail(why ? why : "the engine cannot be made");
        e->model = warm_engine_model(e->engine, e->index);
        if (warm_engine_start(e->engine) < 0)
                fail("the engine does not start");
}

int main(int argc, char **argv) {
        struct eval e = { 0 };
        bool bars = false, above;
        json_object *cursors;
        size_t n_max = SIZE_MAX;
        int c;

        while (c = getopt(argc, argv, "bn:v"), c >= 0) {
                if (c == 'b')
                        bars = true;
                else if (c == 'n')
                        n_max = strtoul(optarg, NULL, 10);
                else if (c == 'v')
                        e.verbose = true;
                else
                        return 2;
        }
        if (optind + 2 != argc)
                fail("usage: eval-cursors MODEL CURSORS.json [-n CURSORS] [-v] [-b]");
        if (bars && access(argv[optind + 1], R_OK) < 0) {
                puts("skipped: the held-out cursors are not here");
                return 77;
        }
        cursors = json_object_from_file(argv[optind + 1]);
        if (!cursors || !json_object_is_type(cursors, json_type_array))
                fail("no array of cursors in that file");
        start(&e, argv[optind]);
        above = evaluate_orders(&e, cursors, n_max);
        warm_engine_free(e.engine);
        json_object_put(cursors);
        return bars && !above ? 1 : 0;
}
