/* SPDX-License-Identifier: Apache-2.0 */
/* What each method refuses, and what it makes of what it takes. */
#include <stdlib.h>
#include <string.h>

#include "harness.h"

struct fixture {
        struct harness *h;
        struct peer p;
        struct warm_writer w;
        struct warm_buffer b;
        uint32_t id;
};

static int setup(void **state) {
        struct fixture *f = calloc(1, sizeof(*f));

        f->h = harness_new(NULL);
        peer_open(f->h, &f->p);
        *state = f;
        return 0;
}

static int teardown(void **state) {
        struct fixture *f = *state;

        assert_served(f->h);
        peer_close(&f->p);
        harness_free(f->h);
        free(f);
        return 0;
}

static struct warm_writer *begin(struct fixture *f, const char *method, uint32_t n_pairs) {
        call_begin(&f->w, &f->b, ++f->id, method);
        warm_write_map(&f->w, n_pairs);
        return &f->w;
}

/* complete with a prefix and n_more other pairs to come */
static struct warm_writer *begin_complete(struct fixture *f, uint32_t n_more) {
        struct warm_writer *w = begin(f, "complete", n_more + 1);

        warm_write_key_string(w, "prefix", "return ");
        return w;
}

static const char *refused(struct fixture *f, enum warm_rpc_error e) {
        call_send(f->h, &f->p, &f->w);
        return peer_error(f->h, &f->p, f->id, e);
}

static const msgpack_object *answered(struct fixture *f) {
        call_send(f->h, &f->p, &f->w);
        return peer_result(f->h, &f->p, f->id);
}

static uint64_t uint_at(const msgpack_object *o, const char *key) {
        uint64_t value;

        assert_int_equal(warm_read_uint(warm_read_key(o, key), &value), 0);
        return value;
}

static void assert_text(const msgpack_object *o, const char *key, const char *expected) {
        struct warm_wire_text t;

        assert_int_equal(warm_read_text(warm_read_key(o, key), &t), 0);
        assert_int_equal(t.n, strlen(expected));
        assert_memory_equal(t.data, expected, t.n);
}

static void unknown_methods_and_keys_are_refused_by_name(void **state) {
        static const char *const methods[] = { "cancel", "complete", "explain",  "hello", "models",
                                               "score",  "status",   "tokenize", "trim",  "warm" };
        struct fixture *f = *state;

        begin(f, "no-such-method", 0);
        refused(f, WARM_RPC_E_UNKNOWN_METHOD);
        for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
                warm_write_key_uint(begin(f, methods[i], 1), "bogus", 1);
                assert_non_null(strstr(refused(f, WARM_RPC_E_UNKNOWN_KEY), "'bogus'"));
        }
        warm_write_key_string(begin_complete(f, 1), "prefix", "again");
        assert_non_null(strstr(refused(f, WARM_RPC_E_DUPLICATE_KEY), "'prefix'"));
}

/* Every integer and number of complete: just inside, just outside, and of a wrong type. */
static void numbers_of_complete_end_at_their_ranges(void **state) {
        static const struct {
                const char *name;
                double min, max, below, above;
        } fields[] = {
                { "n_max", 1, 4000, 0, 4097 },
                { "lines", 0, 10000, -1, 10001 },
                { "n", 1, 4, 0, 5 },
                { "indent_min", 0, 1000, -1, 1001 },
                { "deadline_ms", 1, 600000, 0, 600001 },
                { "t_predict_ms", 1, 600000, 0, 600001 },
                { "top_k", 0, 1048576, -1, 1048577 },
                { "seed", 0, 9007199254740991, -1, 9007199254740992 },
                { "offset", 0, 9007199254740991, -1, 9007199254740992 },
                { "line", 0, 9007199254740991, -1, 9007199254740992 },
                { "logprobs", 0, 32, -1, 33 },
                { "temperature", 0, 10, -0.001, 10.001 },
                { "top_p", 1e-300, 1, 0, 1.001 },
                { "min_p", 0, 0.999999999999, -0.001, 1 },
        };
        struct fixture *f = *state;

        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
                const double good[] = { fields[i].min, fields[i].max };
                const double bad[] = { fields[i].below, fields[i].above };
                struct warm_writer *w;

                for (unsigned k = 0; k < 2; k++) {
                        w = begin_complete(f, 1);
                        warm_write_string(w, fields[i].name);
                        warm_write_double(w, good[k]);
                        answered(f);
                        w = begin_complete(f, 1);
                        warm_write_string(w, fields[i].name);
                        warm_write_double(w, bad[k]);
                        assert_non_null(strstr(refused(f, WARM_RPC_E_RANGE), fields[i].name));
                }
                warm_write_key_string(begin_complete(f, 1), fields[i].name, "1");
                assert_non_null(strstr(refused(f, WARM_RPC_E_TYPE), fields[i].name));
                w = begin_complete(f, 1);
                warm_write_string(w, fields[i].name);
                warm_write_nil(w);
                refused(f, WARM_RPC_E_TYPE);
        }
}

