/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

static int setup(void **state) {
        *state = harness_new(NULL);
        return 0;
}

static int teardown(void **state) {
        harness_free(*state);
        return 0;
}

static struct warm_server_stats stats_of(const struct harness *h) {
        struct warm_server_stats s;

        warm_server_stats(h->server, &s);
        return s;
}

#define SEND(h, p, s) assert_true(peer_send((h), (p), (s), sizeof(s) - 1))

static void start_complete(struct harness *h, struct peer *p, uint32_t id, const char *stream) {
        struct warm_writer w;
        struct warm_buffer b;

        call_begin(&w, &b, id, "complete");
        warm_write_map(&w, stream ? 2 : 1);
        warm_write_key_string(&w, "prefix", "int f(int a, int b) {\n        return ");
        if (stream)
                warm_write_key_string(&w, "stream", stream);
        call_send(h, p, &w);
}

static bool text_is(const msgpack_object *o, const char *expected) {
        struct warm_wire_text t;

        return warm_read_text(o, &t) == 0 && t.n == strlen(expected) &&
               memcmp(t.data, expected, t.n) == 0;
}

static void a_client_is_greeted_and_let_go(void **state) {
        struct harness *h = *state;
        struct peer p;

        peer_open(h, &p);
        peer_call(h, &p, 5, "hello");
        assert_true(text_is(warm_read_key(peer_result(h, &p, 5), "version"), "1.2.3"));
        assert_int_equal(stats_of(h).n_clients, 1);
        peer_close(&p);
        pump(h);
        assert_int_equal(stats_of(h).n_clients, 0);
        assert_int_equal(stats_of(h).n_clients_served, 1);
}

static void a_request_that_comes_byte_by_byte_is_answered_once(void **state) {
        static const char frame[] = "\x94\x00\x09\xa5hello\x90";
        struct harness *h = *state;
        struct peer p;

        peer_open(h, &p);
        for (size_t i = 0; i < sizeof(frame) - 1; i++) {
                assert_false(peer_take(h, &p));
                assert_true(peer_send(h, &p, frame + i, 1));
        }
        peer_result(h, &p, 9);
        assert_false(peer_take(h, &p));
        peer_close(&p);
}

static void a_large_frame_and_small_ones_around_it_arrive_in_order(void **state) {
        struct harness *h = *state;
        static char text[WARM_PREFIX_BYTES_MAX];
        struct warm_writer w;
        struct warm_buffer b;
        struct peer p;

        memset(text, 'x', sizeof(text));
        peer_open(h, &p);
        peer_call(h, &p, 1, "hello");
        call_begin(&w, &b, 2, "tokenize");
        warm_write_map(&w, 1);
        warm_write_key_text(&w, "text", text, sizeof(text));
        call_send(h, &p, &w);
        peer_call(h, &p, 3, "hello");
        peer_result(h, &p, 1);
        assert_int_equal(warm_read_n(warm_read_key(peer_result(h, &p, 2), "ids")), sizeof(text));
        peer_result(h, &p, 3);
        peer_close(&p);
}

static void more_requests_than_one_turn_takes_are_all_answered(void **state) {
        enum { N = 1000 };
        struct harness *h = *state;
        struct warm_buffer all;
        struct peer p, other;

        warm_buffer_init(&all, 1U << 20);
        for (unsigned i = 0; i < N; i++) {
                struct warm_writer w;

                warm_writer_request(&w, &all, i, "models");
                warm_write_array(&w, 0);
                assert_int_equal(warm_writer_end(&w), 0);
        }
        peer_open(h, &p);
        peer_open(h, &other);
        pump(h);
        assert_true(peer_send(h, &p, warm_buffer_data(&all), warm_buffer_n(&all)));
        peer_call(h, &other, 1, "hello");
        /* four turns of the loop: the other client does not wait for the thousand */
        for (unsigned i = 0; i < 4; i++)
                sd_event_run(h->event, 0);
        assert_int_equal(recv(other.fd, (char[1]){ 0 }, 1, MSG_PEEK), 1);
        for (unsigned i = 0; i < N; i++)
                peer_result(h, &p, i);
        warm_buffer_deinit(&all);
        peer_close(&p);
        peer_close(&other);
}

