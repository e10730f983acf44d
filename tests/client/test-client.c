/* SPDX-License-Identifier: Apache-2.0 */
/* libwarm against a small made-up daemon in a process of its own. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/client.h"
#include "client/codec.h"

static char dir[32];
static char path[64];
static pid_t daemon_pid;

/* ---- The made-up daemon ---- */

static void send_all(int fd, struct warm_buffer *b) {
        while (warm_buffer_n(b) > 0) {
                /* In small pieces: a reply may come in any cut. */
                size_t n = warm_buffer_n(b) < 7 ? warm_buffer_n(b) : 7;
                ssize_t k = send(fd, warm_buffer_data(b), n, MSG_NOSIGNAL);

                if (k <= 0)
                        _exit(1);
                warm_buffer_consume(b, (size_t) k);
        }
}

static bool method_is(const struct warm_message *m, const char *name) {
        return m->method.n == strlen(name) && memcmp(m->method.data, name, m->method.n) == 0;
}

/* Return: false to hang up. */
static bool answer(int fd, const struct warm_message *m, struct warm_buffer *out) {
        struct warm_wire_text prefix = {};
        struct warm_writer w;

        if (method_is(m, "hang up"))
                return false;
        if (method_is(m, "garbage")) {
                (void) warm_buffer_append(out, "\xc1", 1);
                send_all(fd, out);
                return true;
        }
        if (m->type != WARM_FRAME_REQUEST || method_is(m, "silence"))
                return true;
        if (method_is(m, "refuse")) {
                warm_writer_error(&w, out, &m->id, 42, "no", "because");
                send_all(fd, out);
                return true;
        }
        warm_writer_notification(&w, out, "text");
        warm_write_map(&w, 1);
        warm_write_key_uint(&w, "id", m->id);
        (void) warm_writer_end(&w);
        warm_writer_result(&w, out, m->id);
        warm_write_map(&w, 2);
        (void) warm_read_text(warm_read_key(m->params, "prefix"), &prefix);
        warm_write_key_text(&w, "text", prefix.data, prefix.n); /* an echo */
        warm_write_string(&w, "cache");
        warm_write_map(&w, 1);
        warm_write_key_uint(&w, "hit", 7);
        (void) warm_writer_end(&w);
        send_all(fd, out);
        return true;
}

static void serve(int fd) {
        struct warm_buffer in, out;
        struct warm_frame f = {};
        struct warm_message m;
        bool on = true;

        warm_buffer_init(&in, WARM_FRAME_BYTES_MAX + 4096);
        warm_buffer_init(&out, WARM_FRAME_BYTES_MAX + 4096);
        while (on) {
                uint8_t *room;
                size_t n_frame = 0;
                ssize_t n;

                while (on && warm_frame_check(&f, warm_buffer_data(&in), warm_buffer_n(&in),
                                              &n_frame) == 0) {
                        f = (struct warm_frame){};
                        on = warm_message_decode(warm_buffer_data(&in), n_frame, &m) == 0 &&
                             answer(fd, &m, &out);
                        warm_message_deinit(&m);
                        warm_buffer_consume(&in, n_frame);
                }
                if (!on || warm_buffer_reserve(&in, 4096, &room) != 0)
                        break;
                n = recv(fd, room, 4096, 0);
                if (n <= 0)
                        break;
                in.end += (size_t) n;
        }
        close(fd);
        warm_buffer_deinit(&in);
        warm_buffer_deinit(&out);
}

static int setup(void **state) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void) state;
        strcpy(dir, "/tmp/warm-client-XXXXXX");
        if (!mkdtemp(dir))
                return -1;
        snprintf(path, sizeof(path), "%s/s", dir);
        memcpy(a.sun_path, path, strlen(path) + 1);
        if (bind(fd, (struct sockaddr *) &a, sizeof(a)) < 0 || listen(fd, 8) < 0)
                return -1;
        daemon_pid = fork();
        if (daemon_pid == 0)
                for (;;)
                        serve(accept(fd, NULL, NULL));
        close(fd);
        return daemon_pid < 0 ? -1 : 0;
}

static int teardown(void **state) {
        (void) state;
        kill(daemon_pid, SIGKILL);
        waitpid(daemon_pid, NULL, 0);
        unlink(path);
        return rmdir(dir);
}

/* ---- Tests ---- */

static struct warm_client *connected(void) {
        struct warm_client *c = NULL;

        assert_int_equal(warm_client_new(path, &c), 0);
        return c;
}

static void a_completion_comes_back_as_text(void **state) {
        struct warm_client *c = connected();
        char *text = NULL;

        (void) state;
        assert_int_equal(warm_client_complete(c, "int main", 8, "", 0, &text), 0);
        assert_string_equal(text, "int main");
        free(text);
        warm_client_free(c);
}

static void a_text_that_is_no_utf8_comes_back_as_bytes(void **state) {
        struct warm_client_params *p = warm_client_params_new();
        struct warm_client_reply *reply = NULL;
        const struct warm_client_value *v;
        struct warm_client *c = connected();
        size_t n = 0;

        (void) state;
        warm_client_params_text(p, "prefix", "\xff\x00x", 3);
        assert_int_equal(warm_client_call(c, "complete", p, 5000, &reply), 0);
        v = warm_client_value_get(warm_client_reply_result(reply), "text");
        assert_int_equal(warm_client_value_type(v), WARM_CLIENT_BYTES);
        assert_memory_equal(warm_client_value_text(v, &n), "\xff\x00x", 3);
        assert_int_equal(n, 3);
        assert_int_equal(
                warm_client_value_int(
                        warm_client_value_get(warm_client_reply_result(reply), "cache.hit"), 0),
                7);
        assert_null(warm_client_value_get(warm_client_reply_result(reply), "cache.miss.at"));
        warm_client_reply_free(reply);
        warm_client_params_free(p);
        warm_client_free(c);
}

