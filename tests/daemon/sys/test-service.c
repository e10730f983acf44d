/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole daemon, in a process of its own, on a device that fails: every waiting client is told with a typed error,
 * the process is gone within a second with its own status, and says what happened.
 *
 * The device is the CPU backend with some of its operations replaced (the linker's --wrap).
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/client.h"
#include "rpc/error.h"
#include "sched/engine.h"
#include "sys/service.h"

#define N_CLIENTS 3

enum mishap { MISHAP_NONE, MISHAP_LOST_IN_SUBMIT, MISHAP_LOST_IN_POLL, MISHAP_HANG };

/* Set before the daemon's process is made. */
static enum mishap mishap;
static uint64_t mishap_step;

static struct warm_backend_ops ops;
static const struct warm_backend_ops *cpu_ops;
static uint64_t n_steps;
static int quiet_fd;

static int submit(struct warm_backend *b, struct warm_weights *w, const struct warm_step *step,
                  uint64_t *ret_ticket) {
        if (++n_steps > mishap_step && mishap != MISHAP_NONE)
                _exit(99); /* computed after the fault */
        if (n_steps == mishap_step && mishap == MISHAP_LOST_IN_SUBMIT) {
                usleep(200000); /* the others queue up */
                return WARM_BACKEND_E_LOST;
        }
        return cpu_ops->submit(b, w, step, ret_ticket);
}

static int poll_step(struct warm_backend *b, uint64_t ticket) {
        if (n_steps < mishap_step || mishap == MISHAP_NONE)
                return cpu_ops->poll(b, ticket);
        if (mishap == MISHAP_LOST_IN_POLL) {
                usleep(200000);
                return WARM_BACKEND_E_LOST;
        }
        return WARM_BACKEND_E_PENDING;
}

static int event_fd(struct warm_backend *b) {
        (void) b;
        return quiet_fd;
}

static const char *fault(struct warm_backend *b) {
        (void) b;
        return "a made-up fault";
}

int __real_warm_cpu_backend_new(const struct warm_backend_config *config,
                                struct warm_backend **ret_backend);
int __wrap_warm_cpu_backend_new(const struct warm_backend_config *config,
                                struct warm_backend **ret_backend);

int __wrap_warm_cpu_backend_new(const struct warm_backend_config *config,
                                struct warm_backend **ret_backend) {
        int r = __real_warm_cpu_backend_new(config, ret_backend);

        if (r < 0)
                return r;
        quiet_fd = eventfd(0, EFD_CLOEXEC);
        cpu_ops = (*ret_backend)->ops;
        ops = *cpu_ops;
        ops.submit = submit;
        ops.poll = poll_step;
        ops.event_fd = event_fd;
        ops.fault = fault;
        (*ret_backend)->ops = &ops;
        return 0;
}

int __real_warm_engine_new(const struct warm_engine_config *config,
                           struct warm_engine **ret_engine);
int __wrap_warm_engine_new(const struct warm_engine_config *config,
                           struct warm_engine **ret_engine);

int __wrap_warm_engine_new(const struct warm_engine_config *config,
                           struct warm_engine **ret_engine) {
        struct warm_engine_config faster = *config;

        faster.step_limit_ns = 400000000;
        return __real_warm_engine_new(&faster, ret_engine);
}

static uint64_t now_ms(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000 + (uint64_t) t.tv_nsec / 1000000;
}

struct daemon {
        char folder[64], socket[96], model[512];
        pid_t pid;
        int said; /* its stderr */
};

static void start_daemon(struct daemon *d, enum mishap what, uint64_t at_step) {
        struct warm_config config;
        int fds[2];

        mishap = what;
        mishap_step = at_step;
        strcpy(d->folder, "/tmp/warm-service-XXXXXX");
        assert_non_null(mkdtemp(d->folder));
        snprintf(d->socket, sizeof(d->socket), "%s/sock", d->folder);
        snprintf(d->model, sizeof(d->model), "%s/models/warm-nano-q8_0.gguf",
                 getenv("WARM_SOURCE_ROOT"));
        assert_int_equal(pipe(fds), 0);
        d->pid = fork();
        assert_true(d->pid >= 0);
        if (d->pid == 0) {
                char *why = NULL;

                dup2(fds[1], STDERR_FILENO);
                close(fds[0]);
                warm_config_init(&config);
                if (warm_config_set(&config, "warmd", "model", d->model, &why) < 0 ||
                    warm_config_set(&config, "warmd", "socket", d->socket, &why) < 0 ||
                    warm_config_set(&config, "warmd", "device", "cpu", &why) < 0)
                        _exit(98);
                _exit(warm_service_run(&config));
        }
        close(fds[1]);
        d->said = fds[0];
}

/* What it said until its end, and its exit status. */
static int end_daemon(struct daemon *d, char *ret_said, size_t size) {
        size_t n = 0;
        ssize_t k;
        int status;

        assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
        while (n + 1 < size && (k = read(d->said, ret_said + n, size - 1 - n)) > 0)
                n += (size_t) k;
        ret_said[n] = '\0';
        close(d->said);
        unlink(d->socket);
        rmdir(d->folder);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

/* In a process of its own: complete, and exit with the code of the error (0: none, 255: no typed answer). */
static pid_t start_client(const struct daemon *d) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                struct warm_client_params *p = warm_client_params_new();
                struct warm_client_reply *reply = NULL;
                const char *name = NULL, *what = NULL;
                struct warm_client *c = NULL;
                uint32_t code = 255;
                int r = -ENOENT;

                for (int i = 0; i < 200 && r < 0; i++) {
                        r = warm_client_new(d->socket, &c);
                        if (r < 0)
                                usleep(50000);
                }
                if (r < 0)
                        _exit(254);
                warm_client_params_text(p, "prefix", "int main(", 9);
                r = warm_client_call(c, "complete", p, -1, &reply);
                if (r == WARM_CLIENT_E_REFUSED)
                        warm_client_reply_error(reply, &code, &name, &what);
                _exit(r == 0 ? 0 : (int) code);
        }
        return pid;
}

