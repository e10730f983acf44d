/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client-internal.h"

/* A request that waits for its reply. */
struct waiting {
        uint32_t id;
        warm_client_reply_fn on_reply;
        void *userdata;
};

struct warm_client {
        int fd;
        uint32_t next_id;
        struct warm_buffer in, out;
        struct warm_frame frame; /* the check of the frame at the start of `in` */
        struct waiting *waiting; /* [n_waiting], owned */
        size_t n_waiting, waiting_size;
        warm_client_notification_fn on_notification;
        void *notification_userdata;
        bool dispatching;
        char path[sizeof(((struct sockaddr_un *) 0)->sun_path)];
};

#define OUT_MAX    (16U << 20) /* unsent bytes held; four frames (untuned guess) */
#define READ_PIECE (64U << 10)

static int default_path(char *ret_path, size_t n) {
        const char *dir = getenv("XDG_RUNTIME_DIR");
        int k;

        if (dir && dir[0] == '/') {
                k = snprintf(ret_path, n, "%s/warmd/warmd.sock", dir);
                if (k > 0 && (size_t) k < n && access(ret_path, F_OK) == 0)
                        return 0;
        }
        k = snprintf(ret_path, n, "/run/warmd/warmd.sock");
        return k > 0 && (size_t) k < n ? 0 : -ENAMETOOLONG;
}