static void a_client_that_stops_sending_still_gets_its_replies(void **state) {
        struct harness *h = *state;
        struct peer p;

        peer_open(h, &p);
        fake_engine_hold(h->engine, true);
        start_complete(h, &p, 1, NULL);
        shutdown(p.fd, SHUT_WR);
        assert_false(peer_take(h, &p));
        assert_false(p.at_end);
        fake_engine_hold(h->engine, false);
        peer_result(h, &p, 1);
        peer_take(h, &p);
        assert_true(p.at_end);
        peer_close(&p);
}

static void a_stream_that_ends_inside_a_frame_is_told_so(void **state) {
        struct harness *h = *state;
        struct peer p;

        peer_open(h, &p);
        SEND(h, &p, "\x94\x00\x09\xa5hel");
        shutdown(p.fd, SHUT_WR);
        peer_error(h, &p, 9, WARM_RPC_E_FRAME_CUT);
        peer_close(&p);
        assert_served(h);
}

static void a_client_gone_in_mid_request_cancels_it(void **state) {
        struct harness *h = *state;
        struct peer p, q;

        peer_open(h, &p);
        peer_open(h, &q);
        fake_engine_hold(h->engine, true);
        start_complete(h, &p, 1, "buffer");
        start_complete(h, &p, 2, NULL);
        start_complete(h, &q, 1, "buffer");
        pump(h);
        assert_int_equal(fake_engine_n_held(h->engine), 3);
        peer_close(&p);
        pump(h);
        assert_int_equal(fake_engine_n_held(h->engine), 1);
        assert_int_equal(stats_of(h).n_requests, 1);
        fake_engine_hold(h->engine, false);
        peer_result(h, &q, 1);
        peer_close(&q);
}

static void the_end_of_the_server_ends_what_is_in_flight(void **state) {
        struct harness *h = *state;
        struct peer p;

        peer_open(h, &p);
        fake_engine_hold(h->engine, true);
        start_complete(h, &p, 1, NULL);
        pump(h);
        h->server = warm_server_free(h->server);
        assert_int_equal(fake_engine_n_held(h->engine), 0);
        assert_true(text_is(warm_read_key(peer_result(h, &p, 1), "finish"), "cancelled"));
        peer_close(&p);
}

static void a_client_that_never_reads_is_dropped_and_nobody_else_notices(void **state) {
        const struct warm_server_config config = { .admin_gid = (gid_t) -1,
                                                   .output_client_bytes_max =
                                                           WARM_FRAME_BYTES_MAX };
        struct harness *h = harness_new(&config);
        struct peer deaf, other;
        unsigned n = 0;

        (void) state;
        peer_open(h, &deaf);
        peer_open(h, &other);
        while (stats_of(h).n_refused == 0 && n < 100000) {
                struct warm_writer w;
                struct warm_buffer b;

                warm_buffer_init(&b, 4096);
                warm_writer_request(&w, &b, n++, "hello");
                warm_write_array(&w, 0);
                assert_int_equal(warm_writer_end(&w), 0);
                if (!peer_send(h, &deaf, warm_buffer_data(&b), warm_buffer_n(&b)))
                        break;
                warm_buffer_deinit(&b);
                if (n % 64 == 0)
                        pump(h);
                if (n % 1024 == 0) {
                        peer_call(h, &other, n, "hello");
                        peer_result(h, &other, n);
                }
        }
        pump(h);
        assert_int_equal(stats_of(h).n_refused, 1);
        assert_int_equal(stats_of(h).n_clients, 1);
        assert_string_equal(h->limit, "output-client");
        assert_true(n > 1000); /* the limit is megabytes, not a few replies */
        assert_true(stats_of(h).buffer_bytes < 1U << 20);
        peer_call(h, &other, 1, "hello");
        peer_result(h, &other, 1);
        peer_close(&deaf);
        peer_close(&other);
        harness_free(h);
}

static void connections_of_a_uid_end_at_their_limit(void **state) {
        struct harness *h = *state;
        struct peer peers[WARM_SERVER_CLIENTS_UID_MAX + 1];
        const unsigned last = WARM_SERVER_CLIENTS_UID_MAX;

        for (unsigned i = 0; i <= last; i++) {
                peer_open(h, &peers[i]);
                pump(h);
        }
        assert_int_equal(stats_of(h).n_clients, last);
        peer_error(h, &peers[last], 0, WARM_RPC_E_CLIENTS);
        assert_false(peers[last].m.id_known);
        assert_true(peers[last].at_end);
        peer_call(h, &peers[last - 1], 3, "hello");
        peer_result(h, &peers[last - 1], 3);
        /* one that goes makes room */
        peer_close(&peers[last]);
        peer_close(&peers[0]);
        assert_served(h);
        for (unsigned i = 1; i < last; i++)
                peer_close(&peers[i]);
}

