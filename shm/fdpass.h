/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File descriptors over a Unix stream socket, with limits. A message is at least one byte and carries at most
 * WARM_FDPASS_MAX fds. What a peer sends beyond what was asked for is closed, never leaked: a hostile peer can neither
 * fill our table nor leave an fd open in it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define WARM_FDPASS_MAX 253U /* SCM_MAX_FD of Linux (include/net/scm.h) */

enum {
        WARM_FDPASS_E_AGAIN = 1, /* the socket would block */
        WARM_FDPASS_E_CLOSED,    /* the peer is gone */
        WARM_FDPASS_E_LIMIT,     /* more fds came than were asked for: all were closed */
};

/*
 * Send bytes with fds. The fds stay the caller's.
 *
 * @param n_bytes >= 1
 * @param n_fds 0 .. WARM_FDPASS_MAX
 * @param ret_n bytes sent: the fds went with the first of them; the rest is sent without
 * Return: 0; WARM_FDPASS_E_AGAIN; WARM_FDPASS_E_CLOSED; -EINVAL (counts); -errno of sendmsg.
 */
int warm_fdpass_send(int socket, const void *bytes, size_t n_bytes, const int *fds, uint32_t n_fds,
                     size_t *ret_n);

/*
 * Receive bytes with up to n_fds_max fds, all CLOEXEC from birth. They are the caller's.
 *
 * @param ret_fds [n_fds_max]
 * Return: as warm_fdpass_send; WARM_FDPASS_E_LIMIT.
 */
int warm_fdpass_receive(int socket, void *bytes, size_t n_bytes_max, int *ret_fds,
                        uint32_t n_fds_max, size_t *ret_n_bytes, uint32_t *ret_n_fds);
