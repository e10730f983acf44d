/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon put together: configuration -> backend -> models -> engine -> server -> loop, and back down again.
 * Thread: main, which becomes the loop.
 */
#pragma once

#include "config.h"

/* Exit statuses of warmd. */
enum {
        WARM_EXIT_OK = 0,
        WARM_EXIT_FAILED = 1,
        WARM_EXIT_USAGE = 2,
        WARM_EXIT_DEVICE_LOST = 70, /* start again: memory that cannot be proven is not reused */
};

/* Run until SIGTERM or SIGINT. Return: WARM_EXIT_*; what went wrong is in the journal. */
int warm_service_run(const struct warm_config *config);

/* --check: read the models as a start would, print one line for each to stdout. Return: WARM_EXIT_*. */
int warm_service_check(const struct warm_config *config);