static int connect_to(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd, r;

        memcpy(address.sun_path, path, strlen(path) + 1);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        do
                r = connect(fd, (const struct sockaddr *) &address, sizeof(address));
        while (r < 0 && errno == EINTR);
        if (r < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        return fd;
}

int warm_client_new(const char *path, struct warm_client **ret_client) {
        struct warm_client *c;
        int r;

        c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->next_id = 1;
        c->fd = -1;
        warm_buffer_init(&c->in, WARM_FRAME_BYTES_MAX + READ_PIECE);
        warm_buffer_init(&c->out, OUT_MAX);
        if (!path)
                r = default_path(c->path, sizeof(c->path));
        else
                r = strlen(path) < sizeof(c->path) ? 0 : -ENAMETOOLONG;
        if (r == 0 && path)
                memcpy(c->path, path, strlen(path) + 1);
        if (r == 0) {
                c->fd = connect_to(c->path);
                r = c->fd < 0 ? c->fd : 0;
        }
        if (r < 0) {
                warm_client_free(c);
                return r;
        }
        *ret_client = c;
        return 0;
}

struct warm_client *warm_client_free(struct warm_client *c) {
        if (!c)
                return NULL;
        assert(!c->dispatching);
        if (c->fd >= 0)
                close(c->fd);
        warm_buffer_deinit(&c->in);
        warm_buffer_deinit(&c->out);
        free(c->waiting);
        free(c);
        return NULL;
}

const char *warm_client_path(const struct warm_client *c) {
        return c->path;
}

int warm_client_fd(const struct warm_client *c) {
        return c->fd;
}

short warm_client_events(const struct warm_client *c) {
        return (short) (POLLIN | (warm_buffer_n(&c->out) > 0 ? POLLOUT : 0));
}

static int flush(struct warm_client *c) {
        while (warm_buffer_n(&c->out) > 0) {
                ssize_t n = send(c->fd, warm_buffer_data(&c->out), warm_buffer_n(&c->out),
                                 MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EAGAIN ? 0 : -errno;
                warm_buffer_consume(&c->out, (size_t) n);
        }
        return 0;
}

static int add_waiting(struct warm_client *c, uint32_t id, warm_client_reply_fn on_reply,
                       void *userdata) {
        if (c->n_waiting == c->waiting_size) {
                size_t size = c->waiting_size ? 2 * c->waiting_size : 8;
                struct waiting *more = reallocarray(c->waiting, size, sizeof(*more));

                if (!more)
                        return -ENOMEM;
                c->waiting = more;
                c->waiting_size = size;
        }
        c->waiting[c->n_waiting++] = (struct waiting){ id, on_reply, userdata };
        return 0;
}

/* Take the request of this id out of those that wait. Return: false if none has it. */
static bool take_waiting(struct warm_client *c, uint32_t id, struct waiting *ret_waiting) {
        for (size_t i = 0; i < c->n_waiting; i++)
                if (c->waiting[i].id == id) {
                        *ret_waiting = c->waiting[i];
                        c->waiting[i] = c->waiting[--c->n_waiting];
                        return true;
                }
        return false;
}

/* What the codec says of a message that it cannot write, in this library's words. */
static int written(int r) {
        return r == WARM_WIRE_E_FULL ? WARM_CLIENT_E_LARGE : r;
}

int warm_client_start(struct warm_client *c, const char *method, const struct warm_client_params *p,
                      warm_client_reply_fn on_reply, void *userdata, uint32_t *ret_id) {
        struct warm_writer w;
        uint32_t id = c->next_id++;
        struct waiting gone;
        int r;

        r = add_waiting(c, id, on_reply, userdata);
        if (r < 0)
                return r;
        warm_writer_request(&w, &c->out, id, method);
        warm_client_params_write(p, &w);
        r = written(warm_writer_end(&w));
        if (r == 0)
                r = flush(c);
        if (r != 0) {
                (void) take_waiting(c, id, &gone);
                return r;
        }
        *ret_id = id;
        return 0;
}

int warm_client_notify(struct warm_client *c, const char *method,
                       const struct warm_client_params *p) {
        struct warm_writer w;
        int r;

        warm_writer_notification(&w, &c->out, method);
        warm_client_params_write(p, &w);
        r = written(warm_writer_end(&w));
        return r == 0 ? flush(c) : r;
}

void warm_client_on_notification(struct warm_client *c, warm_client_notification_fn fn,
                                 void *userdata) {
        c->on_notification = fn;
        c->notification_userdata = userdata;
}

static void notification(struct warm_client *c, const struct warm_message *m) {
        char method[64];

        if (!c->on_notification || m->method.n >= sizeof(method))
                return;
        memcpy(method, m->method.data, m->method.n);
        method[m->method.n] = '\0';
        c->on_notification(c, method, warm_client_value_of(m->params), c->notification_userdata);
}

/* A response that nobody waits for goes by undecoded. Return: 0; -EPROTO; -ENOMEM. */
static int response(struct warm_client *c, const struct warm_frame *f, const void *data, size_t n) {
        struct warm_client_reply *reply = NULL;
        struct waiting w;
        int r;

        if (!f->id_known || !take_waiting(c, f->id, &w))
                return 0;
        r = warm_client_reply_new(data, n, &reply);
        if (r == 0)
                w.on_reply(c, f->id, reply, w.userdata);
        return r;
}

/* One whole frame. Return: 0; -EPROTO: what no daemon of ours sends; -ENOMEM. */
static int one_frame(struct warm_client *c, const struct warm_frame *f, const void *data,
                     size_t n) {
        struct warm_message m;
        int r;

        if (f->type == WARM_FRAME_RESPONSE)
                return response(c, f, data, n);
        if (f->type == WARM_FRAME_REQUEST)
                return -EPROTO; /* the daemon never calls a client */
        r = warm_message_decode(data, n, &m);
        if (r == 0)
                notification(c, &m);
        if (r >= 0)
                warm_message_deinit(&m);
        return r > 0 ? -EPROTO : r;
}

static int run_frames(struct warm_client *c) {
        for (;;) {
                struct warm_frame f;
                size_t n = 0;
                int r = warm_frame_check(&c->frame, warm_buffer_data(&c->in), warm_buffer_n(&c->in),
                                         &n);

                if (r == WARM_FRAME_E_MORE)
                        return 0;
                if (r != 0)
                        return -EPROTO;
                f = c->frame;
                c->frame = (struct warm_frame){};
                r = one_frame(c, &f, warm_buffer_data(&c->in), n);
                warm_buffer_consume(&c->in, n);
                if (r < 0)
                        return r;
        }
}

static int read_some(struct warm_client *c, bool *ret_more) {
        uint8_t *room = NULL;
        ssize_t n;
        int r;

        r = warm_buffer_reserve(&c->in, READ_PIECE, &room);
        if (r != 0) /* held: an unfinished frame that is too long; the check says so first */
                return r < 0 ? r : -EPROTO;
        do
                n = recv(c->fd, room, READ_PIECE, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0 && errno != EAGAIN)
                return -errno;
        if (n == 0)
                return -ECONNRESET;
        if (n > 0)
                c->in.end += (size_t) n;
        *ret_more = n == (ssize_t) READ_PIECE;
        return 0;
}

int warm_client_dispatch(struct warm_client *c) {
        bool more = true;
        int r = flush(c);

        assert(!c->dispatching);
        c->dispatching = true;
        while (r == 0 && more) {
                r = read_some(c, &more);
                if (r == 0)
                        r = run_frames(c);
        }
        c->dispatching = false;
        return r;
}

/* ---- Waiting for one reply ---- */

static int64_t now_ms(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void keep_reply(struct warm_client *c, uint32_t id, struct warm_client_reply *reply,
                       void *userdata) {
        struct warm_client_reply **slot = userdata;

        (void) c, (void) id;
        *slot = reply;
}

static void drop_reply(struct warm_client *c, uint32_t id, struct warm_client_reply *reply,
                       void *userdata) {
        (void) c, (void) id, (void) userdata;
        warm_client_reply_free(reply);
}

/* Nobody waits for it any more: let its reply go by, and tell the daemon. */
static int give_up(struct warm_client *c, uint32_t id) {
        struct warm_client_params *p = warm_client_params_new();
        int r;

        for (size_t i = 0; i < c->n_waiting; i++)
                if (c->waiting[i].id == id)
                        c->waiting[i].on_reply = drop_reply;
        if (!p)
                return -ENOMEM;
        warm_client_params_uint(p, "id", id);
        r = warm_client_notify(c, "cancel", p);
        warm_client_params_free(p);
        return r == 0 ? WARM_CLIENT_E_TIMEOUT : r;
}

int warm_client_call(struct warm_client *c, const char *method, const struct warm_client_params *p,
                     int timeout_ms, struct warm_client_reply **ret_reply) {
        int64_t deadline = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
        struct warm_client_reply *reply = NULL;
        uint32_t id = 0;
        int r;

        r = warm_client_start(c, method, p, keep_reply, &reply, &id);
        while (r == 0 && !reply) {
                struct pollfd fd = { .fd = c->fd, .events = warm_client_events(c) };
                int64_t left = timeout_ms < 0 ? -1 : deadline - now_ms();

                if (timeout_ms >= 0 && left <= 0)
                        return give_up(c, id);
                if (poll(&fd, 1, (int) left) < 0 && errno != EINTR)
                        r = -errno;
                else
                        r = warm_client_dispatch(c);
        }
        if (!reply)
                return r;
        *ret_reply = reply; /* what came before the connection broke still counts */
        return warm_client_reply_result(reply) ? 0 : WARM_CLIENT_E_REFUSED;
}

int warm_client_complete(struct warm_client *c, const void *prefix, size_t n_prefix,
                         const void *suffix, size_t n_suffix, char **ret_text) {
        struct warm_client_params *p = warm_client_params_new();
        struct warm_client_reply *reply = NULL;
        const char *text;
        size_t n = 0;
        int r;

        if (!p)
                return -ENOMEM;
        warm_client_params_text(p, "prefix", prefix, n_prefix);
        warm_client_params_text(p, "suffix", suffix, n_suffix);
        r = warm_client_call(c, "complete", p, -1, &reply);
        warm_client_params_free(p);
        if (r == 0) {
                text = warm_client_value_text(
                        warm_client_value_get(warm_client_reply_result(reply), "text"), &n);
                *ret_text = strndup(text ? text : "", n);
                r = *ret_text ? 0 : -ENOMEM;
        }
        warm_client_reply_free(reply);
        return r;
}