static void a_refusal_carries_code_name_and_advice(void **state) {
        struct warm_client_reply *reply = NULL;
        const char *name = NULL, *what = NULL;
        struct warm_client *c = connected();
        uint32_t code = 0;

        (void) state;
        assert_int_equal(warm_client_call(c, "refuse", NULL, 5000, &reply), WARM_CLIENT_E_REFUSED);
        assert_null(warm_client_reply_result(reply));
        assert_true(warm_client_reply_error(reply, &code, &name, &what));
        assert_int_equal(code, 42);
        assert_string_equal(name, "no");
        assert_string_equal(what, "because");
        warm_client_reply_free(reply);
        warm_client_free(c);
}

static void a_call_without_an_answer_times_out_and_the_next_one_works(void **state) {
        struct warm_client_reply *reply = NULL;
        struct warm_client *c = connected();

        (void) state;
        assert_int_equal(warm_client_call(c, "silence", NULL, 30, &reply), WARM_CLIENT_E_TIMEOUT);
        assert_null(reply);
        assert_int_equal(warm_client_call(c, "complete", NULL, 5000, &reply), 0);
        warm_client_reply_free(reply);
        warm_client_free(c);
}

static void a_daemon_that_hangs_up_is_a_connection_error(void **state) {
        struct warm_client_reply *reply = NULL;
        struct warm_client *c = connected();

        (void) state;
        assert_int_equal(warm_client_call(c, "hang up", NULL, 5000, &reply), -ECONNRESET);
        warm_client_free(c);
}

static void garbage_from_the_daemon_is_a_protocol_error(void **state) {
        struct warm_client_reply *reply = NULL;
        struct warm_client *c = connected();

        (void) state;
        assert_int_equal(warm_client_call(c, "garbage", NULL, 5000, &reply), -EPROTO);
        warm_client_free(c);
}

static void no_daemon_is_told_apart(void **state) {
        struct warm_client *c = NULL;

        (void) state;
        assert_int_equal(warm_client_new("/tmp/warm-there-is-none", &c), -ENOENT);
        assert_null(c);
}

static void a_message_beyond_the_frame_limit_is_refused_before_it_is_sent(void **state) {
        struct warm_client_params *p = warm_client_params_new();
        char *large = calloc(1, WARM_FRAME_BYTES_MAX);
        struct warm_client_reply *reply = NULL;
        struct warm_client *c = connected();

        (void) state;
        warm_client_params_text(p, "prefix", large, WARM_FRAME_BYTES_MAX);
        assert_int_equal(warm_client_call(c, "complete", p, 5000, &reply), WARM_CLIENT_E_LARGE);
        assert_int_equal(warm_client_call(c, "complete", NULL, 5000, &reply),
                         0); /* nothing of it was sent */
        warm_client_reply_free(reply);
        warm_client_params_free(p);
        warm_client_free(c);
        free(large);
}

struct seen {
        uint32_t ids[8];
        unsigned n_replies, n_texts;
};

static void on_reply(struct warm_client *c, uint32_t id, struct warm_client_reply *reply,
                     void *userdata) {
        struct seen *s = userdata;

        (void) c;
        s->ids[s->n_replies++] = id;
        warm_client_reply_free(reply);
}

static void on_text(struct warm_client *c, const char *method,
                    const struct warm_client_value *params, void *userdata) {
        struct seen *s = userdata;

        (void) c;
        assert_string_equal(method, "text");
        assert_true(warm_client_value_int(warm_client_value_get(params, "id"), -1) > 0);
        s->n_texts++;
}

static void an_event_loop_drives_several_requests_at_once(void **state) {
        struct warm_client *c = connected();
        struct seen seen = {};
        uint32_t ids[3];

        (void) state;
        warm_client_on_notification(c, on_text, &seen);
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(warm_client_start(c, "complete", NULL, on_reply, &seen, &ids[i]),
                                 0);
        while (seen.n_replies < 3) {
                struct pollfd fd = { .fd = warm_client_fd(c), .events = warm_client_events(c) };

                assert_int_equal(poll(&fd, 1, 5000), 1);
                assert_int_equal(warm_client_dispatch(c), 0);
        }
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(seen.ids[i], ids[i]);
        assert_int_equal(seen.n_texts, 3);
        warm_client_free(c);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_completion_comes_back_as_text),
                cmocka_unit_test(a_text_that_is_no_utf8_comes_back_as_bytes),
                cmocka_unit_test(a_refusal_carries_code_name_and_advice),
                cmocka_unit_test(a_call_without_an_answer_times_out_and_the_next_one_works),
                cmocka_unit_test(a_daemon_that_hangs_up_is_a_connection_error),
                cmocka_unit_test(garbage_from_the_daemon_is_a_protocol_error),
                cmocka_unit_test(no_daemon_is_told_apart),
                cmocka_unit_test(a_message_beyond_the_frame_limit_is_refused_before_it_is_sent),
                cmocka_unit_test(an_event_loop_drives_several_requests_at_once),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
