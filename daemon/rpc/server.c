/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "connection.h"
#include "dispatch.h"
#include "internal.h"
#include "server.h"

#define ACCEPTS_MAX     16 /* in one go, so that a flood of clients holds up nobody (untuned) */
#define ACCEPT_PAUSE_US 100000U /* after EMFILE and its like */
#define GROUPS_MAX      65536   /* NGROUPS_MAX of Linux */
#define DRAIN_NS        2000000000ULL
#define DRAIN_FAULT_NS  250000000ULL /* the process must be gone within a second */
#define ENGINE_PRIORITY (SD_EVENT_PRIORITY_NORMAL - 10) /* what is done goes out first */
#define ACCEPT_PRIORITY (SD_EVENT_PRIORITY_NORMAL + 10) /* who is there comes before who comes */

uint64_t warm_server_now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000ULL + (uint64_t) t.tv_nsec;
}

void warm_server_note(struct warm_server *s, enum warm_server_note_kind kind, struct warm_uid *uid,
                      const char *limit, uint64_t value) {
        struct warm_server_note note = { .kind = kind, .limit = limit, .value = value };

        if (!s->config.log)
                return;
        note.uid = uid ? uid->uid : 0;
        if (!uid || warm_uid_may_note(uid, kind, warm_server_now_ns()))
                s->config.log(s->config.userdata, &note);
}

void warm_server_settle(struct warm_server *s) {
        struct warm_connection *c;

        while ((c = TAILQ_FIRST(&s->dirty))) {
                TAILQ_REMOVE(&s->dirty, c, dirty_link);
                c->is_dirty = false;
                if (c->state != WARM_CONNECTION_DEAD)
                        warm_connection_flush(c);
                if (c->state == WARM_CONNECTION_DEAD)
                        warm_connection_free(c);
        }
        warm_dispatch_tidy(s);
}

/* Is the peer in the administrators' group? By what the kernel saw when it connected. */
static bool is_in_group(int fd, gid_t primary, gid_t wanted) {
        socklen_t n_bytes = 0;
        bool found = false;
        gid_t *groups;

        if (wanted == (gid_t) -1)
                return false;
        if (primary == wanted)
                return true;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &n_bytes) == 0 || errno != ERANGE ||
            n_bytes > GROUPS_MAX * sizeof(gid_t))
                return false;
        groups = malloc(n_bytes);
        if (!groups)
                return false;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &n_bytes) == 0)
                for (size_t i = 0; i < n_bytes / sizeof(gid_t) && !found; i++)
                        found = groups[i] == wanted;
        free(groups);
        return found;
}

/* May this client come in? Return: 0; enum warm_rpc_error. */
static int admit(struct warm_server *s, struct warm_uid *uid) {
        if (!warm_uid_is_known(uid, warm_server_now_ns()))
                return WARM_RPC_E_UNKNOWN_UID;
        if (s->stats.n_clients >= s->config.n_clients_max ||
            uid->n_clients >= s->config.n_clients_uid_max)
                return WARM_RPC_E_CLIENTS;
        return 0;
}

/* Say why, in one message that an empty socket always takes, and close. */
static void turn_away(struct warm_server *s, int fd, struct warm_uid *uid, enum warm_rpc_error e) {
        struct warm_buffer b;
        struct warm_writer w;

        s->stats.n_refused++;
        warm_server_note(s, WARM_SERVER_NOTE_REFUSED, uid, warm_rpc_error_name(e), 0);
        warm_buffer_init(&b, WARM_FRAME_BYTES_MAX);
        if (warm_writer_error(&w, &b, NULL, e, warm_rpc_error_name(e), warm_rpc_error_what(e)) == 0)
                (void) send(fd, warm_buffer_data(&b), warm_buffer_n(&b),
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        warm_buffer_deinit(&b);
        close(fd);
}

static void welcome(struct warm_server *s, int fd) {
        socklen_t n = sizeof(struct ucred);
        struct warm_connection *c;
        struct warm_uid *uid;
        struct ucred peer;
        bool is_admin;
        int r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0 ||
            warm_uids_get(&s->uids, peer.uid, &uid) != 0) {
                s->stats.n_refused++;
                close(fd);
                return;
        }
        r = admit(s, uid);
        if (r != 0) {
                turn_away(s, fd, uid, r);
                return;
        }
        is_admin = peer.uid == 0 || peer.uid == geteuid() ||
                   is_in_group(fd, peer.gid, s->config.admin_gid);
        if (warm_connection_new(s, fd, uid, is_admin, &c) != 0)
                turn_away(s, fd, uid, WARM_RPC_E_MEMORY);
}

