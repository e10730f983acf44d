/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The n-th allocation, map, memfd or thread fails, n = 1, 2, ... until all goes well: an error each time, nothing
 * leaked (under the sanitizer), and what stood before stands.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "kernels/backend.h"
#include "tiny.h"

static int countdown = -1; /* calls that still succeed; below 0: all */

static int fails(void) {
        if (countdown < 0)
                return 0;
        if (countdown > 0) {
                countdown--;
                return 0;
        }
        errno = ENOMEM;
        return 1;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_aligned_alloc(size_t align, size_t n);
void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
void *__real_mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int __real_memfd_create(const char *name, unsigned int flags);
int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t n);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
void *__wrap_mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int __wrap_memfd_create(const char *name, unsigned int flags);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);

void *__wrap_malloc(size_t n) {
        return fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size) {
        return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_aligned_alloc(size_t align, size_t n) {
        return fails() ? NULL : __real_aligned_alloc(align, n);
}

void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
        return fails() ? MAP_FAILED : __real_mmap(at, n, protection, flags, fd, offset);
}

void *__wrap_mmap64(void *at, size_t n, int protection, int flags, int fd, off_t offset) {
        return fails() ? MAP_FAILED : __real_mmap64(at, n, protection, flags, fd, offset);
}

int __wrap_memfd_create(const char *name, unsigned int flags) {
        return fails() ? -1 : __real_memfd_create(name, flags);
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg) {
        return fails() ? EAGAIN : __real_pthread_create(t, a, f, arg);
}

static void a_backend_is_made_whole_or_not_at_all(void **state) {
        struct warm_backend_config config = { .n_threads = 3 };
        struct warm_backend *b = NULL;
        int r = -1;

        (void) state;
        for (int n = 0; r; n++) {
                countdown = n;
                r = warm_cpu_backend_new(&config, &b);
                countdown = -1;
                if (r) {
                        assert_true(r == -ENOMEM || r == -EAGAIN);
                        assert_null(b);
                        assert_true(n < 10);
                } else {
                        assert_true(n >= 4); /* the struct, the pool, two threads */
                }
        }
        warm_backend_free(b);
}

static void weights_and_kv_are_made_whole_or_not_at_all(void **state) {
        struct warm_backend_config config = { .n_threads = 2 };
        struct warm_kv_config kv = { .type = WARM_TYPE_F16, .n_blocks_max = { 64, 64 } };
        struct warm_backend_info before, after;
        struct tiny *t = tiny_new(&tiny_shapes[0], 3);
        struct warm_weights *w = NULL;
        struct warm_kv_info info;
        struct warm_backend *b;
        int r = -1, n_failed = 0;

        (void) state;
        assert_int_equal(warm_cpu_backend_new(&config, &b), 0);
        warm_backend_info(b, &before);
        for (int n = 0; r; n++) {
                countdown = n;
                r = warm_backend_load(b, &t->plan, &w, NULL);
                countdown = -1;
                if (!r)
                        break;
                assert_true(r == -ENOMEM || r == WARM_BACKEND_E_MEMORY);
                assert_null(w);
                warm_backend_info(b, &after);
                assert_true(before.scratch_bytes == after.scratch_bytes);
                n_failed++;
        }
        assert_true(n_failed > 10);
        r = -1;
        for (int n = 0; r; n++) {
                countdown = n;
                r = warm_kv_init(b, w, &kv, &info);
                countdown = -1;
                assert_true(r == 0 || r == -ENOMEM);
        }
        r = -1;
        for (int n = 0; r; n++) {
                countdown = n;
                r = warm_kv_add(b, w, 0, 1);
                countdown = -1;
                assert_true(r == 0 || r == WARM_BACKEND_E_MEMORY);
                assert_true(n < 5);
        }
        assert_int_equal(warm_kv_remove(b, w, 0, 1), 0);
        warm_weights_free(b, w);
        warm_backend_info(b, &after);
        assert_true(before.scratch_bytes == after.scratch_bytes);
        warm_backend_free(b);
        tiny_free(t);
}

static void a_measurement_fails_whole(void **state) {
        struct warm_backend_config config = { .n_threads = 2 };
        double copy = -1, flop = -1;
        struct warm_backend *b;
        int r = -1, n_failed = 0;

        (void) state;
        assert_int_equal(warm_cpu_backend_new(&config, &b), 0);
        for (int n = 0; r; n++) {
                countdown = n;
                r = warm_backend_measure(b, &copy, &flop);
                countdown = -1;
                if (!r)
                        break;
                assert_true(r == -ENOMEM || r == WARM_BACKEND_E_MEMORY);
                assert_true(copy == -1 && flop == -1);
                n_failed++;
        }
        assert_true(n_failed > 4);
        warm_backend_free(b);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_backend_is_made_whole_or_not_at_all),
                cmocka_unit_test(weights_and_kv_are_made_whole_or_not_at_all),
                cmocka_unit_test(a_measurement_fails_whole),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
