/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: two epochs that only grow, one for runs and one for barriers, each with a count of sleepers.
 *
 * Whoever waits remembers the epoch it waits to see pass. The last thread to arrive resets the count of arrivals
 * and the work counter, and only then advances the epoch, so neither is touched by two phases at once. Sleepers
 * announce themselves before they look at the epoch a last time (both sequentially consistent), so the advancing
 * thread either sees the sleeper or the sleeper sees the advance.
 *
 * How long a thread spins adapts: a wait that ended in sleep halves the thread's budget, a wait that did not lets
 * it grow by an eighth. With more runnable threads than cores the partner is not running while we spin, and the
 * budget shrinks to its floor by itself.
 */
#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernels/thread.h"
#include "threads.h"

#define CACHE_LINE      64
#define SPIN_MAX_NS     60000U /* untuned guess: longer than a phase of a small model's step */
#define SPIN_MIN_NS     1000U
#define CALIBRATE_LOOPS 2000U

struct epoch {
        _Alignas(CACHE_LINE) _Atomic uint32_t value; /* the futex word */
        _Atomic uint32_t n_sleepers;
};

struct worker {
        _Alignas(CACHE_LINE) struct warm_threads *threads;
        pthread_t thread;
        uint32_t index;
        uint32_t spin; /* loops this thread spins before it sleeps; its own */
};

struct warm_threads {
        struct epoch start;
        struct epoch barrier;
        _Alignas(CACHE_LINE) _Atomic uint32_t n_arrived;
        _Alignas(CACHE_LINE) _Atomic uint32_t taken;
        _Alignas(CACHE_LINE) uint32_t n_threads;
        uint32_t spin_max, spin_min;
        warm_threads_fn fn; /* NULL at the start of a run: end the thread */
        void *arg;
        struct worker workers[];
};

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
        (void) syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word) {
        (void) syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, WARM_THREADS_MAX, NULL, NULL, 0);
}

static void epoch_advance(struct epoch *e) {
        atomic_fetch_add(&e->value, 1);
        if (atomic_load(&e->n_sleepers) > 0)
                futex_wake_all(&e->value);
}

/* Wait until the epoch is no longer `seen`; spin first. */
static void epoch_wait(struct warm_threads *t, struct epoch *e, uint32_t seen,
                       struct worker *self) {
        for (uint32_t i = 0; i < self->spin; i++) {
                if (atomic_load_explicit(&e->value, memory_order_acquire) != seen) {
                        self->spin += self->spin / 8 + 1;
                        if (self->spin > t->spin_max)
                                self->spin = t->spin_max;
                        return;
                }
                relax();
        }
        self->spin /= 2;
        if (self->spin < t->spin_min)
                self->spin = t->spin_min;

        atomic_fetch_add(&e->n_sleepers, 1);
        while (atomic_load(&e->value) == seen)
                futex_wait(&e->value, seen);
        atomic_fetch_sub(&e->n_sleepers, 1);
}

void warm_threads_barrier(struct warm_threads *t, uint32_t index) {
        uint32_t seen;

        if (t->n_threads == 1) {
                atomic_store_explicit(&t->taken, 0, memory_order_relaxed);
                return;
        }
        seen = atomic_load_explicit(&t->barrier.value, memory_order_relaxed);
        if (atomic_fetch_add_explicit(&t->n_arrived, 1, memory_order_acq_rel) + 1 == t->n_threads) {
                atomic_store_explicit(&t->n_arrived, 0, memory_order_relaxed);
                atomic_store_explicit(&t->taken, 0, memory_order_relaxed);
                epoch_advance(&t->barrier);
                return;
        }
        epoch_wait(t, &t->barrier, seen, &t->workers[index]);
}

uint32_t warm_threads_take(struct warm_threads *t, uint32_t n) {
        return atomic_fetch_add_explicit(&t->taken, n, memory_order_relaxed);
}

uint32_t warm_threads_count(const struct warm_threads *t) {
        return t->n_threads;
}

uint64_t warm_threads_bytes(const struct warm_threads *t) {
        return sizeof(*t) + t->n_threads * sizeof(struct worker);
}

static void *worker_main(void *arg) {
        struct worker *self = arg;
        struct warm_threads *t = self->threads;

        for (uint32_t seen = 0;; seen++) {
                epoch_wait(t, &t->start, seen, self);
                if (!t->fn)
                        return NULL;
                t->fn(t->arg, self->index);
                warm_threads_barrier(t, self->index);
        }
}

void warm_threads_run(struct warm_threads *t, warm_threads_fn fn, void *arg) {
        t->fn = fn;
        t->arg = arg;
        atomic_store_explicit(&t->taken, 0, memory_order_relaxed);
        if (t->n_threads > 1)
                epoch_advance(&t->start);
        fn(arg, 0);
        warm_threads_barrier(t, 0);
}

static uint64_t now_ns(void) {
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t) ts.tv_sec * 1000000000U + (uint64_t) ts.tv_nsec;
}

/* How many turns of the spin loop fit the budgets: the length of `pause` differs tenfold between processors. */
static void calibrate(struct warm_threads *t) {
        uint64_t best = UINT64_MAX;

        for (uint32_t i = 0; i < 3; i++) {
                uint64_t begin = now_ns(), took;

                for (uint32_t j = 0; j < CALIBRATE_LOOPS; j++) {
                        (void) atomic_load_explicit(&t->start.value, memory_order_acquire);
                        relax();
                }
                took = now_ns() - begin;
                if (took < best)
                        best = took;
        }
        best = best ? best : 1;
        t->spin_max = (uint32_t) ((uint64_t) SPIN_MAX_NS * CALIBRATE_LOOPS / best + 1);
        t->spin_min = (uint32_t) ((uint64_t) SPIN_MIN_NS * CALIBRATE_LOOPS / best + 1);
}

static int start_worker(struct worker *w) {
        char name[16];

        if (warm_thread_start(&w->thread, worker_main, w) < 0)
                return -EAGAIN;
        snprintf(name, sizeof(name), "warm-cpu-%u", w->index);
        pthread_setname_np(w->thread, name);
        return 0;
}

int warm_threads_new(uint32_t n_threads, struct warm_threads **ret_threads) {
        struct warm_threads *t;
        uint32_t n = n_threads;
        size_t bytes;

        if (n == 0)
                n = warm_cores(WARM_THREADS_MAX);
        if (n > WARM_THREADS_MAX)
                return -EINVAL;
        bytes = sizeof(*t) + n * sizeof(struct worker);
        t = aligned_alloc(CACHE_LINE, (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
        if (!t)
                return -ENOMEM;
        *t = (struct warm_threads){ .n_threads = n };
        calibrate(t);
        for (uint32_t i = 0; i < n; i++)
                t->workers[i] = (struct worker){
                        .threads = t,
                        .index = i,
                        .spin = t->spin_max,
                };
        for (uint32_t i = 1; i < n; i++) {
                if (start_worker(&t->workers[i]) < 0) {
                        t->n_threads = i; /* those that run */
                        warm_threads_free(t);
                        return -EAGAIN;
                }
        }
        *ret_threads = t;
        return 0;
}

struct warm_threads *warm_threads_free(struct warm_threads *t) {
        if (!t)
                return NULL;
        t->fn = NULL;
        epoch_advance(&t->start);
        for (uint32_t i = 1; i < t->n_threads; i++) {
                int r = pthread_join(t->workers[i].thread, NULL);

                assert(r == 0);
        }
        free(t);
        return NULL;
}
