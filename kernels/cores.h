/* SPDX-License-Identifier: Apache-2.0 */
/* How many threads are worth starting. */
#pragma once

#include <sched.h>
#include <stdint.h>
#include <unistd.h>

/* Cores that this process may run on (CPUAffinity=, taskset), at least 1. Needs _GNU_SOURCE. Any thread. */
static inline uint32_t warm_cores(void) {
        cpu_set_t set;
        long n;

        if (sched_getaffinity(0, sizeof(set), &set) == 0)
                return (uint32_t) CPU_COUNT(&set);
        n = sysconf(_SC_NPROCESSORS_ONLN); /* more cores than a cpu_set_t holds */
        return n > 0 ? (uint32_t) n : 1;
}
