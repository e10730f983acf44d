/* SPDX-License-Identifier: Apache-2.0 */
/* serve SOCKET: a real server over the made-up engine, until standard input ends. For tests in other languages. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fake-engine.h"
#include "rpc/server.h"

static int on_stdin(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        char byte;

        (void) revents;
        (void) userdata;
        if (read(fd, &byte, 1) <= 0)
                sd_event_exit(sd_event_source_get_event(source), 0);
        return 0;
}

int main(int argc, char **argv) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct warm_server_config config = { .n_listen_fds = 1,
                                             .version = "0.1.0",
                                             .admin_gid = (gid_t) -1 };
        struct warm_server *server = NULL;
        int listen_fd, r;

        if (argc != 2 || strlen(argv[1]) >= sizeof(address.sun_path)) {
                fprintf(stderr, "usage: serve SOCKET\n");
                return 2;
        }
        strcpy(address.sun_path, argv[1]);
        listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (listen_fd < 0 || bind(listen_fd, (struct sockaddr *) &address, sizeof(address)) < 0 ||
            listen(listen_fd, 64) < 0) {
                perror(argv[1]);
                return 1;
        }
        config.listen_fds = &listen_fd;
        config.engine = fake_engine_new();
        r = sd_event_new(&config.event);
        if (r >= 0)
                r = sd_event_add_io(config.event, NULL, STDIN_FILENO, EPOLLIN, on_stdin, NULL);
        if (r >= 0)
                r = warm_server_new(&config, &server);
        if (r >= 0)
                r = sd_event_loop(config.event);
        warm_server_free(server);
        warm_engine_free(config.engine);
        sd_event_unref(config.event);
        close(listen_fd);
        unlink(argv[1]);
        if (r < 0)
                fprintf(stderr, "serve: %s\n", strerror(-r));
        return r < 0;
}