static void other_types_of_complete_are_held_too(void **state) {
        static const char *const booleans[] = { "heal", "special", "supersede", "raw", "progress" };
        static const char *const arrays[] = { "snippets", "stop" };
        static const char *const texts[] = { "suffix", "model", "path" };
        struct fixture *f = *state;

        for (size_t i = 0; i < 5; i++) {
                warm_write_key_uint(begin_complete(f, 1), booleans[i], 1);
                assert_non_null(strstr(refused(f, WARM_RPC_E_TYPE), booleans[i]));
        }
        for (size_t i = 0; i < 2; i++) {
                warm_write_key_string(begin_complete(f, 1), arrays[i], "x");
                assert_non_null(strstr(refused(f, WARM_RPC_E_TYPE), arrays[i]));
        }
        for (size_t i = 0; i < 3; i++) {
                warm_write_key_bool(begin_complete(f, 1), texts[i], true);
                assert_non_null(strstr(refused(f, WARM_RPC_E_TYPE), texts[i]));
        }
        warm_write_key_bool(begin_complete(f, 1), "stream", true);
        refused(f, WARM_RPC_E_TYPE);
        warm_write_key_bool(begin(f, "complete", 1), "prompt", true);
        refused(f, WARM_RPC_E_TYPE);
}

static void texts_of_complete_end_at_their_lengths(void **state) {
        static const struct {
                const char *name;
                size_t max;
        } fields[] = {
                { "prefix", WARM_PREFIX_BYTES_MAX },
                { "suffix", WARM_SUFFIX_BYTES_MAX },
                { "prompt", WARM_PREFIX_BYTES_MAX },
                { "path", 4096 },
                { "stream", 256 },
        };
        char *text = malloc(WARM_PREFIX_BYTES_MAX + 1);
        struct fixture *f = *state;

        memset(text, ' ', WARM_PREFIX_BYTES_MAX + 1);
        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
                bool alone = i == 0 || i == 2;

                for (size_t more = 0; more < 2; more++) {
                        struct warm_writer *w = begin(f, "complete", alone ? 1 : 2);

                        if (!alone)
                                warm_write_key_string(w, "prefix", "x");
                        warm_write_key_text(w, fields[i].name, text, fields[i].max + more);
                        if (more == 0)
                                answered(f);
                        else if (strcmp(fields[i].name, "stream") == 0)
                                refused(f, WARM_RPC_E_TYPE);
                        else
                                refused(f, WARM_RPC_E_RANGE);
                }
        }
        free(text);
}

static void stops_and_snippets_end_at_their_counts(void **state) {
        struct fixture *f = *state;
        char text[WARM_STOP_BYTES_MAX + 1];

        memset(text, 'q', sizeof(text));
        for (uint32_t n = WARM_STOPS_MAX; n <= WARM_STOPS_MAX + 1; n++) {
                struct warm_writer *w = begin_complete(f, 1);

                warm_write_string(w, "stop");
                warm_write_array(w, n);
                for (uint32_t i = 0; i < n; i++)
                        warm_write_text(w, text, WARM_STOP_BYTES_MAX);
                if (n == WARM_STOPS_MAX)
                        answered(f);
                else
                        refused(f, WARM_RPC_E_RANGE);
        }
        for (unsigned i = 0; i < 3; i++) {
                struct warm_writer *w = begin_complete(f, 1);

                warm_write_string(w, "stop");
                warm_write_array(w, 1);
                if (i == 0)
                        warm_write_uint(w, 1);
                else
                        warm_write_text(w, text, i == 1 ? 0 : sizeof(text));
                refused(f, i == 0 ? WARM_RPC_E_TYPE : WARM_RPC_E_RANGE);
        }
        for (uint32_t n = WARM_PROMPT_SNIPPETS_MAX; n <= WARM_PROMPT_SNIPPETS_MAX + 1; n++) {
                struct warm_writer *w = begin_complete(f, 1);

                warm_write_string(w, "snippets");
                warm_write_array(w, n);
                for (uint32_t i = 0; i < n; i++) {
                        warm_write_map(w, 1);
                        warm_write_key_string(w, "text", "s\n");
                }
                if (n == WARM_PROMPT_SNIPPETS_MAX)
                        answered(f);
                else
                        refused(f, WARM_RPC_E_RANGE);
        }
}

