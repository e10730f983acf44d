/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/cpu/threads.h"

#define N_PHASES 2000U
#define N_PIECES 37U

struct work {
        struct warm_threads *threads;
        uint32_t n;
        uint64_t sums[4]; /* of each phase % 4, read by all in the next */
        _Atomic uint32_t done[N_PIECES];
        _Atomic uint32_t wrong;
        sigset_t mask[WARM_THREADS_MAX];
        char names[8][16];
};

static void phases(void *arg, uint32_t index) {
        struct work *w = arg;

        for (uint32_t phase = 0; phase < N_PHASES; phase++) {
                for (uint32_t i; (i = warm_threads_take(w->threads, 1)) < N_PIECES;)
                        atomic_fetch_add(&w->done[i], 1);
                warm_threads_barrier(w->threads, index);
                if (index == phase % w->n) /* not atomic: the barriers order it */
                        w->sums[phase % 4]++;
                for (uint32_t i = 0; i < N_PIECES; i++)
                        if (atomic_load(&w->done[i]) != phase + 1)
                                atomic_fetch_add(&w->wrong, 1);
                warm_threads_barrier(w->threads, index);
        }
}

static void every_piece_is_taken_once_between_two_barriers(void **state) {
        (void) state;
        for (uint32_t n = 1; n <= 5; n++) {
                struct work w = { .n = n };

                assert_int_equal(warm_threads_new(n, &w.threads), 0);
                assert_int_equal(warm_threads_count(w.threads), n);
                for (uint32_t run = 0; run < 2; run++) {
                        memset(w.done, 0, sizeof(w.done));
                        warm_threads_run(w.threads, phases, &w);
                }
                assert_int_equal(w.wrong, 0);
                assert_int_equal(w.sums[0] + w.sums[1] + w.sums[2] + w.sums[3], 2 * N_PHASES);
                w.threads = warm_threads_free(w.threads);
                assert_null(w.threads);
        }
}

static void look(void *arg, uint32_t index) {
        struct work *w = arg;

        pthread_sigmask(SIG_SETMASK, NULL, &w->mask[index]);
        pthread_getname_np(pthread_self(), w->names[index], sizeof(w->names[index]));
}

static void workers_have_names_and_take_no_signals(void **state) {
        struct work w = { 0 };

        (void) state;
        assert_int_equal(warm_threads_new(3, &w.threads), 0);
        warm_threads_run(w.threads, look, &w);
        assert_int_equal(sigismember(&w.mask[0], SIGTERM), 0);
        for (uint32_t i = 1; i < 3; i++) {
                char name[16];

                snprintf(name, sizeof(name), "warm-cpu-%u", i);
                assert_string_equal(w.names[i], name);
                assert_int_equal(sigismember(&w.mask[i], SIGTERM), 1);
                assert_int_equal(sigismember(&w.mask[i], SIGUSR1), 1);
        }
        warm_threads_free(w.threads);
}

static double processor(void) {
        struct timespec t;

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

/* After its last run a pool spins for well under a millisecond; a tenth of the time would be a loop. */
static void an_idle_pool_costs_no_processor_time(void **state) {
        struct work w = { 0 };
        double before;

        (void) state;
        assert_int_equal(warm_threads_new(4, &w.threads), 0);
        warm_threads_run(w.threads, look, &w);
        before = processor();
        usleep(300000);
        assert_true(processor() - before < 0.03);
        warm_threads_free(w.threads);
}

static void a_pool_has_a_limit(void **state) {
        struct warm_threads *t = NULL;

        (void) state;
        assert_int_equal(warm_threads_new(WARM_THREADS_MAX + 1, &t), -EINVAL);
        assert_null(t);
        assert_int_equal(warm_threads_new(0, &t), 0);
        assert_true(warm_threads_count(t) >= 1);
        assert_true(warm_threads_bytes(t) > 0);
        warm_threads_free(t);
        assert_null(warm_threads_free(NULL));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_piece_is_taken_once_between_two_barriers),
                cmocka_unit_test(workers_have_names_and_take_no_signals),
                cmocka_unit_test(an_idle_pool_costs_no_processor_time),
                cmocka_unit_test(a_pool_has_a_limit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
