/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "connection.h"
#include "dispatch.h"
#include "internal.h"

#define READ_MIN  (16U << 10) /* room made for the rest of a frame (untuned guess) */
#define FLUSH_AT  (64U << 10) /* replies of one callback are sent together up to here */
#define INPUT_MAX (WARM_FRAME_BYTES_MAX + WARM_SERVER_SCRATCH_BYTES)

static void mark_dirty(struct warm_connection *c) {
        if (c->is_dirty)
                return;
        c->is_dirty = true;
        TAILQ_INSERT_TAIL(&c->server->dirty, c, dirty_link);
}

static void set_ready(struct warm_connection *c, bool ready) {
        struct warm_server *s = c->server;

        if (c->is_ready == ready)
                return;
        c->is_ready = ready;
        if (!ready) {
                TAILQ_REMOVE(&s->ready, c, ready_link);
                return;
        }
        TAILQ_INSERT_TAIL(&s->ready, c, ready_link);
        warm_server_arm_ready(s);
}

/* Wait for input while more may be read, for room while something is unsent. A hang-up is always told. */
static void update_events(struct warm_connection *c) {
        uint32_t events = 0;

        if (c->state == WARM_CONNECTION_OPEN && !c->is_ready)
                events |= EPOLLIN;
        if (warm_buffer_n(&c->out) > 0)
                events |= EPOLLOUT;
        if (events == c->events)
                return;
        if (sd_event_source_set_io_events(c->source, events) < 0)
                warm_connection_kill(c);
        else
                c->events = events;
}

void warm_connection_kill(struct warm_connection *c) {
        c->state = WARM_CONNECTION_DEAD;
        mark_dirty(c);
}

static void charge(uint64_t now, uint64_t *charged, uint64_t *account) {
        *account += now - *charged;
        *charged = now;
}

static void drop_at_limit(struct warm_connection *c, const char *limit, uint64_t value) {
        c->server->stats.n_refused++;
        warm_server_note(c->server, WARM_SERVER_NOTE_LIMIT, c->uid, limit, value);
        warm_connection_kill(c);
}

void warm_connection_wrote(struct warm_connection *c) {
        uint64_t max = c->server->config.output_uid_bytes_max;

        if (c->state == WARM_CONNECTION_DEAD)
                return;
        charge(warm_buffer_n(&c->out), &c->out_charged, &c->uid->output_bytes);
        mark_dirty(c);
        if (warm_buffer_n(&c->out) > FLUSH_AT)
                warm_connection_flush(c);
        if (c->state != WARM_CONNECTION_DEAD && c->uid->output_bytes > max)
                drop_at_limit(c, "output-uid", max);
}

void warm_connection_flush(struct warm_connection *c) {
        while (c->state != WARM_CONNECTION_DEAD && warm_buffer_n(&c->out) > 0) {
                ssize_t n = send(c->fd, warm_buffer_data(&c->out), warm_buffer_n(&c->out),
                                 MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno != EAGAIN)
                        warm_connection_kill(c);
                if (n < 0)
                        break;
                warm_buffer_consume(&c->out, (size_t) n);
        }
        charge(warm_buffer_n(&c->out), &c->out_charged, &c->uid->output_bytes);
        if (warm_buffer_n(&c->out) == 0 && c->state != WARM_CONNECTION_OPEN && !c->is_ready &&
            LIST_EMPTY(&c->pendings))
                warm_connection_kill(c);
        if (c->state != WARM_CONNECTION_DEAD)
                update_events(c);
}

void warm_connection_refuse(struct warm_connection *c, const uint32_t *id, enum warm_rpc_error e) {
        struct warm_writer w;

        c->server->stats.n_refused++;
        if (c->state == WARM_CONNECTION_DEAD)
                return;
        c->state = WARM_CONNECTION_CLOSING;
        (void) warm_writer_error(&w, &c->out, id, e, warm_rpc_error_name(e),
                                 warm_rpc_error_what(e));
        warm_connection_wrote(c);
}