static void set_accepting(struct warm_server *s, bool on) {
        for (unsigned i = 0; i < s->config.n_listen_fds; i++)
                (void) sd_event_source_set_enabled(s->accept_sources[i],
                                                   on ? SD_EVENT_ON : SD_EVENT_OFF);
}

static int on_accept_again(sd_event_source *source, uint64_t usec, void *userdata) {
        (void) source;
        (void) usec;
        set_accepting(userdata, true);
        return 0;
}

/* Out of fds or memory: the listening socket stays readable, so look away for a moment. */
static void pause_accepting(struct warm_server *s) {
        set_accepting(s, false);
        if (sd_event_source_set_time_relative(s->accept_timer, ACCEPT_PAUSE_US) < 0 ||
            sd_event_source_set_enabled(s->accept_timer, SD_EVENT_ONESHOT) < 0)
                set_accepting(s, true);
        warm_server_note(s, WARM_SERVER_NOTE_LIMIT, NULL, "open-files", 0);
}

static int on_accept(sd_event_source *source, int listen_fd, uint32_t revents, void *userdata) {
        struct warm_server *s = userdata;

        (void) source;
        (void) revents;
        for (int i = 0; i < ACCEPTS_MAX; i++) {
                int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (fd >= 0) {
                        welcome(s, fd);
                        continue;
                }
                if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                        pause_accepting(s);
                if (errno != EINTR && errno != ECONNABORTED)
                        break;
        }
        warm_server_settle(s);
        return 0;
}

static int on_engine(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        struct warm_server *s = userdata;
        struct warm_event event;

        (void) source;
        (void) fd;
        (void) revents;
        if (!warm_engine_has_event(s->config.engine))
                warm_engine_await(s->config.engine);
        while (warm_engine_next(s->config.engine, &event)) {
                warm_dispatch_event(s, &event);
                /* Out with it before the last look, which reads the fd. */
                if (!warm_engine_has_event(s->config.engine))
                        warm_server_settle(s);
        }
        warm_server_settle(s);
        return 0;
}

/* One turn for each client that sent more frames than one turn handles. */
static int on_ready(sd_event_source *source, void *userdata) {
        struct warm_server *s = userdata;
        struct warm_connection *c, *last = TAILQ_LAST(&s->ready, warm_connection_list);

        (void) source;
        s->ready_source = sd_event_source_unref(s->ready_source);
        while ((c = TAILQ_FIRST(&s->ready))) {
                TAILQ_REMOVE(&s->ready, c, ready_link);
                TAILQ_INSERT_TAIL(&s->ready, c, ready_link);
                if (c->state <= WARM_CONNECTION_HALF)
                        warm_connection_go_on(c);
                if (c == last)
                        break;
        }
        warm_server_settle(s);
        if (!TAILQ_EMPTY(&s->ready))
                warm_server_arm_ready(s);
        return 0;
}

void warm_server_arm_ready(struct warm_server *s) {
        struct warm_connection *c;

        if (s->ready_source ||
            sd_event_add_defer(s->config.event, &s->ready_source, on_ready, s) >= 0)
                return;
        TAILQ_FOREACH(c, &s->ready, ready_link)
        warm_connection_kill(c);
}

static void fill_limits(struct warm_server_config *c) {
        if (c->n_clients_max == 0)
                c->n_clients_max = WARM_SERVER_CLIENTS_MAX;
        if (c->n_clients_uid_max == 0)
                c->n_clients_uid_max = WARM_SERVER_CLIENTS_UID_MAX;
        if (c->n_requests_uid_max == 0)
                c->n_requests_uid_max = WARM_SERVER_REQUESTS_UID_MAX;
        if (c->input_uid_bytes_max == 0)
                c->input_uid_bytes_max = WARM_SERVER_INPUT_UID_MAX;
        if (c->output_client_bytes_max == 0)
                c->output_client_bytes_max = WARM_SERVER_OUTPUT_CLIENT_MAX;
        if (c->output_uid_bytes_max == 0)
                c->output_uid_bytes_max = WARM_SERVER_OUTPUT_UID_MAX;
}

static int add_sources(struct warm_server *s) {
        struct warm_server_config *c = &s->config;
        int r;

        r = sd_event_add_io(c->event, &s->engine_source, warm_engine_event_fd(c->engine), EPOLLIN,
                            on_engine, s);
        if (r >= 0)
                r = sd_event_source_set_priority(s->engine_source, ENGINE_PRIORITY);
        if (r >= 0)
                r = sd_event_add_time(c->event, &s->accept_timer, CLOCK_MONOTONIC, 0, 0,
                                      on_accept_again, s);
        if (r >= 0)
                r = sd_event_source_set_enabled(s->accept_timer, SD_EVENT_OFF);
        for (unsigned i = 0; i < c->n_listen_fds && r >= 0; i++) {
                r = sd_event_add_io(c->event, &s->accept_sources[i], c->listen_fds[i], EPOLLIN,
                                    on_accept, s);
                if (r >= 0)
                        r = sd_event_source_set_priority(s->accept_sources[i], ACCEPT_PRIORITY);
        }
        return r < 0 ? r : 0;
}

