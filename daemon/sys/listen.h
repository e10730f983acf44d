/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where clients come in: a socket handed over by systemd, or one that the daemon binds itself.
 * Thread: main, at start and end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define WARM_LISTEN_FDS_MAX 4U
#define WARM_LISTEN_BACKLOG 4096

struct warm_listen {
        int fds[WARM_LISTEN_FDS_MAX]; /* owned; listening, non-blocking, CLOEXEC */
        size_t n_fds;
        char path[108]; /* the socket that we bound and remove at the end; empty: systemd's */
        int lock_fd;    /* held while path is ours; -1 */
};

#define WARM_LISTEN_EMPTY                                                                          \
        (struct warm_listen) {                                                                     \
                .fds = { -1, -1, -1, -1 }, .lock_fd = -1                                           \
        }

/* $XDG_RUNTIME_DIR/warmd/warmd.sock for a user's daemon, /run/warmd/warmd.sock without that variable. */
int warm_listen_default_path(char *ret_path, size_t n);

/*
 * Take systemd's sockets if there are any, else bind path (its directory is made, mode 0755).
 * A socket file left by a daemon that is gone is replaced; `PATH.lock` tells the two apart.
 *
 * @param path NULL: the default
 * @param ret_why on errors a malloc'd sentence
 * Return: 0; -EADDRINUSE: a daemon answers there; -errno.
 */
int warm_listen_open(const char *path, struct warm_listen *ret_listen, char **ret_why);

/* Close, and remove what was bound. */
void warm_listen_close(struct warm_listen *l);
