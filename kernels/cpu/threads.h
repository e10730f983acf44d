/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of threads that compute one thing together.
 *
 * warm_threads_run() calls one function on every thread, the caller being number 0; inside it the threads meet at
 * barriers and take numbered pieces of work. A wait spins for some tens of microseconds and then sleeps in the
 * kernel, so that the phases of a step cost no system call and an idle process costs no CPU.
 *
 * Owner: the backend. Thread: run() from one thread only; barrier() and take() from inside a run.
 */
#pragma once

#include <stdint.h>

#define WARM_THREADS_MAX 256U

struct warm_threads;

typedef void (*warm_threads_fn)(void *arg, uint32_t index);

/*
 * Start n_threads - 1 workers, all signals blocked in them.
 *
 * @param n_threads 1 to WARM_THREADS_MAX; 0: one for each core this process may use
 * Return: 0; -ENOMEM; -EINVAL: too many; -EAGAIN: a thread could not be started.
 */
int warm_threads_new(uint32_t n_threads, struct warm_threads **ret_threads);

/* Stop and join the workers. Takes NULL, returns NULL. */
struct warm_threads *warm_threads_free(struct warm_threads *t);

/* Return: threads, the caller's included. */
uint32_t warm_threads_count(const struct warm_threads *t);

/* Bytes the pool itself holds (its stacks are the system's). */
uint64_t warm_threads_bytes(const struct warm_threads *t);

/* Call fn(arg, index) on every thread, index 0 in the caller; returns when all have returned. */
void warm_threads_run(struct warm_threads *t, warm_threads_fn fn, void *arg);

/* Wait until every thread of the run is here. What was written before is visible after, in all threads. */
void warm_threads_barrier(struct warm_threads *t, uint32_t index);

/*
 * Take the next n pieces of the work between two barriers.
 * Return: the first piece's number, counted from 0 since the last barrier (or the start of the run).
 */
uint32_t warm_threads_take(struct warm_threads *t, uint32_t n);
