/* SPDX-License-Identifier: Apache-2.0 */
/* Which device is taken, over made-up ones: what is asked of them, when is waited, and what is fallen back to. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys/device.h"

#define GIB (1ULL << 30)

/* The made-up machine. */
static struct {
        int answer;       /* of the first n_answers looks at the GPU; then it is there */
        unsigned n_until; /* UINT_MAX: it never is */
        unsigned n_asked, n_cpu;
        struct warm_backend_config asked;
        uint64_t free_bytes;
} machine;

static struct warm_backend cpu, gpu;

static int make_cpu(const struct warm_backend_config *config, struct warm_backend **ret_backend) {
        (void) config;
        machine.n_cpu++;
        *ret_backend = &cpu;
        return 0;
}

static int make_gpu(const struct warm_backend_config *config, struct warm_backend **ret_backend,
                    char **ret_why) {
        machine.asked = *config;
        if (machine.n_asked++ < machine.n_until) {
                *ret_why = strdup("the reason");
                return machine.answer;
        }
        *ret_backend = &gpu;
        return 0;
}

static int room(int device, uint64_t *ret_free_bytes, char **ret_why) {
        (void) device;
        if (machine.answer == -ENODEV) {
                if (ret_why)
                        *ret_why = strdup("the reason");
                return -ENODEV;
        }
        *ret_free_bytes = machine.free_bytes;
        return 0;
}

static const struct warm_device_makers makers = {
        .cpu = make_cpu, .cuda = make_gpu, .cuda_room = room, .wait_ns = 1000000
};
static const struct warm_device_makers without = { .cpu = make_cpu };

static const struct warm_device_need need = { .weights_bytes = 4 * GIB,
                                              .n_parameters = 2000000000,
                                              .kv_floor_bytes = GIB,
                                              .n_context = 32768 };

/* Open on a machine whose GPU says `answer` until it was asked n_until times. */
static int open_with(const struct warm_device_makers *m, const struct warm_config *config,
                     int answer, unsigned n_until, struct warm_backend **ret_backend) {
        bool on_gpu = false;
        int r;

        memset(&machine, 0, sizeof(machine));
        machine.answer = answer;
        machine.n_until = n_until;
        *ret_backend = NULL;
        r = warm_device_open(m, config, &need, ret_backend, &on_gpu);
        assert_int_equal(on_gpu, *ret_backend == &gpu);
        return r;
}

static struct warm_config config_of(const char *device) {
        struct warm_config c;

        warm_config_init(&c);
        assert_int_equal(warm_config_set(&c, "warmd", "device", device, NULL), 0);
        return c;
}

static void the_cpu_is_taken_without_a_look_at_gpus(void **state) {
        struct warm_config c = config_of("cpu");
        struct warm_backend *b;

        (void) state;
        assert_int_equal(open_with(&makers, &c, 0, 0, &b), 0);
        assert_ptr_equal(b, &cpu);
        assert_int_equal(machine.n_asked, 0);
}

static void auto_takes_a_gpu_with_room_and_falls_back_without(void **state) {
        struct warm_config c = config_of("auto");
        struct warm_backend *b;

        (void) state;
        assert_int_equal(open_with(&makers, &c, 0, 0, &b), 0);
        assert_ptr_equal(b, &gpu);
        assert_int_equal(machine.asked.device, -1);
        assert_true(machine.asked.needed_bytes == 5 * GIB + WARM_DEVICE_MARGIN_BYTES);
        assert_int_equal(open_with(&makers, &c, -ENODEV, UINT32_MAX, &b), 0);
        assert_ptr_equal(b, &cpu);
        assert_int_equal(open_with(&makers, &c, WARM_BACKEND_E_MEMORY, UINT32_MAX, &b), 0);
        assert_ptr_equal(b, &cpu);
        assert_int_equal(machine.n_asked, 1); /* by default nobody waits */
        assert_int_equal(open_with(&without, &c, 0, 0, &b), 0);
        assert_ptr_equal(b, &cpu);
}

static void a_gpu_that_was_asked_for_is_taken_or_nothing(void **state) {
        struct warm_config c = config_of("cuda:3");
        struct warm_backend *b;

        (void) state;
        assert_int_equal(open_with(&makers, &c, 0, 0, &b), 0);
        assert_ptr_equal(b, &gpu);
        assert_int_equal(machine.asked.device, 3);
        assert_int_equal(open_with(&makers, &c, -ENODEV, UINT32_MAX, &b), -ENODEV);
        assert_int_equal(open_with(&makers, &c, WARM_BACKEND_E_MEMORY, UINT32_MAX, &b), -ENODEV);
        assert_int_equal(open_with(&makers, &c, -ENOMEM, UINT32_MAX, &b), -ENOMEM);
        assert_int_equal(open_with(&without, &c, 0, 0, &b), -ENODEV);
        assert_null(b);
        assert_int_equal(machine.n_cpu, 0);
}

static void context_as_f32_keeps_a_gpu_from_being_asked(void **state) {
        struct warm_config c = config_of("auto");
        struct warm_backend *b;

        (void) state;
        assert_int_equal(warm_config_set(&c, "warmd", "kv-type", "f32", NULL), 0);
        assert_int_equal(open_with(&makers, &c, 0, 0, &b), 0);
        assert_ptr_equal(b, &cpu);
        c = config_of("cuda:0");
        assert_int_equal(warm_config_set(&c, "warmd", "kv-type", "f32", NULL), 0);
        assert_int_equal(open_with(&makers, &c, 0, 0, &b), -ENODEV);
        assert_null(b);
        assert_int_equal(machine.n_asked, 0);
}

