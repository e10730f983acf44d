/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend's memory in one process: ranges, KV chunks, blocks, the loader. 77 where there is no GPU. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "memory-fixture.h"

static uint32_t open_fds(void) {
        uint32_t n = 0;

        for (int fd = 0; fd < 1024; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

static bool device_holds(const void *d_at, uint8_t byte, uint64_t n) {
        uint8_t *host = malloc(n);
        bool same = true;

        CHECK_IS(cudaMemcpy(host, d_at, n, cudaMemcpyDeviceToHost), 0);
        for (uint64_t i = 0; i < n && same; i++)
                same = host[i] == byte;
        free(host);
        return same;
}

static void codes_mean_what_the_contract_says(void) {
        static const int codes[][2] = {
                { cudaSuccess, 0 },
                { cudaErrorNotReady, WARM_BACKEND_E_PENDING },
                { cudaErrorMemoryAllocation, WARM_BACKEND_E_MEMORY },
                { cudaErrorInvalidValue, -EINVAL },
                { cudaErrorNoDevice, -ENODEV },
                { cudaErrorOperatingSystem, -EIO },
                { cudaErrorECCUncorrectable, WARM_BACKEND_E_LOST },
                { cudaErrorIllegalAddress, WARM_BACKEND_E_LOST },
                { cudaErrorLaunchFailure, WARM_BACKEND_E_LOST },
                { cudaErrorUnknown, WARM_BACKEND_E_LOST },
                { 123456, WARM_BACKEND_E_LOST }, /* one of a later driver */
        };
        struct warm_cuda_memory none = { 7, 7 };

        for (uint32_t i = 0; i < sizeof(codes) / sizeof(*codes); i++)
                CHECK_IS(warm_cuda_error(codes[i][0]), codes[i][1]);
        CHECK_IS(warm_cuda_memory_init(&none, 1000), -ENODEV);
        CHECK_IS(none.granularity, 7);
}

static void chunks_come_and_go_singly(void) {
        uint64_t granule = memory.granularity, before = memory_free();
        struct warm_cuda_range range;
        int fd = -1;

        CHECK_IS(warm_cuda_range_init(&range, &memory, 2 * granule, 5 * granule - 1), 0);
        CHECK_IS(range.n_chunks, 3);
        CHECK_IS(warm_cuda_range_chunk_bytes(&range, 1), 2 * granule);
        CHECK_IS(warm_cuda_range_chunk_bytes(&range, 2), granule);
        for (uint32_t i = 0; i < 3; i++) {
                CHECK(!warm_cuda_range_has(&range, i));
                CHECK_IS(warm_cuda_range_remove(&range, i), -ENOENT);
                CHECK_IS(warm_cuda_range_export(&range, i, &fd), -ENOENT);
                CHECK_IS(warm_cuda_range_add(&range, i), 0);
                CHECK_IS(warm_cuda_range_add(&range, i), -EEXIST);
        }
        CHECK_IS(warm_cuda_range_add(&range, 3), -ERANGE);
        CHECK_IS(warm_cuda_range_import(&range, 3, 0), -ERANGE);
        CHECK(!warm_cuda_range_has(&range, 3));
        device_set(range.d_base, 0x5a, range.bytes); /* across all borders */
        CHECK_IS(warm_cuda_range_remove(&range, 1), 0);
        CHECK_IS(warm_cuda_range_remove(&range, 1), -ENOENT);
        CHECK(device_holds(range.d_base, 0x5a, 2 * granule));
        CHECK(device_holds(range.d_base + 4 * granule, 0x5a, granule));
        CHECK_IS(warm_cuda_range_add(&range, 1), 0);
        device_set(range.d_base + 2 * granule, 0xa5, 2 * granule);
        CHECK(device_holds(range.d_base, 0x5a, 2 * granule));
        CHECK(device_holds(range.d_base + 2 * granule, 0xa5, 2 * granule));
        warm_cuda_range_deinit(&range);
        CHECK_IS(warm_cuda_range_init(&range, &memory, 1, 0), 0);
        CHECK_IS(warm_cuda_range_add(&range, 0), -ERANGE);
        warm_cuda_range_deinit(&range);
        CHECK_IS(warm_cuda_range_init(&range, &memory, 1, UINT64_MAX), -ENOMEM);
        CHECK_IS(warm_cuda_range_init(&range, &memory, 1ULL << 40, 1ULL << 62), -ENOMEM);
        CHECK(memory_is_back(before));
}

static void kv_chunks_are_zero_and_bounded(void) {
        struct warm_kv_config f32 = { WARM_TYPE_F32, { 1, 1 } },
                              again = { WARM_TYPE_BF16, { 1, 1 } };
        struct warm_kv_info info = { 0 };
        struct warm_cuda_kv_memory kv = { 0 };
        struct warm_cuda_kv view;
        uint32_t n;

        CHECK_IS(warm_cuda_kv_setup(&kv, &memory, stream, &f32, GROUPS, block_values, &info),
                 -EINVAL);
        kv = kv_new(&info);
        CHECK_IS(warm_cuda_kv_setup(&kv, &memory, stream, &again, GROUPS, block_values, &info),
                 -EEXIST);
        n = kv.groups[0].range.n_chunks;
        CHECK_IS(info.block_bytes[0], block_values[0] * 2);
        CHECK_IS(info.blocks_per_chunk[0], 8);
        CHECK_IS(n, (N_BLOCKS - 1) / 8 + 1);
        CHECK_IS(warm_cuda_kv_chunk_add(&kv, 0, n), -ERANGE);
        CHECK_IS(warm_cuda_kv_chunk_add(&kv, GROUPS, 0), -ERANGE);
        CHECK_IS(warm_cuda_kv_chunk_remove(&kv, GROUPS, 0), -ENOENT);
        CHECK_IS(warm_cuda_kv_chunk_add(&kv, 0, n - 1), 0);
        CHECK(warm_cuda_kv_has(&kv, 0, N_BLOCKS - 1));
        CHECK(!warm_cuda_kv_has(&kv, 0, N_BLOCKS)); /* the chunk has room, the configuration not */
        CHECK(!warm_cuda_kv_has(&kv, 0, 0));
        view = warm_cuda_kv_get(&kv, 0);
        for (uint32_t i = 0; i < 8; i++) { /* whatever pages it gets, dirty ones among them */
                uint8_t *d_chunk = view.d_base + i % 2 * view.chunk_bytes;

                CHECK_IS(warm_cuda_kv_chunk_add(&kv, 0, i % 2), 0);
                CHECK_IS(cudaStreamSynchronize(stream), 0);
                CHECK(device_holds(d_chunk, 0, view.chunk_bytes));
                device_set(d_chunk, 0x77, view.chunk_bytes);
                CHECK_IS(warm_cuda_kv_chunk_remove(&kv, 0, i % 2), 0);
        }
        CHECK_IS(warm_cuda_kv_chunk_remove(&kv, 0, 0), -ENOENT);
        warm_cuda_kv_deinit(&kv);
}

static void export_knows_its_limits(void) {
        struct rlimit before, tight;
        uint64_t sums[GROUPS][N_BLOCKS];
        struct warm_cuda_kv_memory kv = kv_filled(sums);
        uint32_t n = 0, n_open = open_fds(), n_chunks = 2 * kv.groups[0].range.n_chunks;
        int fds[FDS_MAX];

        CHECK_IS(warm_cuda_kv_chunk_remove(&kv, 0, 1), 0);
        CHECK_IS(warm_cuda_kv_export_fds(&kv, fds, n_chunks - 1, &n), -ENOSPC);
        CHECK_IS(warm_cuda_kv_export_fds(&kv, fds, n_chunks, &n), 0);
        CHECK_IS(n, n_chunks);
        for (uint32_t i = 0; i < n; i++) {
                CHECK((fds[i] < 0) == (i == 1));
                CHECK(i == 1 || fcntl(fds[i], F_GETFD) == FD_CLOEXEC);
                if (fds[i] >= 0)
                        close(fds[i]);
        }
        getrlimit(RLIMIT_NOFILE, &before);
        tight = before;
        tight.rlim_cur = (rlim_t) dup(0);
        close((int) tight.rlim_cur);
        tight.rlim_cur += 5;
        setrlimit(RLIMIT_NOFILE, &tight);
        CHECK_IS(warm_cuda_kv_export_fds(&kv, fds, FDS_MAX, &n), -EMFILE);
        setrlimit(RLIMIT_NOFILE, &before);
        CHECK_IS(open_fds(), n_open);
        CHECK_IS(warm_cuda_kv_export_fds(&kv, fds, FDS_MAX, &n), 0);
        for (uint32_t i = 0; i < n; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        warm_cuda_kv_deinit(&kv);
}

static void wrong_fds_are_refused_and_nothing_is_taken(void) {
        uint64_t sums[GROUPS][N_BLOCKS], before;
        struct warm_cuda_kv_memory kv = kv_filled(sums), taker;
        struct warm_cuda_range other;
        struct warm_kv_info info;
        int fds[FDS_MAX], bad[6], memfd = memfd_create("no-chunk", MFD_CLOEXEC);
        uint32_t n = 0, n_open;

        CHECK_IS(ftruncate(memfd, (off_t) kv.groups[0].range.chunk_bytes), 0);
        CHECK_IS(warm_cuda_range_init(&other, &memory, 2 * memory.granularity,
                                      3 * memory.granularity),
                 0);
        CHECK_IS(warm_cuda_range_add(&other, 0), 0);
        bad[0] = memfd;
        bad[1] = 1000; /* closed */
        bad[2] = open("/dev/null", O_RDWR | O_CLOEXEC);
        bad[3] = open("/dev/nvidiactl", O_RDWR | O_CLOEXEC);
        CHECK_IS(warm_cuda_range_export(&other, 0, &bad[4]), 0); /* a chunk of another size */
        bad[5] = open("/dev/nvidia0", O_RDWR | O_CLOEXEC);
        CHECK_IS(warm_cuda_kv_export_fds(&kv, fds, FDS_MAX, &n), 0);
        taker = kv_new(&info);
        before = memory_free();
        n_open = open_fds();
        CHECK_IS(warm_cuda_kv_import_fds(&taker, fds, n - 1), -EINVAL);
        CHECK_IS(warm_cuda_kv_import_fds(&taker, fds, n + 1), -EINVAL);
        for (uint32_t i = 0; i < 6; i++) {
                int good = fds[n - 1]; /* the last one: all before it are taken, and let go */

                fds[n - 1] = bad[i];
                CHECK_IS(warm_cuda_kv_import_fds(&taker, fds, n),
                         bad[i] < 0 ? 0 : -EINVAL); /* -1 where the machine has no such file */
                fds[n - 1] = good;
                for (uint32_t c = 0; c < taker.groups[0].range.n_chunks; c++)
                        CHECK(bad[i] < 0 || !warm_cuda_range_has(&taker.groups[0].range, c));
        }
        CHECK(memory_is_back(before));
        CHECK_IS(open_fds(), n_open);
        CHECK_IS(warm_cuda_kv_chunk_add(&taker, 1, 2), 0);
        CHECK_IS(warm_cuda_kv_import_fds(&taker, fds, n), -EEXIST);
        CHECK(!warm_cuda_kv_has(&taker, 0, 0));
        CHECK_IS(warm_cuda_kv_chunk_remove(&taker, 1, 2), 0);
        CHECK_IS(warm_cuda_kv_import_fds(&taker, fds, n), 0);
        CHECK(kv_sums_are(&taker, sums));
        CHECK_IS(warm_cuda_range_import(&other, 1, bad[4]), -EINVAL); /* twice its size */
        for (uint32_t i = 0; i < n; i++)
                close(fds[i]);
        for (uint32_t i = 0; i < 6; i++)
                if (i != 1 && bad[i] >= 0)
                        close(bad[i]);
        warm_cuda_kv_deinit(&taker);
        warm_cuda_kv_deinit(&kv);
        warm_cuda_range_deinit(&other);
}

static void copies_keep_their_order(void) {
        uint64_t seed = 7, sums[GROUPS][N_BLOCKS];
        struct warm_cuda_kv_memory kv = kv_filled(sums);
        struct warm_cuda_kv views[GROUPS] = { warm_cuda_kv_get(&kv, 0), warm_cuda_kv_get(&kv, 1) };
        struct warm_block_copy copies[WARM_STEP_COPIES_MAX];

        for (uint32_t round = 0; round < 60; round++) {
                /* few blocks: chains, swaps through a third, overwritten sources; many: wide lists */
                uint32_t n_apart = round % 3 ? 4 : N_BLOCKS;

                for (uint32_t i = 0; i < WARM_STEP_COPIES_MAX; i++) {
                        copies[i].group = (uint32_t) (random_next(&seed) % GROUPS);
                        copies[i].source = (uint32_t) (random_next(&seed) % n_apart);
                        copies[i].target = (uint32_t) (random_next(&seed) % n_apart);
                        sums[copies[i].group][copies[i].target] =
                                sums[copies[i].group][copies[i].source];
                }
                CHECK_IS(warm_cuda_blocks_copy(views, copies, WARM_STEP_COPIES_MAX, stream), 0);
                CHECK(kv_sums_are(&kv, sums));
        }
        for (uint32_t i = 0; i < 200; i++) /* one source, no two targets alike: two launches */
                copies[i] = (struct warm_block_copy){ i % 2, 0, 1 + i / 2 % (N_BLOCKS - 1) };
        CHECK_IS(warm_cuda_blocks_copy(views, copies, 2 * (N_BLOCKS - 1), stream), 0);
        CHECK_IS(warm_cuda_blocks_copy(views, copies, 0, stream), 0);
        for (uint32_t b = 1; b < N_BLOCKS; b++) {
                sums[0][b] = sums[0][0];
                sums[1][b] = sums[1][0];
        }
        CHECK(kv_sums_are(&kv, sums));
        CHECK_IS(warm_cuda_block_zero(&views[1], 9, stream), 0);
        {
                uint8_t *zeros = calloc(1, views[1].block_bytes);

                sums[1][9] = host_sum(zeros, views[1].block_bytes);
                free(zeros);
        }
        CHECK(kv_sums_are(&kv, sums));
        warm_cuda_kv_deinit(&kv);
}

static void a_sum_tells_every_byte(void) {
        uint64_t n = 3 * MIB + 16, seed = 3, sum = 0, other = 0;
        uint8_t *host = malloc(n), *d_bytes;

        random_fill(host, n, 1);
        CHECK_IS(cudaMalloc((void **) &d_bytes, n), 0);
        device_put(d_bytes, host, n);
        for (uint64_t length = 0; length <= 4096 + 16; length += 16) {
                CHECK_IS(warm_cuda_bytes_sum(&blocks, d_bytes, length, &sum), 0);
                CHECK(sum == host_sum(host, length));
        }
        CHECK_IS(warm_cuda_bytes_sum(&blocks, d_bytes, n, &sum), 0);
        CHECK(sum == host_sum(host, n));
        for (uint32_t i = 0; i < 300; i++) {
                uint64_t at = i < 32 ? (i < 16 ? i : n - 1 - i % 16) : random_next(&seed) % n;
                uint8_t byte = (uint8_t) (host[at] ^ 1 << i % 8);

                device_put(d_bytes + at, &byte, 1);
                CHECK_IS(warm_cuda_bytes_sum(&blocks, d_bytes, n, &other), 0);
                CHECK(other != sum);
                device_put(d_bytes + at, host + at, 1);
        }
        for (uint32_t i = 0; i < 8; i++) { /* two words change places */
                uint64_t word;

                memcpy(&word, host + 8 * i, 8);
                memcpy(host + 8 * i, host + 8 * i + 8, 8);
                memcpy(host + 8 * i + 8, &word, 8);
                device_put(d_bytes, host, n);
                CHECK_IS(warm_cuda_bytes_sum(&blocks, d_bytes, n, &other), 0);
                CHECK(other != sum);
                sum = other;
        }
        CHECK_IS(cudaFree(d_bytes), 0);
        free(host);
}

/* Hold a stream up. */
static void wait_for(void *userdata) {
        _Atomic bool *go = userdata;

        while (!*go)
                usleep(100);
}

static int transfer_wait(uint64_t ticket) {
        int r;

        while ((r = warm_cuda_blocks_poll(&blocks, ticket)) == WARM_BACKEND_E_PENDING)
                usleep(100);
        return r;
}

static void blocks_go_to_the_host_and_back_while_kernels_run(void) {
        uint64_t sums[GROUPS][N_BLOCKS], tickets[WARM_CUDA_TRANSFERS_MAX], ticket;
        struct warm_cuda_kv_memory kv = kv_filled(sums);
        struct warm_cuda_kv view = warm_cuda_kv_get(&kv, 0);
        struct warm_block_copy copies[2] = { { 0, 60, 61 }, { 0, 61, 60 } };
        _Atomic bool go = false;
        uint32_t list[40];
        uint8_t *host;

        CHECK_IS(cudaHostAlloc((void **) &host, 40 * view.block_bytes, 0), 0);
        for (uint32_t i = 0; i < 40; i++) /* runs across a chunk's border, and single ones */
                list[i] = i < 20 ? i + 3 : 59 - i;
        for (uint32_t round = 0; round < 20; round++) {
                for (uint32_t i = 0; i < 100; i++)
                        CHECK_IS(warm_cuda_blocks_copy(&view, copies, 2, stream), 0);
                CHECK_IS(warm_cuda_blocks_read(&blocks, &view, host, list, 40, &ticket), 0);
                for (uint32_t i = 0; i < 100; i++)
                        CHECK_IS(warm_cuda_blocks_copy(&view, copies, 2, stream), 0);
                CHECK_IS(transfer_wait(ticket), 0);
                for (uint32_t i = 0; i < 40; i++) {
                        CHECK(host_sum(host + i * view.block_bytes, view.block_bytes) ==
                              sums[0][list[i]]);
                        CHECK_IS(warm_cuda_block_zero(&view, list[i], stream), 0);
                }
                CHECK_IS(warm_cuda_blocks_write(&blocks, &view, host, list, 40, &ticket), 0);
                CHECK_IS(transfer_wait(ticket), 0);
                sums[0][61] = sums[0][60];
                CHECK(kv_sums_are(&kv, sums));
        }
        CHECK_IS(cudaLaunchHostFunc(stream, wait_for, &go), 0); /* none can be done before */
        for (uint32_t i = 0; i < WARM_CUDA_TRANSFERS_MAX; i++)
                CHECK_IS(warm_cuda_blocks_read(&blocks, &view, host, list, 1, &tickets[i]), 0);
        for (uint32_t i = 0; i < WARM_CUDA_TRANSFERS_MAX; i++)
                CHECK_IS(warm_cuda_blocks_poll(&blocks, tickets[i]), WARM_BACKEND_E_PENDING);
        CHECK_IS(warm_cuda_blocks_read(&blocks, &view, host, list, 1, &ticket), -EAGAIN);
        go = true;
        for (uint32_t i = 0; i < WARM_CUDA_TRANSFERS_MAX; i++)
                CHECK_IS(transfer_wait(tickets[i]), 0);
        CHECK_IS(warm_cuda_blocks_read(&blocks, &view, host, list, 1, &ticket), 0);
        CHECK_IS(transfer_wait(ticket), 0);
        CHECK_IS(warm_cuda_blocks_poll(&blocks, 1), 0); /* long ago */
        CHECK_IS(cudaFreeHost(host), 0);
        warm_cuda_kv_deinit(&kv);
}

static void the_loader_changes_no_byte(void) {
        static const uint64_t row_bytes[] = { 1,   3,    7,    18,    34,    144,
                                              210, 1000, 4095, 16384, 65537, 262144 };
        struct sink sinks[12 * 8];
        uint64_t n = 96 * MIB;
        uint8_t *src = malloc(n + 1), *got = malloc(n), *d_target;

        random_fill(src, n + 1, 11);
        CHECK_IS(cudaMalloc((void **) &d_target, n), 0);
        for (uint32_t threads = 0; threads <= 8; threads += threads ? threads : 1) {
                struct warm_cuda_loader_config config = { 0, threads, 2 * MIB + 1 };
                struct warm_cuda_loader *l = NULL;
                uint64_t at = 0, rows;

                device_set(d_target, 0xee, n);
                CHECK_IS(warm_cuda_loader_new(&config, &l), 0);
                for (uint32_t i = 0; i < 12 * 8; i++) { /* more than may be in flight */
                        sinks[i] = (struct sink){ .d_target = d_target + at,
                                                  .row_bytes = row_bytes[i % 12] };
                        rows = i < 12 ? 1 : (MIB * (i % 13 ? 1 : 3)) / row_bytes[i % 12] - i % 3;
                        sinks[i].n_rows = rows;
                        sinks[i].rows_step = i % 5 ? 1 : 4;
                        CHECK_IS(warm_cuda_loader_rows(l, src + 1 + at, row_bytes[i % 12], rows,
                                                       sinks[i].rows_step, sink_take, &sinks[i]),
                                 0);
                        at += row_bytes[i % 12] * rows;
                }
                CHECK(at <= n);
                CHECK_IS(warm_cuda_loader_finish(l), 0);
                CHECK_IS(warm_cuda_loader_finish(l), 0);
                for (uint32_t i = 0; i < 12 * 8; i++)
                        CHECK_IS(sinks[i].n_seen, sinks[i].n_rows);
                CHECK_IS(cudaMemcpy(got, d_target, at, cudaMemcpyDeviceToHost), 0);
                CHECK(memcmp(got, src + 1, at) == 0);
                CHECK(at == n || device_holds(d_target + at, 0xee, n - at < MIB ? n - at : MIB));
                l = warm_cuda_loader_free(l);
        }
        CHECK_IS(cudaFree(d_target), 0);
        free(src);
        free(got);
}

static void the_loader_ends_on_an_error_and_goes_on(void) {
        struct warm_cuda_loader_config config = { 0, 4, 2 * MIB }, wrong = { 0, 33, 0 };
        struct warm_cuda_loader *l = NULL;
        struct sink sink = { NULL, 4096, 8192, 0, 1, -EXDEV };
        uint64_t n = 32 * MIB;
        int fd = memfd_create("weights", MFD_CLOEXEC);
        uint8_t *src;

        CHECK_IS(ftruncate(fd, (off_t) n), 0);
        src = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, 0);
        CHECK_IS(cudaMalloc((void **) &sink.d_target, n), 0);
        CHECK_IS(warm_cuda_loader_new(&wrong, &l), -EINVAL);
        CHECK_IS(warm_cuda_loader_new(&config, &l), 0);
        CHECK_IS(warm_cuda_loader_rows(l, src, 2 * MIB + 1, 1, 1, sink_take, &sink), -EMSGSIZE);
        CHECK_IS(warm_cuda_loader_rows(l, src, 2 * MIB / 16 + 1, 16, 16, sink_take, &sink),
                 -EMSGSIZE);
        CHECK_IS(warm_cuda_loader_rows(l, src, 0, 1, 1, sink_take, &sink), -EINVAL);
        CHECK_IS(warm_cuda_loader_rows(l, src, 1ULL << 40, 1ULL << 40, 1, sink_take, &sink),
                 -EINVAL);
        CHECK_IS(warm_cuda_loader_rows(l, src, 4096, 8192, 1, sink_take, &sink), 0);
        CHECK_IS(warm_cuda_loader_finish(l), -EXDEV);
        sink.result = 0;
        sink.n_seen = 0;
        CHECK_IS(warm_cuda_loader_rows(l, src, 4096, 8192, 1, sink_take, &sink), 0);
        CHECK_IS(warm_cuda_loader_finish(l), 0);
        CHECK_IS(sink.n_seen, 8192);
        CHECK(device_holds(sink.d_target, 0, n));
        sink.row_bytes = 2 * MIB; /* at the limit */
        sink.n_rows = 16;
        CHECK_IS(warm_cuda_loader_rows(l, src, 2 * MIB, 16, 1, sink_take, &sink), 0);
        CHECK_IS(warm_cuda_loader_finish(l), 0);
        CHECK_IS(ftruncate(fd, (off_t) n / 2), 0); /* someone cut the file short */
        CHECK_IS(warm_cuda_loader_rows(l, src, 2 * MIB, 16, 1, sink_take, &sink), 0);
        CHECK_IS(warm_cuda_loader_finish(l), -EIO);
        l = warm_cuda_loader_free(l);
        CHECK(!warm_cuda_loader_free(l));
        munmap(src, n);
        close(fd);
        CHECK_IS(cudaFree(sink.d_target), 0);
}

static void no_memory_is_said_and_survived(void) {
        uint64_t sums[GROUPS][N_BLOCKS], before, total = memory_free();
        struct warm_cuda_kv_memory kv = kv_filled(sums);
        struct warm_cuda_range range, arena;
        uint32_t n = 0;
        int r;

        before = memory_free();
        CHECK_IS(warm_cuda_arena_init(&arena, &memory, total + 1024 * MIB), WARM_BACKEND_E_MEMORY);
        CHECK(memory_is_back(before));
        CHECK_IS(warm_cuda_range_init(&range, &memory, 256 * MIB, 2 * total), 0);
        while ((r = warm_cuda_range_add(&range, n)) == 0)
                n++;
        CHECK_IS(r, WARM_BACKEND_E_MEMORY);
        CHECK(n > 0);
        CHECK(kv_sums_are(&kv, sums));
        device_set(range.d_base, 1, n * range.chunk_bytes);
        CHECK_IS(warm_cuda_range_remove(&range, n / 2), 0);
        CHECK_IS(warm_cuda_range_add(&range, n / 2), 0);
        warm_cuda_range_deinit(&range);
        CHECK(kv_sums_are(&kv, sums));
        CHECK(memory_is_back(before));
        warm_cuda_kv_deinit(&kv);
}

int main(void) {
        int r = cuda_setup();

        if (r == -ENODEV) {
                printf("skipped: no GPU\n");
                return 77;
        }
        if (r) {
                printf("not ok - the device is there: %d\n", r);
                return 1;
        }
        run("codes mean what the contract says", codes_mean_what_the_contract_says);
        run("chunks of a range come and go singly, at the limit and one past",
            chunks_come_and_go_singly);
        run("KV chunks are zero and bounded", kv_chunks_are_zero_and_bounded);
        run("export says when there is no room or no fd, and keeps none", export_knows_its_limits);
        run("wrong fds are refused and nothing is taken",
            wrong_fds_are_refused_and_nothing_is_taken);
        run("copies keep their order", copies_keep_their_order);
        run("a sum tells every byte and is the one in blocks.h", a_sum_tells_every_byte);
        run("blocks go to the host and back while kernels run",
            blocks_go_to_the_host_and_back_while_kernels_run);
        run("the loader changes no byte", the_loader_changes_no_byte);
        run("the loader ends on an error and goes on after it",
            the_loader_ends_on_an_error_and_goes_on);
        run("no memory is said and survived", no_memory_is_said_and_survived);
        cuda_end();
        return n_failed > 0;
}
