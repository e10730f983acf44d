/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "listen.h"

static int why_path(char **ret_why, int error, const char *path, const char *what) {
        if (asprintf(ret_why, "%s: %s", path, what) < 0)
                return -ENOMEM;
        return error;
}

int warm_listen_default_path(char *ret_path, size_t n) {
        const char *dir = getenv("XDG_RUNTIME_DIR");
        int k = dir && dir[0] == '/' ? snprintf(ret_path, n, "%s/warmd/warmd.sock", dir)
                                     : snprintf(ret_path, n, "/run/warmd/warmd.sock");

        return k < 0 || (size_t) k >= n ? -ENAMETOOLONG : 0;
}

static int take_from_systemd(struct warm_listen *l, char **ret_why) {
        int n = sd_listen_fds(true);

        if (n < 0)
                return why_path(ret_why, n, "sockets from systemd", strerror(-n));
        for (int i = 0; i < n; i++) {
                int fd = SD_LISTEN_FDS_START + i, flags = fcntl(fd, F_GETFL);

                if (l->n_fds == WARM_LISTEN_FDS_MAX ||
                    sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) <= 0)
                        return why_path(ret_why, -EINVAL, "sockets from systemd",
                                        "not a listening Unix stream socket, or too many of them");
                if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                        return why_path(ret_why, -errno, "sockets from systemd", strerror(errno));
                l->fds[l->n_fds++] = fd;
        }
        return 0;
}

static int make_directory(const char *path) {
        char dir[108];
        char *slash;

        snprintf(dir, sizeof(dir), "%s", path);
        slash = strrchr(dir, '/');
        if (!slash || slash == dir)
                return 0;
        *slash = '\0';
        return mkdir(dir, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

/* One daemon a path: whoever holds the lock may remove a socket file that another left. */
static int lock_path(const char *path) {
        char name[128];
        int fd, r;

        snprintf(name, sizeof(name), "%s.lock", path);
        fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                r = errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
                close(fd);
                return r;
        }
        return fd;
}

static int bind_path(const struct sockaddr_un *address, int *ret_fd) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

        if (fd < 0)
                return -errno;
        if (bind(fd, (const struct sockaddr *) address, sizeof(*address)) < 0 ||
            chmod(address->sun_path, 0666) < 0 || listen(fd, WARM_LISTEN_BACKLOG) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

/* Does somebody who does not use our lock (another version, another program) answer there? */
static bool answers(const struct sockaddr_un *address) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        bool yes;

        if (fd < 0)
                return false;
        yes = connect(fd, (const struct sockaddr *) address, sizeof(*address)) == 0 ||
              errno == EAGAIN;
        close(fd);
        return yes;
}

static int open_own(const char *path, struct warm_listen *l, char **ret_why) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct stat st;
        int r;

        if (strlen(path) >= sizeof(address.sun_path))
                return why_path(ret_why, -ENAMETOOLONG, path,
                                "longer than a Unix socket's name may be (107 bytes)");
        memcpy(address.sun_path, path, strlen(path) + 1);
        r = make_directory(path);
        if (r < 0)
                return why_path(ret_why, r, path, "its directory is missing and cannot be made");
        l->lock_fd = lock_path(path);
        if (l->lock_fd == -EADDRINUSE || (l->lock_fd >= 0 && answers(&address)))
                return why_path(ret_why, -EADDRINUSE, path,
                                "a warmd answers there already; stop it, or give another --socket");
        if (l->lock_fd < 0)
                return why_path(ret_why, l->lock_fd, path, strerror(-l->lock_fd));
        if (lstat(path, &st) == 0) {
                if (!S_ISSOCK(st.st_mode))
                        return why_path(ret_why, -EEXIST, path,
                                        "a file that is not a socket stands there");
                unlink(path);
        }
        r = bind_path(&address, &l->fds[0]);
        if (r < 0)
                return why_path(ret_why, r, path, strerror(-r));
        l->n_fds = 1;
        memcpy(l->path, path, strlen(path) + 1);
        return 0;
}

int warm_listen_open(const char *path, struct warm_listen *ret_listen, char **ret_why) {
        struct warm_listen l = WARM_LISTEN_EMPTY;
        char buffer[108];
        int r;

        r = take_from_systemd(&l, ret_why);
        if (r == 0 && l.n_fds == 0) {
                if (!path && warm_listen_default_path(buffer, sizeof(buffer)) < 0)
                        return why_path(ret_why, -ENAMETOOLONG, "$XDG_RUNTIME_DIR",
                                        "too long for a socket's name");
                r = open_own(path ? path : buffer, &l, ret_why);
        }
        if (r < 0) {
                warm_listen_close(&l);
                return r;
        }
        *ret_listen = l;
        return 0;
}

void warm_listen_close(struct warm_listen *l) {
        char lock[128];

        for (size_t i = 0; i < l->n_fds; i++)
                if (l->fds[i] >= 0)
                        close(l->fds[i]);
        if (l->path[0]) {
                snprintf(lock, sizeof(lock), "%s.lock", l->path);
                unlink(l->path);
                unlink(lock);
        }
        if (l->lock_fd >= 0)
                close(l->lock_fd);
        *l = WARM_LISTEN_EMPTY;
}
