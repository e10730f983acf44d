/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that work for somebody else's call: how many are worth it, and how they start. Needs _GNU_SOURCE. Any thread. */
#pragma once

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

/* Cores that this process may run on (CPUAffinity=, taskset): at least 1, and at most `most`. */
static inline uint32_t warm_cores(uint32_t most) {
        cpu_set_t set;
        long n;

        if (sched_getaffinity(0, sizeof(set), &set) == 0)
                n = CPU_COUNT(&set);
        else
                n = sysconf(_SC_NPROCESSORS_ONLN); /* more cores than a cpu_set_t holds */
        if (n < 1)
                n = 1;
        return n < (long) most ? (uint32_t) n : most;
}

/* Start a thread with all signals blocked in it: they are others' to handle. Return: 0; -EAGAIN and the like. */
static inline int warm_thread_start(pthread_t *ret_thread, void *(*run)(void *), void *userdata) {
        sigset_t all, before;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = -pthread_create(ret_thread, NULL, run, userdata);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return r;
}
