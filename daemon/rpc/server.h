/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server: listening sockets, the clients behind them, and what they have in flight.
 *
 * Thread: loop, all of it. It owns its connections and the requests that it made; the engine, the event loop and the
 * listening sockets stay the caller's and must outlive it. SIGPIPE need not be ignored.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

#include "sched/engine.h"

#define WARM_PROTOCOL_VERSION      1U
#define WARM_SERVER_LISTEN_FDS_MAX 8U

/* Defaults of what a configuration leaves at 0; all untuned guesses. Enough for an editor with every buffer open. */
#define WARM_SERVER_CLIENTS_MAX         512U
#define WARM_SERVER_CLIENTS_UID_MAX     64U
#define WARM_SERVER_REQUESTS_UID_MAX    64U
#define WARM_SERVER_INPUT_UID_MAX       (16U << 20)
#define WARM_SERVER_OUTPUT_CLIENT_MAX   (8U << 20)
#define WARM_SERVER_OUTPUT_UID_MAX      (32U << 20)
#define WARM_SERVER_UIDS_REMEMBERED_MAX 256U

enum warm_server_note_kind {
        WARM_SERVER_NOTE_REFUSED, /* a client was turned away as it came; limit: why */
        WARM_SERVER_NOTE_LIMIT,   /* a client was dropped, or a request refused, at a limit */
        WARM_SERVER_NOTE_FRAME, /* a client was dropped after a bad frame; limit: the error's name */
        WARM_SERVER_NOTE_FAULT, /* the engine lost its device: end the process; value: which enum
                                   warm_fault; limit: what the backend says of it, or NULL */
        _WARM_SERVER_NOTE_N,
};

/* What the caller may want to log: numbers, and names that we made up. One a second a kind and uid at most. */
struct warm_server_note {
        enum warm_server_note_kind kind;
        uid_t uid;
        const char *limit; /* static (FAULT: the backend's): the limit's or error's name, or NULL */
        uint64_t value;    /* of the limit, or 0 */
};

struct warm_server_config {
        sd_event *event;              /* borrowed */
        struct warm_engine *engine;   /* borrowed; started, with one model at least */
        int *listen_fds;              /* [n_listen_fds] borrowed; listening Unix stream sockets */
        unsigned n_listen_fds;        /* 1 .. WARM_SERVER_LISTEN_FDS_MAX */
        uint32_t n_clients_max;       /* 0: the default, here and below */
        uint32_t n_clients_uid_max;   /* connections of one uid */
        uint32_t n_requests_uid_max;  /* requests of one uid that the engine has */
        uint64_t input_uid_bytes_max; /* half-read frames of one uid */
        uint64_t
                output_client_bytes_max; /* unread replies of a connection; >= WARM_FRAME_BYTES_MAX */
        uint64_t output_uid_bytes_max;   /* unread replies of one uid */
        const char *version;             /* borrowed */
        gid_t admin_gid;                 /* its members may do what root may; (gid_t) -1: none */
        void (*log)(void *userdata, const struct warm_server_note *note); /* may be NULL */
        void *userdata;
};

struct warm_server_stats {
        uint32_t n_clients;
        uint32_t n_requests;       /* in flight */
        uint64_t n_clients_served; /* since the start, refused ones not counted */
        uint64_t n_requests_served;
        uint64_t n_refused; /* clients turned away or dropped */
        uint64_t n_unknown; /* notifications that nobody knows, and responses: we asked nothing */
        uint64_t buffer_bytes;
};

struct warm_server;

/*
 * Start to serve.
 * Return: 0; -EINVAL: a limit below what one frame needs; -ENOMEM; -errno of the event loop and getrandom.
 */
int warm_server_new(const struct warm_server_config *config, struct warm_server **ret_server);

/*
 * The engine does not come back: whoever waits for it has backend-failed from warm_server_free(), which then waits for
 * 250 ms only.
 */
void warm_server_give_up(struct warm_server *s);

/*
 * Cancel what is in flight, wait for it (2 s at most), send what can be sent at once, close. Takes NULL, returns
 * NULL.
 */
struct warm_server *warm_server_free(struct warm_server *s);

void warm_server_stats(const struct warm_server *s, struct warm_server_stats *ret_stats);