static void a_snippet_is_a_map_with_text(void **state) {
        struct fixture *f = *state;

        for (unsigned i = 0; i < 3; i++) {
                struct warm_writer *w = begin_complete(f, 1);

                warm_write_string(w, "snippets");
                warm_write_array(w, 1);
                warm_write_map(w, 1);
                warm_write_key_uint(w, i == 0 ? "text" : i == 1 ? "path" : "name", 1);
                refused(f, i == 2 ? WARM_RPC_E_UNKNOWN_KEY : WARM_RPC_E_TYPE);
        }
        warm_write_string(begin_complete(f, 1), "snippets");
        warm_write_array(&f->w, 1);
        warm_write_map(&f->w, 1);
        warm_write_key_string(&f->w, "path", "a.c");
        assert_non_null(strstr(refused(f, WARM_RPC_E_MISSING), "'text'"));
        warm_write_string(begin_complete(f, 1), "snippets");
        warm_write_array(&f->w, 1);
        warm_write_uint(&f->w, 1);
        refused(f, WARM_RPC_E_TYPE);
}

static void documents_and_prompts_exclude_each_other(void **state) {
        struct fixture *f = *state;

        begin(f, "complete", 0);
        refused(f, WARM_RPC_E_MISSING);
        warm_write_key_string(begin(f, "complete", 1), "suffix", "x");
        refused(f, WARM_RPC_E_MISSING);
        warm_write_key_string(begin_complete(f, 1), "prompt", "x");
        refused(f, WARM_RPC_E_CONFLICT);
        warm_write_key_string(begin(f, "complete", 2), "prompt", "x");
        warm_write_key_string(&f->w, "suffix", "x");
        refused(f, WARM_RPC_E_CONFLICT);
        warm_write_string(begin(f, "complete", 2), "prompt");
        warm_write_array(&f->w, 1);
        warm_write_uint(&f->w, 65);
        warm_write_key_bool(&f->w, "heal", true);
        refused(f, WARM_RPC_E_CONFLICT);
        warm_write_key_string(begin_complete(f, 1), "model", "no-such");
        refused(f, WARM_RPC_E_UNKNOWN_MODEL);
}

static void send_ids(struct fixture *f, const char *method, const char *key, uint32_t n,
                     uint64_t id) {
        warm_write_string(begin(f, method, 1), key);
        warm_write_array(&f->w, n);
        for (uint32_t i = 0; i < n; i++)
                warm_write_uint(&f->w, id);
}

