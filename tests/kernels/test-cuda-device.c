/* SPDX-License-Identifier: Apache-2.0 */
/* Which GPU will do, over made-up machines: each sentence names what is wrong and what to do. Needs no GPU. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend.h"
#include "kernels/cuda/device.h"

#define GIB (1ULL << 30)

static struct warm_cuda_device gpu(int index, int capability, uint64_t free_gib) {
        struct warm_cuda_device d = { .index = index,
                                      .capability = capability,
                                      .n_sms = 64,
                                      .memory_total = 80 * GIB,
                                      .memory_free = free_gib * GIB,
                                      .free_known = true };

        strcpy(d.name, capability >= 90 ? "NVIDIA H100" : "Tesla T4");
        strcpy(d.uuid, "GPU-11111111-2222-3333-4444-555555555555");
        return d;
}

static struct warm_cuda_survey machine(uint32_t n, struct warm_cuda_device a,
                                       struct warm_cuda_device b) {
        return (struct warm_cuda_survey){ .runtime_version = 13000,
                                          .driver_version = 13000,
                                          .n_devices = n,
                                          .devices = { a, b } };
}

/* The survey is refused so, with a sentence that holds each of the words. */
static void check_refused(const struct warm_cuda_survey *s, int index, uint64_t needed, int result,
                          const char *const *words) {
        struct warm_cuda_device d;
        char *why = NULL;

        assert_int_equal(warm_cuda_survey_pick(s, index, needed, &d, &why), result);
        assert_non_null(why);
        for (; *words; words++)
                if (!strstr(why, *words))
                        fail_msg("\"%s\" does not say \"%s\"", why, *words);
        free(why);
        assert_int_equal(warm_cuda_survey_pick(s, index, needed, &d, NULL), result);
}

#define REFUSED(s, index, needed, result, ...)                                                     \
        check_refused(s, index, needed, result, (const char *const[]){ __VA_ARGS__, NULL })

static void the_first_gpu_with_room_is_taken(void **state) {
        struct warm_cuda_survey s = machine(2, gpu(0, 90, 1), gpu(1, 90, 40));
        struct warm_cuda_device d;
        char *why = NULL;

        (void) state;
        assert_int_equal(warm_cuda_survey_pick(&s, -1, 2 * GIB, &d, &why), 0);
        assert_int_equal(d.index, 1);
        assert_null(why);
        assert_int_equal(warm_cuda_survey_pick(&s, -1, 1 * GIB, &d, &why), 0);
        assert_int_equal(d.index, 0);
        /* Exactly what is free will do; one byte more will not. */
        assert_int_equal(warm_cuda_survey_pick(&s, 1, 40 * GIB, &d, &why), 0);
        REFUSED(&s, 1, 40 * GIB + 1, WARM_BACKEND_E_MEMORY, "cuda:1 (NVIDIA H100)",
                "40.0 GiB of 80.0 GiB free", "missing");
}

static void a_gpu_that_will_never_do_is_told_from_one_that_is_full(void **state) {
        struct warm_cuda_survey s = machine(2, gpu(0, 75, 40), gpu(1, 90, 1));

        (void) state;
        REFUSED(&s, -1, 2 * GIB, WARM_BACKEND_E_MEMORY, "cuda:0 (Tesla T4)", "7.5", "8.0",
                "--device cpu", "cuda:1", "1.0 GiB are missing");
        REFUSED(&s, 0, 0, -ENODEV, "compute capability 7.5");
}

static void no_driver_and_one_that_is_too_old_are_told(void **state) {
        struct warm_cuda_survey s = machine(1, gpu(0, 90, 40), gpu(1, 90, 40));
        struct warm_cuda_device d;

        (void) state;
        s.driver_version = 0;
        REFUSED(&s, -1, 0, -ENODEV, "no NVIDIA driver", "install it", "--device cpu");
        s.driver_version = 12040;
        REFUSED(&s, 0, 0, -ENODEV, "CUDA 12.4", "13.0", "update the driver");
        /* Within a major version an older driver will do. */
        s.driver_version = 13000;
        s.runtime_version = 13010;
        assert_int_equal(warm_cuda_survey_pick(&s, 0, 0, &d, NULL), 0);
        s.error = 999;
        REFUSED(&s, 0, 0, -ENODEV, "CUDA error 999", "nvidia-smi", "/dev/nvidia-uvm");
}

