/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sched/ring.h"

static bool is_readable(const struct warm_ring *r) {
        struct pollfd fd = { .fd = r->fd, .events = POLLIN };

        return poll(&fd, 1, 0) == 1;
}

static void a_full_ring_refuses_one_more_and_keeps_the_order(void **state) {
        struct warm_ring r;
        struct warm_message m;

        (void) state;
        assert_int_equal(warm_ring_init(&r, 8), 0);
        for (uint64_t round = 0; round < 5; round++) {
                for (uint64_t i = 0; i < 8; i++)
                        assert_int_equal(
                                warm_ring_push(&r, (struct warm_message){ .value = round * 8 + i }),
                                0);
                assert_int_equal(warm_ring_push(&r, (struct warm_message){ .value = 99 }),
                                 WARM_RING_E_FULL);
                for (uint64_t i = 0; i < 8; i++) {
                        assert_true(warm_ring_pop(&r, &m));
                        assert_int_equal(m.value, round * 8 + i);
                }
                assert_false(warm_ring_pop(&r, &m));
        }
        warm_ring_deinit(&r);
}

static void the_fd_is_readable_while_messages_wait(void **state) {
        struct warm_ring r;
        struct warm_message m;

        (void) state;
        assert_int_equal(warm_ring_init(&r, 4), 0);
        assert_false(is_readable(&r));
        warm_ring_push(&r, (struct warm_message){ .value = 1 });
        warm_ring_push(&r, (struct warm_message){ .value = 2 });
        assert_true(is_readable(&r));
        assert_true(warm_ring_pop(&r, &m));
        assert_true(is_readable(&r));
        assert_true(warm_ring_pop(&r, &m));
        assert_false(warm_ring_pop(&r, &m));
        assert_false(is_readable(&r));
        warm_ring_wake(&r);
        assert_true(is_readable(&r));
        assert_false(warm_ring_pop(&r, &m));
        assert_false(is_readable(&r));
        warm_ring_deinit(&r);
}

static void a_zeroed_ring_deinits(void **state) {
        struct warm_ring r = { 0 };

        (void) state;
        warm_ring_deinit(&r);
}

#define N_MESSAGES 200000U

static void *produce(void *p) {
        struct warm_ring *r = p;

        for (uint64_t i = 0; i < N_MESSAGES;) {
                struct warm_message m = { .kind = (uint32_t) i, .value = i * i };

                if (warm_ring_push(r, m) == 0)
                        i++;
                else
                        sched_yield();
                if (i % 1000 == 0)
                        sched_yield();
        }
        return NULL;
}

/* A consumer that sleeps on the fd whenever it finds nothing hangs here if one wake-up is lost. */
static void two_threads_lose_neither_messages_nor_wakeups(void **state) {
        struct warm_ring r;
        pthread_t thread;
        uint64_t next = 0;

        (void) state;
        assert_int_equal(warm_ring_init(&r, 16), 0);
        assert_int_equal(pthread_create(&thread, NULL, produce, &r), 0);
        while (next < N_MESSAGES) {
                struct pollfd fd = { .fd = r.fd, .events = POLLIN };
                struct warm_message m;

                assert_int_equal(poll(&fd, 1, 5000), 1);
                /* Sometimes only one, sometimes all: both ways must leave the fd right. */
                while (warm_ring_pop(&r, &m)) {
                        assert_int_equal(m.kind, next);
                        assert_int_equal(m.value, next * next);
                        next++;
                        if (next % 7 == 0)
                                break;
                }
        }
        pthread_join(thread, NULL);
        warm_ring_deinit(&r);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_full_ring_refuses_one_more_and_keeps_the_order),
                cmocka_unit_test(the_fd_is_readable_while_messages_wait),
                cmocka_unit_test(a_zeroed_ring_deinits),
                cmocka_unit_test(two_threads_lose_neither_messages_nor_wakeups),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