static void ids_must_be_tokens_and_fit(void **state) {
        struct fixture *f = *state;

        send_ids(f, "complete", "prompt", 3, FAKE_TOKENS - 1);
        answered(f);
        send_ids(f, "complete", "prompt", 3, FAKE_TOKENS);
        refused(f, WARM_RPC_E_UNKNOWN_TOKEN);
        send_ids(f, "complete", "prompt", 200, FAKE_TOKENS - 1);
        answered(f);
        send_ids(f, "complete", "prompt", 200, FAKE_TOKENS);
        refused(f, WARM_RPC_E_UNKNOWN_TOKEN);
        send_ids(f, "complete", "prompt", 200, 1ULL << 32 | 1);
        refused(f, WARM_RPC_E_UNKNOWN_TOKEN);
        send_ids(f, "complete", "stop", 200, 1);
        refused(f, WARM_RPC_E_RANGE);
        send_ids(f, "complete", "snippets", 200, 1);
        refused(f, WARM_RPC_E_RANGE);
        send_ids(f, "complete", "prefix", 200, 1);
        refused(f, WARM_RPC_E_TYPE);
        send_ids(f, "complete", "stream", 200, 1);
        refused(f, WARM_RPC_E_MISSING);
        send_ids(f, "complete", "prompt", 0, 0);
        refused(f, WARM_RPC_E_PROMPT_EMPTY);
        send_ids(f, "complete", "prompt", FAKE_CONTEXT, 65);
        refused(f, WARM_RPC_E_PROMPT_LONG);
        send_ids(f, "score", "ids", FAKE_CONTEXT, 65);
        assert_int_equal(warm_read_n(warm_read_key(answered(f), "logprobs")), FAKE_CONTEXT);
        send_ids(f, "score", "ids", FAKE_CONTEXT + 1, 65);
        refused(f, WARM_RPC_E_PROMPT_LONG);
        send_ids(f, "tokenize", "ids", 1, FAKE_TOKENS);
        refused(f, WARM_RPC_E_UNKNOWN_TOKEN);
        warm_write_string(begin(f, "tokenize", 1), "ids");
        warm_write_array(&f->w, 1);
        warm_write_string(&f->w, "x");
        refused(f, WARM_RPC_E_TYPE);
}

static void a_window_that_moved_is_told(void **state) {
        char text[20000];
        struct fixture *f = *state;
        const msgpack_object *r;

        for (size_t i = 0; i < sizeof(text); i++)
                text[i] = i % 40 == 39 ? '\n' : (char) ('a' + i * 7919 % 26);
        warm_write_key_text(begin(f, "complete", 1), "prefix", text, sizeof(text));
        r = warm_read_key(answered(f), "truncated");
        assert_true(uint_at(r, "prefix") > sizeof(text) - FAKE_CONTEXT);
        assert_true(uint_at(r, "prefix") < sizeof(text));
}

static void bytes_that_are_no_utf8_come_back_as_bin(void **state) {
        struct fixture *f = *state;
        const msgpack_object *r;

        fake_engine_answer(f->h->engine, "\xff\xfe");
        warm_write_key_text(begin(f, "complete", 2), "prefix", "\x80\xff(", 3);
        warm_write_key_bool(&f->w, "raw", true);
        r = warm_read_key(answered(f), "text");
        assert_int_equal(r->type, MSGPACK_OBJECT_BIN);
        warm_write_key_text(begin(f, "tokenize", 1), "text", "\xff\x00z", 3);
        r = warm_read_key(answered(f), "ids");
        assert_int_equal(warm_read_n(r), 3);
        assert_int_equal(warm_read_element(r, 0)->via.u64, 0xff);
        assert_int_equal(warm_read_element(r, 1)->via.u64, 0);
}

static void the_request_is_what_the_params_say(void **state) {
        const struct warm_request *r;
        struct fixture *f = *state;
        struct warm_writer *w;

        fake_engine_hold(f->h->engine, true);
        w = begin_complete(f, 8);
        warm_write_key_string(w, "suffix", "x;\n}\n");
        warm_write_key_uint(w, "n_max", 9);
        warm_write_key_uint(w, "n", 3);
        warm_write_key_uint(w, "deadline_ms", 250);
        warm_write_key_uint(w, "seed", 77);
        warm_write_key_bool(w, "supersede", false);
        warm_write_string(w, "temperature");
        warm_write_double(w, 0.5);
        warm_write_string(w, "stop");
        warm_write_array(w, 1);
        warm_write_string(w, "END");
        call_send(f->h, &f->p, w);
        pump(f->h);
        r = fake_engine_last(f->h->engine);
        assert_non_null(r);
        assert_int_equal(r->n_max, 9);
        assert_int_equal(r->n, 3);
        assert_int_equal(r->deadline_ns - r->arrival_ns, 250000000);
        assert_true(r->sampling.seed == 77 && r->sampling.temperature == 0.5F);
        assert_true(r->sampling.top_p == 1 && r->sampling.min_p == 0 && r->sampling.top_k == 0);
        assert_false(r->supersede || r->logprobs || r->progress || r->answer.raw);
        assert_int_equal(r->answer.lines, 1); /* code follows the cursor */
        assert_memory_equal(r->answer.suffix.data, "x;\n}\n", 5);
        assert_int_equal(r->answer.n_stops, 1);
        assert_memory_equal(r->answer.stops[0].data, "END", 3);
        fake_engine_hold(f->h->engine, false);
        assert_int_equal(
                warm_read_n(warm_read_key(peer_result(f->h, &f->p, f->id), "alternatives")), 2);
}

