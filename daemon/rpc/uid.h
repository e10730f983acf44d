/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is served, and what they hold: one record a uid. The unit of trust is the uid, taken from the socket.
 *
 * A record lives while it holds anything, and after that is remembered with what the system said of the uid, until
 * WARM_SERVER_UIDS_REMEMBERED_MAX others have come. Owner: the server. Thread: loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "server.h"

struct warm_uid {
        TAILQ_ENTRY(warm_uid) link; /* most lately used first */
        uid_t uid;
        bool known;        /* root, the daemon's own, or one with a passwd entry */
        uint64_t known_ns; /* CLOCK_MONOTONIC of that answer; 0: not asked */
        uint32_t n_clients;
        uint32_t n_requests;   /* in the engine, those of clients that are gone too */
        uint64_t input_bytes;  /* half-read frames */
        uint64_t output_bytes; /* replies not yet taken by the kernel */
        uint64_t noted_ns[_WARM_SERVER_NOTE_N];
};

struct warm_uids {
        TAILQ_HEAD(warm_uid_list, warm_uid) list;
        uint32_t n;
};

void warm_uids_init(struct warm_uids *u);
void warm_uids_deinit(struct warm_uids *u);

/* The record of a uid, made if need be. Return: 0; -ENOMEM. */
int warm_uids_get(struct warm_uids *u, uid_t uid, struct warm_uid **ret_uid);

/*
 * May this uid be served at all? One person may own 65,536 subordinate uids, none with a passwd entry: without this,
 * limits per uid would be worth nothing. The answer is remembered for a minute.
 */
bool warm_uid_is_known(struct warm_uid *u, uint64_t now_ns);

/* Is it time for another note of this kind? Remembers that there was one. */
bool warm_uid_may_note(struct warm_uid *u, enum warm_server_note_kind kind, uint64_t now_ns);