static void refuse_frame(struct warm_connection *c, enum warm_rpc_error e) {
        warm_server_note(c->server, WARM_SERVER_NOTE_FRAME, c->uid, warm_rpc_error_name(e), 0);
        warm_connection_refuse(c, c->frame.id_known ? &c->frame.id : NULL, e);
}

static enum warm_rpc_error frame_error(int r) {
        static const enum warm_rpc_error errors[_WARM_FRAME_E_N] = {
                [WARM_FRAME_E_LARGE] = WARM_RPC_E_FRAME_LARGE,
                [WARM_FRAME_E_DEEP] = WARM_RPC_E_FRAME_DEEP,
                [WARM_FRAME_E_COUNT] = WARM_RPC_E_FRAME_COUNT,
                [WARM_FRAME_E_RESERVED] = WARM_RPC_E_FRAME_RESERVED,
                [WARM_FRAME_E_EXT] = WARM_RPC_E_FRAME_EXT,
                [WARM_FRAME_E_SHAPE] = WARM_RPC_E_FRAME_SHAPE,
        };

        assert(r > WARM_FRAME_E_MORE && r < _WARM_FRAME_E_N);
        return errors[r];
}

/* Handle whole frames, WARM_CONNECTION_FRAMES_MAX at most. Return: bytes used. */
static size_t take_frames(struct warm_connection *c, const uint8_t *data, size_t n_data) {
        uint64_t arrival_ns = warm_server_now_ns();
        size_t n_used = 0, n_frame;
        unsigned n_frames = 0;
        int r;

        while (c->state <= WARM_CONNECTION_HALF && n_used < n_data) {
                if (n_frames++ == WARM_CONNECTION_FRAMES_MAX) {
                        set_ready(c, true);
                        return n_used;
                }
                r = warm_frame_check(&c->frame, data + n_used, n_data - n_used, &n_frame);
                if (r == WARM_FRAME_E_MORE)
                        break;
                if (r != 0) {
                        refuse_frame(c, frame_error(r));
                        break;
                }
                c->frame = (struct warm_frame){ 0 };
                warm_dispatch_frame(c, data + n_used, n_frame, arrival_ns);
                n_used += n_frame;
        }
        set_ready(c, false);
        return n_used;
}

/* What of the input is left stays with the connection, on its uid's account. */
static void settle_input(struct warm_connection *c) {
        uint64_t max = c->server->config.input_uid_bytes_max;

        charge(warm_buffer_n(&c->in), &c->in_charged, &c->uid->input_bytes);
        if (c->uid->input_bytes > max && c->state <= WARM_CONNECTION_HALF) {
                warm_server_note(c->server, WARM_SERVER_NOTE_LIMIT, c->uid, "input-uid", max);
                warm_connection_refuse(c, NULL, WARM_RPC_E_INPUT);
        }
        if (c->state == WARM_CONNECTION_HALF && !c->is_ready && warm_buffer_n(&c->in) > 0)
                refuse_frame(c, WARM_RPC_E_FRAME_CUT);
        if (c->state > WARM_CONNECTION_HALF) {
                set_ready(c, false);
                warm_buffer_consume(&c->in, warm_buffer_n(&c->in));
                charge(0, &c->in_charged, &c->uid->input_bytes);
        }
        mark_dirty(c);
}

void warm_connection_go_on(struct warm_connection *c) {
        size_t n_used = take_frames(c, warm_buffer_data(&c->in), warm_buffer_n(&c->in));

        warm_buffer_consume(&c->in, n_used);
        settle_input(c);
}

/* The client sends no more. It may still read: `printf | nc` does. */
static void end_input(struct warm_connection *c, uint32_t revents) {
        if (revents & EPOLLHUP)
                warm_connection_kill(c);
        else
                c->state = WARM_CONNECTION_HALF;
        settle_input(c);
}

