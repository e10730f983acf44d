/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/memfd.h"
#include "shm/range.h"

static void a_state_memfd_keeps_its_size_and_stays_writable(void **state) {
        void *map, *again;
        int fd;

        (void) state;
        assert_int_equal(warm_memfd_new("t", 4096, WARM_MEMFD_SEALS_STATE, &fd, &map), 0);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(ftruncate(fd, 8192), -1);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(
                warm_memfd_map(fd, WARM_MEMFD_SEALS_STATE, 4096, PROT_READ | PROT_WRITE, &again),
                0);
        memcpy(map, "warm", 5);
        assert_string_equal(again, "warm");
        munmap(map, 4096);
        munmap(again, 4096);
        close(fd);
}

static void a_board_cannot_be_mapped_for_writing_by_whoever_receives_it(void **state) {
        char path[64];
        void *map, *again;
        int fd, other;

        (void) state;
        assert_int_equal(warm_memfd_new("t", 4096, WARM_MEMFD_SEALS_BOARD, &fd, &map), 0);
        assert_int_equal(
                warm_memfd_map(fd, WARM_MEMFD_SEALS_BOARD, 4096, PROT_READ | PROT_WRITE, &again),
                -EPERM);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        other = open(path, O_RDWR | O_CLOEXEC);
        if (other >= 0) {
                assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, other, 0), MAP_FAILED);
                assert_int_equal(write(other, "x", 1), -1);
                close(other);
        }
        assert_int_equal(warm_memfd_map(fd, WARM_MEMFD_SEALS_BOARD, 4096, PROT_READ, &again), 0);
        memcpy(map, "warm", 5); /* the mapping made before the seal still writes */
        assert_string_equal(again, "warm");
        munmap(map, 4096);
        munmap(again, 4096);
        close(fd);
}

static void what_lacks_a_seal_or_has_another_size_is_not_mapped(void **state) {
        void *map, *again;
        int fd;

        (void) state;
        fd = memfd_create("t", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(ftruncate(fd, 4096), 0);
        assert_int_equal(warm_memfd_check(fd, WARM_MEMFD_SEALS_STATE, 4096), WARM_MEMFD_E_SEALS);
        close(fd);
        fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(warm_memfd_check(fd, WARM_MEMFD_SEALS_STATE, 4096), WARM_MEMFD_E_SEALS);
        close(fd);
        assert_int_equal(warm_memfd_new("t", 4096, WARM_MEMFD_SEALS_STATE, &fd, &map), 0);
        assert_int_equal(warm_memfd_map(fd, WARM_MEMFD_SEALS_STATE, 4097, PROT_READ, &again),
                         WARM_MEMFD_E_SIZE);
        assert_int_equal(warm_memfd_map(fd, WARM_MEMFD_SEALS_STATE, 4095, PROT_READ, &again),
                         WARM_MEMFD_E_SIZE);
        assert_int_equal(warm_memfd_map(fd, WARM_MEMFD_SEALS_BOARD, 4096, PROT_READ, &again),
                         WARM_MEMFD_E_SEALS);
        munmap(map, 4096);
        close(fd);
        assert_int_equal(warm_memfd_new("t", 0, WARM_MEMFD_SEALS_STATE, &fd, &map), -EINVAL);
        assert_int_equal(warm_memfd_new("t", UINT64_MAX, WARM_MEMFD_SEALS_STATE, &fd, &map),
                         -EINVAL);
}

static void ranges_do_not_wrap(void **state) {
        uint64_t r = 77;

        (void) state;
        assert_true(warm_range_add(UINT64_MAX - 1, 1, &r) && r == UINT64_MAX);
        assert_false(warm_range_add(UINT64_MAX, 1, &r));
        assert_true(warm_range_mul(1ULL << 32, (1ULL << 32) - 1, &r));
        r = 77;
        assert_false(warm_range_mul(1ULL << 32, 1ULL << 32, &r));
        assert_int_equal(r, 77);
        assert_true(warm_range_align(33, 32, &r) && r == 64);
        assert_true(warm_range_align(0, 32, &r) && r == 0);
        assert_false(warm_range_align(1, 3, &r));
        assert_false(warm_range_align(1, 0, &r));
        assert_false(warm_range_align(UINT64_MAX, 2, &r));
        assert_true(warm_range_within(10, 0, 10));
        assert_true(warm_range_within(9, 1, 10));
        assert_false(warm_range_within(9, 2, 10));
        assert_false(warm_range_within(11, 0, 10));
        assert_false(warm_range_within(UINT64_MAX, 2, 10));
        assert_true(warm_range_array(8, 3, 8, 8, 32));
        assert_false(warm_range_array(8, 4, 8, 8, 32));
        assert_false(warm_range_array(4, 1, 8, 8, 32));
        assert_false(warm_range_array(8, 1ULL << 61, 8, 8, UINT64_MAX));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_state_memfd_keeps_its_size_and_stays_writable),
                cmocka_unit_test(a_board_cannot_be_mapped_for_writing_by_whoever_receives_it),
                cmocka_unit_test(what_lacks_a_seal_or_has_another_size_is_not_mapped),
                cmocka_unit_test(ranges_do_not_wrap),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
