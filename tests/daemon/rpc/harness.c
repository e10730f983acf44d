/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "harness.h"

static void on_note(void *userdata, const struct warm_server_note *note) {
        struct harness *h = userdata;

        h->n_notes[note->kind]++;
        h->limit = note->limit;
}

static int listen_at(char *path, size_t n) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        static unsigned serial;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        snprintf(path, n, "/tmp/warm-rpc-test.%d.%u", (int) getpid(), serial++);
        strcpy(address.sun_path, path);
        (void) unlink(path);
        assert_int_equal(bind(fd, (struct sockaddr *) &address, sizeof(address)), 0);
        assert_int_equal(listen(fd, 4096), 0);
        return fd;
}

struct harness *harness_new(const struct warm_server_config *config) {
        struct harness *h = calloc(1, sizeof(*h));
        struct warm_server_config c = { 0 };

        assert_non_null(h);
        if (config)
                c = *config;
        assert_true(sd_event_new(&h->event) >= 0);
        h->engine = fake_engine_new();
        h->listen_fd = listen_at(h->path, sizeof(h->path));
        c.event = h->event;
        c.engine = h->engine;
        c.listen_fds = &h->listen_fd;
        c.n_listen_fds = 1;
        c.version = "1.2.3";
        if (!config)
                c.admin_gid = (gid_t) -1;
        c.log = on_note;
        c.userdata = h;
        assert_int_equal(warm_server_new(&c, &h->server), 0);
        return h;
}

void harness_free(struct harness *h) {
        h->server = warm_server_free(h->server);
        warm_engine_free(h->engine);
        sd_event_unref(h->event);
        close(h->listen_fd);
        unlink(h->path);
        free(h);
}

void pump(struct harness *h) {
        int r;

        do
                r = sd_event_run(h->event, 0);
        while (r > 0);
        assert_int_equal(r, 0);
}

void peer_open(struct harness *h, struct peer *p) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        *p = (struct peer){ 0 };
        p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_true(p->fd >= 0);
        strcpy(address.sun_path, h->path);
        assert_int_equal(connect(p->fd, (struct sockaddr *) &address, sizeof(address)), 0);
        warm_buffer_init(&p->in, 64U << 20);
}

void peer_close(struct peer *p) {
        if (p->has_message)
                warm_message_deinit(&p->m);
        warm_buffer_deinit(&p->in);
        close(p->fd);
        *p = (struct peer){ .fd = -1 };
}

bool peer_send(struct harness *h, struct peer *p, const void *data, size_t n) {
        const char *at = data;

        while (n > 0) {
                ssize_t r = send(p->fd, at, n, MSG_NOSIGNAL);

                if (r < 0 && errno != EAGAIN)
                        return false;
                if (r < 0) {
                        pump(h);
                        continue;
                }
                at += r;
                n -= (size_t) r;
        }
        return true;
}

static void read_all(struct peer *p) {
        while (!p->at_end) {
                uint8_t *room;
                ssize_t r;

                assert_int_equal(warm_buffer_reserve(&p->in, 65536, &room), 0);
                r = recv(p->fd, room, 65536, 0);
                if (r < 0 && errno == EAGAIN)
                        return;
                if (r <= 0)
                        p->at_end = true;
                else
                        p->in.end += (size_t) r;
        }
}

bool peer_take(struct harness *h, struct peer *p) {
        struct warm_frame f = { 0 };
        static uint8_t *frame; /* the message borrows from it */
        size_t n;
        int r;

        if (p->has_message)
                warm_message_deinit(&p->m);
        p->has_message = false;
        pump(h);
        read_all(p);
        pump(h);
        r = warm_frame_check(&f, warm_buffer_data(&p->in), warm_buffer_n(&p->in), &n);
        assert_true(r == 0 || r == WARM_FRAME_E_MORE);
        if (r != 0)
                return false;
        free(frame);
        frame = malloc(n);
        memcpy(frame, warm_buffer_data(&p->in), n);
        warm_buffer_consume(&p->in, n);
        assert_int_equal(warm_message_decode(frame, n, &p->m), 0);
        p->has_message = true;
        return true;
}

void call_begin(struct warm_writer *w, struct warm_buffer *b, uint32_t id, const char *method) {
        warm_buffer_init(b, WARM_FRAME_BYTES_MAX * 2);
        warm_writer_request(w, b, id, method);
}

void call_send(struct harness *h, struct peer *p, struct warm_writer *w) {
        assert_int_equal(warm_writer_end(w), 0);
        assert_true(peer_send(h, p, warm_buffer_data(w->buffer), warm_buffer_n(w->buffer)));
        warm_buffer_deinit(w->buffer);
}

void peer_call(struct harness *h, struct peer *p, uint32_t id, const char *method) {
        struct warm_writer w;
        struct warm_buffer b;

        call_begin(&w, &b, id, method);
        warm_write_map(&w, 0);
        call_send(h, p, &w);
}

const msgpack_object *peer_result(struct harness *h, struct peer *p, uint32_t id) {
        assert_true(peer_take(h, p));
        assert_int_equal(p->m.type, WARM_FRAME_RESPONSE);
        assert_true(p->m.id_known);
        assert_int_equal(p->m.id, id);
        if (p->m.error) {
                msgpack_object_print(stderr, *p->m.error);
                fail_msg(" instead of a result");
        }
        assert_non_null(p->m.result);
        return p->m.result;
}

const char *peer_error(struct harness *h, struct peer *p, uint32_t id, enum warm_rpc_error e) {
        struct warm_wire_text name, what;
        static char text[512];
        uint32_t code;

        assert_true(peer_take(h, p));
        assert_int_equal(p->m.type, WARM_FRAME_RESPONSE);
        assert_int_equal(p->m.id, id);
        assert_non_null(p->m.error);
        assert_null(p->m.result);
        assert_int_equal(warm_read_error(p->m.error, &code, &name, &what), 0);
        snprintf(text, sizeof(text), "%.*s", (int) what.n, what.data);
        assert_int_equal(code, e);
        assert_int_equal(strlen(warm_rpc_error_name(e)), name.n);
        assert_memory_equal(name.data, warm_rpc_error_name(e), name.n);
        assert_true(what.n > 0);
        return text;
}

void assert_served(struct harness *h) {
        struct peer p;

        peer_open(h, &p);
        peer_call(h, &p, 1, "hello");
        peer_result(h, &p, 1);
        peer_close(&p);
        pump(h);
}