/* Read where nothing is kept, into the scratch; else behind what is kept. Return: what recv() said. */
static ssize_t read_some(struct warm_connection *c, uint8_t **ret_room) {
        size_t n_room = sizeof(c->server->scratch);
        uint8_t *room = c->server->scratch;
        ssize_t n;

        if (warm_buffer_n(&c->in) > 0) {
                if (warm_buffer_reserve(&c->in, READ_MIN, &room) != 0) {
                        errno = ENOMEM;
                        return -1;
                }
                n_room = (size_t) (c->in.data + c->in.size - room);
                if (n_room > INPUT_MAX - warm_buffer_n(&c->in))
                        n_room = INPUT_MAX - warm_buffer_n(&c->in);
        }
        do
                n = recv(c->fd, room, n_room, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        *ret_room = room;
        return n;
}

static void on_input(struct warm_connection *c, uint32_t revents) {
        uint8_t *room;
        size_t n_used;
        ssize_t n;

        n = read_some(c, &room);
        if (n < 0) {
                if (errno != EAGAIN)
                        warm_connection_kill(c);
                return;
        }
        if (n == 0) {
                end_input(c, revents);
                return;
        }
        if (room != c->server->scratch) {
                c->in.end += (size_t) n;
                warm_connection_go_on(c);
                return;
        }
        n_used = take_frames(c, room, (size_t) n);
        if (c->state <= WARM_CONNECTION_HALF &&
            warm_buffer_append(&c->in, room + n_used, (size_t) n - n_used) != 0)
                warm_connection_kill(c);
        settle_input(c);
}

static int on_event(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        struct warm_connection *c = userdata;
        struct warm_server *s = c->server;

        (void) source;
        (void) fd;
        if ((revents & EPOLLIN) && c->state == WARM_CONNECTION_OPEN)
                on_input(c, revents);
        else if (revents & (EPOLLHUP | EPOLLERR))
                warm_connection_kill(c);
        if (revents & EPOLLOUT)
                mark_dirty(c);
        warm_server_settle(s);
        return 0;
}

int warm_connection_new(struct warm_server *s, int fd, struct warm_uid *uid, bool is_admin,
                        struct warm_connection **ret_connection) {
        struct warm_connection *c = calloc(1, sizeof(*c));
        int r;

        if (!c)
                return -ENOMEM;
        r = sd_event_add_io(s->config.event, &c->source, fd, EPOLLIN, on_event, c);
        if (r < 0) {
                free(c);
                return r;
        }
        c->server = s;
        c->serial = ++s->serial_last;
        c->uid = uid;
        c->is_admin = is_admin;
        c->fd = fd;
        c->events = EPOLLIN;
        warm_buffer_init(&c->in, INPUT_MAX);
        warm_buffer_init(&c->out, s->config.output_client_bytes_max);
        LIST_INIT(&c->pendings);
        TAILQ_INSERT_TAIL(&s->connections, c, link);
        s->stats.n_clients++;
        s->stats.n_clients_served++;
        uid->n_clients++;
        *ret_connection = c;
        return 0;
}

struct warm_connection *warm_connection_free(struct warm_connection *c) {
        struct warm_pending *p;

        if (!c)
                return NULL;
        while ((p = LIST_FIRST(&c->pendings)))
                warm_pending_orphan(p);
        set_ready(c, false);
        if (c->is_dirty)
                TAILQ_REMOVE(&c->server->dirty, c, dirty_link);
        TAILQ_REMOVE(&c->server->connections, c, link);
        charge(0, &c->in_charged, &c->uid->input_bytes);
        charge(0, &c->out_charged, &c->uid->output_bytes);
        c->uid->n_clients--;
        c->server->stats.n_clients--;
        warm_buffer_deinit(&c->in);
        warm_buffer_deinit(&c->out);
        sd_event_source_disable_unref(c->source);
        close(c->fd);
        free(c);
        return NULL;
}
