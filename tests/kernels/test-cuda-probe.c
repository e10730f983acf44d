/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this machine says of its GPUs. Without a driver: that this is told as a sentence, not as a failure to start.
 * With one: that the answers are plausible, and that looking made no context.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/cuda/device.h"

#define CHECK(x)                                                                                   \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        printf("%d: not so: %s\n", __LINE__, #x);                                  \
                        exit(1);                                                                   \
                }                                                                                  \
        } while (0)

static void check_device(const struct warm_cuda_device *d) {
        int (*state)(int device, unsigned *ret_flags, int *ret_active);
        int active = -1;
        unsigned flags;
        void *function;

        printf("cuda:%d %s, sm_%d, %u SMs, %.1f of %.1f GiB free (%s), %u processes, mode %d, %s\n",
               d->index, d->name, d->capability, d->n_sms, (double) d->memory_free / 0x1p30,
               (double) d->memory_total / 0x1p30, d->free_known ? "NVML" : "not known",
               d->n_processes, (int) d->mode, d->uuid);
        CHECK(d->capability >= 10 && d->n_sms > 0 && strlen(d->uuid) == 40);
        CHECK(d->memory_total > 0 && d->memory_free <= d->memory_total);
        CHECK(warm_cuda_driver_function("cuDevicePrimaryCtxGetState", 7000, &function) == 0);
        memcpy(&state, &function, sizeof(state));
        CHECK(state(d->index, &flags, &active) == 0 && active == 0);
}

int main(void) {
        struct warm_backend_config config = { .device = 250 };
        struct warm_backend *backend = NULL;
        static struct warm_cuda_survey s;
        char *why = NULL;
        void *function;

        CHECK(warm_cuda_backend_new(&config, &backend, &why) == -ENODEV && why && !backend);
        printf("cuda:250: %s\n", why);
        free(why);
        warm_cuda_survey_take(&s);
        printf("built with CUDA %d, driver %d, error %d, %u devices\n", s.runtime_version,
               s.driver_version, s.error, s.n_devices);
        CHECK(s.runtime_version >= 11080);
        CHECK(warm_cuda_driver_function("cuNoSuchFunction", 2000, &function) == -ENOSYS);
        for (uint32_t i = 0; i < s.n_devices; i++)
                check_device(&s.devices[i]);
        if (s.n_devices == 0) {
                puts("skipped: no GPU here; that this is told was tested");
                return 77;
        }
        return 0;
}