static void connections_of_all_end_at_their_limit(void **state) {
        const struct warm_server_config config = { .n_clients_max = 3, .admin_gid = (gid_t) -1 };
        struct harness *h = harness_new(&config);
        struct peer peers[4];

        (void) state;
        for (unsigned i = 0; i < 4; i++)
                peer_open(h, &peers[i]);
        peer_error(h, &peers[3], 0, WARM_RPC_E_CLIENTS);
        for (unsigned i = 0; i < 4; i++)
                peer_close(&peers[i]);
        assert_served(h);
        harness_free(h);
}

static void thousands_of_connections_come_and_go(void **state) {
        struct harness *h = *state;
        struct peer steady;

        peer_open(h, &steady);
        for (unsigned i = 0; i < 5000; i++) {
                struct peer p;

                peer_open(h, &p);
                if (i % 3 == 0)
                        SEND(h, &p, "\x94\x00");
                if (i % 3 == 1)
                        peer_call(h, &p, i, "hello");
                if (i % 16 == 0)
                        pump(h);
                peer_close(&p);
        }
        peer_call(h, &steady, 1, "hello");
        peer_result(h, &steady, 1);
        assert_int_equal(stats_of(h).n_clients, 1);
        assert_true(stats_of(h).n_clients_served > 4000);
        peer_close(&steady);
}

static void running_out_of_files_pauses_and_does_not_spin(void **state) {
        struct harness *h = *state;
        struct rlimit old, low;
        struct peer p, q;
        int turns = 0;

        getrlimit(RLIMIT_NOFILE, &old);
        peer_open(h, &p);
        peer_call(h, &p, 1, "hello");
        peer_result(h, &p, 1);
        peer_open(h, &q);
        low = old;
        low.rlim_cur = (rlim_t) q.fd + 1;
        setrlimit(RLIMIT_NOFILE, &low);
        while (sd_event_run(h->event, 0) > 0)
                turns++;
        assert_true(turns < 10);
        peer_call(h, &p, 2, "hello");
        peer_result(h, &p, 2);
        setrlimit(RLIMIT_NOFILE, &old);
        assert_true(sd_event_run(h->event, 1000000) > 0); /* the pause ends */
        peer_call(h, &q, 3, "hello");
        peer_result(h, &q, 3);
        assert_string_equal(h->limit, "open-files");
        peer_close(&p);
        peer_close(&q);
}

static void requests_of_a_uid_end_at_their_limit(void **state) {
        struct harness *h = *state;
        const unsigned most = WARM_SERVER_REQUESTS_UID_MAX;
        struct peer p, q;

        peer_open(h, &p);
        peer_open(h, &q);
        fake_engine_hold(h->engine, true);
        for (unsigned i = 0; i < most; i++)
                start_complete(h, i % 2 ? &p : &q, i, NULL);
        pump(h);
        assert_int_equal(fake_engine_n_held(h->engine), most);
        start_complete(h, &p, 999, NULL);
        peer_error(h, &p, 999, WARM_RPC_E_REQUESTS);
        /* what needs no engine is still answered */
        peer_call(h, &p, 1000, "models");
        peer_result(h, &p, 1000);
        fake_engine_hold(h->engine, false);
        for (unsigned i = 0; i < most; i++)
                peer_result(h, i % 2 ? &p : &q, i);
        peer_close(&p);
        peer_close(&q);
}

static void a_full_engine_is_a_typed_refusal(void **state) {
        const struct warm_server_config config = { .admin_gid = (gid_t) -1,
                                                   .n_requests_uid_max = FAKE_REQUESTS_MAX + 1 };
        struct harness *h = harness_new(&config);
        struct peer p;

        (void) state;
        peer_open(h, &p);
        fake_engine_hold(h->engine, true);
        for (unsigned i = 0; i < FAKE_REQUESTS_MAX; i++)
                start_complete(h, &p, i, NULL);
        start_complete(h, &p, 999, NULL);
        peer_error(h, &p, 999, WARM_RPC_E_BUSY);
        fake_engine_hold(h->engine, false);
        for (unsigned i = 0; i < FAKE_REQUESTS_MAX; i++)
                peer_result(h, &p, i);
        peer_close(&p);
        harness_free(h);
}