static uint64_t lines_for(struct fixture *f, const char *suffix) {
        warm_write_key_string(begin_complete(f, 1), "suffix", suffix);
        return uint_at(answered(f), "lines");
}

static void code_after_the_cursor_limits_the_answer_to_its_line(void **state) {
        struct fixture *f = *state;

        assert_int_equal(lines_for(f, ""), 0);
        assert_int_equal(lines_for(f, "\nint x;"), 0);
        assert_int_equal(lines_for(f, ")}]\"';, \t\nint x;"), 0);
        assert_int_equal(lines_for(f, "b);\n"), 1);
        assert_int_equal(lines_for(f, ") + 1"), 1);
}

static void a_newer_request_of_a_stream_ends_the_older_one(void **state) {
        struct fixture *f = *state;
        struct peer other;

        peer_open(f->h, &other);
        fake_engine_hold(f->h->engine, true);
        warm_write_key_string(begin_complete(f, 1), "stream", "a");
        call_send(f->h, &f->p, &f->w);
        warm_write_key_uint(begin_complete(f, 1), "stream", 'a');
        call_send(f->h, &f->p, &f->w);
        warm_write_key_string(begin_complete(f, 1), "stream", "a");
        call_send(f->h, &other, &f->w); /* another connection's stream is another stream */
        pump(f->h);
        assert_int_equal(fake_engine_n_held(f->h->engine), 3);
        warm_write_key_text(begin_complete(f, 1), "stream", "a", 1);
        call_send(f->h, &f->p, &f->w);
        assert_text(peer_result(f->h, &f->p, 1), "finish", "superseded");
        assert_false(peer_take(f->h, &f->p));
        fake_engine_hold(f->h->engine, false);
        peer_result(f->h, &f->p, 2);
        peer_result(f->h, &f->p, 4);
        peer_result(f->h, &other, 3);
        peer_close(&other);
}

static void cancel_works_by_id_and_by_stream_and_as_a_notification(void **state) {
        struct fixture *f = *state;

        fake_engine_hold(f->h->engine, true);
        warm_write_key_string(begin_complete(f, 1), "stream", "s");
        call_send(f->h, &f->p, &f->w);
        begin_complete(f, 0);
        call_send(f->h, &f->p, &f->w);
        warm_write_key_uint(begin(f, "cancel", 1), "id", 99);
        assert_int_equal(uint_at(answered(f), "cancelled"), 0);
        warm_write_key_string(begin(f, "cancel", 1), "stream", "s");
        assert_int_equal(uint_at(answered(f), "cancelled"), 1);
        assert_text(peer_result(f->h, &f->p, 1), "finish", "cancelled");
        warm_buffer_init(&f->b, 4096);
        warm_writer_notification(&f->w, &f->b, "cancel");
        warm_write_map(&f->w, 1);
        warm_write_key_uint(&f->w, "id", 2);
        call_send(f->h, &f->p, &f->w);
        assert_text(peer_result(f->h, &f->p, 2), "finish", "cancelled");
        assert_false(peer_take(f->h, &f->p));
        begin(f, "cancel", 0);
        refused(f, WARM_RPC_E_MISSING);
        fake_engine_hold(f->h->engine, false);
}

static void notifications_are_never_answered(void **state) {
        static const char *const methods[] = { "complete", "hello", "no-such", "cancel" };
        struct warm_server_stats stats;
        struct fixture *f = *state;

        for (unsigned i = 0; i < 4; i++) {
                warm_buffer_init(&f->b, 4096);
                warm_writer_notification(&f->w, &f->b, methods[i]);
                warm_write_uint(&f->w, 1); /* not even a map */
                call_send(f->h, &f->p, &f->w);
                warm_buffer_init(&f->b, 4096);
                warm_writer_notification(&f->w, &f->b, methods[i]);
                warm_write_map(&f->w, 1);
                warm_write_key_uint(&f->w, "bogus", 1);
                call_send(f->h, &f->p, &f->w);
        }
        /* nor is a response: nobody asked */
        assert_true(peer_send(f->h, &f->p, "\x94\x01\x01\xc0\xc0", 5));
        assert_false(peer_take(f->h, &f->p));
        warm_server_stats(f->h->server, &stats);
        assert_int_equal(stats.n_unknown, 8);
        begin(f, "hello", 0);
        answered(f);
}

