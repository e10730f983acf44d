/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast weights and blocks move. bench-memory [GiB]: tables, asserting nothing. Makes a file of that size (4) in
 * $TMPDIR or /tmp for the time of the run.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "memory-fixture.h"

static double now(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static void bench_load(const char *path, uint64_t bytes, uint8_t *d_target) {
        static const uint32_t threads[] = { 1, 2, 4, 8 };
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        printf("loader, %llu MiB of a page-cached file\nthreads | new ms | GB/s, 3 loads | free "
               "ms\n",
               (unsigned long long) (bytes / MIB));
        for (uint32_t i = 0; i < 4; i++) {
                struct warm_cuda_loader_config config = { 0, threads[i], 0 };
                struct sink sink = { d_target, 4096, bytes / 4096, 0, 128, 0 };
                struct warm_cuda_loader *l = NULL;
                double start = now();

                CHECK_IS(warm_cuda_loader_new(&config, &l), 0);
                printf("%7u | %6.1f |", threads[i], (now() - start) * 1e3);
                for (uint32_t k = 0; k < 3; k++) {
                        void *src = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);

                        start = now();
                        CHECK_IS(warm_cuda_loader_rows(l, src, 4096, bytes / 4096, 128, sink_take,
                                                       &sink),
                                 0);
                        CHECK_IS(warm_cuda_loader_finish(l), 0);
                        printf(" %5.1f", (double) bytes / (now() - start) / 1e9);
                        munmap(src, bytes);
                }
                start = now();
                warm_cuda_loader_free(l);
                printf(" | %.1f\n", (now() - start) * 1e3);
        }
        close(fd);
}

/* The same once, from the disk. */
static void bench_load_cold(const char *path, uint64_t bytes, uint8_t *d_target) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        void *src = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        struct warm_cuda_loader_config config = { 0, 0, 0 };
        struct sink sink = { d_target, 4096, bytes / 4096, 0, 128, 0 };
        struct warm_cuda_loader *l = NULL;
        double start;

        CHECK_IS(warm_cuda_loader_new(&config, &l), 0);
        CHECK_IS(fsync(fd), 0);
        CHECK_IS(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        start = now();
        CHECK_IS(warm_cuda_loader_rows(l, src, 4096, bytes / 4096, 128, sink_take, &sink), 0);
        CHECK_IS(warm_cuda_loader_finish(l), 0);
        printf("from the disk: %.1f GB/s\n", (double) bytes / (now() - start) / 1e9);
        warm_cuda_loader_free(l);
        munmap(src, bytes);
        close(fd);
}

static void bench_blocks(const struct warm_cuda_range *arena) {
        struct warm_kv_config config = { WARM_TYPE_F16, { 4096 } };
        uint64_t values = 448 << 10, ticket = 0, sum = 0, sums[64];
        struct warm_cuda_kv_memory kv = { 0 };
        struct warm_block_copy copies[64];
        struct warm_kv_info info;
        struct warm_cuda_kv view;
        uint32_t list[64];
        uint8_t *host;
        double start;

        CHECK_IS(warm_cuda_bytes_sum(&blocks, arena->d_base, arena->bytes, &sum), 0);
        start = now();
        CHECK_IS(warm_cuda_bytes_sum(&blocks, arena->d_base, arena->bytes, &sum), 0);
        printf("sum of the arena: %.0f GB/s\n", (double) arena->bytes / (now() - start) / 1e9);
        CHECK_IS(warm_cuda_kv_setup(&kv, &memory, stream, &config, 1, &values, &info), 0);
        start = now();
        CHECK_IS(warm_cuda_kv_chunk_add(&kv, 0, 0), 0);
        printf("add a chunk: %.3f ms", (now() - start) * 1e3);
        start = now();
        CHECK_IS(warm_cuda_kv_chunk_remove(&kv, 0, 0), 0);
        printf(", remove it: %.3f ms\n", (now() - start) * 1e3);
        CHECK_IS(warm_cuda_kv_chunk_add(&kv, 0, 0), 0);
        view = warm_cuda_kv_get(&kv, 0);
        for (uint32_t i = 0; i < 64; i++) {
                list[i] = i * 2;
                copies[i] = (struct warm_block_copy){ 0, 2 * i, 2 * i + 1 };
        }
        for (uint32_t n = 1; n <= 64; n *= 8) {
                for (uint32_t i = 0; i < 101; i++) {
                        if (i == 1) {
                                CHECK_IS(cudaStreamSynchronize(stream), 0);
                                start = now();
                        }
                        CHECK_IS(warm_cuda_blocks_copy(&view, copies, n, stream), 0);
                }
                CHECK_IS(cudaStreamSynchronize(stream), 0);
                printf("copy %2u blocks of 896 KiB: %.1f us\n", n, (now() - start) * 1e4);
        }
        for (uint32_t n = 1; n <= 64; n *= 8) {
                start = now();
                CHECK_IS(warm_cuda_blocks_sum(&blocks, &view, list, n, sums), 0);
                printf("sum %2u blocks: %.1f us\n", n, (now() - start) * 1e6);
        }
        CHECK_IS(cudaHostAlloc((void **) &host, 64 * view.block_bytes, 0), 0);
        for (uint32_t k = 0; k < 2; k++) {
                start = now();
                CHECK_IS(k ? warm_cuda_blocks_write(&blocks, &view, host, list, 64, &ticket)
                           : warm_cuda_blocks_read(&blocks, &view, host, list, 64, &ticket),
                         0);
                CHECK_IS(cudaStreamSynchronize(blocks.stream), 0);
                printf("%s 64 single blocks: %.1f GB/s\n", k ? "write" : "read",
                       64.0 * (double) view.block_bytes / (now() - start) / 1e9);
        }
        CHECK_IS(cudaFreeHost(host), 0);
        warm_cuda_kv_deinit(&kv);
}

static int bench(uint64_t bytes) {
        const char *folder = getenv("TMPDIR");
        struct warm_cuda_range arena;
        struct cudaDeviceProp device;
        uint8_t *part = malloc(64 * MIB);
        char path[256];
        double start = now();
        int fd;

        snprintf(path, sizeof(path), "%s/warm-bench-XXXXXX", folder ? folder : "/tmp");
        fd = mkstemp(path);
        random_fill(part, 64 * MIB, 5);
        for (uint64_t at = 0; at < bytes; at += 64 * MIB)
                if (write(fd, part, 64 * MIB) != (ssize_t) (64 * MIB))
                        return 1;
        close(fd);
        free(part);
        CHECK_IS(cudaGetDeviceProperties(&device, 0), 0);
        printf("%s; file written in %.1f s\n", device.name, now() - start);
        start = now();
        CHECK_IS(warm_cuda_arena_init(&arena, &memory, bytes), 0);
        printf("arena of %llu MiB: %.1f ms\n", (unsigned long long) (bytes / MIB),
               (now() - start) * 1e3);
        bench_load(path, bytes, arena.d_base);
        bench_load_cold(path, bytes, arena.d_base);
        unlink(path);
        bench_blocks(&arena);
        warm_cuda_range_deinit(&arena);
        return failed;
}

int main(int argc, char **argv) {
        if (cuda_setup() != 0) {
                printf("skipped: no GPU\n");
                return 77;
        }
        return bench((argc > 1 ? (uint64_t) atoi(argv[1]) : 4) << 30);
}