int warm_server_new(const struct warm_server_config *config, struct warm_server **ret_server) {
        struct warm_server *s;
        int r;

        assert(config->event && config->engine && warm_engine_n_models(config->engine) > 0);
        if (config->n_listen_fds == 0 || config->n_listen_fds > WARM_SERVER_LISTEN_FDS_MAX)
                return -EINVAL;
        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->config = *config;
        s->config.listen_fds = NULL; /* watched below, not kept */
        fill_limits(&s->config);
        TAILQ_INIT(&s->connections);
        TAILQ_INIT(&s->dirty);
        TAILQ_INIT(&s->ready);
        LIST_INIT(&s->pendings);
        LIST_INIT(&s->answered);
        warm_uids_init(&s->uids);
        s->started_ns = warm_server_now_ns();
        if (s->config.output_client_bytes_max < WARM_FRAME_BYTES_MAX ||
            s->config.output_uid_bytes_max < WARM_FRAME_BYTES_MAX ||
            s->config.input_uid_bytes_max < WARM_FRAME_BYTES_MAX) {
                warm_server_free(s);
                return -EINVAL;
        }
        if (getrandom(&s->stream_seed, sizeof(s->stream_seed), 0) != sizeof(s->stream_seed)) {
                warm_server_free(s);
                return -EIO;
        }
        s->config.listen_fds = config->listen_fds;
        r = add_sources(s);
        s->config.listen_fds = NULL;
        if (r < 0) {
                warm_server_free(s);
                return r;
        }
        *ret_server = s;
        return 0;
}

/* An engine that hangs in its driver hands nothing back: its requests are answered without a look at them. */
static void tell_fault(struct warm_server *s) {
        struct warm_pending *p;

        LIST_FOREACH(p, &s->pendings, server_link) {
                struct warm_connection *c = p->call.connection;

                if (!c || c->state == WARM_CONNECTION_DEAD)
                        continue;
                warm_call_error(&p->call, WARM_RPC_E_BACKEND);
                warm_connection_wrote(c);
        }
}

/* The engine has requests that point at us: end them, and wait for it to say so. */
static void drain(struct warm_server *s) {
        uint64_t end_ns = warm_server_now_ns() + (s->is_faulty ? DRAIN_FAULT_NS : DRAIN_NS), now_ns;
        struct warm_pending *p;

        LIST_FOREACH(p, &s->pendings, server_link)
        warm_engine_cancel(s->config.engine, p->request->id);
        while (!LIST_EMPTY(&s->pendings)) { /* a lost engine still hands back what came late */
                struct pollfd fd = { .fd = warm_engine_event_fd(s->config.engine),
                                     .events = POLLIN };
                struct warm_event event;

                while (warm_engine_next(s->config.engine, &event))
                        warm_dispatch_event(s, &event);
                now_ns = warm_server_now_ns();
                if (LIST_EMPTY(&s->pendings) || now_ns >= end_ns)
                        break;
                (void) poll(&fd, 1, (int) ((end_ns - now_ns) / 1000000) + 1);
        }
        if (s->is_faulty)
                tell_fault(s);
}

void warm_server_give_up(struct warm_server *s) {
        s->is_faulty = true;
}

struct warm_server *warm_server_free(struct warm_server *s) {
        struct warm_connection *c;

        if (!s)
                return NULL;
        for (unsigned i = 0; i < WARM_SERVER_LISTEN_FDS_MAX; i++)
                s->accept_sources[i] = sd_event_source_disable_unref(s->accept_sources[i]);
        drain(s);
        warm_server_settle(s);
        while ((c = TAILQ_FIRST(&s->connections)))
                warm_connection_free(c);
        sd_event_source_disable_unref(s->accept_timer);
        sd_event_source_disable_unref(s->ready_source);
        sd_event_source_disable_unref(s->engine_source);
        warm_dispatch_abandon(s);
        warm_uids_deinit(&s->uids);
        free(s);
        return NULL;
}

void warm_server_stats(const struct warm_server *s, struct warm_server_stats *ret_stats) {
        const struct warm_connection *c;

        *ret_stats = s->stats;
        ret_stats->buffer_bytes = sizeof(*s);
        TAILQ_FOREACH(c, &s->connections, link)
        ret_stats->buffer_bytes += sizeof(*c) + c->in.size + c->out.size;
}
