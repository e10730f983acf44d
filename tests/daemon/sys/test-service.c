/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole daemon, in a process of its own, on a device that fails: every waiting client is told with a typed error,
 * the process is gone within a second with its own status, and says what happened. And on one with little memory.
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
#include "sys/device.h"
#include "sys/service.h"
#include "sys/watchdog.h"

#define N_CLIENTS 3

enum mishap {
        MISHAP_NONE,
        MISHAP_LOST_IN_SUBMIT,
        MISHAP_LOST_IN_POLL,
        MISHAP_HANG,
        MISHAP_HANG_IN_SUBMIT
};

/* Set before the daemon's process is made. */
static enum mishap mishap;
static uint64_t mishap_step;

static uint64_t gpu_free_bytes; /* of the pretended GPU; 0: it does not load either */

static uint32_t n_chunks_max = UINT32_MAX; /* of KV that it has memory for */

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
        while (n_steps == mishap_step && mishap == MISHAP_HANG_IN_SUBMIT)
                pause();
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

/* A GPU that is the CPU, but for what it says of itself. */
static void info(struct warm_backend *b, struct warm_backend_info *ret_info) {
        cpu_ops->info(b, ret_info);
        ret_info->name = "cuda";
        strcpy(ret_info->description, "a pretended GPU");
        ret_info->memory_free = gpu_free_bytes;
}

static int load(struct warm_backend *b, const struct warm_plan *plan,
                struct warm_weights **ret_weights, char **ret_why) {
        if (gpu_free_bytes == 0 && ops.info == info)
                return WARM_BACKEND_E_MEMORY;
        return cpu_ops->load(b, plan, ret_weights, ret_why);
}

static int kv_add(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                  uint32_t chunk_index) {
        static uint32_t n_chunks;

        if (n_chunks == n_chunks_max)
                return WARM_BACKEND_E_MEMORY;
        n_chunks++;
        return cpu_ops->kv_add(b, w, group, chunk_index);
}

static int make_gpu(const struct warm_backend_config *config, struct warm_backend **ret_backend,
                    char **ret_why) {
        int r = __wrap_warm_cpu_backend_new(config, ret_backend);

        (void) ret_why;
        ops.info = info;
        ops.load = load;
        ops.kv_add = kv_add;
        return r;
}

static int gpu_room(int device, uint64_t *ret_free_bytes, char **ret_why) {
        (void) device, (void) ret_why;
        *ret_free_bytes = gpu_free_bytes;
        return 0;
}

const struct warm_device_makers *__wrap_warm_device_makers(void);

const struct warm_device_makers *__wrap_warm_device_makers(void) {
        static const struct warm_device_makers makers = {
                .cpu = __wrap_warm_cpu_backend_new,
                .cuda = make_gpu,
                .cuda_room = gpu_room,
                .wait_ns = 1000000,
        };

        return &makers;
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

int __real_warm_watchdog_init(struct warm_watchdog *w, sd_event *event,
                              const struct warm_watchdog_config *config);
int __wrap_warm_watchdog_init(struct warm_watchdog *w, sd_event *event,
                              const struct warm_watchdog_config *config);

int __wrap_warm_watchdog_init(struct warm_watchdog *w, sd_event *event,
                              const struct warm_watchdog_config *config) {
        struct warm_watchdog_config faster = *config;

        if (mishap == MISHAP_HANG_IN_SUBMIT)
                faster.hang_us = config->hang_us / 20;
        return __real_warm_watchdog_init(w, event, &faster);
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

/* @param pairs keys and values of configuration, ended by NULL */
static void start_daemon(struct daemon *d, enum mishap what, uint64_t at_step,
                         const char *const *pairs) {
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
                    warm_config_set(&config, "warmd", "socket", d->socket, &why) < 0)
                        _exit(98);
                for (; *pairs; pairs += 2)
                        if (warm_config_set(&config, "warmd", pairs[0], pairs[1], &why) < 0)
                                _exit(98);
                _exit(warm_service_run(&config));
        }
        close(fds[1]);
        d->said = fds[0];
}

