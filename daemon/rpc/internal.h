/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of rpc/ share of the server. */
#pragma once

#include "connection.h"
#include "server.h"
#include "uid.h"

/* Most of what one read can bring: the kernel's buffer of a Unix socket is 208 KiB by default. */
#define WARM_SERVER_SCRATCH_BYTES (256U << 10)

TAILQ_HEAD(warm_connection_list, warm_connection);

struct warm_server {
        struct warm_server_config config; /* limits filled in */
        sd_event_source *accept_sources[WARM_SERVER_LISTEN_FDS_MAX];
        sd_event_source *accept_timer; /* accepting again after the process ran out of fds */
        sd_event_source *engine_source;
        sd_event_source *ready_source; /* there while `ready` is not empty */
        struct warm_uids uids;
        struct warm_connection_list connections, dirty, ready;
        LIST_HEAD(, warm_pending) pendings;
        LIST_HEAD(, warm_pending) answered; /* to be freed once their replies are sent */
        uint64_t serial_last;
        uint64_t request_id_last;
        uint64_t stream_seed; /* secret: nobody can aim at another's stream */
        uint64_t started_ns;
        bool is_faulty;
        struct warm_server_stats stats;
        uint8_t scratch[WARM_SERVER_SCRATCH_BYTES];
};

uint64_t warm_server_now_ns(void);

void warm_server_note(struct warm_server *s, enum warm_server_note_kind kind, struct warm_uid *uid,
                      const char *limit, uint64_t value);

/* Flush and free what the callback left. The last call of each callback. */
void warm_server_settle(struct warm_server *s);

/*
 * Have the connections in `ready` handled in the next turn of the loop. Made anew for each turn: a source that only
 * stays enabled keeps its place before all that became ready after it.
 */
void warm_server_arm_ready(struct warm_server *s);