static void half_frames_of_a_uid_end_at_their_limit(void **state) {
        const struct warm_server_config config = { .admin_gid = (gid_t) -1,
                                                   .input_uid_bytes_max = WARM_FRAME_BYTES_MAX };
        struct harness *h = harness_new(&config);
        static const char head[] = "\x94\x00\x01\xa1m\x91\xc6\x00\x3f\x00\x00";
        const size_t half = 3U << 20;
        char *zeros = calloc(1, half);
        struct peer p, q;

        (void) state;
        peer_open(h, &p);
        peer_open(h, &q);
        SEND(h, &p, head);
        assert_true(peer_send(h, &p, zeros, half));
        pump(h);
        assert_int_equal(stats_of(h).n_clients, 2);
        SEND(h, &q, head);
        (void) peer_send(h, &q, zeros, half);
        peer_error(h, &q, 0, WARM_RPC_E_INPUT);
        assert_string_equal(h->limit, "input-uid");
        peer_close(&q);
        /* the other's frame goes on */
        assert_true(peer_send(h, &p, zeros, 0x3f0000 - half));
        peer_error(h, &p, 1, WARM_RPC_E_REQUEST);
        peer_close(&p);
        free(zeros);
        harness_free(h);
}

static void a_lost_device_is_told_to_the_caller(void **state) {
        struct harness *h = *state;

        fake_engine_fault(h->engine);
        pump(h);
        assert_int_equal(h->n_notes[WARM_SERVER_NOTE_FAULT], 1);
}

/* Connect as another uid, in a process of its own, and send hello. Return: the first bytes of the reply in buffer. */
static size_t hello_as(struct harness *h, uid_t uid, gid_t gid, const char *frame, size_t n_frame,
                       char *buffer, size_t n_buffer) {
        int fds[2];
        pid_t pid;
        ssize_t n;

        chmod(h->path, 0666);
        assert_int_equal(pipe(fds), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct sockaddr_un address = { .sun_family = AF_UNIX };
                char reply[8192];
                int fd = socket(AF_UNIX, SOCK_STREAM, 0);

                if (setgroups(1, &gid) < 0 || setgid(65534) < 0 || setuid(uid) < 0)
                        _exit(2);
                strcpy(address.sun_path, h->path);
                if (connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0)
                        _exit(3);
                (void) !send(fd, frame, n_frame, MSG_NOSIGNAL);
                n = recv(fd, reply, sizeof(reply), 0);
                (void) !write(fds[1], reply, n > 0 ? (size_t) n : 0);
                _exit(0);
        }
        close(fds[1]);
        while (waitpid(pid, NULL, WNOHANG) == 0)
                sd_event_run(h->event, 10000);
        n = read(fds[0], buffer, n_buffer);
        close(fds[0]);
        assert_true(n > 0);
        return (size_t) n;
}

static void a_uid_without_a_passwd_entry_is_refused(void **state) {
        static const char hello[] = "\x94\x00\x01\xa5hello\x90";
        struct harness *h = *state;
        char reply[8192];
        struct warm_message m;
        uint32_t code;
        struct warm_wire_text name, what;
        size_t n;

        if (geteuid() != 0 || getpwuid(1000123))
                skip();
        n = hello_as(h, 1000123, 65534, hello, sizeof(hello) - 1, reply, sizeof(reply));
        assert_int_equal(warm_message_decode(reply, n, &m), 0);
        assert_int_equal(warm_read_error(m.error, &code, &name, &what), 0);
        assert_int_equal(code, WARM_RPC_E_UNKNOWN_UID);
        warm_message_deinit(&m);
        n = hello_as(h, 65534, 65534, hello, sizeof(hello) - 1, reply, sizeof(reply));
        assert_int_equal(warm_message_decode(reply, n, &m), 0);
        assert_non_null(m.result);
        assert_false(warm_read_key(m.result, "admin")->via.boolean);
        warm_message_deinit(&m);
}

static bool is_refused(const char *reply, size_t n) {
        struct warm_message m;
        bool refused;

        assert_int_equal(warm_message_decode(reply, n, &m), 0);
        refused = m.error && warm_read_element(m.error, 0)->via.u64 == WARM_RPC_E_NOT_PERMITTED;
        assert_true(refused || m.result);
        warm_message_deinit(&m);
        return refused;
}