static void memory_is_waited_for_as_long_as_configured(void **state) {
        struct warm_config c = config_of("cuda:0");
        struct warm_backend *b;

        (void) state;
        c.gpu_memory_wait_s = 1;
        assert_int_equal(open_with(&makers, &c, WARM_BACKEND_E_MEMORY, 20, &b), 0);
        assert_ptr_equal(b, &gpu);
        assert_int_equal(machine.n_asked, 21);
        /* What will never do is not waited for. */
        assert_int_equal(open_with(&makers, &c, -ENODEV, UINT32_MAX, &b), -ENODEV);
        assert_int_equal(machine.n_asked, 1);
        assert_int_equal(open_with(&makers, &c, WARM_BACKEND_E_MEMORY, UINT32_MAX, &b), -ENODEV);
        assert_int_equal(machine.n_asked, 1001);
        c.device = WARM_DEVICE_AUTO;
        assert_int_equal(open_with(&makers, &c, WARM_BACKEND_E_MEMORY, UINT32_MAX, &b), 0);
        assert_ptr_equal(b, &cpu);
}

static void waiting_ends_when_asked_to_stop(void **state) {
        struct warm_config c = config_of("auto");
        struct warm_backend *b;
        sigset_t signals, before;

        (void) state;
        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        assert_int_equal(pthread_sigmask(SIG_BLOCK, &signals, &before), 0);
        kill(getpid(), SIGTERM);
        c.gpu_memory_wait_s = 3600;
        assert_int_equal(open_with(&makers, &c, WARM_BACKEND_E_MEMORY, UINT32_MAX, &b), -EINTR);
        assert_null(b);
        assert_int_equal(machine.n_asked, 1);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void what_is_needed_follows_from_models_and_configuration(void **state) {
        struct warm_plan_layer layers[2] = {
                { .mixer = WARM_MIXER_ATTENTION,
                  .n_kv_heads = 2,
                  .head_dim_k = 64,
                  .head_dim_v = 64,
                  .kv_source = -1 },
        };
        struct warm_model m = { .file_bytes = 1000, .n_parameters = 900 };
        struct warm_config c = config_of("auto");
        struct warm_device_need n = {};

        (void) state;
        layers[1] = layers[0];
        m.plan.layers = layers;
        m.plan.n_layers = 2;
        m.plan.n_groups = 1;
        m.plan.n_context = 1000;
        warm_device_need_add(&n, &m, &c);
        c.n_context = 64;
        warm_device_need_add(&n, &m, &c);
        /* 32 tokens of 2 layers in F16; 1,000 tokens are 32 blocks, and one is copied. */
        assert_true(n.kv_floor_bytes == (33 + 3) * 32ULL * 2 * 2 * 128 * 2);
        assert_true(n.weights_bytes == 2000 && n.n_parameters == 1800 && n.n_context == 1000);
        n = need;
        assert_true(warm_device_need_bytes(&n, &c) == 5 * GIB + WARM_DEVICE_MARGIN_BYTES);
        n.kv_wanted_bytes = 3 * GIB; /* may shrink to one context */
        assert_true(warm_device_need_bytes(&n, &c) == 5 * GIB + WARM_DEVICE_MARGIN_BYTES);
        c.gpu_memory_short = WARM_MEMORY_REFUSE;
        assert_true(warm_device_need_bytes(&n, &c) == 7 * GIB + WARM_DEVICE_MARGIN_BYTES);
        n.kv_wanted_bytes = 1; /* less than a context, by configuration */
        assert_true(warm_device_need_bytes(&n, &c) == 4 * GIB + 1 + WARM_DEVICE_MARGIN_BYTES);
}

static void check_advice(uint64_t free_bytes, const char *words) {
        char *advice = warm_device_advise(&need, free_bytes);

        assert_non_null(advice);
        if (!strstr(advice, words))
                fail_msg("\"%s\" does not say \"%s\"", advice, words);
        free(advice);
}

static void what_would_fit_is_said(void **state) {
        (void) state;
        /* Half of a context's GiB is left: 16,384 tokens. */
        check_advice(4 * GIB + GIB / 2 + WARM_DEVICE_MARGIN_BYTES, "--context 16384 would fit");
        /* 2 G parameters: Q8_0 takes 1.98 GiB, Q4_K_M 1.14. */
        check_advice(4 * GIB, "Q8_0, with about 2.0 GiB of weights");
        check_advice(3 * GIB, "Q4_K_M, with about 1.1 GiB");
        check_advice(2 * GIB, "smaller model");
        check_advice(0, "smaller model");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_cpu_is_taken_without_a_look_at_gpus),
                cmocka_unit_test(auto_takes_a_gpu_with_room_and_falls_back_without),
                cmocka_unit_test(a_gpu_that_was_asked_for_is_taken_or_nothing),
                cmocka_unit_test(context_as_f32_keeps_a_gpu_from_being_asked),
                cmocka_unit_test(memory_is_waited_for_as_long_as_configured),
                cmocka_unit_test(waiting_ends_when_asked_to_stop),
                cmocka_unit_test(what_is_needed_follows_from_models_and_configuration),
                cmocka_unit_test(what_would_fit_is_said),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