static void deltas_joined_are_the_text(void **state) {
        struct fixture *f = *state;
        char joined[64] = "";
        bool done = false;

        fake_engine_answer(f->h->engine, "one two three");
        warm_write_key_bool(begin_complete(f, 1), "progress", true);
        call_send(f->h, &f->p, &f->w);
        while (!done && peer_take(f->h, &f->p)) {
                struct warm_wire_text t;

                if (f->p.m.type == WARM_FRAME_NOTIFICATION) {
                        assert_int_equal(uint_at(f->p.m.params, "id"), f->id);
                        assert_int_equal(warm_read_text(warm_read_key(f->p.m.params, "text"), &t),
                                         0);
                        strncat(joined, t.data, t.n);
                } else {
                        assert_text(f->p.m.result, "text", joined);
                        done = true;
                }
        }
        assert_true(done);
        assert_string_equal(joined, "one two three");
}

static void failures_of_the_engine_are_typed(void **state) {
        static const struct {
                enum warm_failure failure;
                enum warm_rpc_error error;
        } pairs[] = {
                { WARM_FAILURE_NO_ROOM, WARM_RPC_E_NO_ROOM },
                { WARM_FAILURE_MEMORY, WARM_RPC_E_MEMORY },
                { WARM_FAILURE_BACKEND, WARM_RPC_E_BACKEND },
                { WARM_FAILURE_SHUTDOWN, WARM_RPC_E_SHUTDOWN },
                { WARM_FAILURE_BUSY, WARM_RPC_E_BUSY },
        };
        static const char *const methods[] = { "complete", "warm", "explain" };
        struct fixture *f = *state;

        for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
                fake_engine_fail(f->h->engine, pairs[i].failure);
                for (unsigned k = 0; k < 3; k++) {
                        warm_write_key_string(begin(f, methods[k], 1), "prefix", "x");
                        refused(f, pairs[i].error);
                }
                warm_write_key_string(begin(f, "score", 1), "text", "x");
                refused(f, pairs[i].error);
                begin(f, "trim", 0);
                refused(f, pairs[i].error);
                begin(f, "status", 0);
                refused(f, pairs[i].error);
        }
        fake_engine_fail(f->h->engine, WARM_FAILURE_NONE);
}

static void a_reply_that_is_no_frame_is_refused_and_the_connection_lives(void **state) {
        struct fixture *f = *state;
        char *text = malloc(WARM_PREFIX_BYTES_MAX);

        memset(text, 'x', WARM_PREFIX_BYTES_MAX);
        warm_write_key_text(begin(f, "tokenize", 2), "text", text, WARM_PREFIX_BYTES_MAX);
        warm_write_key_bool(&f->w, "pieces", true);
        refused(f, WARM_RPC_E_REPLY_LARGE);
        free(text);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(unknown_methods_and_keys_are_refused_by_name),
                TEST(numbers_of_complete_end_at_their_ranges),
                TEST(other_types_of_complete_are_held_too),
                TEST(texts_of_complete_end_at_their_lengths),
                TEST(stops_and_snippets_end_at_their_counts),
                TEST(a_snippet_is_a_map_with_text),
                TEST(documents_and_prompts_exclude_each_other),
                TEST(ids_must_be_tokens_and_fit),
                TEST(a_window_that_moved_is_told),
                TEST(bytes_that_are_no_utf8_come_back_as_bin),
                TEST(the_request_is_what_the_params_say),
                TEST(code_after_the_cursor_limits_the_answer_to_its_line),
                TEST(a_newer_request_of_a_stream_ends_the_older_one),
                TEST(cancel_works_by_id_and_by_stream_and_as_a_notification),
                TEST(notifications_are_never_answered),
                TEST(deltas_joined_are_the_text),
                TEST(failures_of_the_engine_are_typed),
                TEST(a_reply_that_is_no_frame_is_refused_and_the_connection_lives),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
