/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/fdpass.h"
#include "shm/seqlock.h"

#define N_WORDS 32U

static struct {
        uint64_t sequence;
        uint64_t words[N_WORDS];
        bool stop;
} board;

static void *write_boards(void *arg) {
        uint64_t words[N_WORDS];

        (void) arg;
        for (uint64_t k = 1; !__atomic_load_n(&board.stop, __ATOMIC_RELAXED); k++) {
                for (uint32_t i = 0; i < N_WORDS; i++)
                        words[i] = k * (i + 1);
                warm_seqlock_write(&board.sequence, board.words, words, N_WORDS);
        }
        return NULL;
}

static void a_reader_never_sees_half_a_write(void **state) {
        uint64_t words[N_WORDS], sequence, last = 0, n_read = 0;
        pthread_t writer;

        (void) state;
        assert_int_equal(pthread_create(&writer, NULL, write_boards, NULL), 0);
        for (uint32_t k = 0; k < 300000; k++) {
                if (!warm_seqlock_read(&board.sequence, board.words, N_WORDS, words, &sequence))
                        continue;
                n_read++;
                assert_true(sequence >= last);
                last = sequence;
                for (uint32_t i = 0; i < N_WORDS; i++)
                        assert_int_equal(words[i], sequence / 2 * (i + 1));
        }
        __atomic_store_n(&board.stop, true, __ATOMIC_RELAXED);
        pthread_join(writer, NULL);
        assert_true(warm_seqlock_read(&board.sequence, board.words, N_WORDS, words, &sequence));
        assert_int_equal(sequence % 2, 0);
        assert_true(n_read > 0);
}

static void a_writer_that_died_is_noticed_and_repaired(void **state) {
        uint64_t sequence = 7, word = 1, out, at;

        (void) state;
        assert_false(warm_seqlock_read(&sequence, &word, 1, &out, &at));
        warm_seqlock_repair(&sequence);
        assert_int_equal(sequence, 8);
        warm_seqlock_repair(&sequence);
        assert_int_equal(sequence, 8);
        assert_true(warm_seqlock_read(&sequence, &word, 1, &out, &at));
}

static unsigned count_fds(void) {
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static void fds_arrive_with_their_bytes_and_close_on_exec(void **state) {
        int pair[2], file, fds[2] = { -1, -1 };
        struct stat a, b;
        char bytes[8];
        uint32_t n_fds;
        size_t n;

        (void) state;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        file = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(warm_fdpass_send(pair[0], "hello", 5, &file, 1, &n), 0);
        assert_int_equal(n, 5);
        assert_int_equal(warm_fdpass_receive(pair[1], bytes, sizeof(bytes), fds, 2, &n, &n_fds), 0);
        assert_int_equal(n, 5);
        assert_int_equal(n_fds, 1);
        assert_memory_equal(bytes, "hello", 5);
        assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
        assert_int_equal(fstat(file, &a), 0);
        assert_int_equal(fstat(fds[0], &b), 0);
        assert_true(a.st_rdev == b.st_rdev);
        close(fds[0]);
        assert_int_equal(warm_fdpass_send(pair[0], "x", 1, NULL, 0, &n), 0);
        assert_int_equal(warm_fdpass_receive(pair[1], bytes, 8, NULL, 0, &n, &n_fds), 0);
        assert_int_equal(n_fds, 0);
        close(pair[0]);
        assert_int_equal(warm_fdpass_receive(pair[1], bytes, 8, fds, 2, &n, &n_fds),
                         WARM_FDPASS_E_CLOSED);
        assert_int_equal(warm_fdpass_send(pair[1], "x", 1, &file, 1, &n), WARM_FDPASS_E_CLOSED);
        close(pair[1]);
        close(file);
}

static void fds_nobody_asked_for_are_closed(void **state) {
        int pair[2], many[WARM_FDPASS_MAX + 1], fds[4];
        unsigned n_before;
        uint32_t n_fds;
        char byte;
        size_t n;

        (void) state;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
                         0);
        for (uint32_t i = 0; i <= WARM_FDPASS_MAX; i++)
                many[i] = pair[0];
        assert_int_equal(warm_fdpass_send(pair[0], "x", 1, many, WARM_FDPASS_MAX + 1, &n), -EINVAL);
        assert_int_equal(warm_fdpass_send(pair[0], "", 0, many, 1, &n), -EINVAL);
        assert_int_equal(warm_fdpass_receive(pair[1], &byte, 1, fds, 4, &n, &n_fds),
                         WARM_FDPASS_E_AGAIN);
        n_before = count_fds();
        for (uint32_t k = 0; k < 6; k++) {
                static const uint32_t counts[6] = { 5, WARM_FDPASS_MAX, 6, 100, 4, 4 };
                uint32_t most = k < 4 ? 4 : 3;

                assert_int_equal(warm_fdpass_send(pair[0], "x", 1, many, counts[k], &n), 0);
                assert_int_equal(warm_fdpass_receive(pair[1], &byte, 1, fds, most, &n, &n_fds),
                                 WARM_FDPASS_E_LIMIT);
                assert_int_equal(count_fds(), n_before);
        }
        assert_int_equal(warm_fdpass_send(pair[0], "x", 1, many, WARM_FDPASS_MAX, &n), 0);
        assert_int_equal(warm_fdpass_receive(pair[1], &byte, 1, many, WARM_FDPASS_MAX, &n, &n_fds),
                         0);
        assert_int_equal(n_fds, WARM_FDPASS_MAX);
        for (uint32_t i = 0; i < n_fds; i++)
                close(many[i]);
        close(pair[0]);
        close(pair[1]);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_reader_never_sees_half_a_write),
                cmocka_unit_test(a_writer_that_died_is_noticed_and_repaired),
                cmocka_unit_test(fds_arrive_with_their_bytes_and_close_on_exec),
                cmocka_unit_test(fds_nobody_asked_for_are_closed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
