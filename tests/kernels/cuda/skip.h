/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/backend.h"

/* The first GPU's backend; where there is none the process says why and ends with 77. */
static inline struct warm_backend *gpu_or_skip(void) {
        struct warm_backend_config config = { .device = -1 };
        struct warm_backend *b = NULL;
        char *why = NULL;
        int r = warm_cuda_backend_new(&config, &b, &why);

        if (r) {
                printf("skipped: %s\n", why ? why : strerror(-r));
                fflush(stdout);
                _exit(77);
        }
        return b;
}
