/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor says of made-up machines: each line says what to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/warmctl/gpu.h"

/* What was told. */
static struct {
        char keys[32][24], texts[32][512];
        enum verdict verdicts[32];
        unsigned n;
} told;

void warmctl_doctor_tell(struct doctor *d, enum verdict v, const char *key, const char *format,
                         ...) {
        va_list ap;

        (void) d;
        assert_true(told.n < 32);
        for (unsigned i = 0; i < told.n; i++)
                assert_string_not_equal(told.keys[i], key);
        va_start(ap, format);
        assert_true(vsnprintf(told.texts[told.n], 512, format, ap) < 512);
        va_end(ap);
        strcpy(told.keys[told.n], key);
        told.verdicts[told.n++] = v;
}

static void check(const char *key, enum verdict v, const char *words) {
        for (unsigned i = 0; i < told.n; i++)
                if (strcmp(told.keys[i], key) == 0) {
                        if (told.verdicts[i] != v || !strstr(told.texts[i], words))
                                fail_msg("%s: %d, \"%s\"", key, (int) told.verdicts[i],
                                         told.texts[i]);
                        return;
                }
        fail_msg("nothing was said of %s", key);
}

static bool judge(const struct warmctl_gpus *gpus, const char *built) {
        struct doctor d = {};

        told.n = 0;
        return warmctl_gpus_judge(&d, gpus, built);
}

/* A machine at which nothing is wrong. */
static struct warmctl_gpus machine(void) {
        struct warmctl_gpus s = { .on_bus = true,
                                  .module = "580.65.06",
                                  .uvm_there = true,
                                  .uvm_usable = true,
                                  .driver = "580.65.06",
                                  .cuda_version = 13000,
                                  .n = 1 };

        s.each[0] = (struct warmctl_gpu){ .name = "NVIDIA RTX 4090",
                                          .uuid = "GPU-1",
                                          .capability = 89,
                                          .memory_total = 24ULL << 30,
                                          .memory_free = 23ULL << 30,
                                          .persistence = true,
                                          .sm_mhz = 210,
                                          .sm_mhz_max = 3105,
                                          .memory_mhz = 405,
                                          .memory_mhz_max = 10501 };
        return s;
}

static void a_machine_without_a_gpu_is_well(void **state) {
        const struct warmctl_gpus none = { .nvml = -1 };

        (void) state;
        assert_false(judge(&none, "13.0"));
        check("gpu", GOOD, "no NVIDIA GPU");
        assert_int_equal(told.n, 1);
}

static void a_machine_in_order_is_told_to_be(void **state) {
        struct warmctl_gpus s = machine();

        (void) state;
        assert_true(judge(&s, "13.0"));
        for (unsigned i = 0; i < told.n; i++)
                assert_int_equal(told.verdicts[i], GOOD);
        assert_int_equal(told.n, 7);
}

static void a_driver_that_is_not_in_order_is_told(void **state) {
        struct warmctl_gpus s = machine();

        (void) state;
        s.n = 0;
        s.nvml = -1;
        assert_false(judge(&s, "13.0"));
        check("driver", ADVICE, "libnvidia-ml.so.1");
        s.nvml = 18;
        assert_false(judge(&s, "13.0"));
        check("driver", BAD, "restart the machine");
        s.nvml = 4;
        assert_false(judge(&s, "13.0"));
        check("driver", BAD, "permissions");
        s.nvml = 999;
        assert_false(judge(&s, "13.0"));
        check("driver", BAD, "NVML error 999");
        s.module[0] = '\0';
        s.nvml = 9;
        assert_false(judge(&s, "13.0"));
        check("driver", ADVICE, "modprobe nvidia");
        s = machine();
        s.n = 0;
        assert_false(judge(&s, "13.0"));
        check("gpu", BAD, "nvidia-smi -L");
}

static void what_keeps_a_gpu_from_being_used_is_told(void **state) {
        struct warmctl_gpus s = machine();

        (void) state;
        assert_false(judge(&s, NULL));
        check("toolkit", ADVICE, "without CUDA");
        assert_false(judge(&s, "14.1"));
        check("toolkit", BAD, "CUDA Toolkit 13");
        s.uvm_usable = false;
        assert_false(judge(&s, "13.0"));
        check("uvm", BAD, "permissions");
        s.uvm_there = false;
        assert_false(judge(&s, "13.0"));
        check("uvm", BAD, "nvidia-modprobe -u -c 0");
        s = machine();
        s.each[0].mode = WARMCTL_MODE_PROHIBITED;
        assert_false(judge(&s, "13.0"));
        check("mode0", BAD, "nvidia-smi -i GPU-1 -c DEFAULT");
        s.each[0].mode = WARMCTL_MODE_EXCLUSIVE;
        s.each[0].n_processes = 1;
        assert_true(judge(&s, "13.0")); /* that one may be warmd */
        check("mode0", ADVICE, "a process has it");
        s.each[0].capability = 75;
        assert_false(judge(&s, "13.0"));
        check("gpu0", ADVICE, "7.5");
}

static void what_slows_a_gpu_is_told(void **state) {
        struct warmctl_gpus s = machine();

        (void) state;
        s.each[0].memory_free = 1ULL << 30;
        s.each[0].persistence = false;
        s.each[0].slow = WARMCTL_SLOW_BY_HEAT;
        assert_true(judge(&s, "13.0"));
        check("vram0", ADVICE, "1.0 GiB of 24.0 GiB");
        check("persist0", ADVICE, "nvidia-persistenced");
        check("clocks0", ADVICE, "cooling");
        s.each[0].slow = WARMCTL_SLOW_BY_POWER;
        assert_true(judge(&s, "13.0"));
        check("clocks0", ADVICE, "PERFORMANCE");
        s.each[0].slow = WARMCTL_SLOW_BY_SETTING;
        assert_true(judge(&s, "13.0"));
        check("clocks0", ADVICE, "-rac");
        s.each[0].slow = 1; /* idle */
        s.each[0].sm_mhz_max = 0;
        assert_true(judge(&s, "13.0"));
        check("clocks0", GOOD, "does not tell");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_machine_without_a_gpu_is_well),
                cmocka_unit_test(a_machine_in_order_is_told_to_be),
                cmocka_unit_test(a_driver_that_is_not_in_order_is_told),
                cmocka_unit_test(what_keeps_a_gpu_from_being_used_is_told),
                cmocka_unit_test(what_slows_a_gpu_is_told),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