static void an_absent_index_names_those_that_are_there(void **state) {
        struct warm_cuda_survey s = machine(2, gpu(0, 90, 40), gpu(1, 75, 40));

        (void) state;
        REFUSED(&s, 7, 0, -ENODEV, "there is no cuda:7", "there are cuda:0 (NVIDIA H100), cuda:1");
        s.n_devices = 0;
        REFUSED(&s, 0, 0, -ENODEV, "shows no GPU", "nvidia-smi");
        s.visible = "3";
        REFUSED(&s, -1, 0, -ENODEV, "CUDA_VISIBLE_DEVICES is \"3\"", "unset");
}

static void compute_modes_that_keep_us_out_are_told(void **state) {
        struct warm_cuda_survey s = machine(1, gpu(0, 90, 40), gpu(1, 90, 40));
        struct warm_cuda_device d;

        (void) state;
        s.devices[0].mode = WARM_CUDA_MODE_PROHIBITED;
        REFUSED(&s, 0, 0, -ENODEV, "prohibited", "nvidia-smi -i GPU-11111111", "-c DEFAULT");
        s.devices[0].mode = WARM_CUDA_MODE_EXCLUSIVE;
        assert_int_equal(warm_cuda_survey_pick(&s, 0, 0, &d, NULL), 0); /* nobody has it */
        s.devices[0].n_processes = 1;
        REFUSED(&s, 0, 0, -ENODEV, "exclusive", "another process has it", "-c DEFAULT");
}

static void many_gpus_do_not_overrun_the_sentence(void **state) {
        struct warm_cuda_survey s = { .runtime_version = 13000, .driver_version = 13000 };

        (void) state;
        s.n_devices = WARM_CUDA_DEVICES_MAX;
        for (uint32_t i = 0; i < s.n_devices; i++) {
                s.devices[i] = gpu((int) i, 90, 0);
                memset(s.devices[i].name, 'x', sizeof(s.devices[i].name) - 1);
        }
        REFUSED(&s, 99, 0, -ENODEV, "there is no cuda:99");
        REFUSED(&s, -1, GIB, WARM_BACKEND_E_MEMORY, "cuda:63");
}

static void the_most_room_of_usable_gpus_is_told(void **state) {
        struct warm_cuda_survey s = machine(2, gpu(0, 90, 3), gpu(1, 90, 40));
        uint64_t bytes = 0;
        char *why = NULL;

        (void) state;
        assert_int_equal(warm_cuda_survey_room(&s, -1, &bytes, &why), 0);
        assert_true(bytes == 40 * GIB);
        assert_int_equal(warm_cuda_survey_room(&s, 0, &bytes, &why), 0);
        assert_true(bytes == 3 * GIB);
        s.devices[1].capability = 75;
        assert_int_equal(warm_cuda_survey_room(&s, -1, &bytes, &why), 0);
        assert_true(bytes == 3 * GIB);
        assert_int_equal(warm_cuda_survey_room(&s, 1, &bytes, &why), -ENODEV);
        assert_non_null(strstr(why, "7.5"));
        free(why);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_first_gpu_with_room_is_taken),
                cmocka_unit_test(a_gpu_that_will_never_do_is_told_from_one_that_is_full),
                cmocka_unit_test(no_driver_and_one_that_is_too_old_are_told),
                cmocka_unit_test(an_absent_index_names_those_that_are_there),
                cmocka_unit_test(compute_modes_that_keep_us_out_are_told),
                cmocka_unit_test(the_most_room_of_usable_gpus_is_told),
                cmocka_unit_test(many_gpus_do_not_overrun_the_sentence),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