/* What it said until its end, and its exit status. */
static int end_daemon(struct daemon *d, char *ret_said, size_t size) {
        char lock[128];
        size_t n = 0;
        ssize_t k;
        int status;

        assert_int_equal(waitpid(d->pid, &status, 0), d->pid);
        while (n + 1 < size && (k = read(d->said, ret_said + n, size - 1 - n)) > 0)
                n += (size_t) k;
        ret_said[n] = '\0';
        close(d->said);
        unlink(d->socket);
        assert_true(snprintf(lock, sizeof(lock), "%s.lock", d->socket) < (int) sizeof(lock));
        unlink(lock); /* which the daemon leaves, for the next one */
        assert_int_equal(rmdir(d->folder), 0);
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

static const char *const on_cpu[] = { "device", "cpu", NULL };

static const char *const on_gpu[] = { "device", "cuda:0", NULL };

static void check_mishap(enum mishap what, uint64_t at_step, const char *words) {
        pid_t clients[N_CLIENTS];
        struct daemon d;
        uint64_t told = 0;
        char said[4096];

        gpu_free_bytes = 8ULL << 30;
        start_daemon(&d, what, at_step, on_gpu);
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

static void a_driver_that_does_not_return_is_told_to_all(void **state) {
        (void) state;
        check_mishap(MISHAP_HANG_IN_SUBMIT, 1, "the device hangs");
}

/* It completes, stops as asked, and has said all these words on the way. */
static void check_well(const char *const *pairs, const char *const *words) {
        struct daemon d;
        char said[4096];
        int status;
        pid_t client;

        start_daemon(&d, MISHAP_NONE, 0, pairs);
        client = start_client(&d);
        assert_int_equal(waitpid(client, &status, 0), client);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        kill(d.pid, SIGTERM);
        assert_int_equal(end_daemon(&d, said, sizeof(said)), WARM_EXIT_OK);
        for (; *words; words++)
                if (!strstr(said, *words))
                        fail_msg("it does not say \"%s\": %s", *words, said);
}

static void without_a_mishap_it_completes_and_stops_as_asked(void **state) {
        const char *const words[] = { "ready on the CPU", "stopping", NULL };

        (void) state;
        check_well(on_cpu, words);
}

static void a_gpu_with_room_is_taken_and_named(void **state) {
        const char *const pairs[] = { "device", "auto", NULL };
        const char *const words[] = { "ready on a pretended GPU", NULL };

        (void) state;
        gpu_free_bytes = 8ULL << 30;
        check_well(pairs, words);
}

static void a_gpu_short_of_memory_gets_a_smaller_cache(void **state) {
        const char *const pairs[] = { "device", "cuda:0", "kv-memory", "8G", NULL };
        /* 512 MiB, less 33 of weights and 400 of scratch. */
        const char *const words[] = { "0.08 GiB left for cached context, of 8.00 GiB",
                                      "ready on a pretended GPU", NULL };

        (void) state;
        gpu_free_bytes = 512ULL << 20;
        check_well(pairs, words);
}

static void a_gpu_short_of_memory_is_refused_if_configured(void **state) {
        const char *const pairs[] = { "device",           "cuda:0", "kv-memory", "64M",
                                      "gpu-memory-short", "refuse", NULL };
        struct daemon d;
        char said[4096];

        (void) state;
        gpu_free_bytes = 256ULL << 20;
        n_chunks_max = 2;
        start_daemon(&d, MISHAP_NONE, 0, pairs);
        assert_int_equal(end_daemon(&d, said, sizeof(said)), WARM_EXIT_FAILED);
        assert_non_null(strstr(said, "does not have the 0.06 GiB"));
        n_chunks_max = UINT32_MAX;
        assert_non_null(strstr(said, "gpu-memory-short = shrink"));
}

static void the_whole_cache_is_taken_at_once_if_configured(void **state) {
        const char *const pairs[] = { "device",           "cuda:0", "kv-memory", "64M",
                                      "gpu-memory-short", "refuse", NULL };
        const char *const words[] = { "ready on a pretended GPU", NULL };

        (void) state;
        gpu_free_bytes = 256ULL << 20;
        check_well(pairs, words);
}

static void models_that_no_gpu_takes_go_to_the_cpu(void **state) {
        const char *const automatic[] = { "device", "auto", NULL };
        const char *const words[] = { "do not fit into what is left on the device",
                                      "running on the CPU: no model could be loaded on the GPU",
                                      "ready on the CPU", NULL };
        const char *const fixed[] = { "device", "cuda:0", NULL };
        struct daemon d;
        char said[4096];

        (void) state;
        gpu_free_bytes = 0;
        check_well(automatic, words);
        start_daemon(&d, MISHAP_NONE, 0, fixed);
        assert_int_equal(end_daemon(&d, said, sizeof(said)), WARM_EXIT_FAILED);
        assert_non_null(strstr(said, "use a smaller model"));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(without_a_mishap_it_completes_and_stops_as_asked),
                cmocka_unit_test(a_device_lost_in_the_first_step_is_told_to_all),
                cmocka_unit_test(a_device_lost_while_a_step_runs_is_told_to_all),
                cmocka_unit_test(a_step_that_hangs_is_told_to_all),
                cmocka_unit_test(a_driver_that_does_not_return_is_told_to_all),
                cmocka_unit_test(a_gpu_with_room_is_taken_and_named),
                cmocka_unit_test(a_gpu_short_of_memory_gets_a_smaller_cache),
                cmocka_unit_test(a_gpu_short_of_memory_is_refused_if_configured),
                cmocka_unit_test(the_whole_cache_is_taken_at_once_if_configured),
                cmocka_unit_test(models_that_no_gpu_takes_go_to_the_cpu),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
