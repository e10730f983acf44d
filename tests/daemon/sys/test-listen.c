/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys/listen.h"

static char dir[32];
static char path[64];

static int setup(void **state) {
        (void) state;
        strcpy(dir, "/tmp/warm-listen-XXXXXX");
        if (!mkdtemp(dir))
                return -1;
        snprintf(path, sizeof(path), "%s/d/warmd.sock", dir);
        return 0;
}

static int teardown(void **state) {
        char command[64];

        (void) state;
        snprintf(command, sizeof(command), "rm -rf %s", dir);
        return system(command);
}

static int try_connect(void) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

        strcpy(a.sun_path, path);
        r = connect(fd, (struct sockaddr *) &a, sizeof(a)) < 0 ? -errno : 0;
        close(fd);
        return r;
}

static void a_socket_is_bound_and_removed_again(void **state) {
        struct warm_listen l = WARM_LISTEN_EMPTY;
        char *why = NULL;

        (void) state;
        assert_int_equal(warm_listen_open(path, &l, &why), 0);
        assert_int_equal(l.n_fds, 1);
        assert_int_equal(try_connect(), 0);
        warm_listen_close(&l);
        assert_int_equal(try_connect(), -ENOENT);
        assert_int_equal(l.n_fds, 0);
}

static void a_second_daemon_is_told_that_the_socket_is_in_use(void **state) {
        struct warm_listen l = WARM_LISTEN_EMPTY;
        char *why = NULL;
        pid_t pid;
        int status;

        (void) state;
        assert_int_equal(warm_listen_open(path, &l, &why), 0);
        pid = fork(); /* a lock of the same process would not count */
        if (pid == 0) {
                struct warm_listen other = WARM_LISTEN_EMPTY;
                int r = warm_listen_open(path, &other, &why);

                _exit(r == -EADDRINUSE && strstr(why, "already") ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(try_connect(), 0);
        warm_listen_close(&l);
}

static void what_a_killed_daemon_left_is_replaced(void **state) {
        struct warm_listen l = WARM_LISTEN_EMPTY;
        char *why = NULL;
        pid_t pid = fork();
        int status;

        (void) state;
        if (pid == 0)
                _exit(warm_listen_open(path, &l, &why) == 0 ? 0 : 1); /* no close: the files stay */
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(try_connect(), -ECONNREFUSED);
        assert_int_equal(warm_listen_open(path, &l, &why), 0);
        assert_int_equal(try_connect(), 0);
        warm_listen_close(&l);
}

static void a_file_that_is_no_socket_is_left_alone(void **state) {
        struct warm_listen l = WARM_LISTEN_EMPTY;
        char *why = NULL;
        struct stat st;
        char d[48];
        FILE *f;

        (void) state;
        snprintf(d, sizeof(d), "%s/d", dir);
        assert_int_equal(mkdir(d, 0755), 0);
        f = fopen(path, "w");
        assert_non_null(f);
        fclose(f);
        assert_int_equal(warm_listen_open(path, &l, &why), -EEXIST);
        free(why);
        assert_int_equal(stat(path, &st), 0);
}

static void a_path_longer_than_a_socket_name_is_refused(void **state) {
        char longer[160] = "/tmp/";
        struct warm_listen l = WARM_LISTEN_EMPTY;
        char *why = NULL;

        (void) state;
        memset(longer + 5, 'x', 120);
        assert_int_equal(warm_listen_open(longer, &l, &why), -ENAMETOOLONG);
        assert_non_null(strstr(why, "107"));
        free(why);
}

static void the_default_follows_the_runtime_directory(void **state) {
        char p[108];

        (void) state;
        setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
        assert_int_equal(warm_listen_default_path(p, sizeof(p)), 0);
        assert_string_equal(p, "/run/user/7/warmd/warmd.sock");
        unsetenv("XDG_RUNTIME_DIR");
        assert_int_equal(warm_listen_default_path(p, sizeof(p)), 0);
        assert_string_equal(p, "/run/warmd/warmd.sock");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(a_socket_is_bound_and_removed_again, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_second_daemon_is_told_that_the_socket_is_in_use,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(what_a_killed_daemon_left_is_replaced, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_file_that_is_no_socket_is_left_alone, setup,
                                                teardown),
                cmocka_unit_test(a_path_longer_than_a_socket_name_is_refused),
                cmocka_unit_test(the_default_follows_the_runtime_directory),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