static void check_mishap(enum mishap what, uint64_t at_step, const char *words) {
        pid_t clients[N_CLIENTS];
        struct daemon d;
        uint64_t told = 0;
        char said[4096];

        start_daemon(&d, what, at_step);
        for (int i = 0; i < N_CLIENTS; i++)
                clients[i] = start_client(&d);
        for (int i = 0; i < N_CLIENTS; i++) {
                int status;

                assert_int_equal(waitpid(clients[i], &status, 0), clients[i]);
                told = told ? told : now_ms();
                assert_true(WIFEXITED(status));
                assert_int_equal(WEXITSTATUS(status), WARM_RPC_E_BACKEND);
        }
        assert_int_equal(end_daemon(&d, said, sizeof(said)), WARM_EXIT_DEVICE_LOST);
        assert_true(now_ms() - told < 1000);
        if (!strstr(said, words))
                fail_msg("it does not say \"%s\": %s", words, said);
}

static void a_device_lost_in_the_first_step_is_told_to_all(void **state) {
        (void) state;
        check_mishap(MISHAP_LOST_IN_SUBMIT, 1, "the device was lost: a made-up fault");
}

static void a_device_lost_while_a_step_runs_is_told_to_all(void **state) {
        (void) state;
        check_mishap(MISHAP_LOST_IN_POLL, 1, "the device was lost: a made-up fault");
}

static void a_step_that_hangs_is_told_to_all(void **state) {
        (void) state;
        check_mishap(MISHAP_HANG, 1, "the device hangs");
}

static void without_a_mishap_it_completes_and_stops_as_asked(void **state) {
        struct daemon d;
        char said[4096];
        int status;
        pid_t client;

        (void) state;
        start_daemon(&d, MISHAP_NONE, 0);
        client = start_client(&d);
        assert_int_equal(waitpid(client, &status, 0), client);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        kill(d.pid, SIGTERM);
        assert_int_equal(end_daemon(&d, said, sizeof(said)), WARM_EXIT_OK);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(without_a_mishap_it_completes_and_stops_as_asked),
                cmocka_unit_test(a_device_lost_in_the_first_step_is_told_to_all),
                cmocka_unit_test(a_device_lost_while_a_step_runs_is_told_to_all),
                cmocka_unit_test(a_step_that_hangs_is_told_to_all),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
