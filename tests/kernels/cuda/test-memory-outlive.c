/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA backend's memory across processes: it outlives its killed maker, and another process takes it over; then
 * the same, both of them confined. 77 where there is no GPU.
 *
 * Other processes are this program again (fork and exec): what CUDA made does not survive a bare fork.
 *
 * What confined means says confine.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine.h"
#include "memory-fixture.h"

static bool fds_send(int socket_fd, const int *fds, uint32_t n, const void *data, uint64_t bytes) {
        char control[CMSG_SPACE(FDS_MAX * sizeof(int))] = { 0 };
        struct iovec part = { (void *) data, bytes };
        struct msghdr message = { .msg_iov = &part,
                                  .msg_iovlen = 1,
                                  .msg_control = control,
                                  .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);

        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(head), fds, n * sizeof(int));
        return sendmsg(socket_fd, &message, 0) == (ssize_t) bytes;
}

/* Return: fds received into fds[FDS_MAX]. */
static uint32_t fds_receive(int socket_fd, int *fds, void *data, uint64_t bytes) {
        char control[CMSG_SPACE(FDS_MAX * sizeof(int))];
        struct iovec part = { data, bytes };
        struct msghdr message = { .msg_iov = &part,
                                  .msg_iovlen = 1,
                                  .msg_control = control,
                                  .msg_controllen = sizeof(control) };
        struct cmsghdr *head;
        uint32_t n;

        if (recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC) != (ssize_t) bytes)
                return 0;
        head = CMSG_FIRSTHDR(&message);
        if (!head || head->cmsg_type != SCM_RIGHTS)
                return 0;
        n = (uint32_t) ((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds, CMSG_DATA(head), n * sizeof(int));
        return n;
}

/* In another process: make KV memory, load through the loader, hand both out on fd 3, wait to be killed. */
static int exporter(bool confined) {
        uint64_t sums[GROUPS + 1][N_BLOCKS] = { 0 };
        struct warm_cuda_loader_config config = { 0, 4, 0 };
        struct warm_cuda_loader *l = NULL;
        struct warm_cuda_range arena = { 0 };
        struct sink sink = { NULL, 4096, (20 * MIB) >> 12, 0, 1, 0 };
        struct warm_cuda_kv_memory kv;
        uint8_t *src = malloc(20 * MIB);
        int fds[FDS_MAX];
        uint32_t n = 0, n_more = 0;

        if (confined)
                confine();
        CHECK_IS(cuda_setup(), 0);
        if (failed)
                return 1;
        kv = kv_filled(sums);
        CHECK(kv_sums_are(&kv, sums));
        random_fill(src, 20 * MIB, 99);
        CHECK_IS(warm_cuda_arena_init(&arena, &memory, 20 * MIB), 0);
        sink.d_target = arena.d_base;
        CHECK_IS(warm_cuda_loader_new(&config, &l), 0);
        CHECK_IS(warm_cuda_loader_rows(l, src, 4096, sink.n_rows, 1, sink_take, &sink), 0);
        CHECK_IS(warm_cuda_loader_finish(l), 0);
        sums[GROUPS][0] = host_sum(src, 20 * MIB);
        CHECK_IS(warm_cuda_kv_export_fds(&kv, fds, FDS_MAX, &n), 0);
        CHECK_IS(warm_cuda_arena_export(&arena, fds + n, FDS_MAX - n, &n_more), 0);
        fflush(stdout);
        if (failed || !fds_send(3, fds, n + n_more, sums, sizeof(sums)))
                return 1;
        for (;;)
                pause();
}

/* In another process: take over fds 4.. that it inherited, sums from fd 3; export them again, take those too. */
static int importer(uint32_t n, bool confined) {
        uint64_t sums[GROUPS + 1][N_BLOCKS], sum = 0;
        struct warm_cuda_kv_memory kv, next;
        struct warm_cuda_range arena = { 0 };
        struct warm_kv_info info;
        int fds[FDS_MAX];
        uint32_t n_again = 0;

        for (uint32_t i = 0; i < n; i++)
                fds[i] = (int) (4 + i);
        CHECK_IS(read(3, sums, sizeof(sums)), sizeof(sums));
        if (confined)
                confine();
        CHECK_IS(cuda_setup(), 0);
        if (failed)
                return 1;
        kv = kv_new(&info);
        CHECK_IS(warm_cuda_kv_import_fds(&kv, fds, n - 1), 0);
        CHECK_IS(warm_cuda_arena_import(&arena, &memory, 21 * MIB, fds + n - 1, 1), -EINVAL);
        CHECK_IS(warm_cuda_arena_import(&arena, &memory, 20 * MIB, fds + n - 1, 0), -EINVAL);
        CHECK_IS(warm_cuda_arena_import(&arena, &memory, 20 * MIB, fds + n - 1, 1), 0);
        if (failed)
                return 1;
        CHECK(kv_sums_are(&kv, sums));
        CHECK_IS(warm_cuda_bytes_sum(&blocks, arena.d_base, 20 * MIB, &sum), 0);
        CHECK(sum == sums[GROUPS][0]);
        CHECK_IS(warm_cuda_kv_export_fds(&kv, fds, FDS_MAX, &n_again), 0);
        CHECK_IS(n_again, n - 1);
        warm_cuda_kv_deinit(&kv);
        next = kv_new(&info);
        CHECK_IS(warm_cuda_kv_import_fds(&next, fds, n_again), 0);
        CHECK(kv_sums_are(&next, sums));
        warm_cuda_kv_deinit(&next);
        warm_cuda_range_deinit(&arena);
        fflush(stdout);
        return failed;
}