static void only_administrators_trim_for_others(void **state) {
        static const char all[] = "\x94\x00\x01\xa4trim\x91\x81\xa3"
                                  "all\xc3";
        static const char other[] = "\x94\x00\x01\xa4trim\x91\x81\xa3uid\x00";
        static const char own[] = "\x94\x00\x01\xa4trim\x90";
        const struct warm_server_config config = { .admin_gid = 1234567 };
        struct harness *h;
        char reply[8192];
        size_t n;

        (void) state;
        if (geteuid() != 0)
                skip();
        h = harness_new(&config);
        n = hello_as(h, 65534, 65534, all, sizeof(all) - 1, reply, sizeof(reply));
        assert_true(is_refused(reply, n));
        n = hello_as(h, 65534, 65534, other, sizeof(other) - 1, reply, sizeof(reply));
        assert_true(is_refused(reply, n));
        n = hello_as(h, 65534, 65534, own, sizeof(own) - 1, reply, sizeof(reply));
        assert_false(is_refused(reply, n));
        n = hello_as(h, 65534, 1234567, all, sizeof(all) - 1, reply, sizeof(reply));
        assert_false(is_refused(reply, n));
        harness_free(h);
}

static void another_uid_sees_nothing_that_moves_in_status(void **state) {
        static const char status[] = "\x94\x00\x01\xa6status\x90";
        static const char measure[] = "\x94\x00\x01\xa6status\x91\x81\xa7measure\xc3";
        struct harness *h = *state;
        char reply[8192];
        struct warm_message m;
        struct peer p;
        size_t n;

        if (geteuid() != 0)
                skip();
        peer_open(h, &p);
        peer_call(h, &p, 1, "status");
        assert_non_null(warm_read_key(peer_result(h, &p, 1), "engine"));
        n = hello_as(h, 65534, 65534, status, sizeof(status) - 1, reply, sizeof(reply));
        assert_int_equal(warm_message_decode(reply, n, &m), 0);
        assert_int_equal(warm_read_n(m.result), 6);
        assert_null(warm_read_key(m.result, "engine"));
        assert_null(warm_read_key(m.result, "server"));
        assert_int_equal(warm_read_n(warm_read_element(warm_read_key(m.result, "models"), 0)), 2);
        warm_message_deinit(&m);
        n = hello_as(h, 65534, 65534, measure, sizeof(measure) - 1, reply, sizeof(reply));
        assert_true(is_refused(reply, n));
        peer_close(&p);
}

static void a_configuration_below_one_frame_is_refused(void **state) {
        struct harness *h = *state;
        struct warm_server *s = NULL;
        const struct warm_server_config config = { .event = h->event,
                                                   .engine = h->engine,
                                                   .listen_fds = &h->listen_fd,
                                                   .n_listen_fds = 1,
                                                   .input_uid_bytes_max =
                                                           WARM_FRAME_BYTES_MAX - 1 };

        assert_int_equal(warm_server_new(&config, &s), -EINVAL);
        assert_null(s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(a_client_is_greeted_and_let_go),
                TEST(a_request_that_comes_byte_by_byte_is_answered_once),
                TEST(a_large_frame_and_small_ones_around_it_arrive_in_order),
                TEST(more_requests_than_one_turn_takes_are_all_answered),
                TEST(a_client_that_stops_sending_still_gets_its_replies),
                TEST(a_stream_that_ends_inside_a_frame_is_told_so),
                TEST(a_client_gone_in_mid_request_cancels_it),
                TEST(the_end_of_the_server_ends_what_is_in_flight),
                cmocka_unit_test(a_client_that_never_reads_is_dropped_and_nobody_else_notices),
                TEST(connections_of_a_uid_end_at_their_limit),
                cmocka_unit_test(connections_of_all_end_at_their_limit),
                TEST(thousands_of_connections_come_and_go),
                TEST(running_out_of_files_pauses_and_does_not_spin),
                TEST(requests_of_a_uid_end_at_their_limit),
                cmocka_unit_test(a_full_engine_is_a_typed_refusal),
                cmocka_unit_test(half_frames_of_a_uid_end_at_their_limit),
                TEST(a_lost_device_is_told_to_the_caller),
                TEST(a_uid_without_a_passwd_entry_is_refused),
                cmocka_unit_test(only_administrators_trim_for_others),
                TEST(another_uid_sees_nothing_that_moves_in_status),
                TEST(a_configuration_below_one_frame_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