/* In another process: break the context, see that every object says so, and take all down. */
static int breaker(void) {
        struct warm_cuda_loader_config config = { 0, 2, 0 };
        struct warm_block_copy copy = { 0, 0, 1 };
        struct warm_cuda_loader *l = NULL;
        struct warm_cuda_kv_memory kv;
        struct warm_cuda_range arena;
        struct warm_cuda_kv view;
        struct warm_kv_info info;
        uint64_t sum = 0, ticket = 0;
        uint32_t block = 0;
        uint8_t byte;

        CHECK_IS(cuda_setup(), 0);
        CHECK_IS(warm_cuda_arena_init(&arena, &memory, MIB), 0);
        kv = kv_new(&info);
        view = warm_cuda_kv_get(&kv, 0);
        CHECK_IS(warm_cuda_blocks_copy(&view, &copy, 1, stream), 0); /* there is no memory */
        CHECK_IS(warm_cuda_error((int) cudaStreamSynchronize(stream)), WARM_BACKEND_E_LOST);
        CHECK_IS(warm_cuda_blocks_copy(&view, &copy, 1, stream), WARM_BACKEND_E_LOST);
        CHECK_IS(warm_cuda_blocks_sum(&blocks, &view, &block, 1, &sum), WARM_BACKEND_E_LOST);
        CHECK_IS(warm_cuda_blocks_read(&blocks, &view, &byte, &block, 1, &ticket),
                 WARM_BACKEND_E_LOST);
        CHECK_IS(warm_cuda_kv_chunk_add(&kv, 0, 0), WARM_BACKEND_E_LOST);
        CHECK(!warm_cuda_kv_has(&kv, 0, 0));
        CHECK_IS(warm_cuda_loader_new(&config, &l), WARM_BACKEND_E_LOST);
        CHECK_IS(warm_cuda_memory_init(&memory, 0), WARM_BACKEND_E_LOST);
        warm_cuda_kv_deinit(&kv);
        warm_cuda_range_deinit(&arena);
        warm_cuda_blocks_deinit(&blocks);
        fflush(stdout);
        return failed;
}

/* Start this program again with fds as its 3, 4, ... */
static pid_t again(const char *role, bool confined, const int *fds, uint32_t n) {
        char count[16];
        pid_t pid;

        snprintf(count, sizeof(count), "%u", n);
        fflush(stdout);
        pid = fork();
        if (pid)
                return pid;
        for (uint32_t i = 0; i < n; i++) /* above all targets first, so that none is overwritten */
                if (fcntl(fds[i], F_DUPFD, (int) (200 + i)) != (int) (200 + i))
                        _exit(126);
        for (uint32_t i = 0; i < n; i++)
                dup2((int) (200 + i), (int) (3 + i));
        for (uint32_t i = 0; i < n; i++)
                close((int) (200 + i));
        execl("/proc/self/exe", "test-memory-outlive", role, count, confined ? "confined" : "free",
              NULL);
        _exit(127);
}

static void memory_outlives(bool confined) {
        uint64_t sums[GROUPS + 1][N_BLOCKS], before = memory_free();
        int pair[2], pipe_fds[2], fds[FDS_MAX + 1], status = -1;
        uint32_t n;
        pid_t pid;

        CHECK_IS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        pid = again("--exporter", confined, &pair[1], 1);
        close(pair[1]);
        n = fds_receive(pair[0], fds + 1, sums, sizeof(sums));
        CHECK_IS(kill(pid, SIGKILL), 0);
        CHECK_IS(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status));
        CHECK(n > 1);
        close(pair[0]);
        for (uint32_t round = 0; n > 1 && round < 2;
             round++) { /* the memory stays for a second one */
                CHECK_IS(pipe2(pipe_fds, O_CLOEXEC), 0);
                CHECK_IS(write(pipe_fds[1], sums, sizeof(sums)), sizeof(sums));
                fds[0] = pipe_fds[0];
                pid = again("--importer", confined, fds, n + 1);
                CHECK_IS(waitpid(pid, &status, 0), pid);
                CHECK_IS(status, 0);
                close(pipe_fds[0]);
                close(pipe_fds[1]);
        }
        for (uint32_t i = 0; i < n; i++)
                close(fds[1 + i]);
        CHECK(memory_is_back(before));
}

static void a_broken_context_is_a_lost_device(void) {
        int status = -1, null = open("/dev/null", O_RDWR | O_CLOEXEC);
        pid_t pid = again("--breaker", false, &null, 1);

        CHECK_IS(waitpid(pid, &status, 0), pid);
        CHECK_IS(status, 0);
        close(null);
}

static void memory_outlives_its_killed_process(void) {
        memory_outlives(false);
}

static void all_of_it_works_confined(void) {
        memory_outlives(true);
}

int main(int argc, char **argv) {
        bool confined = argc > 3 && strcmp(argv[3], "confined") == 0;
        int r;

        if (argc > 3 && strcmp(argv[1], "--exporter") == 0)
                return exporter(confined);
        if (argc > 3 && strcmp(argv[1], "--importer") == 0)
                return importer((uint32_t) atoi(argv[2]) - 1, confined);
        if (argc > 3 && strcmp(argv[1], "--breaker") == 0)
                return breaker();
        r = cuda_setup();
        if (r == -ENODEV) {
                printf("skipped: no GPU\n");
                return 77;
        }
        if (r) {
                printf("not ok - the device is there: %d\n", r);
                return 1;
        }
        run("memory outlives its killed process and is taken over by others, twice",
            memory_outlives_its_killed_process);
        run("the same works confined: init, load, copies, sums, export and import",
            all_of_it_works_confined);
        run("a broken context is a lost device, and all can still be taken down",
            a_broken_context_is_a_lost_device);
        cuda_end();
        return n_failed > 0;
}
